"""Points become trials, one after another: Ray Tune asks for the next one and tells what became of it."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import optuna
from ray.tune.search import Searcher

from pipelines.search.config import SearchConfig
from pipelines.search.ledger import Ledger, TrialRecord
from pipelines.search.population import Heir, next_interval
from pipelines.search.space import Point, draw_point, grid_points, trial_of
from pipelines.training.worker import ignore
from t3d_core.errors import UserError

Direction = Literal["maximize", "minimize"]
# Points in a row that may lie beyond the limits before a search gives up drawing.
_MAX_REJECTED = 200


class TrialSource(Searcher):
    """Gives Ray Tune the trials that were cut off, then new ones, never more at once than there is room for.

    It keeps nothing of its own that a restart would miss: what has been is in the ledger.
    """

    def __init__(
        self,
        config: SearchConfig,
        ledger: Ledger,
        *,
        max_concurrent: int,
        reject: Callable[[Point], str | None],
        ended: Callable[..., TrialRecord],
        take_over: Callable[[Heir], None] = ignore,
    ) -> None:
        """Begin.

        Args:
            config: the search.
            ledger: what has been, and where what happens is kept.
            max_concurrent: trials at once.
            reject: says why a point is not to be trained; none: it is.
            ended: takes a trial's record, what it reported last and whether its process was lost; gives the record
                of what became of it.
            take_over: gives a member of a population the weights of its donor.
        """
        super().__init__(metric=config.watched_metric(), mode="max" if config.is_more_better() else "min")
        self._ended, self._take_over = ended, take_over
        self._config, self._ledger, self._max_concurrent, self._reject = config, ledger, max_concurrent, reject
        self._running: dict[str, str] = {}
        # What failed may do so no longer; of a population it would be intervals behind.
        goes_on = ("begun",) if config.scheduler.kind == "pbt" else ("begun", "failed")
        self._cut_off = ledger.of_state(*goes_on)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(directions=_directions(config))
        self._asked: dict[int, optuna.Trial] = {}
        self._told: set[int] = set()
        self._new = self._all_trials()

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Name the next trial; none while there is no room or others must end first; FINISHED: there are no more."""
        if len(self._running) >= self._max_concurrent:
            return None
        record = self._cut_off.pop(0) if self._cut_off else next(self._new, Searcher.FINISHED)
        if not isinstance(record, TrialRecord):
            return record  # type: ignore[return-value]  # as Ray documents it
        if record.state == "failed":
            record = self._ledger.update(record.name, state="begun", reason="")
        self._running[trial_id] = record.name
        return assignment_of(record, self._config)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Make room, keep what became of the trial, and tell the sampler of a point trained with every seed."""
        record = self._ended(self._ledger.records[self._running.pop(trial_id)], result or {}, is_lost=error)
        self._tell(record.point_number)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger has it."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the ledger has it."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as in `save`: Tune writes its parts down for a restart of its own, which no search makes."""
        return {}

    def _all_trials(self) -> Iterator[TrialRecord | None]:
        """All trials that have not begun; of a population then its next intervals, and none while it waits for one."""
        yield from self._grid_trials() if self._config.sampler.kind == "grid" else self._drawn_trials()
        while self._config.scheduler.kind == "pbt" and self._ledger.unfinished():
            yield from self._next_interval()

    def _next_interval(self) -> Iterator[TrialRecord | None]:
        while self._ledger.of_state("begun"):
            yield None
        waiting = self._ledger.of_state("waiting")
        heirs: list[Heir] = []
        for seed in self._config.seeds:
            if members := [record for record in waiting if record.seed == seed]:
                heirs += next_interval(members, self._config, seed=seed)
        for heir in heirs:
            if heir.donor is not None:
                self._take_over(heir)
        # Only now: until then a search that is killed finds all as they waited.
        self._ledger.write(*(heir.record for heir in heirs))
        yield from (heir.record for heir in heirs)

    def _grid_trials(self) -> Iterator[TrialRecord]:
        """A seed goes through all points before the next one."""
        points = grid_points(self._config.space)
        rejected: dict[int, bool] = {}
        for seed in self._config.seeds:
            for number, point in enumerate(points):
                if number not in rejected:
                    rejected[number] = self._is_rejected(number, point)
                if not rejected[number]:
                    yield from self._begun(number, point, seed)

    def _drawn_trials(self) -> Iterator[TrialRecord]:
        """A point goes through all seeds before the next one is drawn; one that the ledger has is not drawn anew."""
        number = num_rejected = num_points = 0
        while num_points < self._config.sampler.num_points:
            known = self._ledger.of_point(number)
            point = known[0].point if known else self._draw(number)
            if known[0].state == "rejected" if known else self._is_rejected(number, point):
                num_rejected += 1
                if num_rejected == _MAX_REJECTED:
                    raise UserError(
                        f"{_MAX_REJECTED} points in a row lie beyond the limits, the last one for "
                        f"{self._reject(point)}: widen limits, or narrow the space"
                    )
            else:
                num_rejected, num_points = 0, num_points + 1
                for seed in self._config.seeds:
                    yield from self._begun(number, point, seed)
            self._tell(number)
            number += 1

    def _draw(self, number: int) -> Point:
        """What the sampler proposes; a search that was cut off goes on to draw what it would have drawn."""
        kind = {"random": optuna.samplers.RandomSampler, "tpe": optuna.samplers.TPESampler}[self._config.sampler.kind]
        self._study.sampler = kind(seed=self._config.sampler.seed * 1_000_003 + number)
        self._asked[number] = self._study.ask()
        return draw_point(self._config.space, self._asked[number])

    def _tell(self, number: int) -> None:
        """Let the study know a point that has been trained with every seed, or rejected; others later."""
        if self._config.sampler.kind == "grid" or number in self._told:
            return
        records = self._ledger.of_point(number)
        are_over = all(record.state != "begun" for record in records)
        is_rejected = any(record.state == "rejected" for record in records)
        if not are_over or not (is_rejected or len(records) == len(self._config.seeds)):
            return
        self._told.add(number)
        values = _objectives(records, self._config)
        if number in self._asked:
            state = optuna.trial.TrialState.FAIL if values is None else None
            self._study.tell(self._asked.pop(number), values, state=state)
        elif values is not None:
            self._study.add_trial(trial_of(self._config.space, records[0].point, values))

    def _begun(self, number: int, point: Point, seed: int) -> Iterator[TrialRecord]:
        record = TrialRecord(f"p{number:03d}-seed{seed}", number, point, seed)
        if record.name not in self._ledger.records:
            self._ledger.write(record)
            yield record

    def _is_rejected(self, number: int, point: Point) -> bool:
        if (reason := self._reject(point)) is None:
            return False
        name = f"p{number:03d}"
        if name not in self._ledger.records:
            self._ledger.write(TrialRecord(name, number, point, seed=0, state="rejected", reason=reason))
        return True


def assignment_of(record: TrialRecord, config: SearchConfig) -> dict[str, Any]:
    """What a trial's process is given: JSON, because Tune takes nested settings apart."""
    point = {"settings": dict(record.point.settings), "values": dict(record.point.values), "label": record.point.label}
    assignment = {"trial": record.name, "seed": record.seed, "point": json.dumps(point)}
    if config.scheduler.kind != "pbt":
        return assignment
    until_epoch = (len(record.scores) + 1) * config.scheduler.interval_epochs
    return assignment | {
        "interval": json.dumps({"until_epoch": until_epoch, "settings": dict(record.current.settings)})
    }


def _directions(config: SearchConfig) -> list[Direction]:
    directions: list[Direction] = ["maximize" if config.is_more_better() else "minimize"]
    return [*directions, "minimize"] if config.sampler.weigh_macs else directions


def _objectives(records: Sequence[TrialRecord], config: SearchConfig) -> list[float] | None:
    """The mean over seeds of what is looked at, and the multiply-adds where they are weighed; none: no seed has it."""
    metric = config.watched_metric()
    found = [record.metrics for record in records if metric in record.metrics]
    if not found:
        return None
    names = [metric, "model/gmacs"] if config.sampler.weigh_macs else [metric]
    means = [float(np.mean([metrics[name] for metrics in found])) for name in names]
    return means if np.isfinite(means).all() else None
