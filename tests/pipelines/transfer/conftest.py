import shutil

import pytest
import torch
from torch import nn

from pipelines.transfer.config import ExportedTeacherConfig, TransferConfig
from t3d_core.transfer.teacher import FrozenTeacher
from tests.pipelines.transfer.feature_pass import copy_of, pass_over
from tests.pipelines.transfer.small_runs import MeanColour

MODEL = {"kind": "t3d", "growth_rate": 4, "block_config": (2, 2, 2, 2), "num_init_features": 24, "bn_size": 2}
NORMALISATION = {"mean": (0.5, 0.25, 0.0), "std": (0.5, 1.0, 2.0)}


@pytest.fixture
def exported(tmp_path):
    def export(*, scale: float):
        images = torch.zeros(2, 3, 32, 32)
        program = torch.export.export(MeanColour(scale), (images,), dynamic_shapes=({0: torch.export.Dim("N")},))
        torch.export.save(program, tmp_path / "own.pt2")
        return ExportedTeacherConfig(weights=tmp_path / "own.pt2", crop_size=32, **NORMALISATION)

    return export


@pytest.fixture
def small_run(synthetic_shards, tracking_uri, tmp_path, monkeypatch):
    """A transfer on a copy of the synthetic shards, an epoch in this process; gives its settings."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shards = shutil.copytree(synthetic_shards, tmp_path / "copy", ignore=shutil.ignore_patterns("videos", "features"))

    def settings(**changes):
        common = {
            "data": {"shards": (shards,), "holdout_fraction": 0.3},
            "model": MODEL,
            "clip": {"num_frames": 16, "crop_size": 32},
            "teacher": {"kind": "efficientnet_lite0", "num_frames": 2, "crop_size": 64},
            "global_batch_size": 8,
            "epochs": 1,
            "schedule": {"kind": "one_cycle"},
            "scaling": {"num_workers": 0},
            "storage": tmp_path / "runs",
            "tracking": {"uri": tracking_uri},
            "checks": {"max_clips": 0},
        }
        return TransferConfig(**common | changes)

    return settings


@pytest.fixture(scope="session")
def teacher():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 5, 5, stride=3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return FrozenTeacher(network, feature_dim=5)


@pytest.fixture
def index(synthetic_shards, tmp_path):
    return copy_of(synthetic_shards, tmp_path / "copy", "features")


@pytest.fixture(scope="session")
def first_pass(synthetic_shards, tmp_path_factory, teacher):
    root = tmp_path_factory.mktemp("features") / "copy"
    index = copy_of(synthetic_shards, root, "features")
    return root, pass_over(index, teacher)
