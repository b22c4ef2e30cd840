"""Clips per second of `prepare` on Ray Data, compared with the same work in plain processes, on equal cores.

Each case has separate processes, which wait while others have their turn. All its children are bound to the same cores:
Ray's own processes and the guarded decoders share them. Processes, Ray and its workers are started, and modules
imported, before the clock starts. Listing, shards, tables and contact sheet are timed.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import ray

from pipelines.benchmark.measuring.processes import new_processes, num_cores_here, start_ray
from pipelines.benchmark.measuring.rows import alternating_seconds, median_rates
from pipelines.prepare.config import FolderDatasetConfig, PrepareConfig
from pipelines.prepare.listing import Listing, list_videos
from pipelines.prepare.make import prepare
from pipelines.shards.folder import ShardFolder
from pipelines.shards.schemas import SHARD_SCHEMA
from pipelines.shards.writing import open_shard
from t3d_core.video.encodings import Encoding
from t3d_core.video.storage import EncodedSegment, encode_segments

OURS = "prepare"
PLAIN = "plain loop"

Case = tuple[str, int]  # OURS or PLAIN, number of cores
Run = Callable[[PrepareConfig, Listing, Path], None]


class Rates(NamedTuple):
    """Results for one encoding: videos per second by case, and how many shards differ from the plain loop's."""

    encoding: Encoding
    num_videos: int
    num_shards: int
    num_unequal: int
    videos_per_second: dict[Case, float]


@contextmanager
def started_cases() -> Iterator[dict[Case, Run]]:
    """Give the cases, with their processes and Ray running, for 1 core and, if there are two, for 2 cores."""
    with ExitStack() as stack:
        yield {
            (name, num_cores): stack.enter_context(start(num_cores))
            for num_cores in (1, 2)
            if num_cores <= num_cores_here()
            for name, start in ((OURS, _started_prepare), (PLAIN, _started_loop))
        }


def measure_rates(
    cases: dict[Case, Run],
    sources: Sequence[Path],
    *,
    encoding: Encoding,
    num_videos: int,
    videos_per_shard: int,
    repeats: int,
) -> Rates:
    """Prepare `num_videos` links to the sources in turns, each time from scratch."""
    with tempfile.TemporaryDirectory(prefix="t3d-benchmark-") as temporary:
        folder = Path(temporary)
        _link_videos(sources, folder / "videos" / "clips", num_videos=num_videos)
        dataset = FolderDatasetConfig(root=str(folder / "videos"), test_fraction=0.0)
        config = PrepareConfig(dataset=dataset, encoding=encoding, videos_per_shard=videos_per_shard)
        listing = list_videos(config, output=folder)
        outputs = {(name, num_cores): folder / f"{name} {num_cores}" for name, num_cores in cases}
        runs = {case: partial(run, config, listing, outputs[case]) for case, run in cases.items()}
        seconds = alternating_seconds(runs, repeats=repeats)
        num_unequal = sum(_count_unequal(output, outputs[PLAIN, 1], listing) for output in outputs.values())
    rates = median_rates(seconds, amount=num_videos)
    return Rates(encoding, num_videos, listing.num_shards, num_unequal, rates)


@contextmanager
def _started_prepare(num_cores: int) -> Iterator[Run]:
    with new_processes(1, num_cores=num_cores) as process:
        process.submit(start_ray, num_cores).result()
        try:
            yield lambda config, _, output: process.submit(_prepare_anew, config, output).result()
        finally:
            process.submit(ray.shutdown).result()


@contextmanager
def _started_loop(num_cores: int) -> Iterator[Run]:
    def run(config: PrepareConfig, listing: Listing, output: Path) -> None:
        shutil.rmtree(output, ignore_errors=True)
        list(processes.map(partial(_loop_shard, config, listing.description, output), *_numbered_shards(listing)))

    with new_processes(num_cores, num_cores=num_cores) as processes:
        yield run


def _prepare_anew(config: PrepareConfig, output: Path) -> None:
    shutil.rmtree(output, ignore_errors=True)
    prepare(config, output)


def _numbered_shards(listing: Listing) -> tuple[range, list[list[dict]]]:
    numbers = range(listing.num_shards)
    length = listing.videos_per_shard
    return numbers, [listing.records.slice(shard * length, length).to_pylist() for shard in numbers]


def _loop_shard(
    config: PrepareConfig, description: dict[str, Any], output: Path, shard: int, records: list[dict]
) -> None:
    """The loop of a user who trusts every file: no Ray, no guard, no report."""
    with open_shard(ShardFolder(output).shard_file(shard)) as file:
        for record in records:
            path = os.path.join(config.dataset.root or "", os.fsdecode(record["path"]))
            segments = encode_segments(path, encoding=config.encoding, short_side=config.short_side)
            shown = {"path": os.fsdecode(record["path"]), "source_bytes": os.path.getsize(path)}
            for place, segment in enumerate(segments):
                file.append(_row(record | shown, place, segment, description))


def _row(record: dict, place: int, segment: EncodedSegment, description: dict[str, Any]) -> dict:
    names = set(SHARD_SCHEMA.names)
    return {
        **record,
        **{name: value for name, value in vars(segment).items() if name in names},
        "segment_id": f"{record['video_id']}#{place}",
        "dataset": description["dataset"],
        "fingerprint": description["fingerprint"],
        "frames": segment.data,
    }


def _count_unequal(output: Path, expected: Path, listing: Listing) -> int:
    files = [ShardFolder(folder) for folder in (output, expected)]
    tables = ((pq.read_table(folder.shard_file(shard)) for folder in files) for shard in range(listing.num_shards))
    return sum(not ours.equals(theirs) for ours, theirs in tables)


def _link_videos(sources: Sequence[Path], folder: Path, *, num_videos: int) -> None:
    """Write `num_videos` links to copies of the sources, because these may lie on another file system."""
    folder.mkdir(parents=True)
    for index in range(num_videos):
        source = sources[index % len(sources)]
        first = folder / f"{index % len(sources):06d}{source.suffix}"
        if index < len(sources):
            shutil.copyfile(source, first)
        else:
            os.link(first, folder / f"{index:06d}{source.suffix}")
