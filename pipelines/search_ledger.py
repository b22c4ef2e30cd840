"""What became of every trial of a search, in a file that a killed driver leaves whole.

STORAGE/NAME/trials.jsonl    an event a line, in the order of time; what a cut line said is lost, and done again
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pipelines.search_space import Point

TrialState = Literal["begun", "ended", "stopped", "failed", "rejected"]


@dataclass(frozen=True)
class TrialRecord:
    """One point with one seed.

    Attributes:
        name: of its run.
        point_number: the same for every seed of a point.
        point: values and settings.
        seed: of the run.
        state: begun: under way, or cut off; stopped: by the scheduler; rejected: beyond the limits, never trained.
        reason: why it stopped, failed or was rejected.
        metrics: of its last validation, its network and its test.
        run_id: its MLflow run; none before there is one.
        hours: that it held its resources, over all starts.
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


class Ledger:
    """The records of one search, in the order in which their trials first began."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.records: dict[str, TrialRecord] = {}
        if path.is_file():
            for line in path.read_text().splitlines():
                self._take(line)

    def _take(self, line: str) -> None:
        try:
            event = json.loads(line)
        except ValueError:
            return
        event["point"] = Point(**event["point"])
        record = TrialRecord(**event)
        self.records[record.name] = record

    def write(self, record: TrialRecord) -> None:
        """Keep what is known of a trial now."""
        self.records[record.name] = record
        with self._path.open("a") as file:
            file.write(json.dumps(asdict(record)) + "\n")

    def update(self, name: str, **changes: Any) -> TrialRecord:
        """Keep what has changed of a trial; give its record."""
        record = replace(self.records[name], **changes)
        self.write(record)
        return record

    def of_point(self, number: int) -> list[TrialRecord]:
        """The trials of a point that began, one a seed."""
        return [record for record in self.records.values() if record.point_number == number]

    def unfinished(self) -> list[TrialRecord]:
        """Trials that were cut off, and go on first."""
        return [record for record in self.records.values() if record.state == "begun"]
