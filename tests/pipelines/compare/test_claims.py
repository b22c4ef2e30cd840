"""Claims of results whose truth is known."""

import csv
import io

import numpy as np
import pytest

from pipelines.compare.claims import claims_as_csv, claims_as_lines, claims_as_markdown, make_claims, notes_on
from pipelines.compare.results import ANY_SEED, SourceResult
from t3d_core.errors import UserError

# Row -> how many of 10 videos of each source are right.
ROWS = {
    "random weights, 1 person": (2, 3, 1, 2, 3, 2, 1, 2),
    "contrast, 1 person": (6, 7, 5, 6, 7, 6, 5, 6),
    "pairs, 1 person": (2, 3, 1, 2, 3, 1, 1, 3),
    "random weights, 4 people": (6, 6, 5, 6, 6, 7, 6, 6),
    "contrast, 4 people": (7, 5, 6, 6, 6, 7, 6, 6),
}


def results(rows=ROWS, seeds=("0", "1", "2")):
    return [
        SourceResult(row, "weizmann", str(fold), seed, f"person {fold}", 10, number)
        for row, numbers in rows.items()
        for seed in seeds
        for fold, number in enumerate(numbers)
    ]


def test_each_row_is_compared_with_the_one_that_has_the_reference_in_its_place():
    claims = make_claims(results(), reference="random weights", smallest=0.15)
    assert [(claim.row, claim.reference) for claim in claims] == [
        ("contrast, 1 person", "random weights, 1 person"),
        ("pairs, 1 person", "random weights, 1 person"),
        ("contrast, 4 people", "random weights, 4 people"),
    ]
    assert [round(claim.effect.difference, 3) for claim in claims] == [0.4, 0.0, 0.012]
    assert [claim.verdict for claim in claims] == ["supported", "not supported", "not supported"]
    assert claims[0].effect.num_sources == 8
    # The smallest of three p-values, of which 2 of 2^8 ways to give signs are as extreme.
    assert claims[0].adjusted_p_value == pytest.approx(3 * 2 / 2**8)


def test_a_whole_label_is_the_reference_of_all_other_rows():
    claims = make_claims(results(), reference="random weights, 4 people", smallest=0.05)
    assert [claim.reference for claim in claims] == ["random weights, 4 people"] * 4


def test_a_row_without_seeds_is_compared_with_every_seed():
    rows = results() + results({"shape and length only": (1,) * 8}, seeds=(ANY_SEED,))
    claims = make_claims(rows, reference="shape and length only", smallest=0.05)
    assert {claim.effect.num_seeds for claim in claims} == {3}
    assert claims[1].effect.difference == pytest.approx(0.5)


def test_few_seeds_decide_nothing():
    claims = make_claims(results(seeds=("0", "1")), reference="random weights", smallest=0.15)
    assert {claim.verdict for claim in claims} == {"undecided here"}


def test_sources_count_by_their_videos():
    rows = [
        SourceResult(row, "x", "1", "0", source, number, correct)
        for row, source, number, correct in [("a", "s", 1, 0), ("a", "t", 3, 0), ("b", "s", 1, 1), ("b", "t", 3, 0)]
    ]
    [claim] = make_claims(rows, reference="a", smallest=0.1)
    assert (claim.accuracy, claim.reference_accuracy, claim.effect.difference) == (0.25, 0, 0.25)


def test_a_source_that_several_folds_test_is_one_source():
    rows = [
        SourceResult(row, "x", fold, "0", "s", 2, correct)
        for row, fold, correct in [("a", "1", 0), ("a", "2", 1), ("b", "1", 2), ("b", "2", 1)]
    ]
    [claim] = make_claims(rows, reference="a", smallest=0.1)
    assert (claim.effect.num_sources, claim.effect.difference) == (1, 0.5)


def test_tests_of_other_videos_are_refused():
    rows = [SourceResult(row, "x", "1", "0", "s", number, 1) for row, number in (("a", 10), ("b", 9))]
    with pytest.raises(
        UserError, match="row 'a' was tested on 10 videos of source s of x with seed 0, but others on 9"
    ):
        make_claims(rows, reference="a", smallest=0.1)


def test_notes_name_rows_without_a_reference_and_tables_that_cannot_support_anything():
    lonely = results() + results({"frozen, 2 people": (1,) * 8})
    notes = notes_on(make_claims(lonely, reference="random weights", smallest=0.1), lonely)
    assert "Without a row to compare with: frozen, 2 people." in notes
    assert not any("nothing can be supported" in note for note in notes)
    few = [each for each in results() if int(each.fold) < 5]
    [note] = [
        each for each in notes_on(make_claims(few, reference="random weights", smallest=0.1), few) if "no p" in each
    ]
    assert note.startswith("With 5 sources and 3 comparisons no p can be below 0.188, so nothing can be supported")


def test_missing_tests_and_unknown_references_are_named():
    with pytest.raises(UserError, match="reference 'inflated' is no row, and no part of one: the rows are random"):
        make_claims(results(), reference="inflated", smallest=0.1)
    some = [each for each in results() if (each.row, each.fold) != ("contrast, 1 person", "0")]
    with pytest.raises(
        UserError, match="row 'contrast, 1 person' was not tested on source person 0 of weizmann with seed 0"
    ):
        make_claims(some, reference="random weights", smallest=0.1)


def test_tables_hold_the_same_numbers():
    claims = make_claims(results(), reference="random weights", smallest=0.15)
    lines, markdown = claims_as_lines(claims), claims_as_markdown(claims).splitlines()
    assert len(lines) == 1 + len(claims)
    assert len(markdown) == 2 + len(claims)
    for text in (lines[1], markdown[2]):
        assert all(part in text for part in ("0.600", "0.200", "+0.400", "supported"))
    [first, *_] = csv.DictReader(io.StringIO(claims_as_csv(claims)))
    assert float(first["difference"]) == pytest.approx(0.4)
    assert float(first["low"]) == pytest.approx(claims[0].effect.interval.low)
    assert np.isclose(float(first["adjusted_p_value"]), claims[0].adjusted_p_value)
