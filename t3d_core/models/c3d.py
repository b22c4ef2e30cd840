"""A batch of clips becomes logits: C3D with batch normalisation (paper 4.6, Table 9: "C3D w/ BN").

The net is that of Tran et al. (arXiv 1412.0767, Figure 3); BN after every convolution and fully connected layer is
Carreira & Zisserman's (arXiv 1705.07750, 2.2). clip_BCTHW is a float tensor (batch, 3, frames, height, width),
normalised. The sizes below are those of 16 x 112 x 112 clips:

    conv1              64 x 16 x 112 x 112, then pool1 to 16 x 56 x 56
    conv2             128 x 16 x  56 x  56, then pool2 to  8 x 28 x 28
    conv3a, conv3b    256 x  8 x  28 x  28, then pool3 to  4 x 14 x 14
    conv4a, conv4b    512 x  4 x  14 x  14, then pool4 to  2 x  7 x  7
    conv5a, conv5b    512 x  2 x   7 x   7, then pool5 to  1 x  4 x  4
    fc6, fc7          4096
    head              linear
"""

from torch import Tensor, nn

from t3d_core.models.recompute import RecomputableLayer
from t3d_core.models.transition_forms import Axes
from t3d_core.models.video_net import NUM_CHANNELS, VideoNet

FEATURE_DIM = 4096
FC6_MAPS: Axes = (1, 4, 4)
# Time: all pools but the first; height and width: all five.
MIN_NUM_FRAMES, MIN_SIZE = 2**4, 2**5
CONVOLUTIONS = (
    {"conv1": 64},
    {"conv2": 128},
    {"conv3a": 256, "conv3b": 256},
    {"conv4a": 512, "conv4b": 512},
    {"conv5a": 512, "conv5b": 512},
)


class C3D(VideoNet):
    """C3D: eight convolutions 3x3x3, five max pools, two fully connected layers, each with BN and ReLU.

    Clips of any size pass: an adaptive average pool brings the maps to 1 x 4 x 4 for `fc6`; at 16 x 112 x 112 it
    changes nothing. The pools are those of Tran et al.; Carreira & Zisserman, short of memory, halve the frames in
    `pool1` as well. A training batch needs two clips or more, because `fc6` and `fc7` are normalised over clips alone.
    `features` gives the 512 maps before `fc6`; the features of a clip, of another width, come out of `fc7`.

    Args:
        num_classes: Classes of the linear head; 0 leaves the head out, so that `forward` gives features.
        drop_rate: Dropout after `fc6` and after `fc7`, in [0, 1); Tran et al. have 0.5.

    Attributes: those of `VideoNet`.

    Raises:
        UserError: `num_classes` is negative or `drop_rate` is out of range.
    """

    def __init__(self, num_classes: int = 400, *, drop_rate: float = 0.0) -> None:
        features, channels = nn.Sequential(), NUM_CHANNELS
        for index, widths in enumerate(CONVOLUTIONS, start=1):
            for name, width in widths.items():
                features.add_module(name, ConvUnit(channels, width))
                channels = width
            features.add_module(f"pool{index}", _pool(index))
        # The base class drops out what enters the head, which is what `fc7` gives.
        super().__init__(
            features,
            num_classes=num_classes,
            feature_dim=FEATURE_DIM,
            min_num_frames=MIN_NUM_FRAMES,
            min_size=MIN_SIZE,
            drop_rate=drop_rate,
        )
        self.fit_maps = nn.AdaptiveAvgPool3d(FC6_MAPS)
        self.fc6 = FullyConnectedUnit(channels * FC6_MAPS[0] * FC6_MAPS[1] * FC6_MAPS[2], FEATURE_DIM)
        self.drop6 = nn.Dropout(drop_rate)
        self.fc7 = FullyConnectedUnit(FEATURE_DIM, FEATURE_DIM)

    def _pool_features(self, maps_BCTHW: Tensor) -> Tensor:
        return self.fc7(self.drop6(self.fc6(self.fit_maps(maps_BCTHW).flatten(1))))


class ConvUnit(RecomputableLayer):
    """A convolution 3x3x3 without bias, BN, ReLU; the size stays."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.bn = nn.BatchNorm3d(out_channels)
        self.relu = nn.ReLU(inplace=True)

    def compute(self, x_BCTHW: Tensor) -> Tensor:
        """Maps (B, in_channels, T, H, W) to (B, out_channels, T, H, W)."""
        return self.relu(self.bn(self.conv(x_BCTHW)))


class FullyConnectedUnit(nn.Module):
    """A linear layer without bias, BN, ReLU; He initialisation."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias=False)
        self.bn = nn.BatchNorm1d(out_features)
        self.relu = nn.ReLU(inplace=True)
        nn.init.kaiming_normal_(self.linear.weight, nonlinearity="relu")

    def forward(self, x_BD: Tensor) -> Tensor:
        """Maps (B, in_features) to (B, out_features)."""
        return self.relu(self.bn(self.linear(x_BD)))


def c3d(num_classes: int = 400, *, drop_rate: float = 0.0) -> C3D:
    """C3D; arguments are those of `C3D`."""
    return C3D(num_classes, drop_rate=drop_rate)


def _pool(index: int) -> nn.MaxPool3d:
    """Return the pool after the convolutions `index`, from 1 to 5."""
    if index == 1:
        return nn.MaxPool3d((1, 2, 2))
    return nn.MaxPool3d(2, padding=(0, 1, 1) if index == len(CONVOLUTIONS) else 0)
