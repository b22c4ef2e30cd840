"""Shards are read, or an error gives the reason: a page that was damaged after writing never reaches a decoder.

Every page of a shard has a checksum. Training decodes without the guard of `prepare`, which has decoded the same bytes
once. Changed bytes could do anything in FFmpeg.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.shards.folder import ShardFolder
from pipelines.shards.schemas import FRAMES_COLUMN
from t3d_core.errors import UserError

ResultT = TypeVar("ResultT")

# What Arrow raises on damaged files, in a test of 350,000; it never crashed or needed much memory.
DAMAGE = (OSError, pa.ArrowException, UnicodeDecodeError, LookupError)
_CURE = "run jobs/prepare.py again after deleting it"
_MAX_REASON, _MAX_NAMED_SHARDS = 160, 5


class SkippedShard(NamedTuple):
    """A shard that has changed since prepare wrote it, and that holds wanted rows.

    Attributes:
        shard: its place in `ShardIndex.shard_paths`.
        path: the file.
        reason: what is wrong with it, as the text after the file's name.
        num_rows: wanted rows that are lost with it.
    """

    shard: int
    path: str
    reason: str
    num_rows: int


def read_frames(path: str, row: int) -> bytes:
    """Read the encoded frames of one row of a shard: no other row is touched.

    Raises:
        UserError: the row is damaged, or the file is missing or damaged.
    """
    return read_row(path, row, columns=[FRAMES_COLUMN], take=_frames_of, what="shard", cure=_CURE)


def _frames_of(table: pa.Table) -> bytes:
    return table.column(0)[0].as_py()


def read_fps(path: str) -> np.ndarray:
    """Read the frames a second of all rows of a shard, float64.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        table = pq.read_table(path, columns=["fps"], page_checksum_verification=True)
    except DAMAGE as error:
        raise UserError(f"the frame rates of shard {path} cannot be read: {describe_damage(error)}; {_CURE}") from error
    return table.column("fps").to_numpy()


def read_row(
    path: str, row: int, *, columns: list[str], take: Callable[[pa.Table], ResultT], what: str, cure: str
) -> ResultT:
    """Read one row of a file in which every row is a row group.

    Args:
        path: the file.
        row: 0-based.
        columns: the columns to read.
        take: takes the values out of the row; it may also find damage.
        what: name of the file in errors.
        cure: advice in errors.

    Raises:
        UserError: the row is damaged, or the file is missing or damaged.
    """
    try:
        return take(_read_row(path, row, columns))
    except DAMAGE:
        _open_parquet.cache_clear()  # an open file may be stale on its server: open it again
    try:
        return take(_read_row(path, row, columns))
    except DAMAGE as error:
        raise UserError(f"{what} {path} row {row} cannot be read: {describe_damage(error)}; {cure}") from error


def _read_row(path: str, row: int, columns: list[str]) -> pa.Table:
    return _open_parquet(path).read_row_group(row, columns=columns)


@functools.lru_cache(maxsize=32)
def _open_parquet(path: str) -> pq.ParquetFile:
    return pq.ParquetFile(path, page_checksum_verification=True)


def read_videos(folder: ShardFolder, columns: list[str]) -> pa.Table:
    """Read what became of every listed video.

    Raises:
        UserError: the file is damaged.
    """
    try:
        return pq.read_table(folder.videos_file, columns=columns, page_checksum_verification=True)
    except DAMAGE as error:
        raise UserError(
            f"{folder.videos_file} cannot be read ({describe_damage(error)}): run jobs/prepare.py again after deleting "
            "it"
        ) from error


def describe_skipped(skipped: Sequence[SkippedShard]) -> list[str]:
    """One line on what is left out, for a summary or a warning; empty where nothing is."""
    if not skipped:
        return []
    named = "; ".join(f"{shard.path} {shard.reason}" for shard in skipped[:_MAX_NAMED_SHARDS])
    more = f"; and {len(skipped) - _MAX_NAMED_SHARDS} more" if len(skipped) > _MAX_NAMED_SHARDS else ""
    num_rows = sum(shard.num_rows for shard in skipped)
    return [
        f"LEFT OUT: {num_rows:,} rows of {len(skipped):,} shards: {named}{more}; run jobs/prepare.py again after "
        "deleting the damaged ones to make them again"
    ]


def describe_damage(error: Exception) -> str:
    """What is wrong with a file, in one line: the messages of Arrow have several."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:_MAX_REASON] or type(error).__name__
