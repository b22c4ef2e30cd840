"""A folder, with or without an annotation CSV, becomes a VideoDataset."""

import os
from collections import Counter
from pathlib import Path

import pytest

from t3d_core.datasets.folder import read_folder
from t3d_core.datasets.video_files import is_video_name

SHARED_DATA = Path(__file__).parents[4] / "shared" / "data"
CAFE, CAFE_OF_A_MAC = "Caf\u00e9", "Cafe\u0301"
needs_shared_data = pytest.mark.skipif(not SHARED_DATA.is_dir(), reason=f"{SHARED_DATA} is not on this machine")


def read_names(*names, **settings):
    return read_folder(names, name="mine", **settings)


def read_csv(path, **settings):
    return read_folder([], name="mine", annotations=path, **settings)


def write_csv(path, *lines, newline="\n", encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((newline.join(lines) + newline).encode(encoding))
    return path


def splits_of(dataset):
    return {record.video_id: record.splits[0] for record in dataset.records}


class TestClassFolders:
    def test_labels_come_from_folders_in_the_order_of_paths(self):
        dataset = read_names("walk/b.mp4", "run/a.AVI", test_fraction=0)
        assert [(r.video_id, r.path, r.label, r.source) for r in dataset.records] == [
            ("run/a.AVI", "run/a.AVI", "run", "run/a.AVI"),
            ("walk/b.mp4", "walk/b.mp4", "walk", "walk/b.mp4"),
        ]
        assert dataset.class_names == ("run", "walk")
        assert dataset.name == "mine"

    def test_split_folders_give_the_splits(self):
        dataset = read_names("train/run/a.mp4", "val/run/b.mp4", "test/run/c.mp4")
        assert splits_of(dataset) == {"train/run/a.mp4": "train", "val/run/b.mp4": "val", "test/run/c.mp4": "test"}
        assert dataset.class_names == ("run",)

    def test_a_class_may_be_called_train(self):
        assert read_names("train/a.mp4", "bus/b.mp4", test_fraction=0).class_names == ("bus", "train")

    def test_without_splits_test_and_val_are_carved_out_by_seed(self):
        names = [f"{label}/{i}.mp4" for label in ("run", "walk") for i in range(10)]
        dataset = read_names(*names, val_fraction=0.1, test_fraction=0.3, seed=1)
        shares = Counter((r.label, r.splits[0]) for r in dataset.records)
        assert shares == {(c, s): n for c in ("run", "walk") for s, n in (("train", 6), ("val", 1), ("test", 3))}
        again = read_names(*reversed(names), val_fraction=0.1, test_fraction=0.3, seed=1)
        other = read_names(*names, val_fraction=0.1, test_fraction=0.3, seed=2)
        assert again == dataset
        assert other != dataset

    def test_unlabelled_videos_lie_at_any_depth_and_are_all_for_training(self):
        dataset = read_names("a.mp4", "x/y/z/b.webm", is_labelled=False)
        assert [(r.video_id, r.label, r.splits) for r in dataset.records] == [
            ("a.mp4", None, ("train",)),
            ("x/y/z/b.webm", None, ("train",)),
        ]
        assert dataset.class_names == ()

    @pytest.mark.parametrize("stray", ["b.mp4", "train/run/b.mp4"])
    def test_videos_of_another_depth_are_refused_by_name(self, stray):
        with pytest.raises(ValueError, match=rf"{stray}: expected label/video"):
            read_names("run/a.mp4", stray)

    def test_names_with_spaces_and_accents_are_kept(self):
        [record] = read_names("high jump/\u00e9t\u00e9 \u4e2d, 1.mp4", test_fraction=0).records
        assert record.label == "high jump"
        assert record.video_id == "high jump/\u00e9t\u00e9 \u4e2d, 1.mp4"

    def test_a_name_that_is_not_utf8_gets_a_storable_id_and_keeps_its_path(self):
        name = os.fsdecode(b"run/\xff.mp4")
        [record] = read_names(name, test_fraction=0).records
        assert record.video_id == "run/\\xff.mp4"
        assert os.fsencode(record.path) == b"run/\xff.mp4"

    def test_what_systems_and_tools_left_behind_is_no_class_and_no_video(self):
        junk = (".ipynb_checkpoints/a.mp4", "run/@eaDir/a.mp4/b.mp4", ".Trash-1000/files/a.mp4", "__MACOSX/run/._a.mp4")
        dataset = read_names("run/a.mp4", "jump/b.mp4", *junk, test_fraction=0)
        assert dataset.class_names == ("jump", "run")
        assert len(dataset.records) == 2

    def test_other_files_among_the_names_are_no_videos(self):
        assert len(read_names("run/a.mp4", "run/a.txt", "run/clip", "notes.md", test_fraction=0).records) == 1

    def test_names_are_in_nfc_and_the_name_on_disk_opens_the_file(self):
        names = [f"train/{CAFE}/1.mp4", f"test/{CAFE_OF_A_MAC}/2.mp4"]
        dataset = read_names(*names)
        assert dataset.class_names == (CAFE,)
        assert [(r.video_id, r.path) for r in dataset.records] == [
            (f"test/{CAFE}/2.mp4", names[1]),
            (f"train/{CAFE}/1.mp4", names[0]),
        ]

    @pytest.mark.parametrize("is_labelled", [True, False])
    def test_files_whose_names_differ_in_form_only_are_refused(self, is_labelled):
        with pytest.raises(ValueError, match=rf"2 files are named '{CAFE}/1\.mp4' in different Unicode forms"):
            read_names(f"{CAFE}/1.mp4", f"{CAFE_OF_A_MAC}/1.mp4", "x/2.mp4", is_labelled=is_labelled)

    def test_a_folder_without_videos_says_what_was_looked_for(self):
        with pytest.raises(ValueError, match=r"no videos found.*index\.csv.*\.mp4"):
            read_names()


class TestAnnotations:
    def test_rows_are_listed_whether_their_files_are_there_or_not_and_other_files_are_not(self, tmp_path):
        rows = ("a.mp4,run,g1,train", "b.mp4,run,g2,test")
        csv_path = write_csv(tmp_path / "index.csv", "path,label,group,split", *rows)
        dataset = read_folder(["a.mp4", "c.mp4"], name="mine", annotations=csv_path)
        assert splits_of(dataset) == {"a.mp4": "train", "b.mp4": "test"}
        assert [r.source for r in dataset.records] == ["g1", "g2"]

    def test_crlf_bom_extra_columns_quotes_and_blank_lines_are_read(self, tmp_path):
        lines = ("split,path,bytes,label", 'train,"a, 1.mp4",5,high jump', "", "test,b.mp4,6,run")
        csv_path = write_csv(tmp_path / "list.csv", *lines, newline="\r\n", encoding="utf-8-sig")
        dataset = read_csv(csv_path)
        assert splits_of(dataset) == {"a, 1.mp4": "train", "b.mp4": "test"}
        assert dataset.class_names == ("high jump", "run")

    def test_paths_relative_to_a_folder_above_the_root_lose_the_rest_and_rows_outside_are_not_read(self, tmp_path):
        rows = ("mine/run/a.mp4,run", "mine2/b.mp4,other", "c.mp4,other")
        csv_path = write_csv(tmp_path / "index.csv", "path,label", *rows)
        settings = {"annotations": csv_path, "root": tmp_path / "mine", "test_fraction": 0}
        dataset = read_folder(["run/a.mp4"], name="mine", **settings)
        assert [(r.video_id, r.path) for r in dataset.records] == [("run/a.mp4", "run/a.mp4")]
        assert dataset.class_names == ("run",)

    def test_without_a_known_root_paths_are_relative_to_it(self, tmp_path):
        csv_path = write_csv(tmp_path / "lists/mine.csv", "path,label", "run/a.mp4,run")
        assert read_csv(csv_path, test_fraction=0).records[0].path == "run/a.mp4"

    def test_groups_within_a_label_are_sources_of_that_label_also_when_read_unlabelled(self, tmp_path):
        rows = ("a.mp4,run,g01,train", "b.mp4,walk,g01,test", "c.mp4,walk,,test")
        csv_path = write_csv(tmp_path / "index.csv", "path,label,group,split", *rows)
        dataset = read_csv(csv_path, is_group_within_label=True)
        assert [r.source for r in dataset.records] == ["run/g01", "walk/g01", "c.mp4"]
        unlabelled = read_csv(csv_path, is_group_within_label=True, is_labelled=False)
        assert [(r.source, r.label, r.splits) for r in unlabelled.records] == [
            ("run/g01", None, ("train",)),
            ("walk/g01", None, ("train",)),
            ("c.mp4", None, ("train",)),
        ]

    def test_without_splits_groups_are_held_out_whole(self, tmp_path):
        rows = [f"{i}.mp4,run,person{i % 5}" for i in range(20)]
        csv_path = write_csv(tmp_path / "index.csv", "path,label,group", *rows)
        dataset = read_csv(csv_path, test_fraction=0.2)
        held_out = [r.source for r in dataset.records if r.splits == ("test",)]
        assert len(held_out) == 4
        assert len(set(held_out)) == 1

    def test_val_is_carved_out_of_given_training_videos_only_where_no_val_is_given(self, tmp_path):
        rows = [f"{i}.mp4,run,{'train' if i < 8 else 'test'}" for i in range(10)]
        csv_path = write_csv(tmp_path / "index.csv", "path,label,split", *rows)
        dataset = read_csv(csv_path, val_fraction=0.25)
        assert Counter(splits_of(dataset).values()) == {"train": 6, "val": 2, "test": 2}
        csv_path = write_csv(tmp_path / "index.csv", "path,label,split", *rows, "v.mp4,run,val")
        dataset = read_csv(csv_path, val_fraction=0.25)
        assert Counter(splits_of(dataset).values()) == {"train": 8, "val": 1, "test": 2}

    @pytest.mark.parametrize(
        ("lines", "message"),
        [
            (("file,label", "a.mp4,run"), r"line 1: no column 'path' among the columns \['file', 'label'\]"),
            (
                ("path,label,split", "a.mp4,run,train", "b.mp4,run,trial"),
                "line 3: split 'trial' is not one of train, val, test, unused",
            ),
            (("path,label", "a.mp4,run", "./a.mp4,run"), "line 3: path 'a.mp4' is already listed in .*line 2"),
            (("path,label", "../a.mp4,run"), "line 2: path '../a.mp4' must lead"),
            (("path,label", "x/../../a.mp4,run"), "line 2: path .* must lead"),
            (("path,label", "/etc/passwd,run"), "line 2: path '/etc/passwd' must lead"),
            (("path,label", ",run"), "line 2: path '' must lead"),
            (("path,label", "a.mp4"), "line 2: 1 value for 2 columns"),
            (("path,label", "a,b.mp4,run"), "line 2: 3 values for 2 columns"),
            (("path,label", "a.mp4,run", "b.mp4,"), "line 3: no label"),
            (("path,split", "a.mp4,train"), "line 2: no label"),
            (("path,label,split", "a.mp4,run,train", "b.mp4,run,"), "line 3: no split while other videos have one"),
            (("path,label,group,split", "a.mp4,run,x,train", "b.mp4,run,x,test"), "source 'x' in fold 1 is in"),
            (("path,label",), "no videos found: no row of"),
        ],
    )
    def test_a_bad_row_is_refused_with_its_line(self, tmp_path, lines, message):
        csv_path = write_csv(tmp_path / "index.csv", *lines)
        with pytest.raises(ValueError, match=message):
            read_csv(csv_path)

    def test_all_bad_rows_are_reported_at_once(self, tmp_path):
        rows = ("a.mp4,run,train", "../b.mp4,run,train", "c.mp4,run,trial", "/d.mp4,run,test", "e.mp4,run,x")
        csv_path = write_csv(tmp_path / "index.csv", "path,label,split", *rows)
        with pytest.raises(
            ValueError, match=r"^4 errors: .*line 3: path .*line 4: split 'trial'.*line 5: path .*\.\.\.$"
        ):
            read_csv(csv_path)
        csv_path = write_csv(tmp_path / "index.csv", "path,label", "a.mp4,run", "a.mp4,run", "b.mp4,", "b.mp4,run")
        with pytest.raises(ValueError, match=r"^2 errors: .*line 3: .*already listed.*line 5: "):
            read_csv(csv_path)

    def test_splits_are_known_by_the_names_that_people_give_them(self, tmp_path):
        rows = ("a.mp4,run,Train", "b.mp4,run,validation", "c.mp4,run,TEST", "d.mp4,run,valid")
        dataset = read_csv(write_csv(tmp_path / "index.csv", "path,label,split", *rows))
        assert list(splits_of(dataset).values()) == ["train", "val", "test", "val"]

    def test_a_label_or_group_that_is_not_utf8_is_refused_and_a_path_is_not(self, tmp_path):
        header = "path,label,group"
        for cells in ("a.mp4,\u00e9t\u00e9,", "a.mp4,run,\u00e9"):
            csv_path = write_csv(tmp_path / "index.csv", header, cells, encoding="cp1252")
            with pytest.raises(ValueError, match=r"line 2: (label|group) '.*\\xe9' is not UTF-8"):
                read_csv(csv_path)
        csv_path = write_csv(tmp_path / "index.csv", header, "\u00e9.mp4,run,", encoding="cp1252")
        [record] = read_folder([os.fsdecode(b"\xe9.mp4")], name="mine", annotations=csv_path, test_fraction=0).records
        assert (os.fsencode(record.path), record.video_id) == (b"\xe9.mp4", "\\xe9.mp4")

    def test_labels_groups_and_paths_are_one_in_whichever_unicode_form_they_are_written(self, tmp_path):
        rows = (f"{CAFE}/a.mp4,{CAFE_OF_A_MAC},{CAFE}", f"{CAFE_OF_A_MAC}/b.mp4,{CAFE},{CAFE_OF_A_MAC}")
        csv_path = write_csv(tmp_path / "index.csv", "path,label,group", *rows)
        names = [f"{CAFE_OF_A_MAC}/a.mp4", f"{CAFE}/b.mp4"]
        dataset = read_folder(names, name="mine", annotations=csv_path, test_fraction=0)
        assert [r.path for r in dataset.records] == names
        assert dataset.class_names == (CAFE,)
        assert {r.source for r in dataset.records} == {CAFE}

    def test_a_path_that_names_two_files_of_different_forms_is_refused(self, tmp_path):
        csv_path = write_csv(tmp_path / "index.csv", "path,label", f"{CAFE}.mp4,run")
        with pytest.raises(ValueError, match=r"2 files are named .* different Unicode forms"):
            read_folder([f"{CAFE}.mp4", f"{CAFE_OF_A_MAC}.mp4"], name="mine", annotations=csv_path, test_fraction=0)

    def test_a_missing_annotation_file_is_named(self, tmp_path):
        with pytest.raises(ValueError, match=r"absent\.csv' is not a file"):
            read_csv(tmp_path / "absent.csv")

    def test_fractions_are_checked_also_where_splits_are_given(self, tmp_path):
        csv_path = write_csv(tmp_path / "index.csv", "path,label,split", "a.mp4,run,train")
        with pytest.raises(ValueError, match="val_fraction"):
            read_csv(csv_path, val_fraction=-0.5)

    def test_groups_that_are_named_validate_and_the_others_are_split_as_they_would_be(self, tmp_path):
        rows = [f"{i}.mp4,run,person{i % 5}" for i in range(20)]
        csv_path = write_csv(tmp_path / "index.csv", "path,label,group", *rows)
        dataset = read_csv(csv_path, test_fraction=0.25, val_groups=["person3"])
        assert {r.source for r in dataset.records if r.splits == ("val",)} == {"person3"}
        assert Counter(splits_of(dataset).values()) == {"train": 12, "val": 4, "test": 4}
        folds = read_csv(csv_path, num_folds=4, val_groups=["person3"])
        assert {r.splits for r in folds.records if r.source == "person3"} == {("val",) * 4}
        assert all(r.splits.count("test") == 1 for r in folds.records if r.source != "person3")

    def test_groups_that_validate_come_out_of_given_training_videos(self, tmp_path):
        csv_path = write_csv(
            tmp_path / "index.csv", "path,label,group,split", "a,run,x,train", "b,run,y,train", "c,run,z,test"
        )
        assert list(splits_of(read_csv(csv_path, val_groups=["y"])).values()) == ["train", "val", "test"]
        with pytest.raises(ValueError, match="group 'z' has split test in the annotations"):
            read_csv(csv_path, val_groups=["y", "z"])

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"val_fraction": 0.1}, r"val_groups \['x'\] and val_fraction 0.1 both say what validates"),
            ({"is_labelled": False}, r"val_groups \['x'\] are for labelled videos, given is_labelled=False"),
            ({"val_groups": ["X"]}, r"no video has group 'X'; the 2 groups are: x, y$"),
            ({"val_groups": ["x", "y"]}, r"val_groups \['x', 'y'\] leave no group to train on"),
        ],
    )
    def test_groups_that_cannot_validate_are_refused(self, tmp_path, settings, message):
        csv_path = write_csv(tmp_path / "index.csv", "path,label,group", "a.mp4,run,x", "b.mp4,run,y")
        with pytest.raises(ValueError, match=message):
            read_csv(csv_path, **{"val_groups": ["x"]} | settings)


def read_shared(folder, **settings):
    """Read one of the shared folders: its records, and the names of its video files."""
    root = SHARED_DATA / folder
    names = [str(p.relative_to(root)) for p in root.rglob("*") if is_video_name(p.name)]
    index = SHARED_DATA / "index.csv"
    return read_folder(names, name=folder, annotations=index, root=root, **settings), names


@needs_shared_data
class TestRealAnnotations:
    def test_weizmann_is_sixty_videos_split_by_person(self):
        dataset, names = read_shared("weizmann6")
        assert len(dataset.records) == 60
        assert len(dataset.class_names) == 10
        assert {r.source for r in dataset.records if r.splits == ("val",)} == {"lena"}
        assert len({r.source for r in dataset.records if r.splits == ("train",)}) == 5
        assert {r.path for r in dataset.records} == set(names)

    def test_the_unlabelled_ucf101_clips_are_ninety_eight_with_sources_within_classes(self):
        dataset, names = read_shared("ucf101_mixed", is_labelled=False, is_group_within_label=True)
        assert len(dataset.records) == 98
        assert {r.splits for r in dataset.records} == {("train",)}
        assert "Archery/g02" in {r.source for r in dataset.records}
        assert {r.path for r in dataset.records} == set(names)

    def test_tennis_is_carved_by_scene(self):
        dataset, _ = read_shared("tennis7", test_fraction=0.2)
        test = [r for r in dataset.records if r.splits == ("test",)]
        assert 60 <= len(test) <= 90
        assert {r.label for r in test} == set(dataset.class_names)
