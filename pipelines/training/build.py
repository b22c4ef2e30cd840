"""The settings of a run become its optimiser, schedule, colours and execution."""

import torch
from torch import nn

from pipelines.training.config import OptimizerConfig, RunConfig
from t3d_core.models.execution import Execution
from t3d_core.training.optimization import Schedule, build_sgd
from t3d_core.training.schedules import linearly_scaled
from t3d_core.video.augmentation import ColorAugmentation


def build_execution(config: RunConfig) -> Execution:
    """How networks run in this run."""
    return Execution(**config.compute.model_dump(exclude={"sync_batch_norm"}))


def build_colors(config: RunConfig) -> ColorAugmentation:
    """The colour changes of the run's augmentation."""
    names = {"brightness", "contrast", "saturation", "hue", "gray_share"}
    return ColorAugmentation(**config.augmentation.model_dump(include=names))


def build_optimizer(
    parameters: list[nn.Parameter], config: OptimizerConfig, *, batch_size: int
) -> torch.optim.Optimizer:
    """SGD over these parameters, its learning rate scaled to the batch where the config asks for it."""
    return build_sgd(
        parameters,
        lr=linearly_scaled(config.lr, global_batch_size=batch_size, base_batch_size=config.base_batch_size),
        momentum=config.momentum,
        is_nesterov=config.nesterov,
        weight_decay=config.weight_decay,
    )


def build_schedule(optimizer: torch.optim.Optimizer, config: RunConfig, *, steps_an_epoch: float) -> Schedule:
    """The learning rate of every step of the run."""
    schedule = config.schedule
    return Schedule(
        optimizer,
        schedule.kind,
        num_steps=round(steps_an_epoch * config.epochs),
        every_epochs=schedule.every_epochs,
        factor=schedule.factor,
        patience=schedule.patience,
        min_lr=schedule.min_lr,
        warmup_steps=round(schedule.warmup_epochs * steps_an_epoch),
    )
