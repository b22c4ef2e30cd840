import pytest

from pipelines.clips.config import ClipConfig
from pipelines.networks.config import T3DConfig
from pipelines.tracking.config import TrackingConfig
from pipelines.train.config import TrainConfig, TrainDataConfig
from pipelines.training.config import OptimizerConfig, ScalingConfig, ScheduleConfig

MODEL = T3DConfig(growth_rate=4, block_config=(2, 2, 2, 2), num_init_features=24, bn_size=2)
CLIP = ClipConfig(num_frames=16, frame_stride=1, crop_size=32)


@pytest.fixture
def config_of(synthetic_shards, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def make(**changes):
        return TrainConfig(
            **{
                "data": TrainDataConfig(shards=(synthetic_shards,)),
                "model": MODEL,
                "clip": CLIP,
                "epochs": 1,
                "global_batch_size": 8,
                "scaling": ScalingConfig(num_workers=0),
                "schedule": ScheduleConfig(kind="constant"),
                "optimizer": OptimizerConfig(lr=0.05),
                "storage": tmp_path / "runs",
                "tracking": TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db"),
                "log_every_steps": 1,
            }
            | changes
        )

    return make
