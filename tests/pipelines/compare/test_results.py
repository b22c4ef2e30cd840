"""Results of tests survive as text."""

import pytest

from pipelines.compare.results import SourceResult, as_results_csv, count_by_source, read_results
from t3d_core.errors import UserError

RESULTS = [
    *count_by_source("pairs, 1 person", "weizmann", "2", "0", ["daria", "ido", "ido"], [True, False, True]),
    *count_by_source("pairs, 1 person", "weizmann", "2", "1", ["daria", "ido", "ido"], [False, False, False]),
]


def test_videos_are_counted_by_their_source():
    assert RESULTS[:2] == [
        SourceResult("pairs, 1 person", "weizmann", "2", "0", "daria", 1, 1),
        SourceResult("pairs, 1 person", "weizmann", "2", "0", "ido", 2, 1),
    ]
    assert [each.num_correct for each in RESULTS[2:]] == [0, 0]


def test_what_was_written_is_read_from_one_file_or_several(tmp_path):
    whole, *halves = (tmp_path / name for name in ("whole.csv", "first.csv", "second.csv"))
    for path, some in ((whole, RESULTS), (halves[0], RESULTS[:1]), (halves[1], RESULTS[1:])):
        path.write_text(as_results_csv(some))
    assert read_results([whole]) == read_results(halves) == RESULTS
    with pytest.raises(UserError, match=r"have row 'pairs, 1 person' of weizmann, fold 2, seed 0, source daria twice"):
        read_results([whole, halves[0]])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"row,n\na,1\n", r"has the columns \['row', 'n'\], not .*: give the results.csv that jobs/compare.py wrote"),
        (b"\xff\xfe", "cannot be read"),
        (None, "cannot be read: .*No such file"),
        (b"row,dataset,fold,seed,source,num_videos,num_correct\na,x,1,0,s,10\n", "cannot be read"),
    ],
)
def test_another_file_is_refused(tmp_path, content, expected):
    path = tmp_path / "table.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=expected):
        read_results([path])
