"""Predictions become lines for a terminal: the highest classes of a video with bars."""

import sys
from collections.abc import Sequence

from pipelines.predict.ledger import PredictedVideo
from t3d_core.prediction.video_prediction import VideoPrediction

_BAR_WIDTH = 20
_BLOCK = "\N{FULL BLOCK}"
# One to seven eighths of a block.
_EIGHTHS = "\u258f\u258e\u258d\u258c\u258b\u258a\u2589"


def describe_video(result: PredictedVideo, class_names: Sequence[str], *, top: int) -> str:
    """The lines of one video.

    Args:
        result: of the video.
        class_names: of the network.
        top: most classes shown.
    """
    name = _one_line(result.video)
    if result.prediction is None:
        return f"{name}\n  FAILED: {_one_line(result.reason)}"
    lines = [f"{name}  ({_describe_clips(result.prediction)})"]
    ranked = [(class_names[label], score) for label, score in result.prediction.top(top)]
    width = max((len(label) for label, _ in ranked), default=0)
    lines += [f"  {label:{width}}  {draw_bar(score)}  {score:.3f}" for label, score in ranked]
    if result.prediction.feature_ND is not None:
        lines.append(f"  features of {result.prediction.feature_ND.shape[1]:,} numbers")
    return "\n".join(lines)


def draw_bar(share: float, *, is_unicode: bool | None = None) -> str:
    """A bar of 20 characters for a share in [0, 1]; of # where the terminal has no blocks."""
    if is_unicode is None:
        is_unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    if not is_unicode:
        return ("#" * round(share * _BAR_WIDTH)).ljust(_BAR_WIDTH, ".")
    whole, eighths = divmod(round(share * _BAR_WIDTH * 8), 8)
    return (_BLOCK * whole + (_EIGHTHS[eighths - 1] if eighths else "")).ljust(_BAR_WIDTH)


def _describe_clips(prediction: VideoPrediction) -> str:
    num_clips = len(prediction.start_N)
    clips = "1 clip" if num_clips == 1 else f"{num_clips:,} clips"
    padded = f", {prediction.num_padded} frames made up: shorter than a clip" if prediction.num_padded else ""
    return f"{prediction.start_N[0]:.1f} to {prediction.end_N.max():.1f} s, {clips}{padded}"


def _one_line(text: str) -> str:
    """Text without what moves the cursor: names of files may hold line breaks and control characters."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
