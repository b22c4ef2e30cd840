"""The columns of a comparison: their texts for readers, and the bare numbers."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from pipelines.compare.measured import TESTED, VALIDATED
from pipelines.compare.rows import Row
from pipelines.compare.runs import Comparison
from pipelines.compare.videos import PairedDifference
from pipelines.runtime.text_table import format_table
from pipelines.tracking.recorded import SEEN_BEFORE


class Cell(NamedTuple):
    """The text, and the number or text behind it; None if it is unknown."""

    text: str
    value: float | str | None


class Column(NamedTuple):
    """One column; a column without any value is left out, and one that is not shown is in the CSV alone."""

    name: str
    meaning: str
    cell: Callable[[Row], Cell]
    is_shown: bool = True


def columns_of(comparison: Comparison, paired: Mapping[str, PairedDifference]) -> list[Column]:
    """The columns that have a value in some row.

    Args:
        comparison: the rows.
        paired: label of a row -> its difference from the reference.
    """
    metric = comparison.metric
    columns = [
        Column("row", "what the runs have in common", lambda row: Cell(row.label, row.label)),
        Column("n", "seeds", lambda row: Cell(str(len(row.values)), len(row.values))),
        Column(metric, f"mean of {metric} over seeds", lambda row: _number(row.mean, ".3f")),
        Column("+-", "standard deviation over seeds", lambda row: _number(row.spread, ".3f")),
        Column(
            "95 % from",
            "lower end of the 95 % interval of the mean over all seeds (Student's t)",
            lambda row: _end(row, 0),
        ),
        Column("to", "upper end of that interval", lambda row: _end(row, 1)),
        Column("paper", "the paper's figure (a single run)", lambda row: _number(_paper(row, metric), ".3f")),
        Column("- paper", "our figure minus the paper's", lambda row: _number(_less_paper(row, metric), "+.3f")),
        Column(
            "- reference",
            f"difference in {TESTED} from {comparison.reference.label}, on the same videos and seeds",
            lambda row: _number(paired[row.label].difference if row.label in paired else None, "+.3f"),
        ),
        Column(
            "p (Holm)",
            "how often chance alone gives a difference this large anywhere in this table: signs flipped by source "
            "video, adjusted over the table by Holm's method",
            lambda row: _number(paired[row.label].adjusted_p_value if row.label in paired else None, ".3f"),
        ),
        Column(
            "p unadjusted",
            "how often chance alone gives a difference this large in one comparison (signs flipped by source video)",
            lambda row: _number(paired[row.label].p_value if row.label in paired else None, ".3f"),
            is_shown=False,
        ),
        Column(
            "GMAC",
            "multiply-adds of a clip in a forward pass, in 1e9",
            lambda row: _number(row.metric("model/gmacs"), ".3g"),
        ),
        Column("parameters", "parameters of the network", lambda row: _number(row.metric("model/parameters"), ",.0f")),
        Column(
            "clips/s",
            "clips per second of training, all workers together",
            lambda row: _number(row.metric("throughput/clips_per_second"), ".3g"),
        ),
        Column("videos", "tested videos", lambda row: _number(row.metric("num_videos"), ",.0f")),
        Column(
            "coverage", "share of the listed videos that was tested", lambda row: _number(row.metric("coverage"), ".1%")
        ),
        Column(
            "padded",
            "share of the frames of the test that are made up, because videos are shorter than a clip",
            lambda row: _number(row.metric("padded_share"), ".1%"),
        ),
        Column("seen before", "runs whose weights saw videos of the test before: see the notes", _seen_before),
        Column("GPU-hours", "cost of all its runs", lambda row: _hours(row, "GPU")),
        Column("CPU-hours", "cost of all its runs, if they had no GPUs", lambda row: _hours(row, "CPU")),
    ]
    return [column for column in columns if any(column.cell(row).value is not None for row in comparison.rows)]


def shown(columns: Sequence[Column]) -> list[Column]:
    """The columns for readers."""
    return [column for column in columns if column.is_shown]


def as_lines(comparison: Comparison, columns: Sequence[Column]) -> list[str]:
    """The table for a terminal, and its notes."""
    columns = shown(columns)
    rows = [[column.cell(row).text for column in columns] for row in comparison.rows]
    notes = [f"note: {note}" for note in comparison.notes]
    return [comparison.title, *format_table([column.name for column in columns], rows), *notes]


def as_markdown(comparison: Comparison, columns: Sequence[Column]) -> str:
    """The table in Markdown, with its title and notes."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(" ".join(cell.replace("|", r"\|").split()) for cell in cells) + " |"

    columns = shown(columns)
    header = [line([column.name for column in columns]), line(["---", *["---:"] * (len(columns) - 1)])]
    rows = [line([column.cell(row).text for column in columns]) for row in comparison.rows]
    return "\n".join(
        [f"## {comparison.title}", "", *header, *rows, "", *(f"- {note}" for note in comparison.notes), ""]
    )


def as_csv(comparison: Comparison, columns: Sequence[Column]) -> str:
    """The bare numbers, one line per row, and the values of each seed."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*(column.name for column in columns), "seeds", "values", "run_ids"])
    for row in comparison.rows:
        values = ["" if (value := column.cell(row).value) is None else value for column in columns]
        run_ids = " ".join(each.run.run_id for each in row.runs)
        writer.writerow([*values, " ".join(row.seeds), " ".join(map(repr, row.values)), run_ids])
    return text.getvalue()


def _number(value: float | None, form: str) -> Cell:
    return Cell("-" if value is None else format(value, form), value)


def _end(row: Row, which: int) -> Cell:
    interval = row.interval()
    return _number(None if interval is None else interval[which], ".3f")


def _paper(row: Row, metric: str) -> float | None:
    return None if row.paper is None or metric not in (TESTED, VALIDATED) else row.paper.top1 / 100


def _less_paper(row: Row, metric: str) -> float | None:
    paper = _paper(row, metric)
    return None if paper is None else row.mean - paper


def _seen_before(row: Row) -> Cell:
    runs = [each for each in row.runs if any(SEEN_BEFORE in run.tags for run in (each.run, each.test) if run)]
    return _number(len(runs) or None, "d")


def _hours(row: Row, unit: str) -> Cell:
    hours, of_unit = row.hours()
    return _number(hours if hours and of_unit == unit else None, ".2f")
