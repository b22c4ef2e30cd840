"""A configuration becomes rows of costs: this machine and its peers, measured in one run.

What can be counted is counted exactly. Times are medians of rounds in which the cases take turns (A B A B); they mean
something only as the ratio to the baseline of the same run. What can be measured: `benchmark.suites`.
"""

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveInt, create_model

from pipelines.benchmark.measuring.rows import BenchmarkRow
from pipelines.benchmark.suites import SUITES
from pipelines.runtime.files import whole_file
from pipelines.runtime.job_run import open_job_run
from pipelines.runtime.paths import base_folder, new_name
from pipelines.settings.section import Section
from pipelines.tracking.config import TrackingConfig

SUITE_OF = {suite.name: suite for suite in SUITES}
if TYPE_CHECKING:
    SuiteName = str
else:
    SuiteName = Literal[tuple(SUITE_OF)]


class BenchmarkChoice(Section):
    """What to measure, and where to write it."""

    FIRST_SETTINGS = ("suite", "repeats", "output", "tracking.uri")

    suite: SuiteName = Field("model", description="; ".join(f"`{each.name}`: {each.measures}" for each in SUITES) + ".")
    output: Path | None = None
    """JSON file for the list of rows, with a suite's other files beside it (NAME.plan.txt); none: in MLflow alone."""
    repeats: PositiveInt = 5
    """Rounds whose median is reported, after one round of warm-up."""
    tracking: TrackingConfig = TrackingConfig()


BenchmarkConfig = create_model(
    "BenchmarkConfig",
    __base__=BenchmarkChoice,
    __doc__=BenchmarkChoice.__doc__,
    **{suite.name: suite.field() for suite in SUITES},
)


def run_benchmark(config: BenchmarkChoice) -> str:
    """Measure what `config` names, write it to MLflow and, when `config.output` is set, as JSON; give the table.

    Raises:
        UserError: settings that cannot work, such as a clip that is too small for one of the models.
    """
    suite, tags = SUITE_OF[config.suite], {"suite": config.suite}
    with open_job_run(config, config.tracking, stage="benchmark", run_name=new_name("benchmark"), tags=tags) as run:
        report = suite.run(getattr(config, suite.name), repeats=config.repeats)
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


def _metric_name(row: BenchmarkRow) -> str:
    """A name that MLflow takes: letters, digits and `_-. /`."""
    return re.sub(r"[^\w\-. /]", "_", f"{row.suite}/{row.metric}/{row.case}", flags=re.ASCII)


def _as_json(rows: list[BenchmarkRow]) -> str:
    return json.dumps([row._asdict() for row in rows], indent=1, allow_nan=False) + "\n"
