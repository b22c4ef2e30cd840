"""What all training runs have in common: clips, optimiser, schedule, workers, checkpoints; defaults are the paper's."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from pipelines.clips.config import IMAGENET, AugmentationConfig, ClipConfig
from pipelines.networks.config import ComputeConfig
from pipelines.settings.section import Fraction, Role, Section, UserPath
from pipelines.tracking.config import TrackingConfig
from t3d_core.errors import UserError
from t3d_core.training.schedules import ScheduleKind, linearly_scaled


class TrainComputeConfig(ComputeConfig):
    """How the network is run in training."""

    recompute: Annotated[bool, Role.SPEED] = False
    """Keep a layer's input alone for backward and compute the rest once more there: less memory, a slower step."""
    sync_batch_norm: bool = False
    """Batch norms take their statistics over all workers (GPUs only)."""

    @model_validator(mode="after")
    def _one_of_two(self) -> "TrainComputeConfig":
        if self.compile and self.recompute:
            raise UserError("compile and recompute cannot be combined: choose one")
        return self


class OptimizerConfig(Section):
    """SGD (paper 4.4)."""

    lr: PositiveFloat = 0.1
    """Learning rate at the start (cosine, one_cycle: at the peak)."""
    base_batch_size: PositiveInt | None = None
    """Linear scaling: `lr` is meant for so many clips a step and becomes lr * global_batch_size / base_batch_size;
    none: `lr` is used as it stands, whatever the batch."""
    momentum: Fraction = 0.9
    """Of SGD."""
    nesterov: bool = True
    """Nesterov's form of momentum."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """L2, on all parameters."""
    clip_grad_norm: PositiveFloat | None = None
    """Gradients whose L2 norm over all parameters is larger are scaled down to it; none: never (paper)."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> "OptimizerConfig":
        if self.nesterov and self.momentum == 0:
            raise UserError("nesterov is a form of momentum, which is 0: add --optimizer.nesterov false")
        return self


class ScheduleConfig(Section):
    """How the learning rate changes."""

    kind: ScheduleKind
    """constant, step (every N epochs), plateau (of the validation loss), cosine or one_cycle (over the whole run)."""
    every_epochs: PositiveInt = 30
    """step: epochs between two changes (paper 4.4, transfer)."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """step, plateau: what the rate is multiplied by."""
    patience: PositiveInt = 10
    """plateau: validations without a lower loss that are borne; one more changes the rate."""
    min_lr: Annotated[float, Field(ge=0)] = 0.0
    """plateau: the run ends where the rate would fall below it; 0: it goes on to its last epoch."""
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    """cosine: epochs in which the rate first rises from a hundredth of its peak."""


class ScalingConfig(Section):
    """Train workers, as ray.train.ScalingConfig."""

    num_workers: Annotated[int, Field(ge=0)] | tuple[PositiveInt, PositiveInt] = 1
    """Processes of data-parallel training; 0: in this process, without any; [least, most]: as many as there is room
    for, anew at every restart (elastic); never more than leave one CPU for decoding. Without GPUs, where nodes are
    labelled as pools: of the nodes at the start."""
    use_gpu: bool = False
    """One GPU a worker."""
    resources_per_worker: dict[str, float] = Field(default_factory=lambda: {"CPU": 1.0})
    """What each worker reserves; at least one CPU of the cluster must be left for decoding."""

    @model_validator(mode="after")
    def _least_is_not_most(self) -> "ScalingConfig":
        if self.fewest_workers() > self.most_workers():
            raise UserError(
                f"num_workers [{self.fewest_workers()}, {self.most_workers()}] must be [least, most]: exchange them"
            )
        return self

    def fewest_workers(self) -> int:
        """Workers below which the run waits."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[0]

    def most_workers(self) -> int:
        """Workers that the run takes where there is room."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[1]

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
    hang_seconds: PositiveFloat = 1800.0
    """A worker that finishes no batch for so long is ended and started again."""


class RunConfig(Section):
    """What all training runs have in common."""

    global_batch_size: PositiveInt
    """Clips (with num_segments: videos) a step, over all workers."""
    micro_batch_size: PositiveInt | None = None
    """Of these so many go through a worker's network at once (batch norms and negative pairs see no more), and their
    gradients add up; none: a worker's whole part."""
    epochs: PositiveInt
    """Passes over the training rows."""
    epoch_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Part of a pass that counts as an epoch in `epochs`, `schedule` and `validate_every_epochs`; no row is seen again
    before all have been seen."""
    validate_every_epochs: PositiveInt = 1
    """Epochs between two validations; one more is made before the first step and one at the end."""
    log_every_steps: Annotated[PositiveInt, Role.VIEW] = 10
    """Steps between two points in MLflow."""
    seed: Annotated[int, Field(ge=0), Role.REPLICATE] = 0
    """Of initial weights, order, crops and flips."""
    clip: ClipConfig = ClipConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Validate and keep an exponential moving average of the weights with this decay a step; none: the weights."""
    precise_bn_steps: Annotated[int, Field(ge=0)] = 0
    """Steps' worth of training clips over which batch norms measure their statistics anew before each validation."""
    compute: TrainComputeConfig = TrainComputeConfig()
    scaling: Annotated[ScalingConfig, Role.RUNNING] = ScalingConfig()
    checkpoint: Annotated[CheckpointConfig, Role.RUNNING] = CheckpointConfig()
    failure: Annotated[FailureConfig, Role.RUNNING] = FailureConfig()
    tracking: Annotated[TrackingConfig, Role.PLACE] = TrackingConfig()
    storage: Annotated[UserPath, Role.PLACE] = Path("runs")
    """Folder in which the run's own folder is made; on a cluster one that all nodes share."""
    name: Annotated[str | None, Role.PLACE] = None
    """Name of the run; the same name again resumes it. None: a new name."""

    def smallest_batch(self) -> int:
        """Fewest clips that go through a network at once."""
        return self.micro_batch_size or self.global_batch_size // max(1, self.scaling.most_workers())

    @model_validator(mode="after")
    def _batch_can_be_shared(self) -> "RunConfig":
        num_parts = self.global_batch_size // (self.micro_batch_size or 1)
        if self.global_batch_size % (self.micro_batch_size or 1):
            raise UserError(
                f"global_batch_size {self.global_batch_size} is no multiple of micro_batch_size {self.micro_batch_size}"
            )
        if num_parts < self.scaling.most_workers():
            raise UserError(
                f"global_batch_size {self.global_batch_size} in parts of {self.micro_batch_size or 1} gives too few "
                f"parts for scaling.num_workers {self.scaling.num_workers}: raise it, or lower the number of workers"
            )
        if self.schedule.kind == "cosine" and self.schedule.warmup_epochs >= self.epochs:
            raise UserError(
                f"schedule.warmup_epochs {self.schedule.warmup_epochs:g} must be less than epochs {self.epochs}"
            )
        self._check_schedule()
        self._check_sync_batch_norm(num_parts)
        return self

    def _check_schedule(self) -> None:
        lr = linearly_scaled(
            self.optimizer.lr,
            global_batch_size=self.global_batch_size,
            base_batch_size=self.optimizer.base_batch_size,
        )
        if self.schedule.kind == "plateau" and self.schedule.min_lr > lr:
            raise UserError(
                f"schedule.min_lr {self.schedule.min_lr:g} is above the learning rate {lr:g}: lower it, or raise "
                "optimizer.lr"
            )

    def _check_sync_batch_norm(self, num_parts: int) -> None:
        """All workers must make as many forward passes: in each they exchange statistics."""
        if not self.compute.sync_batch_norm:
            return
        if not self.scaling.use_gpu:
            raise UserError("compute.sync_batch_norm works on GPUs only: add --scaling.use_gpu true, or leave it off")
        possible = range(self.scaling.fewest_workers(), self.scaling.most_workers() + 1)
        if self.micro_batch_size and (uneven := [number for number in possible if number and num_parts % number]):
            raise UserError(
                f"compute.sync_batch_norm needs as many micro-batches on every worker, but {num_parts} cannot be dealt "
                f"evenly to {' or '.join(map(str, uneven))} workers: choose other scaling.num_workers or "
                "micro_batch_size"
            )


def check_inflation(inflate_from: str | None, clip: ClipConfig | None) -> None:
    """Raise a UserError where 2D weights would see clips normalised otherwise than they were trained on."""
    if inflate_from is not None and clip is not None and (clip.mean, clip.std) != IMAGENET:
        raise UserError(
            f"inflate_from takes weights for clips normalised by ImageNet's mean and std {IMAGENET}, given clip.mean "
            f"{clip.mean} and clip.std {clip.std}: leave them as they are by default"
        )
