"""Trials report their metrics: their cost is recorded, and a scheduler of Ray Tune decides which of them stop early.

Every report is in the ledger, so a resumed search stops the same trials as an uninterrupted one.
"""

import time
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler
from ray.tune.stopper import Stopper

from pipelines.search.config import SearchConfig
from pipelines.search.ledger import Ledger, TrialRecord

EPOCH = "epoch"
# Ray Tune's schedulers ask which trials wait, to let them take turns. Our trials do not take turns.
_NOBODY_WAITS = SimpleNamespace(get_live_trials=list)


class TrialName(NamedTuple):
    """How a scheduler of Ray Tune identifies a trial: by a name that stays the same after a restart."""

    trial_id: str


class Reports(Stopper):
    """Records what trials report, and stops all of them when the budget is spent."""

    def __init__(self, config: SearchConfig, ledger: Ledger, resources: Mapping[str, float]) -> None:
        """Begin.

        Args:
            config: the search.
            ledger: where the reports are written.
            resources: of one trial, all its workers together.
        """
        self._config, self._ledger, self._resources = config, ledger, dict(resources)
        self._began = time.monotonic()
        self._before = {name: record.hours for name, record in ledger.records.items()}
        self._seconds: dict[str, dict[tuple[str, int], float]] = {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Record one report; it never stops its trial."""
        record, watched = self._ledger.records[result["config"]["trial"]], self._config.watched_metric()
        # The clock of a restarted process begins at zero.
        starts = self._seconds.setdefault(record.name, {})
        starts[trial_id, result["pid"]] = result["time_total_s"]
        hours = self._before.get(record.name, 0.0) + sum(starts.values()) / 3600
        curve = list(record.curve)
        if EPOCH in result and watched in result and result[EPOCH] > max((epoch for epoch, _ in curve), default=0.0):
            curve.append((result[EPOCH], result[watched]))
        self._ledger.update(record.name, hours=hours, curve=curve)
        return False

    def stop_all(self) -> bool:
        """Whether the budget is spent."""
        budget, trial_hours = self._config.budget, sum(record.hours for record in self._ledger.records.values())
        spent = (
            (budget.hours, (time.monotonic() - self._began) / 3600),
            (budget.cpu_hours, trial_hours * self._resources.get("CPU", 0.0)),
            (budget.gpu_hours, trial_hours * self._resources.get("GPU", 0.0)),
        )
        return any(most is not None and cost >= most for most, cost in spent)


class EarlyStopping(FIFOScheduler):
    """Ray Tune's ASHA or median stopping, with the reports from before a restart.

    A trial that has reported its last epoch is no longer stopped, because its process still saves and tests.
    """

    def __init__(self, config: SearchConfig, ledger: Ledger, *, epochs: int) -> None:
        """Replay the reports of the ledger.

        Args:
            config: the search.
            ledger: the reports of earlier starts; those of this one come in `on_trial_result`.
            epochs: of a trial.
        """
        super().__init__()
        self._watched, self._epochs = config.watched_metric(), epochs
        self._rule: Any = _rule_of(config, epochs=epochs)
        self._newest_epoch: dict[TrialName, float] = {}
        for record in ledger.records.values():
            self._replay(record)

    def _replay(self, record: TrialRecord) -> None:
        for epoch, value in record.curve:
            self._apply_rule(TrialName(record.name), {EPOCH: epoch, self._watched: value})

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """STOP or CONTINUE."""
        is_new = EPOCH in result and self._watched in result
        is_new = is_new and result[EPOCH] > self._newest_epoch.get(name := TrialName(trial.config["trial"]), 0.0)
        answer = self._apply_rule(name, result) if is_new else TrialScheduler.CONTINUE
        is_stopped = answer == TrialScheduler.STOP and result[EPOCH] < self._epochs
        return TrialScheduler.STOP if is_stopped else TrialScheduler.CONTINUE

    def _apply_rule(self, name: TrialName, result: dict[str, Any]) -> str:
        if name not in self._newest_epoch:
            self._rule.on_trial_add(_NOBODY_WAITS, name)
        self._newest_epoch[name] = result[EPOCH]
        return self._rule.on_trial_result(_NOBODY_WAITS, name, result)


def _rule_of(config: SearchConfig, *, epochs: int) -> TrialScheduler:
    settings = config.scheduler
    common: dict[str, Any] = {
        "time_attr": EPOCH,
        "metric": config.watched_metric(),
        "mode": "max" if config.is_more_better() else "min",
        "grace_period": settings.grace_epochs,
    }
    if settings.kind == "asha":
        return AsyncHyperBandScheduler(**common, max_t=epochs + 1, reduction_factor=settings.reduction_factor)
    return MedianStoppingRule(**common, min_samples_required=3)
