"""Any videos are classified: python jobs/predict.py VIDEO_OR_FOLDER --model models:/actions@champion."""

from collections.abc import Sequence
from pathlib import Path

from pipelines.predict.config import PredictConfig
from pipelines.settings.job import run_job

RECIPES = Path(__file__).parent / "recipes"


def predict(config: PredictConfig) -> str:
    # Imported only after the settings are checked, because it loads PyTorch.
    if config.demo:
        from pipelines.predict.demo import run_demo

        return run_demo(config, train=train)
    from pipelines.predict.job import run_predict

    return run_predict(config)


def train(arguments: Sequence[str]) -> str:
    """As `python jobs/train.py ARGUMENTS`: the demo needs a network."""
    from pipelines.settings.command_line import load_config
    from pipelines.train.config import TrainConfig
    from pipelines.train.job import run_train

    quickstart = RECIPES / "train" / "quickstart.yaml"
    return run_train(load_config(TrainConfig, argv=arguments, quickstart=quickstart, program="python jobs/train.py"))


if __name__ == "__main__":
    run_job(PredictConfig, predict, quickstart=RECIPES / "predict" / "quickstart.yaml")
