"""Feature maps after a block become half-size maps that mixed several temporal depths (paper 3.1, Table 1).

The Temporal Transition Layer (TTL) convolves the same maps along time with several kernel depths in parallel,
concatenates the results and halves time, height and width:

            +- BN-ReLU-conv 1x1x1 -+
    x_BCTHW +- BN-ReLU-conv 3x3x3 -+- concat - average pool 2x2x2
            +- BN-ReLU-conv 6x3x3 -+

A TTL with the single depth 1 is the transition of a DenseNet3D.
"""

from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor, nn

from t3d_core.errors import UserError
from t3d_core.model_names import TransitionForm, TtlPreset
from t3d_core.models.recompute import RecomputableLayer
from t3d_core.models.transition_forms import Axes, checked_form, convolve_and_pool

NO_POOL: Axes = (1, 1, 1)
TABLE_1_DEPTHS = ((1, 3, 6), (1, 3, 4), (1, 3, 4))
RELEASED_DEPTHS = ((1, 3, 4), (1, 3, 4), (1, 3, 4))


class TemporalTransitionLayer(nn.Module):
    """Parallel convolutions of different temporal depth, concatenated, then average pooled 2x2x2.

    Args:
        in_channels: Channels of the incoming maps.
        branch_channels: Channels that each branch gives, one entry a branch.
        temporal_depths: Frames that each branch's kernel spans, one entry a branch. Depth 1 is a 1x1x1 convolution,
            every other depth d is d x 3 x 3.
        mix_branches: Put BN-ReLU-conv 1x1x1 between the concatenation and the pooling, as the released code does.
        pool_time: Halve the frames as well as height and width.
        form: How the convolutions and the pooling are summed up: all forms give the same result from the same weights,
            at different costs (see `transition_forms`). It may be changed at any time.

    Attributes:
        out_channels: Channels of the outgoing maps.
        form: As given.

    Raises:
        UserError: The two sequences are empty or differ in length, an entry of them is below 1, or `form` is unknown.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        branch_channels: Sequence[int],
        temporal_depths: Sequence[int],
        mix_branches: bool = False,
        pool_time: bool = True,
        form: TransitionForm = "pooled",
    ) -> None:
        super().__init__()
        if len(branch_channels) != len(temporal_depths):
            raise UserError(
                f"branch_channels {tuple(branch_channels)} and temporal_depths {tuple(temporal_depths)} "
                "must have one entry a branch each"
            )
        _check_positive("branch_channels", branch_channels)
        _check_positive("temporal_depths", temporal_depths)
        self.out_channels = sum(branch_channels)
        self.form: TransitionForm = checked_form(form)
        pool = (2 if pool_time else 1, 2, 2)
        self.branches = nn.ModuleList(
            TemporalBranch(in_channels, channels, temporal_depth=depth, pool=NO_POOL if mix_branches else pool)
            for channels, depth in zip(branch_channels, temporal_depths, strict=True)
        )
        self.mix = (
            TemporalBranch(self.out_channels, self.out_channels, temporal_depth=1, pool=pool) if mix_branches else None
        )

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Maps (B, in_channels, T, H, W) to (B, out_channels, T // 2, H // 2, W // 2), or T where time is kept."""
        # The literal form is the sentence of the paper: concatenate, then pool. Pooling acts on each channel by itself.
        merged = torch.cat([branch(x_BCTHW, self.form) for branch in self.branches], dim=1)
        return merged if self.mix is None else self.mix(merged, self.form)


class TemporalBranch(RecomputableLayer):
    """BN-ReLU-conv over `temporal_depth` frames that keeps time, height and width, then an average pool.

    Paper: 3.1 names depths 4 and 6 but no padding. Even depths are padded with one frame more at the end,
    ((d - 1) // 2, d // 2), which is what `padding="same"` does.

    Args:
        in_channels: Channels of the incoming maps.
        out_channels: Channels of the outgoing maps.
        temporal_depth: Frames d of the kernel, which is 1 x 1 x 1 or d x 3 x 3.
        pool: Size of the pool along time, height and width.
    """

    def __init__(self, in_channels: int, out_channels: int, *, temporal_depth: int, pool: Axes = NO_POOL) -> None:
        super().__init__()
        size = 1 if temporal_depth == 1 else 3
        self.pool = pool
        self.norm = nn.BatchNorm3d(in_channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv3d(in_channels, out_channels, kernel_size=(temporal_depth, size, size), bias=False)

    def compute(self, x_BCTHW: Tensor, form: TransitionForm = "literal") -> Tensor:
        """Maps (B, in_channels, T, H, W) to (B, out_channels, T, H, W), divided by `pool`."""
        return convolve_and_pool(self.relu(self.norm(x_BCTHW)), self.conv.weight, pool=self.pool, form=form)


def temporal_transition(
    in_channels: int,
    out_channels: int,
    *,
    preset: TtlPreset,
    temporal_depths: Sequence[int],
    growth_rate: int,
    place: str,
    pool_time: bool = True,
) -> TemporalTransitionLayer:
    """Build the TTL of a preset; `out_channels` and errors are those of `branch_channels_of_preset`."""
    widths = branch_channels_of_preset(
        preset, out_channels=out_channels, temporal_depths=temporal_depths, growth_rate=growth_rate, place=place
    )
    return TemporalTransitionLayer(
        in_channels,
        branch_channels=widths,
        temporal_depths=temporal_depths,
        mix_branches=preset == "official128",
        pool_time=pool_time,
    )


def branch_channels_of_preset(
    preset: TtlPreset, *, out_channels: int, temporal_depths: Sequence[int], growth_rate: int, place: str
) -> tuple[int, ...]:
    """Return the channels of each branch of a TTL, in the order of `temporal_depths`.

    Paper: 3.1: the widths are never given, only "different channel-depths". Of `out_channels` (half of what comes in,
    in a DenseNet3D), `growth` gives `growth_rate` to each branch and the rest to the shallowest one: the simple rule
    that has 1.3x the parameters of DenseNet3D, 1024-d features for 121, and different widths. `thirds` gives equal
    parts, the remainder to the shallowest branch. `official128`, the released code, gives 128 to each branch.

    Args:
        preset: Name of the rule.
        out_channels: Channels that the branches share; `official128` has its own.
        temporal_depths: Kernel depths of the branches.
        growth_rate: Growth rate of the net.
        place: Where the TTL stands, such as "block 1"; only named in errors.

    Raises:
        UserError: The preset is unknown, there is no branch, or a width falls below 1.
    """
    if preset not in get_args(TtlPreset):
        raise UserError(f"ttl_preset {preset!r} is unknown; choose one of {', '.join(get_args(TtlPreset))}")
    _check_positive("temporal_depths", temporal_depths)
    num_branches = len(temporal_depths)
    if preset == "official128":
        return (128,) * num_branches
    width = growth_rate if preset == "growth" else out_channels // num_branches
    widths = [width] * num_branches
    widths[temporal_depths.index(min(temporal_depths))] = out_channels - width * (num_branches - 1)
    if min(widths) < 1:
        raise UserError(
            f"the TTL after {place} would have branches of {widths} channels for temporal_depths "
            f"{tuple(temporal_depths)} (ttl_preset {preset!r}, {out_channels} channels to share), but each needs at "
            "least 1: widen the net, or lower growth_rate or the number of depths"
        )
    return tuple(widths)


def _check_positive(name: str, values: Sequence[int]) -> None:
    if not values or min(values) < 1:
        raise UserError(f"{name} {tuple(values)} must hold at least one entry, all of them 1 or more")
