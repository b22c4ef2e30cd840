"""What listed paths without a file say about the list."""

import os

import pytest

from t3d_core.datasets.missing_videos import describe_none_found, find_near_misses, notes_on_missing


@pytest.mark.parametrize(
    ("missing", "name"), [("v/c", "v/c.mp4"), ("v/c.avi", "v/c.mp4"), ("V/C.mp4", "v/c.mp4"), ("v/c", "v/c")]
)
def test_a_file_that_differs_in_extension_or_letter_case_is_near(missing, name):
    assert find_near_misses([missing, "x.mp4"], file_names=["other.mp4", name]) == [(missing, name)]


def test_other_files_are_not_near():
    assert find_near_misses(["v/c.mp4"], file_names=["w/c.mp4", "v/d.mp4"]) == []
    assert find_near_misses([], file_names=["v/c.mp4"]) == []


def test_every_kind_is_one_line_with_the_first_and_the_number_of_others():
    odd = os.fsdecode(b"\xe9.mp4")
    missing = [odd, "v/c", "v/d", "v/e", "x.mp4"]
    undecodable, near = notes_on_missing(missing, file_names=["v/c.mp4", "v/d.mp4", "v/e.mp4"])
    assert undecodable.startswith(r"'\xe9.mp4' is missing, and is not UTF-8: save the CSV as UTF-8")
    assert near.startswith("'v/c' is missing, but there is 'v/c.mp4' (and 2 more): write names with their extension")
    assert notes_on_missing(["x.mp4"], file_names=["y.mp4"]) == ()


def test_that_nothing_is_found_is_one_error_with_what_is_known():
    about = {"num_listed": 2, "name": "mine", "root": "/data", "first": "'a'", "holds": "1 .mp4"}
    message = describe_none_found(["a", "b"], file_names=["b.mp4"], **about)
    assert message.startswith("not one of the 2 listed videos of mine is below root '/data' (the first would be 'a', ")
    assert "while the root holds 1 .mp4): 'b' is missing, but there is 'b.mp4'" in message
    assert describe_none_found(["a"], file_names=[], **about).endswith(
        ": give the folder that the listed paths start from as root"
    )
