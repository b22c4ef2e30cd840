import os

import pytest

from pipelines.prepare.config import (
    FolderDatasetConfig,
    PrepareConfig,
)
from tests.pipelines.prepare.made_videos import write_sound, write_video, write_videos


@pytest.fixture
def mixed_folder(tmp_path):
    """Six good videos of two classes, and every kind of bad file."""
    root = tmp_path / "videos"
    for name in ("a", "b", "c"):
        for label in ("left", "right"):
            write_video(root / label / f"{name}.mp4")
    (root / "left" / "empty.mp4").touch()
    (root / "left" / "garbage.mp4").write_bytes(os.urandom(5000))
    whole = (root / "left" / "a.mp4").read_bytes()
    (root / "right" / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    write_sound(root / "right" / "sound.mp4")
    return root


@pytest.fixture
def half_there(tmp_path):
    """Settings for eight listed videos, of which three are there and one is broken."""
    root = tmp_path / "videos"
    write_videos(root)
    lines = [f"{label}/{name}.mp4,{label}" for label in ("left", "right") for name in ("a", "b", "late", "never")]
    (root / "index.csv").write_text("\n".join(["path,label", *lines]))
    (root / "left" / "b.mp4").write_bytes(b"broken")
    return PrepareConfig(dataset=FolderDatasetConfig(root=str(root)), videos_per_shard=3, max_failed_fraction=1)
