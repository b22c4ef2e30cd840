"""A CSV names files relative to the root or to its own folder, or in full."""

import os
from pathlib import Path, PurePosixPath

import pytest

from t3d_core.datasets.listed_paths import FoundPath, ListedPathParser, find_listed, path_below
from t3d_core.datasets.video_files import FilesByPath


def find(paths, *, names, annotations, root, look_up=None):
    files = FilesByPath(names, look_up=look_up)
    parser = ListedPathParser(str(root), files=files)
    listed = [parser.parse(path, where="line 2") for path in paths]
    found = find_listed(listed, annotations=Path(annotations), root=str(root), files=files)
    return [place and place.file_name for place in found]


class TestPathBelow:
    def test_a_root_inside_the_folder_is_a_path_below_it_and_another_root_is_none(self, tmp_path):
        (tmp_path / "data/mine").mkdir(parents=True)
        assert path_below(tmp_path / "data/mine", folder=tmp_path / "data") == PurePosixPath("mine")
        assert path_below(tmp_path / "data", folder=tmp_path / "data") == PurePosixPath()
        assert path_below(tmp_path / "data", folder=tmp_path / "lists") is None

    def test_a_root_that_is_a_link_lies_where_the_link_is(self, tmp_path):
        for name in ("disk", "data"):
            (tmp_path / name).mkdir()
        (tmp_path / "data/mine").symlink_to(tmp_path / "disk")
        assert path_below(tmp_path / "data/mine", folder=tmp_path / "data") == PurePosixPath("mine")

    def test_a_relative_root_is_one_of_the_working_folder(self, tmp_path, monkeypatch):
        (tmp_path / "mine").mkdir()
        monkeypatch.chdir(tmp_path)
        assert path_below(Path("mine"), folder=tmp_path) == PurePosixPath("mine")


class TestParser:
    def parse(self, path, *, root="/data/videos", names=()):
        return ListedPathParser(root, files=FilesByPath(names)).parse(path, where="line 2")

    @pytest.mark.parametrize(
        ("root", "path"),
        [
            ("/data/videos", "/data/videos/run/a.mp4"),
            ("/data/videos/", "/data/videos//run/./a.mp4"),
            ("/data/videos", "file:///data/videos/run/a.mp4"),
            ("s3://bucket/videos?region=eu", "s3://bucket/videos/run/a.mp4"),
        ],
    )
    def test_full_paths_below_the_root_are_read(self, root, path):
        assert self.parse(path, root=root) == ("run/a.mp4", True)

    def test_a_home_folder_and_a_linked_root_are_below_the_root_too(self, tmp_path, monkeypatch):
        (tmp_path / "disk").mkdir()
        (tmp_path / "videos").symlink_to(tmp_path / "disk")
        monkeypatch.setenv("HOME", str(tmp_path))
        for path in ("~/videos/a.mp4", f"{tmp_path}/disk/a.mp4"):
            assert self.parse(path, root=str(tmp_path / "videos")) == ("a.mp4", True)

    def test_backslashes_separate_folders_unless_a_file_has_the_name(self):
        assert self.parse(r".\run\a.mp4").path == "run/a.mp4"
        assert self.parse(r"run\a.mp4", names=[r"run\a.mp4"]).path == r"run\a.mp4"

    @pytest.mark.parametrize(
        "path",
        [
            *("", "./", "/etc/passwd", "/data/videos2/a.mp4", "../a.mp4", "x/../../a.mp4", r"C:\videos\a.mp4"),
            *("a\0.mp4", "s3://other/a.mp4", "/data/videos/../a.mp4"),
        ],
    )
    def test_paths_that_lead_out_of_the_root_are_refused_with_the_root(self, path):
        with pytest.raises(ValueError, match=r"line 2: path .* must lead to a file below the root '/data/videos'"):
            self.parse(path)


# The CSV lies above the root, or below it.
ABOVE = {"annotations": "/data/index.csv", "root": "/data/mine"}
BELOW = {"annotations": "/data/mine/lists/index.csv", "root": "/data/mine"}


class TestWayOfReading:
    def test_paths_relative_to_the_folder_above_the_root(self):
        assert find(["mine/a.mp4", "other/b.mp4"], names=["a.mp4"], **ABOVE) == ["a.mp4", None]

    def test_paths_relative_to_the_root_although_the_csv_lies_above(self):
        assert find(["run/a.mp4"], names=["run/a.mp4"], **ABOVE) == ["run/a.mp4"]

    def test_paths_relative_to_a_folder_below_the_root(self):
        assert find(["a.mp4"], names=["lists/a.mp4"], **BELOW) == ["lists/a.mp4"]
        assert find(["run/a.mp4"], names=["run/a.mp4"], **BELOW) == ["run/a.mp4"]

    def test_what_is_missing_in_the_way_that_finds_files_stays_missing(self):
        paths = ["mine/a.mp4", "mine/b.mp4", "mine/missing.mp4"]
        assert find(paths, names=["a.mp4", "b.mp4"], **ABOVE) == ["a.mp4", "b.mp4", "missing.mp4"]

    @pytest.mark.parametrize("paths", [["mine/a.mp4", "b.mp4", "c.mp4"], ["mine/a.mp4", "mine/b.mp4", "c.mp4"]])
    def test_rows_of_both_ways_are_refused_with_their_numbers(self, paths):
        with pytest.raises(ValueError, match=r"mixes two ways.*: write all of them in one way, or in full") as caught:
            find([*paths, "/data/mine/d.mp4"], names=["a.mp4", "b.mp4", "c.mp4", "d.mp4"], **ABOVE)
        num_folder = sum(path.startswith("mine/") for path in paths)
        assert f"the root only: {3 - num_folder}, below the CSV's own folder only: {num_folder};" in str(caught.value)
        assert "move the CSV" not in str(caught.value)

    def test_the_rarer_way_is_shown_in_both_places(self):
        with pytest.raises(ValueError, match=r"as '/data/mine/c\.mp4' and '/data/mine/lists/c\.mp4'"):
            find(["a.mp4", "b.mp4", "c.mp4"], names=["lists/a.mp4", "lists/b.mp4", "c.mp4"], **BELOW)

    @pytest.mark.parametrize(
        "paths", [["mine/a.mp4"], ["mine/a.mp4", "mine/b.mp4", "/data/mine/c.mp4", "mine/missing"]]
    )
    def test_rows_that_may_mean_either_file_are_refused_with_both_paths(self, paths):
        message = r"can be read in two ways.*'/data/mine/mine/a\.mp4' and '/data/mine/a\.mp4'.*write full paths"
        with pytest.raises(ValueError, match=message):
            find(paths, names=["a.mp4", "mine/a.mp4", "b.mp4", "c.mp4"], **ABOVE)

    @pytest.mark.parametrize("folder", ["", "lists/"])
    def test_a_few_names_that_are_in_both_by_chance_do_not_matter(self, folder):
        names = ["x0.mp4", "lists/x0.mp4", *(f"{folder}x{i}.mp4" for i in range(1, 9))]
        paths = [f"x{i}.mp4" for i in range(10)]
        assert find(paths, names=names, **BELOW) == [f"{folder}{path}" for path in paths]

    def test_none_in_both_is_refused_with_both_paths(self):
        with pytest.raises(ValueError, match=r"not one of the 1 listed videos.*'/data/mine/a\.mp4' or '/data/a\.mp4'"):
            find(["a.mp4"], names=["b.mp4"], **ABOVE)

    def test_full_paths_decide_nothing(self):
        paths = ["/data/mine/a.mp4", "/data/mine/b.mp4", "missing.mp4"]
        assert find(paths, names=["a.mp4", "b.mp4"], **ABOVE) == ["a.mp4", "b.mp4", "missing.mp4"]

    def test_names_without_extension_are_refused_with_the_extension(self):
        for path in ("run/a", "mine/run/a"):
            with pytest.raises(ValueError, match=r"'run/a' is missing, but there is 'run/a\.mp4'"):
                find([path], names=["run/a.mp4"], **ABOVE)

    def test_full_paths_are_the_same_in_both(self):
        assert find(["/data/mine/a.mp4"], names=["a.mp4"], **ABOVE) == ["a.mp4"]

    def test_a_csv_elsewhere_is_relative_to_the_root(self):
        settings = {"annotations": "/lists/index.csv", "root": "/data/mine"}
        assert find(["a.mp4", "b.mp4"], names=["a.mp4"], **settings) == ["a.mp4", "b.mp4"]

    def test_what_the_names_lack_is_looked_for(self):
        asked = []

        def look_up(names):
            asked.extend(names)
            return {".hidden/a.mp4"}

        settings = {"annotations": "/lists/index.csv", "root": "/data/mine"}
        paths = [".hidden/a.mp4", "b.mp4", "c.mp4"]
        assert find(paths, names=["b.mp4"], look_up=look_up, **settings) == paths
        assert sorted(asked) == [".hidden/a.mp4", "c.mp4"]


def test_the_name_on_disk_opens_the_file_and_the_path_is_in_nfc():
    listed, on_disk = "caf\u00e9/\u00fc.mp4", "cafe\u0301/u\u0308.mp4"
    files = FilesByPath([on_disk])
    parser = ListedPathParser("", files=files)
    [found] = find_listed([parser.parse(listed, where="")], annotations=Path("a.csv"), root="", files=files)
    assert found == FoundPath(listed, on_disk)


def test_a_name_of_bytes_that_are_not_utf8_is_found():
    name = os.fsdecode(b"run/\xff.mp4")
    assert find([name], names=[name], annotations="/lists/a.csv", root="/data") == [name]
