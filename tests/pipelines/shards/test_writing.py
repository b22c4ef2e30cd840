"""How rows lie in a shard."""

import pyarrow.parquet as pq


def test_a_shard_has_a_row_group_a_row_so_that_readers_touch_only_theirs(synthetic_shards):
    shard = pq.ParquetFile(synthetic_shards / "shards" / "000000.parquet")
    assert shard.num_row_groups == shard.metadata.num_rows == 10
