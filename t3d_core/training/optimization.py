"""Parameters become an SGD optimiser, and a learning rate that changes by one of the named schedules (paper 4.4)."""

from collections.abc import Iterable
from typing import Any, get_args

from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import ConstantLR, LRScheduler, OneCycleLR, ReduceLROnPlateau, StepLR

from t3d_core.training.schedules import ScheduleKind


def build_sgd(
    parameters: Iterable[nn.Parameter], *, lr: float, momentum: float, is_nesterov: bool, weight_decay: float
) -> SGD:
    """Build the paper's optimiser: SGD with Nesterov momentum and weight decay."""
    return SGD(parameters, lr=lr, momentum=momentum, nesterov=is_nesterov, weight_decay=weight_decay)


class Schedule:
    """The learning rate over a run; told of every step and epoch, it acts on what its kind goes by.

    Kinds: `constant`; `step`, times `factor` every `every_epochs` epochs (paper: transfer); `plateau`, times `factor`
    when the validation loss has not fallen in more than `patience` validations (paper: training); `one_cycle`, up and
    down once over all steps.
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
    ) -> None:
        """Attach to `optimizer`, whose learning rate is the start (`one_cycle`: the peak)."""
        self._scheduler: LRScheduler
        if kind == "constant":
            self._scheduler = ConstantLR(optimizer, factor=1.0)
        elif kind == "step":
            self._scheduler = StepLR(optimizer, step_size=every_epochs, gamma=factor)
        elif kind == "plateau":
            self._scheduler = ReduceLROnPlateau(optimizer, factor=factor, patience=patience)
        elif kind == "one_cycle":
            peak = optimizer.param_groups[0]["lr"]
            self._scheduler = OneCycleLR(optimizer, max_lr=peak, total_steps=num_steps, cycle_momentum=False)
        else:
            raise ValueError(f"schedule.kind {kind!r} is unknown: choose one of {', '.join(get_args(ScheduleKind))}")

    def after_step(self) -> None:
        """Tell that one optimiser step was made."""
        if isinstance(self._scheduler, OneCycleLR):
            self._scheduler.step()

    def after_epoch(self) -> None:
        """Tell that every training clip was seen once more."""
        if isinstance(self._scheduler, StepLR):
            self._scheduler.step()

    def after_validation(self, loss: float) -> None:
        """Tell the validation loss."""
        if isinstance(self._scheduler, ReduceLROnPlateau):
            self._scheduler.step(loss)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs, beside the optimiser's own state."""
        return self._scheduler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`; load the optimiser's state too, which holds the learning rate."""
        self._scheduler.load_state_dict(state)
