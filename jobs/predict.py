"""Any videos are classified: python jobs/predict.py VIDEO_OR_FOLDER --model models:/actions@champion."""

from pathlib import Path

from pipelines.predict.config import PredictConfig
from pipelines.settings.job import run_job


def predict(config: PredictConfig) -> str:
    # Imported only after the settings are checked, because it loads PyTorch.
    from pipelines.predict.job import run_predict

    return run_predict(config)


if __name__ == "__main__":
    run_job(PredictConfig, predict, quickstart=Path(__file__).parent / "recipes" / "predict" / "quickstart.yaml")
