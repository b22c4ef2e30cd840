import os
import re
import subprocess
import sys

import numpy as np
import pytest
import ray

from pipelines.clips.loader import BatchLoader
from pipelines.clips.order import TrainOrder, micro_batches
from pipelines.clips.stream import batches_a_task, stream, train_batches
from pipelines.transfer.pair_loader import PairLoader, TeacherView
from t3d_core.video.clip_sampling import ClipView

ON_ONE_CPU = """
import time
import numpy as np
import ray
from pipelines.clips.stream import dataset_of, stream, unpacked_of_actors
from pipelines.runtime.ray_logging import quiet
from pipelines.runtime.session import start_local

class Same:
    def __call__(self, row):
        return row

def load(item):
    return {"clip": np.full(2_000_000, item % 256, np.uint8)}

quiet()
start_local(num_cpus=1, include_dashboard=False, object_store_memory=100_000_000)
training = stream(load, range(200), items_a_task=20)
next(training)
time.sleep(2)  # it reads ahead until its part of the store is full, if not before the validation then beside it
print("validation", len(list(stream(load, range(8), items_a_task=4))), flush=True)
print("training", 1 + sum(1 for _ in training), flush=True)
loaded = dataset_of(load, range(2), items_a_task=1)
scored = loaded.map_batches(Same, batch_size=None, num_cpus=0, compute=ray.data.ActorPoolStrategy(size=1))
print("actors", len(list(unpacked_of_actors(scored))))
"""
VIEW = ClipView(num_frames=8, frame_stride=2, crop_size=32, short_side=37, short_video="loop")


@pytest.mark.parametrize("size", [None, 10])
def test_two_workers_see_together_what_one_sees(size, index):
    """20 clips a step: a worker's part is decoded in several pieces."""
    order, loader = TrainOrder(len(index), 20, seed=3), BatchLoader(index, VIEW)
    seen = {}
    for world_size in (1, 2):
        for rank in range(world_size):
            places = micro_batches(20, size=size, rank=rank, world_size=world_size)
            batches = list(train_batches(loader, order, steps=range(1, 2), places=places))
            assert [len(batch["row_B"]) for batch in batches] == [len(place) for place in places]
            seen.setdefault(world_size, []).extend(batches)
    for name in ("clip_BTHWC", "row_B", "label_B"):
        whole, parts = (np.concatenate([batch[name] for batch in seen[world_size]]) for world_size in (1, 2))
        assert np.array_equal(whole, parts)
    assert np.array_equal(np.concatenate([batch["row_B"] for batch in seen[1]]), order.rows(1)[0])


def test_a_resumed_run_sees_what_it_would_have_seen(index):
    order, loader, places = TrainOrder(len(index), 4, seed=3), BatchLoader(index, VIEW), [range(4)]
    whole = list(train_batches(loader, order, steps=range(4), places=places))
    rest = list(train_batches(loader, order, steps=range(2, 4), places=places))
    assert all(np.array_equal(a["clip_BTHWC"], b["clip_BTHWC"]) for a, b in zip(whole[2:], rest, strict=True))


def test_the_stream_keeps_the_order_of_its_items_whoever_is_ready_first(local_ray):
    import time

    def load(item: int) -> dict[str, np.ndarray]:
        time.sleep(0.2 if item == 10 else 0.0)
        return {"item": np.array([item])}

    assert [int(batch["item"][0]) for batch in stream(load, range(10, 40, 3), items_a_task=1)] == list(range(10, 40, 3))


def test_a_task_hands_over_each_of_its_batches_whole_with_arrays_and_strings_as_they_were(local_ray):
    def load(item: int) -> dict[str, np.ndarray]:
        rows = np.arange(item % 3 + 1)
        return {
            "clip": np.full((len(rows), 2, 3), item, np.uint8),
            "row": rows,
            "reason": np.array([""] * item + ["why"])[: len(rows)],
            "task": np.array([ray.get_runtime_context().get_task_id()] * len(rows)),
        }

    batches = list(stream(load, range(60), items_a_task=5))
    for item, batch in enumerate(batches):
        for name in ("clip", "row", "reason"):
            expected = load(item)[name]
            assert np.array_equal(batch[name], expected), name
            assert batch[name].dtype.kind == expected.dtype.kind
    tasks = [batch["task"][0] for batch in batches]
    assert [tasks.count(task) for task in dict.fromkeys(tasks)] == [5] * 12


@pytest.fixture(scope="module")
def on_one_cpu():
    """What a process with a Ray of its own printed."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "-c", ON_ONE_CPU]
    environment |= {"PYTHONPATH": os.getcwd()}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.heavy
def test_a_stream_that_nobody_reads_leaves_the_only_cpu_to_another(on_one_cpu):
    """Training waits while there is a validation."""
    assert on_one_cpu.stdout.split()[:4] == ["validation", "8", "training", "200"], on_one_cpu.stderr


@pytest.mark.heavy
def test_actors_start_without_a_line_on_stderr(on_one_cpu):
    assert (on_one_cpu.stdout.split()[4:], on_one_cpu.stderr) == (["actors", "2"], "")


def test_each_cpu_has_the_same_number_of_tasks(local_ray):
    def load(item: int) -> dict[str, np.ndarray]:
        return {"task": np.array([ray.get_runtime_context().get_task_id()])}

    tasks = [batch["task"][0] for batch in stream(load, range(90), items_a_task=10)]
    assert [tasks.count(task) for task in dict.fromkeys(tasks)] == [9] * 10


def test_a_task_of_large_clips_takes_fewer_of_them(index):
    def items_a_task(crop_size, **teacher):
        view = ClipView(32, 2, crop_size=crop_size, short_side=crop_size, short_video="loop")
        return batches_a_task(
            num_clips=8, bytes_a_clip=(PairLoader if teacher else BatchLoader)(index, view, **teacher).bytes_a_clip
        )

    teacher = TeacherView(num_frames=32, crop_size=224, short_side=256)
    assert items_a_task(64) == 512 // 8
    cluster = ray.cluster_resources()
    of_store = cluster["object_store_memory"] / cluster["CPU"] / 4
    assert items_a_task(512) == of_store // (8 * 32 * 512 * 512 * 3)
    assert items_a_task(512, teacher=teacher) == of_store // (8 * 32 * (512 * 512 + 224 * 224) * 3)


def test_a_damaged_row_comes_through_ray_as_an_empty_clip_with_its_reason(damaged_index, index):
    order, teacher = TrainOrder(3, 3, seed=0), TeacherView(num_frames=2, crop_size=24, short_side=30)
    [batch], [good] = (
        list(train_batches(PairLoader(i, VIEW, teacher=teacher), order, steps=range(1), places=[range(3)]))
        for i in (damaged_index, index)
    )
    is_damaged_B = batch["row_B"] == 1
    [reason] = batch["reason_B"][is_damaged_B]
    assert re.search(r"shard .*copy/shards/\d+.parquet row \d+ cannot be read: .*CRC", reason)
    assert (batch["reason_B"][~is_damaged_B] == "").all()
    assert (good["reason_B"] == "").all()
    for name in ("clip_BTHWC", "teacher_frames_BTHWC"):
        assert (batch[name].shape, batch[name].dtype) == (good[name].shape, good[name].dtype)
        assert not batch[name][is_damaged_B].any()
        assert np.array_equal(batch[name][~is_damaged_B], good[name][~is_damaged_B])
