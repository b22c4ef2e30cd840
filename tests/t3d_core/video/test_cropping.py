from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import v2

from t3d_core.video.cropping import (
    Crop,
    center_crop,
    check_inside,
    crop_frames,
    five_crops,
    mirrored,
    random_five_crop,
    random_resized_crop,
    same_region,
    view_crops,
)
from t3d_core.video.decoding import decode_frames


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


@given(height=st.integers(8, 60), width=st.integers(8, 60), crop_size=st.integers(1, 8), seed=st.integers(0, 9))
@settings(deadline=None)
def test_ten_crops_are_those_of_torchvision(height, width, crop_size, seed):
    frames_THWC = np.random.default_rng(seed).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    frames_TCHW = torch.from_numpy(frames_THWC).permute(0, 3, 1, 2)
    crops = view_crops(height, width, crop_size=crop_size, num_crops=10)
    for (crop, is_mirrored), expected in zip(crops, v2.functional.ten_crop(frames_TCHW, [crop_size] * 2), strict=True):
        cut_THWC = mirrored(crop_frames(frames_THWC, crop)) if is_mirrored else crop_frames(frames_THWC, crop)
        assert np.array_equal(cut_THWC, expected.permute(0, 2, 3, 1).numpy())


@given(height=st.integers(8, 60), width=st.integers(8, 60), crop_size=st.integers(1, 8))
@settings(deadline=None)
def test_three_crops_lie_along_the_longer_side_from_end_to_end(height, width, crop_size):
    (first, center, last), are_mirrored = zip(*view_crops(height, width, crop_size=crop_size, num_crops=3), strict=True)
    assert are_mirrored == (False, False, False)
    assert ((center, False),) == view_crops(height, width, crop_size=crop_size, num_crops=1)
    assert center == center_crop(height, width, crop_size=crop_size)
    across, along, longer = ("top", "left", width) if width >= height else ("left", "top", height)
    assert {getattr(crop, across) for crop in (first, last)} == {getattr(center, across)}
    assert (getattr(first, along), getattr(last, along) + crop_size) == (0, longer)


def test_other_numbers_of_crops_are_refused():
    with pytest.raises(ValueError, match="num_crops must be 1, 3 or 10, got 5"):
        view_crops(256, 340, crop_size=224, num_crops=5)


def test_training_draws_every_crop_with_and_without_a_flip():
    rng = np.random.default_rng(0)
    drawn = [random_five_crop(256, 340, crop_size=224, rng=rng) for _ in range(400)]
    combinations = {(crop, is_flipped): 0 for crop in five_crops(256, 340, crop_size=224) for is_flipped in (0, 1)}
    for choice in drawn:
        combinations[choice] += 1
    assert min(combinations.values()) > 20


@given(
    height=st.integers(1, 700),
    width=st.integers(1, 700),
    crop_size=st.integers(1, 300),
    min_area=st.floats(1e-3, 1),
    seed=st.integers(0, 100),
)
def test_a_random_part_of_any_frame_is_a_square_inside_the_scaled_frames(height, width, crop_size, min_area, seed):
    draw = partial(random_resized_crop, height, width, crop_size=crop_size, min_area=min_area)
    size, crop = draw(rng=np.random.default_rng(seed))
    check_inside(crop, *size)
    assert crop.size == crop_size
    assert all(type(number) is int for number in (*size, *crop))
    assert (size, crop) == draw(rng=np.random.default_rng(seed))


@given(height=st.integers(60, 700), width=st.integers(60, 700), min_area=st.floats(0.1, 1), seed=st.integers(0, 100))
def test_a_random_part_has_an_allowed_aspect_ratio_and_area(height, width, min_area, seed):
    rng = np.random.default_rng(seed)
    size, _ = random_resized_crop(height, width, crop_size=224, min_area=min_area, rng=rng)
    part_height, part_width = height * 224 / size[0], width * 224 / size[1]
    assert 0.7 < part_width / part_height < 1.42  # 3/4 .. 4/3 to the nearest pixel
    largest = min(height, width * 4 / 3) * min(width, height * 4 / 3) / (height * width)
    share = part_height * part_width / (height * width)
    assert min(min_area, largest) * 0.94 < share <= 1


def test_random_parts_are_distributed_as_those_of_torchvision():
    height, width, num_draws = 256, 340, 3000
    rng, frame = np.random.default_rng(0), torch.empty(3, height, width)
    torch.manual_seed(0)
    theirs = v2.RandomResizedCrop(224, scale=(0.25, 1.0))
    ours, expected = [], []
    for _ in range(num_draws):
        size, crop = random_resized_crop(height, width, crop_size=224, min_area=0.25, rng=rng)
        scale = np.array([height, width] * 2) / np.array(size * 2)
        ours.append(np.array([crop.top, crop.left, 224, 224]) * scale)
        drawn = theirs.make_params([frame])
        expected.append([drawn[name] for name in ("top", "left", "height", "width")])
    for of_part in (part_areas, part_aspect_ratios, part_tops, part_lefts):
        levels = np.linspace(0.02, 0.98, 49)
        edges = np.quantile(of_part(np.array(expected, float)), levels)
        shares = (of_part(np.array(ours))[:, None] <= edges + 0.5e-3).mean(axis=0)
        assert np.abs(shares - levels).max() < 0.05


def part_areas(parts_N4):
    return parts_N4[:, 2] * parts_N4[:, 3] / (256 * 340)


def part_aspect_ratios(parts_N4):
    return parts_N4[:, 3] / parts_N4[:, 2]


def part_tops(parts_N4):
    """Where between 0 and 1 a part begins, of all places that its height leaves (a part of full height: at 0)."""
    return parts_N4[:, 0] / np.maximum(1, 256 - parts_N4[:, 2])


def part_lefts(parts_N4):
    return parts_N4[:, 1] / np.maximum(1, 340 - parts_N4[:, 3])


def test_the_whole_frame_is_taken_where_only_that_is_allowed():
    rng = np.random.default_rng(0)
    assert random_resized_crop(240, 240, crop_size=112, min_area=1.0, rng=rng) == ((112, 112), Crop(0, 0, 112))
    # too wide for it: the largest part of an allowed aspect ratio
    assert random_resized_crop(240, 960, crop_size=112, min_area=1.0, rng=rng).size == (112, 336)


@pytest.mark.parametrize("min_area", [0.0, 1.1])
def test_a_smallest_area_that_is_no_share_is_refused(min_area):
    with pytest.raises(ValueError, match=r"min_area must be in \(0, 1\], got"):
        random_resized_crop(9, 9, crop_size=4, min_area=min_area, rng=np.random.default_rng(0))


def test_decoded_frames_show_the_random_part_as_torchvision_scales_and_cuts_it(encode):
    data, rng = encode(num_frames=2, size=(96, 128), options={"crf": "5"}), np.random.default_rng(0)
    whole_TCHW = torch.from_numpy(decode_frames(data, [0])).permute(0, 3, 1, 2)
    for _ in range(6):
        size, crop = random_resized_crop(96, 128, crop_size=56, min_area=0.25, rng=rng)
        scaled_TCHW = v2.functional.resize(whole_TCHW, list(size), antialias=True)
        expected_TCHW = v2.functional.crop(scaled_TCHW, crop.top, crop.left, 56, 56).int()
        found_THWC = decode_frames(data, [0], size=size, crop=crop)
        difference = np.abs(found_THWC - expected_TCHW.permute(0, 2, 3, 1).numpy())
        assert difference.mean() < 3
        assert np.median(difference) <= 2


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


def test_mirroring_swaps_left_and_right_in_frames_of_their_own():
    frames = np.random.default_rng(0).integers(0, 256, (2, 6, 7, 3), dtype=np.uint8)
    before = frames.copy()
    swapped = mirrored(frames)
    assert np.array_equal(swapped, np.flip(before, axis=2))
    assert (swapped.dtype, swapped.flags.c_contiguous) == (np.uint8, True)
    assert not np.shares_memory(swapped, frames)
    assert np.array_equal(frames, before)


@pytest.mark.parametrize(
    ("size", "crop", "crop_size", "expected"),
    [
        ((64, 96), Crop(10, 20, 32), 32, ((64, 96), Crop(10, 20, 32))),
        ((64, 96), Crop(10, 20, 32), 64, ((128, 192), Crop(20, 40, 64))),
        ((64, 96), Crop(32, 64, 32), 16, ((32, 48), Crop(16, 32, 16))),
        ((37, 49), Crop(5, 17, 32), 21, ((24, 32), Crop(3, 11, 21))),
    ],
)
def test_the_same_region_is_cut_out_of_a_frame_of_another_scale(size, crop, crop_size, expected):
    assert same_region(size, crop, crop_size=crop_size) == expected
