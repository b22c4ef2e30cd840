from fractions import Fraction

import numpy as np
import pytest

from t3d_core.video.frame_rate import agrees, believed_rate

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
