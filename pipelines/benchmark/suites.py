"""The suites of the benchmark: to add one, add it to `SUITES`.

The choice of `--suite`, the section `--NAME.` of its settings, the help and the call of its function follow from that.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from pipelines.benchmark.decode.suite import DecodeSuiteConfig, run_decode_suite
from pipelines.benchmark.measuring.rows import SuiteReport
from pipelines.benchmark.model.suite import ModelSuiteConfig, run_model_suite
from pipelines.benchmark.plan.suite import PlanSuiteConfig, run_plan_suite
from pipelines.benchmark.prepare.suite import PrepareSuiteConfig, run_prepare_suite
from pipelines.benchmark.search.suite import SearchSuiteConfig, run_search_suite
from pipelines.benchmark.train.suite import TrainSuiteConfig, run_train_suite
from pipelines.benchmark.transfer.suite import TransferSuiteConfig, run_transfer_suite
from pipelines.settings.section import Section


class Suite(NamedTuple):
    """One suite.

    Attributes:
        name: of the choice and of the section.
        measures: what it measures, for the help.
        config_class: its settings; each has a default.
        run: takes the settings and `repeats`.
    """

    name: str
    measures: str
    config_class: type[Section]
    run: Callable[..., SuiteReport]

    def field(self) -> Any:
        """The section as `pydantic.create_model` takes it: type and default."""
        return self.config_class, self.config_class()


def _once(run: Callable[[Any], SuiteReport]) -> Callable[..., SuiteReport]:
    """Of a suite without rounds: its settings alone say how much it measures."""

    def run_once(config: Section, *, repeats: int) -> SuiteReport:
        return run(config)

    return run_once


SUITES = (
    Suite("model", "cost of the networks", ModelSuiteConfig, run_model_suite),
    Suite("decode", "clips from videos and shards", DecodeSuiteConfig, run_decode_suite),
    Suite("prepare", "shards from videos", PrepareSuiteConfig, run_prepare_suite),
    Suite("train", "training, its input and memory", TrainSuiteConfig, run_train_suite),
    Suite("transfer", "what a pair costs, and the transfer's input", TransferSuiteConfig, run_transfer_suite),
    Suite(
        "search",
        "what a search costs beyond its trials, and a comparison of many runs",
        SearchSuiteConfig,
        _once(run_search_suite),
    ),
    Suite("plan", "what a transfer would take on a cluster", PlanSuiteConfig, run_plan_suite),
)
