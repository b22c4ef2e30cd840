"""Settings of small runs."""

import mlflow

from pipelines.clips.config import ClipConfig
from pipelines.networks.config import T3DConfig
from pipelines.tracking.config import TrackingConfig
from pipelines.train.config import TrainConfig, TrainDataConfig
from pipelines.training.config import OptimizerConfig, ScalingConfig, ScheduleConfig
from pipelines.transfer.config import ImageNetTeacherConfig, TransferConfig, TransferDataConfig

MODEL = T3DConfig(growth_rate=4, block_config=(2, 2, 2, 2), num_init_features=24, bn_size=2)


def settings_in(folder):
    """Runs in this process, which write below a folder."""
    return {
        "clip": ClipConfig(num_frames=16, frame_stride=2, crop_size=32),
        "global_batch_size": 8,
        "scaling": ScalingConfig(num_workers=0),
        "schedule": ScheduleConfig(kind="one_cycle"),
        "optimizer": OptimizerConfig(lr=0.05),
        "storage": folder / "runs",
        "tracking": TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db"),
        "log_every_steps": 1,
    }


def train_config(settings, shards, **changes):
    return TrainConfig(**settings | {"data": TrainDataConfig(shards=(shards,)), "model": MODEL, "epochs": 1} | changes)


def transfer_config(settings, shards, **changes):
    data = TransferDataConfig(shards=(shards,), holdout_fraction=0.3)
    teacher = ImageNetTeacherConfig(kind="efficientnet_lite0", num_frames=2, crop_size=64)
    plain = {"data": data, "model": MODEL, "teacher": teacher, "epochs": 1, "checks": {"max_clips": 0}}
    return TransferConfig(**settings | plain | changes)


def logged(tmp_path):
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("t3d")
    return client, client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
