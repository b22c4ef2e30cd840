"""What we encode: every frame at its place, steady, upright, in its colours."""

import itertools

import pytest

from t3d_core.video.storage import encode_video


def test_drawn_frames_must_exist_and_have_one_size(tmp_path, drawn_frame):
    with pytest.raises(ValueError, match="at least one frame"):
        encode_video([], path=tmp_path / "a.mp4", fps=25)
    frames = itertools.chain([drawn_frame(0, 64, 80)], [drawn_frame(1, 64, 82)])
    with pytest.raises(ValueError, match=r"shape \(64, 80, 3\), got \(64, 82, 3\)"):
        encode_video(frames, path=tmp_path / "a.mp4", fps=25)
