import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import v2

from t3d_core.video.cropping import (
    Crop,
    center_crop,
    crop_frames,
    default_short_side,
    five_crops,
    random_five_crop,
    resized_size,
)


@pytest.mark.parametrize(("crop_size", "short_side"), [(224, 256), (112, 128), (64, 73)])
def test_the_short_side_keeps_the_paper_s_ratio_to_the_crop(crop_size, short_side):
    assert default_short_side(crop_size) == short_side


@pytest.mark.parametrize(
    ("size", "expected"), [((720, 1280), (256, 455)), ((1280, 720), (455, 256)), ((144, 180), (256, 320))]
)
def test_resizing_sets_the_short_side_and_keeps_the_aspect(size, expected):
    assert resized_size(*size, short_side=256) == expected


@given(height=st.integers(8, 300), width=st.integers(8, 300), crop_size=st.integers(1, 8))
def test_the_five_crops_are_those_of_torchvision(height, width, crop_size):
    pixels = torch.arange(height * width).view(1, height, width)
    for crop, expected in zip(
        five_crops(height, width, crop_size=crop_size), v2.functional.five_crop(pixels, [crop_size] * 2), strict=True
    ):
        cut = pixels[:, crop.top : crop.top + crop_size, crop.left : crop.left + crop_size]
        # torchvision orders them as we do: upper left, upper right, lower left, lower right, centre
        assert torch.equal(cut, expected)


def test_the_testing_crop_is_the_centre():
    assert center_crop(256, 340, crop_size=224) == Crop(16, 58, 224)


def test_training_draws_every_crop_with_and_without_a_flip():
    rng = np.random.default_rng(0)
    drawn = [random_five_crop(256, 340, crop_size=224, rng=rng) for _ in range(400)]
    combinations = {(crop, is_flipped): 0 for crop in five_crops(256, 340, crop_size=224) for is_flipped in (0, 1)}
    for choice in drawn:
        combinations[choice] += 1
    assert min(combinations.values()) > 20


def test_a_crop_larger_than_the_frame_is_refused():
    with pytest.raises(ValueError, match=r"crop_size must be in 1\.\.144 for 144x180 frames, got 224"):
        five_crops(144, 180, crop_size=224)
    with pytest.raises(ValueError, match="crop must lie inside"):
        crop_frames(np.zeros((1, 4, 4, 3), np.uint8), Crop(2, 0, 3))


def test_cropping_copies_the_square():
    frames = np.random.default_rng(0).integers(0, 256, (2, 6, 7, 3), dtype=np.uint8)
    cut = crop_frames(frames, Crop(top=1, left=2, size=4))
    assert np.array_equal(cut, frames[:, 1:5, 2:6])
    assert cut.flags.c_contiguous
    assert not np.shares_memory(cut, frames)
