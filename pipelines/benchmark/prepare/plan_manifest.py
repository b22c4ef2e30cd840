"""A process of the benchmark that plans a manifest as jobs/prepare.py does, with the same modules loaded.

`memory` starts it as `python -m pipelines.benchmark.prepare.plan_manifest FOLDER`, where FOLDER has ids.txt and
videos/. It prints one line of JSON, the fields of `Planning`.
"""

import importlib
import json
import os
import sys
import time
from pathlib import Path

from pipelines.benchmark.measuring.processes import memory_bytes
from pipelines.benchmark.prepare.memory import Planning
from pipelines.prepare.config import PrepareConfig, YouTube8MDatasetConfig
from pipelines.prepare.listing import list_videos
from pipelines.shards.folder import ShardFolder
from pipelines.shards.writing import write_table


def main() -> None:
    """List, shuffle, cut and write the manifest."""
    importlib.import_module("pipelines.prepare.job")  # and all else that the job loads
    folder = Path(sys.argv[1])
    bytes_before, start = memory_bytes(os.getpid(), "VmHWM"), time.perf_counter()
    dataset = YouTube8MDatasetConfig(root=str(folder / "videos"), annotations=folder / "ids.txt")
    config = PrepareConfig(dataset=dataset)
    listing = list_videos(config, output=folder)
    write_table(listing.records, ShardFolder(folder).records_file, row_group_size=config.videos_per_shard)
    seconds = time.perf_counter() - start
    peak_bytes = memory_bytes(os.getpid(), "VmHWM")
    planning = Planning(len(listing.records), listing.num_shards, seconds, peak_bytes, bytes_before)
    print(json.dumps(planning._asdict()))


if __name__ == "__main__":
    main()
