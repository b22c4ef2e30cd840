"""Names by which videos are recognised in whatever way, and under whatever id, a data set was prepared.

A name is that of the file, without folders and extension (`v_Archery_g01_c01`), where no other video of its folder of
shards has it; otherwise the whole video id without extension (`walk/001`).
"""

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.shards.folder import describe_shards, open_shard_folder
from pipelines.shards.reading import read_videos
from t3d_core.datasets.video_files import VIDEO_EXTENSIONS


def names_of_videos(folders: Sequence[Path]) -> dict[str, str]:
    """The name of every video of prepared folders, by its id.

    Raises:
        UserError: the list of a folder is damaged.
    """
    names: dict[str, str] = {}
    for path in folders:
        video_ids = read_videos(open_shard_folder(path), ["video_id"]).column("video_id").to_pylist()
        of_id = {video_id: _without_extension(video_id) for video_id in video_ids}
        times = Counter(map(_base, of_id.values()))
        names |= {video_id: _base(name) if times[_base(name)] == 1 else name for video_id, name in of_id.items()}
    return names


def listed_videos(folders: Sequence[Path], *, fold: int, splits: Collection[str]) -> list[str]:
    """The ids of the videos that the annotations list in these splits of a fold, prepared or not.

    Raises:
        UserError: the list of a folder is damaged.
    """
    video_ids: list[str] = []
    for path in folders:
        videos = read_videos(open_shard_folder(path), ["video_id", "splits"])
        is_listed = pc.is_in(pc.list_element(videos.column("splits"), fold - 1), pa.array(list(splits), pa.string()))
        video_ids += videos.filter(is_listed).column("video_id").to_pylist()
    return video_ids


def sources_tested_by_fold(folders: Sequence[Path]) -> list[set[str]]:
    """For each fold that all folders have, the sources (DATASET/SOURCE) of which the annotations list test videos.

    Raises:
        UserError: the list of a folder is damaged.
    """
    described = {path: describe_shards(path) for path in folders}
    tested: list[set[str]] = [set() for _ in range(min(each["num_folds"] for each in described.values()))]
    for path, description in described.items():
        videos = read_videos(open_shard_folder(path), ["source", "splits"])
        for fold, sources in enumerate(tested):
            is_tested = pc.equal(pc.list_element(videos.column("splits"), fold), "test")
            found = videos.filter(is_tested).column("source").unique().to_pylist()
            sources.update(f"{description['dataset']}/{source}" for source in found)
    return tested


def _without_extension(video_id: str) -> str:
    stem, dot, extension = video_id.rpartition(".")
    return stem if stem and f"{dot}{extension.lower()}" in VIDEO_EXTENSIONS else video_id


def _base(name: str) -> str:
    return name.rpartition("/")[2]
