"""Notes below a table: how its runs differ from the paper's and from each other, and what is left out."""

from collections.abc import Iterator, Sequence

from pipelines.compare.measured import PAPERS_WAY_OF_TESTING, differing_settings
from pipelines.compare.paper_tables import PaperTable
from pipelines.compare.rows import Row
from pipelines.tracking.recorded import SEEN_BEFORE, RecordedRun
from pipelines.tracking.runs import REASON
from pipelines.transfer.config import PAIRS, PROBED


def differences_from_paper(rows: Sequence[Row], table: PaperTable) -> list[str]:
    """How the runs differ from the paper's, so that nobody takes a miniature for a reproduction."""
    of_rows = [list(_differences_of_row(row, table)) for row in rows]
    common = [text for text in of_rows[0] if all(text in texts for texts in of_rows)]
    notes = [f"Not the paper's experiment: {'; '.join(common)}."] if common else []
    for row, texts in zip(rows, of_rows, strict=True):
        if own := [text for text in texts if text not in common]:
            notes.append(f"{row.label}{' also' if common else ''} differs from the paper: {'; '.join(own)}.")
    if notes:
        notes.append("The paper's figures are only for orientation.")
    return [*notes, *([table.note] if table.note else ())]


def left_out(
    chosen: Sequence[RecordedRun], ended: Sequence[RecordedRun], *, num_without: int, metric: str, num_older: int
) -> list[str]:
    """Which of the chosen runs are in no row, and why."""
    notes = []
    for run in chosen:
        if run.status != "FINISHED":
            reason = run.tags.get(REASON, "no reason was recorded")
            notes.append(f"{run.name} is {run.status} and is not compared: {reason}")
    if len(notes) > 5:
        notes = [*notes[:5], f"... and {len(notes) - 5} more runs that did not end"]
    if num_without:
        cure = f"give them a probe, or compare by --metric {PAIRS}" if metric == PROBED else "test them first"
        notes.append(f"{num_without} of {len(ended)} runs have no {metric} and are not compared: {cure}")
    if num_older:
        notes.append(f"{num_older} older runs are left out: a newer run has the same settings, seed and fold")
    return notes


def seen_before(rows: Sequence[Row]) -> list[str]:
    """The warnings of runs and tests whose weights saw videos of the test before."""
    notes = []
    for row in rows:
        runs = [
            run for each in row.runs for run in (each.test, each.run) if run is not None and SEEN_BEFORE in run.tags
        ]
        notes += [f"WARNING, {row.label}: {text}." for text in dict.fromkeys(run.tags[SEEN_BEFORE] for run in runs)]
    return notes


def fixed_rows(rows: Sequence[Row]) -> list[str]:
    """Which rows are the same for every seed, and how they were tested."""
    labels = [row.label for row in rows if row.is_baseline]
    if not labels:
        return []
    return [
        f"No network was trained for {'; '.join(labels)}: these rows follow from no seed, so each is compared with "
        "every seed of the others. They see a video as a whole, not in clips."
    ]


def unevenness(rows: Sequence[Row]) -> list[str]:
    """Differences between rows, and between the runs of a row, that the table is not about."""
    notes = []
    trained = [row for row in rows if not row.is_baseline]
    if len({row.seeds for row in trained}) > 1:
        seeds = "; ".join(f"{row.label}: {', '.join(row.seeds)}" for row in trained)
        notes.append(f"Rows have different seeds ({seeds}).")
    if any(len(row.values) < 3 for row in trained):
        notes.append("Fewer than three seeds: the spread is uncertain, and a difference may be chance.")
    for row in rows:
        if differing := [name for name in differing_settings(row.runs) if name != "dataset"]:
            notes.append(f"Runs of {row.label} differ in {', '.join(differing)}.")
    if any("population" in row.runs[0].settings for row in rows):
        notes.append("Rows of a population based search are named after the settings with which their trials began.")
    if len({row.folds for row in rows}) > 1:
        folds = "; ".join(f"{row.label}: {', '.join(row.folds)}" for row in rows)
        notes.append(f"Rows are means over different folds ({folds}).")
    return notes


def _differences_of_row(row: Row, table: PaperTable) -> Iterator[str]:
    first = row.runs[0]
    if row.paper is None:
        yield "the paper has no such row"
        return
    wanted = table.dataset or row.paper.match["dataset"]
    if first.facts["dataset"] != wanted:
        yield f"data {first.facts['dataset']} (paper: {table.data})"
    if table.folds and row.folds != table.folds:
        yield f"folds {', '.join(row.folds)} (paper: {', '.join(table.folds)})"
    settings = table.settings(row.paper)
    kind = settings.pop("model.kind")
    if first.facts["model"] != kind:
        yield f"network {first.facts['model']} (paper: {kind})"
        settings = {name: value for name, value in settings.items() if not name.startswith("model.")}
    for name, value in settings.items():
        ours = sorted({each.run.params[name] for each in row.runs if name in each.run.params})
        if ours and ours != [value]:
            yield f"{name} {', '.join(ours)} (paper: {value})"
    tests = [each.test for each in row.runs if each.test is not None]
    if not tests:
        yield "validated on middle clips (paper: tested on all clips of a video)"
        return
    for name, value in PAPERS_WAY_OF_TESTING.items():
        ours = sorted({test.params[name] for test in tests if name in test.params})
        if ours and ours != [value]:
            yield f"tested with {name.rpartition('.')[2]} {', '.join(ours)} (paper: {value.replace('None', 'all')})"
    if (coverage := min(test.metrics.get("coverage", 1.0) for test in tests)) < 1:
        yield f"{coverage:.1%} of the listed videos (paper: all)"
