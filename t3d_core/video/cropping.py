"""Sizes and squares in whole pixels: what of a frame the network sees (paper 4.4).

Training: short side 256, one of 5 crops of 224 pixels and a flip, both at random. Testing: the centre crop.
Without torch, as the process that decodes untrusted video. Shape letters: T frames, H height, W width, C = 3 colours.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Crop(NamedTuple):
    """A square of `size` pixels whose upper left corner is (top, left)."""

    top: int
    left: int
    size: int


def default_short_side(crop_size: int) -> int:
    """Short side in pixels that shows as much of the scene around the crop as 256 does around 224 (paper 4.4).

    Paper: only 224 in 256 is given; a crop of 112 from 256 would show a patch instead of the scene (Table 5).
    """
    return round(crop_size * 256 / 224)


def resized_size(height: int, width: int, *, short_side: int) -> tuple[int, int]:
    """(height, width) in pixels scaled so that the shorter one is `short_side`, aspect kept to the nearest pixel.

    Paper: 4.4 resizes "when smaller" only; we scale larger frames down as well, or the crop would show a patch.
    """
    short = min(height, width)
    return round(height * short_side / short), round(width * short_side / short)


def five_crops(height: int, width: int, *, crop_size: int) -> tuple[Crop, ...]:
    """The 5 crops of paper 4.4: upper left, upper right, lower left, lower right, centre."""
    if not 1 <= crop_size <= min(height, width):
        raise ValueError(f"crop_size must be in 1..{min(height, width)} for {height}x{width} frames, got {crop_size}")
    bottom, right = height - crop_size, width - crop_size
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), (round(bottom / 2), round(right / 2))]
    return tuple(Crop(top, left, crop_size) for top, left in corners)


def center_crop(height: int, width: int, *, crop_size: int) -> Crop:
    """The crop of testing (paper 4.4)."""
    return five_crops(height, width, crop_size=crop_size)[-1]


def random_five_crop(height: int, width: int, *, crop_size: int, rng: np.random.Generator) -> tuple[Crop, bool]:
    """One of the 5 crops and whether to flip it, both drawn uniformly: the training augmentation of paper 4.4."""
    crops = five_crops(height, width, crop_size=crop_size)
    return crops[rng.integers(len(crops))], bool(rng.integers(2))


def crop_frames(frames_THWC: npt.NDArray[np.uint8], crop: Crop) -> npt.NDArray[np.uint8]:
    """Cut the same square out of every frame; a contiguous copy."""
    check_inside(crop, *frames_THWC.shape[1:3])
    return frames_THWC[:, crop.top : crop.top + crop.size, crop.left : crop.left + crop.size].copy()


def check_inside(crop: Crop, height: int, width: int) -> None:
    """Refuse a crop that does not lie inside frames of this size in pixels."""
    if min(crop.top, crop.left) < 0 or crop.top + crop.size > height or crop.left + crop.size > width:
        raise ValueError(f"crop must lie inside the {height}x{width} frames, got {crop}")
