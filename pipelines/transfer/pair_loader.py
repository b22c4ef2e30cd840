"""Rows of shards become clips and a 2D teacher's view of the same time; this runs on the CPU workers of a transfer.

Legend: B clips of a batch, T frames, H x W pixels, C channels, D width of a feature.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.clips.batch import NumpyBatch
from pipelines.clips.loader import BatchLoader, Drawn, RandomCrop, load_or_blank
from pipelines.shards.index import ShardIndex
from pipelines.transfer.teacher_features import FeatureFiles
from t3d_core.errors import UserError
from t3d_core.video.clip_sampling import ClipIndices, clip_span
from t3d_core.video.cropping import center_crop, same_region

_ROWS_OF_SHARD = 2**32  # more than any shard has
_OTHER_TIMES = 8  # draws of another time of a row; the farthest is taken


@dataclass(frozen=True)
class TeacherView:
    """How the 2D teacher sees the frames of the same clip.

    Attributes:
        num_frames: frames of the clip that it sees, evenly spread.
        crop_size: pixels of its square.
        short_side: pixels of the shorter side before the crop.
        is_random_crop: has a random part of the frame, else the middle, never mirrored.
        is_shared_crop: cut and mirrored as the clip is; otherwise it has a crop of its own, and a flip of its own
            where clips may be mirrored.
        is_literal: each pair is drawn by itself: frames of the clip's time, or of a clip of another source.
        has_other_time: add frames of another time of the same row, as far from the clip as the row allows.
        num_views: number of places of a row at which clips start and teachers' crops lie, the same in every epoch; by
            default they lie anywhere.
        features: the files with the features of these views; by default frames are decoded for a teacher.
    """

    num_frames: int
    crop_size: int
    short_side: int
    is_random_crop: bool = True
    is_shared_crop: bool = False
    is_literal: bool = False
    has_other_time: bool = False
    num_views: int | None = None
    features: FeatureFiles | None = None


def row_ids(index: ShardIndex, rows: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Numbers of these rows of an index, the same in all selections of it."""
    return index.shard_N[rows].astype(np.int64) * _ROWS_OF_SHARD + index.row_N[rows]


class _Moment(NamedTuple):
    """A drawn time of a row: its clips, its view, and the generator that draws the teacher's crop."""

    row: int
    clips: list[ClipIndices]
    view: int | None
    rng: np.random.Generator

    @property
    def frame_indices(self) -> np.ndarray:
        return np.concatenate([clip.frame_indices for clip in self.clips])


@dataclass(frozen=True, kw_only=True)
class PairLoader(BatchLoader):
    """Decodes the given rows for a student and a teacher.

    In addition to the arrays of a `BatchLoader`, a random batch has `teacher_frames_BTHWC` uint8 or the teacher's
    features `teacher_BD`. They are of the clip's time, unless `is_match_B` is false. That time is frame `start_B` of
    the row `row_id_B`, which is numbered alike in all selections of an index. If the teacher's view asks for
    another time, its frames or features come as `other_...`, with `is_other_time_B`. That flag is false when the row
    is too short for a time that shares no frame with the clip.
    """

    teacher: TeacherView

    @property
    def teacher_positions(self) -> np.ndarray:
        """Which frames of a clip the teacher sees, evenly spread: 0-based, int64."""
        return np.linspace(0, self.clip.num_frames - 1, self.teacher.num_frames).round().astype(np.int64)

    def view_batch(self, rows: np.ndarray, views: np.ndarray) -> NumpyBatch:
        """Load the teacher's frames of views of rows, for the pass that computes its features.

        Returns:
            `teacher_frames_BTHWC` uint8, `start_B` (first frame of the view) and `reason_B`, as in `random_batch`.
        """

        def load(row: int, view: int) -> dict[str, Any]:
            moment = self._moment_of_view(row, view)
            return self._teacher_sees(moment) | {"start_B": int(moment.frame_indices[0])}

        blank = {"start_B": -1, "teacher_frames_BTHWC": self._blank_teacher()["teacher_frames_BTHWC"]}
        loaded = [load_or_blank(load, int(r), int(v), blank=blank) for r, v in zip(rows, views, strict=True)]
        return {name: np.stack([each[name] for each in loaded]) for name in loaded[0]}

    def _random_clip(self, row: int, rng: np.random.Generator) -> dict[str, Any]:
        """Draw a clip and the teacher's frames, then decode both at once when they are of the same row."""
        is_match = not self.teacher.is_literal or bool(rng.integers(2))
        moment = self._random_moment(row, rng)
        clip, for_teacher = self._draw_both(moment, rng)
        drawn = {"clip_BTHWC": clip}
        loaded: dict[str, Any] = {
            "num_padded_B": sum(each.num_padded for each in moment.clips),
            "row_id_B": row_ids(self.index, np.array([row]))[0],
            "start_B": int(moment.frame_indices[0]),
        }
        if self.teacher.is_literal:
            loaded["is_match_B"] = is_match
        if not is_match:
            loaded |= self._another_source_sees(row, rng)
        elif self.teacher.features is None:
            drawn["teacher_frames_BTHWC"] = for_teacher
        else:
            loaded |= self._teacher_sees(moment)
        if self.teacher.has_other_time:
            loaded |= self._another_time(moment)
        loaded |= dict(zip(drawn, self._decode(row, list(drawn.values())), strict=True))
        return loaded | {"clip_BTHWC": self._in_segments(loaded["clip_BTHWC"])}

    def _another_source_sees(self, row: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        other = self._row_of_another_source(row, rng)
        try:
            return self._teacher_sees(self._random_moment(other, rng))
        except (ValueError, OSError) as error:
            raise UserError(f"its pair, {self.index.video_id_N[other]}: {error}") from error

    def _another_time(self, moment: _Moment) -> dict[str, Any]:
        rng = np.random.default_rng([moment.row, int(moment.frame_indices[0])])
        if self.teacher.num_views is None:
            drawn = [self._random_moment(moment.row, rng) for _ in range(_OTHER_TIMES)]
        else:
            drawn = [self._moment_of_view(moment.row, view) for view in range(self.teacher.num_views)]
        other = max(drawn, key=lambda each: abs(each.frame_indices[0] - moment.frame_indices[0]))
        distance = abs(int(other.frame_indices[0] - moment.frame_indices[0]))
        seen = {f"other_{name}": value for name, value in self._teacher_sees(other).items()}
        span = clip_span(self.clip.num_frames, self.stride_of(moment.row))
        return seen | {"is_other_time_B": distance >= span}

    def _random_moment(self, row: int, rng: np.random.Generator) -> _Moment:
        if self.teacher.num_views is None:
            return _Moment(row, self._random_segments(row, rng), None, rng)
        return self._moment_of_view(row, int(rng.integers(self.teacher.num_views)))

    def _moment_of_view(self, row: int, view: int) -> _Moment:
        """In every run a view follows from the row's place in its shard and the view's number."""
        shard = Path(self.index.shard_paths[self.index.shard_N[row]])
        rng = np.random.default_rng([int(shard.stem), int(self.index.row_N[row]), view])
        return _Moment(row, self._random_segments(row, rng), view, rng)

    def _row_of_another_source(self, row: int, rng: np.random.Generator) -> int:
        others = np.flatnonzero(self.index.source_N != self.index.source_N[row])
        return int(others[rng.integers(len(others))])

    def _teacher_sees(self, moment: _Moment) -> dict[str, np.ndarray]:
        """The teacher's frames, or its features, of one time."""
        if self.teacher.features is not None:
            assert moment.view is not None, "features are of views"
            return {"teacher_BD": self.teacher.features.read(self.index, moment.row, moment.view, moment.frame_indices)}
        return {"teacher_frames_BTHWC": self._decode(moment.row, [self._draw_for_teacher(moment)])[0]}

    def _draw_both(self, moment: _Moment, rng: np.random.Generator) -> tuple[Drawn, Drawn]:
        """Draw how the student and the teacher see a time; the teacher's part of a view is always the same."""
        is_shared_crop, indices = self.teacher.is_shared_crop, moment.frame_indices
        clip = self._draw(moment.row, indices, self.clip, self.random_crop, moment.rng if is_shared_crop else rng)
        if not is_shared_crop:
            return clip, self._draw_for_teacher(moment)
        assert clip.crop is not None, "training cuts"
        size, crop = same_region(clip.size, clip.crop, crop_size=self.teacher.crop_size)
        return clip, Drawn(indices[self.teacher_positions], size, crop, clip.is_flipped)

    def _draw_for_teacher(self, moment: _Moment) -> Drawn:
        if self.teacher.is_shared_crop:
            return self._draw_both(moment, moment.rng)[1]
        indices = moment.frame_indices[self.teacher_positions]
        if not self.teacher.is_random_crop:
            size = self._scaled_size(moment.row, self.teacher.short_side)
            return Drawn(indices, size, center_crop(*size, crop_size=self.teacher.crop_size), False)
        own_crop = RandomCrop(flip=self.random_crop.flip)
        return self._draw(moment.row, indices, self.teacher, own_crop, moment.rng)

    def _blank(self) -> dict[str, Any]:
        blank = self._blank_clip() | self._blank_teacher() | ({"is_match_B": False} if self.teacher.is_literal else {})
        blank |= {"row_id_B": -1, "start_B": -1}
        if self.teacher.has_other_time:
            blank |= {f"other_{name}": value for name, value in self._blank_teacher().items()}
            blank["is_other_time_B"] = False
        return blank

    def _blank_teacher(self) -> dict[str, np.ndarray]:
        if self.teacher.features is not None:
            return {"teacher_BD": np.zeros(self.teacher.features.feature_dim, np.float32)}
        shape = (self.teacher.num_frames, self.teacher.crop_size, self.teacher.crop_size, 3)
        return {"teacher_frames_BTHWC": np.zeros(shape, np.uint8)}
