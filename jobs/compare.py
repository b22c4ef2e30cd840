"""Runs become a table next to the paper's: python jobs/compare.py --table 4 --experiment EXPERIMENT."""

from pathlib import Path

from pipelines.compare.config import CompareConfig
from pipelines.settings.job import run_job


def compare(config: CompareConfig) -> str:
    # Imported only after the settings are checked, because it loads PyTorch, Ray and MLflow.
    from pipelines.compare.job import run_compare

    return run_compare(config)


if __name__ == "__main__":
    run_job(CompareConfig, compare, quickstart=Path(__file__).parent / "recipes" / "compare" / "quickstart.yaml")
