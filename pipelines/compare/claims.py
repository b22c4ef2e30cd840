"""Results become claims: each row against its reference, over the sources of all data sets, with a verdict.

OUTPUT/claims.md, claims.csv     the table for people, and its bare numbers; claims.png is drawn by `claims_plot`

Legend: S sources, R seeds.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pipelines.compare.results import ANY_SEED, SourceResult
from pipelines.runtime.text_table import format_table
from t3d_core.errors import UserError
from t3d_core.evaluation.effects import Effect, Verdict, effect_of, verdict_of
from t3d_core.evaluation.paired_test import holm_adjusted

_MOST_P = 0.05
_COLUMNS = ("row", "top-1", "reference", "top-1", "difference", "95 % from", "to", "p (Holm)", "sources", "seeds")
_Source = tuple[str, str]  # data set, source
_Accuracies = Mapping[tuple[_Source, str], tuple[int, int]]  # source and seed -> videos, and how many are right


class Claim(NamedTuple):
    """A row against its reference.

    Attributes:
        row: its label.
        accuracy: over the videos of all sources and seeds.
        reference: label of the row that it is compared with.
        reference_accuracy: of that row.
        effect: the difference.
        adjusted_p_value: over all claims of the table (`holm_adjusted`).
        verdict: on "row is better than reference".
    """

    row: str
    accuracy: float
    reference: str
    reference_accuracy: float
    effect: Effect
    adjusted_p_value: float
    verdict: Verdict


def make_claims(results: Sequence[SourceResult], *, reference: str, smallest: float) -> list[Claim]:
    """Compare each row with its reference, on the same sources and seeds.

    Args:
        results: of all rows.
        reference: label of a row; or a part of labels, such as `random weights` of `random weights, 1 person`: each row
            is then compared with the row that has this part in place of one of its own.
        smallest: the least difference that anybody would care for, by which `not supported` is decided.

    Raises:
        UserError: no row is or has this reference, or rows were tested on other sources or seeds.
    """
    rows = _rows_of(results)
    pairs = [(label, found) for label in rows if (found := _reference_of(label, reference, rows)) is not None]
    if not pairs:
        raise UserError(f"reference {reference!r} is no row, and no part of one: the rows are {'; '.join(rows)}")
    compared = [_compare(label, rows[label], of, rows[of]) for label, of in pairs]
    adjusted_R = holm_adjusted(np.array([effect.p_value for _, _, effect in compared]))
    return [
        Claim(
            label,
            accuracy,
            of,
            accuracy_of_reference,
            effect,
            float(adjusted),
            verdict_of(effect, adjusted_p_value=float(adjusted), smallest=smallest),
        )
        for (label, of), (accuracy, accuracy_of_reference, effect), adjusted in zip(
            pairs, compared, adjusted_R, strict=True
        )
    ]


def notes_on(claims: Sequence[Claim], results: Sequence[SourceResult]) -> list[str]:
    """What the reader must know of the table: rows without a reference, and p-values that cannot be small."""
    notes = ["Differences are of all videos together, the mean over seeds; p is by the signs of sources (Holm)."]
    known = {label for claim in claims for label in (claim.row, claim.reference)}
    if without := sorted({each.row for each in results} - known):
        notes.append(f"Without a row to compare with: {'; '.join(without)}.")
    most_sources = max((claim.effect.num_sources for claim in claims), default=0)
    if (smallest := len(claims) * 2.0 ** (1 - most_sources)) >= _MOST_P:
        notes.append(
            f"With {most_sources} sources and {len(claims)} comparisons no p can be below {min(smallest, 1):.3f}, so "
            "nothing can be supported: add the results of other data sets."
        )
    return notes


def _rows_of(results: Sequence[SourceResult]) -> dict[str, dict[tuple[_Source, str], tuple[int, int]]]:
    """Label -> the tests of the row; a source that several folds test is one source."""
    rows: dict[str, dict[tuple[_Source, str], tuple[int, int]]] = {}
    for each in results:
        tests, key = rows.setdefault(each.row, {}), ((each.dataset, each.source), each.seed)
        num_videos, num_correct = tests.get(key, (0, 0))
        tests[key] = (num_videos + each.num_videos, num_correct + each.num_correct)
    return rows


def _reference_of(label: str, reference: str, labels: Iterable[str]) -> str | None:
    if reference in labels:
        return None if label == reference else reference
    parts = label.split(", ")
    if reference in parts:
        return None
    swapped = (", ".join([*parts[:place], reference, *parts[place + 1 :]]) for place in range(len(parts)))
    return next((each for each in swapped if each in labels), None)


def _compare(label: str, row: _Accuracies, of: str, reference: _Accuracies) -> tuple[float, float, Effect]:
    seeds = sorted({seed for _, seed in (*row, *reference)} - {ANY_SEED}) or [ANY_SEED]
    sources = sorted({source for source, _ in (*row, *reference)})
    num_videos_S = np.zeros(len(sources), np.int64)
    accuracy_2SR = np.zeros((2, len(sources), len(seeds)))
    for which, (name, tests) in enumerate(((label, row), (of, reference))):
        for place, source in enumerate(sources):
            for column, seed in enumerate(seeds):
                found = tests.get((source, seed)) or tests.get((source, ANY_SEED))
                if found is None:
                    raise UserError(
                        f"row {name!r} was not tested on source {source[1]} of {source[0]} with seed {seed}, as "
                        f"{of if which == 0 else label!r} was: add the results that are missing"
                    )
                if num_videos_S[place] not in (0, found[0]):
                    raise UserError(
                        f"row {name!r} was tested on {found[0]} videos of source {source[1]} of {source[0]} with seed "
                        f"{seed}, but others on {num_videos_S[place]}: compare tests of the same videos"
                    )
                num_videos_S[place], accuracy_2SR[which, place, column] = found[0], found[1] / found[0]
    means = np.average(accuracy_2SR.mean(axis=2), axis=1, weights=num_videos_S)
    effect = effect_of(accuracy_2SR[0] - accuracy_2SR[1], num_videos_S)
    return float(means[0]), float(means[1]), effect


def _cells(claim: Claim) -> list[str]:
    effect = claim.effect
    return [
        claim.row,
        f"{claim.accuracy:.3f}",
        claim.reference,
        f"{claim.reference_accuracy:.3f}",
        f"{effect.difference:+.3f}",
        f"{effect.interval.low:+.3f}",
        f"{effect.interval.high:+.3f}",
        f"{claim.adjusted_p_value:.3f}",
        str(effect.num_sources),
        str(effect.num_seeds),
        claim.verdict,
    ]


def claims_as_lines(claims: Sequence[Claim]) -> list[str]:
    """The table for a terminal."""
    return format_table([*_COLUMNS, "is it better?"], [_cells(claim) for claim in claims])


def claims_as_markdown(claims: Sequence[Claim]) -> str:
    """The table in Markdown."""
    lines = [[*_COLUMNS, "is it better?"], ["---"] * (len(_COLUMNS) + 1), *map(_cells, claims)]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |" for cells in lines) + "\n"


def claims_as_csv(claims: Sequence[Claim]) -> str:
    """The bare numbers."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    effect = [name for name in Effect._fields if name != "interval"]
    writer.writerow([*(name for name in Claim._fields if name != "effect"), *effect, "low", "high"])
    for claim in claims:
        values = claim._asdict()
        of_effect = values.pop("effect")._asdict()
        writer.writerow([*values.values(), *(of_effect[name] for name in effect), *of_effect["interval"]])
    return text.getvalue()
