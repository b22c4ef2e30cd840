"""What can befall a shard after it was written."""

from pathlib import Path

import pyarrow.parquet as pq

from pipelines.shards import FRAMES_COLUMN, SHARD_SCHEMA


def damage_row(shard: Path, row: int) -> None:
    """Flip a bit in the frames of one row; the index stays readable."""
    with pq.ParquetFile(shard) as file:
        column = file.metadata.row_group(row).column(file.schema_arrow.get_field_index(FRAMES_COLUMN))
    first = column.dictionary_page_offset or column.data_page_offset
    flip(shard, first + column.total_compressed_size // 2)


def damage_index(shard: Path) -> None:
    """Flip a bit in the list of the row groups, near the end of the file."""
    flip(shard, shard.stat().st_size - 100)


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
