"""What all training runs have in common: clips, optimiser, schedule, workers, checkpoints; defaults are the paper's."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from pipelines.clips.config import IMAGENET, AugmentationConfig, ClipConfig
from pipelines.networks.config import ComputeConfig
from pipelines.settings.section import ADDED, Fraction, Role, Section, UserPath
from pipelines.tracking.config import TrackingConfig
from t3d_core.errors import UserError
from t3d_core.training.schedules import ScheduleKind, linearly_scaled


class TrainComputeConfig(ComputeConfig):
    """How the network is run in training."""

    recompute: Annotated[bool, Role.SPEED] = False
    """Keep only each layer's input for the backward pass and compute the rest again: less memory, slower steps."""
    sync_batch_norm: bool = False
    """Compute batch norm statistics over all workers (GPUs only)."""

    @model_validator(mode="after")
    def _one_of_two(self) -> "TrainComputeConfig":
        if self.compile and self.recompute:
            raise UserError("compile and recompute cannot be combined: choose one")
        if self.compile and self.sync_batch_norm:
            raise UserError(
                "compute.compile true and compute.sync_batch_norm true cannot be combined, because compiled networks "
                "with synchronised batch norms break in PyTorch: leave one of them off"
            )
        return self


class _AnyOptimizerConfig(Section):
    """What the optimisers have in common."""

    lr: PositiveFloat
    """Learning rate at the start (cosine, one_cycle: at the peak)."""
    base_batch_size: PositiveInt | None = None
    """Clips a step for which `lr` is given; another batch scales it: lr * global_batch_size / base_batch_size. By
    default `lr` is used as given, whatever the batch."""
    weight_decay: Annotated[float, Field(ge=0)]
    """Decay of all parameters."""
    decay_norms_and_biases: Annotated[bool, ADDED] = True
    """Let biases and the scales and shifts of batch norms decay too. With false only kernels and matrices do (Paper:
    not in it)."""
    head_lr_scale: Annotated[PositiveFloat, ADDED] = 1.0
    """Factor of the learning rate of a classifier's linear head, such as 10 when only the head is new (Paper: not in
    it)."""
    layer_decay: Annotated[float, Field(gt=0, le=1), ADDED] = 1.0
    """Factor of a classifier's learning rate from each depth (stage) to the one before it, for fine-tuning. The head
    has `lr` times head_lr_scale, the stem the smallest rate (BEiT. Paper: not in it)."""
    clip_grad_norm: PositiveFloat | None = None
    """Largest L2 norm of the gradient over all parameters; a larger gradient is scaled down to it. By default nothing
    is clipped (paper)."""


class OptimizerConfig(_AnyOptimizerConfig):
    """SGD (paper 4.4)."""

    kind: Annotated[Literal["sgd"], ADDED] = "sgd"
    """Optimiser: sgd (the paper's) or adamw."""
    lr: PositiveFloat = 0.1
    """Learning rate at the start (cosine, one_cycle: at the peak)."""
    momentum: Fraction = 0.9
    """Momentum of SGD."""
    nesterov: bool = True
    """Use Nesterov momentum."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """L2 penalty on all parameters."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> "OptimizerConfig":
        if self.nesterov and self.momentum == 0:
            raise UserError("nesterov is a form of momentum, which is 0: add --optimizer.nesterov false")
        return self


class AdamWConfig(_AnyOptimizerConfig):
    """Adam with decoupled weight decay (Paper: not in it); defaults are PyTorch's."""

    kind: Literal["adamw"] = "adamw"
    """Optimiser: sgd (the paper's) or adamw."""
    lr: PositiveFloat = 1e-3
    """Learning rate at the start (cosine, one_cycle: at the peak)."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """Decay a step of the averages of the gradient and of its square."""
    eps: PositiveFloat = 1e-8
    """Added to the root of the average square."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Share of all parameters that a step takes away, times the learning rate."""


class ScheduleConfig(Section):
    """How the learning rate changes."""

    kind: ScheduleKind
    """constant, step (every N epochs), plateau (of the validation loss), cosine or one_cycle (over the whole run)."""
    every_epochs: PositiveInt = 30
    """step: epochs between two changes of the rate (paper 4.4, transfer)."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """step, plateau: factor by which the rate is multiplied."""
    patience: PositiveInt = 10
    """plateau: validations in a row without a lower loss that keep the rate; the next one lowers it."""
    min_lr: Annotated[float, Field(ge=0)] = 0.0
    """plateau: the run ends when the rate would fall below this value. With 0 it runs to its last epoch."""
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    """cosine: epochs at the start in which the rate rises from a hundredth of its peak."""


class ScalingConfig(Section):
    """Train workers, as ray.train.ScalingConfig."""

    num_workers: Annotated[int, Field(ge=0)] | tuple[PositiveInt, PositiveInt] = 1
    """Processes of data-parallel training. 0 trains in this process. [least, most] takes as many as there is room for,
    again at every restart (elastic), and leaves at least one CPU for decoding. Without GPUs on nodes labelled as pools,
    the room is that of the nodes at the start."""
    use_gpu: bool = False
    """Give each worker one GPU."""
    resources_per_worker: dict[str, float] = Field(default_factory=lambda: {"CPU": 1.0})
    """Resources that each worker reserves; at least one CPU of the cluster must be left for decoding."""

    @model_validator(mode="after")
    def _least_is_not_most(self) -> "ScalingConfig":
        if self.fewest_workers() > self.most_workers():
            raise UserError(
                f"num_workers [{self.fewest_workers()}, {self.most_workers()}] must be [least, most]: swap the two"
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
    """Newest checkpoints to keep; older ones are deleted."""
    every_steps: PositiveInt = 500
    """Steps between two checkpoints; one more is written at the end."""


class FailureConfig(Section):
    """Failed workers, as ray.train.FailureConfig."""

    max_failures: Annotated[int, Field(ge=-1)] = 3
    """Restarts from the last checkpoint before the run fails; -1 sets no limit."""
    hang_seconds: PositiveFloat = 1800.0
    """Seconds without a finished batch after which a worker is ended and started again."""


class RunConfig(Section):
    """What all training runs have in common."""

    global_batch_size: PositiveInt
    """Clips (with num_segments: videos) a step, over all workers."""
    micro_batch_size: PositiveInt | None = None
    """Clips that go through a worker's network at once; the gradients of a step add up. Batch norms and negative pairs
    see these clips only. By default a worker's whole part of the batch: the first start settles its size, and a
    resume on other workers keeps it."""
    epochs: PositiveInt
    """Passes over the training rows."""
    epoch_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Part of a pass that counts as an epoch in `epochs`, `schedule` and `validate_every_epochs`. No row is seen again
    before all have been seen."""
    validate_every_epochs: PositiveInt = 1
    """Epochs between two validations; one more is made before the first step and one at the end."""
    log_every_steps: Annotated[PositiveInt, Role.VIEW] = 10
    """Steps between two points in MLflow."""
    seed: Annotated[int, Field(ge=0), Role.REPLICATE] = 0
    """Seed of initial weights, order of clips, crops and flips."""
    clip: ClipConfig = ClipConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    optimizer: Annotated[OptimizerConfig | AdamWConfig, Field(discriminator="kind")] = OptimizerConfig()
    schedule: ScheduleConfig
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay a step of an exponential moving average of the weights, which is validated and kept in their place. By
    default the weights themselves are."""
    precise_bn_steps: Annotated[int, Field(ge=0)] = 0
    """Steps of training clips on which batch norm statistics are measured again before each validation; while the
    backbone is frozen, only before the first."""
    compute: TrainComputeConfig = TrainComputeConfig()
    scaling: Annotated[ScalingConfig, Role.RUNNING] = ScalingConfig()
    checkpoint: Annotated[CheckpointConfig, Role.RUNNING] = CheckpointConfig()
    failure: Annotated[FailureConfig, Role.RUNNING] = FailureConfig()
    tracking: Annotated[TrackingConfig, Role.PLACE] = TrackingConfig()
    storage: Annotated[UserPath, Role.PLACE] = Path("runs")
    """Folder in which the run's own folder is made; on a cluster, a folder that all nodes share."""
    name: Annotated[str | None, Role.PLACE] = None
    """Name of the run; the same name again resumes it. By default a new name."""

    def smallest_batch(self) -> int:
        """Fewest clips that go through a network at once."""
        return self.micro_batch_size or self.global_batch_size // max(1, self.scaling.most_workers())

    def batch_norm_clips(self) -> int:
        """Clips over which batch norms take their statistics: with `sync_batch_norm` those of all workers."""
        num_workers = max(1, self.scaling.most_workers()) if self.compute.sync_batch_norm else 1
        return self.smallest_batch() * num_workers

    @model_validator(mode="after")
    def _batch_can_be_shared(self) -> "RunConfig":
        num_parts = self.global_batch_size // (self.micro_batch_size or 1)
        if self.global_batch_size % (self.micro_batch_size or 1):
            raise UserError(
                f"global_batch_size {self.global_batch_size} is no multiple of micro_batch_size "
                f"{self.micro_batch_size}: change one of them"
            )
        if num_parts < self.scaling.most_workers():
            raise UserError(
                f"global_batch_size {self.global_batch_size} in parts of {self.micro_batch_size or 1} gives too few "
                f"parts for scaling.num_workers {self.scaling.num_workers}: raise it, or lower the number of workers"
            )
        if self.micro_batch_size is None and self.global_batch_size % max(1, self.scaling.most_workers()):
            size = next(size for size in range(self.smallest_batch(), 0, -1) if self.global_batch_size % size == 0)
            raise UserError(
                f"global_batch_size {self.global_batch_size} gives scaling.num_workers {self.scaling.num_workers} "
                f"unequal parts, and so their batch norms other numbers of clips: add --micro_batch_size {size}, or "
                "choose another number of workers"
            )
        if self.schedule.kind == "cosine" and self.schedule.warmup_epochs >= self.epochs:
            raise UserError(
                f"schedule.warmup_epochs {self.schedule.warmup_epochs:g} must be less than epochs {self.epochs}: lower "
                "it, or raise epochs"
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
        """All workers must make the same number of forward passes, because each pass exchanges statistics."""
        if not self.compute.sync_batch_norm:
            return
        if not self.scaling.use_gpu:
            raise UserError(
                "compute.sync_batch_norm true works on GPUs only: add --scaling.use_gpu true, or leave it off"
            )
        num_workers = self.scaling.most_workers()
        if self.scaling.fewest_workers() != num_workers:
            raise UserError(
                "compute.sync_batch_norm takes statistics over all workers, whose number would change with "
                f"scaling.num_workers {list(self.scaling.num_workers)}: give one number"  # type: ignore[arg-type]
            )
        if self.micro_batch_size and num_workers and num_parts % num_workers:
            raise UserError(
                "compute.sync_batch_norm needs the same number of micro-batches on every worker, but "
                f"{num_parts} cannot be dealt evenly to {num_workers} workers: choose another "
                "scaling.num_workers or micro_batch_size"
            )


def check_inflation(inflate_from: str | None, clip: ClipConfig | None) -> None:
    """Raise a UserError when clips are normalised differently from the images of the 2D weights."""
    if inflate_from is not None and clip is not None and (clip.mean, clip.std) != IMAGENET:
        raise UserError(
            f"inflate_from takes weights for clips normalised by ImageNet's mean and std {IMAGENET}, but clip.mean is "
            f"{clip.mean} and clip.std is {clip.std}: leave both at their defaults"
        )
