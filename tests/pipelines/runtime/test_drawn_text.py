import numpy as np
import pytest
from PIL import Image, ImageDraw

from pipelines.runtime.drawn_text import fitted_text, text_length, write_text


@pytest.mark.parametrize("text", ["jumping jack", "caf\u00e9 \u0431\u0435\u0433 run"])
def test_a_drawn_text_is_as_long_as_measured(text):
    picture = Image.new("RGB", (600, 60))
    write_text(ImageDraw.Draw(picture), text, 30, left=10, baseline=40, colour=(255, 255, 255))
    columns = np.flatnonzero(np.asarray(picture).any(axis=(0, 2)))
    assert columns[0] == pytest.approx(10, abs=4)
    assert columns[-1] == pytest.approx(10 + text_length(text, 30), abs=4)


def test_a_text_that_is_too_wide_loses_its_middle():
    shortened = fitted_text("a very long name of a class", 20, 120)
    assert text_length(shortened, 20) <= 120
    before, after = shortened.split("...")
    assert before
    assert after
    assert "a very long name of a class".startswith(before)
    assert "a very long name of a class".endswith(after)
    assert fitted_text("short", 20, 120) == "short"
