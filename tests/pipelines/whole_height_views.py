"""Which view of a synthetic video some frames are, found by trying all of them."""

import numpy as np

from t3d_core.video.clip_sampling import clip_span
from t3d_core.video.decoding import decode_frames


def views(index, row, frames_THWC):
    """Every (start, crop, flip) of the whole-height crops of a 48 x 64 video that gives these 8 frames at stride 2."""
    video_THWC = decode_frames(index.frames(row), range(40))
    return {
        (start, left, flip)
        for start in range(40 - clip_span(8, 2) + 1)
        for left in (0, 8, 16)
        for flip in (1, -1)
        if np.array_equal(
            frames_THWC, video_THWC[start : start + clip_span(8, 2) : 2, :, left : left + 48][:, :, ::flip]
        )
    }
