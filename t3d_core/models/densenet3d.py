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

Modules carry the names of torchvision's 2D DenseNet, so that 2D weights are found by name.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from t3d_core.models.temporal_transition import TemporalTransitionLayer

STEM_STRIDE = (2, 2, 2)

MakeTransition = Callable[[int, int], TemporalTransitionLayer]
"""Builds the transition after block `index` (from 0) of the net, which has `in_channels` channels."""


def halving_transition(index: int, in_channels: int) -> TemporalTransitionLayer:
    """Return DenseNet3D's own transition: BN-ReLU-conv 1x1x1 to half the channels, average pool 2x2x2."""
    return TemporalTransitionLayer(in_channels, branch_channels=(in_channels // 2,), temporal_depths=(1,))


class DenseNet3D(nn.Module):
    """DenseNet3D of paper 3.1; the defaults are the 121 net of Table 1.

    Args:
        num_classes: Classes of the linear head; 0 leaves the head out, so that `forward` gives features.
        growth_rate: Channels that every dense layer adds.
        block_config: Dense layers of each block.
        num_init_features: Filters of the stem.
        bn_size: The 1x1x1 convolution of a dense layer gives `bn_size * growth_rate` channels.
        drop_rate: Dropout of each dense layer's new channels, in [0, 1); the paper has none.
        stem_pool_stride: Stride of the stem's max pool along time, height, width.
        make_transition: Builds what stands between two blocks; T3D passes its temporal transition layers here.

    Attributes:
        feature_dim: Width D of `forward_features`.
        min_num_frames: Fewest frames of a clip.
        min_size: Smallest height and width of a clip, in pixels.

    Raises:
        ValueError: `num_classes` is negative, or `block_config` is empty or holds an entry below 1.
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
        make_transition: MakeTransition = halving_transition,
    ) -> None:
        super().__init__()
        if not block_config or min(block_config) < 1:
            raise ValueError(f"block_config {tuple(block_config)} must hold at least one entry, all of them 1 or more")
        self.features, self.feature_dim = _stem(num_init_features, stem_pool_stride), num_init_features
        for index, num_layers in enumerate(block_config):
            if index:
                transition = make_transition(index - 1, self.feature_dim)
                self.features.add_module(f"transition{index}", transition)
                self.feature_dim = transition.out_channels
            block = DenseBlock(
                self.feature_dim, num_layers=num_layers, growth_rate=growth_rate, bn_size=bn_size, drop_rate=drop_rate
            )
            self.features.add_module(f"denseblock{index + 1}", block)
            self.feature_dim = block.out_channels
        self.features.add_module(f"norm{len(block_config) + 1}", nn.BatchNorm3d(self.feature_dim))
        self.min_num_frames, self.min_size = _smallest_clip(stem_pool_stride, num_transitions=len(block_config) - 1)
        self.classifier: nn.Module = nn.Identity()
        self.reset_classifier(num_classes)
        self._init_weights()

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the head by a fresh linear layer of `num_classes` outputs, or by none for 0.

        Raises:
            ValueError: `num_classes` is negative.
        """
        if num_classes < 0:
            raise ValueError(f"num_classes {num_classes} must be 0 (no head) or more")
        if num_classes == 0:
            self.classifier = nn.Identity()
            return
        reference = next(self.parameters())
        linear = nn.Linear(self.feature_dim, num_classes, device=reference.device, dtype=reference.dtype)
        nn.init.zeros_(linear.bias)
        self.classifier = linear

    def forward(self, clip_BCTHW: Tensor) -> Tensor:
        """Return the logits (B, num_classes) of a batch of clips, or its features (B, D) when there is no head.

        Raises:
            ValueError: The tensor has not five dimensions, or fewer frames or pixels than the net needs.
        """
        return self.classifier(self.forward_features(clip_BCTHW))

    def forward_features(self, clip_BCTHW: Tensor) -> Tensor:
        """Return the globally averaged features (B, feature_dim); errors are those of `forward`."""
        self._check_clip(clip_BCTHW)
        return nn.functional.relu(self.features(clip_BCTHW), inplace=True).mean(dim=(2, 3, 4))

    def _check_clip(self, clip_BCTHW: Tensor) -> None:
        if clip_BCTHW.ndim != 5:
            raise ValueError(f"a clip of shape {tuple(clip_BCTHW.shape)} must be (batch, channels, frames, H, W)")
        num_frames, height, width = clip_BCTHW.shape[2:]
        if num_frames < self.min_num_frames or min(height, width) < self.min_size:
            raise ValueError(
                f"a clip of {num_frames} frames of {height} x {width} px is too small: this net needs at least "
                f"{self.min_num_frames} frames of {self.min_size} x {self.min_size} px"
            )

    def _init_weights(self) -> None:
        """He initialisation (paper 4.1, reference [14]); batch norm starts at 1 and 0, as PyTorch does."""
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")


class DenseBlock(nn.Sequential):
    """Dense layers in a row: (B, in_channels, T, H, W) to (B, out_channels, T, H, W)."""

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


class DenseLayer(nn.Module):
    """BN-ReLU-conv 1x1x1, BN-ReLU-conv 3x3x3; its `growth_rate` new channels are appended to what came in."""

    def __init__(self, in_channels: int, *, growth_rate: int, bn_size: int, drop_rate: float = 0.0) -> None:
        super().__init__()
        width = bn_size * growth_rate
        self.norm1 = nn.BatchNorm3d(in_channels)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv3d(in_channels, width, kernel_size=1, bias=False)
        self.norm2 = nn.BatchNorm3d(width)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv3d(width, growth_rate, kernel_size=3, padding=1, bias=False)
        self.drop = nn.Dropout(drop_rate)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Maps (B, in_channels, T, H, W) to (B, in_channels + growth_rate, T, H, W)."""
        squeezed = self.conv1(self.relu1(self.norm1(x_BCTHW)))
        new = self.drop(self.conv2(self.relu2(self.norm2(squeezed))))
        return torch.cat([x_BCTHW, new], dim=1)


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


def _stem(num_init_features: int, pool_stride: tuple[int, int, int]) -> nn.Sequential:
    """Return conv 3x7x7 stride 2, BN, ReLU, max pool 3."""
    conv = nn.Conv3d(3, num_init_features, kernel_size=(3, 7, 7), stride=STEM_STRIDE, padding=(1, 3, 3), bias=False)
    return nn.Sequential(
        OrderedDict(
            conv0=conv,
            norm0=nn.BatchNorm3d(num_init_features),
            relu0=nn.ReLU(inplace=True),
            pool0=nn.MaxPool3d(kernel_size=3, stride=pool_stride, padding=1),
        )
    )


def _smallest_clip(pool_stride: tuple[int, int, int], *, num_transitions: int) -> tuple[int, int]:
    """Return the frames and pixels that one position of the last maps stands for: the product of all strides."""
    frames, height, width = (
        stem * pool * 2**num_transitions for stem, pool in zip(STEM_STRIDE, pool_stride, strict=True)
    )
    return frames, max(height, width)
