"""Which videos of a data set there are, and under which fingerprint."""

from pipelines.prepare.config import (
    KineticsDatasetConfig,
    PrepareConfig,
)
from pipelines.prepare.listing import list_videos


def test_whether_clips_are_trimmed_belongs_to_the_settings(tmp_path):
    (tmp_path / "train.csv").write_text("label,youtube_id,time_start,time_end\na,xxxxxxxxxxx,1,2\n")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "xxxxxxxxxxx.mp4").touch()
    dataset = KineticsDatasetConfig(root=str(tmp_path / "videos"), annotations=(tmp_path / "train.csv",))
    prints = {
        list_videos(
            PrepareConfig(dataset=dataset.model_copy(update={"is_trimmed": is_trimmed})), output=tmp_path
        ).description["fingerprint"]
        for is_trimmed in (True, False)
    }
    assert len(prints) == 2


def test_test_videos_without_labels_stay_whole(tmp_path):
    (tmp_path / "test.csv").write_text("youtube_id,time_start,time_end\nxxxxxxxxxxx,1,2\n")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "xxxxxxxxxxx_000001_000002.mp4").touch()
    dataset = KineticsDatasetConfig(root=str(tmp_path / "videos"), annotations=(tmp_path / "test.csv",))
    description = list_videos(PrepareConfig(dataset=dataset), output=tmp_path).description
    assert description["class_names"] == []
    assert description["max_segment_seconds"] is None


def test_videos_that_turn_out_untrimmed_are_the_same_data_set(tmp_path):
    (tmp_path / "train.csv").write_text("label,youtube_id,time_start,time_end\na,xxxxxxxxxxx,1,2\nb,yyyyyyyyyyy,1,2\n")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "xxxxxxxxxxx_000001_000002.mp4").touch()
    settings = PrepareConfig(
        dataset=KineticsDatasetConfig(
            root=str(tmp_path / "videos"), annotations=(tmp_path / "train.csv",), is_trimmed=False
        )
    )
    before = list_videos(settings, output=tmp_path)
    (tmp_path / "videos" / "yyyyyyyyyyy.mp4").touch()
    after = list_videos(settings, output=tmp_path)
    assert (before.is_found().sum(), after.is_found().sum()) == (1, 2)
    assert sorted(after.records.column("start_seconds").to_pylist(), key=str) == [1.0, None]
    assert before.description["fingerprint"] == after.description["fingerprint"]
