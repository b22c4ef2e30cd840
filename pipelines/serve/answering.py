"""A video file becomes the answer to a request: label, scores, timeline, segments, and an explanation if asked for.

One thread does it for one request, with a decoder of its own; the network may be in another process.
"""

import base64
import math
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.predict.explained_clip import ExplainedPixels, choose_clip, write_explanation_video
from pipelines.serve.config import ServeConfig
from pipelines.serve.watched_decoder import WatchedDecoder
from t3d_core.prediction.timeline import Segment
from t3d_core.prediction.video_prediction import VideoPrediction, ViewScorer, predict_video
from t3d_core.video.clip_reader import ViewSampling

Answer = dict[str, Any]
Explain = Callable[[npt.NDArray[np.uint8], int], ExplainedPixels]


@dataclass(frozen=True)
class Question:
    """What a request wants to know.

    Attributes:
        top: classes with their scores.
        explain: whether to explain the decision.
    """

    top: int = 5
    explain: bool = False


@dataclass(frozen=True)
class Answering:
    """Answers questions about videos.

    Attributes:
        config: settings.
        class_names: by label.
        sampling: which views are scored.
    """

    config: ServeConfig
    class_names: tuple[str, ...]
    sampling: ViewSampling

    def answer(
        self,
        path: str | os.PathLike[str],
        question: Question,
        *,
        scorer: ViewScorer,
        explain: Explain,
        decoder: WatchedDecoder,
    ) -> Answer:
        """Predict a video.

        Raises:
            VideoError: the file cannot be read or decoded.
            Refusal: the video is too long, or the time is over.
            UserError: the network gives scores that are not finite.
        """
        decoder.check_length(path)
        prediction = predict_video(path, scorer, self.sampling, decoder=decoder)
        timeline = prediction.timeline(window_seconds=self.config.smooth_seconds)
        top = prediction.top(question.top)
        return {
            "label": self.class_names[top[0][0]],
            "score": top[0][1],
            "top": [{"label": self.class_names[label], "score": score} for label, score in top],
            "start_seconds": float(prediction.start_N[0]),
            "end_seconds": float(prediction.end_N[-1]),
            "num_padded_frames": prediction.num_padded,
            "timeline": {
                "seconds": timeline.centre_seconds_N.tolist(),
                "labels": [self.class_names[label] for label, _ in top],
                "scores": [timeline.smoothed_NK[:, label].tolist() for label, _ in top],
            },
            "segments": [
                self._describe(each) for each in timeline.segments(min_seconds=self.config.min_segment_seconds)
            ],
            "explanation": self._explanation(path, prediction, explain, decoder) if question.explain else None,
        }

    def _describe(self, segment: Segment) -> Answer:
        return {
            "start_seconds": segment.start_seconds,
            "end_seconds": segment.end_seconds,
            "label": self.class_names[segment.label],
            "score": segment.score,
        }

    def _explanation(
        self, path: str | os.PathLike[str], prediction: VideoPrediction, explain: Explain, decoder: WatchedDecoder
    ) -> Answer:
        clip = choose_clip(path, prediction, self.sampling, decoder=decoder)
        explained = explain(clip.clip_THWC, clip.label)
        with tempfile.TemporaryDirectory() as folder:
            video = Path(folder) / "explanation.mp4"
            write_explanation_video(video, clip, explained.map_THW)
            encoded = base64.b64encode(video.read_bytes()).decode()
        return {
            "label": self.class_names[clip.label],
            "start_seconds": clip.start_seconds,
            "end_seconds": clip.end_seconds,
            "video": f"data:video/mp4;base64,{encoded}",
            "layers": [
                [{"frames": frames, "share": None if math.isnan(share) else share} for frames, share in layer]
                for layer in explained.shares
            ],
        }
