"""Scores of the clips of one video go in, smoothed scores and segments of one class come out.

    clips       [0.......2]                             neighbours that overlap share a border, halfway between
                     [1.......3]        [6.......8]     their centres; a gap ends a segment
    segments    |jump....|run..|        |run......|

Legend: N clips of one video in the order of time, K classes.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from t3d_core.errors import UserError

_WINDOW_IN_DEVIATIONS = 4  # the window ends two standard deviations before and after its centre
_ROUNDING_SECONDS = 1e-6  # clips that touch may differ by the rounding of their times


@dataclass(frozen=True)
class Segment:
    """A stretch of a video in which one class is on top.

    Attributes:
        start_seconds: its begin, included.
        end_seconds: its end, excluded.
        label: number of the class, from 0.
        score: mean smoothed score of the class over the clips of the stretch.
    """

    start_seconds: float
    end_seconds: float
    label: int
    score: float

    def in_words(self, class_names: Sequence[str]) -> str:
        """Describe the segment in one line: `0:12-0:31 jumping 0.83`."""
        start, end = format_seconds(self.start_seconds), format_seconds(self.end_seconds)
        return f"{start}-{end} {class_names[self.label]} {self.score:.2f}"


@dataclass(frozen=True)
class Timeline:
    """What the clips of one video score; `make_timeline` checks and smooths.

    Attributes:
        start_seconds_N: float64, ascending; begin of each clip.
        end_seconds_N: float64, ascending; end of each clip, after its begin.
        score_NK: float32 probabilities.
        smoothed_NK: float32, the weighted mean of a clip's score and those of its neighbours.
        max_gap_seconds: neighbours that are no further apart belong together; a longer gap ends a segment.
    """

    start_seconds_N: npt.NDArray[np.float64]
    end_seconds_N: npt.NDArray[np.float64]
    score_NK: npt.NDArray[np.float32]
    smoothed_NK: npt.NDArray[np.float32]
    max_gap_seconds: float = 0.0

    @property
    def centre_seconds_N(self) -> npt.NDArray[np.float64]:
        """The middle of each clip."""
        return (self.start_seconds_N + self.end_seconds_N) / 2

    @property
    def is_after_gap_N(self) -> npt.NDArray[np.bool_]:
        """Whether a clip is the first one, or a gap is before it."""
        gap_seconds = self.start_seconds_N[1:] - self.end_seconds_N[:-1]
        return np.concatenate([[True], gap_seconds > self.max_gap_seconds + _ROUNDING_SECONDS])

    def spans(self) -> "Spans":
        """Give the time that belongs to each clip alone: up to the borders with its neighbours."""
        middle = (self.centre_seconds_N[:-1] + self.centre_seconds_N[1:]) / 2
        # Clips of different lengths: no border is outside both clips and the gap between them.
        next_start, end = self.start_seconds_N[1:], self.end_seconds_N[:-1]
        border = np.clip(middle, np.minimum(next_start, end), np.maximum(next_start, end))
        is_gap = self.is_after_gap_N[1:]
        return Spans(
            np.concatenate([self.start_seconds_N[:1], np.where(is_gap, next_start, border)]),
            np.concatenate([np.where(is_gap, end, border), self.end_seconds_N[-1:]]),
        )

    def segments(self, *, min_seconds: float = 0.0) -> list[Segment]:
        """Cut the covered time into the longest stretches in which one class has the highest smoothed score.

        A stretch shorter than `min_seconds` joins the neighbour whose class scores higher in it, the shortest stretch
        first. A stretch between two gaps has no neighbour and stays.

        Args:
            min_seconds: 0 keeps every stretch that has a length.

        Returns:
            Segments in the order of time. They do not overlap, and together they cover what the clips cover.
        """
        _check_not_negative("min_seconds", min_seconds)
        spans = self.spans()
        firsts = [*np.flatnonzero(self.is_after_gap_N).tolist(), len(self.score_NK)]
        return [
            Segment(
                float(spans.start_seconds_N[first]),
                float(spans.end_seconds_N[stop - 1]),
                label,
                float(self.smoothed_NK[first:stop, label].mean(dtype=np.float64)),
            )
            for run_first, run_stop in itertools.pairwise(firsts)
            for first, stop, label in self._stretches(spans, run_first, run_stop, min_seconds)
        ]

    def _stretches(self, spans: "Spans", first: int, stop: int, min_seconds: float) -> list[tuple[int, int, int]]:
        """(first clip, clip after the last, label) of the stretches of clips without a gap between them."""
        top = self.smoothed_NK[first:stop].argmax(axis=1)
        starts = first + np.flatnonzero(np.concatenate([[True], top[1:] != top[:-1]]))
        labels = top[starts - first]
        while len(starts) > 1:
            seconds = np.diff([*spans.start_seconds_N[starts], spans.end_seconds_N[stop - 1]])
            shortest = int(seconds.argmin())
            if seconds[shortest] > 0 and seconds[shortest] >= min_seconds:
                break
            end = starts[shortest + 1] if shortest + 1 < len(starts) else stop
            neighbours = [place for place in (shortest - 1, shortest + 1) if 0 <= place < len(labels)]
            mean_K = self.smoothed_NK[starts[shortest] : end].mean(axis=0)
            labels[shortest] = max((labels[place] for place in neighbours), key=lambda label: mean_K[label])
            is_kept = np.concatenate([[True], labels[1:] != labels[:-1]])
            starts, labels = starts[is_kept], labels[is_kept]
        stops = [*starts[1:].tolist(), stop]
        return list(zip(starts.tolist(), stops, labels.tolist(), strict=True))


class Spans(NamedTuple):
    """The time of each clip alone, half-open; spans do not overlap.

    Attributes:
        start_seconds_N: float64, ascending.
        end_seconds_N: float64, ascending.
    """

    start_seconds_N: npt.NDArray[np.float64]
    end_seconds_N: npt.NDArray[np.float64]

    def clip_at(self, seconds: float) -> int | None:
        """Find the clip that a moment belongs to; None in a gap, and before and after all clips."""
        clip = int(np.searchsorted(self.start_seconds_N, seconds, side="right")) - 1
        return clip if clip >= 0 and seconds < self.end_seconds_N[clip] else None


def make_timeline(
    start_seconds_N: npt.NDArray[np.float64],
    end_seconds_N: npt.NDArray[np.float64],
    score_NK: npt.NDArray[np.float32],
    *,
    window_seconds: float = 0.0,
    max_gap_seconds: float = 0.0,
) -> Timeline:
    """Smooth the scores of the clips of one video.

    A smoothed score is the mean over all clips whose centres lie in a window around the clip's own centre, weighted
    by a Gaussian of their distance in seconds. A plain mean would let a clip count fully until it leaves the window,
    and a peak would become a step. Weights are divided by their sum over the clips that exist. So nothing is made up
    before the first clip and after the last, and probabilities still add up to 1.

    Args:
        start_seconds_N: ascending; clips may overlap.
        end_seconds_N: ascending; each after its start.
        score_NK: probabilities.
        window_seconds: whole width of the window, four standard deviations; 0 leaves the scores as they are.
        max_gap_seconds: of `Timeline`; at least the gap between clips where their stride is longer than they are.
    """
    _check_not_negative("window_seconds", window_seconds)
    _check_not_negative("max_gap_seconds", max_gap_seconds)
    assert len(score_NK) == len(start_seconds_N) == len(end_seconds_N) > 0
    assert np.all(np.diff(start_seconds_N) >= 0)
    assert np.all(np.diff(end_seconds_N) >= 0)
    assert np.all(end_seconds_N > start_seconds_N)
    centre_seconds_N = (start_seconds_N + end_seconds_N) / 2
    smoothed_NK = _smoothed(centre_seconds_N, score_NK, window_seconds) if window_seconds else score_NK
    return Timeline(start_seconds_N, end_seconds_N, score_NK, smoothed_NK, max_gap_seconds)


def format_seconds(seconds: float) -> str:
    """Write a moment as players do, rounded down to whole seconds: `0:12`, `1:02:03`."""
    whole = int(max(0.0, seconds) + _ROUNDING_SECONDS)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def _smoothed(
    centre_seconds_N: npt.NDArray[np.float64], score_NK: npt.NDArray[np.float32], window_seconds: float
) -> npt.NDArray[np.float32]:
    """Add to each clip the clip that is 1, 2, ... places before and after it, until no pair is in one window."""
    sum_NK = score_NK.astype(np.float64)
    weight_N1 = np.ones((len(score_NK), 1))
    for places in range(1, len(score_NK)):
        distance = (centre_seconds_N[places:] - centre_seconds_N[:-places])[:, None]
        is_near = distance <= window_seconds / 2
        if not is_near.any():
            break
        weight = np.exp(-0.5 * (distance * _WINDOW_IN_DEVIATIONS / window_seconds) ** 2) * is_near
        sum_NK[places:] += weight * score_NK[:-places]
        sum_NK[:-places] += weight * score_NK[places:]
        weight_N1[places:] += weight
        weight_N1[:-places] += weight
    return (sum_NK / weight_N1).astype(np.float32)


def _check_not_negative(name: str, value: float) -> None:
    if not value >= 0:
        raise UserError(f"{name} must be >= 0 seconds, got {value}")
