"""Videos are cut into parts of about equal work, and the views of a task's parts fill its batches."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.predict import parts as module
from pipelines.predict.parts import PartReader, cut_into_parts, ends_of
from pipelines.predict.videos import NamedVideo
from pipelines.prepare.sources import LocalRoot, RemoteRoot
from t3d_core.video.clip_reader import VideoShare, ViewSampling, read_views
from t3d_core.video.clip_sampling import ClipView
from t3d_core.video.guard import DecoderKilledError, GuardedDecoder, GuardLimits

SAMPLING = ViewSampling(ClipView(16, 1, crop_size=32, short_side=36, short_video="loop"))
LOCAL, REMOTE = LocalRoot(Path("/videos")), RemoteRoot("s3://bucket/videos")
MIB = 1 << 20


def named(*sizes, root=LOCAL):
    return [NamedVideo(f"{number}.mp4", root, f"{number}.mp4", size) for number, size in enumerate(sizes)]


def shares_of(tasks):
    shares = {}
    for task in tasks:
        for part in task:
            shares.setdefault(part.video, []).append(part.share)
    return shares


def test_a_long_video_is_cut_over_the_cpus_and_short_ones_share_a_task():
    tasks = cut_into_parts(named(800 * MIB, *[MIB] * 40), is_cut=True, num_cpus=4)
    shares = shares_of(tasks)
    assert shares[0] == [VideoShare(place, 30) for place in range(30)]
    assert all(shares[video] == [VideoShare()] for video in range(1, 41))
    assert [len(task) for task in tasks[:30]] == [1] * 30
    assert len(tasks) < 34


@pytest.mark.parametrize(
    ("videos", "is_cut", "most"),
    [
        (named(2 << 30), False, 1),  # clips spread over the video
        (named(2 << 30, root=REMOTE), True, 4),  # every part copies it
        (named(15 * MIB), True, 1),  # to find its frames would be most of the work
        (named(0), True, 1),  # of unknown size
    ],
)
def test_a_video_is_cut_no_further_than_it_pays(videos, is_cut, most):
    assert len(shares_of(cut_into_parts(videos, is_cut=is_cut, num_cpus=16))[0]) == most


def test_every_cpu_gets_work_of_few_small_videos_and_no_task_is_endless():
    assert [len(task) for task in cut_into_parts(named(*[1000] * 40), is_cut=True, num_cpus=4)] == [10] * 4
    assert len(cut_into_parts(named(*[MIB] * 400), is_cut=True, num_cpus=4)) == pytest.approx(32, abs=2)
    assert len(cut_into_parts(named(*[MIB] * 6), is_cut=True, num_cpus=4)) >= 4
    uneven = cut_into_parts(named(300_000, 500_000, 200_000), is_cut=True, num_cpus=2)
    assert [len(task) for task in uneven] == [1, 1, 1]
    tasks = cut_into_parts(named(*[1000] * 10_000), is_cut=True, num_cpus=1)
    assert max(map(len, tasks)) <= 256
    assert len(tasks) < 50
    assert sum(map(len, tasks)) == 10_000


@pytest.fixture
def reader():
    return PartReader(SAMPLING, batch_size=3, limits=GuardLimits(), max_source_bytes=1 << 30)


def numbered(folder, *names):
    return [
        (number, NamedVideo(name, LocalRoot(folder), name), VideoShare()) for number, name in enumerate(names, start=7)
    ]


@pytest.mark.heavy
def test_views_of_several_parts_fill_a_batch_and_a_bad_video_is_an_end_with_its_reason(reader, videos):
    batches = list(reader.batches(numbered(videos, "0.mp4", "broken.mp4", "1.mp4", "2.mp4", "absent.mp4")))
    assert [batch["part_B"].tolist() for batch in batches] == [[7, 7, 9], [9, 10, 10], [-1]]
    assert [batch["place_B"].tolist() for batch in batches] == [[0, 1, 0], [1, 0, 1], [0]]
    ends = [[(end.part, end.num_views, end.reason[:11]) for end in ends_of(batch)] for batch in batches]
    assert ends[0] == [(7, 2, ""), (8, 0, "not a video")]
    assert ends[1:] == [[(9, 2, "")], [(10, 2, ""), (11, 0, "not found")]]
    views = list(read_views(videos / "1.mp4", SAMPLING))
    np.testing.assert_array_equal(batches[1]["clip_BSTHWC"][0], views[1].clip_STHWC)
    assert batches[1]["start_B"][0] == views[1].start_seconds


@pytest.mark.heavy
def test_parts_may_end_without_a_view(reader, videos):
    [batch] = reader.batches(numbered(videos, "broken.mp4", "absent.mp4"))
    assert batch["part_B"].tolist() == [-1]
    assert [end.part for end in ends_of(batch)] == [7, 8]


def test_a_killed_decoder_fails_one_video_with_the_reason(reader, videos, monkeypatch):
    def killed(self, path, *_, **__):
        if path.endswith("0.mp4"):
            raise DecoderKilledError("decoding process killed from outside (SIGKILL)")
        return read_views(path, SAMPLING)

    monkeypatch.setattr(GuardedDecoder, "read_views", killed)
    [batch] = reader.batches(numbered(videos, "0.mp4", "1.mp4"))
    assert [(end.part, end.reason) for end in ends_of(batch)] == [
        (7, "decoding process killed from outside (SIGKILL)"),
        (8, ""),
    ]


def test_a_decoder_is_started_once_for_all_tasks_of_a_process():
    assert module.decoder_of_process(GuardLimits(seconds=7)) is module.decoder_of_process(GuardLimits(seconds=7))
