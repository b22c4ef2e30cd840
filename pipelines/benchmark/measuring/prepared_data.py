"""Videos become the labelled shards that the training benchmark reads."""

import csv
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pipelines.benchmark.measuring.clips import BenchmarkClip
from pipelines.benchmark.measuring.processes import new_processes, num_cores_here, start_ray
from pipelines.prepare.config import FolderDatasetConfig, PrepareConfig
from pipelines.prepare.make import prepare

_CLASSES = ("even", "odd")  # by position in the list; training needs two
_NUM_VAL = 2


class BenchmarkData(NamedTuple):
    """Videos, and the shards made from links to them, with one row per video."""

    name: str
    sources: Sequence[BenchmarkClip]
    shards: Path


def make_data(name: str, sources: Sequence[BenchmarkClip], folder: Path, *, num_videos: int) -> BenchmarkData:
    """Prepare `num_videos` training videos by repeating the sources, and two for validation."""
    videos = folder / "videos"
    videos.mkdir(parents=True)
    with (videos / "index.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "group", "split"))
        for place in range(num_videos + _NUM_VAL):
            source = sources[place % len(sources)].path
            path, first = (f"{number:06d}{source.suffix}" for number in (place, place % len(sources)))
            if place < len(sources):
                shutil.copyfile(source, videos / path)
            else:
                os.link(videos / first, videos / path)
            split = "train" if place < num_videos else "val"
            writer.writerow((path, _CLASSES[place % len(_CLASSES)], path, split))
    shards = folder / "shards"
    config = PrepareConfig(dataset=FolderDatasetConfig(root=str(videos)), output=shards)
    with new_processes(1, num_cores=num_cores_here()) as process:
        process.submit(_prepare, config, shards).result()
    return BenchmarkData(name, sources, shards)


def _prepare(config: PrepareConfig, output: Path) -> None:
    start_ray(num_cores_here())
    prepare(config, output)
