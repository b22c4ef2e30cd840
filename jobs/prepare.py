"""Videos and annotations become shards: python jobs/prepare.py --dataset.kind folder --dataset.root R --output O."""

from pathlib import Path

from pipelines.prepare.config import PrepareJobConfig
from pipelines.prepare.job import run_prepare
from pipelines.settings.job import run_job

if __name__ == "__main__":
    run_job(PrepareJobConfig, run_prepare, quickstart=Path(__file__).parent / "recipes" / "prepare" / "quickstart.yaml")
