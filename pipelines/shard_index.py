"""Prepared folders become one index: all about the rows of their shards but the frames, which are read by row."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.shards import FRAMES_COLUMN, describe_shards, open_shard_folder

_INDEX_COLUMNS = [
    *("video_id", "dataset", "source", "label", "splits"),
    *("frame_offset", "num_frames", "height", "width", "key_distance"),
]


@functools.lru_cache(maxsize=32)
def _open_parquet(path: str) -> pq.ParquetFile:
    return pq.ParquetFile(path)


def read_frames(path: str, row: int) -> bytes:
    """Read the encoded frames of one row of a shard: no other row is touched."""
    return _open_parquet(path).read_row_group(row, columns=[FRAMES_COLUMN]).column(0)[0].as_py()


@dataclass(frozen=True)
class ShardIndex:
    """Everything about the rows of some shards but their frames. All arrays have one entry a row (N).

    Attributes:
        shard_paths: the shard files.
        class_names: label index -> name; empty when unlabelled.
        shard_N: which shard file, an index into `shard_paths`.
        row_N: which row of that file.
        label_N: label index, -1 when unlabelled.
        source_N: number of the source video; rows of one source never make a negative pair.
        frame_offset_N: stored frames before the row's first one (a stream copy begins at a key frame).
        num_frames_N: frames of the row.
        height_N: pixels, as stored.
        width_N: pixels, as stored.
        key_distance_N: frames from key frame to key frame, 0 where unknown (see `decoding.decode_frames`).
        video_id_N: id of the video the row was cut from.
    """

    shard_paths: tuple[str, ...]
    class_names: tuple[str, ...]
    shard_N: np.ndarray
    row_N: np.ndarray
    label_N: np.ndarray
    source_N: np.ndarray
    frame_offset_N: np.ndarray
    num_frames_N: np.ndarray
    height_N: np.ndarray
    width_N: np.ndarray
    key_distance_N: np.ndarray
    video_id_N: np.ndarray

    def __len__(self) -> int:
        return len(self.row_N)

    def select(self, rows: np.ndarray) -> "ShardIndex":
        """The index of just `rows` (positions or a mask)."""
        per_row = {name: getattr(self, name)[rows] for name in self.__dataclass_fields__ if name.endswith("_N")}
        return ShardIndex(self.shard_paths, self.class_names, **per_row)

    def frames(self, position: int) -> bytes:
        """The encoded frames of row `position`."""
        return read_frames(self.shard_paths[self.shard_N[position]], int(self.row_N[position]))


def load_index(folders: Sequence[Path], *, fold: int, splits: Sequence[str]) -> ShardIndex:
    """Read the index of all rows that stand in one of `splits` of official fold `fold` (1-based).

    Raises:
        ValueError: a folder is missing or unfinished, the folders have different classes, or the fold does not exist.
    """
    if not folders:
        raise ValueError("data.shards names no folder: give one that jobs/prepare.py wrote")
    opened = [open_shard_folder(path) for path in folders]
    described = [describe_shards(path) for path in folders]
    class_names = _common_class_names(folders, described)
    tables: list[pa.Table] = []
    paths: list[str] = []
    for folder, description in zip(opened, described, strict=True):
        if not 1 <= fold <= description["num_folds"]:
            raise ValueError(
                f"data.fold {fold} does not exist in {folder.root}: it has folds 1..{description['num_folds']}"
            )
        for shard in range(description["num_shards"]):
            tables.append(_read_index_table(folder.shard_file(shard), shard=len(paths)))
            paths.append(str(folder.shard_file(shard).absolute()))
    table = pa.concat_tables(tables)
    split_N = pc.list_element(table.column("splits"), fold - 1)
    table = table.filter(pc.is_in(split_N, pa.array(list(splits))))
    return _index_of(table, paths=tuple(paths), class_names=class_names)


def _common_class_names(folders: Sequence[Path], described: Sequence[dict]) -> tuple[str, ...]:
    names = {tuple(description["class_names"]) for description in described}
    if len(names) > 1 and () in names:
        return ()  # labelled and unlabelled shards together serve the transfer, which reads no label
    if len(names) > 1:
        raise ValueError(f"data.shards {[str(f) for f in folders]} were prepared with different classes")
    return names.pop()


def _read_index_table(path: Path, *, shard: int) -> pa.Table:
    if not path.is_file():
        raise ValueError(
            f"shard {path} is missing: run jobs/prepare.py again with the same settings, it makes the rest"
        )
    table = pq.read_table(path, columns=_INDEX_COLUMNS)
    table = table.append_column("shard", pa.array(np.full(len(table), shard, np.int32)))
    return table.append_column("row", pa.array(np.arange(len(table), dtype=np.int32)))


def _index_of(table: pa.Table, *, paths: tuple[str, ...], class_names: tuple[str, ...]) -> ShardIndex:
    source = pc.binary_join_element_wise(table.column("dataset"), table.column("source"), "/")
    label = pc.index_in(table.column("label"), pa.array(class_names, pa.string()))
    return ShardIndex(
        shard_paths=paths,
        class_names=class_names,
        shard_N=table.column("shard").to_numpy(),
        row_N=table.column("row").to_numpy(),
        label_N=label.fill_null(-1).to_numpy().astype(np.int64),
        source_N=np.unique(source.to_numpy(zero_copy_only=False), return_inverse=True)[1].astype(np.int64),
        frame_offset_N=table.column("frame_offset").to_numpy(),
        num_frames_N=table.column("num_frames").to_numpy(),
        height_N=table.column("height").to_numpy(),
        width_N=table.column("width").to_numpy(),
        key_distance_N=table.column("key_distance").fill_null(0).to_numpy(),
        video_id_N=table.column("video_id").to_numpy(zero_copy_only=False),
    )


def num_listed(folders: Sequence[Path], *, fold: int, split: str) -> int:
    """Count the videos that the annotations list for a split, prepared or not: the base of coverage."""
    total = 0
    for path in folders:
        splits = pq.read_table(open_shard_folder(path).videos_file, columns=["splits"]).column("splits")
        total += pc.sum(pc.equal(pc.list_element(splits, fold - 1), split)).as_py() or 0
    return total


def hold_out(index: ShardIndex, *, fraction: float, seed: int, at_least: int = 1) -> tuple[ShardIndex, ShardIndex]:
    """Part an index into the rows to train on and the rows held out, by whole source videos, `at_least` so many.

    Raises:
        ValueError: there are too few source videos to part.
    """
    sources = np.unique(index.source_N)
    num_held = max(at_least, round(fraction * len(sources)))
    if num_held >= len(sources):
        raise ValueError(
            f"data.holdout_fraction {fraction} of {len(sources)} source videos leaves none to train on: "
            "prepare more videos, or lower it"
        )
    held = np.random.default_rng(seed).permutation(sources)[:num_held]
    is_held = np.isin(index.source_N, held)
    return index.select(~is_held), index.select(is_held)
