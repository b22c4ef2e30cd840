"""A recipe and a space over its settings become trials: python jobs/search.py --recipe RECIPE --name NAME."""

from pathlib import Path

from pipelines.recipe import run_job
from pipelines.search import run_search
from pipelines.search_configs import SearchConfig

if __name__ == "__main__":
    run_job(SearchConfig, run_search, quickstart=Path(__file__).parent / "recipes" / "search" / "quickstart.yaml")
