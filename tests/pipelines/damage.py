"""What can befall a prepared folder after it was written."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.shards.schemas import FRAMES_COLUMN, REPORT_SCHEMA


def damage_row(shard: Path, row: int) -> None:
    """Flip a bit in the frames of one row; the index stays readable."""
    first, num_bytes = _place_of(shard, row, FRAMES_COLUMN)
    flip(shard, first + num_bytes // 4)


def cut_off(shard: Path) -> None:
    """Lose the end of a shard, as where a copy of it was broken off."""
    with shard.open("r+b") as file:
        file.truncate(shard.stat().st_size - 100)


def damage_splits(videos: Path) -> None:
    """Flip a bit in the splits of the first row of a table of videos."""
    first, num_bytes = _place_of(videos, 0, "splits.list.element")
    flip(videos, first + num_bytes - 1)


@contextmanager
def changed_videos(folder: Path) -> Iterator[list[dict]]:
    """Give the rows of `videos.parquet`, to be changed."""
    path = folder / "videos.parquet"
    videos = pq.read_table(path).to_pylist()
    yield videos
    pq.write_table(pa.Table.from_pylist(videos, schema=REPORT_SCHEMA), path)


def without_fps(table_file: Path, *, shards: Sequence[str] | None = None) -> None:
    """Take the frame rates out of the rows of a table, as they were before tables had them.

    Args:
        table_file: `videos.parquet`, or a report.
        shards: names of shards; those of other shards keep a rate in the table, and these get none (null).
    """
    videos = pq.read_table(table_file).to_pylist()
    for row in (row for video in videos if shards is None or video["shard"] in shards for row in video["rows"]):
        del row["fps"]
    schema = REPORT_SCHEMA
    if shards is None:
        place = schema.get_field_index("rows")
        fields = [field for field in schema.field(place).type.value_type if field.name != "fps"]
        schema = schema.set(place, pa.field("rows", pa.list_(pa.struct(fields))))
    pq.write_table(pa.Table.from_pylist(videos, schema=schema), table_file)


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
