"""Peak resident bytes by number of videos: of `prepare` on tiny videos, and of planning a long list of ids.

Each measurement has new processes. The kernel records every process's peak (VmHWM in /proc), which is read four times a
second. So a short process could be missed, but no short peak of a long one.
"""

import base64
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipelines.benchmark.measuring.processes import command_line, family, memory_bytes
from t3d_core.video.storage import encode_video

ROLES = ("driver", "worker", "decoder", "ray")

_PROJECT = Path(__file__).parents[3]
_NUM_FILES = 4  # all other names are links to these
_NUM_FRAMES, _HEIGHT, _WIDTH = 8, 48, 64
_LOOK_SECONDS = 0.25
_NUM_PRESENT = 3


class Peaks(NamedTuple):
    """One run of the job: its duration, and the peak bytes of the largest process of each role."""

    num_videos: int
    seconds: float
    peak_bytes: dict[str, int]


class Planning(NamedTuple):
    """One manifest: time to list, shuffle, cut and write it; peak bytes of the process, after and before."""

    num_ids: int
    num_shards: int
    seconds: float
    peak_bytes: int
    bytes_before: int


def measure_memory(num_videos: int) -> Peaks:
    """Run jobs/prepare.py on `num_videos` tiny videos.

    Raises:
        RuntimeError: the job failed; its output is the message.
    """
    with tempfile.TemporaryDirectory(prefix="t3d-benchmark-") as temporary:
        folder = Path(temporary)
        _write_tiny_videos(folder / "videos" / "clips", num_videos=num_videos)
        start = time.perf_counter()
        with (folder / "log").open("w+") as log:
            job = subprocess.Popen(_command(folder), stdout=log, stderr=log, env=_environment(), cwd=folder)
            peaks = _watch(job)
            log.seek(0)
            if job.wait() != 0:
                raise RuntimeError(f"prepare of {num_videos} tiny videos failed: {log.read()[-2000:]}")
        return Peaks(num_videos, time.perf_counter() - start, peaks)


def measure_planning(num_ids: int) -> Planning:
    """List, shuffle and cut `num_ids` YouTube ids, nearly all of them missing, and write their records."""
    with tempfile.TemporaryDirectory(prefix="t3d-benchmark-") as temporary:
        folder = Path(temporary)
        ids = [youtube_id(number) for number in range(num_ids)]
        (folder / "ids.txt").write_text("\n".join(ids) + "\n")
        (folder / "videos").mkdir()
        for video_id in ids[:_NUM_PRESENT]:
            (folder / "videos" / f"{video_id}.mp4").touch()
        command = [sys.executable, "-m", "pipelines.benchmark.prepare.plan_manifest", str(folder)]
        child = subprocess.run(command, env=_environment(), stdout=subprocess.PIPE, check=True, text=True)
        return Planning(**json.loads(child.stdout.splitlines()[-1]))


def youtube_id(number: int) -> str:
    """An id of 11 characters, like those of YouTube."""
    return base64.urlsafe_b64encode(hashlib.sha256(str(number).encode()).digest())[:11].decode()


def _write_tiny_videos(folder: Path, *, num_videos: int) -> None:
    folder.mkdir(parents=True)
    for index in range(num_videos):
        path, first = folder / f"{index:06d}.mp4", folder / f"{index % _NUM_FILES:06d}.mp4"
        if index < _NUM_FILES:
            frames_THWC = np.random.default_rng(index).integers(0, 256, (_NUM_FRAMES, _HEIGHT, _WIDTH, 3), np.uint8)
            encode_video(frames_THWC, path=path, fps=8.0)
        else:
            os.link(first, path)


def _command(folder: Path) -> list[str]:
    options = {
        "dataset.kind": "folder",
        "dataset.root": folder / "videos",
        "dataset.test_fraction": 0,
        "output": folder / "shards",
        "tracking.uri": f"sqlite:///{folder}/mlflow.db",
    }
    return [
        sys.executable,
        str(_PROJECT / "jobs" / "prepare.py"),
        *(part for name, value in options.items() for part in (f"--{name}", str(value))),
    ]


def _environment() -> dict[str, str]:
    """Without RAY_ADDRESS, so that the job starts its own Ray, whose processes are its children."""
    inherited = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return inherited | {"PYTHONPATH": str(_PROJECT)}


def _watch(job: subprocess.Popen) -> dict[str, int]:
    """Peak bytes of the largest process of each role until the job ends."""
    peaks: defaultdict[str, int] = defaultdict(int)
    while job.poll() is None:
        for process in family(job.pid):
            with suppress(OSError, StopIteration):  # it has ended meanwhile
                role = _role(process, driver=job.pid)
                peaks[role] = max(peaks[role], memory_bytes(process, "VmHWM"))
        time.sleep(_LOOK_SECONDS)
    return dict(peaks)


def _role(process: int, *, driver: int) -> str:
    if process == driver:
        return "driver"
    command = command_line(process)
    if "t3d_core.video.guard_child" in command:
        return "decoder"
    return "worker" if command.startswith("ray::") or "default_worker.py" in command else "ray"
