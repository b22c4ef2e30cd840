"""A batch of clips becomes logits: DenseNet3D, the 2D DenseNet with 3D kernels and pooling (paper 3.1, Table 1).

clip_BCTHW is a float tensor (batch, 3, frames, height, width), normalised. The sizes below are those of the 121 net
on 32 x 224 x 224 clips:

    stem        conv 3x7x7 stride 2           16 x 112 x 112
                max pool 3 stride (1, 2, 2)   16 x  56 x  56
    block 1     6 dense layers                16 x  56 x  56, then transition 1 to 8 x 28 x 28
    block 2     12 dense layers                8 x  28 x  28, then transition 2 to 4 x 14 x 14
    block 3     24 dense layers                4 x  14 x  14, then transition 3 to 2 x  7 x  7
    block 4     16 dense layers                2 x   7 x   7
    head        norm, ReLU, global average pool, linear

Modules carry the names of torchvision's 2D DenseNet, so that 2D weights are found by name. The exception are
transitions, because they have branches.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from t3d_core.errors import UserError
from t3d_core.model_names import TransitionForm
from t3d_core.models.recompute import RecomputableLayer
from t3d_core.models.temporal_transition import TemporalTransitionLayer
from t3d_core.models.video_net import NUM_CHANNELS, VideoNet, checked_drop_rate

STEM_STRIDE = (2, 2, 2)

MakeTransition = Callable[[int, int, bool], TemporalTransitionLayer]
"""Builds the transition after block `index` (from 0) of the net, which has `in_channels` channels, by `pool_time`."""


def halving_transition(index: int, in_channels: int, pool_time: bool) -> TemporalTransitionLayer:
    """Return DenseNet3D's own transition: BN-ReLU-conv 1x1x1 to half the channels, average pool 2x2x2."""
    return TemporalTransitionLayer(
        in_channels, branch_channels=(in_channels // 2,), temporal_depths=(1,), pool_time=pool_time
    )


class DenseNet3D(VideoNet):
    """DenseNet3D of paper 3.1; the defaults are the 121 net of Table 1.

    Args:
        num_classes: Classes of the linear head; 0 leaves the head out, so that `forward` gives features.
        growth_rate: Channels that every dense layer adds.
        block_config: Dense layers of each block.
        num_init_features: Filters of the stem.
        bn_size: The 1x1x1 convolution of a dense layer gives `bn_size * growth_rate` channels.
        drop_rate: Dropout of each dense layer's new channels, in [0, 1); the paper has none.
        stem_pool_stride: Stride of the stem's max pool along time, height, width.
        pool_time: Whether each transition halves the frames, one entry a transition; by default all do, as in Table 1.
        transition_forms: How the transitions compute their sum, one for all or one each; by default `default_forms`.
        make_transition: Builds what stands between two blocks; T3D passes its temporal transition layers here.

    Attributes: those of `VideoNet`.

    Raises:
        UserError: `num_classes` is negative, `block_config` is empty or holds an entry below 1, `drop_rate` is out of
            range, or `pool_time` or `transition_forms` have not one entry a transition.
    """

    def __init__(
        self,
        num_classes: int = 400,
        *,
        growth_rate: int = 32,
        block_config: Sequence[int] = (6, 12, 24, 16),
        num_init_features: int = 64,
        bn_size: int = 4,
        drop_rate: float = 0.0,
        # Paper: Table 1 says "stride 1", yet halves 112 to 56 px and keeps 16 frames: only (1, 2, 2) does both.
        stem_pool_stride: tuple[int, int, int] = (1, 2, 2),
        pool_time: Sequence[bool] | None = None,
        transition_forms: TransitionForm | Sequence[TransitionForm] | None = None,
        make_transition: MakeTransition = halving_transition,
    ) -> None:
        if not block_config or min(block_config) < 1:
            raise UserError(f"block_config {tuple(block_config)} must hold at least one entry, all of them 1 or more")
        pool_time = _one_each(pool_time, num_transitions=len(block_config) - 1)
        features, channels = _stem(num_init_features, stem_pool_stride), num_init_features
        for index, num_layers in enumerate(block_config):
            if index:
                transition = make_transition(index - 1, channels, pool_time[index - 1])
                features.add_module(f"transition{index}", transition)
                channels = transition.out_channels
            block = DenseBlock(
                channels, num_layers=num_layers, growth_rate=growth_rate, bn_size=bn_size, drop_rate=drop_rate
            )
            features.add_module(f"denseblock{index + 1}", block)
            channels = block.out_channels
        features.add_module(f"norm{len(block_config) + 1}", nn.BatchNorm3d(channels))
        features.add_module("relu", nn.ReLU(inplace=True))
        min_num_frames, min_size = _smallest_clip(stem_pool_stride, pool_time)
        super().__init__(
            features,
            num_classes=num_classes,
            feature_dim=channels,
            min_num_frames=min_num_frames,
            min_size=min_size,
            transition_forms=transition_forms,
        )


class DenseBlock(nn.ModuleDict):
    """Dense layers in a row: (B, in_channels, T, H, W) to (B, out_channels, T, H, W).

    The maps of each layer stay separate and are concatenated where they are read. Where layers are recomputed, only
    these maps are kept, so memory grows with the depth of the block, not with its square.
    """

    def __init__(
        self, in_channels: int, *, num_layers: int, growth_rate: int, bn_size: int, drop_rate: float = 0.0
    ) -> None:
        super().__init__()
        self.out_channels = in_channels + num_layers * growth_rate
        for index in range(num_layers):
            layer = DenseLayer(
                in_channels + index * growth_rate, growth_rate=growth_rate, bn_size=bn_size, drop_rate=drop_rate
            )
            self.add_module(f"denselayer{index + 1}", layer)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Return what came in and the new channels of every layer."""
        maps = [x_BCTHW]
        for layer in self.values():
            maps.append(layer(*maps))
        return torch.cat(maps, dim=1)


class DenseLayer(RecomputableLayer):
    """BN-ReLU-conv 1x1x1, BN-ReLU-conv 3x3x3 of all maps before it: `growth_rate` new channels."""

    def __init__(self, in_channels: int, *, growth_rate: int, bn_size: int, drop_rate: float = 0.0) -> None:
        super().__init__()
        width = bn_size * growth_rate
        self.norm1 = nn.BatchNorm3d(in_channels)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv3d(in_channels, width, kernel_size=1, bias=False)
        self.norm2 = nn.BatchNorm3d(width)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv3d(width, growth_rate, kernel_size=3, padding=1, bias=False)
        self.drop = nn.Dropout(checked_drop_rate(drop_rate))

    def compute(self, *maps_BCTHW: Tensor) -> Tensor:
        """Maps several (B, any, T, H, W), in_channels in all, to (B, growth_rate, T, H, W)."""
        squeezed = self.conv1(self.relu1(self.norm1(torch.cat(maps_BCTHW, dim=1))))
        return self.drop(self.conv2(self.relu2(self.norm2(squeezed))))


def densenet3d_121(
    num_classes: int = 400, *, block_config: Sequence[int] = (6, 12, 24, 16), **arguments: Any
) -> DenseNet3D:
    """DenseNet3D-121 of Table 1; `arguments` are those of `DenseNet3D`."""
    return DenseNet3D(num_classes, block_config=block_config, **arguments)


def densenet3d_169(
    num_classes: int = 400, *, block_config: Sequence[int] = (6, 12, 32, 32), **arguments: Any
) -> DenseNet3D:
    """DenseNet3D-169 of Table 1; `arguments` are those of `DenseNet3D`."""
    return DenseNet3D(num_classes, block_config=block_config, **arguments)


def densenet3d_121_wide(num_classes: int = 400, **arguments: Any) -> DenseNet3D:
    """DenseNet3D-121 widened to the multiply-adds of T3D-121 `growth`, both with pooled transitions.

    71.23 against 71.25 GMAC at 32 x 224 x 224: the control that separates the effect of depths from that of
    computation. It has fewer parameters (13.89 M against 15.31 M) and wider features (1,120).
    """
    return densenet3d_121(num_classes, **{"growth_rate": 35, "num_init_features": 70, **arguments})


def _stem(num_init_features: int, pool_stride: tuple[int, int, int]) -> nn.Sequential:
    """Return conv 3x7x7 stride 2, BN, ReLU, max pool 3."""
    conv = nn.Conv3d(
        NUM_CHANNELS, num_init_features, kernel_size=(3, 7, 7), stride=STEM_STRIDE, padding=(1, 3, 3), bias=False
    )
    return nn.Sequential(
        OrderedDict(
            conv0=conv,
            norm0=nn.BatchNorm3d(num_init_features),
            relu0=nn.ReLU(inplace=True),
            pool0=nn.MaxPool3d(kernel_size=3, stride=pool_stride, padding=1),
        )
    )


def _one_each(pool_time: Sequence[bool] | None, *, num_transitions: int) -> Sequence[bool]:
    if pool_time is None:
        return (True,) * num_transitions
    if len(pool_time) != num_transitions:
        raise UserError(
            f"pool_time {tuple(pool_time)} has {len(pool_time)} entries, but block_config has {num_transitions} "
            "transitions: give one entry for each"
        )
    return pool_time


def _smallest_clip(pool_stride: tuple[int, int, int], pool_time: Sequence[bool]) -> tuple[int, int]:
    """Return the frames and pixels that one position of the last maps stands for: the product of all strides."""
    frames, height, width = (stem * pool for stem, pool in zip(STEM_STRIDE, pool_stride, strict=True))
    return frames * 2 ** sum(pool_time), max(height, width) * 2 ** len(pool_time)
