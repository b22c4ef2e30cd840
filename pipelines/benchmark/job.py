"""A configuration becomes rows of costs: this machine and its peers, measured in one run.

What can be counted is counted exactly. Times are medians of rounds in which the cases take turns (A B A B); they mean
something only as the ratio to the baseline of the same run. One module a suite: `model`, `decode`, `prepare`, `train`,
`transfer`, `search`, `plan`.
"""

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import PositiveInt

from pipelines.benchmark.decode.suite import DecodeSuiteConfig, run_decode_suite
from pipelines.benchmark.measuring.rows import BenchmarkRow, SuiteReport
from pipelines.benchmark.model.suite import ModelSuiteConfig, run_model_suite
from pipelines.benchmark.plan.suite import PlanSuiteConfig, run_plan_suite
from pipelines.benchmark.prepare.suite import PrepareSuiteConfig, run_prepare_suite
from pipelines.benchmark.search.suite import SearchSuiteConfig, run_search_suite
from pipelines.benchmark.train.suite import TrainSuiteConfig, run_train_suite
from pipelines.benchmark.transfer.suite import TransferSuiteConfig, run_transfer_suite
from pipelines.runtime.files import whole_file
from pipelines.runtime.paths import base_folder, new_name
from pipelines.settings.recipe import to_yaml
from pipelines.settings.section import Section, flatten
from pipelines.tracking.commit import commit_tag
from pipelines.tracking.config import TrackingConfig
from pipelines.tracking.runs import Run, start_run
from pipelines.tracking.store import resolve_tracking_uri


class BenchmarkConfig(Section):
    """What to measure, and where to write it."""

    FIRST_SETTINGS = (
        "suite",
        "repeats",
        "output",
        "tracking.uri",
    )

    suite: Literal["model", "decode", "prepare", "train", "transfer", "search", "plan"] = "model"
    """`model`: cost of the networks; `decode`: clips from videos and shards; `prepare`: shards from videos; `train`:
    training, its input and memory; `transfer`: what a pair costs, and the transfer's input; `search`: what a
    search costs beyond its trials, and a comparison of many runs; `plan`: what a transfer would take on a cluster."""
    output: Path | None = None
    """JSON file for the list of rows, with a suite's other files beside it (NAME.plan.txt); none: in MLflow alone."""
    repeats: PositiveInt = 5
    """Rounds whose median is reported, after one round of warm-up."""
    model: ModelSuiteConfig = ModelSuiteConfig()
    decode: DecodeSuiteConfig = DecodeSuiteConfig()
    prepare: PrepareSuiteConfig = PrepareSuiteConfig()
    train: TrainSuiteConfig = TrainSuiteConfig()
    transfer: TransferSuiteConfig = TransferSuiteConfig()
    search: SearchSuiteConfig = SearchSuiteConfig()
    plan: PlanSuiteConfig = PlanSuiteConfig()
    tracking: TrackingConfig = TrackingConfig()


def run_benchmark(config: BenchmarkConfig) -> str:
    """Measure what `config` names, write it to MLflow and, when `config.output` is set, as JSON; give the table.

    Raises:
        UserError: settings that cannot work, such as a clip that is too small for one of the models.
    """
    with _start_run(config) as run:
        report = _run_suite(config)
        files = {"rows.json": _as_json(report.rows).encode(), "table.txt": f"{report.text}\n".encode(), **report.files}
        if config.output is not None:
            output = base_folder() / config.output
            beside = {f"{output.stem}.{name}": content for name, content in report.files.items()}
            _write({output.name: files["rows.json"]} | beside, output.parent)
        run.log_metrics({_metric_name(row): row.value for row in report.rows if row.value is not None}, step=0)
        ratios = {f"{_metric_name(row)}/ratio": row.ratio for row in report.rows if row.ratio is not None}
        run.log_metrics(ratios, step=0)
        with tempfile.TemporaryDirectory() as folder:
            for path in _write(files, Path(folder)):
                run.log_artifact(path)
    return f"{report.text}\nmlflow:  {run.describe()}"


def _write(files: Mapping[str, bytes], folder: Path) -> list[Path]:
    """Write each file so that it is complete or absent; give their paths."""
    for name, content in files.items():
        with whole_file(folder / name) as partial:
            partial.write_bytes(content)
    return [folder / name for name in files]


def _run_suite(config: BenchmarkConfig) -> SuiteReport:
    if config.suite == "model":
        return run_model_suite(config.model, repeats=config.repeats)
    if config.suite == "decode":
        return run_decode_suite(config.decode, repeats=config.repeats)
    if config.suite == "prepare":
        return run_prepare_suite(config.prepare, repeats=config.repeats)
    if config.suite == "train":
        return run_train_suite(config.train, repeats=config.repeats)
    if config.suite == "transfer":
        return run_transfer_suite(config.transfer, repeats=config.repeats)
    if config.suite == "plan":
        return run_plan_suite(config.plan, repeats=config.repeats)
    return run_search_suite(config.search)


def _start_run(config: BenchmarkConfig) -> Run:
    run = start_run(
        tracking_uri=resolve_tracking_uri(config.tracking.uri, base=base_folder()),
        experiment=config.tracking.experiment,
        run_name=new_name("benchmark"),
        run_id=None,
        tags={"stage": "benchmark", "suite": config.suite} | commit_tag(),
    )
    run.log_params(flatten(config))
    run.log_text(to_yaml(config), "recipe.yaml")
    return run


def _metric_name(row: BenchmarkRow) -> str:
    """A name that MLflow takes: letters, digits and `_-. /`."""
    return re.sub(r"[^\w\-. /]", "_", f"{row.suite}/{row.metric}/{row.case}", flags=re.ASCII)


def _as_json(rows: list[BenchmarkRow]) -> str:
    return json.dumps([row._asdict() for row in rows], indent=1, allow_nan=False) + "\n"
