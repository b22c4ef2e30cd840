"""What can befall a shard after it was written."""

from pathlib import Path

import pyarrow.parquet as pq

from pipelines.shards import FRAMES_COLUMN, SHARD_SCHEMA


def damage_row(shard: Path, row: int) -> None:
    """Flip a bit in the frames of one row; the index stays readable."""
    first, num_bytes = _place_of(shard, row, FRAMES_COLUMN)
    flip(shard, first + num_bytes // 4)


def damage_index(table: Path) -> None:
    """Flip a bit in the splits of the first row: of a shard, or of a table of videos."""
    first, num_bytes = _place_of(table, 0, "splits.list.element")
    flip(table, first + num_bytes - 1)


def _place_of(path: Path, row_group: int, column: str) -> tuple[int, int]:
    """Where the pages of a column lie, and how long they are."""
    with pq.ParquetFile(path) as file:
        group = file.metadata.row_group(row_group)
    [found] = [c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == column]
    return found.dictionary_page_offset or found.data_page_offset, found.total_compressed_size


def flip(path: Path, place: int, mask: int = 1) -> None:
    """Flip bits of one byte."""
    with path.open("r+b") as file:
        file.seek(place)
        [byte] = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ mask]))


def without_checksums(shard: Path) -> None:
    """Write a shard anew, as it was before pages had checksums."""
    with pq.ParquetFile(shard) as file:
        groups = [file.read_row_group(row) for row in range(file.num_row_groups)]
    with pq.ParquetWriter(shard, SHARD_SCHEMA, compression="zstd") as writer:
        for group in groups:
            writer.write_table(group)
