"""The settings of a benchmark: which suite, and the settings of each suite.

To add a suite, make a room `benchmark/NAME` with `config.py` and `suite.py`, whose `run_suite` takes those settings and
`repeats`. Then add NAME here, as a choice of `suite` and as its section.
"""

from typing import Annotated, Literal

from pydantic import PositiveInt

from pipelines.benchmark.decode.config import DecodeSuiteConfig
from pipelines.benchmark.model.config import ModelSuiteConfig
from pipelines.benchmark.plan.config import PlanSuiteConfig
from pipelines.benchmark.predict.config import PredictSuiteConfig
from pipelines.benchmark.prepare.config import PrepareSuiteConfig
from pipelines.benchmark.search.config import SearchSuiteConfig
from pipelines.benchmark.train.config import TrainSuiteConfig
from pipelines.benchmark.transfer.config import TransferSuiteConfig
from pipelines.settings.section import Role, Section, UserPath
from pipelines.tracking.config import TrackingConfig


class BenchmarkConfig(Section):
    """Measure what the project costs on this machine."""

    POSITIONAL = "suite"
    FIRST_SETTINGS = ("suite", "repeats", "output", "tracking.uri")

    suite: Literal["model", "decode", "prepare", "train", "transfer", "predict", "search", "plan"] = "model"
    """What to measure: networks (model), reading clips (decode), making shards (prepare), training, its input and
    memory (train), a pair of the transfer (transfer), predictions of whole videos (predict), what a search adds to its
    trials (search), or an estimate of a transfer on a cluster (plan)."""
    output: Annotated[UserPath | None, Role.PLACE] = None
    """JSON file for the list of rows; a suite's other files are next to it (NAME.plan.txt). By default only MLflow
    gets them."""
    repeats: PositiveInt = 5
    """Number of rounds whose median is reported, after one round of warm-up."""
    tracking: Annotated[TrackingConfig, Role.PLACE] = TrackingConfig()
    model: ModelSuiteConfig = ModelSuiteConfig()
    decode: DecodeSuiteConfig = DecodeSuiteConfig()
    prepare: PrepareSuiteConfig = PrepareSuiteConfig()
    train: TrainSuiteConfig = TrainSuiteConfig()
    transfer: TransferSuiteConfig = TransferSuiteConfig()
    predict: PredictSuiteConfig = PredictSuiteConfig()
    search: SearchSuiteConfig = SearchSuiteConfig()
    plan: PlanSuiteConfig = PlanSuiteConfig()
