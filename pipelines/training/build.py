"""The settings of a run become its optimiser, schedule, colours and execution."""

import torch
from torch import nn

from pipelines.training.config import AdamWConfig, OptimizerConfig, RunConfig
from t3d_core.models.execution import Execution
from t3d_core.training.optimization import Schedule, build_adamw, build_sgd
from t3d_core.training.parameter_groups import parameter_groups
from t3d_core.training.schedules import linearly_scaled
from t3d_core.video.augmentation import ColorAugmentation


def build_execution(config: RunConfig) -> Execution:
    """How networks run in this run."""
    return Execution(**config.compute.model_dump(exclude={"sync_batch_norm"}))


def build_colors(config: RunConfig) -> ColorAugmentation:
    """The colour changes of the run's augmentation."""
    names = {"brightness", "contrast", "saturation", "hue", "gray_share"}
    return ColorAugmentation(**config.augmentation.model_dump(include=names))


def build_optimizer(net: nn.Module, config: OptimizerConfig | AdamWConfig, *, batch_size: int) -> torch.optim.Optimizer:
    """The optimiser of all parameters that get gradients, its rate scaled to the batch where the config asks for it."""
    lr = linearly_scaled(config.lr, global_batch_size=batch_size, base_batch_size=config.base_batch_size)
    weight_decay = config.weight_decay
    groups = parameter_groups(
        net,
        lr=lr,
        weight_decay=weight_decay,
        head_lr_scale=config.head_lr_scale,
        layer_decay=config.layer_decay,
        decay_norms_and_biases=config.decay_norms_and_biases,
    )
    if isinstance(config, AdamWConfig):
        return build_adamw(groups, lr=lr, betas=config.betas, eps=config.eps, weight_decay=weight_decay)
    return build_sgd(groups, lr=lr, momentum=config.momentum, is_nesterov=config.nesterov, weight_decay=weight_decay)


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
