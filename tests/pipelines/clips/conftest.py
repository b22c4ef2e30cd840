import shutil
from pathlib import Path

import pytest

from pipelines.shards.index import load_index
from tests.pipelines.damage import damage_row


@pytest.fixture(scope="session")
def index(synthetic_shards):
    return load_index([synthetic_shards], fold=1, splits=["train"])


@pytest.fixture
def damaged_index(synthetic_shards, tmp_path):
    """Of the first three rows the second is damaged."""
    shards = shutil.copytree(synthetic_shards, tmp_path / "copy", ignore=shutil.ignore_patterns("videos"))
    index = load_index([shards], fold=1, splits=["train"])
    damage_row(Path(index.shard_paths[index.shard_N[1]]), int(index.row_N[1]))
    return index
