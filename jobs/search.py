"""A recipe and a space over its settings become trials: python jobs/search.py --recipe RECIPE --name NAME."""

from pathlib import Path

from pipelines.search.config import SearchConfig
from pipelines.search.job import run_search
from pipelines.settings.job import run_job

if __name__ == "__main__":
    run_job(SearchConfig, run_search, quickstart=Path(__file__).parent / "recipes" / "search" / "quickstart.yaml")
