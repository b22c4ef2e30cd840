"""The drivers of prepare and train against up to 500,000 videos in 5,000 shards, whose decoder is a stub.

python -m tests.faults.simulated_scale FOLDER [--sizes 20000 100000 500000]

Everything except decoding is real: the list of ids, the folder of files, the records, Ray's tasks, shards, reports and
tables, the index, the order of clips, the batches. The figures of a finished size are kept in FOLDER.
"""

import argparse
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.benchmark.measuring.processes import memory_bytes
from pipelines.benchmark.prepare.memory import youtube_id
from pipelines.clips.order import TrainOrder, micro_batches
from pipelines.clips.stream import train_batches
from pipelines.prepare import make as prepare
from pipelines.prepare import shard_task
from pipelines.prepare.config import PrepareConfig, YouTube8MDatasetConfig
from pipelines.runtime import pools, session
from pipelines.runtime.ray_logging import quiet
from pipelines.shards.index import load_index
from t3d_core.video.storage import encode_segments, encode_video
from tests.faults.training_faults import REPO

VIDEOS_A_SHARD = 100
BATCH, STEPS = 32, 500
PLAIN_SHARDS = 10


@functools.cache
def tiny_segment():
    """Sixteen frames of noise, encoded once a process."""
    with tempfile.TemporaryDirectory() as folder:
        frames_THWC = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 3), np.uint8)
        encode_video(frames_THWC, path=f"{folder}/tiny.mp4", fps=8.0)
        return next(iter(encode_segments(f"{folder}/tiny.mp4", encoding="copy", short_side=16)))


def stub_prepare_video(record, task):
    """The outcome of a video that costs nothing to decode."""
    return shard_task.Outcome([tiny_segment()], source_bytes=1000)


def make_shard(task, shard, *, left_out):
    """As in the tasks of prepare, except the decoder."""
    shard_task.prepare_video = stub_prepare_video
    return shard_task.try_make_shard(task, shard, left_out=left_out)


@dataclass(frozen=True)
class StubLoader:
    """Returns clips of 16 x 8 x 8 without reading their rows."""

    bytes_a_clip: int = 16 * 8 * 8 * 3

    def random_batch(self, rows, seeds):
        """Zeros."""
        return {
            "clip_BTHWC": np.zeros((len(rows), 16, 8, 8, 3), np.uint8),
            "row_B": np.asarray(rows),
            "num_padded_B": np.zeros(len(rows), np.int64),
        }


def measure_prepare(folder, num_videos):
    """Prepare `num_videos` listed videos; measure seconds, a task's overhead and the driver's peak memory."""
    videos = folder / "videos"
    videos.mkdir()
    ids = [youtube_id(number) for number in range(num_videos)]
    (folder / "ids.txt").write_text("\n".join(ids) + "\n")
    for video_id in ids:
        (videos / f"{video_id}.mp4").touch()
    quiet()
    session.start_local(num_cpus=2, log_to_driver=False)
    dataset = YouTube8MDatasetConfig(root=str(videos), annotations=folder / "ids.txt")
    config = PrepareConfig(dataset=dataset, videos_per_shard=VIDEOS_A_SHARD)
    timed = {}
    real = prepare._make_shards

    def timed_make_shards(task, later, *, num_videos):
        began = time.perf_counter()
        for shard in list(later)[:PLAIN_SHARDS]:
            make_shard(task, shard, left_out=())
        timed["plain"] = (time.perf_counter() - began) / min(PLAIN_SHARDS, len(later))
        began = time.perf_counter()
        real(task, later, num_videos=num_videos)
        timed["tasks"] = (time.perf_counter() - began) / len(later) * pools.cpus("decode")

    prepare._make_shards, prepare.try_make_shard = timed_make_shards, make_shard
    began = time.perf_counter()
    coverage = prepare.prepare(config, folder / "shards")
    seconds = time.perf_counter() - began
    assert coverage.total.prepared == coverage.num_segments == num_videos
    return {
        "prepare seconds": seconds,
        "prepare task overhead ms": 1000 * (timed["tasks"] - timed["plain"]),
        "prepare driver MB": memory_bytes(os.getpid(), "VmHWM") / 1e6,
    }


def measure_train(folder, num_videos):
    """Read the index and `STEPS` batches; measure seconds to the first, time a step and the driver's peak memory."""
    quiet()
    session.start_local(num_cpus=2, log_to_driver=False)
    began = time.perf_counter()
    index = load_index([folder / "shards"], fold=1, splits=["train"])
    indexed = time.perf_counter()
    assert len(index) == num_videos
    order = TrainOrder(len(index), BATCH, seed=0)
    places = micro_batches(BATCH, size=None, rank=0, world_size=1)
    batches = train_batches(StubLoader(), order, steps=range(STEPS), places=places)
    first = next(batches)
    to_first = time.perf_counter() - indexed
    rows = [first["row_B"], *(batch["row_B"] for batch in batches)]
    assert np.array_equal(np.concatenate(rows), np.concatenate([order.rows(step)[0] for step in range(STEPS)]))
    return {
        "index seconds": indexed - began,
        "first batch seconds": to_first,
        "train step ms": 1000 * (time.perf_counter() - indexed - to_first) / (STEPS - 1),
        "train driver MB": memory_bytes(os.getpid(), "VmHWM") / 1e6,
    }


def measure(folder, num_videos):
    """Measure prepare and train, each in a process of its own."""
    kept = folder / f"{num_videos}.json"
    if not kept.exists():
        data = folder / "data"
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir(parents=True)
        figures = {}
        for what in ("prepare", "train"):
            # Not as `-m`: Ray's workers find the functions by the name of this module.
            call = "from tests.faults.simulated_scale import main; main()"
            command = [sys.executable, "-c", call, str(data), "--only", what, "--sizes", str(num_videos)]
            environment = os.environ | {"PYTHONPATH": str(REPO)}
            child = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
            figures |= json.loads(child.stdout.splitlines()[-1])
        shutil.rmtree(data)
        kept.write_text(json.dumps(figures))
    return json.loads(kept.read_text())


def main():
    """Measure every size, then show how each figure grows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[20_000, 100_000, 500_000])
    parser.add_argument("--only", choices=["prepare", "train"])
    given = parser.parse_args()
    if given.only:
        measured = (measure_prepare if given.only == "prepare" else measure_train)(given.folder, given.sizes[0])
        print(json.dumps(measured))
        return
    figures = {size: measure(given.folder, size) for size in given.sizes}
    print(f"{'':<26}" + "".join(f"{size:>12,}" for size in figures) + "   at 0 + a 100,000")
    for name in next(iter(figures.values())):
        values = [of_size[name] for of_size in figures.values()]
        slope, start = np.polyfit(np.array(given.sizes) / 100_000, values, 1) if len(values) > 1 else (np.nan, np.nan)
        print(f"{name:<26}" + "".join(f"{value:>12,.1f}" for value in values) + f"{start:>10,.1f} + {slope:,.2f}")


if __name__ == "__main__":
    main()
