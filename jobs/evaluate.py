"""A classifier is tested: python jobs/evaluate.py --checkpoint WEIGHTS --data.shards SHARDS --output FOLDER."""

from pathlib import Path

from pipelines.evaluate.config import EvaluateConfig
from pipelines.evaluate.job import run_evaluate
from pipelines.settings.job import run_job

if __name__ == "__main__":
    run_job(EvaluateConfig, run_evaluate, quickstart=Path(__file__).parent / "recipes" / "evaluate" / "quickstart.yaml")
