"""Runs become a table beside the paper's: python jobs/compare.py --table 4 --experiment EXPERIMENT."""

from pathlib import Path

from pipelines.compare.config import CompareConfig
from pipelines.compare.job import run_compare
from pipelines.settings.job import run_job

if __name__ == "__main__":
    run_job(CompareConfig, run_compare, quickstart=Path(__file__).parent / "recipes" / "compare" / "quickstart.yaml")
