import tracemalloc

import numpy as np
import pytest

from pipelines.predict.annotate import annotate_frames
from pipelines.predict.overlay import layout_of
from t3d_core.errors import UserError
from t3d_core.prediction.timeline import make_timeline
from t3d_core.video.decoding import decode_frames, probe

NAMES = ["jumping", "\u0431\u0435\u0433 - running"]
SCORES = np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)
TIMELINE = make_timeline(np.array([0.0, 1.0]), np.array([1.0, 2.0]), SCORES)


def annotate(frames, path, **options):
    annotate_frames(frames, path=path, **{"fps": 10.0, "timeline": TIMELINE, "class_names": NAMES, **options})


def grey_frames(num_frames, *, height=120, width=160):
    return (np.full((height, width, 3), 90, np.uint8) for _ in range(num_frames))


@pytest.mark.parametrize(
    ("height", "width", "num_frames"), [(120, 160, 20), (160, 120, 20), (1080, 1920, 4), (2160, 3840, 2)]
)
def test_the_file_has_all_frames_at_the_size_of_the_video(tmp_path, height, width, num_frames):
    annotate(grey_frames(num_frames, height=height, width=width), tmp_path / "out" / "a.mp4")
    info = probe(tmp_path / "out" / "a.mp4")
    assert (info.num_frames, info.height, info.width, info.fps) == (num_frames, height, width, 10)
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["a.mp4"]


def test_the_label_changes_at_the_border_of_the_segments(tmp_path):
    annotate(grey_frames(20), tmp_path / "a.mp4")
    layout = layout_of(120, 160)
    box = slice(layout.margin, layout.margin + layout.box_height), slice(layout.margin, 160 - layout.margin)
    boxes_THWC = decode_frames(tmp_path / "a.mp4", range(20))[:, *box].astype(int)
    changes = np.abs(np.diff(boxes_THWC, axis=0)).mean(axis=(1, 2, 3))
    assert changes.argmax() == 9, "between frames 9 and 10, at 1 s"
    assert changes[9] > 5 * np.delete(changes, 9).max()


def test_a_first_frame_at_a_later_moment_has_the_label_of_then(tmp_path):
    annotate(grey_frames(20), tmp_path / "all.mp4")
    annotate(grey_frames(5), tmp_path / "part.mp4", start_seconds=1.5)
    whole, part = decode_frames(tmp_path / "all.mp4", [15]), decode_frames(tmp_path / "part.mp4", [0])
    assert np.abs(whole.astype(int) - part).mean() < 2


def test_an_odd_size_loses_a_row_and_a_column(tmp_path):
    annotate(grey_frames(3, height=121, width=161), tmp_path / "a.mp4")
    info = probe(tmp_path / "a.mp4")
    assert (info.height, info.width) == (120, 160)


def test_no_file_is_left_where_frames_end_with_an_error_and_an_older_one_stays(tmp_path):
    def failing():
        yield from grey_frames(3)
        raise RuntimeError("decoder")

    with pytest.raises(RuntimeError, match="decoder"):
        annotate(failing(), tmp_path / "a.mp4")
    with pytest.raises(UserError, match="at least one frame"):
        annotate([], tmp_path / "a.mp4")
    assert not list(tmp_path.iterdir())
    (tmp_path / "a.mp4").write_bytes(b"older")
    with pytest.raises(RuntimeError):
        annotate(failing(), tmp_path / "a.mp4")
    assert (tmp_path / "a.mp4").read_bytes() == b"older"


def test_frames_are_taken_one_at_a_time(tmp_path):
    tracemalloc.start()
    annotate(grey_frames(200, height=480, width=640), tmp_path / "a.mp4")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12e6, "bytes that Python and numpy hold: some frames of 0.9 MB"
