"""Shards are read, or it is told why not: a page that was damaged since it was written never reaches a decoder.

Every page of a shard has a checksum. Training decodes without the guard of `prepare`, which decoded those very bytes
once; of bytes that have changed nobody knows what FFmpeg makes. Shards written before there were checksums are read as
they are.
"""

import functools
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.shards import FRAMES_COLUMN, SHARD_SCHEMA, ShardFolder

ResultT = TypeVar("ResultT")

INDEX_COLUMNS = [
    *("video_id", "dataset", "source", "label", "splits"),
    *("encoding", "frame_offset", "num_frames", "height", "width", "key_distance"),
]
_READ_COLUMNS = [*INDEX_COLUMNS, "fingerprint", FRAMES_COLUMN]
# What Arrow raises on damaged files, by trial of 350,000 of them; it never crashed, nor asked for much memory.
DAMAGE = (OSError, pa.ArrowException, UnicodeDecodeError, LookupError)
_MAX_REASON, _MAX_NAMED_SHARDS = 160, 5


class UnreadableShardError(ValueError):
    """A shard that is missing or damaged; the message goes on where the file's name ends."""


class SkippedShard(NamedTuple):
    """A shard that cannot be read and holds rows that are wanted.

    Attributes:
        shard: its place in `ShardIndex.shard_paths`.
        path: the file.
        reason: what is wrong with it.
        num_rows: wanted rows that are lost with it.
    """

    shard: int
    path: str
    reason: str
    num_rows: int


def read_frames(path: str, row: int) -> bytes:
    """Read the encoded frames of one row of a shard: no other row is touched.

    Raises:
        ValueError: the row is damaged, or the file is missing or damaged.
    """
    cure = "run jobs/prepare.py again after deleting it"
    return read_row(path, row, columns=[FRAMES_COLUMN], take=_frames_of, what="shard", cure=cure)


def _frames_of(table: pa.Table) -> bytes:
    return table.column(0)[0].as_py()


def read_row(
    path: str, row: int, *, columns: list[str], take: Callable[[pa.Table], ResultT], what: str, cure: str
) -> ResultT:
    """Read one row of a file in which every row is a row group.

    Args:
        path: the file.
        row: 0-based.
        columns: what is read of it.
        take: takes the values out of the row, in which damage may show, too.
        what: errors call the file so.
        cure: errors advise to do so.

    Raises:
        ValueError: the row is damaged, or the file is missing or damaged.
    """
    try:
        return take(_read_row(path, row, columns))
    except DAMAGE:
        _open_parquet.cache_clear()  # a file that was open may have gone stale on its server: open it anew
    try:
        return take(_read_row(path, row, columns))
    except DAMAGE as error:
        raise ValueError(f"{what} {path} row {row} cannot be read: {describe_damage(error)}; {cure}") from error


def _read_row(path: str, row: int, columns: list[str]) -> pa.Table:
    return _open_parquet(path).read_row_group(row, columns=columns)


@functools.lru_cache(maxsize=32)
def _open_parquet(path: str) -> pq.ParquetFile:
    return pq.ParquetFile(path, page_checksum_verification=True)


def read_index(path: Path, *, fingerprint: str) -> pa.Table:
    """Read all that the index takes of the rows of one shard: `INDEX_COLUMNS`.

    Raises:
        UnreadableShardError: the file is missing or damaged.
        ValueError: it was made with other settings than `fingerprint`.
    """
    if not path.is_file():
        raise UnreadableShardError("is missing")
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            _check_layout(file)
            table = file.read(columns=INDEX_COLUMNS).select(INDEX_COLUMNS)
            first = file.read_row_group(0, columns=["fingerprint"]).to_pylist() if len(table) else []
            if len(table) != file.num_row_groups:
                raise OSError(f"{len(table)} rows in {file.num_row_groups} row groups")
    except DAMAGE as error:
        raise UnreadableShardError(f"cannot be read ({describe_damage(error)})") from error
    if first and (there := first[0]["fingerprint"]) != fingerprint:
        raise ValueError(
            f"shard {path} was made with other settings (fingerprint {there}) than its folder ({fingerprint}): run "
            "jobs/prepare.py again after deleting it"
        )
    return table


def _check_layout(file: pq.ParquetFile) -> None:
    """Compare names and types of the columns, which no checksum covers."""
    for expected in map(SHARD_SCHEMA.field, _READ_COLUMNS):
        if (there := file.schema_arrow.field(expected.name)) != expected:
            raise OSError(f"column {expected.name} is {there.type}, not {expected.type}")


def read_videos(folder: ShardFolder, columns: list[str]) -> pa.Table:
    """Read what became of every listed video.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        return pq.read_table(folder.videos_file, columns=columns, page_checksum_verification=True)
    except DAMAGE as error:
        raise ValueError(
            f"{folder.videos_file} cannot be read ({describe_damage(error)}): run jobs/prepare.py again after deleting "
            "it"
        ) from error


def count_rows(folder: ShardFolder, *, fold: int, splits: Collection[str]) -> dict[str, int]:
    """How many rows of some splits every shard file holds, as the reports of its making say."""
    videos = read_videos(folder, ["shard", "splits", "num_segments"])
    is_wanted = pc.is_in(pc.list_element(videos.column("splits"), fold - 1), pa.array(list(splits)))
    counted = videos.filter(is_wanted).group_by("shard").aggregate([("num_segments", "sum")]).to_pylist()
    return {row["shard"]: row["num_segments_sum"] for row in counted}


def describe_skipped(skipped: Sequence[SkippedShard]) -> list[str]:
    """One line on what is left out, for a summary or a warning; none where all is there."""
    if not skipped:
        return []
    named = "; ".join(f"{shard.path} {shard.reason}" for shard in skipped[:_MAX_NAMED_SHARDS])
    more = f"; and {len(skipped) - _MAX_NAMED_SHARDS} more" if len(skipped) > _MAX_NAMED_SHARDS else ""
    num_rows = sum(shard.num_rows for shard in skipped)
    return [
        f"LEFT OUT: {num_rows:,} rows of {len(skipped):,} shards: {named}{more}; run jobs/prepare.py again after "
        "deleting the damaged ones, and they are made anew"
    ]


def describe_damage(error: Exception) -> str:
    """Say what is wrong with a file in one line: Arrow's own have several."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:_MAX_REASON] or type(error).__name__
