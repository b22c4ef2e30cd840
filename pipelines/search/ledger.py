"""The history of every trial of a search, in a file that a killed driver leaves intact.

STORAGE/NAME/trials.jsonl    one event per line, oldest first; the event of an incomplete line is lost and done again
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pipelines.search.space import Point

TrialState = Literal["begun", "waiting", "ended", "stopped", "failed", "rejected"]


@dataclass(frozen=True)
class TrialRecord:
    """One point with one seed.

    Attributes:
        name: of its run.
        point_number: the same for every seed of a point.
        point: values and settings.
        seed: of the run.
        state: begun: running or interrupted; waiting: for the others of its population; stopped: by the scheduler;
            rejected: beyond the limits, never trained.
        reason: why it stopped, failed or was rejected.
        metrics: of its last validation, its network and its test.
        run_id: its MLflow run; None before it has one.
        hours: how long it held its resources, over all starts.
        curve: (epoch, value of the watched metric) of each validation except the one before the first step.
        scores: of a population: the watched metric after each interval.
        changed: of a population: values and settings now; None if they are those of `point`.
        donors: of a population: names of the trials whose weights it took over, each after its epoch.
    """

    name: str
    point_number: int
    point: Point
    seed: int
    state: TrialState = "begun"
    reason: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    run_id: str | None = None
    hours: float = 0.0
    curve: Sequence[tuple[float, float]] = ()
    scores: Sequence[float] = ()
    changed: Point | None = None
    donors: Sequence[str] = ()

    @property
    def current(self) -> Point:
        """Values and settings now."""
        return self.changed or self.point


class Ledger:
    """The records of one search, in the order in which their trials first began."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.records: dict[str, TrialRecord] = {}
        text = path.read_text() if path.is_file() else ""
        for line in text.splitlines():
            self._take(line)
        if text and not text.endswith("\n"):  # incomplete: the next event starts a new line
            with path.open("a") as file:
                file.write("\n")

    def _take(self, line: str) -> None:
        try:
            event = json.loads(line)
        except ValueError:
            return
        event["point"] = Point(**event["point"])
        event["changed"] = event.get("changed") and Point(**event["changed"])
        record = TrialRecord(**event)
        self.records[record.name] = record

    def write(self, *records: TrialRecord) -> None:
        """Write the current records of trials: all of them or, if the driver is killed, none."""
        self.records |= {record.name: record for record in records}
        lines = "".join(json.dumps(asdict(record)) + "\n" for record in records)
        with self._path.open("ab", buffering=0) as file:
            file.write(lines.encode())

    def update(self, name: str, **changes: Any) -> TrialRecord:
        """Write what has changed of a trial; return its record."""
        record = replace(self.records[name], **changes)
        self.write(record)
        return record

    def of_point(self, number: int) -> list[TrialRecord]:
        """The trials of a point that began, one per seed."""
        return [record for record in self.records.values() if record.point_number == number]

    def of_state(self, *states: TrialState) -> list[TrialRecord]:
        """The trials of these states."""
        return [record for record in self.records.values() if record.state in states]

    def unfinished(self) -> list[TrialRecord]:
        """Trials that resume when the search does."""
        return self.of_state("begun", "waiting")
