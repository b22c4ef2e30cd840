"""A training run is killed for real and goes on: `pytest -m faults`."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest

REPO = Path(__file__).parents[2]
pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]


def command(shards, tmp_path):
    model = '{"kind": "t3d", "growth_rate": 4, "block_config": [2,2,2,2], "num_init_features": 24, "bn_size": 2}'
    return [
        sys.executable, str(REPO / "jobs" / "train.py"), "--data.shards", str(shards), "--name", "killed",
        "--storage", str(tmp_path / "runs"), "--tracking.uri", f"sqlite:///{tmp_path}/mlflow.db", "--model", model,
        "--clip.crop_size", "32", "--epochs", "40", "--global_batch_size", "8", "--checkpoint.every_steps", "10",
        "--log_every_steps", "1", "--validate_every_epochs", "100",
    ]  # fmt: skip


def wait_for(condition, *, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.2)


def train_worker_of(driver_pid):
    """The process id of the Ray Train worker below the driver's own Ray, from /proc."""
    session = {driver_pid}
    workers = []
    for entry in sorted(int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()):
        try:
            stat = Path(f"/proc/{entry}/stat").read_text()
            title = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
        except OSError:
            continue
        parent = int(stat.rsplit(")", 1)[1].split()[1])
        if parent in session:
            session.add(entry)
            if "RayTrainWorker" in title:
                workers.append(entry)
    return workers


@pytest.mark.parametrize("victim", ["worker", "driver"])
def test_a_killed_run_goes_on_from_its_checkpoint_as_the_same_run(victim, synthetic_shards, tmp_path):
    run_folder = tmp_path / "runs" / "killed"
    start = command(synthetic_shards, tmp_path)
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    driver = subprocess.Popen(start, cwd=tmp_path, env=environment, start_new_session=True)
    wait_for(lambda: list(run_folder.glob("checkpoint_*/training_state.pt")), seconds=180)
    if victim == "worker":
        (worker,) = train_worker_of(driver.pid)
        os.kill(worker, signal.SIGKILL)
        assert driver.wait(timeout=400) == 0
    else:
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
        assert not (run_folder / "model.safetensors").exists()
        assert subprocess.run(start, cwd=tmp_path, env=environment, timeout=400).returncode == 0
    assert (run_folder / "model.safetensors").exists()
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("t3d").experiment_id])
    assert run.info.run_id == json.loads((run_folder / "run.json").read_text())["mlflow_run_id"]
    assert run.info.status == "FINISHED"
    steps = [point.step for point in client.get_metric_history(run.info.run_id, "train/loss")]
    last = max(steps)
    assert sorted(set(steps)) == list(range(1, last + 1)), "no step is left out"
    assert len(steps) < 2 * last, "it went on from a checkpoint, not from the start"
