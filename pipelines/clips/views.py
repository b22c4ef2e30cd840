"""Rows of shards become the views that testing scores, with consecutive numbers, so that any task can load any view.

A view is what the network scores at once: a clip in one crop, or S clips of the video for a network of S segments.

    video    0                     1               2 ...
    clip     0        1            0        1      0
    crop     0  1  2  0  1  2      0  1  2  0  1   2  ...
    view     0  1  2  3  4  5      6  7  8  9  10  11 ...
             [batch 0   ][batch 1     ][batch 2     ]...       all full except the last

Legend: B views of a batch, S segments, T frames, H x W pixels, C channels; N rows of the index.
"""

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.clips.batch import NumpyBatch
from pipelines.clips.loader import BatchLoader
from t3d_core.errors import describe_error
from t3d_core.video.clip_sampling import ClipIndices, testing_views
from t3d_core.video.cropping import crop_frames, mirrored, view_crops

# The clips of one view.
Clips = tuple[ClipIndices, ...]


@dataclass(frozen=True)
class ViewPlan:
    """Which views are scored, and how they are loaded: what runs on the CPU workers.

    Attributes:
        loader: decodes.
        num_crops: as `view_crops`.
        num_clips: clips of every video, at even distances; None: all that do not overlap (paper 4.4). A network of
            segments always takes as many clips as it has segments.
    """

    loader: BatchLoader
    num_crops: int = 1
    num_clips: int | None = None

    @property
    def num_views(self) -> int:
        """Views of all rows."""
        return int(self._stop_N[-1])

    def batch(self, views: range) -> NumpyBatch:
        """Load views by number; a video that cannot be read or decoded gives empty views and the reason.

        Returns:
            `clip_BSTHWC` uint8, `row_B`, `num_padded_B` (frames that are made up), `reason_B` ("" where all is well).
        """
        parts = [self._load(row, numbers) for row, numbers in self._by_row(views)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    @functools.cached_property
    def _stop_N(self) -> np.ndarray:
        """The number of the first view after each row (N,)."""
        return np.cumsum([len(self._clips(row)) * self.num_crops for row in range(len(self.loader.index))])

    def _clips(self, row: int) -> list[Clips]:
        """The clips of a row's views of one crop, in order of time."""
        loader = self.loader
        num_frames = int(loader.index.num_frames_N[row])
        return testing_views(loader.clip, num_frames, frame_stride=loader.stride_of(row), num_clips=self.num_clips)

    def _by_row(self, views: range) -> Iterator[tuple[int, list[int]]]:
        """Rows of views, and the views' numbers within each."""
        row_B = np.searchsorted(self._stop_N, views, side="right")
        for row, group in itertools.groupby(zip(row_B.tolist(), views, strict=True), key=lambda pair: pair[0]):
            first = int(self._stop_N[row - 1]) if row else 0
            yield row, [view - first for _, view in group]

    def _load(self, row: int, numbers: Sequence[int]) -> NumpyBatch:
        clips = self._clips(row)
        chosen = [clips[number // self.num_crops] for number in numbers]
        try:
            clip_BSTHWC, reason = self._decode(row, clips, numbers), ""
        except (ValueError, OSError) as error:  # damaged frames, or a damaged or lost file (Arrow's are among these)
            view = self.loader.clip
            shape = (len(numbers), view.num_segments, view.num_frames, view.crop_size, view.crop_size, 3)
            clip_BSTHWC, reason = np.zeros(shape, np.uint8), describe_error(error)
        return {
            "clip_BSTHWC": clip_BSTHWC,
            "row_B": np.full(len(numbers), row),
            "num_padded_B": np.array([sum(clip.num_padded for clip in clips) for clips in chosen]),
            "reason_B": np.array([reason] * len(numbers)),
        }

    def _decode(self, row: int, clips: Sequence[Clips], numbers: Sequence[int]) -> np.ndarray:
        """Decode the frames of some views once, whatever the crops they share, and cut them: `clip_BSTHWC`."""
        view = self.loader.clip
        crops = view_crops(*self.loader.test_size(row), crop_size=view.crop_size, num_crops=self.num_crops)
        # The decoder cuts a single crop, which leaves less to scale.
        common = crops[0][0] if self.num_crops == 1 else None
        wanted = range(numbers[0] // self.num_crops, numbers[-1] // self.num_crops + 1)
        indices = np.concatenate([clip.frame_indices for number in wanted for clip in clips[number]])
        frames_THWC = self.loader.test_frames(row, indices, crop=common)
        clip_VTHWC = frames_THWC.reshape(len(wanted), -1, *frames_THWC.shape[1:])
        cut = []
        for clip_number, crop_number in (divmod(number, self.num_crops) for number in numbers):
            clip_THWC, (crop, is_mirrored) = clip_VTHWC[clip_number - wanted.start], crops[crop_number]
            square_THWC = clip_THWC if common else crop_frames(clip_THWC, crop)
            cut.append(mirrored(square_THWC) if is_mirrored else square_THWC)
        return np.stack(cut).reshape(len(numbers), view.num_segments, view.num_frames, *cut[0].shape[1:])
