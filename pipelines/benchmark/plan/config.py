"""What can be set when the plan suite measures."""

from pathlib import Path
from typing import Any

from pydantic import PositiveFloat, PositiveInt, model_validator

from pipelines.settings.section import Section, UserPath
from t3d_core.errors import UserError


class PlanSuiteConfig(Section):
    """What a transfer would take on a cluster; as `--plan nodes=8,gpus=64` or `--plan.nodes 8`."""

    nodes: PositiveInt = 8
    """Nodes that decode."""
    cpus: PositiveInt = 32
    """CPUs of each."""
    gpus: PositiveInt = 64
    """GPUs, over all nodes that train."""
    clips: PositiveInt = 1_000_000
    """Clips that are prepared, each of `clip_seconds` (paper 4.3: of 500K videos of YouTube-8M, of which
    prepare/youtube8m.yaml takes two clips each; an epoch of table8_t3d.yaml is half of them)."""
    clip_seconds: PositiveFloat = 10.0
    """Seconds of each."""
    video: UserPath = Path("../shared/data/single_clips/abseiling_k400.mp4")
    """A video like those: storing and decoding are measured on it."""
    recipe: UserPath = Path("jobs/recipes/transfer/table8_t3d.yaml")
    """The transfer: networks, clips, epochs, views of the teacher."""
    gpu_tflops: PositiveFloat = 20.0
    """Operations that a GPU makes in a second of training, in 10^12, two a multiply-add. An assumption: `benchmark.py
    model` on yours prints GMAC/s, twice of which, over 1000, is it."""
    cpu_hour_price: PositiveFloat | None = None
    """Price of a CPU for an hour; none: costs are left out."""
    gpu_hour_price: PositiveFloat | None = None
    """Price of a GPU for an hour."""

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, given: Any) -> Any:
        """`nodes=8,gpus=64` is short for two settings."""
        if not isinstance(given, str):
            return given
        settings = dict(part.partition("=")[::2] for part in given.split(","))
        if unknown := settings.keys() - cls.model_fields.keys():
            raise UserError(f"no such setting: {', '.join(sorted(unknown))}; there are {', '.join(cls.model_fields)}")
        return settings

    @model_validator(mode="after")
    def _both_prices(self) -> "PlanSuiteConfig":
        if (self.cpu_hour_price is None) != (self.gpu_hour_price is None):
            raise UserError("give both cpu_hour_price and gpu_hour_price, or none")
        return self
