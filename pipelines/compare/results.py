"""What tests say, source by source: small enough to be kept, and enough to make tables of it again without MLflow.

results.csv     row,dataset,fold,seed,source,num_videos,num_correct

A row that follows from no seed, because no network was trained, has seed `-`.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from t3d_core.errors import UserError

ANY_SEED = "-"


class SourceResult(NamedTuple):
    """The videos of one source that were tested in one fold with one seed of a row, and how many were right."""

    row: str
    dataset: str
    fold: str
    seed: str
    source: str
    num_videos: int
    num_correct: int


def count_by_source(
    row: str, dataset: str, fold: str, seed: str, source_V: Sequence[str], is_correct_V: Sequence[bool]
) -> list[SourceResult]:
    """The results of one test, from the source of each video and whether it was right."""
    num_videos = Counter(source_V)
    num_correct = Counter(source for source, is_correct in zip(source_V, is_correct_V, strict=True) if is_correct)
    return [
        SourceResult(row, dataset, fold, seed, source, number, num_correct[source])
        for source, number in sorted(num_videos.items())
    ]


def as_results_csv(results: Iterable[SourceResult]) -> str:
    """The text of results.csv."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(SourceResult._fields)
    writer.writerows(results)
    return text.getvalue()


def read_results(paths: Sequence[Path]) -> list[SourceResult]:
    """Read files that `compare` wrote, one after the other.

    Raises:
        UserError: a file cannot be read, or is none of these; or a test is in them twice.
    """
    results = [result for path in paths for result in _read_file(path)]
    seen = Counter(result[:5] for result in results)
    if twice := [key for key, number in seen.items() if number > 1]:
        row, dataset, fold, seed, source = twice[0]
        raise UserError(
            f"results {[str(path) for path in paths]} have row {row!r} of {dataset}, fold {fold}, seed {seed}, source "
            f"{source} twice: name each file once, and none that holds another's tests"
        )
    return results


def _read_file(path: Path) -> list[SourceResult]:
    try:
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != SourceResult._fields:
                raise UserError(
                    f"results {path} has the columns {reader.fieldnames}, not {list(SourceResult._fields)}: give the "
                    "results.csv that jobs/compare.py wrote"
                )
            return [
                SourceResult(row, dataset, fold, seed, source, int(num_videos), int(num_correct))
                for row, dataset, fold, seed, source, num_videos, num_correct in (line.values() for line in reader)
                if int(num_videos) > 0
            ]
    except (OSError, TypeError, ValueError, csv.Error) as error:
        raise UserError(f"results {path} cannot be read: {error}") from error
