"""Points become trials, one after another: Ray Tune asks for the next trial and reports its outcome."""

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
# After this many rejected points in a row a search stops drawing.
_MAX_REJECTED = 200


class TrialSource(Searcher):
    """Gives Ray Tune the interrupted trials, then new ones, never more at once than fit.

    The transfers before a trial are given one after another, before the first trial that needs them. While they run,
    it waits, and others run.
    There is no state that a restart would lose: the history is in the ledger, and a transfer that has ended ends again
    at once.
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
        transfers_of: Callable[[TrialRecord], Sequence[str]] = lambda _: (),
        transferred: Callable[..., str | None] = ignore,
    ) -> None:
        """Begin.

        Args:
            config: the search.
            ledger: the history of the trials, which it extends.
            max_concurrent: trials at once.
            reject: gives the reason why a point is not trained; None if it is.
            ended: takes a trial's record, its last report and whether its process was lost; returns the record of
                its outcome.
            take_over: gives a member of a population the weights of its donor.
            transfers_of: gives the names of the transfer runs before a trial, in the order in which they run.
            transferred: takes the name of a transfer run, its last report and whether its process was lost; returns why
                it failed, "" if it ended, and None if it was interrupted.
        """
        super().__init__(metric=config.watched_metric(), mode="max" if config.is_more_better() else "min")
        self._ended, self._take_over = ended, take_over
        self._config, self._ledger, self._max_concurrent, self._reject = config, ledger, max_concurrent, reject
        self._transfers_of, self._transferred = transfers_of, transferred
        self._running: dict[str, str] = {}
        self._transfers: dict[str, str | None] = {}  # name -> what `transferred` gave; None while it runs
        self._waiting: list[tuple[TrialRecord, str]] = []  # for the transfer of this name
        # A failed trial may succeed now; in a population it would be intervals behind.
        resumable = ("begun",) if config.scheduler.kind == "pbt" else ("begun", "failed")
        self._interrupted = ledger.of_state(*resumable)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(directions=_directions(config))
        self._asked: dict[int, optuna.Trial] = {}
        self._reported: set[int] = set()
        self._new = self._all_trials()

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The next trial; None while it must wait for room or for other trials; FINISHED if there are no more."""
        if len(self._running) >= self._max_concurrent:
            return None
        while isinstance(ready := self._next_ready(), tuple):
            record, transfer = ready
            if transfer is not None and transfer not in self._transfers:
                self._transfers[transfer] = None
                self._waiting.append((record, transfer))
                self._running[trial_id] = transfer
                return assignment_of(record, self._config, transfer=transfer)
            if transfer is not None and (reason := self._transfers[transfer]):
                self._ended(record, {"failure": f"{transfer} failed: {reason}"}, is_lost=False)
                self._report(record.point_number)
                continue
            self._running[trial_id] = record.name
            return assignment_of(record, self._config)
        return ready  # type: ignore[return-value]  # as Ray documents it

    def _next_ready(self) -> tuple[TrialRecord, str | None] | str | None:
        """What `_ready` gives of a trial; None if there is none now, FINISHED if none is left."""
        for waiting in list(self._waiting):
            if self._transfers[waiting[1]] is not None:
                self._waiting.remove(waiting)
                if (ready := self._ready(waiting[0])) is not None:
                    return ready
        # What a sampler draws next depends on the trials that wait; a grid is known.
        while not self._waiting or self._config.sampler.kind == "grid":
            record = self._interrupted.pop(0) if self._interrupted else next(self._new, Searcher.FINISHED)
            if not isinstance(record, TrialRecord):
                return None if self._waiting else record
            if record.state == "failed":
                record = self._ledger.update(record.name, state="begun", reason="")
            if (ready := self._ready(record)) is not None:
                return ready
        return None

    def _ready(self, record: TrialRecord) -> tuple[TrialRecord, str | None] | None:
        """The trial, with the first of its transfers that has not ended well, if any; None if it runs now."""
        left = (name for name in self._transfers_of(record) if self._transfers.get(name) != "")
        transfer = next(left, None)
        if transfer is not None and self._transfers.get(transfer, "") is None:
            self._waiting.append((record, transfer))
            return None
        return record, transfer

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Make room, record the outcome, and report a point that was trained with every seed to the sampler."""
        name = self._running.pop(trial_id)
        if name in self._transfers:
            self._transfers[name] = self._transferred(name, result or {}, is_lost=error)
            return
        record = self._ended(self._ledger.records[name], result or {}, is_lost=error)
        self._report(record.point_number)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger has it."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the ledger has it."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as in `save`: Tune saves its parts for a restart of its own, which a search never uses."""
        return {}

    def _all_trials(self) -> Iterator[TrialRecord | None]:
        """All trials that have not begun; then, in a population, its next intervals, and None while it waits."""
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
        # Last, because a search that is killed before must find all members still waiting.
        self._ledger.write(*(heir.record for heir in heirs))
        yield from (heir.record for heir in heirs)

    def _grid_trials(self) -> Iterator[TrialRecord]:
        """All points with the first seed, then all with the next."""
        points = grid_points(self._config.space)
        rejected: dict[int, bool] = {}
        for seed in self._config.seeds:
            for number, point in enumerate(points):
                if number not in rejected:
                    rejected[number] = self._is_rejected(number, point)
                if not rejected[number]:
                    yield from self._begun(number, point, seed)

    def _drawn_trials(self) -> Iterator[TrialRecord]:
        """Each point with all its seeds before the next is drawn; points of the ledger are not drawn again."""
        number = num_rejected = num_points = 0
        while num_points < self._config.sampler.num_points:
            known = self._ledger.of_point(number)
            point = known[0].point if known else self._draw(number)
            if known[0].state == "rejected" if known else self._is_rejected(number, point):
                num_rejected += 1
                if num_rejected == _MAX_REJECTED:
                    raise UserError(
                        f"{_MAX_REJECTED} points in a row were rejected, the last because of {self._reject(point)}: "
                        "widen the limits or narrow the space"
                    )
            else:
                num_rejected, num_points = 0, num_points + 1
                for seed in self._config.seeds:
                    yield from self._begun(number, point, seed)
            self._report(number)
            number += 1

    def _draw(self, number: int) -> Point:
        """What the sampler proposes; a resumed search draws what it would have drawn without the interruption."""
        kind = {"random": optuna.samplers.RandomSampler, "tpe": optuna.samplers.TPESampler}[self._config.sampler.kind]
        self._study.sampler = kind(seed=self._config.sampler.seed * 1_000_003 + number)
        self._asked[number] = self._study.ask()
        return draw_point(self._config.space, self._asked[number])

    def _report(self, number: int) -> None:
        """Report a point to the study once it was trained with every seed, or rejected."""
        if self._config.sampler.kind == "grid" or number in self._reported:
            return
        records = self._ledger.of_point(number)
        are_over = all(record.state != "begun" for record in records)
        is_rejected = any(record.state == "rejected" for record in records)
        if not are_over or not (is_rejected or len(records) == len(self._config.seeds)):
            return
        self._reported.add(number)
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


def assignment_of(record: TrialRecord, config: SearchConfig, *, transfer: str = "") -> dict[str, Any]:
    """What the process of a trial or of a transfer receives: JSON, because Tune takes nested settings apart."""
    point = {"settings": dict(record.point.settings), "values": dict(record.point.values)}
    assignment = {"trial": record.name, "seed": record.seed, "point": json.dumps(point), "transfer": transfer}
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
    """Mean of the watched metric over seeds, with the multiply-adds if they are weighed; None if no seed has it."""
    metric = config.watched_metric()
    found = [record.metrics for record in records if metric in record.metrics]
    if not found:
        return None
    names = [metric, "model/gmacs"] if config.sampler.weigh_macs else [metric]
    means = [float(np.mean([metrics[name] for metrics in found])) for name in names]
    return means if np.isfinite(means).all() else None
