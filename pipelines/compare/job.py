"""Runs in MLflow become a table next to the paper's figures, pictures, and a page: what is better, and at what cost.

OUTPUT/table.md, table.csv      the table for people, and its bare numbers
OUTPUT/results.csv              what each source's tests say, of which `--results` makes tables without MLflow
OUTPUT/NAME.png                 pictures
OUTPUT/comparison.html          all of it in one file
OUTPUT/claims.*                 with `--results`: the table of claims, its numbers and its picture
"""

import datetime
from dataclasses import replace
from pathlib import Path

from pipelines.compare.claims import claims_as_csv, claims_as_lines, claims_as_markdown, make_claims, notes_on
from pipelines.compare.claims_plot import plot_claims
from pipelines.compare.config import CompareConfig
from pipelines.compare.page import render_page
from pipelines.compare.plots import MAX_CURVES, MAX_CURVES_A_ROW, Curves, plot_comparison
from pipelines.compare.results import as_results_csv, read_results
from pipelines.compare.runs import Comparison, compare_runs
from pipelines.compare.table import as_csv, as_lines, as_markdown, columns_of
from pipelines.compare.videos import paired_differences
from pipelines.runtime.files import whole_file
from pipelines.runtime.job_run import open_job_run, tracking_uri_of
from pipelines.runtime.paths import input_path, new_name, output_path
from pipelines.runtime.pictures import optional_picture
from pipelines.settings.build import changed
from pipelines.settings.terminal import format_summary
from pipelines.tracking.recorded import read_curve


def run_compare(config: CompareConfig) -> str:
    """Compare the runs that `config` names; return the table and the path of the report.

    Raises:
        UserError: there is nothing to compare.
    """
    output = output_path(config.output or config.storage / new_name("compare"))
    if config.results:
        return _write_claims(config, output)
    tracking_uri = tracking_uri_of(config.tracking)
    comparison = compare_runs(config, tracking_uri=tracking_uri)
    return write_comparison(comparison, config, output, tracking_uri=tracking_uri)


def write_comparison(comparison: Comparison, config: CompareConfig, output: Path, *, tracking_uri: str) -> str:
    """Write and log the report; return its summary."""
    output.mkdir(parents=True, exist_ok=True)
    paired = paired_differences(comparison.rows, comparison.reference, tracking_uri=tracking_uri)
    comparison = replace(comparison, notes=(*comparison.notes, *paired.notes))
    columns = columns_of(comparison, paired.differences)
    pictures = plot_comparison(comparison, _curves(comparison, config.curves, tracking_uri))
    experiment = config.experiment or config.tracking.experiment
    footer = f"Experiment {experiment} of {tracking_uri}, {datetime.datetime.now():%Y-%m-%d %H:%M}."
    texts = {
        "table.md": as_markdown(comparison, columns),
        "table.csv": as_csv(comparison, columns),
        "comparison.html": render_page(comparison, columns, pictures, footer=footer),
    }
    if paired.results:
        texts["results.csv"] = as_results_csv(paired.results)
    contents = {name: text.encode() for name, text in texts.items()}
    contents |= {f"{picture.name}.png": picture.light for picture in pictures}
    tracking = changed(config.tracking, {"experiment": experiment})
    with open_job_run(config, tracking, stage="compare", run_name=output.name) as run:
        for name, content in contents.items():
            with whole_file(output / name) as partial:
                partial.write_bytes(content)
            run.log_artifact(output / name)
    where = format_summary([("report", str(output / "comparison.html")), ("mlflow", run.describe())])
    return "\n".join([*as_lines(comparison, columns), where])


def _write_claims(config: CompareConfig, output: Path) -> str:
    """Compare what files of results say; return the table and where it is."""
    assert config.reference is not None, "checked by the settings"
    results = read_results([input_path(path) for path in config.results])
    claims = make_claims(results, reference=config.reference, smallest=config.smallest_difference)
    output.mkdir(parents=True, exist_ok=True)
    table = "\n".join([claims_as_markdown(claims), *(f"- {note}" for note in notes_on(claims, results)), ""])
    contents = {"claims.md": table.encode(), "claims.csv": claims_as_csv(claims).encode()}
    with optional_picture("claims.png"):
        contents["claims.png"] = plot_claims(claims).light
    for name, content in contents.items():
        with whole_file(output / name) as partial:
            partial.write_bytes(content)
    notes = [f"note: {note}" for note in notes_on(claims, results)]
    where = format_summary([("table", str(output / "claims.md"))])
    return "\n".join([*claims_as_lines(claims), *notes, where])


def _curves(comparison: Comparison, metrics: tuple[str, ...], tracking_uri: str) -> dict[str, Curves]:
    """Read only the curves that are drawn, because a store takes long to find each."""
    return {
        metric: {
            row.label: [read_curve(tracking_uri, each.run.run_id, metric) for each in row.runs[:MAX_CURVES_A_ROW]]
            for row in comparison.rows[:MAX_CURVES]
        }
        for metric in metrics
    }
