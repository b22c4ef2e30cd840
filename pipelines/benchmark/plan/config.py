"""The settings of the plan suite."""

from pathlib import Path
from typing import Any

from pydantic import PositiveFloat, PositiveInt, model_validator

from pipelines.settings.section import Section, UserPath
from t3d_core.errors import UserError


class PlanSuiteConfig(Section):
    """Estimate what a transfer takes on a cluster; give `--plan nodes=8,gpus=64` or `--plan.nodes 8`."""

    nodes: PositiveInt = 8
    """Number of nodes that decode."""
    cpus: PositiveInt = 32
    """CPUs of each node that decodes."""
    gpus: PositiveInt = 64
    """Number of GPUs of all nodes that train."""
    clips: PositiveInt = 1_000_000
    """Number of clips that are prepared, each of `clip_seconds`. The default is two clips from each of 500K videos of
    YouTube-8M (paper 4.3), as in prepare/youtube8m.yaml; an epoch of table8_t3d.yaml is half of them."""
    clip_seconds: PositiveFloat = 10.0
    """Length of each clip in seconds."""
    video: UserPath = Path("../shared/data/single_clips/abseiling_k400.mp4")
    """A typical video; storing and decoding are measured on it."""
    recipe: UserPath = Path("jobs/recipes/transfer/table8_t3d.yaml")
    """Recipe of the transfer: networks, clips, epochs, views of the teacher."""
    gpu_tflops: PositiveFloat = 20.0
    """Assumed speed of a GPU in training, in 10^12 operations per second; a multiply-add is two. To measure yours, run
    `benchmark.py model` there and take its GMAC/s times 2 / 1000."""
    cpu_hour_price: PositiveFloat | None = None
    """Price of a CPU for an hour. By default costs are left out."""
    gpu_hour_price: PositiveFloat | None = None
    """Price of a GPU for an hour. By default costs are left out."""

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, given: Any) -> Any:
        """`nodes=8,gpus=64` is short for two settings."""
        if not isinstance(given, str):
            return given
        settings = dict(part.partition("=")[::2] for part in given.split(","))
        if unknown := settings.keys() - cls.model_fields.keys():
            raise UserError(f"no such setting: {', '.join(sorted(unknown))}; choose from {', '.join(cls.model_fields)}")
        return settings

    @model_validator(mode="after")
    def _both_prices(self) -> "PlanSuiteConfig":
        if (self.cpu_hour_price is None) != (self.gpu_hour_price is None):
            raise UserError(
                f"cpu_hour_price {self.cpu_hour_price} and gpu_hour_price {self.gpu_hour_price}: give both, or neither"
            )
        return self
