"""Runs become a table beside the paper's: python jobs/compare.py --table 4 --experiment EXPERIMENT."""

from pathlib import Path

from pipelines.compare.config import CompareConfig
from pipelines.settings.job import run_job


def compare(config: CompareConfig) -> str:
    from pipelines.compare.job import (
        run_compare,
    )  # not before the settings are checked: it loads PyTorch, Ray and MLflow

    return run_compare(config)


if __name__ == "__main__":
    run_job(CompareConfig, compare, quickstart=Path(__file__).parent / "recipes" / "compare" / "quickstart.yaml")
