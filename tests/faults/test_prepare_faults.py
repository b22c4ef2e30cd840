"""Faults of a cluster that must not change the result of `prepare`: `pytest -m faults`.

Every case ends with the rows of an undisturbed run: the same ids and the same bytes, none missing, none twice.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from t3d_core.video.storage import encode_video

REPO = Path(__file__).parents[2]
NUM_VIDEOS, VIDEOS_PER_SHARD = 160, 4
pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """160 names of 8 videos: about half a minute of work for one core."""
    root = tmp_path_factory.mktemp("faults") / "videos"
    rng = np.random.default_rng(0)
    for source in range(8):
        texture = rng.integers(0, 256, (240, 320, 3), np.uint8)
        first = root / f"class{source % 2}" / f"{source}_0.mp4"
        first.parent.mkdir(parents=True, exist_ok=True)
        encode_video((np.roll(texture, shift, axis=1) for shift in range(60)), path=first, fps=25)
        for copy in range(1, NUM_VIDEOS // 8):
            os.link(first, first.with_name(f"{source}_{copy}.mp4"))
    return root


@pytest.fixture(scope="module")
def undisturbed(videos, tmp_path_factory):
    output = tmp_path_factory.mktemp("undisturbed")
    assert start(videos, output).wait() == 0
    return rows_of(output)


def start(videos, output, *arguments, environment=None):
    command = [
        sys.executable, str(REPO / "jobs" / "prepare.py"), "--dataset.kind", "folder", "--dataset.root", str(videos),
        "--output", str(output), "--encoding", "h264", "--videos_per_shard", str(VIDEOS_PER_SHARD),
        "--tracking.uri", f"sqlite:///{output}.db", *arguments,
    ]  # fmt: skip
    return subprocess.Popen(
        command,
        env=os.environ | {"PYTHONUNBUFFERED": "1"} | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def rows_of(output):
    shards = sorted((output / "shards").glob("*.parquet"))
    return pa.concat_tables(pq.read_table(shard) for shard in shards)


def num_made(output):
    return len(list((output / "reports").glob("*.parquet")))


def wait_for(condition, *, seconds=120):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)
    return found


def assert_equals_undisturbed(output, undisturbed):
    rows = rows_of(output)
    ids = rows.column("segment_id").to_pylist()
    assert len(ids) == len(set(ids)) == NUM_VIDEOS
    assert rows.equals(undisturbed)
    assert not list(output.rglob("*.partial"))
    videos = pq.read_table(output / "videos.parquet")
    assert len(videos) == NUM_VIDEOS
    assert all(videos.column("is_prepared").to_pylist())


def guard_children_below(pid):
    """(worker, child) process ids of all decoding processes below `pid`, from /proc."""
    parents, commands = {}, {}
    for entry in (path for path in Path("/proc").iterdir() if path.name.isdigit()):
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            commands[int(entry.name)] = (entry / "cmdline").read_bytes()
        except OSError:
            continue

    def is_below(process):
        while process in parents and process != pid:
            process = parents[process]
        return process == pid

    return [(parents[p], p) for p, c in commands.items() if b"guard_child" in c and p in parents and is_below(p)]


def test_a_driver_killed_five_times_at_random_ends_with_the_rows_of_an_undisturbed_run(videos, undisturbed, tmp_path):
    rng = random.Random(0)
    output = tmp_path / "out"
    made = [0]
    for _ in range(5):
        driver = start(videos, output)
        # A random moment between Ray's start and some more shards.
        goal = made[-1] + rng.randint(0, 8)
        wait_for(lambda driver=driver, goal=goal: driver.poll() is not None or num_made(output) >= goal)
        time.sleep(rng.uniform(0, 1))
        driver.kill()
        driver.wait()
        made.append(num_made(output))
    print(f"shards made after each kill: {made[1:]} of {NUM_VIDEOS // VIDEOS_PER_SHARD}")
    assert made[-1] < NUM_VIDEOS // VIDEOS_PER_SHARD, "every kill came in the middle of the work"
    last = start(videos, output)
    printed = last.communicate()[0]
    assert last.returncode == 0, printed
    assert_equals_undisturbed(output, undisturbed)
    client = mlflow.MlflowClient(f"sqlite:///{output}.db")
    runs = client.search_runs([client.get_experiment_by_name("t3d").experiment_id])
    statuses = [run.info.status for run in runs]
    assert statuses.count("FINISHED") == 1
    assert set(statuses) <= {"FINISHED", "KILLED"}


def test_videos_that_come_between_kills_are_there_once(videos, undisturbed, tmp_path):
    root, output = tmp_path / "videos", tmp_path / "out"
    names = sorted(str(path.relative_to(videos)) for path in videos.rglob("*.mp4"))
    root.mkdir()
    (root / "index.csv").write_text("\n".join(["path,label", *(f"{name},{name.partition('/')[0]}" for name in names)]))

    def arrive(some):
        for name in some:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            os.link(videos / name, root / name)

    for some, goal in ((names[::2], 12), (names[1::4], 30), (names[3::4], 0)):
        arrive(some)
        driver = start(root, output)
        if goal:
            wait_for(lambda goal=goal: num_made(output) >= goal)
            assert driver.poll() is None, "it was at work"
            driver.kill()
            driver.wait()
            print(f"{num_made(output)} shards made when the driver was killed")
    printed = driver.communicate()[0]
    assert driver.returncode == 0, printed
    print(f"{num_made(output)} shards in all, {len(list(output.glob('late/*')))} of them late")
    assert list(output.glob("late/*")), "some videos came late"
    columns = ["segment_id", "splits", "frames"]
    in_order = [rows.select(columns).sort_by("segment_id") for rows in (rows_of(output), undisturbed)]
    assert in_order[0].equals(in_order[1])
    assert all(pq.read_table(output / "videos.parquet").column("is_prepared").to_pylist())
    assert not list(output.rglob("*.partial"))


@pytest.mark.parametrize("victim", ["worker", "decoder"])
def test_a_killed_process_costs_no_row(victim, videos, undisturbed, tmp_path):
    output = tmp_path / "out"
    driver = start(videos, output)
    wait_for(lambda: num_made(output) >= 3)
    worker, child = wait_for(lambda: guard_children_below(driver.pid))[0]
    os.kill(worker if victim == "worker" else child, signal.SIGKILL)
    printed = driver.communicate()[0]
    assert driver.returncode == 0, printed
    assert_equals_undisturbed(output, undisturbed)


def test_a_lost_node_costs_no_row(videos, undisturbed, tmp_path):
    from ray.cluster_utils import Cluster

    output = tmp_path / "out"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 10**8})
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=10**8) for _ in range(2)]
    cluster.wait_for_nodes()
    try:
        driver = start(videos, output, environment={"RAY_ADDRESS": cluster.address})
        wait_for(lambda: num_made(output) >= 6)
        os.kill(nodes[0].all_processes["raylet"][0].process.pid, signal.SIGKILL)
        made = num_made(output)
        printed = driver.communicate(timeout=600)[0]
        assert driver.returncode == 0, printed
    finally:
        cluster.shutdown()
    print(f"node killed after {made} of {NUM_VIDEOS // VIDEOS_PER_SHARD} shards")
    assert made < NUM_VIDEOS // VIDEOS_PER_SHARD
    assert_equals_undisturbed(output, undisturbed)


def test_a_full_disk_is_one_clear_error_and_the_next_start_resumes(videos, undisturbed, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("this process may not mount a small disk (tmpfs)")
    try:
        output = disk / "out"
        driver = start(videos, output, "--tracking.uri", f"sqlite:///{tmp_path}/mlflow.db")
        printed = driver.communicate()[0]
        last = printed.strip().splitlines()[-1]
        print(last)
        assert driver.returncode == 1
        assert last.startswith("error: ")
        assert "No space left on device" in last
        assert not (output / "videos.parquet").exists()
        assert not list(output.rglob("*.partial"))
        made = num_made(output)
        assert 0 < made < NUM_VIDEOS // VIDEOS_PER_SHARD
        subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
        driver = start(videos, output, "--tracking.uri", f"sqlite:///{tmp_path}/mlflow.db")
        printed = driver.communicate()[0]
        assert driver.returncode == 0, printed
        print(f"{made} shards made before the disk was full")
        assert_equals_undisturbed(output, undisturbed)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_sources_deleted_while_they_are_prepared_are_missing(videos, tmp_path):
    root, output = tmp_path / "videos", tmp_path / "out"
    for video in videos.rglob("*.mp4"):
        (root / video.parent.name).mkdir(parents=True, exist_ok=True)
        os.link(video, root / video.parent.name / video.name)
    driver = start(root, output)
    wait_for(lambda: num_made(output) >= 1)
    records = pq.read_table(output / "records.parquet").column("path").to_pylist()
    for path in records[-20:]:
        (root / os.fsdecode(path)).unlink()
    printed = driver.communicate()[0]
    assert driver.returncode == 0, printed
    failures = pq.read_table(output / "failures.parquet").to_pylist()
    assert {row["path"] for row in failures} == {os.fsdecode(path) for path in records[-20:]}
    assert {row["reason"] for row in failures} == {"not found"}
    assert len(rows_of(output)) == NUM_VIDEOS - 20


def test_a_second_prepare_of_the_same_folder_is_refused(videos, undisturbed, tmp_path):
    output = tmp_path / "out"
    first = start(videos, output)
    wait_for(lambda: num_made(output) >= 1)
    second = start(videos, output)
    printed = second.communicate()[0]
    assert second.returncode == 1
    last = printed.strip().splitlines()[-1]
    assert last.startswith(f"error: another prepare (process {first.pid} on ")
    assert "is writing to" in last
    assert first.poll() is None, "the first one was still at work"
    assert first.wait() == 0
    assert_equals_undisturbed(output, undisturbed)
