"""A batch of clips becomes logits: T3D, a DenseNet3D with temporal transition layers (paper 3.1, Table 1)."""

from collections.abc import Sequence
from typing import Any

from t3d_core.errors import UserError
from t3d_core.model_names import TtlPreset
from t3d_core.models.densenet3d import DenseNet3D
from t3d_core.models.temporal_transition import (
    RELEASED_DEPTHS,
    TABLE_1_DEPTHS,
    TemporalTransitionLayer,
    temporal_transition,
)


class T3D(DenseNet3D):
    """DenseNet3D whose transitions are temporal transition layers; the defaults are T3D-121 of Table 1.

    Args:
        num_classes: Classes of the linear head; 0 leaves the head out.
        ttl_preset: How wide the branches of a TTL are: `growth`, `thirds` or `official128`
            (see `branch_channels_of_preset`).
        temporal_depths: Kernel depths of each TTL's branches, one entry for each pair of neighbouring blocks. None is
            the preset's own: (1, 3, 6), (1, 3, 4), (1, 3, 4) of Table 1, and (1, 3, 4) thrice for `official128`.
        growth_rate: Channels that every dense layer adds.
        block_config: Dense layers of each block.
        arguments: The other arguments of `DenseNet3D`.

    Raises:
        UserError: `temporal_depths` has not one entry for each transition, a branch would be narrower than one
            channel, or an argument of `DenseNet3D` is out of range.
    """

    def __init__(
        self,
        num_classes: int = 400,
        *,
        ttl_preset: TtlPreset = "growth",
        temporal_depths: Sequence[Sequence[int]] | None = None,
        growth_rate: int = 32,
        block_config: Sequence[int] = (6, 12, 24, 16),
        **arguments: Any,
    ) -> None:
        if temporal_depths is None:
            temporal_depths = RELEASED_DEPTHS if ttl_preset == "official128" else TABLE_1_DEPTHS
        if len(temporal_depths) != len(block_config) - 1:
            raise UserError(
                f"temporal_depths {temporal_depths} has {len(temporal_depths)} entries, but block_config "
                f"{tuple(block_config)} has {len(block_config) - 1} transitions: give one entry for each"
            )

        def make_ttl(index: int, in_channels: int, pool_time: bool) -> TemporalTransitionLayer:
            return temporal_transition(
                in_channels,
                in_channels // 2,
                preset=ttl_preset,
                temporal_depths=temporal_depths[index],
                growth_rate=growth_rate,
                place=f"block {index + 1}",
                pool_time=pool_time,
            )

        super().__init__(
            num_classes, growth_rate=growth_rate, block_config=block_config, make_transition=make_ttl, **arguments
        )


def t3d_121(num_classes: int = 400, *, block_config: Sequence[int] = (6, 12, 24, 16), **arguments: Any) -> T3D:
    """T3D-121 of Table 1; `arguments` are those of `T3D`, such as `ttl_preset="growth"`."""
    return T3D(num_classes, block_config=block_config, **arguments)


def t3d_169(num_classes: int = 400, *, block_config: Sequence[int] = (6, 12, 32, 32), **arguments: Any) -> T3D:
    """T3D-169: T3D-121 with the blocks of DenseNet-169; `arguments` are those of `T3D`."""
    return T3D(num_classes, block_config=block_config, **arguments)


# Controls of T3D-121, which the paper lacks: the same widths, other depths.


def t3d_121_depths_1(num_classes: int = 400, **arguments: Any) -> T3D:
    """T3D-121 with the depth 1 alone in every TTL: DenseNet3D-121 under another name, the zero of the comparison."""
    return _control(num_classes, ((1,),) * 3, arguments)


def t3d_121_depths_1_3(num_classes: int = 400, **arguments: Any) -> T3D:
    """T3D-121 with the depths 1 and 3 in every TTL: no kernel is deeper than those of the dense layers."""
    return _control(num_classes, ((1, 3),) * 3, arguments)


def t3d_121_depths_3(num_classes: int = 400, **arguments: Any) -> T3D:
    """T3D-121 with the depth 3 alone in every TTL: one homogeneous 3x3x3 convolution of all C/2 channels."""
    return _control(num_classes, ((3,),) * 3, arguments)


def t3d_121_without_6(num_classes: int = 400, **arguments: Any) -> T3D:
    """T3D-121 without the depth-6 branch of its first TTL; the depth-1 branch takes its channels."""
    return _control(num_classes, ((1, 3), *TABLE_1_DEPTHS[1:]), arguments)


def _control(num_classes: int, temporal_depths: Sequence[Sequence[int]], arguments: dict[str, Any]) -> T3D:
    if "temporal_depths" in arguments or arguments.get("ttl_preset", "growth") != "growth":
        raise UserError(
            f"a control of T3D-121 has temporal_depths {temporal_depths} and ttl_preset growth of its own: leave them "
            "out, or take kind t3d_121"
        )
    return T3D(num_classes, temporal_depths=temporal_depths, **arguments)
