"""Training batches without a network: ours from shards, compared with a DataLoader that reads the source videos.

    input path      shards -> Ray Data tasks -> this process, as a train worker gets them (`pipelines.clips.stream`)
    decode ceiling  the same clips from the same shards, decoded by plain processes that keep nothing
    DataLoader ...  the source videos -> a peer's decoder in DataLoader workers -> this process

Every case has separate processes, with as many decoders as there are logical CPUs. All give batches of uint8 clips of
one size from random places. Ours also draws one of five crops and mirrors half of the clips; a peer crops the centre.
Processes, Ray and the DataLoader's workers are started, and modules imported, before the clock starts.
"""

import functools
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import ray
import torch
from torch.utils.data import DataLoader, Dataset

from pipelines.benchmark.measuring.clips import BenchmarkClip
from pipelines.benchmark.measuring.object_store import StoreUse, watched_object_store
from pipelines.benchmark.measuring.peers import OURS, source_decoders
from pipelines.benchmark.measuring.prepared_data import BenchmarkData
from pipelines.benchmark.measuring.processes import new_processes, num_cores_here, start_ray
from pipelines.clips.loader import BatchLoader
from pipelines.clips.order import TrainOrder, micro_batches
from pipelines.clips.stream import load_places, train_batches
from pipelines.shards.index import load_index
from t3d_core.video.clip_sampling import ClipView, random_clip, stride_of_clip
from t3d_core.video.cropping import center_crop
from t3d_core.video.sizes import resized_size

CEILING, WHOLE = "decode ceiling", "input path"


class Reading(NamedTuple):
    """One round of one case: clips, and seconds to the last batch and, if it gives batches, to the first."""

    num_clips: int
    seconds: float
    first_batch_seconds: float | None = None
    store: StoreUse = StoreUse()


class InputRates(NamedTuple):
    """Rounds by case; peers that could not run: case -> reason."""

    data_name: str
    readings: Mapping[str, Sequence[Reading]]
    not_measured: Mapping[str, str]

    def clips_per_second(self, case: str) -> float:
        """The median over the rounds."""
        return statistics.median(reading.num_clips / reading.seconds for reading in self.readings[case])

    def over(self, case: str) -> float:
        """Clips a second of the input path / those of `case`, the median over the rounds."""
        pairs = zip(self.readings[case], self.readings[WHOLE], strict=True)
        return statistics.median(o.num_clips / o.seconds / (t.num_clips / t.seconds) for t, o in pairs)

    def first_batch_seconds(self, case: str) -> float:
        """From the first request for a batch to its arrival, the median over the rounds."""
        return statistics.median(r.first_batch_seconds for r in self.readings[case] if r.first_batch_seconds)

    @property
    def best_peer(self) -> str | None:
        """The fastest DataLoader; None if no peer could run."""
        peers = {case: self.clips_per_second(case) for case in self.readings if case not in (WHOLE, CEILING)}
        return max(peers, key=peers.__getitem__, default=None)

    @property
    def store(self) -> StoreUse:
        """Object store of the input path, in the round that used it most."""
        return max((r.store for r in self.readings[WHOLE]), key=lambda store: (store.spilled_bytes, store.peak_bytes))


def measure_input(
    data: BenchmarkData, view: ClipView, *, batch_size: int, num_steps: int, num_steps_of_peers: int, repeats: int
) -> InputRates:
    """Read the batches by every case in turns, after an uncounted round."""
    num_cores = num_cores_here()
    options = {"batch_size": batch_size, "num_steps": num_steps}
    readings: dict[str, list[Reading]] = {}
    not_measured: dict[str, str] = {}
    with ExitStack() as stack:
        ray_process = stack.enter_context(new_processes(1, num_cores=num_cores))
        decoders = stack.enter_context(new_processes(num_cores, num_cores=num_cores))
        peer_process = stack.enter_context(new_processes(1, num_cores=num_cores))
        ray_process.submit(start_ray, num_cores).result()
        stack.callback(lambda: ray_process.submit(ray.shutdown).result())
        runs: dict[str, Callable[[], Reading]] = {
            WHOLE: functools.partial(_in, ray_process, functools.partial(_read_by_ray, data.shards, view, **options)),
            CEILING: functools.partial(_decode_plainly, decoders, data.shards, view, **options),
        }
        for decoder in _peer_names():
            job = functools.partial(
                _read_by_dataloader, decoder, tuple(data.sources), view, **(options | {"num_steps": num_steps_of_peers})
            )
            runs[f"DataLoader, {decoder}"] = functools.partial(_in, peer_process, job)
        for number in range(1 + repeats):
            for case in [case for case in runs if case not in not_measured]:
                try:
                    reading = runs[case]()
                except Exception as error:  # peers raise any exception, and a missing one must not end the run
                    if case in (WHOLE, CEILING):
                        raise
                    not_measured[case] = " ".join(str(error).split())[:160] or type(error).__name__
                    readings.pop(case, None)
                else:
                    readings.setdefault(case, []).extend([reading] if number else [])
    return InputRates(data.name, readings, not_measured)


def _in(process: ProcessPoolExecutor, job: Callable[[], Reading]) -> Reading:
    return process.submit(job).result()


def _peer_names() -> list[str]:
    return [name for name in source_decoders(is_scaled=True) if name != OURS]


def _loader_and_order(shards: Path, view: ClipView, *, batch_size: int) -> tuple[BatchLoader, TrainOrder]:
    loader = BatchLoader(load_index([shards], fold=1, splits=["train"]), view)
    return loader, TrainOrder(len(loader.index), batch_size, seed=0)


def _read_by_ray(shards: Path, view: ClipView, *, batch_size: int, num_steps: int) -> Reading:
    loader, order = _loader_and_order(shards, view, batch_size=batch_size)
    places = micro_batches(batch_size, size=None, rank=0, world_size=1)
    with watched_object_store() as store:
        batches = train_batches(loader, order, steps=range(num_steps), places=places)
        reading = _read((batch["clip_BTHWC"] for batch in batches), num_steps=num_steps)
    return reading._replace(store=store)


def _decode_plainly(
    decoders: ProcessPoolExecutor, shards: Path, view: ClipView, *, batch_size: int, num_steps: int
) -> Reading:
    loader, order = _loader_and_order(shards, view, batch_size=batch_size)
    start = time.perf_counter()
    list(decoders.map(functools.partial(_decode_step, loader, order), range(num_steps)))
    return Reading(batch_size * num_steps, time.perf_counter() - start)


def _decode_step(loader: BatchLoader, order: TrainOrder, step: int) -> None:
    load_places(loader, order, step, range(order.global_batch_size))


class _SourceVideos(Dataset):
    """Random clips of video files, decoded by a peer, as people write it."""

    def __init__(self, decoder: str, sources: Sequence[BenchmarkClip], view: ClipView, *, num_clips: int) -> None:
        self.decoder, self.sources, self.view, self.num_clips = decoder, sources, view, num_clips

    def __len__(self) -> int:
        return self.num_clips

    def __getitem__(self, place: int) -> np.ndarray:
        clip, view = self.sources[place % len(self.sources)], self.view
        size = resized_size(clip.info.height, clip.info.width, short_side=view.short_side)
        decoders = source_decoders(is_scaled=True, stream_index=clip.stream_index)
        indices = random_clip(
            clip.info.num_frames,
            num_frames=view.num_frames,
            frame_stride=stride_of_clip(view.frame_stride, view.seconds_per_frame, fps=clip.info.fps),
            short_video=view.short_video,
            rng=np.random.default_rng(random.getrandbits(32)),
        ).frame_indices
        return decoders[self.decoder](str(clip.path), indices, size, center_crop(*size, crop_size=view.crop_size))


@functools.cache  # its workers stay from round to round
def _dataloader(
    decoder: str, sources: tuple[BenchmarkClip, ...], view: ClipView, *, batch_size: int, num_steps: int
) -> DataLoader:
    dataset = _SourceVideos(decoder, sources, view, num_clips=batch_size * num_steps)
    return DataLoader(dataset, batch_size, shuffle=True, num_workers=num_cores_here(), persistent_workers=True)


def _read_by_dataloader(
    decoder: str, sources: tuple[BenchmarkClip, ...], view: ClipView, *, batch_size: int, num_steps: int
) -> Reading:
    loader = _dataloader(decoder, sources, view, batch_size=batch_size, num_steps=num_steps)
    return _read(iter(loader), num_steps=num_steps)


def _read(batches: Iterator[np.ndarray | torch.Tensor], *, num_steps: int) -> Reading:
    start, first, num_clips, num_read = time.perf_counter(), None, 0, 0
    for clip_BTHWC in batches:
        first = first or time.perf_counter() - start
        num_clips += len(clip_BTHWC)
        num_read += 1
    assert num_read == num_steps, f"{num_read} batches instead of {num_steps}"
    return Reading(num_clips, time.perf_counter() - start, first)
