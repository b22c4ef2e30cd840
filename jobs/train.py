"""Labelled shards become a video classifier: python jobs/train.py --data.shards SHARDS --init_from WEIGHTS."""

from pathlib import Path

from pipelines.settings.job import run_job
from pipelines.train.config import TrainConfig


def train(config: TrainConfig) -> str:
    # Imported only after the settings are checked, because it loads PyTorch, Ray and MLflow.
    from pipelines.train.job import run_train

    return run_train(config)


if __name__ == "__main__":
    run_job(TrainConfig, train, quickstart=Path(__file__).parent / "recipes" / "train" / "quickstart.yaml")
