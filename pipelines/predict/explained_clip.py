"""Of a predicted video, the clip that speaks most for its class, and why: a map over its frames, shares, a video of it.

    prediction -> choose_clip (decodes) -> explain_pixels (where the network is) -> write_explanation_video

Legend: T frames, H x W pixels, C = 3 colours.
"""

import itertools
import os
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from t3d_core.models.video_net import VideoNet
from t3d_core.prediction.video_prediction import VideoPrediction, ViewReader
from t3d_core.training.weights_card import WeightsCard
from t3d_core.video.clip_reader import ViewSampling
from t3d_core.video.container import VideoError
from t3d_core.video.playable import write_playable
from t3d_core.video.transforms import normalize_clip

CHANGED = "it gives fewer frames than before: it was changed while the job read it"
_MIN_PIXELS = 224
_MAX_FPS = 60.0


@dataclass(frozen=True)
class ChosenClip:
    """The clip with the highest score of the class of its video.

    Attributes:
        label: the class, from 0.
        score: of the whole video.
        start_seconds: when its first frame is shown.
        end_seconds: when its last frame ends; of several segments, the last one's.
        clip_THWC: uint8 RGB in the centre crop; of several segments the middle one.
        num_segments: clips that the network sees at once.
    """

    label: int
    score: float
    start_seconds: float
    end_seconds: float
    clip_THWC: npt.NDArray[np.uint8]
    num_segments: int


@dataclass(frozen=True)
class ExplainedPixels:
    """Where and when a clip speaks for a class.

    Attributes:
        map_THW: float32 in [0, 1].
        shares: (temporal depth, share) of each branch, for each transition with several depths.
    """

    map_THW: npt.NDArray[np.float32]
    shares: list[list[tuple[int, float]]]


def choose_clip(
    path: str | os.PathLike[str], prediction: VideoPrediction, sampling: ViewSampling, *, decoder: ViewReader
) -> ChosenClip:
    """Read the clip with the highest score of the class that the whole video got.

    Raises:
        VideoError: the file cannot be read again.
    """
    [(label, score)] = prediction.top(1)
    place = int(prediction.score_NK[:, label].argmax())
    views = decoder.read_views(path, replace(sampling, num_crops=1))
    if (view := next(itertools.islice(views, place, None), None)) is None:
        raise VideoError(CHANGED)
    num_segments = len(view.clip_STHWC)
    return ChosenClip(
        label,
        score,
        float(prediction.start_N[place]),
        float(prediction.end_N[place]),
        np.array(view.clip_STHWC[num_segments // 2]),
        num_segments,
    )


def explain_pixels(
    clip_THWC: npt.NDArray[np.uint8], label: int, *, net: VideoNet, device: torch.device, card: WeightsCard
) -> ExplainedPixels:
    """Explain what in a clip speaks for a class; the net moves to the device."""
    # Imported only here: captum takes half a second.
    from t3d_core.prediction.explanation import explain_clip

    clip_BTHWC = torch.from_numpy(clip_THWC[None]).to(device)
    clip_BCTHW = normalize_clip(clip_BTHWC, mean=card.mean, std=card.std)
    explanation = explain_clip(net.to(device), clip_BCTHW, torch.tensor([label], device=device))
    # Only transitions with several depths are informative.
    shares = [each.of_clip(0) for each in explanation.branch_shares if len(each.temporal_depths) > 1]
    return ExplainedPixels(explanation.map_BTHW[0].cpu().numpy(), shares)


def write_explanation_video(path: str | os.PathLike[str], clip: ChosenClip, map_THW: npt.NDArray[np.floating]) -> None:
    """Write the clip under its map as an mp4 file, at its own speed."""
    # Imported only here: pyplot takes half a second.
    from pipelines.predict.explanation_pictures import overlay_frames

    seconds = max(clip.end_seconds - clip.start_seconds, 0.1)
    fps = min(_MAX_FPS, len(clip.clip_THWC) / seconds / clip.num_segments)
    write_playable(map(_enlarged, overlay_frames(clip.clip_THWC, map_THW)), path=path, fps=fps)


def _enlarged(frame_HWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Every pixel of a small frame several times, so that a player shows more than a stamp."""
    factor = -(-_MIN_PIXELS // min(frame_HWC.shape[:2]))
    return frame_HWC.repeat(factor, axis=0).repeat(factor, axis=1)
