"""A batch of clips becomes logits: Inception3D, which is I3D, the inflated GoogLeNet (paper 4.1, Table 4).

I3D is that of Carreira & Zisserman (arXiv 1705.07750, Figure 3). clip_BCTHW is a float tensor (batch, 3, frames,
height, width), normalised. The sizes below are those of 32 x 224 x 224 clips:

    stage 1     conv1 7x7x7 stride 2              64 x 16 x 112 x 112, then maxpool1 to 16 x 56 x 56
    stage 2     conv2 1x1x1, conv3 3x3x3         192 x 16 x  56 x  56, then maxpool2 to 16 x 28 x 28
    stage 3     inception3a, b                   480 x 16 x  28 x  28, then maxpool3 to  8 x 14 x 14
    stage 4     inception4a to e                 832 x  8 x  14 x  14, then maxpool4 to  4 x  7 x  7
    stage 5     inception5a, b                  1024 x  4 x   7 x   7
    head        global average pool, linear

Modules carry the names of torchvision's GoogLeNet, so that 2D weights are found by name.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from t3d_core.model_names import TransitionForm
from t3d_core.models.recompute import RecomputableLayer
from t3d_core.models.transition_forms import Axes
from t3d_core.models.ttl_placement import place_ttls
from t3d_core.models.video_net import NUM_CHANNELS, VideoNet

BN_EPS = 1e-3
STEM_STRIDE = 2
# Height and width: the first convolution and four pools.
MIN_SIZE = STEM_STRIDE * 2**4
TTL_GROWTH_RATE = 32
HALVINGS = {1: False, 2: False, 3: True, 4: True}
POOL_SIZES: dict[int, Axes] = {1: (1, 3, 3), 2: (1, 3, 3), 3: (3, 3, 3), 4: (2, 2, 2)}


class InceptionWidths(NamedTuple):
    """Channels of an Inception block: what each branch gives, and what the two 3x3x3 convolutions get."""

    branch1: int
    reduced2: int
    branch2: int
    reduced3: int
    branch3: int
    branch4: int

    @property
    def out_channels(self) -> int:
        """Channels of the branches put together."""
        return self.branch1 + self.branch2 + self.branch3 + self.branch4


INCEPTION_WIDTHS = {
    3: {"a": InceptionWidths(64, 96, 128, 16, 32, 32), "b": InceptionWidths(128, 128, 192, 32, 96, 64)},
    4: {
        "a": InceptionWidths(192, 96, 208, 16, 48, 64),
        "b": InceptionWidths(160, 112, 224, 24, 64, 64),
        "c": InceptionWidths(128, 128, 256, 24, 64, 64),
        "d": InceptionWidths(112, 144, 288, 32, 64, 64),
        "e": InceptionWidths(256, 160, 320, 32, 128, 128),
    },
    5: {"a": InceptionWidths(256, 160, 320, 32, 128, 128), "b": InceptionWidths(384, 192, 384, 48, 128, 128)},
}


class Inception3D(VideoNet):
    """Inception3D, which is I3D except for two things at its borders.

    TensorFlow's SAME puts 2 zeros before and 3 after maps of even size in front of `conv1`; here there are 3 on both
    sides, as in torchvision, so that its maps lie one pixel (and one frame) earlier. And I3D's head averages over two
    frames first, so that the outer frames of the last maps count half. The other pools are the same for even sizes:
    `ceil_mode` takes in what SAME does.

    Args:
        num_classes: Classes of the linear head; 0 leaves the head out, so that `forward` gives features.
        drop_rate: Dropout before the head, in [0, 1); I3D has 0.5.
        ttl: Put a temporal transition layer in place of the max pool after each of some stages.
        transition_forms: How the TTLs compute their sum, one for all or one each; by default `default_forms`.
        ttl_options: Those of `place_ttls`: `ttl_stages` (some of 1 to 4; None: 3 and 4, where the max pool halves the
            frames), `temporal_depths`, `ttl_preset`, `growth_rate` (None: 32) and `pool_time`.

    Attributes: those of `VideoNet`.

    Raises:
        UserError: An option of the TTLs or of `VideoNet` is out of range.
    """

    def __init__(
        self,
        num_classes: int = 400,
        *,
        drop_rate: float = 0.0,
        ttl: bool = False,
        transition_forms: TransitionForm | Sequence[TransitionForm] | None = None,
        **ttl_options: Any,
    ) -> None:
        ttls = place_ttls(
            ttl=ttl,
            halvings=HALVINGS,
            usual_growth_rate=TTL_GROWTH_RATE,
            transition_forms=transition_forms,
            **ttl_options,
        )
        features, channels = nn.Sequential(), NUM_CHANNELS
        for stage in range(1, 6):
            for name, layer in _layers_of_stage(stage, channels).items():
                features.add_module(name, layer)
                channels = layer.out_channels
            transition = ttls.layer_after(stage, in_channels=channels)
            if transition is not None:
                features.add_module(f"transition{stage}", transition)
                channels = transition.out_channels
            elif stage in POOL_SIZES:
                features.add_module(f"maxpool{stage}", _pool_after(stage))
        super().__init__(
            features,
            num_classes=num_classes,
            feature_dim=channels,
            min_num_frames=STEM_STRIDE * ttls.time_stride(),
            min_size=MIN_SIZE,
            drop_rate=drop_rate,
            transition_forms=transition_forms,
        )


class ConvUnit(nn.Module):
    """A convolution without bias, BN, ReLU: what I3D is made of.

    Args:
        in_channels: Channels of the incoming maps.
        out_channels: Channels of the outgoing maps.
        size: Size of the kernel along time, height and width; as many zeros are put around as keep the size.
        stride: Stride along time, height and width.
    """

    def __init__(self, in_channels: int, out_channels: int, *, size: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.conv = nn.Conv3d(in_channels, out_channels, size, stride=stride, padding=size // 2, bias=False)
        self.bn = nn.BatchNorm3d(out_channels, eps=BN_EPS)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Maps (B, in_channels, T, H, W) to (B, out_channels, T, H, W), each divided by the stride and rounded up."""
        return self.relu(self.bn(self.conv(x_BCTHW)))


class InceptionBlock(RecomputableLayer):
    """Four parallel branches, concatenated: 1x1x1; twice 1x1x1 and 3x3x3; max pool 3 and 1x1x1."""

    def __init__(self, in_channels: int, widths: InceptionWidths) -> None:
        super().__init__()
        self.out_channels = widths.out_channels
        self.branch1 = ConvUnit(in_channels, widths.branch1)
        self.branch2 = nn.Sequential(
            ConvUnit(in_channels, widths.reduced2), ConvUnit(widths.reduced2, widths.branch2, size=3)
        )
        self.branch3 = nn.Sequential(
            ConvUnit(in_channels, widths.reduced3), ConvUnit(widths.reduced3, widths.branch3, size=3)
        )
        self.branch4 = nn.Sequential(
            nn.MaxPool3d(kernel_size=3, stride=1, padding=1), ConvUnit(in_channels, widths.branch4)
        )

    def compute(self, x_BCTHW: Tensor) -> Tensor:
        """Maps (B, in_channels, T, H, W) to (B, out_channels, T, H, W)."""
        branches = (self.branch1, self.branch2, self.branch3, self.branch4)
        return torch.cat([branch(x_BCTHW) for branch in branches], dim=1)


def inception3d(num_classes: int = 400, **arguments: Any) -> Inception3D:
    """Inception3D; `arguments` are those of `Inception3D`."""
    return Inception3D(num_classes, **arguments)


def _layers_of_stage(stage: int, in_channels: int) -> dict[str, ConvUnit | InceptionBlock]:
    if stage == 1:
        return {"conv1": ConvUnit(in_channels, 64, size=7, stride=STEM_STRIDE)}
    if stage == 2:
        return {"conv2": ConvUnit(in_channels, 64), "conv3": ConvUnit(64, 192, size=3)}
    blocks: dict[str, ConvUnit | InceptionBlock] = {}
    for letter, widths in INCEPTION_WIDTHS[stage].items():
        blocks[f"inception{stage}{letter}"] = InceptionBlock(in_channels, widths)
        in_channels = widths.out_channels
    return blocks


def _pool_after(stage: int) -> nn.MaxPool3d:
    return nn.MaxPool3d(POOL_SIZES[stage], stride=(2 if HALVINGS[stage] else 1, 2, 2), ceil_mode=True)
