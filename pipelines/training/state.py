"""The state of a run that a checkpoint holds in addition to the weights file, and how a run resumes from it."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from pipelines.training.worker import Metrics
from t3d_core.training.averaging import WeightAverage
from t3d_core.training.checkpoint import load_training_state, save_training_state
from t3d_core.training.optimization import Schedule


class Position(NamedTuple):
    """How far a run has come.

    Attributes:
        step: steps that are done.
        worker_seconds: what they cost, in seconds of all workers.
        validations: `initial` and `final` metrics, as far as they exist.
    """

    step: int
    worker_seconds: float
    validations: dict[str, Metrics]


class Learner(NamedTuple):
    """All that changes while a run learns; `average`: of the weights, where the run keeps one."""

    net: nn.Module
    average: WeightAverage | None
    optimizer: torch.optim.Optimizer
    schedule: Schedule

    def save(self, folder: Path, position: Position) -> None:
        """Write the state to a checkpoint's folder."""
        state = {
            **position._asdict(),
            "net": self.net.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }
        save_training_state(state, folder)

    def restore(self, folder: Path, *, keeps_settings: bool) -> Position:
        """Resume from the state in a checkpoint's folder.

        Args:
            folder: what `save` wrote.
            keeps_settings: the optimiser keeps its own settings (those of a new interval), not the checkpoint's.
        """
        state: dict[str, Any] = load_training_state(folder)
        self.net.load_state_dict(state["net"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        own = [{name: group[name] for name in group if name != "params"} for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        if keeps_settings:
            for group, settings in zip(self.optimizer.param_groups, own, strict=True):
                group.update(settings)
        self.schedule.load_state_dict(state["schedule"])
        # Checkpoints of the first versions hold no worker_seconds.
        return Position(state["step"], state.get("worker_seconds", 0.0), state["validations"])
