"""Folders give labels and splits, and what stands where it does not belong is named."""

import os
import unicodedata

import pytest

from t3d_core.datasets.class_folders import read_class_folders


def refused(*paths):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the callers look at the whole message
        read_class_folders(paths)
    return str(caught.value)


def test_splits_are_known_by_the_names_that_people_give_them():
    labels = read_class_folders(["Train/run/a.mp4", "validation/run/b.mp4", "TEST/jump/c.mp4", "training/run/d.mp4"])
    assert labels == [("run", "train"), ("run", "val"), ("jump", "test"), ("run", "train")]


def test_a_label_is_one_in_whichever_unicode_form_it_is_written():
    forms = [unicodedata.normalize(form, "Caf\u00e9") for form in ("NFC", "NFD")]
    assert len(set(forms)) == 2
    assert len(set(read_class_folders([f"{form}/a.mp4" for form in forms]))) == 1


@pytest.mark.parametrize("odd", ["trial", "backup"])
def test_a_folder_beside_the_splits_is_named_and_no_other(odd):
    told = refused("test/run/a.mp4", f"{odd}/run/b.mp4", f"{odd}/run/c.mp4", "train/run/d.mp4")
    assert told.startswith(f"{odd}/run/b.mp4 (and 1 more): expected {{train,val,test,unused}}/label/video")
    assert f"folder '{odd}' is not a split: rename it" in told
    assert "test/run/a.mp4" not in told


def test_the_odd_folder_is_named_even_where_it_holds_most_videos():
    told = refused(*(f"trn/run/{i}.mp4" for i in range(9)), "test/run/a.mp4", "val/run/b.mp4")
    assert "folder 'trn' is not a split" in told


def test_class_folders_beside_splits_are_named():
    told = refused("train/run/a.mp4", "test/run/b.mp4", "samples/c.mp4")
    assert told.startswith("samples/c.mp4: expected {train,val,test,unused}/label/video")


def test_a_file_in_the_root_itself_is_named():
    told = refused("run/a.mp4", "jump/b.mp4", "intro.mp4")
    assert told.startswith("intro.mp4: expected label/video")
    assert "lies in the root itself" in told


def test_a_deeper_file_is_named_with_its_depth():
    told = refused("run/a.mp4", "jump/b.mp4", "run/takes/old/c.mp4")
    assert told.startswith("run/takes/old/c.mp4: expected label/video")
    assert "3 folders deep" in told


def test_all_odd_folders_are_named_at_once():
    told = refused("run/a.mp4", "jump/b.mp4", "c.mp4", "x/y/d.mp4")
    assert told.startswith("2 errors: c.mp4")
    assert "x/y/d.mp4" in told


def test_one_folder_around_all_is_named_as_the_root_to_give():
    assert "all videos lie in folder 'UCF-101': give that folder as root" in refused(
        "UCF-101/run/a.mp4", "UCF-101/jump/b.mp4"
    )
    assert "in folder 'data/v1'" in refused("data/v1/train/run/a.mp4", "data/v1/test/run/b.mp4")


def test_split_folders_without_class_folders_are_no_classes():
    assert "'test', 'train' are splits, but they hold videos and no class folders" in refused(
        "train/a.mp4", "test/b.mp4"
    )
    assert read_class_folders(["train/a.mp4", "bus/b.mp4"]) == [("train", ""), ("bus", "")]


def test_videos_in_the_root_alone_have_no_label():
    assert "videos lie in the root itself" in refused("a.mp4", "b.mp4")


def test_class_folders_whose_names_are_not_utf8_are_refused_as_labels_of_a_csv_are():
    odd = os.fsdecode(b"y\xe9")
    message = refused(f"{odd}/a.mp4", f"{odd}/b.mp4", "x/c.mp4")
    assert message == r"the name of class folder 'y\xe9' is not UTF-8: rename the folder"
    assert refused(f"train/{odd}/a.mp4", f"test/{odd}/b.mp4").startswith(
        r"2 errors: the name of class folder 'test/y\xe9'"
    )
    assert read_class_folders([os.fsdecode(b"x/\xe9.mp4"), "y/a.mp4"])[0].label == "x"
