"""Sizes and squares in whole pixels: what of a frame the network sees (paper 4.4).

Training: short side 256, one of 5 crops of 224 pixels and a flip, both at random. Testing: the centre crop.
Without torch, as the process that decodes untrusted video. Shape letters: T frames, H height, W width, C = 3 colours.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from t3d_core.errors import UserError

_MAX_ASPECT_RATIO = 4 / 3
_NUM_TRIES = 10


class Crop(NamedTuple):
    """A square of `size` pixels whose upper left corner is (top, left)."""

    top: int
    left: int
    size: int


class ScaledCrop(NamedTuple):
    """Frames scaled to `size` (height, width) and the square that is then cut out of them: the input of a decoder."""

    size: tuple[int, int]
    crop: Crop


def five_crops(height: int, width: int, *, crop_size: int) -> tuple[Crop, ...]:
    """The 5 crops of paper 4.4: upper left, upper right, lower left, lower right, centre."""
    if not 1 <= crop_size <= min(height, width):
        raise UserError(f"crop_size must be in 1..{min(height, width)} for {height}x{width} frames, got {crop_size}")
    bottom, right = height - crop_size, width - crop_size
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), (round(bottom / 2), round(right / 2))]
    return tuple(Crop(top, left, crop_size) for top, left in corners)


def center_crop(height: int, width: int, *, crop_size: int) -> Crop:
    """The crop of testing (paper 4.4)."""
    return five_crops(height, width, crop_size=crop_size)[-1]


def view_crops(height: int, width: int, *, crop_size: int, num_crops: int) -> tuple[tuple[Crop, bool], ...]:
    """The crops in which a test clip is scored, each with whether it is mirrored.

        1                3                10
        +---------+      +---------+      +---------+     +---------+
        |  +---+  |      |+--+-+--+|      |+--+ +--+|     |+--+ +--+|
        |  |   |  |      ||  | |  ||      ||  +-+  ||  +  ||  +-+  ||  mirrored
        |  +---+  |      |+--+-+--+|      |+--+ +--+|     |+--+ +--+|
        +---------+      +---------+      +---------+     +---------+

    Paper: 4.4 has the centre alone. 3 lie along the longer side, in the middle of the shorter one; 10 are the five of
    training and the five of the mirrored frame (torchvision's ten_crop, in its order).

    Args:
        height: pixels of the frames.
        width: pixels of the frames.
        crop_size: pixels of the square.
        num_crops: 1, 3 or 10.
    """
    five = five_crops(height, width, crop_size=crop_size)
    center = five[-1]
    if num_crops == 1:
        return ((center, False),)
    if num_crops == 3 and width >= height:
        return tuple((center._replace(left=left), False) for left in (0, center.left, width - crop_size))
    if num_crops == 3:
        return tuple((center._replace(top=top), False) for top in (0, center.top, height - crop_size))
    if num_crops == 10:
        # Where the crops of the mirrored frame lie in the frame itself: a centre may be off by a pixel.
        mirrored = [crop._replace(left=width - crop_size - crop.left) for crop in five]
        return (*((crop, False) for crop in five), *((crop, True) for crop in mirrored))
    raise UserError(f"num_crops must be 1, 3 or 10, got {num_crops}")


def random_five_crop(height: int, width: int, *, crop_size: int, rng: np.random.Generator) -> tuple[Crop, bool]:
    """One of the 5 crops and whether to flip it, both drawn uniformly: the training augmentation of paper 4.4."""
    crops = five_crops(height, width, crop_size=crop_size)
    return crops[rng.integers(len(crops))], bool(rng.integers(2))


def random_resized_crop(
    height: int, width: int, *, crop_size: int, min_area: float, rng: np.random.Generator
) -> ScaledCrop:
    """Any part of the frame, stretched to a square of `crop_size` pixels; not in the paper.

        part 4 high, 3 wide          crop 4 of the frame scaled to 6 x 11
        . . . . . . . .              . . . . . . . . . . .
        . # # # . . . .              . # # # # . . . . . .
        . # # # . . . .     --->     . # # # # . . . . . .
        . # # # . . . .              . # # # # . . . . . .
        . # # # . . . .              . # # # # . . . . . .
        . . . . . . . .              . . . . . . . . . . .

    The part's share of the area is drawn from min_area .. 1 and the logarithm of its aspect ratio from that of
    3/4 .. 4/3, both uniformly, until it fits, as by torchvision's RandomResizedCrop; its place is uniform too.

    Args:
        height: pixels of the frame.
        width: pixels of the frame.
        crop_size: pixels of the square.
        min_area: in (0, 1].
        rng: draws it.
    """
    if not 0 < min_area <= 1:
        raise UserError(f"min_area must be in (0, 1], got {min_area}")
    part_height, part_width = _random_part(height, width, min_area=min_area, rng=rng)
    scaled_height, scaled_width = round(height * crop_size / part_height), round(width * crop_size / part_width)
    top, left = (rng.integers(scaled - crop_size, endpoint=True) for scaled in (scaled_height, scaled_width))
    return ScaledCrop((scaled_height, scaled_width), Crop(int(top), int(left), crop_size))


def same_region(size: tuple[int, int], crop: Crop, *, crop_size: int) -> ScaledCrop:
    """What of a frame a crop shows, as a crop of another size, to the nearest pixel.

    Args:
        size: (height, width) in pixels of the frame that `crop` is cut out of.
        crop: the square.
        crop_size: pixels of the other square.
    """
    height, width = (max(crop_size, round(pixels * crop_size / crop.size)) for pixels in size)
    top, left = (round(place * crop_size / crop.size) for place in (crop.top, crop.left))
    return ScaledCrop((height, width), Crop(min(top, height - crop_size), min(left, width - crop_size), crop_size))


def crop_frames(frames_THWC: npt.NDArray[np.uint8], crop: Crop) -> npt.NDArray[np.uint8]:
    """Cut the same square out of every frame; a contiguous copy."""
    check_inside(crop, *frames_THWC.shape[1:3])
    return frames_THWC[:, crop.top : crop.top + crop.size, crop.left : crop.left + crop.size].copy()


def mirrored(frames_THWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Swap left and right of every frame; a contiguous copy of contiguous frames."""
    # A pixel is copied as one item of three bytes: less than half the time of one of its colours after the other.
    return frames_THWC.view("V3")[:, :, ::-1].copy().view(np.uint8)


def check_inside(crop: Crop, height: int, width: int) -> None:
    """Refuse a crop that does not lie inside frames of this size in pixels."""
    if min(crop.top, crop.left) < 0 or crop.top + crop.size > height or crop.left + crop.size > width:
        raise UserError(f"crop must lie inside the {height}x{width} frames, got {crop}")


def _random_part(height: int, width: int, *, min_area: float, rng: np.random.Generator) -> tuple[int, int]:
    """(height, width) of a part that fits; where ten draws do not, the largest of an allowed aspect ratio."""
    for _ in range(_NUM_TRIES):
        area = height * width * rng.uniform(min_area, 1)
        aspect_ratio = math.exp(rng.uniform(-math.log(_MAX_ASPECT_RATIO), math.log(_MAX_ASPECT_RATIO)))
        part_height, part_width = round(math.sqrt(area / aspect_ratio)), round(math.sqrt(area * aspect_ratio))
        if 0 < part_height <= height and 0 < part_width <= width:
            return part_height, part_width
    return min(height, round(width * _MAX_ASPECT_RATIO)), min(width, round(height * _MAX_ASPECT_RATIO))
