"""What all training runs have in common: clips, optimiser, schedule, workers, checkpoints; defaults are the paper's."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from pipelines.model_configs import Fraction
from pipelines.recipe import Section
from t3d_core.training.schedules import ScheduleKind
from t3d_core.video.cropping import default_short_side

Color = tuple[float, float, float]
PositiveColor = tuple[PositiveFloat, PositiveFloat, PositiveFloat]
IMAGENET: tuple[Color, Color] = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class TrackingConfig(Section):
    """MLflow."""

    uri: str | None = None
    """Tracking server or database; none: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db where you stand."""
    experiment: str = "t3d"
    """Experiment to which runs belong."""


class ClipConfig(Section):
    """How a clip is taken from a video."""

    num_frames: PositiveInt = 32
    """Frames a clip (paper Table 3)."""
    frame_stride: PositiveInt = 2
    """Source frames from one clip frame to the next (paper Table 6)."""
    crop_size: PositiveInt = 224
    """Pixels of the square crop (paper Table 5)."""
    short_side: PositiveInt | None = None
    """Pixels of the shorter side before the crop; none: crop_size * 256 / 224, as the paper's 256 to 224."""
    short_video: Literal["loop", "repeat_last"] = "loop"
    """What fills the clip when the video is shorter than its span."""
    mean: Color = IMAGENET[0]
    """Subtracted from RGB on the 0..1 scale."""
    std: PositiveColor = IMAGENET[1]
    """Divides RGB after that."""

    @model_validator(mode="after")
    def _crop_fits(self) -> "ClipConfig":
        if self.short_side_pixels() < self.crop_size:
            raise ValueError(f"short_side {self.short_side} is smaller than crop_size {self.crop_size}")
        return self

    def short_side_pixels(self) -> int:
        """The short side, given or derived from the crop."""
        return self.short_side or default_short_side(self.crop_size)


class ComputeConfig(Section):
    """How the network is run; what it computes stays the same, but for rounding."""

    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: convolutions and matrix products in bfloat16 (autocast), checked against fp32 before the run."""
    channels_last: bool = True
    """Keep a position's channels side by side in memory; not in bf16 on a CPU, whose kernels are wrong then."""
    compile: bool = False
    """torch.compile: minutes at the first start on a machine, then from its cache on disk."""
    debug: bool = False
    """Search clips and features for values that are not finite."""


class TrainComputeConfig(ComputeConfig):
    """How the network is run in training."""

    recompute: bool = False
    """Keep a layer's input alone for backward and compute the rest once more there: less memory, a slower step."""

    @model_validator(mode="after")
    def _one_of_two(self) -> "TrainComputeConfig":
        if self.compile and self.recompute:
            raise ValueError("compile and recompute cannot be combined: choose one")
        return self


class OptimizerConfig(Section):
    """SGD (paper 4.4)."""

    lr: PositiveFloat = 0.1
    """Learning rate at the start (one_cycle: at the peak)."""
    momentum: Fraction = 0.9
    """Of SGD."""
    nesterov: bool = True
    """Nesterov's form of momentum."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """L2, on all parameters."""


class ScheduleConfig(Section):
    """How the learning rate changes."""

    kind: ScheduleKind
    """constant, step (every N epochs), plateau (of the validation loss) or one_cycle (over the whole run)."""
    every_epochs: PositiveInt = 30
    """step: epochs between two changes (paper 4.4, transfer)."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """step, plateau: what the rate is multiplied by."""
    patience: PositiveInt = 10
    """plateau: validations without a lower loss that are borne; one more changes the rate."""


class ScalingConfig(Section):
    """Train workers, as ray.train.ScalingConfig."""

    num_workers: Annotated[int, Field(ge=0)] = 1
    """Processes of data-parallel training; 0: in this process, without any."""
    use_gpu: bool = False
    """One GPU a worker."""
    resources_per_worker: dict[str, float] = Field(default_factory=lambda: {"CPU": 1.0})
    """What each worker reserves; at least one CPU of the cluster must be left for decoding."""

    def resources_of_worker(self) -> dict[str, float]:
        """All that one worker reserves."""
        return self.resources_per_worker | ({"GPU": 1.0} if self.use_gpu else {})


class CheckpointConfig(Section):
    """Checkpoints, as ray.train.CheckpointConfig."""

    num_to_keep: PositiveInt = 2
    """Older ones are deleted."""
    every_steps: PositiveInt = 500
    """Steps between two checkpoints; one more is written at the end."""


class FailureConfig(Section):
    """Failed workers, as ray.train.FailureConfig."""

    max_failures: Annotated[int, Field(ge=-1)] = 3
    """Restarts from the last checkpoint before the run fails; -1: no limit."""


class RunConfig(Section):
    """What all training runs have in common."""

    global_batch_size: PositiveInt
    """Clips a step, over all workers."""
    epochs: PositiveInt
    """Passes over the training rows."""
    validate_every_epochs: PositiveInt = 1
    """Epochs between two validations; one more is made before the first step and one at the end."""
    log_every_steps: PositiveInt = 10
    """Steps between two points in MLflow."""
    seed: int = 0
    """Of initial weights, order, crops and flips."""
    clip: ClipConfig = ClipConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig
    compute: TrainComputeConfig = TrainComputeConfig()
    scaling: ScalingConfig = ScalingConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    failure: FailureConfig = FailureConfig()
    tracking: TrackingConfig = TrackingConfig()
    storage: Path = Path("runs")
    """Folder in which the run's own folder is made; on a cluster one that all nodes share."""
    name: str | None = None
    """Name of the run; the same name again resumes it. None: a new name."""

    def clips_per_worker(self) -> int:
        """Clips that one worker trains on in a step."""
        return self.global_batch_size // max(1, self.scaling.num_workers)

    @model_validator(mode="after")
    def _batch_can_be_shared(self) -> "RunConfig":
        if self.global_batch_size % max(1, self.scaling.num_workers):
            raise ValueError(
                f"global_batch_size {self.global_batch_size} cannot be shared by scaling.num_workers "
                f"{self.scaling.num_workers}: choose a multiple"
            )
        return self
