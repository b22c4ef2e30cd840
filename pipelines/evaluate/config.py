"""What can be set when a network is tested."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from pipelines.networks.config import ComputeConfig, TransitionForm
from pipelines.prepare.config import DataConfig
from pipelines.settings.section import Address, Role, Section, UserPath
from pipelines.tracking.config import TrackingConfig
from t3d_core.errors import UserError


class EvaluateDataConfig(DataConfig):
    """Which prepared rows are tested."""

    split: Literal["train", "val", "test"] = "test"
    """Split of the fold."""


class EvaluateComputeConfig(ComputeConfig):
    """How the network is run in testing."""

    transition_forms: TransitionForm | tuple[TransitionForm, ...] | None = None
    """How transitions compute their sum, for another machine than the weights were trained on; none: as they say."""

    fold_batch_norm: bool = True
    """Fold batch norms into the convolutions before them."""


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
    """Weights: a file, a checkpoint or run folder, runs:/... or models:/...; none: the newest run in `storage`."""
    output: Annotated[UserPath | None, Role.PLACE] = None
    """Folder for metrics.json, scores and reports; none: STORAGE/evaluate-TIME."""
    batch_size: PositiveInt = 8
    """Clips that a worker scores at once; with segments, as many whole videos as they make."""
    folds: tuple[PositiveInt, ...] = ()
    """Test one network for each of these folds and give the mean (paper Table 10); `{fold}` in checkpoint is the
    fold's number. None: data.fold alone."""
    num_crops: Literal[1, 3, 10] = 1
    """Squares of every clip that are scored: 1: the centre (paper 4.4); 3: along the longer side; 10: four corners and
    the centre, each also mirrored."""
    num_clips: PositiveInt | None = None
    """Clips of every video, at even distances; none: all that do not overlap (paper 4.4)."""
    compute: EvaluateComputeConfig = EvaluateComputeConfig()
    num_workers: Annotated[int, Field(ge=0)] = 1
    """Processes that hold the network; 0: this one does."""
    cpus_per_worker: PositiveFloat = 1.0
    """CPUs that each reserves, and threads of its network; at least one CPU must be left for decoding."""
    use_gpu: bool = False
    """One GPU a worker."""
    tracking: Annotated[TrackingConfig, Role.PLACE] = TrackingConfig()
    storage: Annotated[UserPath, Role.PLACE] = Path("runs")
    """Folder with training runs, and with the shards that `data.prepare` makes."""

    @model_validator(mode="after")
    def _folds_name_their_weights(self) -> "EvaluateConfig":
        has_place = self.checkpoint is not None and "{fold}" in self.checkpoint
        if self.folds and not has_place:
            raise UserError(
                f"folds {list(self.folds)} tests one network a fold, checkpoint {self.checkpoint} is the same for all: "
                "write {fold} where the number stands, as --checkpoint 'runs/mine-fold{fold}'"
            )
        if has_place and not self.folds:
            raise UserError(f"checkpoint {self.checkpoint} is one for each fold: say which, as --folds 1 2 3")
        if len(set(self.folds)) < len(self.folds):
            raise UserError(f"folds {list(self.folds)} names one twice: give each once")
        return self
