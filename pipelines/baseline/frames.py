"""Rows of shards become single frames, evenly spread over the whole video, as a 2D network sees them.

Legend: B views of a batch, T = 1 frame, H x W pixels, C channels; N rows of the index.
"""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.clips.batch import NumpyBatch
from pipelines.clips.loader import BatchLoader, load_or_blank
from pipelines.shards.index import ShardIndex
from t3d_core.video.clip_sampling import ClipView
from t3d_core.video.cropping import center_crop
from t3d_core.video.sizes import default_short_side


@dataclass(frozen=True)
class FrameLoader:
    """Decodes frames of rows on the CPU workers; a view of a row is one of its frames.

    Attributes:
        index: the rows.
        num_frames: views of a row.
        crop_size: pixels of the centre square.
    """

    index: ShardIndex
    num_frames: int
    crop_size: int

    @property
    def bytes_a_clip(self) -> int:
        """Bytes of a decoded view."""
        return self.crop_size**2 * 3

    def positions(self, row: int) -> np.ndarray:
        """The frames that are the views of a row (num_frames,), 0-based; a short row repeats some."""
        return np.linspace(0, int(self.index.num_frames_N[row]) - 1, self.num_frames).round().astype(np.int64)

    def view_batch(self, rows: np.ndarray, views: np.ndarray) -> NumpyBatch:
        """Load views of rows; the views of one row are decoded together.

        Returns:
            `teacher_frames_BTHWC` uint8, `start_B` (the frame's number) and `reason_B`, which is "" where all is well.
        """
        frame = ClipView(1, 1, self.crop_size, default_short_side(self.crop_size), "repeat_last")
        loader = BatchLoader(self.index, frame)

        def load(row: int, positions: np.ndarray) -> dict[str, Any]:
            crop = center_crop(*loader.test_size(row), crop_size=self.crop_size)
            return {"frames_THWC": loader.test_frames(row, positions, crop=crop)}

        loaded, positions_B = [], np.zeros(len(rows), np.int64)
        for row, group in itertools.groupby(range(len(rows)), key=lambda place: int(rows[place])):
            places = list(group)
            positions_B[places] = self.positions(row)[views[places]]
            blank = {"frames_THWC": np.zeros((len(places), self.crop_size, self.crop_size, 3), np.uint8)}
            found = load_or_blank(load, row, positions_B[places], blank=blank)
            loaded.append((found["frames_THWC"], [found["reason_B"]] * len(places)))
        reasons = [reason for _, of_row in loaded for reason in of_row]
        frames_BHWC = np.concatenate([frames_THWC for frames_THWC, _ in loaded])
        return {"teacher_frames_BTHWC": frames_BHWC[:, None], "start_B": positions_B, "reason_B": np.array(reasons)}
