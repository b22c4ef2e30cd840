"""Rows of shards become decoded, cropped uint8 clips: what runs on the CPU workers.

Legend: B clips of a batch, T frames, H x W pixels, C channels; N rows of the index.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from pipelines.shard_index import ShardIndex
from pipelines.teacher_features import FeatureFiles
from t3d_core.video.clip_sampling import ClipIndices, ShortVideo, clip_span, random_segments, uniform_clips
from t3d_core.video.cropping import (
    Crop,
    center_crop,
    mirrored,
    random_five_crop,
    random_resized_crop,
    resized_size,
)
from t3d_core.video.decoding import decode_frames

NumpyBatch = dict[str, np.ndarray]

_OTHER_TIMES = 8  # draws of another time of a row, of which the farthest is taken


@dataclass(frozen=True)
class ClipView:
    """How the network sees a clip: sizes in pixels, frames in numbers."""

    num_frames: int
    frame_stride: int
    crop_size: int
    short_side: int
    short_video: ShortVideo
    num_segments: int = 1


@dataclass(frozen=True)
class RandomCrop:
    """How the network's clips are cut and mirrored in training (paper 4.4); a teacher's always are by the defaults."""

    crop: Literal["five_crop", "random_resized"] = "five_crop"
    min_area: float = 0.25
    flip: bool = True


@dataclass(frozen=True)
class TeacherView:
    """How the 2D teacher sees the frames of the same clip.

    Attributes:
        num_frames: frames of the clip that it sees, evenly spread.
        crop_size: pixels of its square.
        short_side: pixels of the shorter side that it is cut from.
        is_shared_crop: cut and mirrored as the clip is; false: with a crop and a flip of its own.
        is_literal: each pair is drawn anew: frames of the clip's time, or of a clip of another source.
        has_other_time: frames of another time of the same row come too, as far from the clip as the row allows.
        num_views: clips start, and teachers' crops lie, at so many places of a row, the same in every epoch; none:
            anywhere.
        features: where the features of these views lie; none: frames are decoded for a teacher.
    """

    num_frames: int
    crop_size: int
    short_side: int
    is_shared_crop: bool = False
    is_literal: bool = False
    has_other_time: bool = False
    num_views: int | None = None
    features: FeatureFiles | None = None


class _Moment(NamedTuple):
    """A drawn time of a row: its clips, the view it is of, and what draws the teacher's crop."""

    row: int
    clips: list[ClipIndices]
    view: int | None
    rng: np.random.Generator

    @property
    def frame_indices(self) -> np.ndarray:
        return np.concatenate([clip.frame_indices for clip in self.clips])


@dataclass(frozen=True)
class BatchLoader:
    """Decodes the rows it is told to: what runs on the CPU workers."""

    index: ShardIndex
    clip: ClipView
    teacher: TeacherView | None = None
    random_crop: RandomCrop = RandomCrop()

    @property
    def bytes_a_clip(self) -> int:
        """Decoded, with the teacher's frames."""
        blank = self._blank(has_teacher=self.teacher is not None)
        return sum(array.nbytes for array in blank.values() if isinstance(array, np.ndarray))

    @property
    def teacher_positions(self) -> np.ndarray:
        """Which frames of a clip the teacher sees, evenly spread: 0-based, int64."""
        assert self.teacher is not None, "asked for a teacher only"
        return np.linspace(0, self.clip.num_frames - 1, self.teacher.num_frames).round().astype(np.int64)

    def random_batch(self, rows: np.ndarray, seeds: list[list[int]]) -> NumpyBatch:
        """Load one random clip of each row: its place, crop and flip follow from the row's seed alone.

        Returns:
            `clip_BTHWC` uint8, `label_B`, `source_B`, `num_padded_B`, `reason_B`, and for a teacher either
            `teacher_frames_BTHWC` uint8 or its features `teacher_BD`: of the time of the clip, or as `is_match_B` says;
            where the teacher's view asks for it, the same of another time as `other_...`, and `is_other_time_B`, false
            where the row is too short for one that shares no frame with the clip.
            A row that cannot be read or decoded gives zeros and the reason; `reason_B` is "" where all is well.
        """
        blank = self._blank(has_teacher=self.teacher is not None)
        draws = [(int(row), np.random.default_rng(seed)) for row, seed in zip(rows, seeds, strict=True)]
        return self._stack([_load_or_tell(self._random_clip, *draw, blank=blank) for draw in draws], rows)

    def center_batch(self, rows: np.ndarray) -> NumpyBatch:
        """Load the middle clip of each row, or `num_segments` at even distances, with the centre crop.

        What cannot be read or decoded is told as in `random_batch`.
        """
        blank = self._blank(has_teacher=False)
        return self._stack([_load_or_tell(self._center_clip, int(row), blank=blank) for row in rows], rows)

    def test_size(self, row: int) -> tuple[int, int]:
        """(height, width) in pixels of a row's frames before they are cut."""
        return self._scaled_size(row, self.clip.short_side)

    def test_frames(self, row: int, frame_indices: np.ndarray, *, crop: Crop | None) -> np.ndarray:
        """Decode frames of a row at its `test_size`: `frames_THWC`, of the crop alone or, for none, whole."""
        return self._decode(row, frame_indices, size=self.test_size(row), crop=crop)

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
            frame_stride=self.clip.frame_stride,
            short_video=self.clip.short_video,
        )

    def view_batch(self, rows: np.ndarray, views: np.ndarray) -> NumpyBatch:
        """Load what the teacher sees in views of rows, for the pass that computes its features.

        Returns:
            `teacher_frames_BTHWC` uint8, `start_B` (first frame of the view) and `reason_B`, as in `random_batch`.
        """

        def load(row: int, view: int) -> dict[str, Any]:
            moment = self._moment_of_view(row, view)
            return self._teacher_sees(moment) | {"start_B": int(moment.frame_indices[0])}

        blank = {"start_B": -1, "teacher_frames_BTHWC": self._blank_teacher()["teacher_frames_BTHWC"]}
        loaded = [_load_or_tell(load, int(r), int(v), blank=blank) for r, v in zip(rows, views, strict=True)]
        return {name: np.stack([each[name] for each in loaded]) for name in loaded[0]}

    def _random_clip(self, row: int, rng: np.random.Generator) -> dict[str, Any]:
        moment = self._random_moment(row, rng)
        is_shared_crop = self.teacher is not None and self.teacher.is_shared_crop
        crop_rng = copy.deepcopy(moment.rng) if is_shared_crop else rng
        frames_THWC = self._random_view(row, moment.frame_indices, self.clip, self.random_crop, crop_rng)
        loaded = {
            "clip_BTHWC": self._in_segments(frames_THWC),
            "num_padded_B": sum(clip.num_padded for clip in moment.clips),
        }
        if self.teacher is not None and self.teacher.is_literal:
            is_match = bool(rng.integers(2))
            moment = moment if is_match else self._random_moment(self._row_of_another_source(row, rng), rng)
            loaded["is_match_B"] = is_match
        if self.teacher is not None and self.teacher.has_other_time:
            loaded |= self._another_time(moment)
        return loaded if self.teacher is None else loaded | self._teacher_sees(moment)

    def _another_time(self, moment: _Moment) -> dict[str, Any]:
        assert self.teacher is not None, "asked for a teacher only"
        rng = np.random.default_rng([moment.row, int(moment.frame_indices[0])])
        if self.teacher.num_views is None:
            drawn = [self._random_moment(moment.row, rng) for _ in range(_OTHER_TIMES)]
        else:
            drawn = [self._moment_of_view(moment.row, view) for view in range(self.teacher.num_views)]
        other = max(drawn, key=lambda each: abs(each.frame_indices[0] - moment.frame_indices[0]))
        distance = abs(int(other.frame_indices[0] - moment.frame_indices[0]))
        seen = {f"other_{name}": value for name, value in self._teacher_sees(other).items()}
        span = clip_span(self.clip.num_frames, self.clip.frame_stride)
        return seen | {"is_other_time_B": distance >= span}

    def _random_moment(self, row: int, rng: np.random.Generator) -> _Moment:
        if self.teacher is None or self.teacher.num_views is None:
            return _Moment(row, self._random_segments(row, rng), None, rng)
        return self._moment_of_view(row, int(rng.integers(self.teacher.num_views)))

    def _moment_of_view(self, row: int, view: int) -> _Moment:
        """A view follows from the row's place in its shard and the view's number, in every run."""
        shard = Path(self.index.shard_paths[self.index.shard_N[row]])
        rng = np.random.default_rng([int(shard.stem), int(self.index.row_N[row]), view])
        return _Moment(row, self._random_segments(row, rng), view, rng)

    def _random_segments(self, row: int, rng: np.random.Generator) -> list[ClipIndices]:
        return random_segments(
            int(self.index.num_frames_N[row]),
            num_segments=self.clip.num_segments,
            num_frames=self.clip.num_frames,
            frame_stride=self.clip.frame_stride,
            short_video=self.clip.short_video,
            rng=rng,
            # Where odd stored frames are non-reference frames, even starts decode half as much at even strides.
            start_multiple=2 if self.index.is_h264_N[row] and self.clip.frame_stride % 2 == 0 else 1,
        )

    def _row_of_another_source(self, row: int, rng: np.random.Generator) -> int:
        others = np.flatnonzero(self.index.source_N != self.index.source_N[row])
        return int(others[rng.integers(len(others))])

    def _teacher_sees(self, moment: _Moment) -> dict[str, np.ndarray]:
        """The teacher's frames of a time, or its features."""
        assert self.teacher is not None, "asked for a teacher only"
        if self.teacher.features is not None:
            assert moment.view is not None, "features are of views"
            return {"teacher_BD": self.teacher.features.read(self.index, moment.row, moment.view, moment.frame_indices)}
        random_crop = self.random_crop if self.teacher.is_shared_crop else RandomCrop()
        indices = moment.frame_indices[self.teacher_positions]
        return {"teacher_frames_BTHWC": self._random_view(moment.row, indices, self.teacher, random_crop, moment.rng)}

    def _random_view(
        self,
        row: int,
        frame_indices: np.ndarray,
        view: ClipView | TeacherView,
        random_crop: RandomCrop,
        rng: np.random.Generator,
    ) -> np.ndarray:
        size = self._scaled_size(row, view.short_side)
        if random_crop.crop == "random_resized":
            size, crop = random_resized_crop(*size, crop_size=view.crop_size, min_area=random_crop.min_area, rng=rng)
            is_flipped = bool(rng.integers(2))
        else:
            crop, is_flipped = random_five_crop(*size, crop_size=view.crop_size, rng=rng)
        frames_THWC = self._decode(row, frame_indices, size=size, crop=crop)
        return mirrored(frames_THWC) if is_flipped and random_crop.flip else frames_THWC

    def _in_segments(self, frames_THWC: np.ndarray) -> np.ndarray:
        """Part the frames of S clips, (S * T, H, W, C), to (S, T, H, W, C); those of a single one stay as they are."""
        num_segments = self.clip.num_segments
        if num_segments == 1:
            return frames_THWC
        return frames_THWC.reshape(num_segments, self.clip.num_frames, *frames_THWC.shape[1:])

    def _clips(self, row: int, clips: list[ClipIndices]) -> list[dict[str, Any]]:
        size = self._scaled_size(row, self.clip.short_side)
        crop = center_crop(*size, crop_size=self.clip.crop_size)
        indices = np.concatenate([clip.frame_indices for clip in clips])
        frames_THWC = self._decode(row, indices, size=size, crop=crop)
        cropped = frames_THWC.reshape(len(clips), self.clip.num_frames, crop.size, crop.size, 3)
        return [{"clip_BTHWC": c, "num_padded_B": clip.num_padded} for c, clip in zip(cropped, clips, strict=True)]

    def _decode(self, row: int, frame_indices: np.ndarray, *, size: tuple[int, int], crop: Crop | None) -> np.ndarray:
        return decode_frames(
            self.index.frames(row),
            frame_indices + self.index.frame_offset_N[row],
            size=size,
            crop=crop,
            key_distance=int(self.index.key_distance_N[row]) or None,
        )

    def _scaled_size(self, row: int, short_side: int) -> tuple[int, int]:
        return resized_size(int(self.index.height_N[row]), int(self.index.width_N[row]), short_side=short_side)

    def _blank(self, *, has_teacher: bool) -> dict[str, Any]:
        """What stands in the place of a clip that cannot be read."""
        view, teacher = self.clip, self.teacher
        shape = (view.num_segments * view.num_frames, view.crop_size, view.crop_size, 3)
        blank: dict[str, Any] = {"clip_BTHWC": self._in_segments(np.zeros(shape, np.uint8)), "num_padded_B": 0}
        if not has_teacher or teacher is None:
            return blank
        blank |= self._blank_teacher() | ({"is_match_B": False} if teacher.is_literal else {})
        if teacher.has_other_time:
            blank |= {f"other_{name}": value for name, value in self._blank_teacher().items()}
            blank["is_other_time_B"] = False
        return blank

    def _blank_teacher(self) -> dict[str, np.ndarray]:
        assert self.teacher is not None, "asked for a teacher only"
        if self.teacher.features is not None:
            return {"teacher_BD": np.zeros(self.teacher.features.feature_dim, np.float32)}
        shape = (self.teacher.num_frames, self.teacher.crop_size, self.teacher.crop_size, 3)
        return {"teacher_frames_BTHWC": np.zeros(shape, np.uint8)}

    def _stack(self, clips: list[dict[str, Any]], rows: np.ndarray) -> NumpyBatch:
        stacked = {name: np.stack([clip[name] for clip in clips]) for name in clips[0]}
        return stacked | {"label_B": self.index.label_N[rows], "source_B": self.index.source_N[rows], "row_B": rows}


def _load_or_tell(load: Callable[..., dict[str, Any]], *arguments: Any, blank: dict[str, Any]) -> dict[str, Any]:
    """Load a clip, or give `blank` and the reason: one damaged row must not end a run of days."""
    try:
        return load(*arguments) | {"reason_B": ""}
    except (ValueError, OSError) as error:  # damaged frames; a damaged or lost file (`shard_reading`)
        return blank | {"reason_B": str(error) or type(error).__name__}
