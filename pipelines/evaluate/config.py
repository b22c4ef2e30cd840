"""What can be set when a network is tested."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from pipelines.networks.config import ScoringComputeConfig
from pipelines.prepare.config import DataConfig
from pipelines.settings.section import Address, Role, Section, UserPath
from pipelines.tracking.config import TrackingConfig
from t3d_core.errors import UserError


class EvaluateDataConfig(DataConfig):
    """Which prepared rows are tested."""

    split: Literal["train", "val", "test"] = "test"
    """Split of the fold to test on."""


class EvaluateConfig(Section):
    """Score every test clip of every video, average to one prediction a video (paper 4.4, Testing)."""

    FIRST_SETTINGS = (
        "checkpoint",
        "data.shards",
        "data.fold",
        "data.split",
        "num_clips",
        "num_crops",
        "output",
        "batch_size",
        "num_workers",
        "use_gpu",
    )

    data: EvaluateDataConfig
    checkpoint: Address | None = None
    """Weights to test: a file, runs:/..., models:/..., or a checkpoint or run folder. By default those of the newest
    run in `storage`."""
    output: Annotated[UserPath | None, Role.PLACE] = None
    """Folder for metrics.json, scores and reports. By default STORAGE/evaluate-TIME."""
    batch_size: PositiveInt = 8
    """Clips that a worker scores at once. If the network averages segments, these are whole videos of as many clips."""
    folds: tuple[PositiveInt, ...] = ()
    """Folds to test one network each on, with the mean at the end (paper Table 10). In checkpoint, `{fold}` becomes the
    fold's number. By default only data.fold is tested."""
    num_crops: Literal[1, 3, 10] = 1
    """Squares of every clip that are scored. 1: the centre (paper 4.4). 3: along the longer side. 10: four corners and
    the centre, each also mirrored; refused for weights whose mirrored clips had the label of another class
    (`augmentation.flip` with a map)."""
    num_clips: PositiveInt | None = None
    """Clips of every video, evenly spaced. By default all clips that do not overlap (paper 4.4)."""
    compute: ScoringComputeConfig = ScoringComputeConfig()
    num_workers: Annotated[int, Field(ge=0)] = 1
    """Processes that run the network; with 0, the job's own process runs it."""
    cpus_per_worker: PositiveFloat = 1.0
    """CPUs that each worker reserves, and threads of its network; at least one CPU must be left for decoding."""
    use_gpu: bool = False
    """Give each worker one GPU."""
    tracking: Annotated[TrackingConfig, Role.PLACE] = TrackingConfig()
    storage: Annotated[UserPath, Role.PLACE] = Path("runs")
    """Folder with training runs, and with the shards that `data.prepare` makes."""

    @model_validator(mode="after")
    def _folds_name_their_weights(self) -> "EvaluateConfig":
        has_place = self.checkpoint is not None and "{fold}" in self.checkpoint
        if self.folds and not has_place:
            raise UserError(
                f"folds {list(self.folds)} tests one network a fold, but checkpoint {self.checkpoint} is the same for "
                "all: write {fold} in place of the number, as in --checkpoint 'runs/mine-fold{fold}'"
            )
        if has_place and not self.folds:
            raise UserError(f"checkpoint {self.checkpoint} names one for each fold: add the folds, as in --folds 1 2 3")
        if len(set(self.folds)) < len(self.folds):
            raise UserError(f"folds {list(self.folds)} has a fold twice: give each fold once")
        return self
