"""A recipe and a space over its settings become trials: python jobs/search.py --recipe RECIPE --name NAME."""

from pathlib import Path

from pipelines.search.config import SearchConfig
from pipelines.settings.job import run_job


def search(config: SearchConfig) -> str:
    # Imported only after the settings are checked, because it loads PyTorch, Ray and MLflow.
    from pipelines.search.job import run_search

    return run_search(config)


if __name__ == "__main__":
    run_job(SearchConfig, search, quickstart=Path(__file__).parent / "recipes" / "search" / "quickstart.yaml")
