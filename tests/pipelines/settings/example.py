"""A config with every kind of setting, for the tests of this room."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, field_validator

from pipelines.settings.section import Section


class LinearHead(Section):
    """A linear layer."""

    kind: Literal["linear"] = "linear"
    bias: bool = True


class DeepHead(Section):
    """Two layers."""

    kind: Literal["deep"] = "deep"
    width: PositiveInt = 512


class T3DModel(Section):
    """Temporal 3D ConvNet."""

    kind: Literal["t3d_121", "t3d_169"] = "t3d_121"
    growth_rate: int = Field(default=32, gt=0)
    """Channels that a layer adds."""
    block_config: tuple[int, ...] = (6, 12, 24, 16)
    head: Annotated[LinearHead | DeepHead, Field(discriminator="kind")] = LinearHead()


class ResNetModel(Section):
    """ResNet3D."""

    kind: Literal["resnet3d_50"] = "resnet3d_50"
    depth: int = 50
    growth_rate: int = 12
    """Channels that a layer adds."""


Model = Annotated[T3DModel | ResNetModel, Field(discriminator="kind")]


class Optimizer(Section):
    """Stochastic gradient descent."""

    lr: float = Field(default=0.1, gt=0)
    """Step size, 50 % of the usual."""
    nesterov: bool = True
    clip: PositiveInt | Literal["auto"] | None = None


class Data(Section):
    """What is trained on."""

    shards: list[str] = Field(default_factory=lambda: ["shards"])
    """Shard folders."""
    fold: Literal[1, 2, 3] | None = None


class Train(Section):
    """Trains a network.

    This second paragraph is not for the help.
    """

    data: Data = Data()
    model: Model = T3DModel(growth_rate=24)
    teacher: Model | None = None
    optimizer: Optimizer = Optimizer(lr=0.01)
    resources: dict[str, float] = Field(default_factory=dict)
    init_from: Path | None = None
    max_failed_fraction: float = Field(default=0.1, ge=0, le=1)
    name: str = "train"
    home: str = "nowhere"

    @field_validator("name")
    @classmethod
    def _has_no_slash(cls, name: str) -> str:
        if "/" in name:
            raise ValueError("a name has no slash")
        return name


class Evaluate(Section):
    """Evaluates a checkpoint."""

    checkpoint: Path
    """Weights."""


Load = Callable[..., Train]
Failing = Callable[..., list[str]]
