"""Videos and annotations become shards: python jobs/prepare.py --dataset.kind folder --dataset.root R --output O."""

from pathlib import Path

from pipelines.prepare.config import PrepareJobConfig
from pipelines.settings.job import run_job


def prepare(config: PrepareJobConfig) -> str:
    # Imported only after the settings are checked, because it loads PyTorch, Ray and MLflow.
    from pipelines.prepare.job import run_prepare

    return run_prepare(config)


if __name__ == "__main__":
    run_job(PrepareJobConfig, prepare, quickstart=Path(__file__).parent / "recipes" / "prepare" / "quickstart.yaml")
