"""Parameters become an optimiser, and learning rates that change by one of the named schedules (paper 4.4)."""

from collections.abc import Iterable
from typing import Any, get_args

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)

from t3d_core.errors import UserError
from t3d_core.training.parameter_groups import ParameterGroup
from t3d_core.training.schedules import ScheduleKind

_WARMUP_START = 0.01
_BY_STEP = (CosineAnnealingLR, SequentialLR, OneCycleLR)
# 0.7 * 0.1 is a little less than 0.07: a rate that only rounding puts below the smallest one counts as equal.
_ROUNDING = 1 - 1e-9
# PyTorch's plateau leaves a rate as it is that would fall by less.
_SMALLEST_FALL = 1e-8


def build_sgd(
    parameters: Iterable[nn.Parameter] | Iterable[ParameterGroup],
    *,
    lr: float,
    momentum: float,
    is_nesterov: bool,
    weight_decay: float,
) -> SGD:
    """Build the paper's optimiser: SGD with Nesterov momentum and weight decay.

    A parameter group has its own rate and decay; `lr` and `weight_decay` are for those without.
    """
    return SGD(parameters, lr=lr, momentum=momentum, nesterov=is_nesterov, weight_decay=weight_decay)


def build_adamw(
    parameters: Iterable[nn.Parameter] | Iterable[ParameterGroup],
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> AdamW:
    """Build Adam with decoupled weight decay (Loshchilov & Hutter, arXiv 1711.05101); groups as in `build_sgd`.

    Paper: not in it.
    """
    return AdamW(parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)


class Schedule:
    """The learning rate over a run; it is notified of every step and epoch, and uses those that its kind depends on.

    Every parameter group keeps its `lr_scale`: all rates change by the same factors at the same time.

    Kinds: `constant`; `step`, times `factor` every `every_epochs` epochs (paper: transfer); `plateau`, times `factor`
    when the validation loss has not fallen in more than `patience` validations (paper: training); `cosine`, up in a
    line from a hundredth over `warmup_steps`, then down along half a cosine, to nearly 0 at the last step; `one_cycle`,
    up and down once over all steps.

    Attributes:
        has_ended: whether the rate of `plateau` would have fallen below `min_lr` and was kept instead.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        kind: ScheduleKind,
        *,
        num_steps: int,
        every_epochs: int = 30,
        factor: float = 0.1,
        patience: int = 10,
        min_lr: float = 0.0,
        warmup_steps: int = 0,
    ) -> None:
        """Attach to `optimizer`, whose learning rates are the start (`cosine`, `one_cycle`: the peak).

        `min_lr` is compared with `lr`, the rate at scale 1.

        Raises:
            UserError: the kind is unknown, or the warm-up or the smallest rate leaves nothing to go down to.
        """
        self.has_ended = False
        self._optimizer, self._min_lr = optimizer, min_lr
        # Taken before a checkpoint replaces the groups: those of earlier versions have no scale.
        scales = [group.get("lr_scale", 1.0) for group in optimizer.param_groups]
        self._scale = scales[0]
        self._scheduler: LRScheduler
        if kind == "constant":
            self._scheduler = ConstantLR(optimizer, factor=1.0)
        elif kind == "step":
            self._scheduler = StepLR(optimizer, step_size=every_epochs, gamma=factor)
        elif kind == "plateau":
            if min_lr * _ROUNDING > self.lr:
                raise UserError(f"schedule.min_lr {min_lr} must be at most the optimizer's lr {self.lr}")
            smallest = _SMALLEST_FALL * min(scales)
            self._scheduler = ReduceLROnPlateau(optimizer, factor=factor, patience=patience, eps=smallest)
        elif kind == "cosine":
            self._scheduler = _cosine(optimizer, num_steps=num_steps, warmup_steps=warmup_steps)
        elif kind == "one_cycle":
            self._scheduler = OneCycleLR(optimizer, max_lr=self._rates(), total_steps=num_steps, cycle_momentum=False)
        else:
            raise UserError(f"schedule.kind {kind!r} is unknown: choose one of {', '.join(get_args(ScheduleKind))}")

    @property
    def lr(self) -> float:
        """The learning rate now of parameters whose scale is 1."""
        return self._rates()[0] / self._scale

    def after_step(self) -> None:
        """Record that one optimiser step was made, and that another one follows."""
        if isinstance(self._scheduler, _BY_STEP):
            self._scheduler.step()

    def after_epoch(self) -> None:
        """Record that every training clip was seen once more."""
        if isinstance(self._scheduler, StepLR):
            self._scheduler.step()

    def after_validation(self, loss: float) -> None:
        """Record the loss of a validation."""
        if not isinstance(self._scheduler, ReduceLROnPlateau):
            return
        before = self._rates()
        self._scheduler.step(loss)
        if self._rates() != before and self.lr < self._min_lr * _ROUNDING:
            self.has_ended = True
            for group, rate in zip(self._optimizer.param_groups, before, strict=True):
                group["lr"] = rate

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs in addition to the state of the optimiser."""
        return {"has_ended": self.has_ended, "scheduler": self._scheduler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from `state_dict()`; load the optimiser's state too, which holds the learning rate."""
        self.has_ended = state["has_ended"]
        self._scheduler.load_state_dict(state["scheduler"])

    def _rates(self) -> list[float]:
        return [group["lr"] for group in self._optimizer.param_groups]


def _cosine(optimizer: Optimizer, *, num_steps: int, warmup_steps: int) -> LRScheduler:
    """Half a cosine over the steps that a warm-up leaves; its 0 would come one step after the last."""
    if not 0 <= warmup_steps < num_steps:
        raise UserError(
            f"the warm-up of {warmup_steps} steps must be shorter than the run of {num_steps} steps: lower "
            "schedule.warmup_epochs"
        )
    if warmup_steps == 0:
        return CosineAnnealingLR(optimizer, T_max=num_steps)
    rise = LinearLR(optimizer, start_factor=_WARMUP_START, total_iters=warmup_steps)
    fall = CosineAnnealingLR(optimizer, T_max=num_steps - warmup_steps)
    return SequentialLR(optimizer, [rise, fall], milestones=[warmup_steps])
