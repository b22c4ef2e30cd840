"""Feature maps after a block become half-size maps that mixed several temporal depths (paper 3.1, Table 1).

The Temporal Transition Layer (TTL) convolves the same maps along time with several kernel depths in parallel,
concatenates the results and halves time, height and width:

            +- BN-ReLU-conv 1x1x1 -+
    x_BCTHW +- BN-ReLU-conv 3x3x3 -+- concat - average pool 2x2x2
            +- BN-ReLU-conv 6x3x3 -+

A TTL with the single depth 1 is the transition of a DenseNet3D.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

TtlPreset = Literal["growth", "thirds", "official128"]


class TemporalTransitionLayer(nn.Module):
    """Parallel convolutions of different temporal depth, concatenated, then average pooled 2x2x2.

    Args:
        in_channels: Channels of the incoming maps.
        branch_channels: Channels that each branch gives, one entry a branch.
        temporal_depths: Frames that each branch's kernel spans, one entry a branch. Depth 1 is a 1x1x1 convolution,
            every other depth d is d x 3 x 3.
        mix_branches: Put BN-ReLU-conv 1x1x1 between the concatenation and the pooling, as the released code does.

    Raises:
        ValueError: The two sequences are empty or differ in length, or an entry of them is below 1.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        branch_channels: Sequence[int],
        temporal_depths: Sequence[int],
        mix_branches: bool = False,
    ) -> None:
        super().__init__()
        if len(branch_channels) != len(temporal_depths):
            raise ValueError(
                f"branch_channels {tuple(branch_channels)} and temporal_depths {tuple(temporal_depths)} "
                "must have one entry a branch each"
            )
        _check_positive("branch_channels", branch_channels)
        _check_positive("temporal_depths", temporal_depths)
        self.out_channels = sum(branch_channels)
        self.branches = nn.ModuleList(
            TemporalBranch(in_channels, channels, temporal_depth=depth)
            for channels, depth in zip(branch_channels, temporal_depths, strict=True)
        )
        self.mix = TemporalBranch(self.out_channels, self.out_channels, temporal_depth=1) if mix_branches else None
        self.pool = nn.AvgPool3d(kernel_size=2, stride=2)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Maps (B, in_channels, T, H, W) to (B, out_channels, T // 2, H // 2, W // 2)."""
        merged = torch.cat([branch(x_BCTHW) for branch in self.branches], dim=1)
        return self.pool(merged if self.mix is None else self.mix(merged))


class TemporalBranch(nn.Module):
    """BN-ReLU-conv over `temporal_depth` frames that keeps time, height and width.

    Paper: 3.1 names depths 4 and 6 but no padding. Even depths are padded with one frame more at the end,
    ((d - 1) // 2, d // 2), which is what `padding="same"` does.
    """

    def __init__(self, in_channels: int, out_channels: int, *, temporal_depth: int) -> None:
        super().__init__()
        size = 1 if temporal_depth == 1 else 3
        self.extra_end_frames = 1 - temporal_depth % 2
        self.norm = nn.BatchNorm3d(in_channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv3d(
            in_channels,
            out_channels,
            kernel_size=(temporal_depth, size, size),
            padding=((temporal_depth - 1) // 2, size // 2, size // 2),
            bias=False,
        )

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Maps (B, in_channels, T, H, W) to (B, out_channels, T, H, W)."""
        x_BCTHW = self.relu(self.norm(x_BCTHW))
        if self.extra_end_frames:
            x_BCTHW = nn.functional.pad(x_BCTHW, (0, 0, 0, 0, 0, self.extra_end_frames))
        return self.conv(x_BCTHW)


def branch_channels_of_preset(
    preset: TtlPreset, *, in_channels: int, temporal_depths: Sequence[int], growth_rate: int, block: int
) -> tuple[int, ...]:
    """Return the channels of each branch of the TTL after `block`, in the order of `temporal_depths`.

    Paper: 3.1: the widths are never given, only "different channel-depths". Of `in_channels // 2` channels,
    `growth` gives `growth_rate` to each branch and the rest to the shallowest one: the simple rule that has 1.3x the
    parameters of DenseNet3D, 1024-d features for 121, and different widths. `thirds` gives equal parts, the remainder
    to the shallowest branch. `official128`, the released code, gives 128 to each branch.

    Args:
        preset: Name of the rule.
        in_channels: Channels that enter the TTL.
        temporal_depths: Kernel depths of its branches.
        growth_rate: Growth rate of the net.
        block: Number of the dense block before the TTL, from 1; only named in errors.

    Raises:
        ValueError: The preset is unknown, there is no branch, or a width falls below 1.
    """
    if preset not in get_args(TtlPreset):
        raise ValueError(f"ttl_preset {preset!r} is unknown; choose one of {', '.join(get_args(TtlPreset))}")
    _check_positive("temporal_depths", temporal_depths)
    num_branches = len(temporal_depths)
    if preset == "official128":
        return (128,) * num_branches
    half = in_channels // 2
    width = growth_rate if preset == "growth" else half // num_branches
    widths = [width] * num_branches
    widths[temporal_depths.index(min(temporal_depths))] = half - width * (num_branches - 1)
    if min(widths) < 1:
        raise ValueError(
            f"the TTL after block {block} would have branches of {widths} channels for temporal_depths "
            f"{tuple(temporal_depths)} (ttl_preset {preset!r}, {half} channels to share), but each needs at least 1: "
            "raise num_init_features or block_config, or lower growth_rate or the number of depths"
        )
    return tuple(widths)


def _check_positive(name: str, values: Sequence[int]) -> None:
    if not values or min(values) < 1:
        raise ValueError(f"{name} {tuple(values)} must hold at least one entry, all of them 1 or more")
