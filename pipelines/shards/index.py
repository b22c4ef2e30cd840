"""Prepared folders become one index: everything about the rows of their shards except the frames.

The index comes from `videos.parquet`. For each shard its existence and its size are checked, which takes a moment for
thousands of shards on a network disk. Other damage is found when the rows are read.
"""

import functools
import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.shards.folder import ShardFolder, describe_shards, open_shard_folder
from pipelines.shards.reading import SkippedShard, describe_damage, describe_skipped, read_fps, read_frames, read_videos
from t3d_core.errors import UserError

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShardIndex:
    """Everything about the rows of some shards except their frames. All arrays have one entry for each row (N).

    Attributes:
        shard_paths: the shard files.
        class_names: label index -> name; empty when unlabelled.
        source_names: DATASET/SOURCE, the same in every index of that data.
        shard_N: which shard file, an index into `shard_paths`.
        row_N: which row of that file.
        label_N: label index, -1 when unlabelled.
        source_N: number of the source video, an index into `source_names`; rows of one source never make a negative
            pair.
        is_h264_N: encoded by this project: no other frame needs the odd stored frames; false for a copy.
        frame_offset_N: stored frames before the row's first one (a stream copy begins at a key frame).
        num_frames_N: frames of the row.
        height_N: pixels, as stored.
        width_N: pixels, as stored.
        key_distance_N: frames from key frame to key frame, 0 where unknown (see `decoding.decode_frames`).
        fps_N: frames a second; NaN where the tables of an earlier version lack it and it was not asked for.
        video_id_N: id of the video the row was cut from.
        skipped: shards that are missing or have another size, with their number of rows of the wanted splits.
    """

    shard_paths: tuple[str, ...]
    class_names: tuple[str, ...]
    source_names: np.ndarray
    shard_N: np.ndarray
    row_N: np.ndarray
    label_N: np.ndarray
    source_N: np.ndarray
    is_h264_N: np.ndarray
    frame_offset_N: np.ndarray
    num_frames_N: np.ndarray
    height_N: np.ndarray
    width_N: np.ndarray
    key_distance_N: np.ndarray
    fps_N: np.ndarray
    video_id_N: np.ndarray
    skipped: tuple[SkippedShard, ...] = ()

    def __len__(self) -> int:
        return len(self.row_N)

    def select(self, rows: np.ndarray) -> "ShardIndex":
        """The index of just `rows` (positions or a mask)."""
        per_row = {name: getattr(self, name)[rows] for name in self.__dataclass_fields__ if name.endswith("_N")}
        return replace(self, **per_row)

    def fingerprint(self) -> str:
        """A hash of the rows and their order; it does not depend on where the folders are."""
        digest = hashlib.sha256()
        for part in (self.shard_N, self.row_N, self.video_id_N.astype(str)):
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()

    def frames(self, position: int) -> bytes:
        """The encoded frames of row `position`."""
        return read_frames(self.shard_paths[self.shard_N[position]], int(self.row_N[position]))


def load_index(
    folders: Sequence[Path],
    *,
    fold: int,
    splits: Sequence[str],
    may_be_empty: bool = False,
    has_fps: bool = False,
) -> ShardIndex:
    """Read the index of all rows in one of `splits` of official fold `fold` (1-based).

    A shard that is missing or truncated is left out with a warning and listed in `skipped`. Prepare has finished in
    these folders, so the shard was lost later, and `num_listed` still counts its videos.

    Args:
        folders: those that jobs/prepare.py wrote.
        fold: official split list.
        splits: train, val, test.
        may_be_empty: return an index without rows where no video is listed in these splits.
        has_fps: every row needs its frame rate; shards whose tables lack it are opened for it.

    Raises:
        UserError: a folder is missing, unfinished or damaged, or has none of its shards; a label is not a class; the
            folders have different classes; the fold does not exist, or these splits are empty; a frame rate that is
            needed is not above 0.
    """
    if not folders:
        raise UserError("data.shards names no folder: give one that jobs/prepare.py wrote")
    opened = [open_shard_folder(path) for path in folders]
    described = [describe_shards(path) for path in folders]
    class_names = _common_class_names(folders, described)
    tables: list[pa.Table] = []
    paths: list[str] = []
    skipped: list[SkippedShard] = []
    for folder, description in zip(opened, described, strict=True):
        if not 1 <= fold <= description["num_folds"]:
            raise UserError(
                f"data.fold {fold} does not exist in {folder.root}: it has folds 1..{description['num_folds']}"
            )
        rows = _read_rows(folder, description, first_shard=len(paths))
        paths += [str(folder.shard_file(shard).absolute()) for shard in range(description["num_shards"])]
        lost = _lost_shards(folder, rows, paths)
        num_wanted = Counter(_of_splits(rows, fold=fold, splits=splits).column("shard").to_pylist())
        skipped += [
            SkippedShard(shard, paths[shard], reason, num_wanted[shard])
            for shard, reason in lost.items()
            if num_wanted[shard]
        ]
        tables.append(rows.filter(~pc.field("shard").isin(list(lost))))
    whole = pa.concat_tables(tables)
    table = _of_splits(whole, fold=fold, splits=splits)
    for line in describe_skipped(skipped):
        _LOG.warning("Split %s of fold %d: %s", "/".join(splits), fold, line)
    if not len(table) and (skipped or not may_be_empty):
        raise UserError(_describe_empty(whole, folders, fold=fold, splits=splits, skipped=skipped))
    index = _index_of(table, paths=tuple(paths), class_names=class_names, skipped=tuple(skipped))
    if has_fps:
        index = _with_fps_of_shards(index)
        _check_fps(index)
    return index


def _with_fps_of_shards(index: ShardIndex) -> ShardIndex:
    """The index with the frame rates of shards that were prepared before tables had them."""
    fps_N = index.fps_N.copy()
    for shard in np.unique(index.shard_N[np.isnan(fps_N)]):
        is_in_N = index.shard_N == shard
        fps_N[is_in_N] = read_fps(index.shard_paths[shard])[index.row_N[is_in_N]]
    return replace(index, fps_N=fps_N)


def _check_fps(index: ShardIndex) -> None:
    is_impossible_N = ~(np.isfinite(index.fps_N) & (index.fps_N > 0))
    if is_impossible_N.any():
        first = np.flatnonzero(is_impossible_N)[0]
        raise UserError(
            f"{is_impossible_N.sum()} of {len(index)} rows have an impossible frame rate, such as video "
            f"{index.video_id_N[first]} with {index.fps_N[first]:g} frames a second in "
            f"{index.shard_paths[index.shard_N[first]]}: take these videos out of the data and prepare it again, or "
            "train with clip.frame_stride in place of clip.seconds_per_frame"
        )


def _read_rows(folder: ShardFolder, description: dict[str, Any], *, first_shard: int) -> pa.Table:
    """The rows of all shards of a folder, in their order; its shards are numbered from `first_shard`.

    The tables may already list late shards that are not in `dataset.json`, which is written last: these are left out.
    """
    videos = read_videos(folder, ["video_id", "label", "source", "splits", "shard", "shard_bytes", "rows"])
    _check_labels(videos.column("label"), folder, class_names=description["class_names"])
    rows_of_video = videos.column("rows").combine_chunks()
    number = pc.cast(pc.replace_substring(videos.column("shard"), ".parquet", ""), pa.int32())
    dataset = pa.array([description["dataset"]] * len(videos), pa.string())
    videos = videos.drop_columns(["rows", "shard"])
    shard = pc.add(number, pa.scalar(first_shard, pa.int32()))
    videos = videos.append_column("shard", shard).append_column("dataset", dataset)
    of_rows = pa.Table.from_struct_array(pc.list_flatten(rows_of_video))
    table = videos.take(pc.list_parent_indices(rows_of_video))
    for name in of_rows.column_names:
        table = table.append_column(name, of_rows.column(name))
    if "fps" not in table.column_names:  # prepared before tables had it
        table = table.append_column("fps", pa.nulls(len(table), pa.float64()))
    table = table.filter(pc.field("shard") < first_shard + description["num_shards"])
    return table.sort_by([("shard", "ascending"), ("row", "ascending")])


class RowsOfShard(NamedTuple):
    """What is known of a shard without opening it.

    Attributes:
        fingerprint: that of the settings that it was made with.
        rows: `video_id` and `num_frames` of each, in their order.
    """

    fingerprint: str
    rows: list[dict[str, Any]]


def rows_of_shard(path: str) -> RowsOfShard:
    """The rows of one shard, of all splits.

    Raises:
        UserError: as `load_index`.
    """
    folder = ShardFolder(Path(path).parents[1])
    fingerprint, table = _rows_of_folder(folder.root, folder.videos_file.stat().st_mtime_ns)
    begin, end = np.searchsorted(table.column("shard").to_numpy(), [int(Path(path).stem), int(Path(path).stem) + 1])
    return RowsOfShard(fingerprint, table.slice(begin, end - begin).select(["video_id", "num_frames"]).to_pylist())


@functools.lru_cache(maxsize=4)
def _rows_of_folder(root: Path, changed_ns: int) -> tuple[str, pa.Table]:
    """As they were when `videos.parquet` last changed."""
    description = describe_shards(root)
    table = _read_rows(ShardFolder(root), description, first_shard=0)
    return description["fingerprint"], table.select(["shard", "video_id", "num_frames"])


def _lost_shards(folder: ShardFolder, rows: pa.Table, paths: Sequence[str]) -> dict[int, str]:
    """Which shards have changed since they were made, and how.

    Raises:
        UserError: all shards of this folder have.
    """
    made = rows.group_by("shard", use_threads=False).aggregate([("shard_bytes", "max")]).to_pylist()
    lost = {}
    for shard, made_bytes in map(dict.values, made):
        try:
            num_bytes = Path(paths[shard]).stat().st_size
        except OSError as error:
            is_missing = isinstance(error, FileNotFoundError)
            lost[shard] = "is missing" if is_missing else f"cannot be read ({describe_damage(error)})"
        else:
            if num_bytes != made_bytes:
                lost[shard] = f"has {num_bytes:,} bytes instead of {made_bytes:,}"
    if lost and len(lost) == len(made):
        shard, reason = next(iter(lost.items()))
        raise UserError(
            f"all {len(lost)} shards of {folder.root} are missing or damaged: {paths[shard]} {reason}: run "
            "jobs/prepare.py again with the same settings, after deleting the damaged ones"
        )
    return lost


def _of_splits(rows: pa.Table, *, fold: int, splits: Sequence[str]) -> pa.Table:
    return rows.filter(pc.is_in(pc.list_element(rows.column("splits"), fold - 1), pa.array(list(splits))))


def _check_labels(labels: pa.ChunkedArray, folder: ShardFolder, *, class_names: Sequence[str]) -> None:
    is_known = pc.or_(pc.is_null(labels), pc.is_in(labels, pa.array(class_names, pa.string())))
    if unknown := Counter(labels.filter(pc.invert(is_known)).to_pylist()):
        named = ", ".join(f"{label!r} ({count} videos)" for label, count in unknown.most_common(5))
        raise UserError(
            f"{folder.root} holds labels that are not among the {len(class_names)} classes of its "
            f"{folder.dataset_file.name}: {named}: prepare it again into another folder"
        )


def _describe_empty(
    table: pa.Table, folders: Sequence[Path], *, fold: int, splits: Sequence[str], skipped: Sequence[SkippedShard]
) -> str:
    there = Counter(
        (number, split) for splits in table.column("splits").to_pylist() for number, split in enumerate(splits, start=1)
    )
    counts = ", ".join(f"fold {number} {split}: {count:,}" for (number, split), count in sorted(there.items()))
    lost = "".join(f"; {line}" for line in describe_skipped(skipped))
    return (
        f"no row of split {' or '.join(splits)} in fold {fold} can be read from {', '.join(map(str, folders))}; "
        f"existing rows: {counts or 'none'}{lost}: choose another split or fold, or prepare more videos"
    )


def _common_class_names(folders: Sequence[Path], described: Sequence[dict]) -> tuple[str, ...]:
    names = {tuple(description["class_names"]) for description in described}
    if len(names) > 1 and () in names:
        return ()  # labelled and unlabelled shards together serve the transfer, which reads no label
    if len(names) > 1:
        raise UserError(
            f"data.shards {[str(f) for f in folders]} were prepared with different classes: give those of one data set"
        )
    return names.pop()


def _index_of(
    table: pa.Table, *, paths: tuple[str, ...], class_names: tuple[str, ...], skipped: tuple[SkippedShard, ...]
) -> ShardIndex:
    source = pc.binary_join_element_wise(table.column("dataset"), table.column("source"), "/")
    source_names, source_N = np.unique(source.to_numpy(zero_copy_only=False), return_inverse=True)
    label = pc.index_in(table.column("label"), pa.array(class_names, pa.string()))
    return ShardIndex(
        shard_paths=paths,
        class_names=class_names,
        source_names=source_names,
        shard_N=table.column("shard").to_numpy(),
        row_N=table.column("row").to_numpy(),
        label_N=label.fill_null(-1).to_numpy().astype(np.int64),
        source_N=source_N.astype(np.int64),
        is_h264_N=pc.equal(table.column("encoding"), "h264").to_numpy(),
        frame_offset_N=table.column("frame_offset").to_numpy(),
        num_frames_N=table.column("num_frames").to_numpy(),
        height_N=table.column("height").to_numpy(),
        width_N=table.column("width").to_numpy(),
        key_distance_N=table.column("key_distance").fill_null(0).to_numpy(),
        fps_N=table.column("fps").fill_null(np.nan).to_numpy(),
        video_id_N=table.column("video_id").to_numpy(zero_copy_only=False),
        skipped=skipped,
    )


def num_listed(folders: Sequence[Path], *, fold: int, split: str) -> int:
    """Count the videos that the annotations list for a split, prepared or not: the base of coverage."""
    total = 0
    for path in folders:
        splits = read_videos(open_shard_folder(path), ["splits"]).column("splits")
        total += pc.sum(pc.equal(pc.list_element(splits, fold - 1), split)).as_py() or 0
    return total
