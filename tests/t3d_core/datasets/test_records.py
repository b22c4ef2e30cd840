"""VideoRecord and VideoDataset check themselves."""

import pytest

from t3d_core.datasets.records import VideoDataset, VideoRecord


def record(video_id, *, label="run", source=None, splits=("train",)):
    return VideoRecord(video_id, f"videos/{video_id}", label, source or video_id, splits)


def test_a_valid_data_set_counts_its_folds():
    dataset = VideoDataset(
        "set", ("run",), (record("a", splits=("train", "test")), record("b", splits=("val", "unused")))
    )
    assert dataset.num_folds == 2


def test_a_data_set_without_records_has_no_folds():
    assert VideoDataset("set", (), ()).num_folds == 0


def test_a_video_without_label_is_allowed_beside_labelled_ones():
    dataset = VideoDataset("kinetics", ("run",), (record("a"), record("b", label=None, splits=("test",))))
    assert dataset.records[1].label is None


@pytest.mark.parametrize(
    ("class_names", "records", "message"),
    [
        (("run",), (record("a"), record("a")), "video_id 'a' appears twice"),
        (("run",), (record("a"), record("b", label="jump")), "label 'jump' of video 'b'"),
        ((), (record("a"),), "label 'run' of video 'a'"),
        (("run",), (record("a", splits=("validation",)),), "split 'validation' of video 'a' in fold 1"),
        (("run",), (record("a"), record("b", splits=("train", "test"))), "video 'b' has splits for 2 folds"),
        (("run",), (record("a", splits=()),), "video 'a' has splits for 0 folds"),
        (("walk", "run"), (), "sorted and unique"),
        (("run", "run"), (), "sorted and unique"),
    ],
)
def test_an_invalid_data_set_names_what_is_wrong(class_names, records, message):
    with pytest.raises(ValueError, match=message):
        VideoDataset("set", class_names, records)


@pytest.mark.parametrize("path", ["", "/videos/a.mp4", "../a.mp4", "x/../../a.mp4"])
def test_a_path_that_leads_out_of_the_root_is_refused(path):
    with pytest.raises(ValueError, match="of video 'a' must lead to a file below the root"):
        VideoDataset("set", ("run",), (VideoRecord("a", path, "run", "a", ("train",)),))


def test_two_dots_inside_a_name_are_no_way_out():
    VideoDataset("set", ("run",), (VideoRecord("a", "x/what..mp4", "run", "a", ("train",)),))


def test_the_same_record_twice_is_refused():
    twice = record("a")
    with pytest.raises(ValueError, match="video_id 'a' appears twice"):
        VideoDataset("set", ("run",), (twice, twice))


def test_text_that_is_not_utf8_is_refused_with_the_cure():
    record = VideoRecord(video_id="a", path="a.mp4", label="caf\udce9", source="a", splits=("train",))
    with pytest.raises(ValueError, match=r"'caf\\udce9' is not UTF-8: save the annotations"):
        VideoDataset(name="d", class_names=("caf\udce9",), records=(record,))
