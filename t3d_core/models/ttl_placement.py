"""The TTL options of a net become the temporal transition layer after each of its stages (paper 3.1).

"One can readily employ our TTL in other architectures such as Res3D or I3D" (paper 3.1): there a TTL halves the maps in
place of what the net itself does after that stage.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from t3d_core.errors import UserError
from t3d_core.model_names import TtlPreset
from t3d_core.models.temporal_transition import (
    RELEASED_DEPTHS,
    TABLE_1_DEPTHS,
    TemporalTransitionLayer,
    temporal_transition,
)


@dataclass(frozen=True)
class TtlPlacement:
    """Where TTLs stand in a net, and what they are.

    Attributes:
        halvings: For each stage after which the maps are halved, whether the net itself halves the frames there too.
        stages: Stages with a TTL behind them, ascending; empty where the net has none.
        temporal_depths: Kernel depths of each TTL's branches.
        pool_time: Whether each TTL halves the frames.
        preset: How wide the branches are.
        growth_rate: Width of a branch for the preset `growth`.
    """

    halvings: Mapping[int, bool]
    stages: tuple[int, ...]
    temporal_depths: tuple[tuple[int, ...], ...]
    pool_time: tuple[bool, ...]
    preset: TtlPreset
    growth_rate: int

    def layer_after(self, stage: int, *, in_channels: int) -> TemporalTransitionLayer | None:
        """Build the TTL that stands after `stage`, as wide as what comes in (`official128`: 128 a branch), or None.

        Raises:
            UserError: The preset is unknown, a depth is below 1, or a branch would be narrower than one channel.
        """
        if stage not in self.stages:
            return None
        index = self.stages.index(stage)
        return temporal_transition(
            in_channels,
            in_channels,
            preset=self.preset,
            temporal_depths=self.temporal_depths[index],
            growth_rate=self.growth_rate,
            place=f"stage {stage}",
            pool_time=self.pool_time[index],
        )

    def time_stride(self) -> int:
        """Return the product of all temporal strides after the stem: by TTLs where they stand, else by the net."""
        halved = {**self.halvings, **dict(zip(self.stages, self.pool_time, strict=True))}
        return 2 ** sum(halved.values())


def place_ttls(
    *,
    ttl: bool,
    halvings: Mapping[int, bool],
    usual_growth_rate: int,
    transition_forms: object | None,
    ttl_stages: Sequence[int] | None = None,
    temporal_depths: Sequence[Sequence[int]] | None = None,
    ttl_preset: TtlPreset | None = None,
    growth_rate: int | None = None,
    pool_time: Sequence[bool] | None = None,
) -> TtlPlacement:
    """Check the TTL options of a net.

    Args:
        ttl: Whether the net has TTLs at all.
        halvings: Stages that a TTL may follow, with whether the net itself halves the frames there.
        ttl_stages: Stages that a TTL follows, ascending. By default all after which the net halves the frames.
        temporal_depths: Kernel depths, one entry a TTL. None is the preset's own: (1, 3, 6) for the first TTL and
            (1, 3, 4) for the others, as in Table 1, but (1, 3, 4) for all with `official128`.
        ttl_preset: How wide the branches are (see `branch_channels_of_preset`). By default `growth`.
        growth_rate: Width of a branch for the preset `growth`. By default `usual_growth_rate`.
        pool_time: Whether each TTL halves the frames, one entry a TTL. By default where the net itself does.
        transition_forms: Of the TTLs; only whether it is given matters here.
        usual_growth_rate: That of the net.

    Raises:
        UserError: `ttl_stages` are none, unknown or not ascending; another option has not one entry a TTL, asks to
            halve frames where the net keeps them, or is given without `ttl`.
    """
    if not ttl:
        _check_not_given(
            ttl_stages=ttl_stages,
            temporal_depths=temporal_depths,
            ttl_preset=ttl_preset,
            growth_rate=growth_rate,
            pool_time=pool_time,
            transition_forms=transition_forms,
        )
        return TtlPlacement(halvings, (), (), (), "growth", usual_growth_rate)
    ttl_preset = ttl_preset or "growth"
    if growth_rate is not None and ttl_preset != "growth":
        raise UserError(
            f"growth_rate {growth_rate} is given, but ttl_preset {ttl_preset} has widths of its own: drop it"
        )
    growth_rate = usual_growth_rate if growth_rate is None else growth_rate
    stages = _checked_stages(ttl_stages, halvings)
    if temporal_depths is None:
        temporal_depths = _depths_of_preset(ttl_preset, num_ttls=len(stages))
    if pool_time is None:
        pool_time = tuple(halvings[stage] for stage in stages)
    _check_one_each("temporal_depths", temporal_depths, stages)
    _check_one_each("pool_time", pool_time, stages)
    for stage, is_pooled in zip(stages, pool_time, strict=True):
        if is_pooled and not halvings[stage]:
            raise UserError(
                f"pool_time {tuple(pool_time)} asks to halve frames after stage {stage}: this net keeps them"
            )
    depths = tuple(tuple(entry) for entry in temporal_depths)
    return TtlPlacement(halvings, stages, depths, tuple(pool_time), ttl_preset, growth_rate)


def _checked_stages(ttl_stages: Sequence[int] | None, halvings: Mapping[int, bool]) -> tuple[int, ...]:
    if ttl_stages is None:
        return tuple(stage for stage, is_halved in halvings.items() if is_halved)
    stages = tuple(ttl_stages)
    if not stages or not set(stages) <= set(halvings) or list(stages) != sorted(set(stages)):
        raise UserError(f"ttl_stages {stages} must be some of {tuple(halvings)}, ascending, each at most once")
    return stages


def _depths_of_preset(preset: TtlPreset, *, num_ttls: int) -> tuple[tuple[int, ...], ...]:
    depths = RELEASED_DEPTHS if preset == "official128" else TABLE_1_DEPTHS
    return (depths[0],) + (depths[1],) * (num_ttls - 1)


def _check_not_given(**options: object) -> None:
    for name, value in options.items():
        if value is not None:
            raise UserError(f"{name} {value} is given, but this net has no TTL: set ttl to true, or leave {name} out")


def _check_one_each(name: str, values: Sequence[object], stages: tuple[int, ...]) -> None:
    if len(values) != len(stages):
        raise UserError(
            f"{name} {tuple(values)} has {len(values)} entries, but ttl_stages {stages} expect {len(stages)}: "
            "give one entry for each"
        )
