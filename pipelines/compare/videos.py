"""Two rows of a table, tested with the same seeds on the same videos, become a difference and its p-value."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.compare.reference import Reference
from pipelines.compare.results import ANY_SEED, SourceResult, count_by_source
from pipelines.compare.rows import Row
from pipelines.tracking.recorded import RecordedRun, fetch_artifact
from t3d_core.evaluation.paired_test import holm_adjusted, sign_flip_p_values

_SCORES = "scores.parquet"
_MAX_LISTED = 5
_TestedVideo = tuple[str, str]  # fold and video_id: a video may be tested in several folds, by other networks


class PairedDifference(NamedTuple):
    """How much more often one row is right than the reference, over the same videos.

    Attributes:
        difference: of accuracies, each the mean over seeds and folds.
        p_value: two-sided, by the signs of sources (`sign_flip_p_values`): it covers the choice of sources, but not the
            choice of seeds. None where scores have no sources.
        adjusted_p_value: the same, adjusted over all p-values of the table (`holm_adjusted`).
    """

    difference: float
    p_value: float | None = None
    adjusted_p_value: float | None = None


@dataclass(frozen=True)
class Paired:
    """What the tests of rows say together.

    Attributes:
        differences: label of a row -> its difference from the reference.
        notes: how differences were found.
        results: of all tests that name the sources of their videos.
    """

    differences: Mapping[str, PairedDifference] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    results: tuple[SourceResult, ...] = ()


@dataclass(frozen=True)
class _Tests:
    """What the tests of a row say, video by video.

    Attributes:
        num_of: tests of each video.
        num_seeds: networks that were tested on each.
        share_of: what each video contributes to the row's accuracy; the sum is that accuracy.
        source_of: source of each video; None if tests do not name them.
        results: the same, source by source; empty if tests do not name them.
    """

    num_of: Counter[_TestedVideo]
    num_seeds: int
    share_of: Mapping[_TestedVideo, float]
    source_of: Mapping[_TestedVideo, str] | None
    results: Sequence[SourceResult]


def paired_differences(rows: Sequence[Row], reference: Reference, *, tracking_uri: str) -> Paired:
    """Compare rows with the reference, video by video.

    Rows that were not tested, or have other seeds, folds or videos than the reference, are left out. A baseline is as
    it is for every seed, so it has the seeds of any row. Scores without
    sources, as `evaluate` wrote them once, give a difference without a p-value.
    """
    [own] = [row for row in rows if row.label == reference.label]
    others = [row for row in rows if row is not own and any(each.test for each in row.runs)]
    of_own = _read_tests(own, tracking_uri)
    results = [] if of_own is None else [*of_own.results]
    differences: dict[str, PairedDifference] = {}
    difference_of: dict[str, np.ndarray] = {}
    for row in others:
        # One row after another, because hundreds of rows of thousands of videos would fill the memory.
        tests = _read_tests(row, tracking_uri)
        if tests is None:
            continue
        results += tests.results
        has_seeds = row.seeds == own.seeds or row.is_baseline or own.is_baseline
        if of_own is None or not has_seeds or row.folds != own.folds or not _are_of_same_videos(tests, of_own):
            continue
        differences[row.label] = PairedDifference(sum(tests.share_of.values()) - sum(of_own.share_of.values()))
        if tests.source_of and of_own.source_of:
            difference_of[row.label] = _by_source(tests, of_own)
    if difference_of:
        p_value_R = sign_flip_p_values(np.stack([*difference_of.values()]))
        for label, p_value, adjusted in zip(difference_of, p_value_R, holm_adjusted(p_value_R), strict=True):
            differences[label] = PairedDifference(differences[label].difference, float(p_value), float(adjusted))
    if of_own is None:
        note = f"There are no differences from {own.label}, because it has no scores of videos."
        return Paired(notes=(note,) if others else (), results=tuple(results))
    return Paired(differences, tuple(_notes(rows, reference, differences, of_own)), tuple(results))


def _are_of_same_videos(tests: _Tests, others: _Tests) -> bool:
    has_same_sources = tests.source_of is None or others.source_of is None or tests.source_of == others.source_of
    # As often for each seed.
    num_of, num_of_others = (
        {video: num * seeds for video, num in each.num_of.items()}
        for each, seeds in ((tests, others.num_seeds), (others, tests.num_seeds))
    )
    return num_of == num_of_others and has_same_sources


def _by_source(tests: _Tests, reference: _Tests) -> np.ndarray:
    """The difference from the reference that the videos of each source contribute (S,), in an order of names."""
    assert reference.source_of is not None, "rows without sources are left out"
    difference_of: dict[str, float] = defaultdict(float)
    for video, source in reference.source_of.items():
        difference_of[source] += tests.share_of[video] - reference.share_of[video]
    return np.array([difference_of[source] for source in sorted(difference_of)])


def _notes(
    rows: Sequence[Row], reference: Reference, differences: Mapping[str, PairedDifference], of_reference: _Tests
) -> list[str]:
    """What differences and p-values are of, and which are missing."""
    notes = [f"Differences are from {reference.label}, {reference.reason}."] if differences else []
    num_tested = sum(each.p_value is not None for each in differences.values())
    if num_tested and of_reference.source_of:
        num_sources = len({*of_reference.source_of.values()})
        notes.append(
            f"p is by the signs of {num_sources:,} source videos, adjusted for {num_tested} "
            f"comparison{'s' if num_tested > 1 else ''} (Holm). It covers the choice of videos, not of seeds."
        )
    if unlike := [row.label for row in rows if row.label not in {reference.label, *differences}]:
        notes.append(
            f"Not tested with the seeds and on the videos of {reference.label}: {_listed(unlike)}. --reference "
            "compares with one of them instead."
        )
    if without := [label for label, each in differences.items() if each.p_value is None]:
        notes.append(
            f"No p for {_listed(without)}: these scores, or those of {reference.label}, do not name the sources of "
            "their videos, because an earlier version wrote them: test again with jobs/evaluate.py."
        )
    return notes


def _listed(labels: Sequence[str]) -> str:
    more = f"; ... and {len(labels) - _MAX_LISTED} more" if len(labels) > _MAX_LISTED else ""
    return "; ".join(labels[:_MAX_LISTED]) + more


def _read_tests(row: Row, tracking_uri: str) -> _Tests | None:
    """The tests of a row's runs; None if a run has no scores."""
    num_of: Counter[_TestedVideo] = Counter()
    share_of: dict[_TestedVideo, float] = defaultdict(float)
    source_of: dict[_TestedVideo, str] = {}
    results: list[SourceResult] = []
    for each in row.runs:
        scores = None if each.test is None else _read_scores(tracking_uri, each.test)
        if scores is None:
            return None
        fold = each.run.params.get("data.fold", "1")
        videos = [(fold, video_id) for video_id in scores.video_id_V]
        num_of.update(videos)
        for video, is_correct in zip(videos, scores.is_correct_V, strict=True):
            share_of[video] += is_correct / len(videos) / len(row.runs)
        if scores.source_V is not None:
            source_of.update(zip(videos, scores.source_V, strict=True))
            seed = ANY_SEED if row.is_baseline else each.run.params.get("seed", "0")
            dataset = " + ".join(each.run.datasets)
            if not row.is_baseline or all(result.fold != fold for result in results):  # its seeds say the same
                results += count_by_source(row.label, dataset, fold, seed, scores.source_V, scores.is_correct_V)
    if len(source_of) < len(num_of):
        return _Tests(num_of, len(row.seeds), share_of, None, ())
    return _Tests(num_of, len(row.seeds), share_of, source_of, results)


class _Scores(NamedTuple):
    video_id_V: Sequence[str]
    is_correct_V: Sequence[bool]
    source_V: Sequence[str] | None


def _read_scores(tracking_uri: str, test: RecordedRun) -> _Scores | None:
    path = fetch_artifact(tracking_uri, test, _SCORES)
    if path is None:
        return None
    known = pq.read_schema(path).names
    wanted = ["video_id", "label", "predicted", *(["source"] if "source" in known else [])]
    table = pq.read_table(path, columns=wanted)
    is_correct = pc.equal(table.column("label"), table.column("predicted"))
    source_V = table.column("source").to_pylist() if "source" in known else None
    return _Scores(table.column("video_id").to_pylist(), is_correct.to_pylist(), source_V)
