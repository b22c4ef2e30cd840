import functools
import shutil

import pytest

from pipelines.clips.config import ClipConfig
from pipelines.networks.config import T3DConfig
from pipelines.tracking.config import TrackingConfig
from pipelines.train.config import TrainConfig, TrainDataConfig
from pipelines.train.job import run_train
from pipelines.training.config import OptimizerConfig, ScalingConfig, ScheduleConfig

MODEL = T3DConfig(growth_rate=4, block_config=(2, 2, 2, 2), num_init_features=24, bn_size=2)
CLIP = ClipConfig(num_frames=16, frame_stride=1, crop_size=32)


def make_config(shards, folder, **changes):
    """A run of one epoch in this process, which writes below a folder."""
    return TrainConfig(
        **{
            "data": TrainDataConfig(shards=(shards,)),
            "model": MODEL,
            "clip": CLIP,
            "epochs": 1,
            "global_batch_size": 8,
            "scaling": ScalingConfig(num_workers=0),
            "schedule": ScheduleConfig(kind="constant"),
            "optimizer": OptimizerConfig(lr=0.05),
            "storage": folder / "runs",
            "tracking": TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db"),
            "log_every_steps": 1,
        }
        | changes
    )


@pytest.fixture
def config_of(synthetic_shards, tracking_uri, tmp_path):
    return functools.partial(make_config, synthetic_shards, tmp_path)


@pytest.fixture(scope="session")
def trained(synthetic_shards, empty_store, tmp_path_factory):
    """The folder of a run that is made once and only read afterwards."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copy(empty_store, folder / "mlflow.db")
    run_train(make_config(synthetic_shards, folder, name="mine"))
    return folder / "runs" / "mine"
