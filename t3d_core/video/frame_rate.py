"""The rate that a header states and the time stamps of the frames go in, the rate to believe comes out; numbers only.

Browser recordings and webcams state 1000 frames a second, or none, and give every frame its time.
"""

from fractions import Fraction

import numpy as np
import numpy.typing as npt

# Frames that a recorder dropped are no reason to mistrust a header; stamps in milliseconds are rounded.
_MAX_DIFFERENCE, _ROUNDING_SECONDS = 0.02, 0.002
_MAX_DENOMINATOR = 1001  # of 30000/1001; stamps are not exact enough for more


def agrees(stated: Fraction | None, seconds: npt.NDArray[np.float64]) -> bool:
    """Whether the stated rate explains how long the frames take.

    Args:
        stated: frames a second; None where the header states none, which agrees with nothing.
        seconds: time stamps of the frames, in any order. Fewer than two contradict no rate.
    """
    span_seconds = _span(seconds)
    if stated is None or not span_seconds:
        return stated is not None
    difference = abs((len(seconds) - 1) / float(stated) - span_seconds)
    return difference <= _MAX_DIFFERENCE * span_seconds + _ROUNDING_SECONDS


def believed_rate(stated: Fraction | None, seconds: npt.NDArray[np.float64]) -> Fraction | None:
    """The stated rate where it agrees with the time stamps, else theirs; None where there is neither."""
    span_seconds = _span(seconds)
    if not span_seconds or agrees(stated, seconds):
        return stated
    measured = (len(seconds) - 1) / Fraction(span_seconds)
    return measured.limit_denominator(_MAX_DENOMINATOR) if measured >= 1 else measured


def _span(seconds: npt.NDArray[np.float64]) -> float:
    """From the first to the last time stamp; 0 where they measure nothing."""
    return float(np.ptp(seconds)) if len(seconds) else 0.0
