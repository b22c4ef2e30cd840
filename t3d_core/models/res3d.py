"""A batch of clips becomes logits: Res3D-18, which is torchvision's `r3d_18` (paper 4.6, Table 10).

clip_BCTHW is a float tensor (batch, 3, frames, height, width), normalised. Unlike in ResNet3D-18, the stem is a
convolution 3x7x7 of stride (1, 2, 2), and no max pool follows (Tran et al., arXiv 1708.05038 and 1711.11248).
"""

from collections import OrderedDict

from torch import Tensor, nn
from torchvision.models.video import VideoResNet
from torchvision.models.video import resnet as r3d

from t3d_core.models.recompute import RecomputableLayer
from t3d_core.models.video_net import VideoNet

FEATURE_DIM = 512
# Time: three stages; height and width: the stem too.
MIN_NUM_FRAMES, MIN_SIZE = 2**3, 2**4
PARTS = ("stem", "layer1", "layer2", "layer3", "layer4")


class Res3D(VideoNet):
    """Res3D-18; modules of `features` carry torchvision's names, so that weights of its `r3d_18` fit except the head.

    Args:
        num_classes: Classes of the linear head; 0 leaves the head out, so that `forward` gives features.
        drop_rate: Dropout before the head, in [0, 1).

    Attributes: those of `VideoNet`.

    Raises:
        UserError: `num_classes` is negative or `drop_rate` is out of range.
    """

    def __init__(self, num_classes: int = 400, *, drop_rate: float = 0.0) -> None:
        net = VideoResNet(
            block=ResidualBlock, conv_makers=[r3d.Conv3DSimple] * 4, layers=[2, 2, 2, 2], stem=r3d.BasicStem
        )
        super().__init__(
            nn.Sequential(OrderedDict((name, net.get_submodule(name)) for name in PARTS)),
            num_classes=num_classes,
            feature_dim=FEATURE_DIM,
            min_num_frames=MIN_NUM_FRAMES,
            min_size=MIN_SIZE,
            drop_rate=drop_rate,
        )


class ResidualBlock(RecomputableLayer, r3d.BasicBlock):
    """torchvision's residual block of two 3x3x3 convolutions, whose activations can be recomputed."""

    def compute(self, x_BCTHW: Tensor) -> Tensor:
        """Maps (B, in_channels, T, H, W) to (B, out_channels, T, H, W), each divided by the stride and rounded up."""
        return r3d.BasicBlock.forward(self, x_BCTHW)


def res3d_18(num_classes: int = 400, *, drop_rate: float = 0.0) -> Res3D:
    """Res3D-18; arguments are those of `Res3D`."""
    return Res3D(num_classes, drop_rate=drop_rate)
