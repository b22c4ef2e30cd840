"""Failed videos whose files have come or changed go into new, late shards: an existing shard never changes.

A running training identifies a row by its shard and its place there, and most videos of a shard are fine: a shard is
not made again because one more of its videos has come.

    record         0 1 2 3 | 4 5 6 7 | 8 9     shards 0, 1, 2
    failed           x         x   x           and now the files are there
    late shard 3     1         5   7           positions of its records: late/000003.parquet, written before it is made
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.prepare.listing import Listing
from pipelines.shards.folder import ShardFolder
from pipelines.shards.reading import DAMAGE, describe_damage
from pipelines.shards.schemas import FAILURE_COLUMNS, REPORT_SCHEMA
from pipelines.shards.writing import open_table, write_table
from t3d_core.errors import UserError


def count_shards(folder: ShardFolder, listing: Listing) -> int:
    """Shards of the listing and late ones."""
    return listing.num_shards + folder.num_late_shards()


def shards_to_make(folder: ShardFolder, listing: Listing) -> list[int]:
    """Numbers of the missing shards."""
    return [shard for shard in range(count_shards(folder, listing)) if not folder.is_made(shard)]


def positions_of(folder: ShardFolder, listing: Listing, shard: int) -> np.ndarray:
    """Which records a shard holds."""
    if shard >= listing.num_shards:
        return folder.read_late(shard)
    first = shard * listing.videos_per_shard
    return np.arange(first, min(first + listing.videos_per_shard, len(listing.records)))


def places_made_later(folder: ShardFolder, listing: Listing) -> dict[int, frozenset[int]]:
    """The records of each missing shard that belong to a later one.

    A lost shard is made again without them, as it was at first; otherwise their rows would exist twice.
    """
    last_shard_N = np.zeros(len(listing.records), np.int64)
    for shard in range(count_shards(folder, listing)):
        last_shard_N[positions_of(folder, listing, shard)] = shard
    return {
        shard: frozenset(np.flatnonzero(last_shard_N[positions_of(folder, listing, shard)] != shard).tolist())
        for shard in shards_to_make(folder, listing)
    }


def records_to_retry(
    folder: ShardFolder, listing: Listing, *, is_job: bool = False, retry_failed: bool = False
) -> np.ndarray:
    """Positions of failed records to try again; records of missing shards are tried anyway.

    A file that has come or has another size is always tried again; an empty file fails as before. A video that failed
    because of a machine or a network (its report has no size) is tried by a prepare job, not by every training run.

    Args:
        folder: where the reports are.
        listing: how large the files are now.
        is_job: this is a prepare job.
        retry_failed: try all failed records whose files exist.
    """
    num_records = len(listing.records)
    is_failed_N, was_found_N, bytes_then_N = (np.zeros(num_records, dtype) for dtype in (bool, bool, np.int64))
    for shard in range(count_shards(folder, listing)):
        positions = positions_of(folder, listing, shard)
        if folder.is_made(shard):
            report = _read_report(folder, shard, columns=["is_prepared", "is_found", "source_bytes"])
            is_failed_N[positions] = ~report.column("is_prepared").to_numpy()
            was_found_N[positions] = report.column("is_found").to_numpy()
            bytes_then_N[positions] = report.column("source_bytes").to_numpy()
        else:
            is_failed_N[positions] = False
    bytes_now_N = listing.num_bytes()
    is_unread_N = was_found_N & (bytes_then_N == 0)
    is_other_file_N = ~is_unread_N & (bytes_now_N != bytes_then_N)
    deserves_N = is_other_file_N | (is_unread_N & is_job) | retry_failed
    return np.flatnonzero(is_failed_N & (bytes_now_N > 0) & deserves_N)


def add_late_shards(folder: ShardFolder, listing: Listing, positions: np.ndarray) -> None:
    """Record that new shards, which are still missing, hold these records."""
    shard = count_shards(folder, listing)
    for first in range(0, len(positions), listing.videos_per_shard):
        table = pa.table({"position": positions[first : first + listing.videos_per_shard]})
        write_table(table, folder.late_file(shard))
        shard += 1


def write_tables(folder: ShardFolder, listing: Listing) -> None:
    """Join the last report of every video, shard by shard, into `failures.parquet` and `videos.parquet`."""
    late = _LateReports(folder, listing)
    failure_schema = pa.schema([REPORT_SCHEMA.field(name) for name in FAILURE_COLUMNS])
    with (
        open_table(folder.videos_file, REPORT_SCHEMA) as append_videos,
        open_table(folder.failures_file, failure_schema) as append_failures,
    ):
        for shard in range(listing.num_shards):
            positions = positions_of(folder, listing, shard)
            videos = late.update(_read_report(folder, shard), first_position=int(positions[0]))
            append_videos(videos)
            append_failures(videos.filter(pc.invert(videos.column("is_prepared"))).select(FAILURE_COLUMNS))


def _read_report(folder: ShardFolder, shard: int, columns: list[str] | None = None) -> pa.Table:
    path = folder.report_file(shard)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            names = file.schema_arrow.names
            if names not in (REPORT_SCHEMA.names, REPORT_SCHEMA.names[:-1]):
                raise OSError("its columns belong to another version")
            table = file.read(columns=columns)
            if columns is None and names != REPORT_SCHEMA.names:  # made before there were notes
                table = table.append_column(REPORT_SCHEMA.field("notes"), pa.nulls(len(table), pa.list_(pa.string())))
            return table if columns is not None else _with_fps(table)
    except DAMAGE as error:
        raise UserError(
            f"{path} cannot be read ({describe_damage(error)}): run jobs/prepare.py again after deleting it; its "
            "shard is then made again"
        ) from error


def _with_fps(report: pa.Table) -> pa.Table:
    """A report whose rows have a frame rate, null where it was made before tables had it."""
    rows, place = report.column("rows").combine_chunks(), REPORT_SCHEMA.get_field_index("rows")
    if rows.type == REPORT_SCHEMA.field(place).type:
        return report
    of_rows = rows.flatten()
    parts = [*of_rows.flatten(), pa.nulls(len(of_rows), pa.float64())]
    item = REPORT_SCHEMA.field(place).type.value_type
    extended = pa.ListArray.from_arrays(rows.offsets, pa.StructArray.from_arrays(parts, fields=list(item)))
    return report.set_column(place, REPORT_SCHEMA.field(place), extended)


class _LateReports:
    """The rows of the reports of all late shards, in order of the listing; of one record the last one counts."""

    def __init__(self, folder: ShardFolder, listing: Listing) -> None:
        shards = range(listing.num_shards, count_shards(folder, listing))
        positions_N = np.concatenate([np.empty(0, np.int64), *(folder.read_late(shard) for shard in shards)])
        order_N = np.argsort(positions_N, kind="stable")
        reports = [REPORT_SCHEMA.empty_table(), *(_read_report(folder, shard) for shard in shards)]
        self._positions_N = positions_N[order_N]
        self._reports = pa.concat_tables(reports).take(pa.array(order_N))

    def update(self, report: pa.Table, *, first_position: int) -> pa.Table:
        """The report of a shard whose records begin at a position, with later reports of its videos."""
        begin, end = np.searchsorted(self._positions_N, [first_position, first_position + len(report)])
        rows = np.arange(len(report))
        rows[self._positions_N[begin:end] - first_position] = len(report) + np.arange(end - begin)
        return pa.concat_tables([report, self._reports.slice(begin, end - begin)]).take(pa.array(rows))
