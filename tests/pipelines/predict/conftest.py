import shutil

import pytest

from tests.pipelines.evaluate.small_network import CLIP, save_network


@pytest.fixture(scope="session")
def weights(synthetic_shards, tmp_path_factory):
    """A network that knows some of the synthetic classes."""
    return save_network(synthetic_shards, tmp_path_factory.mktemp("weights") / "model.safetensors", CLIP)


@pytest.fixture(scope="session")
def segment_weights(synthetic_shards, tmp_path_factory):
    """As `weights`, from the features of two segments."""
    clip = CLIP.model_copy(update={"num_segments": 2})
    return save_network(synthetic_shards, tmp_path_factory.mktemp("segments") / "model.safetensors", clip)


@pytest.fixture
def videos(synthetic_shards, tmp_path):
    """Three videos of a data set, with a file that is none."""
    found = sorted(synthetic_shards.rglob("*.mp4"))[:3]
    folder = tmp_path / "my videos"
    folder.mkdir()
    for number, path in enumerate(found):
        shutil.copy(path, folder / f"{number}.mp4")
    (folder / "broken.mp4").write_bytes(b"no video" * 100)
    (folder / "notes.md").touch()
    return folder
