import shutil

import pytest

from pipelines.shards.video_names import listed_videos, names_of_videos, sources_tested_by_fold
from tests.pipelines.damage import changed_videos


@pytest.fixture
def shards_with_ids(synthetic_shards, tmp_path):
    """Gives a copy of the shards whose first videos have other ids."""

    def copy(name, *video_ids):
        shards = shutil.copytree(synthetic_shards, tmp_path / name, ignore=shutil.ignore_patterns("videos", "features"))
        with changed_videos(shards) as videos:
            for video, video_id in zip(videos, video_ids, strict=False):
                video["video_id"] = video_id
        return shards

    return copy


def test_a_video_has_one_name_however_its_data_set_was_prepared(shards_with_ids):
    listed = shards_with_ids("listed", "v_Archery_g01_c01", "clip.of.two")
    found = shards_with_ids("found", "Archery/v_Archery_g01_c01.avi", "Archery/clip.of.two.MP4")
    names = [{*names_of_videos([shards]).values()} for shards in (listed, found)]
    assert names[0] == names[1] >= {"v_Archery_g01_c01", "clip.of.two"}


def test_a_name_that_two_videos_have_is_told_by_its_folders(shards_with_ids):
    names = names_of_videos([shards_with_ids("numbered", "walk/001.avi", "run/001.avi")])
    assert (names["walk/001.avi"], names["run/001.avi"]) == ("walk/001", "run/001")


def test_the_videos_of_a_split_are_those_of_the_annotations(synthetic_shards):
    counts = [len(listed_videos([synthetic_shards], fold=1, splits=[split])) for split in ("train", "val", "test")]
    assert sum(counts) == 48
    assert len(listed_videos([synthetic_shards], fold=1, splits=["val", "test"])) == counts[1] + counts[2]


def test_the_sources_that_a_fold_tests_are_those_of_the_annotations(shards_with_ids, synthetic_shards):
    [tested] = sources_tested_by_fold([synthetic_shards])
    listed = listed_videos([synthetic_shards], fold=1, splits=["test"])
    assert tested == {f"synthetic/{video_id}" for video_id in listed}
