import numpy as np
import pytest

from t3d_core.video.container import VideoError
from t3d_core.video.decoding import decode_frames
from t3d_core.video.frame_reader import TimedFrame, at_constant_rate, read_frames


@pytest.mark.parametrize(("container", "codec"), [("mp4", "libx264"), ("avi", "mpeg4")])
def test_every_frame_is_read_with_its_time(encode, container, codec):
    source = encode(container, codec, num_frames=12, rotation=90 if container == "mp4" else None)
    frames = list(read_frames(source))
    np.testing.assert_array_equal(np.stack([frame.frame_HWC for frame in frames]), decode_frames(source, range(12)))
    assert [round(frame.seconds * 25) for frame in frames] == list(range(12))
    assert {frame.fps for frame in frames} == {25.0}


def test_damage_is_an_error_after_the_frames_before_it(encode):
    frames = read_frames(encode("matroska", num_frames=60, options={"g": "10"})[:-400])
    next(frames)
    with pytest.raises(VideoError):
        list(frames)


def timed(*seconds, fps):
    return (TimedFrame(np.full((2, 2, 3), place, np.uint8), moment, fps) for place, moment in enumerate(seconds))


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ((0.0, 0.1, 0.2, 0.3), [0, 1, 2, 3]),
        ((5.0, 5.1, 5.2), [0, 1, 2]),  # a clock that starts late
        ((0.0, 0.101, 0.199, 0.3), [0, 1, 2, 3]),  # rounded times
        ((0.0, 0.3, 0.33, 0.6), [0, 0, 0, 2, 2, 2, 3]),
        ((0.0,), [0]),
        ((), []),
    ],
)
def test_uneven_frames_get_one_rate(seconds, expected):
    assert [int(frame_HWC[0, 0, 0]) for frame_HWC in at_constant_rate(timed(*seconds, fps=10.0))] == expected


def test_a_clock_that_jumps_by_hours_does_not_make_a_copy_of_hours():
    with pytest.raises(VideoError, match="jumps from 0 to 90000 s"):
        list(at_constant_rate(timed(0.0, 0.1, 90000.0, fps=10.0)))
