import numpy as np
import pytest
import torch

from pipelines.baseline.config import BaselineConfig
from pipelines.prepare.config import FolderDatasetConfig, PrepareConfig
from pipelines.prepare.make import prepare
from pipelines.transfer.config import ExportedTeacherConfig
from t3d_core.video.storage import encode_video
from tests.pipelines.transfer.small_runs import MeanColour

RED, BLUE, GREY = (220, 30, 30), (30, 30, 220), (120, 120, 120)
NUM_SOURCES = 8  # of a class: the last two are tested


def write_toy(folder, classes):
    """Prepare videos of one colour each; a class is a colour and a number of frames. Gives the shards."""
    lines = ["path,label,group,split"]
    for label, (colour, num_frames) in classes.items():
        for source in range(NUM_SOURCES):
            split = "train" if source < NUM_SOURCES - 2 else "test"
            path = folder / "videos" / f"{label}{source}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            encode_video((np.full((36, 48, 3), colour, np.uint8) for _ in range(num_frames)), path=path, fps=10.0)
            lines.append(f"{path.name},{label},{label}{source},{split}")
    (folder / "index.csv").write_text("\n".join(lines))
    dataset = FolderDatasetConfig(root=str(folder / "videos"), annotations=folder / "index.csv")
    prepare(PrepareConfig(dataset=dataset, videos_per_shard=6), folder / "shards")
    return folder / "shards"


@pytest.fixture(scope="session")
def colours(local_ray, tmp_path_factory):
    """Classes that differ in colour alone."""
    return write_toy(tmp_path_factory.mktemp("colours"), {"red": (RED, 20), "blue": (BLUE, 20)})


@pytest.fixture(scope="session")
def lengths(local_ray, tmp_path_factory):
    """Classes that differ in length alone."""
    return write_toy(tmp_path_factory.mktemp("lengths"), {"long": (GREY, 24), "short": (GREY, 12)})


@pytest.fixture(scope="session")
def mean_colour(tmp_path_factory):
    """A teacher whose features are the mean colour of a frame."""
    path = tmp_path_factory.mktemp("teacher") / "own.pt2"
    images = torch.zeros(2, 3, 16, 16)
    program = torch.export.export(MeanColour(1.0), (images,), dynamic_shapes=({0: torch.export.Dim("N")},))
    torch.export.save(program, path)
    return ExportedTeacherConfig(weights=path, num_frames=4, crop_size=16, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@pytest.fixture
def config_of(mean_colour, tracking_uri, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def make(shards, *, target="mean", **changes):
        common = {
            "data": {"shards": (shards,)},
            "teacher": mean_colour.model_copy(update={"target": target}),
            "storage": tmp_path / "runs",
            "name": "mine",
            "tracking": {"uri": tracking_uri},
        }
        return BaselineConfig(**common | changes)

    return make
