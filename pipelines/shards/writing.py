"""Tables and shards are written whole or not at all."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.runtime.files import whole_file
from pipelines.shards.schemas import SHARD_SCHEMA

_ROW_GROUP_ROWS = 8192  # rows of a table that is written in pieces


def write_table(table: pa.Table, path: Path, *, row_group_size: int | None = None) -> None:
    """Write a Parquet file that is complete or absent."""
    with whole_file(path) as partial:
        pq.write_table(table, partial, row_group_size=row_group_size, compression="zstd", write_page_checksum=True)


@contextmanager
def open_table(path: Path, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """Yield a function that appends rows to a Parquet file, which is complete or absent; few rows are in memory."""
    with (
        whole_file(path) as partial,
        pq.ParquetWriter(partial, schema, compression="zstd", write_page_checksum=True) as writer,
    ):
        waiting: list[pa.Table] = []

        def append(table: pa.Table) -> None:
            waiting.append(table)
            if sum(map(len, waiting)) >= _ROW_GROUP_ROWS:
                flush()

        def flush() -> None:
            writer.write_table(pa.concat_tables(waiting))
            waiting.clear()

        yield append
        if waiting:
            flush()


class ShardWriter:
    """Appends segments to a shard.

    Attributes:
        num_bytes: length of the file, once it is written.
    """

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self.num_bytes = 0
        self._writer = writer

    def append(self, row: dict) -> None:
        """Add one segment, a dict of `SHARD_SCHEMA`, as a row group of its own."""
        self._writer.write_table(pa.Table.from_pylist([row], schema=SHARD_SCHEMA))


@contextmanager
def open_shard(path: Path) -> Iterator[ShardWriter]:
    """Yield a writer of a shard, which is complete or absent."""
    with whole_file(path) as partial:
        with pq.ParquetWriter(partial, SHARD_SCHEMA, compression="zstd", write_page_checksum=True) as writer:
            shard = ShardWriter(writer)
            yield shard
        shard.num_bytes = partial.stat().st_size  # for this file alone: another task may be making the same shard
