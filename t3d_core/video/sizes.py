"""How large frames are scaled, in whole pixels: what settings need of `cropping`, without numpy (paper 4.4)."""


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
