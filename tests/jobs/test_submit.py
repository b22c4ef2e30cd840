"""`ray job submit` against a head of our own: own ports, folder and token; only what was started here is ended."""

import os
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from tests.faults.ray_nodes import Nodes

REPO = Path(__file__).parents[2]
pytestmark = pytest.mark.heavy
TINY = [
    *("--data.prepare.dataset.videos_per_class", "2", "--data.prepare.dataset.num_frames", "16"),
    *("--data.prepare.dataset.height", "32", "--data.prepare.dataset.width", "40"),
    *("--clip.num_frames", "16", "--clip.frame_stride", "1", "--clip.crop_size", "32"),
    *("--model.growth_rate", "4", "--model.block_config", "2", "2", "2", "2", "--model.num_init_features", "16"),
    *("--teacher.crop_size", "32", "--epochs", "1", "--global_batch_size", "4"),
]
HERE_ONLY = ["--scaling.num_workers", "0"]  # tests/faults/test_submitted_stages.py has workers


class Head(NamedTuple):
    """A head node, what its clients need to be let in, and the home folder of its jobs."""

    address: str
    environment: dict[str, str]
    home: Path


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """Its jobs find a home folder that is empty."""
    home = tmp_path_factory.mktemp("home")
    with Nodes() as nodes:
        nodes.environment["HOME"] = str(home)
        nodes.start_head(num_cpus=2)
        yield Head(nodes.dashboard, nodes.environment, home)


def submit(head: Head, *arguments: str, folder: Path) -> tuple[int, str]:
    """Run `ray job submit` in `folder`; its exit code and what it showed."""
    done = subprocess.run(
        ["ray", "job", "submit", "--address", head.address, *arguments],
        cwd=folder,
        env=os.environ | head.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code that differs from the installed one where the driver ends and where a Ray task reports."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in ("jobs", "pipelines", "t3d_core"):
        shutil.copytree(REPO / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    _edit(
        copy / "pipelines/transfer/summary.py", "accuracy on {num_sources}", "SUBMITTED CODE, accuracy on {num_sources}"
    )
    _edit(copy / "pipelines/prepare/shard_task.py", '"reason": outcome.reason,', '"reason": "submitted code",')
    return copy


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, f"{path} has changed: adapt the test"
    path.write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def submitted(head: Head, checkout: Path) -> tuple[Path, str]:
    """Where a transfer wrote that was submitted with its working folder, a throw-away copy; and what the CLI showed."""
    commit = f'{{"env_vars": {{"T3D_GIT_COMMIT": "{"c0ffee" * 6}"}}}}'
    code, shown = submit(
        head,
        *("--working-dir", ".", "--runtime-env-json", commit),
        *("--", "python", "jobs/transfer.py", "--name", "first", *TINY, *HERE_ONLY),
        folder=checkout,
    )
    assert code == 0, shown
    return head.home / "t3d-runs", shown


def test_the_head_refuses_who_has_no_token(head: Head) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{head.address}/api/jobs/", timeout=5)


def test_a_submitted_transfer_leaves_weights_and_checkpoints_in_the_home_folder(submitted: tuple[Path, str]) -> None:
    folder, shown = submitted
    assert f"relative paths start from {folder}" in shown
    run = folder / "runs" / "first"
    assert (run / "student.safetensors").is_file()
    assert list(run.glob("checkpoint_*"))


def test_a_submitted_transfer_is_in_the_tracking_store_with_the_commit_given_at_submit(
    submitted: tuple[Path, str],
) -> None:
    client = MlflowClient(f"sqlite:///{submitted[0]}/mlflow.db")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    (run,) = client.search_runs(experiments)
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.source.git.commit"] == "c0ffee" * 6


def test_the_submitted_code_runs_and_not_the_installed_one(submitted: tuple[Path, str]) -> None:
    storage, shown = submitted
    assert "SUBMITTED CODE, accuracy on" in shown  # in the driver
    (videos,) = storage.rglob("videos.parquet")
    assert set(pq.read_table(videos).column("reason").to_pylist()) == {"submitted code"}  # in Ray's tasks


@pytest.mark.slow  # the failed job below shows by default that the code is found
def test_without_a_working_folder_the_code_where_the_head_stands_runs(
    head: Head, submitted: tuple[Path, str], tmp_path: Path
) -> None:
    (prepared,) = (path.parent for path in submitted[0].rglob("videos.parquet"))
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    code, shown = submit(
        head,
        *("--", "python", "jobs/transfer.py", "--storage", str(tmp_path), "--name", "third", "--tracking.uri", uri),
        *("--data.shards", str(prepared), *TINY, *HERE_ONLY),
        folder=tmp_path,
    )
    assert code == 0, shown
    assert (tmp_path / "third/student.safetensors").is_file()
    assert "throw-away" not in shown


def test_a_failed_job_fails_the_submit_and_its_last_line_says_why(head: Head, tmp_path: Path) -> None:
    code, shown = submit(
        head, "--", "python", "jobs/transfer.py", "--data.shards", str(tmp_path / "absent"), folder=tmp_path
    )
    assert code == 1
    assert f"error: {tmp_path / 'absent'} holds no prepared shards" in shown.strip().splitlines()[-1]
