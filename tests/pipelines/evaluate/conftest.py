import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.clips.config import ClipConfig
from pipelines.shards.index import load_index
from tests.pipelines.damage import changed_videos
from tests.pipelines.evaluate.small_network import Damaged, replace_frames, save_network

CLIP = ClipConfig(num_frames=16, frame_stride=1, crop_size=32)  # two clips in the 40 frames of a synthetic video
NUM_TEST_VIDEOS = 10


@pytest.fixture(scope="session")
def weights(synthetic_shards, tmp_path_factory):
    """A network that knows some classes: random features, and a head that looks for the nearest mean of each class."""
    return save_network(synthetic_shards, tmp_path_factory.mktemp("weights") / "model.safetensors", CLIP)


@pytest.fixture(autouse=True)
def store(tracking_uri):
    """Every test has a store in its folder."""


@pytest.fixture(scope="session")
def damaged(synthetic_shards, tmp_path_factory):
    """The synthetic shards; the frames of one test video are noise, the page of another has lost its header."""
    shards = tmp_path_factory.mktemp("damaged") / "shards"
    shutil.copytree(synthetic_shards, shards)
    index = load_index([shards], fold=1, splits=["test"])
    noise, lost = 2, NUM_TEST_VIDEOS - 1
    assert index.shard_N[noise] != index.shard_N[lost]
    replace_frames(Path(index.shard_paths[index.shard_N[noise]]), int(index.row_N[noise]), b"noise" * 99)
    path, row = Path(index.shard_paths[index.shard_N[lost]]), int(index.row_N[lost])
    group = pq.ParquetFile(path).metadata.row_group(row)
    [column] = [group.column(i) for i in range(group.num_columns) if group.column(i).path_in_schema == "frames"]
    content = bytearray(path.read_bytes())
    content[column.data_page_offset : column.data_page_offset + 64] = b"\xff" * 64
    path.write_bytes(content)
    return Damaged(shards, (index.video_id_N[noise], index.video_id_N[lost]))


@pytest.fixture(scope="session")
def two_folds(synthetic_shards, tmp_path_factory):
    """The synthetic shards with a second fold, whose test videos are those that validate in the first."""
    shards = tmp_path_factory.mktemp("folds") / "shards"
    shutil.copytree(synthetic_shards, shards)
    second = {"train": "train", "val": "test", "test": "val"}
    with changed_videos(shards) as videos:
        for video in videos:
            video["splits"] = [video["splits"][0], second[video["splits"][0]]]
    description = json.loads((shards / "dataset.json").read_text())
    (shards / "dataset.json").write_text(json.dumps(description | {"num_folds": 2}))
    return shards


@pytest.fixture(scope="session")
def segment_weights(synthetic_shards, tmp_path_factory):
    """As `weights`, from the features of two segments."""
    clip = CLIP.model_copy(update={"num_segments": 2})
    return save_network(synthetic_shards, tmp_path_factory.mktemp("segments") / "model.safetensors", clip)
