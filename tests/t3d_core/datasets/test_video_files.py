"""Files are found by the name that an annotation gives, whatever their folder and extension."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t3d_core.datasets.video_files import VideoFiles, find_twins, interval_name, is_video_name, stem_of


@pytest.mark.parametrize(
    "name", ["a.mp4", "x/y/b.AVI", "c.ts", "d.m2ts", "e.MTS", "f.asf", "g.ogg", "h.ogv", "i.gif", "j.VOB", "k.h264"]
)
def test_streams_camera_files_and_upper_case_are_videos(name):
    assert is_video_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        "README.md",
        "mp4",
        "x.mp4/a.txt",
        "._a.avi",
        "run/._a.avi",
        ".mp4",
        "x.y/.z/a.mp4",
        "run/@eaDir/a.mp4",
    ],
)
def test_other_files_and_hidden_ones_are_no_videos(name):
    assert not is_video_name(name)


@pytest.mark.parametrize(
    ("name", "stem"),
    [("x/a.b.mp4", "a.b"), ("a", "a"), ("x.y/a", "a"), (".a", ".a"), ("-_Q.webm", "-_Q"), ("\udcff.mp4", "\udcff")],
)
def test_a_stem_is_the_name_without_folders_and_last_extension(name, stem):
    assert stem_of(name) == stem


def test_intervals_are_named_as_kinetics_clips_and_keep_parts_of_a_second():
    assert interval_name("-_Qabc", start_seconds=17.0, end_seconds=27.0) == "-_Qabc_000017_000027"
    assert interval_name("x", start_seconds=0.5, end_seconds=1234567.25) == "x_000000.500_1234567.250"


class TestVideoFiles:
    def test_a_file_is_found_in_any_folder_with_any_extension(self):
        files = VideoFiles(["x/y/a.webm", "b.mp4"])
        assert files.find("a", expected="run/a.avi") == "x/y/a.webm"
        assert files.find("c", expected="run/c.avi") is None

    def test_case_counts_unless_told_otherwise(self):
        names = ["HandStand.avi"]
        assert VideoFiles(names).find("Handstand", expected="x") is None
        assert VideoFiles(names, is_case_sensitive=False).find("Handstand", expected="x") == "HandStand.avi"

    @pytest.mark.parametrize("name", ["x/a", "x/a.clip", "x/a.dat", "x/a.gif"])
    def test_a_file_of_another_extension_or_of_none_is_found_where_no_video_is(self, name):
        assert VideoFiles([name]).find("a", expected="run/a.avi") == name
        assert VideoFiles([name, "y/a.mp4"]).find("a", expected="run/a.avi") == "y/a.mp4"

    def test_a_point_may_belong_to_the_name_of_a_file_without_extension(self):
        assert VideoFiles(["x_000000.500_000001.500"]).find("x_000000.500_000001.500", expected="") is not None

    def test_texts_and_pictures_beside_a_missing_video_are_not_taken_for_it(self):
        assert VideoFiles(["a.json", "a.jpg", "a.mp4.part", "a.txt"]).find("a", expected="a.mp4") is None
        assert VideoFiles(["a.x", "a.y"]).find("a", expected="a.mp4") is None

    def test_what_was_left_behind_is_not_taken(self):
        assert VideoFiles([".Trash-1000/a.mp4", "x/@eaDir/a.mp4"]).find("a", expected="a.mp4") is None

    def test_a_stem_is_found_in_either_unicode_form(self):
        files = VideoFiles(["v/cafe\u0301.mp4"])
        assert files.find("caf\u00e9", expected="run/caf\u00e9.mp4") == "v/cafe\u0301.mp4"
        both = VideoFiles(["run/cafe\u0301.mp4", "run/caf\u00e9.mp4"])
        with pytest.raises(ValueError, match="2 files are named"):
            both.find("caf\u00e9", expected="run/caf\u00e9.mp4")

    @pytest.mark.parametrize("names", [("run/a.avi", "b/a.mp4", "a.mp4"), ("a.mp4", "b/a.mp4", "run/a.avi")])
    def test_of_several_files_the_expected_one_is_taken(self, names):
        assert VideoFiles(names).find("a", expected="run/a.avi") == "run/a.avi"

    def test_several_files_of_which_none_is_expected_are_refused_by_name(self):
        files = VideoFiles(["x/a.mp4", "y/a.mp4", "b.mp4"])
        assert files.find("b", expected="run/b.avi") == "b.mp4"
        with pytest.raises(ValueError, match=r"2 files are named 'a', among them 'x/a\.mp4' and 'y/a\.mp4'"):
            files.find("a", expected="run/a.avi")

    @given(st.sets(st.text(st.characters(exclude_characters="/"), min_size=1), max_size=20))
    def test_every_file_of_a_name_of_its_own_is_found_by_its_stem(self, stems):
        stems = {unicodedata.normalize("NFC", stem) for stem in stems if not stem.startswith((".", "~$"))}
        names = {stem: f"some.where/{stem}.mp4" for stem in stems}
        files = VideoFiles(names.values())
        assert {stem: files.find(stem, expected="") for stem in stems} == names


def test_files_that_differ_in_extension_only_are_twins():
    names = ["run/a.mp4", "jump/a.mp4", "run/b.mp4", "run/a.GIF", "run/a.avi"]
    assert find_twins(names) == [("run/a.mp4", "run/a.GIF"), ("run/a.mp4", "run/a.avi")]
    assert find_twins(["run/a.mp4", "jump/a.mp4"]) == []
