"""Several videos in one process: each result is that of its video alone, and views of two videos share a batch."""

import numpy as np
import pytest
import torch

from pipelines.benchmark.measuring.clips import write_moving_videos
from pipelines.benchmark.predict.networks import write_small
from pipelines.predict.in_process import predict_in_process
from pipelines.predict.parts import PartReader
from pipelines.predict.videos import find_videos
from t3d_core.prediction.clip_scorer import ClipScorer
from t3d_core.prediction.video_prediction import predict_video
from t3d_core.training.checkpoint import load_model
from t3d_core.video.clip_reader import ViewSampling
from t3d_core.video.guard import GuardedDecoder, GuardLimits


class CountedScorer(ClipScorer):
    num_calls = 0

    def score_with_features(self, clip_BSTHWC):
        self.num_calls += 1
        return super().score_with_features(clip_BSTHWC)


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    path = tmp_path_factory.mktemp("network") / "small.safetensors"
    write_small(path)
    return CountedScorer(load_model(path), device=torch.device("cpu"), batch_size=2)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Three clips of 16 frames each, and a broken file between two videos."""
    folder = tmp_path_factory.mktemp("videos")
    first, second = write_moving_videos(folder, num_videos=2, num_frames=50, height=48, width=64)
    (folder / "broken.mp4").write_bytes(b"no video")
    return find_videos([str(first), str(folder / "broken.mp4"), str(second)])


@pytest.mark.parametrize("with_features", [False, True])
def test_each_result_is_that_of_its_video_alone_to_the_last_bit(videos, scorer, with_features):
    sampling, limits = ViewSampling(scorer.card.clip_view()), GuardLimits()
    reader = PartReader(sampling, batch_size=2, limits=limits, max_source_bytes=1 << 20)
    num_before = scorer.num_calls
    results = list(predict_in_process(videos, scorer, reader, with_features=with_features))
    assert scorer.num_calls - num_before == 3  # six clips; each video alone would take two batches
    assert [result.video for result in results] == [video.name for video in videos]
    assert [result.reason.partition(":")[0] for result in results] == ["", "not a video", ""]
    with GuardedDecoder(limits) as decoder:
        for result in (results[0], results[2]):
            alone = predict_video(result.video, scorer, sampling, decoder=decoder, with_features=with_features)
            assert (len(alone.score_NK), alone.num_padded) == (3, result.prediction.num_padded)
            for name in ("score_K", "score_NK", "start_N", "end_N", "feature_ND"):
                np.testing.assert_array_equal(getattr(result.prediction, name), getattr(alone, name), strict=True)
