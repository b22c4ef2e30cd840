import unicodedata
from dataclasses import replace
from fractions import Fraction

import pytest

from tests.t3d_core.training.test_checkpoint import CARD


def test_frames_are_a_stride_or_a_time_apart():
    assert (CARD.clip_view().stride_at(50.0), CARD.describe_distance()) == (
        CARD.frame_stride,
        f"stride {CARD.frame_stride}",
    )
    by_seconds = replace(CARD, frame_stride=None, seconds_per_frame=0.08)
    assert (by_seconds.clip_view().stride_at(25.0), by_seconds.clip_view().stride_at(60.0)) == (2, Fraction(24, 5))
    assert by_seconds.describe_distance() == "0.08 s a frame"


def test_classes_are_found_by_their_names_in_whichever_unicode_form():
    names = ("Caf\u00e9", "run")
    card = replace(CARD, class_names=tuple(unicodedata.normalize("NFD", name) for name in names))
    assert card.places_of(("run", *names)) == [1, 0, 1]


def test_unknown_classes_are_counted_with_the_nearest_name_that_is_known():
    card = replace(CARD, class_names=("riding a bike", "run"))
    message = r"does not know 2 of the 3 classes, such as 'riding_a_bike' \(it knows 'riding a bike'\)"
    with pytest.raises(ValueError, match=message):
        card.places_of(("run", "riding_a_bike", "swim"))
