import pytest

from pipelines.clips.config import ClipConfig
from pipelines.tracking.config import TrackingConfig
from pipelines.training.config import (
    OptimizerConfig,
    ScalingConfig,
    ScheduleConfig,
)

CLIP = ClipConfig(num_frames=16, frame_stride=2, crop_size=32)


@pytest.fixture
def settings(synthetic_shards, tmp_path, monkeypatch):
    """What all runs of a test share; nothing is written where the tests stand."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return {
        "clip": CLIP,
        "global_batch_size": 8,
        "scaling": ScalingConfig(num_workers=0),
        "schedule": ScheduleConfig(kind="one_cycle"),
        "optimizer": OptimizerConfig(lr=0.05),
        "storage": tmp_path / "runs",
        "tracking": TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db"),
        "log_every_steps": 1,
    }
