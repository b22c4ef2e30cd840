"""A batch of clips and labels becomes clips mixed of two and labels shared by two: mixup and CutMix (not in the paper).

Legend: B videos of a batch, S clips of each, C channels, T frames, H x W pixels, K classes.
"""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from t3d_core.errors import UserError


class MixedBatch(NamedTuple):
    """Mixed clips, shaped as the input, and the share of each class in them: `share_BK` float32, rows sum to 1."""

    clip_BCTHW: Tensor
    share_BK: Tensor


@dataclass(frozen=True)
class Mixing:
    """Mixes every video with the one before it in the batch, whose order must be random already.

    mixup lays one over the other; CutMix puts a rectangle of one into the other, the same in all frames:

        mixup   a a a a       CutMix   a a a a        a = 1 - w own + w other
                a a a a                a b b a        b = other, w = share of b's pixels
                a a a a                a b b a

    Draws come from PyTorch's global generator of the CPU, once a batch, and a batch gets one of the two. The kernels
    are torchvision's.

    Attributes:
        mixup_alpha: w is from Beta(x, x); 0: no mixup.
        cutmix_alpha: the share of the rectangle is from Beta(x, x), less what lies outside the frame; 0: no CutMix.
        num_classes: K.
    """

    mixup_alpha: float
    cutmix_alpha: float
    num_classes: int

    def __post_init__(self) -> None:
        alphas = self.mixup_alpha, self.cutmix_alpha
        if min(alphas) < 0 or max(alphas) == 0:
            raise UserError(
                f"mixup_alpha {self.mixup_alpha} and cutmix_alpha {self.cutmix_alpha} must be 0 or more, and one of "
                "them more than 0: otherwise leave mixing out"
            )

    def __call__(self, clip_BCTHW: Tensor, label_B: Tensor) -> MixedBatch:
        """Return new clips and soft labels; what went in is left as it is.

        Args:
            clip_BCTHW: normalised clips of any float type, S of each video, one video after the other (B * S clips).
                All clips of a video are mixed with those of the same other video, with the same weight or rectangle.
            label_B: class of each video.
        """
        # To torchvision a video is five axes with height and width last: the S clips go next to the channels.
        clip_BXTHW = clip_BCTHW.unflatten(0, (len(label_B), -1)).flatten(1, 2)
        mixed_BXTHW, share_BK = self._mixer()(tv_tensors.Video(clip_BXTHW), label_B)
        return MixedBatch(mixed_BXTHW.as_subclass(Tensor).view_as(clip_BCTHW), share_BK)

    def _mixer(self) -> v2.Transform:
        alphas = {v2.MixUp: self.mixup_alpha, v2.CutMix: self.cutmix_alpha}
        return v2.RandomChoice([mix(alpha=a, num_classes=self.num_classes) for mix, a in alphas.items() if a > 0])
