"""Clips (uint8) go in, clips in other colours come out: the changes in addition to crop and flip (not in the paper).

It runs on the training device, before the clips become floats. Shape letters: B clips, T frames, H height, W width,
C = 3 colours (RGB).
"""

from dataclasses import astuple, dataclass

import torch
from torch import Tensor
from torchvision.transforms import v2


@dataclass(frozen=True)
class ColorAugmentation:
    """Changes the colours of every clip at random, of all its frames alike; all zeros change nothing.

    Draws come from PyTorch's global generator of the CPU, on every device. Brightness, contrast, saturation and hue are
    changed in an order drawn anew for each clip, as by torchvision's ColorJitter, which is used.

    Attributes:
        brightness: in [0, 1]; the factor is drawn from 1 - x .. 1 + x.
        contrast: as brightness; the mean grey of a frame stays.
        saturation: as brightness.
        hue: in [0, 0.5]; the shift is drawn from -x .. x, where 1 is the whole circle of colours.
        gray_share: share of the clips that lose their colours, in [0, 1].
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    gray_share: float = 0.0

    def __call__(self, clip_BTHWC: Tensor) -> Tensor:
        """Return clips of the same shape and type: new ones, or the very same tensor where nothing can change.

        Args:
            clip_BTHWC: uint8 RGB.
        """
        if not any(astuple(self)):
            return clip_BTHWC
        jitter = v2.ColorJitter(self.brightness, self.contrast, self.saturation, self.hue)
        change = v2.Compose([jitter, v2.RandomGrayscale(self.gray_share)])
        changed_BTHWC = torch.empty_like(clip_BTHWC)
        for clip_THWC, changed_THWC in zip(clip_BTHWC, changed_BTHWC, strict=True):
            changed_THWC.permute(0, 3, 1, 2).copy_(change(clip_THWC.permute(0, 3, 1, 2)))
        return changed_BTHWC
