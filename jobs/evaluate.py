"""A classifier is tested: python jobs/evaluate.py --checkpoint WEIGHTS --data.shards SHARDS --output FOLDER."""

from pathlib import Path

from pipelines.evaluate.config import EvaluateConfig
from pipelines.settings.job import run_job


def evaluate(config: EvaluateConfig) -> str:
    # Imported only after the settings are checked, because it loads PyTorch, Ray and MLflow.
    from pipelines.evaluate.job import run_evaluate

    return run_evaluate(config)


if __name__ == "__main__":
    run_job(EvaluateConfig, evaluate, quickstart=Path(__file__).parent / "recipes" / "evaluate" / "quickstart.yaml")
