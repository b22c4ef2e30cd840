import colorsys

import numpy as np
import pytest
import torch

from t3d_core.video.augmentation import ColorAugmentation

GREY_OF_RGB = torch.tensor([0.2989, 0.587, 0.114])


def random_clips(num_clips=4, num_frames=3):
    return torch.randint(0, 256, (num_clips, num_frames, 6, 8, 3), dtype=torch.uint8)


def repeated_clips(num_clips):
    """The same frame again and again, with values from which no factor up to 1.5 leads out of 0..255."""
    frame_HWC = torch.randint(60, 160, (6, 8, 3), dtype=torch.uint8)
    return frame_HWC.expand(num_clips, 3, 6, 8, 3)


def greys(clip_BTHWC):
    return clip_BTHWC.float() @ GREY_OF_RGB


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_zeros_give_the_very_same_tensor_and_draw_nothing():
    clips, state = random_clips(), torch.get_rng_state()
    assert ColorAugmentation()(clips) is clips
    assert torch.equal(torch.get_rng_state(), state)


def test_clips_keep_their_shape_and_type_and_what_went_in_is_left_alone():
    clips = random_clips()
    before = clips.clone()
    changed = ColorAugmentation(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, gray_share=0.2)(clips)
    assert (changed.shape, changed.dtype, changed.is_contiguous()) == (clips.shape, torch.uint8, True)
    assert torch.equal(clips, before)
    assert not any(torch.equal(clip, after) for clip, after in zip(clips, changed, strict=True))


def test_brightness_is_one_factor_a_clip_drawn_evenly_from_its_range():
    clips = repeated_clips(300)
    changed = ColorAugmentation(brightness=0.5)(clips)
    factor_B = changed.float().mean(dim=(1, 2, 3, 4)) / clips.float().mean(dim=(1, 2, 3, 4))
    expected = (clips * factor_B.view(-1, 1, 1, 1, 1)).float()
    assert (changed - expected).abs().max() < 2  # rounded down
    quantiles = torch.quantile(factor_B, torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]))
    assert quantiles.tolist() == pytest.approx([0.5, 0.75, 1.0, 1.25, 1.5], abs=0.07)
    assert 0.49 < quantiles[0]
    assert quantiles[-1] < 1.51


@pytest.mark.parametrize("setting", ["contrast", "saturation"])
def test_contrast_and_saturation_move_pixels_along_a_line_through_the_grey(setting):
    clips = repeated_clips(40)
    changed = ColorAugmentation(**{setting: 0.5})(clips).float()
    grey = greys(clips)
    center = grey.mean(dim=(2, 3), keepdim=True)[..., None] if setting == "contrast" else grey[..., None]
    offsets = clips.float() - center
    factor_B = ((changed - center) * offsets).sum(dim=(1, 2, 3, 4)) / offsets.square().sum(dim=(1, 2, 3, 4))
    assert (changed - center - offsets * factor_B.view(-1, 1, 1, 1, 1)).abs().max() < 2.5
    assert 0.47 < factor_B.min() < 0.65
    assert 1.35 < factor_B.max() < 1.53


def test_hue_turns_the_colours_of_a_clip_by_one_angle_in_its_range():
    pixel = torch.tensor([200, 80, 60], dtype=torch.uint8)
    changed = ColorAugmentation(hue=0.1)(pixel.expand(60, 2, 2, 2, 3).contiguous()).double().numpy() / 255
    hsv = np.array([colorsys.rgb_to_hsv(*rgb) for rgb in changed.reshape(-1, 3)]).reshape(60, 8, 3)
    hue, saturation, value = colorsys.rgb_to_hsv(200 / 255, 80 / 255, 60 / 255)
    shift = (hsv[..., 0] - hue + 0.5) % 1 - 0.5
    assert np.ptp(shift, axis=1).max() == 0
    assert -0.11 < shift.min() < -0.08
    assert 0.08 < shift.max() < 0.11
    assert np.abs(hsv[..., 1:] - [saturation, value]).max() < 0.02


def test_the_asked_share_of_clips_loses_its_colours():
    clips = random_clips(num_clips=400, num_frames=2)
    changed = ColorAugmentation(gray_share=0.25)(clips)
    is_gray_B = (changed == changed[..., :1]).all(dim=-1).flatten(1).all(dim=1)
    assert 0.18 < is_gray_B.float().mean() < 0.32
    assert torch.equal(changed[~is_gray_B], clips[~is_gray_B])
    assert (changed[is_gray_B][..., 0] - greys(clips[is_gray_B])).abs().max() <= 1


def test_a_seed_repeats_the_colours():
    augment, clips = ColorAugmentation(brightness=0.4, hue=0.1, gray_share=0.2), random_clips()
    torch.manual_seed(7)
    first = augment(clips)
    assert not torch.equal(augment(clips), first)
    torch.manual_seed(7)
    assert torch.equal(augment(clips), first)
