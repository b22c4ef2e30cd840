"""A command runs until it ends; when each of its answers came and how much memory its processes took come out.

The command appends a line to a file for each video, as `predict` does: a JSON object whose `clips` has an entry for
each clip that was scored.
"""

import json
import os
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pipelines.benchmark.measuring.processes import family, proportional_bytes

_PROJECT = Path(__file__).parents[3]
_LOOK_SECONDS = 0.02
_MAX_SECONDS = 3600
_LOOKS_A_SAMPLE = 20  # memory is read seldom, because that takes much longer than a look at the answers
_MAX_REASON = 100


class CommandFailedError(RuntimeError):
    """A command or a server ended with an error, too late or without all answers; the message is the reason."""


class Answer(NamedTuple):
    """One video: seconds since the command was started, and the clips that were scored."""

    seconds: float
    num_clips: int


class Watched(NamedTuple):
    """One run of a command.

    Attributes:
        answers: of all videos, in the order in which they came.
        peak_bytes: most memory of the command and its descendants at one time.
    """

    answers: tuple[Answer, ...]
    peak_bytes: int

    @property
    def first_seconds(self) -> float:
        """From the start of the command to its first answer."""
        return self.answers[0].seconds

    @property
    def num_clips(self) -> int:
        """Of all videos."""
        return sum(answer.num_clips for answer in self.answers)

    @property
    def clips_per_second(self) -> float:
        """From the first answer to the last one, without the clips of what came first."""
        return sum(answer.num_clips for answer in self._later) / self._later_seconds

    @property
    def videos_per_second(self) -> float:
        """As `clips_per_second`."""
        return len(self._later) / self._later_seconds

    @property
    def _later(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.seconds > self.first_seconds]

    @property
    def _later_seconds(self) -> float:
        return self.answers[-1].seconds - self.first_seconds


def watch(
    command: Sequence[str], *, answers: Path, num_videos: int, log: Path, max_seconds: float = _MAX_SECONDS
) -> Watched:
    """Run a command to its end.

    Args:
        command: its words.
        answers: the file to which it appends a line for each video; it does not exist yet.
        num_videos: lines that are expected.
        log: a file for what it prints.
        max_seconds: after which it is killed.

    Raises:
        CommandFailedError: it does not do its work.
    """
    with log.open("w") as output:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=output, env=command_environment(), cwd=log.parent)
        try:
            watched = _watch(process, answers, started, max_seconds=max_seconds)
        except (OSError, ValueError) as error:
            raise CommandFailedError(f"its answers cannot be read: {error}") from error
        finally:
            process.kill()  # only what was interrupted is still running
            process.wait()
    if process.returncode != 0 or len(watched.answers) < num_videos:
        raise CommandFailedError(last_line(log) or f"exit status {process.returncode}")
    if num_videos > 1 and watched.answers[-1].seconds == watched.first_seconds:
        raise CommandFailedError("all answers came at once, which gives no rate: measure more videos")
    return watched


def command_environment() -> dict[str, str]:
    """The variables of a command: Ray starts anew, and no model is looked for on Hugging Face's hub."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return environment | {"PYTHONPATH": str(_PROJECT), "HF_HUB_OFFLINE": "1"}


def tree_bytes(process: int) -> int:
    """Memory of a process and all its descendants; a page that several share counts once (Pss)."""
    total = 0
    for member in family(process):
        with suppress(OSError, StopIteration):  # it has ended meanwhile
            total += proportional_bytes(member)
    return total


def last_line(log: Path) -> str:
    """The last line that a program printed: the message of the exception, if it ended in one."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:_MAX_REASON] if lines else ""


def _watch(process: subprocess.Popen, path: Path, started: float, *, max_seconds: float) -> Watched:
    answers: list[Answer] = []
    position, peak_bytes, num_looks = 0, 0, 0
    while True:
        has_ended = process.poll() is not None
        lines = _whole_lines(path, position)
        seconds = time.perf_counter() - started
        for line in lines:
            position += len(line)
            answers.append(Answer(seconds, len(json.loads(line)["clips"] or ())))  # a failed video has no clips
        if has_ended:
            return Watched(tuple(answers), peak_bytes)
        if seconds > max_seconds:
            raise CommandFailedError(f"not done within {max_seconds:g} s")
        if num_looks % _LOOKS_A_SAMPLE == 0:
            peak_bytes = max(peak_bytes, tree_bytes(process.pid))
        num_looks += 1
        time.sleep(_LOOK_SECONDS)


def _whole_lines(path: Path, position: int) -> list[bytes]:
    """The lines from a byte on, without one that is still being written."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(position)
        return [line for line in file if line.endswith(b"\n")]
