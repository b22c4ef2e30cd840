"""The name of a model kind and plain arguments become a network: what recipes and weight files are built from."""

from collections.abc import Callable
from typing import Any, Literal

from t3d_core.models.densenet3d import DenseNet3D, densenet3d_121, densenet3d_169
from t3d_core.models.t3d import T3D, t3d_121, t3d_169

ModelKind = Literal["t3d", "densenet3d", "t3d_121", "t3d_169", "densenet3d_121", "densenet3d_169"]

_BUILDERS: dict[str, Callable[..., DenseNet3D]] = {
    "t3d": T3D,
    "densenet3d": DenseNet3D,
    "t3d_121": t3d_121,
    "t3d_169": t3d_169,
    "densenet3d_121": densenet3d_121,
    "densenet3d_169": densenet3d_169,
}


def build_model(kind: str, *, num_classes: int, **arguments: Any) -> DenseNet3D:
    """Build a network by name.

    Args:
        kind: One of `ModelKind`.
        num_classes: Classes of its linear head, 0 for none.
        arguments: Keyword arguments of the kind's class, such as `growth_rate`.

    Raises:
        ValueError: The kind is unknown, or the network refuses its arguments.
    """
    if kind not in _BUILDERS:
        raise ValueError(f"model kind {kind!r} is unknown; choose one of {', '.join(_BUILDERS)}")
    return _BUILDERS[kind](num_classes, **arguments)
