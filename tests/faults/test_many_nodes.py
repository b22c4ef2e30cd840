"""All stages on three and on five labelled nodes: tasks run in their pools, and the results are those of one node."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.faults.hosts import Hosts
from tests.faults.ray_nodes import Nodes
from tests.faults.training_faults import MODEL, REPO

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]

VIDEOS = [
    *("--dataset.kind", "synthetic", "--dataset.num_frames", "24", "--dataset.height", "48", "--dataset.width", "64"),
    *("--dataset.videos_per_class", "6", "--dataset.val_fraction", "0.2", "--dataset.test_fraction", "0.2"),
    *("--videos_per_shard", "5", "--output", "shards"),
]
CLIPS = ["--clip.num_frames", "16", "--clip.crop_size", "32", "--global_batch_size", "8", "--epochs", "2"]
SEARCH = {
    "name": "search",
    "base": "base.yaml",
    "space": {"optimizer.lr": {"grid": [0.05, 0.01]}},
    "seeds": [0],
    "test": {"split": "test"},
}


def stages(num_workers):
    """Arguments of every job, in order; each reads what an earlier one wrote."""
    workers = ["--scaling.num_workers", str(num_workers), "--scaling.resources_per_worker", '{"CPU": 0.5}']
    transfer = ["--data.shards", "shards", "--teacher.crop_size", "32", "--model", MODEL, "--name", "transfer"]
    cached = ["--cache.num_views", "2", "--cache.num_workers", "1"]
    train = ["--data.shards", "shards", "--init_from", "runs/transfer", "--model", "none", "--name", "train"]
    tested = ["--checkpoint", "runs/train", "--data.shards", "shards", "--data.split", "test", "--output", "tested"]
    return {
        "prepare": VIDEOS,
        "transfer": [*transfer, *cached, *CLIPS, *workers],
        "train": [*train, *CLIPS, *workers],
        "evaluate": [*tested, "--num_workers", "1"],
        "predict": ["shards/videos", "--model", "runs/train", "--output", "predicted", "--num_workers", "1"],
        "search": ["--recipe", "search.yaml"],
    }


def write_recipes(folder):
    """Write the recipe of the search and that of its trials."""
    base = {"data": {"shards": ["shards"]}, "model": json.loads(MODEL), "epochs": 2, "global_batch_size": 8}
    base |= {"clip": {"num_frames": 16, "crop_size": 32}, "scaling": {"num_workers": 0}}
    (folder / "base.yaml").write_text(yaml.safe_dump(base))
    (folder / "search.yaml").write_text(yaml.safe_dump(SEARCH))


def run_all(folder, num_workers, environment):
    """Run every job in `folder`."""
    write_recipes(folder)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_", "T3D_"))}
    environment = inherited | {"OMP_NUM_THREADS": "1"} | environment
    for stage, arguments in stages(num_workers).items():
        command = [sys.executable, str(REPO / "jobs" / f"{stage}.py"), *arguments]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{stage}: {done.stdout[-2000:]}{done.stderr[-4000:]}"


def listed(what, nodes):
    """The nodes, tasks or actors in Ray's state API."""
    command = ["ray", "list", what, "--address", nodes.dashboard, "--limit", "10000", "--format", "json", "--detail"]
    shown = subprocess.run(command, env=os.environ | nodes.environment, capture_output=True, text=True, check=True)
    return json.loads(shown.stdout)


def pools_of(nodes):
    """The pools in which each kind of task and actor ran."""
    pool_of_node = {node["node_id"]: node["labels"]["t3d.io/pool"] for node in listed("nodes", nodes)}
    found = defaultdict(set)
    for task in listed("tasks", nodes):
        if task["type"] == "NORMAL_TASK" and task["node_id"]:
            found[task["name"]].add(pool_of_node[task["node_id"]])
    for actor in listed("actors", nodes):
        if actor["node_id"]:
            found[actor["class_name"]].add(pool_of_node[actor["node_id"]])
    return dict(found)


@pytest.fixture(scope="module", params=[1, 2], ids=["one worker", "two workers"])
def on_one_node(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("one_node")
    run_all(folder, request.param, {})
    return request.param, folder


def test_stages_run_across_labelled_nodes_as_on_one(on_one_node, tmp_path):
    """Three nodes with one train worker; five with two, on separate hosts if possible. The head runs no task."""
    num_workers, expected = on_one_node
    with contextlib.ExitStack() as stack:
        hosts = stack.enter_context(Hosts()) if num_workers > 1 and os.geteuid() == 0 and shutil.which("ip") else None
        nodes = stack.enter_context(Nodes(address=hosts.here) if hosts else Nodes())
        nodes.start_head(num_cpus=0, pool="head")
        for pool in ("decode", "train") * num_workers:
            nodes.add(num_cpus=1, pool=pool, host=hosts.add() if hosts else None)
        run_all(tmp_path, num_workers, nodes.environment)
        found = pools_of(nodes)
    print(f"{1 + 2 * num_workers} nodes{' on hosts of their own' if hosts else ''}: {found}")
    decoding = {name: pools for name, pools in found.items() if name.startswith(("ReadRange", "MapBatches"))}
    assert decoding
    assert set().union(*decoding.values()) == {"decode"}
    assert found["RayTrainWorker"] == {"train"}
    networks = {name: pools for name, pools in found.items() if "MapWorker" in name or "ImplicitFunc" in name}
    assert networks
    assert set().union(*networks.values()) == {"train"}
    assert_same(expected, tmp_path)


def assert_same(expected, folder):
    """Equal shards, weights and figures: bit for bit."""
    shards = sorted(path.relative_to(expected) for path in expected.glob("shards/shards/*.parquet"))
    assert shards
    for path in shards:
        assert (folder / path).read_bytes() == (expected / path).read_bytes()
    for path in (Path("runs/transfer/student.safetensors"), Path("runs/train/model.safetensors")):
        weights, ours = load_file(expected / path), load_file(folder / path)
        assert [name for name in weights if not torch.equal(weights[name], ours[name])] == []
    assert json.loads((folder / "tested/metrics.json").read_text()) == json.loads(
        (expected / "tested/metrics.json").read_text()
    )
    assert predictions_of(folder) == predictions_of(expected)
    trials = sorted(path.name for path in (expected / "runs/search/trials").iterdir())
    assert len(trials) == 2
    for name in trials:
        path = Path("runs/search/trials") / name / "model.safetensors"
        weights, ours = load_file(expected / path), load_file(folder / path)
        assert [each for each in weights if not torch.equal(weights[each], ours[each])] == []


def predictions_of(folder):
    """The scores of every video, by its name."""
    rows = pq.read_table(folder / "predicted" / "predictions.parquet").to_pylist()
    assert {row["status"] for row in rows} == {"ok"}
    return {Path(row["video"]).name: row["scores"] for row in rows}


@pytest.mark.skipif(os.geteuid() != 0, reason="a node with a file system of its own needs root")
def test_a_node_that_sees_another_disk_is_named_before_anything_starts(tmp_path):
    """One node has an empty file system where the others have the storage."""
    storage = tmp_path / "storage"
    storage.mkdir()
    script = f'mount -t tmpfs none {storage} && exec "$0" "$@"'
    with Nodes() as nodes:
        nodes.start_head(num_cpus=1)
        nodes.add(num_cpus=1, inside=("unshare", "--mount", "--propagation", "private", "sh", "-c", script))
        environment = os.environ | nodes.environment | {"T3D_HOME": str(storage)}
        command = [sys.executable, str(REPO / "jobs" / "prepare.py"), *VIDEOS]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"error: {storage / 'shards'} is not shared by all nodes: " in done.stderr.splitlines()[-1]
    assert not list(storage.glob("shards/shards/*.parquet"))
