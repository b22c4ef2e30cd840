"""When frames are shown (or nothing) and what is wanted go in, the frame ranges of the segments come out; numbers only.

    labelled video     one range: whole, or its interval    [============]
    unlabelled video   tiles of L seconds                   [====][====][==]    as many frames each, or by their times
    unlabelled video   N random windows of L seconds        --[====]----|[====]----   one in each of N equal strata

A range is (first, stop): frames first <= k < stop, stop None for the end of the video.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from t3d_core.errors import UserError

FrameRange = tuple[int, int | None]
FloatArray = npt.NDArray[np.float64]

# Times are written down in decimals and come in ticks: far below any frame's duration, far above rounding.
_ROUNDING_SECONDS = 1e-6
_MAX_PIECE_FRAMES = 1 << 40  # more than any file holds: a hostile frame rate must not overflow


class FrameRanges(NamedTuple):
    """Stretches of frames, ascending and apart, each cut into pieces of at most `piece_frames`; None keeps it whole."""

    stretches: list[FrameRange]
    piece_frames: int | None

    def pieces(self) -> Iterator[FrameRange]:
        """The ranges of the segments; for a stretch without an end they never end: stop where the frames do."""
        for first, stop in self.stretches:
            if self.piece_frames is None:
                yield first, stop
                continue
            while stop is None or first < stop:
                end = first + self.piece_frames
                yield first, end if stop is None else min(end, stop)
                first = end


@dataclass(frozen=True)
class SegmentRequest:
    """Which part of a video becomes which segments; the attributes are described at `storage.encode_segments`."""

    start_seconds: float | None = None
    end_seconds: float | None = None
    max_segment_seconds: float | None = None
    num_random_segments: int | None = None
    seed: int | Sequence[int] = 0

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            bounds = f"{self.start_seconds} and {self.end_seconds}"
            raise UserError(f"start_seconds must be >= 0 and before end_seconds, got {bounds}")
        if self.max_segment_seconds is not None and not self.max_segment_seconds > 0:
            raise UserError(f"max_segment_seconds must be > 0, got {self.max_segment_seconds}")
        if self.num_random_segments is None:
            return
        if self.num_random_segments < 1:
            raise UserError(f"num_random_segments must be >= 1, got {self.num_random_segments}")
        if self.max_segment_seconds is None or self.has_interval:
            raise UserError("num_random_segments needs max_segment_seconds and takes no start_seconds or end_seconds")

    @property
    def start(self) -> float:
        """Seconds, included."""
        return self.start_seconds or 0.0

    @property
    def end(self) -> float:
        """Seconds, excluded; infinite for the end of the video."""
        return math.inf if self.end_seconds is None else self.end_seconds

    @property
    def has_interval(self) -> bool:
        """Whether less than the whole video is wanted by its times."""
        return self.start > 0 or self.end < math.inf

    @property
    def needs_times(self) -> bool:
        """Whether the ranges depend on when frames are shown."""
        return self.has_interval or self.num_random_segments is not None

    def frame_ranges(self, seconds: FloatArray | None, *, fps: float | None) -> FrameRanges:
        """What to read.

        Args:
            seconds: when each frame is shown on the clock of the file; None only where `needs_times` is false and the
                rate is known.
            fps: frames a second, for pieces of as many frames each. None cuts the pieces by `seconds`; frames that
                are unevenly apart are cut so in any case.
        """
        if self.num_random_segments is not None:
            return self._random_windows(seconds)
        stretches: list[FrameRange] = [(0, None)]
        if self.has_interval:
            assert seconds is not None
            stretches = interval_range(seconds, start_seconds=self.start, end_seconds=self.end)
        if self.max_segment_seconds is None or not stretches:
            return FrameRanges(stretches, None)
        [(first, stop)] = stretches
        shown = None if seconds is None else np.maximum.accumulate(seconds[first:stop])
        if fps is not None:
            piece_frames = self._piece_frames(fps)
            if shown is None or self.is_even(shown, fps=fps):
                return FrameRanges(stretches, piece_frames)
        assert shown is not None
        starts = [first + start for start in _starts_by_time(shown, self.max_segment_seconds)]
        return FrameRanges(list(zip(starts, [*starts[1:], stop], strict=True)), None)

    def is_even(self, shown: FloatArray, *, fps: float) -> bool:
        """Whether pieces of as many frames each last no longer than asked, by ascending times of frames or packets."""
        if self.max_segment_seconds is None or not len(shown):
            return True
        return _longest_piece(shown, self._piece_frames(fps)) <= self.max_segment_seconds + 2 / fps

    def _piece_frames(self, fps: float) -> int:
        assert self.max_segment_seconds is not None
        return max(1, int(min(self.max_segment_seconds * fps, _MAX_PIECE_FRAMES)))

    def _random_windows(self, seconds: FloatArray | None) -> FrameRanges:
        assert seconds is not None
        assert self.num_random_segments is not None
        assert self.max_segment_seconds is not None
        windows = random_ranges(
            seconds, num_segments=self.num_random_segments, segment_seconds=self.max_segment_seconds, seed=self.seed
        )
        return FrameRanges(windows, None)


def _longest_piece(shown: FloatArray, piece_frames: int) -> float:
    """Seconds from the first frame of a piece to that of the next, at most; ascending times go in."""
    starts = np.arange(0, len(shown), piece_frames)
    ends = np.minimum(starts + piece_frames, len(shown) - 1)
    return float((shown[ends] - shown[starts]).max())


def _starts_by_time(shown: FloatArray, segment_seconds: float) -> list[int]:
    """First frames of the pieces where frames are unevenly apart; a piece without a frame is none."""
    tiles = np.floor((shown - shown[0] + _ROUNDING_SECONDS) / segment_seconds)
    return [0, *(np.flatnonzero(np.diff(tiles)) + 1).tolist()]


def interval_range(seconds: FloatArray, *, start_seconds: float, end_seconds: float) -> list[FrameRange]:
    """Frames shown from `start_seconds` on and before `end_seconds`: one range, or none.

    Args:
        seconds: when each frame is shown on the clock of the file; need not ascend (AVI): a range has no holes then.
        start_seconds: included.
        end_seconds: excluded; after the last frame gives stop None.
    """
    is_begun, is_over = seconds >= start_seconds - _ROUNDING_SECONDS, seconds >= end_seconds - _ROUNDING_SECONDS
    stop = int(is_over.argmax()) if is_over.any() else None
    first = int(is_begun.argmax()) if is_begun.any() else len(seconds)
    return [(first, stop)] if first < (len(seconds) if stop is None else stop) else []


def random_ranges(
    seconds: FloatArray, *, num_segments: int, segment_seconds: float, seed: int | Sequence[int]
) -> list[FrameRange]:
    """One window at a random place in each of equal strata; ascending, without overlap, none empty.

    Args:
        seconds: when each frame is shown.
        num_segments: windows wanted; a video shorter than all of them together gives fewer, at least one.
        segment_seconds: length of a window; a shorter video gives one window, the whole.
        seed: of numpy's default generator; equal arguments give equal windows.
    """
    if not len(seconds):
        return []
    shown = np.maximum.accumulate(seconds) - seconds[0]
    # The last frame is shown as long as the others on average.
    duration = float(shown[-1]) * (1 + 1 / max(1, len(shown) - 1))
    count = int(min(num_segments, max(1, duration // segment_seconds)))
    stratum = duration / count
    starts = np.arange(count) * stratum
    starts += np.random.default_rng(seed).random(count) * max(0.0, stratum - segment_seconds)
    # From the frame that is on screen at the start: a window of a slide show has a frame as well.
    firsts = np.searchsorted(shown, starts + _ROUNDING_SECONDS, side="right") - 1
    stops = np.searchsorted(shown, starts + segment_seconds - _ROUNDING_SECONDS, side="left")
    ranges: list[FrameRange] = []
    previous_stop = 0
    for first, stop in zip(firsts.tolist(), stops.tolist(), strict=True):
        first = max(first, previous_stop)
        if first < stop:
            ranges.append((first, stop))
            previous_stop = stop
    return ranges
