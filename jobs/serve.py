"""A trained network answers over HTTP: python jobs/serve.py --model models:/actions@champion."""

from pathlib import Path

from pipelines.serve.config import ServeConfig
from pipelines.settings.job import run_job


def serve(config: ServeConfig) -> str:
    # Imported only after the settings are checked, because it loads Ray.
    from pipelines.serve.job import run_serve

    return run_serve(config)


if __name__ == "__main__":
    run_job(ServeConfig, serve, quickstart=Path(__file__).parent / "recipes" / "serve" / "quickstart.yaml")
