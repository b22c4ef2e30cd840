"""Rows of shards become decoded, cropped uint8 clips: what runs on the CPU workers.

Legend: B clips of a batch, T frames, H x W pixels, C channels; N rows of the index.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.shard_index import ShardIndex
from t3d_core.video.clip_sampling import ClipIndices, ShortVideo, non_overlapping_clips, random_clip, uniform_clips
from t3d_core.video.cropping import Crop, center_crop, random_five_crop, resized_size
from t3d_core.video.decoding import decode_frames

NumpyBatch = dict[str, np.ndarray]

# Clips of a long video that are decoded at once.
_TEST_CLIPS_AT_ONCE = 8


@dataclass(frozen=True)
class ClipView:
    """How the network sees a clip: sizes in pixels, frames in numbers."""

    num_frames: int
    frame_stride: int
    crop_size: int
    short_side: int
    short_video: ShortVideo


@dataclass(frozen=True)
class TeacherView:
    """How the 2D teacher sees the frames of the same clip."""

    num_frames: int
    crop_size: int
    short_side: int


@dataclass(frozen=True)
class BatchLoader:
    """Decodes the rows it is told to: what runs on the CPU workers."""

    index: ShardIndex
    clip: ClipView
    teacher: TeacherView | None = None

    def random_batch(self, rows: np.ndarray, seeds: list[list[int]]) -> NumpyBatch:
        """Load one random clip of each row: its place, crop and flip follow from the row's seed alone.

        Returns:
            `clip_BTHWC` uint8, `label_B`, `source_B`, `num_padded_B`, and `teacher_frames_BTHWC` uint8 for a teacher;
            the two crops and flips are independent, the frames are of the same time.
        """
        return self._stack(
            [self._random_clip(int(row), np.random.default_rng(s)) for row, s in zip(rows, seeds, strict=True)], rows
        )

    def center_batch(self, rows: np.ndarray) -> NumpyBatch:
        """Load the middle clip of each row with the centre crop."""
        clips = [self._clips(int(row), self._uniform(int(row)))[0] for row in rows]
        return self._stack(clips, rows)

    def test_clips(self, row: int) -> Iterator[NumpyBatch]:
        """Load all non-overlapping clips of a row with the centre crop, a few at once (paper 4.4, Testing)."""
        clips = non_overlapping_clips(
            int(self.index.num_frames_N[row]),
            num_frames=self.clip.num_frames,
            frame_stride=self.clip.frame_stride,
            short_video=self.clip.short_video,
        )
        for first in range(0, len(clips), _TEST_CLIPS_AT_ONCE):
            loaded = self._clips(row, clips[first : first + _TEST_CLIPS_AT_ONCE])
            yield self._stack(loaded, np.full(len(loaded), row))

    def _uniform(self, row: int) -> list[ClipIndices]:
        return uniform_clips(
            int(self.index.num_frames_N[row]),
            num_clips=1,
            num_frames=self.clip.num_frames,
            frame_stride=self.clip.frame_stride,
            short_video=self.clip.short_video,
        )

    def _random_clip(self, row: int, rng: np.random.Generator) -> dict[str, Any]:
        clip = random_clip(
            int(self.index.num_frames_N[row]),
            num_frames=self.clip.num_frames,
            frame_stride=self.clip.frame_stride,
            short_video=self.clip.short_video,
            rng=rng,
            # Odd stored frames are non-reference frames: at even strides, even starts decode half as much.
            start_multiple=1 + (self.clip.frame_stride % 2 == 0),
        )
        loaded = {
            "clip_BTHWC": self._random_view(row, clip.frame_indices, self.clip, rng),
            "num_padded_B": clip.num_padded,
        }
        if self.teacher is not None:
            chosen = np.linspace(0, self.clip.num_frames - 1, self.teacher.num_frames).round().astype(np.int64)
            loaded["teacher_frames_BTHWC"] = self._random_view(row, clip.frame_indices[chosen], self.teacher, rng)
        return loaded

    def _random_view(
        self, row: int, frame_indices: np.ndarray, view: ClipView | TeacherView, rng: np.random.Generator
    ) -> np.ndarray:
        size = self._scaled_size(row, view.short_side)
        crop, is_flipped = random_five_crop(*size, crop_size=view.crop_size, rng=rng)
        frames_THWC = self._decode(row, frame_indices, size=size, crop=crop)
        return frames_THWC[:, :, ::-1].copy() if is_flipped else frames_THWC

    def _clips(self, row: int, clips: list[ClipIndices]) -> list[dict[str, Any]]:
        size = self._scaled_size(row, self.clip.short_side)
        crop = center_crop(*size, crop_size=self.clip.crop_size)
        indices = np.concatenate([clip.frame_indices for clip in clips])
        frames_THWC = self._decode(row, indices, size=size, crop=crop)
        cropped = frames_THWC.reshape(len(clips), self.clip.num_frames, crop.size, crop.size, 3)
        return [{"clip_BTHWC": c, "num_padded_B": clip.num_padded} for c, clip in zip(cropped, clips, strict=True)]

    def _decode(self, row: int, frame_indices: np.ndarray, *, size: tuple[int, int], crop: Crop) -> np.ndarray:
        return decode_frames(
            self.index.frames(row),
            frame_indices + self.index.frame_offset_N[row],
            size=size,
            crop=crop,
            key_distance=int(self.index.key_distance_N[row]) or None,
        )

    def _scaled_size(self, row: int, short_side: int) -> tuple[int, int]:
        return resized_size(int(self.index.height_N[row]), int(self.index.width_N[row]), short_side=short_side)

    def _stack(self, clips: list[dict[str, Any]], rows: np.ndarray) -> NumpyBatch:
        stacked = {name: np.stack([clip[name] for clip in clips]) for name in clips[0]}
        return stacked | {"label_B": self.index.label_N[rows], "source_B": self.index.source_N[rows], "row_B": rows}
