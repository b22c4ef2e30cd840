"""The name of a model kind and plain arguments become a network: what recipes and weight files are built from."""

from collections.abc import Callable
from typing import Any

from t3d_core.errors import UserError
from t3d_core.model_names import ModelKind
from t3d_core.models.c3d import c3d
from t3d_core.models.densenet3d import DenseNet3D, densenet3d_121, densenet3d_121_wide, densenet3d_169
from t3d_core.models.inception3d import inception3d
from t3d_core.models.resnet3d import resnet3d_18, resnet3d_34, resnet3d_50
from t3d_core.models.t3d import (
    T3D,
    t3d_121,
    t3d_121_depths_1,
    t3d_121_depths_1_3,
    t3d_121_depths_3,
    t3d_121_without_6,
    t3d_169,
)
from t3d_core.models.video_net import VideoNet

CONTROLS: tuple[ModelKind, ...] = (
    "densenet3d_121_wide",
    "t3d_121_depths_1",
    "t3d_121_depths_1_3",
    "t3d_121_depths_3",
    "t3d_121_without_6",
)
"""Controls of T3D-121: they separate a gain of the method from more computation or other widths."""


def res3d_18(num_classes: int = 400, **arguments: Any) -> VideoNet:
    """Build torchvision's r3d_18, as `t3d_core.models.res3d.res3d_18`."""
    # Imported only here: torchvision takes as long as PyTorch itself, and no other network needs it.
    from t3d_core.models import res3d

    return res3d.res3d_18(num_classes, **arguments)


_BUILDERS: dict[str, Callable[..., VideoNet]] = {
    "t3d": T3D,
    "densenet3d": DenseNet3D,
    **{
        build.__name__: build
        for build in (
            *(t3d_121, t3d_169, densenet3d_121, densenet3d_169),
            *(resnet3d_18, resnet3d_34, resnet3d_50, res3d_18, inception3d, c3d),
            *(densenet3d_121_wide, t3d_121_depths_1, t3d_121_depths_1_3, t3d_121_depths_3, t3d_121_without_6),
        )
    },
}


def build_model(kind: str, *, num_classes: int, **arguments: Any) -> VideoNet:
    """Build a network by name.

    Args:
        kind: One of `ModelKind`.
        num_classes: Classes of its linear head, 0 for none.
        arguments: Keyword arguments of the kind's class, such as `growth_rate`.

    Raises:
        UserError: The kind is unknown, or the network refuses its arguments.
    """
    if kind not in _BUILDERS:
        raise UserError(f"model kind {kind!r} is unknown; choose one of {', '.join(_BUILDERS)}")
    return _BUILDERS[kind](num_classes, **arguments)
