"""A batch of clips becomes logits: ResNet3D, the 2D ResNet with 3D kernels and pooling (paper 4.1, Table 4).

clip_BCTHW is a float tensor (batch, 3, frames, height, width), normalised. The sizes below are those of the 18 net on
32 x 224 x 224 clips with the stem `hara`; `strided` has half the frames in every line:

    stem        conv 7x7x7 stride (1, 2, 2)   64 x 32 x 112 x 112
                max pool 3 stride 2           64 x 16 x  56 x  56
    layer1                                    64 x 16 x  56 x  56
    layer2      stride 2                     128 x  8 x  28 x  28
    layer3      stride 2                     256 x  4 x  14 x  14
    layer4      stride 2                     512 x  2 x   7 x   7
    head        global average pool, linear

Modules carry the names of torchvision's 2D ResNet, so that 2D weights are found by name.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn

from t3d_core.errors import UserError
from t3d_core.model_names import TransitionForm
from t3d_core.models.recompute import RecomputableLayer
from t3d_core.models.ttl_placement import place_ttls
from t3d_core.models.video_net import NUM_CHANNELS, VideoNet

BlockKind = Literal["basic", "bottleneck"]
StemKind = Literal["hara", "strided"]

NUM_INIT_FEATURES = 64
STAGE_CHANNELS = (64, 128, 256, 512)
STEM_TIME_STRIDES: dict[StemKind, int] = {"hara": 1, "strided": 2}
POOL_STRIDE = 2
# Height and width: stem, max pool and three stages.
MIN_SIZE = 2 * POOL_STRIDE * 2**3
TTL_GROWTH_RATE = 16
HALVINGS = {1: True, 2: True, 3: True}


class ResNet3D(VideoNet):
    """ResNet3D with convolution shortcuts (type B).

    Paper: 4.1 describes no stem. Two forms of it are published, each before a max pool of 3 x 3 x 3, stride 2. `hara`,
    stride (1, 2, 2), is that of Hara et al. (arXiv 1708.07632, 1711.09577), who show 16 frames. `strided`, stride
    (2, 2, 2), is for 32 frames and more: a version of Hara's released code switches to it there, and Wang et al.'s
    Non-local nets (arXiv 1711.07971) halve 32 frames by their first convolution, whose kernel is 5 frames deep.

    Args:
        num_classes: Classes of the linear head; 0 leaves the head out, so that `forward` gives features.
        block: Residual block of two 3x3x3 convolutions, or of 1x1x1, 3x3x3 and 1x1x1 with four times the channels.
        layers: Blocks of each of the four stages.
        stem: Whether the first convolution keeps the frames (`hara`) or halves them (`strided`).
        drop_rate: Dropout before the head, in [0, 1).
        ttl: Put a temporal transition layer after each of some stages; it halves the maps in place of the next stage,
            whose stride is 1 then.
        transition_forms: How the TTLs compute their sum, one for all or one each; by default `default_forms`.
        ttl_options: Those of `place_ttls`: `ttl_stages` (some of 1, 2, 3; None: all), `temporal_depths`, `ttl_preset`,
            `growth_rate` (None: 16) and `pool_time`.

    Attributes: those of `VideoNet`.

    Raises:
        UserError: A name is unknown, `layers` are not four of 1 or more, or an option of the TTLs or of `VideoNet` is
            out of range.
    """

    def __init__(
        self,
        num_classes: int = 400,
        *,
        block: BlockKind,
        layers: Sequence[int] = (2, 2, 2, 2),
        stem: StemKind = "hara",
        drop_rate: float = 0.0,
        ttl: bool = False,
        transition_forms: TransitionForm | Sequence[TransitionForm] | None = None,
        **ttl_options: Any,
    ) -> None:
        _check_known("block", block, BLOCKS)
        _check_known("stem", stem, STEM_TIME_STRIDES)
        if len(layers) != len(STAGE_CHANNELS) or min(layers) < 1:
            raise UserError(f"layers {tuple(layers)} must hold {len(STAGE_CHANNELS)} entries, all of them 1 or more")
        ttls = place_ttls(
            ttl=ttl,
            halvings=HALVINGS,
            usual_growth_rate=TTL_GROWTH_RATE,
            transition_forms=transition_forms,
            **ttl_options,
        )
        features, channels = _stem(STEM_TIME_STRIDES[stem]), NUM_INIT_FEATURES
        for stage, (width, num_blocks) in enumerate(zip(STAGE_CHANNELS, layers, strict=True), start=1):
            is_halved = stage > 1 and stage - 1 not in ttls.stages
            blocks = _stage(BLOCKS[block], channels, width, num_blocks=num_blocks, stride=2 if is_halved else 1)
            features.add_module(f"layer{stage}", blocks)
            channels = width * BLOCKS[block].expansion
            transition = ttls.layer_after(stage, in_channels=channels)
            if transition is not None:
                features.add_module(f"transition{stage}", transition)
                channels = transition.out_channels
        super().__init__(
            features,
            num_classes=num_classes,
            feature_dim=channels,
            min_num_frames=STEM_TIME_STRIDES[stem] * POOL_STRIDE * ttls.time_stride(),
            min_size=MIN_SIZE,
            drop_rate=drop_rate,
            transition_forms=transition_forms,
        )


class BasicBlock(RecomputableLayer):
    """Two 3x3x3 convolutions around a shortcut; the first one has the stride.

    Args:
        in_channels: Channels of the incoming maps.
        width: Channels of the 3x3x3 convolutions; `expansion` times as many go out.
        stride: Stride along time, height and width.
    """

    expansion = 1

    def __init__(self, in_channels: int, width: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3x3(in_channels, width, stride=stride)
        self.bn1 = nn.BatchNorm3d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _conv3x3x3(width, width)
        self.bn2 = nn.BatchNorm3d(width)
        self.downsample = _shortcut(in_channels, width * self.expansion, stride=stride)

    def compute(self, x_BCTHW: Tensor) -> Tensor:
        """Maps (B, in_channels, T, H, W) to (B, width, T, H, W), each divided by the stride and rounded up."""
        maps = self.relu(self.bn1(self.conv1(x_BCTHW)))
        return self.relu(self.bn2(self.conv2(maps)) + self.downsample(x_BCTHW))


class Bottleneck(RecomputableLayer):
    """Convolutions 1x1x1, 3x3x3, 1x1x1 around a shortcut; the 3x3x3 one has the stride. Arguments: see `BasicBlock`."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, *, stride: int) -> None:
        super().__init__()
        out_channels = width * self.expansion
        self.conv1 = nn.Conv3d(in_channels, width, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.conv2 = _conv3x3x3(width, width, stride=stride)
        self.bn2 = nn.BatchNorm3d(width)
        self.conv3 = nn.Conv3d(width, out_channels, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm3d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, out_channels, stride=stride)

    def compute(self, x_BCTHW: Tensor) -> Tensor:
        """Maps (B, in_channels, T, H, W) to (B, 4 * width, T, H, W), each divided by the stride and rounded up."""
        maps = self.relu(self.bn1(self.conv1(x_BCTHW)))
        maps = self.relu(self.bn2(self.conv2(maps)))
        return self.relu(self.bn3(self.conv3(maps)) + self.downsample(x_BCTHW))


BLOCKS: dict[BlockKind, type[BasicBlock] | type[Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


def resnet3d_18(num_classes: int = 400, *, layers: Sequence[int] = (2, 2, 2, 2), **arguments: Any) -> ResNet3D:
    """ResNet3D-18; `arguments` are those of `ResNet3D`."""
    return ResNet3D(num_classes, block="basic", layers=layers, **arguments)


def resnet3d_34(num_classes: int = 400, *, layers: Sequence[int] = (3, 4, 6, 3), **arguments: Any) -> ResNet3D:
    """ResNet3D-34; `arguments` are those of `ResNet3D`."""
    return ResNet3D(num_classes, block="basic", layers=layers, **arguments)


def resnet3d_50(num_classes: int = 400, *, layers: Sequence[int] = (3, 4, 6, 3), **arguments: Any) -> ResNet3D:
    """ResNet3D-50; `arguments` are those of `ResNet3D`."""
    return ResNet3D(num_classes, block="bottleneck", layers=layers, **arguments)


def _stem(time_stride: int) -> nn.Sequential:
    """Return conv 7x7x7, BN, ReLU, max pool 3 stride 2."""
    conv = nn.Conv3d(NUM_CHANNELS, NUM_INIT_FEATURES, kernel_size=7, stride=(time_stride, 2, 2), padding=3, bias=False)
    return nn.Sequential(
        OrderedDict(
            conv1=conv,
            bn1=nn.BatchNorm3d(NUM_INIT_FEATURES),
            relu=nn.ReLU(inplace=True),
            maxpool=nn.MaxPool3d(kernel_size=3, stride=POOL_STRIDE, padding=1),
        )
    )


def _stage(
    block: type[BasicBlock] | type[Bottleneck], in_channels: int, width: int, *, num_blocks: int, stride: int
) -> nn.Sequential:
    """Return blocks in a row, the first of them with the stride."""
    others = [block(width * block.expansion, width, stride=1) for _ in range(num_blocks - 1)]
    return nn.Sequential(block(in_channels, width, stride=stride), *others)


def _conv3x3x3(in_channels: int, out_channels: int, *, stride: int = 1) -> nn.Conv3d:
    return nn.Conv3d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)


def _shortcut(in_channels: int, out_channels: int, *, stride: int) -> nn.Module:
    """Return the shortcut of a block: the identity, or (type B) a 1x1x1 convolution and BN where the shape changes."""
    if in_channels == out_channels and stride == 1:
        return nn.Identity()
    conv = nn.Conv3d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)
    return nn.Sequential(conv, nn.BatchNorm3d(out_channels))


def _check_known(name: str, value: object, known: dict[Any, Any]) -> None:
    if value not in known:
        raise UserError(f"{name} {value!r} is unknown; choose one of {', '.join(known)}")
