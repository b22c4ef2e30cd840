"""A config becomes rows of costs: the project and its peers, measured in one run.

Counts are exact. Times are medians of rounds in which the cases take turns (A B A B). A time is meaningful only as a
ratio to the baseline of the same run. The suites are listed in `benchmark.config`.
"""

import importlib
import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from pipelines.benchmark.config import BenchmarkConfig
from pipelines.benchmark.measuring.rows import BenchmarkRow, SuiteReport
from pipelines.runtime.files import whole_file
from pipelines.runtime.job_run import open_job_run
from pipelines.runtime.paths import new_name, output_path
from pipelines.settings.terminal import format_summary


def run_benchmark(config: BenchmarkConfig) -> str:
    """Measure what `config` names, write it to MLflow and, if `config.output` is set, as JSON; return the table.

    Raises:
        UserError: settings are wrong, such as a clip that is too small for one of the models.
    """
    output = None if config.output is None else output_path(config.output.parent) / config.output.name
    tags = {"suite": config.suite}
    with open_job_run(config, config.tracking, stage="benchmark", run_name=new_name("benchmark"), tags=tags) as run:
        report = _run_suite(config)
        files = {"rows.json": _as_json(report.rows).encode(), "table.txt": f"{report.text}\n".encode(), **report.files}
        if output is not None:
            companions = {f"{output.stem}.{name}": content for name, content in report.files.items()}
            _write({output.name: files["rows.json"]} | companions, output.parent)
        run.log_metrics({_metric_name(row): row.value for row in report.rows if row.value is not None}, step=0)
        ratios = {f"{_metric_name(row)}/ratio": row.ratio for row in report.rows if row.ratio is not None}
        run.log_metrics(ratios, step=0)
        with tempfile.TemporaryDirectory() as folder:
            for path in _write(files, Path(folder)):
                run.log_artifact(path)
    return f"{report.text}\n{format_summary([('mlflow', run.describe())])}"


def _run_suite(config: BenchmarkConfig) -> SuiteReport:
    """Load and run only the suite of `config`, because each suite loads other libraries."""
    room = importlib.import_module(f"pipelines.benchmark.{config.suite}.suite")
    return room.run_suite(getattr(config, config.suite), repeats=config.repeats)


def _write(files: Mapping[str, bytes], folder: Path) -> list[Path]:
    """Write each file so that it is complete or absent; return their paths."""
    for name, content in files.items():
        with whole_file(folder / name) as partial:
            partial.write_bytes(content)
    return [folder / name for name in files]


def _metric_name(row: BenchmarkRow) -> str:
    """A name that MLflow accepts: letters, digits and `_-. /`."""
    return re.sub(r"[^\w\-. /]", "_", f"{row.suite}/{row.metric}/{row.case}", flags=re.ASCII)


def _as_json(rows: list[BenchmarkRow]) -> str:
    return json.dumps([row._asdict() for row in rows], indent=1, allow_nan=False) + "\n"
