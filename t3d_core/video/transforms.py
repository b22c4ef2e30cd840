"""Cropped clips (uint8) go in, the network's input (float, normalised) comes out (paper 4.4).

Floats appear only on the training device, four times the bytes later; what is cut out of the frames before is in
`cropping`. Shape letters: B clips, T frames, H height, W width, C = 3 colours (RGB).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from t3d_core.errors import UserError


def normalize_clip(clip_BTHWC: Tensor, *, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Turn uint8 clips into (x / 255 - mean) / std with colours first; run it on the training device.

    Args:
        clip_BTHWC: uint8 RGB.
        mean: of R, G, B on the scale 0..1.
        std: of R, G, B on the same scale.

    Returns:
        clip_BCTHW: float32, contiguous, on the device of `clip_BTHWC`.
    """
    if clip_BTHWC.dtype != torch.uint8 or clip_BTHWC.ndim != 5:
        raise UserError(f"clip_BTHWC must be uint8 with 5 axes, got {clip_BTHWC.dtype} {tuple(clip_BTHWC.shape)}")
    scale, shift = (torch.tensor(v, device=clip_BTHWC.device).view(1, -1, 1, 1, 1) for v in (std, mean))
    clip_BCTHW = clip_BTHWC.permute(0, 4, 1, 2, 3).to(torch.float32, memory_format=torch.contiguous_format)
    return clip_BCTHW.div_(255).sub_(shift).div_(scale)
