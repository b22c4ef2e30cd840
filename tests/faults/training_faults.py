"""A tiny training job that trials damage: they start it, find its processes, wait for its steps and compare its end.

Every process of a job inherits a mark in its environment, unique to the trial. Trials signal only processes with that
mark, or below one that they started, and `Job.close` ends those that are left.
"""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from mlflow import MlflowClient
from safetensors.torch import load_file

from pipelines.training.checkpoints import find_damage

REPO = Path(__file__).parents[2]
NAME = "trial"
MODEL = '{"kind": "t3d", "growth_rate": 4, "block_config": [2, 2, 2, 2], "num_init_features": 24, "bn_size": 2}'
# Everything random or with a state is on: a step that is missing, doubled or changed then changes the weights.
SETTINGS = [
    *("--model", MODEL, "--clip.num_frames", "16", "--clip.crop_size", "32", "--global_batch_size", "8"),
    *("--schedule.kind", "cosine", "--ema_decay", "0.9", "--augmentation.mixup_alpha", "0.2"),
    *("--augmentation.brightness", "0.3", "--validate_every_epochs", "20", "--log_every_steps", "1"),
]
_MARK = "LC_T3D_TRIAL"  # LC_: the process that decodes inherits it, too


class Job:
    """One run of jobs/train.py, started any number of times; a context that leaves no process behind.

    Attributes:
        folder: the run's own folder: checkpoints, metrics, weights.
        driver: the process of the newest start; None before the first.
        command: starts the run.
        environment: variables of every start.
    """

    def __init__(self, root: Path, shards: Path, *arguments: str, storage: Path | None = None) -> None:
        root.mkdir(parents=True, exist_ok=True)
        storage = storage or root / "runs"
        self.root, self.folder, self.log = root, storage / NAME, root / "log.txt"
        self.tracking_uri = f"sqlite:///{root}/mlflow.db"
        self.driver: subprocess.Popen | None = None
        self._mark = f"{_MARK}={root}"
        # Short, because Ray's sockets lie inside; the same when an interrupted script returns to its folder.
        self._ray_folder = Path(tempfile.gettempdir()) / f"t3d{hashlib.sha256(bytes(root)).hexdigest()[:8]}"
        self.command = [
            *(sys.executable, str(REPO / "jobs" / "train.py"), "--data.shards", str(shards), "--name", NAME),
            *("--storage", str(storage), "--tracking.uri", self.tracking_uri, *SETTINGS, *arguments),
        ]
        # One thread everywhere, so that sums are added up in the same order at every start.
        self.environment = {"RAY_TMPDIR": str(self._ray_folder), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        self.environment |= {_MARK: str(root), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def __enter__(self) -> "Job":
        self.close()  # ends what an interrupted script left running
        self._ray_folder.mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> subprocess.Popen:
        """Start it, or start it again; its output is added to the log."""
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_", "T3D_"))
        }
        with self.log.open("a") as log:
            self.driver = subprocess.Popen(
                self.command,
                cwd=self.root,
                env=inherited | self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self.driver

    def run(self, *, seconds: float = 600) -> int:
        """Start it and wait for its end; return its exit status."""
        return self.start().wait(timeout=seconds)

    def kill_driver(self) -> None:
        """Kill only the driver."""
        assert self.driver is not None
        self.driver.kill()
        self.driver.wait()

    def lines(self) -> list[str]:
        """The output of all starts; a progress bar begins a new line whenever it is drawn."""
        return self.log.read_text(errors="replace").replace("\r", "\n").splitlines() if self.log.exists() else []

    def last_line(self) -> str:
        """The last line of its output."""
        return next(line for line in reversed(self.lines()) if line.strip())

    def processes(self, title: str = "") -> list[int]:
        """Its processes whose title begins with `title`, as ray::RayTrainWorker; oldest first."""
        own = [] if self.driver is None else [self.driver.pid]
        found = marked(self._mark) | below(own)
        return sorted(pid for pid in found if title_of(pid).startswith(title))

    def workers(self) -> list[int]:
        """Its train workers."""
        return self.processes("ray::RayTrainWorker")

    def losses(self) -> list[tuple[int, float]]:
        """(step, training loss) of every line of its curves."""
        file = self.folder / "metrics.jsonl"
        lines = file.read_bytes().splitlines(keepends=True) if file.exists() else []
        points = [json.loads(line) for line in lines if line.endswith(b"\n")]
        return [(point["step"], point["metrics"]["train/loss"]) for point in points if "train/loss" in point["metrics"]]

    def step(self) -> int:
        """The last step in its curves."""
        losses = self.losses()
        return losses[-1][0] if losses else 0

    def wait_for_step(self, step: int, *, seconds: float = 300) -> None:
        """Wait until its curves have `step`; fail if it ends before."""
        wait_for(lambda: self.step() >= step or not self.is_running(), seconds=seconds)
        assert self.step() >= step, self.last_line()

    def is_running(self) -> bool:
        """Whether its newest start has not ended."""
        return self.driver is not None and self.driver.poll() is None

    def has_summary(self) -> bool:
        """Whether it has come to its end."""
        return (self.folder / "summary.txt").exists()

    def checkpoints(self) -> list[int]:
        """Steps of its checkpoints that are whole."""
        folders = sorted(self.folder.glob("checkpoint_????????"))
        return [int(folder.name[-8:]) for folder in folders if find_damage(folder) is None]

    def weights(self) -> dict[str, torch.Tensor]:
        """Its final weights."""
        return load_file(self.folder / "model.safetensors")

    def tracked(self) -> tuple[str, list[tuple[int, float]]]:
        """Status and (step, training loss) points of its only run in MLflow."""
        client = MlflowClient(self.tracking_uri)
        (run,) = client.search_runs([client.get_experiment_by_name("t3d").experiment_id])
        points = client.get_metric_history(run.info.run_id, "train/loss")
        return run.info.status, sorted((point.step, point.value) for point in points)

    def close(self) -> None:
        """End the processes that are left of all starts."""
        for _ in range(3):  # processes that are just starting are found in the next round
            for pid in self.processes():
                end(pid)
            time.sleep(0.2)
        if self.driver is not None:
            self.driver.wait()
        shutil.rmtree(self._ray_folder, ignore_errors=True)


def assert_ended_as(job: Job, undisturbed: Job) -> None:
    """Every step once, with the loss of the undisturbed run, in the file and in MLflow; and equal weights."""
    assert job.losses() == undisturbed.losses()
    assert job.tracked() == ("FINISHED", sorted(undisturbed.losses()))
    expected, weights = undisturbed.weights(), job.weights()
    assert expected.keys() == weights.keys()
    assert [name for name in expected if not torch.equal(expected[name], weights[name])] == []
    assert not list(job.folder.glob("checkpoint_*.partial"))


def assert_every_step_once(job: Job, num_steps: int) -> None:
    """Steps 1 to `num_steps`, each once, in the file and in MLflow; their losses depend on the number of workers."""
    assert [step for step, _ in job.losses()] == list(range(1, num_steps + 1))
    assert job.tracked() == ("FINISHED", job.losses())
    assert all(torch.isfinite(tensor).all() for tensor in job.weights().values())


def prepare_shards(folder: Path) -> Path:
    """Make 48 synthetic videos of 40 frames, of which training reads 29."""
    size = ["--dataset.num_frames", "40", "--dataset.height", "48", "--dataset.width", "64"]
    parts = ["--dataset.videos_per_class", "6", "--dataset.val_fraction", "0.2", "--dataset.test_fraction", "0.2"]
    command = [
        *(sys.executable, str(REPO / "jobs" / "prepare.py"), "--dataset.kind", "synthetic", *size, *parts),
        *("--videos_per_shard", "10", "--output", str(folder), "--tracking.uri", f"sqlite:///{folder}.db"),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder.parent)
    return folder


def wait_for(condition: Callable[[], Any], *, seconds: float) -> Any:
    """Wait until `condition` returns something true, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s"
        time.sleep(0.05)
    return found


def below(roots: Iterable[int]) -> set[int]:
    """Process ids of `roots` and of all their descendants, without zombies."""
    parents = {pid: int(fields[1]) for pid in all_pids() if (fields := _stat(pid)) and fields[0] != "Z"}
    known = set(roots)
    while new := {pid for pid, parent in parents.items() if parent in known} - known:
        known |= new
    return {pid for pid in known if pid in parents}


def marked(entry: str) -> set[int]:
    """Process ids of those whose environment has the entry NAME=value."""
    found = set()
    for pid in all_pids():
        with contextlib.suppress(OSError):
            if entry.encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.add(pid)
    return found


def title_of(pid: int) -> str:
    """The command line of a process; empty when it is gone or dead."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def end(pid: int) -> None:
    """Kill one process if it still exists."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def all_pids() -> list[int]:
    """All process ids of the machine."""
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _stat(pid: int) -> list[str]:
    """State, parent, ... of a process, as proc(5) has them from the third field on; empty when it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return []
