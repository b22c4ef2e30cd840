"""Videos that failed, and whose files came or changed since, go into shards of their own: a shard once made stays.

Training that is under way knows a row by its shard and its place there, and most videos of a shard are fine: none is
made anew because one more video of it has come.

    record         0 1 2 3 | 4 5 6 7 | 8 9     shards 0, 1, 2
    failed           x         x   x           and now the files are there
    late shard 3     1         5   7           positions of its records: late/000003.parquet, written before it is made
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.listing import Listing
from pipelines.shards import FAILURE_COLUMNS, REPORT_SCHEMA, ShardFolder, open_table, write_table


def num_shards(folder: ShardFolder, listing: Listing) -> int:
    """Shards of the listing and late ones."""
    return listing.num_shards + folder.num_late_shards()


def shards_to_make(folder: ShardFolder, listing: Listing) -> list[int]:
    """Numbers of the shards that are missing."""
    return [shard for shard in range(num_shards(folder, listing)) if not folder.is_made(shard)]


def positions_of(folder: ShardFolder, listing: Listing, shard: int) -> np.ndarray:
    """Which records a shard holds."""
    if shard >= listing.num_shards:
        return folder.late_positions(shard)
    first = shard * listing.videos_per_shard
    return np.arange(first, min(first + listing.videos_per_shard, len(listing.records)))


def late_positions(folder: ShardFolder, listing: Listing, *, retry_failed: bool = False) -> np.ndarray:
    """Records that failed and whose files have another size now, or, with `retry_failed`, are there at all.

    An empty file fails as before, and what a shard still to be made holds is tried anyway.
    """
    is_failed_N = np.zeros(len(listing.records), bool)
    bytes_then_N = np.zeros(len(listing.records), np.int64)
    for shard in range(num_shards(folder, listing)):
        positions = positions_of(folder, listing, shard)
        if folder.is_made(shard):
            report = pq.read_table(folder.report_file(shard), columns=["is_prepared", "source_bytes"])
            is_failed_N[positions] = ~report.column("is_prepared").to_numpy()
            bytes_then_N[positions] = report.column("source_bytes").to_numpy()
        else:
            is_failed_N[positions] = False
    bytes_now_N = listing.num_bytes()
    return np.flatnonzero(is_failed_N & (bytes_now_N > 0) & ((bytes_now_N != bytes_then_N) | retry_failed))


def add_late_shards(folder: ShardFolder, listing: Listing, positions: np.ndarray) -> None:
    """Write down that further shards, yet to be made, hold these records."""
    shard = num_shards(folder, listing)
    for first in range(0, len(positions), listing.videos_per_shard):
        table = pa.table({"position": positions[first : first + listing.videos_per_shard]})
        write_table(table, folder.late_file(shard))
        shard += 1


def write_tables(folder: ShardFolder, listing: Listing) -> None:
    """Join the last report of every video, shard by shard, into `failures.parquet` and `videos.parquet`."""
    late_shards = range(listing.num_shards, num_shards(folder, listing))
    late_N = np.concatenate([np.empty(0, np.int64), *(folder.late_positions(shard) for shard in late_shards)])
    late = pa.concat_tables([REPORT_SCHEMA.empty_table(), *(pq.read_table(folder.report_file(s)) for s in late_shards)])
    failure_schema = pa.schema([REPORT_SCHEMA.field(name) for name in FAILURE_COLUMNS])
    with (
        open_table(folder.videos_file, REPORT_SCHEMA) as append_videos,
        open_table(folder.failures_file, failure_schema) as append_failures,
    ):
        for shard in range(listing.num_shards):
            positions = positions_of(folder, listing, shard)
            rows = np.arange(len(positions))
            is_here = (late_N >= positions[0]) & (late_N <= positions[-1])
            rows[late_N[is_here] - positions[0]] = len(positions) + np.arange(is_here.sum())  # of two, the last one
            joined = pa.concat_tables([pq.read_table(folder.report_file(shard)), late.filter(pa.array(is_here))])
            videos = joined.take(pa.array(rows))
            append_videos(videos)
            append_failures(videos.filter(pc.invert(videos.column("is_prepared"))).select(FAILURE_COLUMNS))
