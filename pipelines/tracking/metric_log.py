"""Metrics of a training run go into a file at once, and from there to MLflow whenever it can be reached.

RUN_FOLDER/metrics.jsonl        {"time_ms": 1764000000000, "step": 10, "metrics": {"train/loss": 2.3}} and so on
RUN_FOLDER/metrics.jsonl.sent   how many bytes of it MLflow has

A line is in the file when `log` returns, so a killed process loses none. Its successor (the worker that resumes, or the
driver at the end) continues to send where the killed process stopped. A point that is sent twice stays one point,
because MLflow identifies it by run, name, step, time and value, and the time is that of the line.

A curve only goes forward: a run that resumes from a checkpoint repeats steps, and the file drops points of a name at
steps that it already has. MLflow cannot take back the first points, and with both the curve would zigzag. Little is
lost: one worker on a CPU repeats steps with the same values except the throughput, others with nearly the same.
"""

import itertools
import json
import logging
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from pipelines.tracking.runs import MAX_POINTS, Point, PointsRefusedError, Run
from t3d_core.errors import UserError

_LOG = logging.getLogger(__name__)
_SECONDS_BETWEEN_SENDS = 1.0
_MOST_SECONDS_BETWEEN_TRIES = 4.0
_LINES_AT_ONCE = 200


class MetricLog:
    """What worker 0 logs: in the file at once, in MLflow soon; training continues while MLflow is away.

    Args:
        run: where the points go.
        path: the file; what an earlier process left in it is sent first.
    """

    def __init__(self, run: Run, path: Path) -> None:
        self._path = path
        self._file = path.open("a+b")
        self._last_steps = _cut_to_whole_lines(self._file)
        self._sender = _Sender(run, path)
        self._is_closing = threading.Event()
        self._deadline = float("inf")
        self._thread = threading.Thread(target=self._keep_sending, name="metric-log", daemon=True)
        self._thread.start()

    def log(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Write the metrics of one step to the file, without those that it has for this step or a later one.

        Raises:
            UserError: the file cannot be written.
        """
        new = {name: float(value) for name, value in metrics.items() if step > self._last_steps.get(name, step - 1)}
        if not new:
            return
        line = json.dumps({"time_ms": int(time.time() * 1000), "step": step, "metrics": new})
        try:
            self._file.write(line.encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise UserError(
                f"the metrics of step {step} cannot be written to {self._path} ({error}): make room there, then start "
                "the job again with the same --name"
            ) from error
        self._last_steps.update(dict.fromkeys(new, step))

    def close(self, *, timeout_seconds: float) -> bool:
        """Wait at most `timeout_seconds` until all is sent; return whether it is. `drain` sends the rest."""
        self._deadline = time.monotonic() + timeout_seconds
        self._is_closing.set()
        self._thread.join(timeout_seconds)
        self._file.close()
        return self._sender.unsent().num_bytes == 0

    def _keep_sending(self) -> None:
        pause = _SECONDS_BETWEEN_SENDS
        while not self._is_closing.wait(pause):
            is_well = self._sender.try_to_send()
            pause = _SECONDS_BETWEEN_SENDS if is_well else min(2 * pause, _MOST_SECONDS_BETWEEN_TRIES)
        while not self._sender.try_to_send() and time.monotonic() < self._deadline:
            time.sleep(_SECONDS_BETWEEN_SENDS)


def drain(run: Run, path: Path, *, timeout_seconds: float) -> None:
    """Send what the workers of a run left in the file, and try for `timeout_seconds`; the file may be missing.

    Raises:
        UserError: MLflow could not be reached in this time.
    """
    if not path.exists():
        return
    sender = _Sender(run, path)
    deadline = time.monotonic() + timeout_seconds
    while not sender.try_to_send():
        if time.monotonic() > deadline:
            first_step = min(point.step for point in sender.unsent().points)
            raise UserError(
                f"the metrics from step {first_step} on are not in MLflow, because {run.tracking_uri} accepts none "
                f"({sender.trouble}); they are kept in {path}: start the job again with the same --name once it does"
            )
        time.sleep(_SECONDS_BETWEEN_SENDS)


def read_curves(path: Path) -> dict[str, list[tuple[int, float]]]:
    """Read the whole lines of the file: name -> (step, value) in their order."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for line in path.read_bytes().splitlines():
        for point in _points(line):
            curves.setdefault(point.name, []).append((point.step, point.value))
    return curves


class _Unsent(NamedTuple):
    position: int
    num_bytes: int
    points: list[Point]


class _Sender:
    """Sends lines of the file to MLflow in order, from where the last process stopped."""

    def __init__(self, run: Run, path: Path) -> None:
        self.trouble: Exception | None = None
        self._run, self._path = run, path
        self._position_path = path.with_name(path.name + ".sent")
        self._num_refused = 0

    def try_to_send(self) -> bool:
        """Send all that is in the file; return whether that succeeded."""
        try:
            while (unsent := self.unsent()).num_bytes:
                for first in range(0, len(unsent.points), MAX_POINTS):
                    self._send(unsent.points[first : first + MAX_POINTS])
                self._move_to(unsent.position + unsent.num_bytes)
        except Exception as error:  # whatever the error is, training and the attempts continue
            if self.trouble is None:
                _LOG.warning(
                    "MLflow accepts no metrics now: they wait in %s, and the run continues (%s)", self._path, error
                )
            self.trouble = error
            return False
        if self.trouble is not None:
            # A warning, because workers show nothing below that level.
            _LOG.warning("MLflow can be reached again and has all metrics of %s", self._path)
        self.trouble = None
        return True

    def unsent(self) -> "_Unsent":
        """Read the next lines that MLflow does not have; a last line that is half written is left for later."""
        position = self._read_position()
        with self._path.open("rb") as file:
            # A file that lost its end when its machine failed is sent anew.
            position = file.seek(position if position <= self._path.stat().st_size else 0)
            lines = [line for line in itertools.islice(file, _LINES_AT_ONCE) if line.endswith(b"\n")]
        return _Unsent(position, sum(map(len, lines)), [point for line in lines for point in _points(line)])

    def _read_position(self) -> int:
        """How many bytes MLflow has; 0 where a lost machine left no number, so that all is sent anew."""
        try:
            return int(self._position_path.read_text())
        except (FileNotFoundError, ValueError):
            return 0

    def _move_to(self, position: int) -> None:
        partial = self._position_path.with_name(f"{self._position_path.name}.{os.getpid()}.partial")
        partial.write_text(str(position))
        os.replace(partial, self._position_path)

    def _send(self, points: list[Point]) -> None:
        """Send the points; leave out those that MLflow refuses, because it would refuse them for ever."""
        try:
            self._run.log_points(points)
        except PointsRefusedError as error:
            if len(points) > 1:
                middle = len(points) // 2
                self._send(points[:middle])
                self._send(points[middle:])
                return
            if self._num_refused == 0:
                _LOG.warning(
                    "MLflow refuses %s: it and further points of that kind are left out (%s)", points[0], error
                )
            self._num_refused += 1


def _cut_to_whole_lines(file: BinaryIO) -> dict[str, int]:
    """Remove the last line if a kill interrupted it; return the last step of each name."""
    last_steps: dict[str, int] = {}
    file.seek(0)
    num_bytes = 0
    for line in file:
        if line.endswith(b"\n"):
            num_bytes += len(line)
            last_steps.update({point.name: point.step for point in _points(line)})
    file.truncate(num_bytes)
    return last_steps


def _points(line: bytes) -> list[Point]:
    """Read a line; a line that was damaged by a loss of power gives no points."""
    try:
        known: dict[str, Any] = json.loads(line)
    except ValueError:
        return []
    return [Point(name, value, known["time_ms"], known["step"]) for name, value in known["metrics"].items()]
