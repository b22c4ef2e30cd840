import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st

from pipelines.clips.loader import BatchLoader, ClipView
from pipelines.clips.order import SourceLimit, TrainOrder, micro_batches
from pipelines.clips.stream import batches_a_task, stream, train_batches
from pipelines.shards.index import load_index
from pipelines.transfer.pair_loader import PairLoader, TeacherView
from tests.pipelines.damage import damage_row
from tests.pipelines.whole_height_views import views

READS_ONE_STREAM_AND_THEN_ANOTHER = """
import time
import numpy as np
from pipelines.clips.stream import stream
from pipelines.runtime.session import start_local

def load(item):
    return {"clip": np.full(2_000_000, item % 256, np.uint8)}

start_local(num_cpus=1, include_dashboard=False, object_store_memory=200_000_000)
training = stream(load, range(400), items_a_task=20)
next(training)
time.sleep(10)  # it reads ahead until its part of the store is full
print("validation", len(list(stream(load, range(8), items_a_task=4))), flush=True)
print("training", 1 + sum(1 for _ in training), flush=True)
"""
VIEW = ClipView(num_frames=8, frame_stride=2, crop_size=32, short_side=37, short_video="loop")


@pytest.fixture(scope="module")
def index(synthetic_shards):
    return load_index([synthetic_shards], fold=1, splits=["train"])


@given(num_rows=st.integers(1, 40), batch=st.integers(1, 50), epochs=st.integers(1, 5), seed=st.integers(0, 3))
def test_every_epoch_shows_every_row_once_and_nothing_is_dropped_between_epochs(num_rows, batch, epochs, seed):
    order = TrainOrder(num_rows, batch, seed)
    num_steps = -(-epochs * num_rows // batch)
    rows = np.concatenate([order.rows(step)[0] for step in range(num_steps)])[: epochs * num_rows]
    for epoch in range(epochs):
        assert sorted(rows[epoch * num_rows : (epoch + 1) * num_rows]) == list(range(num_rows))


@given(sources=st.lists(st.integers(0, 4), min_size=1, max_size=30), most=st.integers(1, 4), batch=st.integers(1, 7))
def test_a_pass_takes_no_more_rows_of_a_source_than_the_limit_and_others_the_next_time(sources, most, batch):
    limit = SourceLimit(np.array(sources), most)
    order = TrainOrder(len(sources), batch, seed=0, limit=limit)
    counts = Counter(sources)
    assert order.rows_a_pass == sum(min(count, most) for count in counts.values())
    num_steps = -(-40 * order.rows_a_pass // batch)
    rows = np.concatenate([order.rows(step)[0] for step in range(num_steps)])[: 40 * order.rows_a_pass]
    for of_pass in rows.reshape(40, -1):
        assert len(set(of_pass)) == len(of_pass)
        assert Counter(sources[row] for row in of_pass) == {s: min(count, most) for s, count in counts.items()}
    assert set(rows) == set(range(len(sources))) or max(counts.values()) > 5 * most


def test_epochs_have_different_orders_and_the_same_seed_gives_the_same():
    order = TrainOrder(num_rows=100, global_batch_size=100, seed=7)
    assert not np.array_equal(order.rows(0)[0], order.rows(1)[0])
    assert np.array_equal(order.rows(1)[0], TrainOrder(100, 100, 7).rows(1)[0])
    assert not np.array_equal(order.rows(0)[0], TrainOrder(100, 100, 8).rows(0)[0])


@given(num_rows=st.integers(4, 60), batch=st.integers(1, 9), share=st.floats(0.1, 1), epochs=st.integers(1, 9))
def test_an_epoch_that_is_a_part_of_a_pass_counts_its_rows_and_changes_no_order(num_rows, batch, share, epochs):
    order, whole = TrainOrder(num_rows, batch, 0, epoch_share=share), TrainOrder(num_rows, batch, 0)
    num_steps = order.num_steps(epochs)
    assert all(np.array_equal(order.rows(step)[0], whole.rows(step)[0]) for step in range(num_steps))
    of_epochs = [order.epoch(step) for step in range(num_steps)]
    assert of_epochs == sorted(of_epochs)
    assert of_epochs[-1] <= epochs - 1 or num_steps == 1
    # No clip of an epoch is missing, but those that do not fill the last step.
    assert 0 <= epochs * max(1, round(share * num_rows)) - num_steps * batch < batch or num_steps == 1


def test_a_step_that_straddles_two_passes_names_the_pass_of_each_row():
    order = TrainOrder(num_rows=5, global_batch_size=4, seed=0)
    assert order.rows(1)[1].tolist() == [0, 1, 1, 1]
    assert [order.epoch(step) for step in range(4)] == [0, 0, 1, 2]


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


def test_a_run_that_goes_on_sees_what_it_would_have_seen(index):
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


def test_a_stream_that_nobody_reads_leaves_the_only_cpu_to_another():
    """Training waits while there is a validation."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "-c", READS_ONE_STREAM_AND_THEN_ANOTHER]
    environment |= {"PYTHONPATH": os.getcwd()}
    child = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert child.stdout.split() == ["validation", "8", "training", "400"], child.stdout + child.stderr


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


@pytest.mark.parametrize("is_h264", [True, False])
def test_only_where_odd_frames_are_for_nobody_else_all_starts_are_even(is_h264, index):
    loader = BatchLoader(
        replace(index, is_h264_N=np.full(len(index), is_h264)), replace(VIEW, crop_size=48, short_side=48)
    )
    batch = loader.random_batch(np.arange(8), [[0, 0, row] for row in range(8)])
    starts = [{start for start, *_ in views(index, row, batch["clip_BTHWC"][row])} for row in range(8)]
    assert all(starts)
    assert all(found & set(range(0, 40, 2)) for found in starts) == is_h264


def test_padded_frames_are_counted(index):
    view = ClipView(num_frames=32, frame_stride=2, crop_size=32, short_side=37, short_video="repeat_last")
    batch = BatchLoader(index, view).center_batch(np.arange(3))
    assert batch["num_padded_B"].tolist() == [12, 12, 12]  # frames 40, 42, ... 62 do not exist


@pytest.fixture
def damaged_index(synthetic_shards, tmp_path):
    """Of the first three rows the second is damaged."""
    shards = shutil.copytree(synthetic_shards, tmp_path / "copy", ignore=shutil.ignore_patterns("videos"))
    index = load_index([shards], fold=1, splits=["train"])
    damage_row(Path(index.shard_paths[index.shard_N[1]]), int(index.row_N[1]))
    return index


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


def test_a_damaged_row_among_the_middle_clips_is_told_too(damaged_index):
    for num_segments, shape in ((1, (3, 8, 32, 32, 3)), (2, (3, 2, 8, 32, 32, 3))):
        view = replace(VIEW, num_segments=num_segments)
        batch = BatchLoader(damaged_index, view).center_batch(np.arange(3))
        assert batch["clip_BTHWC"].shape == shape
        assert [bool(reason) for reason in batch["reason_B"]] == [False, True, False]


def test_frames_that_cannot_be_decoded_are_told_as_frames_that_cannot_be_read(index, monkeypatch):
    """Shards from before there were checksums give whatever bytes are there."""
    monkeypatch.setattr("pipelines.shards.index.read_frames", lambda path, row: b"no video")
    batch = BatchLoader(index, VIEW).random_batch(np.arange(2), [[0], [1]])
    assert ["not a video" in reason for reason in batch["reason_B"]] == [True, True]
    assert not batch["clip_BTHWC"].any()
