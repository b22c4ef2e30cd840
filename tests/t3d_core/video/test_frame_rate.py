from fractions import Fraction

import numpy as np
import pytest

from t3d_core.video.frame_rate import agrees, believed_rate, has_jumps

NTSC = Fraction(30000, 1001)


@pytest.mark.parametrize(
    ("stated", "seconds", "expected"),
    [
        (Fraction(25), np.arange(100) / 25, 25),
        (NTSC, np.arange(100) * 1001 / 30000, NTSC),
        (Fraction(30), np.round(np.arange(1200) / 30, 3), 30),  # stamps in milliseconds
        (Fraction(60), np.round(np.arange(2) / 60, 3), 60),  # of two frames
        (Fraction(30), np.delete(np.arange(100) / 30, 50), 30),  # one frame was dropped
        (Fraction(1000), np.round(np.arange(1200) / 30, 3), 30),
        (Fraction(30), np.linspace(0, 20, 258), Fraction(257, 20)),
        (Fraction(25), np.arange(10) * 3.0, Fraction(1, 3)),
        (None, np.arange(100) / 25, 25),
        (None, np.arange(50) * 1001 / 30000, NTSC),
        (Fraction(25), np.zeros(1), 25),
        (Fraction(25), np.zeros(0), 25),
        (None, np.zeros(1), None),
        (Fraction(25), np.zeros(40), 25),  # stamps that measure nothing
    ],
)
def test_the_stated_rate_is_believed_unless_the_time_stamps_contradict_it(stated, seconds, expected):
    rate = believed_rate(stated, seconds)
    assert rate == (None if expected is None else pytest.approx(expected, rel=1e-4))
    assert agrees(stated, seconds) == (stated is not None and rate == stated)


@pytest.mark.parametrize("second", [np.arange(50) / 25, 1e6 + np.arange(50) / 25])
def test_a_clock_that_is_set_anew_contradicts_no_rate(second):
    seconds = np.concatenate([10 + np.arange(50) / 25, second])
    assert has_jumps(seconds)
    assert believed_rate(Fraction(25), seconds) == 25
    assert not has_jumps(np.array([0.0, 0.12, 0.04, 0.08, 0.24, 0.16]))  # packets of B-frames
