"""Rows of shards become decoded, cropped uint8 clips: what runs on the CPU workers.

Legend: B clips of a batch, T frames, H x W pixels, C channels; N rows of the index.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from pipelines.clips.batch import NumpyBatch
from pipelines.shards.index import ShardIndex
from t3d_core.errors import describe_error
from t3d_core.video.clip_sampling import (
    ClipIndices,
    ClipView,
    Stride,
    random_segments,
    uniform_clips,
)
from t3d_core.video.cropping import Crop, center_crop, mirrored, random_five_crop, random_resized_crop
from t3d_core.video.decoding import FrameView, decode_views
from t3d_core.video.sizes import resized_size


class View(Protocol):
    """The size at which a network sees frames."""

    @property
    def short_side(self) -> int:
        """Pixels of the shorter side to which frames are scaled."""

    @property
    def crop_size(self) -> int:
        """Side in pixels of the square that is then cut out."""


@dataclass(frozen=True)
class RandomCrop:
    """How clips are cut and mirrored in training (paper 4.4)."""

    crop: Literal["five_crop", "random_resized"] = "five_crop"
    min_area: float = 0.25
    flip: bool = True


class Drawn(NamedTuple):
    """Frames of a row as one network sees them: scaled to (height, width), cut, mirrored or not."""

    frame_indices: np.ndarray
    size: tuple[int, int]
    crop: Crop | None
    is_flipped: bool


@dataclass(frozen=True)
class BatchLoader:
    """Decodes rows on the CPU workers.

    Attributes:
        index: the rows.
        clip: how the network sees them.
        random_crop: how random clips are cut and mirrored.
        mirrored_label_K: label of a random clip, by the label of its row, where the clip is mirrored; by default the
            row's own.
    """

    index: ShardIndex
    clip: ClipView
    random_crop: RandomCrop = RandomCrop()
    mirrored_label_K: np.ndarray | None = None

    @property
    def bytes_a_clip(self) -> int:
        """Bytes of one decoded clip."""
        return sum(array.nbytes for array in self._blank().values() if isinstance(array, np.ndarray))

    def random_batch(self, rows: np.ndarray, seeds: list[list[int]]) -> NumpyBatch:
        """Load one random clip of each row; its place, crop and flip follow from the row's seed alone.

        Returns:
            `clip_BTHWC` uint8, `label_B`, `source_B`, `num_padded_B` and `reason_B`. A row that cannot be read or
            decoded gives zeros and the reason; `reason_B` is "" where all is well.
        """
        blank = self._blank()
        draws = [(int(row), np.random.default_rng(seed)) for row, seed in zip(rows, seeds, strict=True)]
        return self._stack([load_or_blank(self._random_clip, *draw, blank=blank) for draw in draws], rows)

    def center_batch(self, rows: np.ndarray) -> NumpyBatch:
        """Load the middle clip of each row, or `num_segments` at even distances, with the centre crop.

        What cannot be read or decoded is reported as in `random_batch`.
        """
        blank = self._blank_clip()
        return self._stack([load_or_blank(self._center_clip, int(row), blank=blank) for row in rows], rows)

    def stride_of(self, row: int) -> Stride:
        """Distance of the frames of a row's clips, in frames of the row."""
        return self.clip.stride_at(float(self.index.fps_N[row]))

    def test_size(self, row: int) -> tuple[int, int]:
        """(height, width) in pixels of a row's frames before they are cut."""
        return self._scaled_size(row, self.clip.short_side)

    def test_frames(self, row: int, frame_indices: np.ndarray, *, crop: Crop | None) -> np.ndarray:
        """Decode frames of a row at its `test_size`: `frames_THWC`, of the crop alone, or whole without a crop."""
        return self._decode(row, [Drawn(frame_indices, self.test_size(row), crop, False)])[0]

    def _center_clip(self, row: int) -> dict[str, Any]:
        clips = self._clips(row, self._uniform(row))
        if len(clips) == 1:
            return clips[0]
        return {
            "clip_BTHWC": np.stack([clip["clip_BTHWC"] for clip in clips]),
            "num_padded_B": sum(clip["num_padded_B"] for clip in clips),
        }

    def _uniform(self, row: int) -> list[ClipIndices]:
        return uniform_clips(
            int(self.index.num_frames_N[row]),
            num_clips=self.clip.num_segments,
            num_frames=self.clip.num_frames,
            frame_stride=self.stride_of(row),
            short_video=self.clip.short_video,
        )

    def _random_clip(self, row: int, rng: np.random.Generator) -> dict[str, Any]:
        clips = self._random_segments(row, rng)
        indices = np.concatenate([clip.frame_indices for clip in clips])
        drawn = self._draw(row, indices, self.clip, self.random_crop, rng)
        [frames_THWC] = self._decode(row, [drawn])
        num_padded = sum(clip.num_padded for clip in clips)
        return {
            "clip_BTHWC": self._in_segments(frames_THWC),
            "num_padded_B": num_padded,
            "is_flipped_B": drawn.is_flipped,
        }

    def _random_segments(self, row: int, rng: np.random.Generator) -> list[ClipIndices]:
        return random_segments(
            int(self.index.num_frames_N[row]),
            num_segments=self.clip.num_segments,
            num_frames=self.clip.num_frames,
            frame_stride=self.stride_of(row),
            short_video=self.clip.short_video,
            rng=rng,
            # Where odd stored frames are non-reference frames, even starts decode half as much at even strides.
            start_multiple=2 if self.index.is_h264_N[row] and self.stride_of(row) % 2 == 0 else 1,
        )

    def _draw(
        self,
        row: int,
        frame_indices: np.ndarray,
        view: View,
        random_crop: RandomCrop,
        rng: np.random.Generator,
    ) -> Drawn:
        size = self._scaled_size(row, view.short_side)
        if random_crop.crop == "random_resized":
            size, crop = random_resized_crop(*size, crop_size=view.crop_size, min_area=random_crop.min_area, rng=rng)
            is_flipped = bool(rng.integers(2))
        else:
            crop, is_flipped = random_five_crop(*size, crop_size=view.crop_size, rng=rng)
        return Drawn(frame_indices, size, crop, is_flipped and random_crop.flip)

    def _in_segments(self, frames_THWC: np.ndarray) -> np.ndarray:
        """Split the frames of S clips, (S * T, H, W, C), to (S, T, H, W, C); a single clip stays as it is."""
        num_segments = self.clip.num_segments
        if num_segments == 1:
            return frames_THWC
        return frames_THWC.reshape(num_segments, self.clip.num_frames, *frames_THWC.shape[1:])

    def _clips(self, row: int, clips: list[ClipIndices]) -> list[dict[str, Any]]:
        size = self._scaled_size(row, self.clip.short_side)
        crop = center_crop(*size, crop_size=self.clip.crop_size)
        indices = np.concatenate([clip.frame_indices for clip in clips])
        [frames_THWC] = self._decode(row, [Drawn(indices, size, crop, False)])
        cropped = frames_THWC.reshape(len(clips), self.clip.num_frames, crop.size, crop.size, 3)
        return [{"clip_BTHWC": c, "num_padded_B": clip.num_padded} for c, clip in zip(cropped, clips, strict=True)]

    def _decode(self, row: int, drawn: list[Drawn]) -> list[np.ndarray]:
        """Decode a row once for all views: `frames_THWC` of each."""
        offset = self.index.frame_offset_N[row]
        views = [FrameView(each.frame_indices + offset, each.size, each.crop) for each in drawn]
        key_distance = int(self.index.key_distance_N[row]) or None
        frames = decode_views(self.index.frames(row), views, key_distance=key_distance)
        return [mirrored(seen) if each.is_flipped else seen for each, seen in zip(drawn, frames, strict=True)]

    def _scaled_size(self, row: int, short_side: int) -> tuple[int, int]:
        return resized_size(int(self.index.height_N[row]), int(self.index.width_N[row]), short_side=short_side)

    def _blank(self) -> dict[str, Any]:
        """The replacement of a random clip that cannot be read."""
        return self._blank_clip() | {"is_flipped_B": False}

    def _blank_clip(self) -> dict[str, Any]:
        view = self.clip
        shape = (view.num_segments * view.num_frames, view.crop_size, view.crop_size, 3)
        return {"clip_BTHWC": self._in_segments(np.zeros(shape, np.uint8)), "num_padded_B": 0}

    def _stack(self, clips: list[dict[str, Any]], rows: np.ndarray) -> NumpyBatch:
        stacked = {name: np.stack([clip[name] for clip in clips]) for name in clips[0]}
        label_B = self.index.label_N[rows]
        is_flipped_B = stacked.pop("is_flipped_B", np.zeros(len(rows), bool))
        if self.mirrored_label_K is not None:
            label_B = np.where(is_flipped_B, self.mirrored_label_K[label_B], label_B)
        return stacked | {"label_B": label_B, "source_B": self.index.source_N[rows], "row_B": rows}


def load_or_blank(load: Callable[..., dict[str, Any]], *arguments: Any, blank: dict[str, Any]) -> dict[str, Any]:
    """Load a clip, or return `blank` and the reason: one damaged row must not end a run of days."""
    try:
        return load(*arguments) | {"reason_B": ""}
    except (ValueError, OSError) as error:  # damaged frames; a damaged or lost file (`shards.reading`)
        return blank | {"reason_B": describe_error(error)}
