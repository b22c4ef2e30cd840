import mlflow

from pipelines.networks.config import T3DConfig
from pipelines.train.config import TrainConfig, TrainDataConfig
from pipelines.transfer.config import ImageNetTeacherConfig, TransferConfig, TransferDataConfig

MODEL = T3DConfig(growth_rate=4, block_config=(2, 2, 2, 2), num_init_features=24, bn_size=2)


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
