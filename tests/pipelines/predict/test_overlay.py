import numpy as np
import pytest

from pipelines.predict.overlay import Overlay, layout_of
from t3d_core.prediction.timeline import make_timeline

NAMES = [
    "jumping",
    "\u0431\u0435\u0433",
    "\u8dd1\u6b65",
    "a name that is far too long to stand in a narrow picture " * 3,
]
SIZES = [(120, 160), (160, 120), (240, 320), (1080, 1920), (1920, 1080), (2160, 3840)]


def timeline_of(*labels, starts=None):
    start_N = np.arange(len(labels), dtype=np.float64) if starts is None else np.array(starts, np.float64)
    score_NK = np.full((len(labels), 4), 0.1, np.float32)
    score_NK[range(len(labels)), labels] = 0.7
    return make_timeline(start_N, start_N + 1, score_NK)


def grey(height, width, brightness):
    return np.full((height, width, 3), brightness, np.uint8)


def luminance(colour):
    """Relative luminance of WCAG 2."""
    share = np.asarray(colour, np.float64) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return linear @ (0.2126, 0.7152, 0.0722)


def contrast(one, other):
    dark, bright = sorted((luminance(one), luminance(other)))
    return (bright + 0.05) / (dark + 0.05)


def changed_box(before, after):
    """(top, bottom, left, right), half-open, of what differs."""
    is_changed = (before != after).any(axis=2)
    rows, columns = np.flatnonzero(is_changed.any(axis=1)), np.flatnonzero(is_changed.any(axis=0))
    return rows[0], rows[-1] + 1, columns[0], columns[-1] + 1


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("label", range(4))
def test_the_label_box_is_inside_the_frame_and_above_the_strip(height, width, label):
    frame = grey(height, width, 255)
    overlay = Overlay(timeline_of(label), NAMES, size=(height, width))
    upper = height - overlay.layout.panel_height
    top, bottom, left, right = changed_box(frame[:upper], overlay.draw(frame, 0.5)[:upper])
    margin = overlay.layout.margin
    assert (top, left) == (margin, margin)
    assert right <= width - margin
    assert bottom <= upper - margin


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("brightness", [0, 128, 255])
def test_text_has_the_contrast_of_wcag_on_bright_and_dark_pictures(height, width, brightness):
    overlay = Overlay(timeline_of(0), NAMES, size=(height, width))
    drawn = overlay.draw(grey(height, width, brightness), 0.5)
    layout = overlay.layout
    first = layout.margin + layout.padding
    line = drawn[first : first + layout.text_size, layout.margin : layout.margin + 8 * layout.text_size].reshape(-1, 3)
    ink, veil = line[luminance(line).argmax()], np.median(line, axis=0)
    assert contrast(ink, veil) >= 4.5
    assert (luminance(line) > 0.5).mean() > 0.03, "enough of it is letters"


def test_letters_are_at_least_12_pixels_and_grow_with_the_frame():
    sizes = [layout_of(height, width).text_size for height, width in SIZES]
    assert sizes[:2] == [12, 12]
    assert sizes == sorted(sizes)
    assert sizes[3] == sizes[4] == 45


@pytest.mark.parametrize(("height", "width"), [(2, 2), (16, 16), (8, 300), (300, 8)])
def test_frames_that_are_too_small_to_read_are_drawn_all_the_same(height, width):
    for label in range(4):
        drawn = Overlay(timeline_of(label), NAMES, size=(height, width)).draw(grey(height, width, 90), 0.5)
        assert drawn.shape == (height, width, 3)


def test_the_given_frame_is_not_changed():
    frame = grey(120, 160, 90)
    Overlay(timeline_of(0), NAMES, size=(120, 160)).draw(frame, 0.5)
    assert (frame == 90).all()


def test_label_and_box_change_at_the_border_of_segments_and_a_gap_has_no_score():
    overlay = Overlay(timeline_of(0, 1, 1, starts=[0, 1, 3]), NAMES, size=(240, 320))
    assert [overlay.shown_at(moment)[0] for moment in (0, 0.99, 1, 1.99, 2, 2.99, 3)] == [0, 0, 1, 1, None, None, 1]
    assert overlay.shown_at(1) == (1, pytest.approx(0.7))
    upper = 240 - overlay.layout.panel_height
    boxes = [overlay.draw(grey(240, 320, 0), moment)[:upper] for moment in (0, 0.99, 1, 1.99, 2.5)]
    assert np.array_equal(boxes[0], boxes[1])
    assert np.array_equal(boxes[2], boxes[3])
    assert not np.array_equal(boxes[1], boxes[2])
    assert not np.array_equal(boxes[3], boxes[4])


def test_the_bar_is_as_long_as_the_score():
    def bar_length(score):
        score_NK = np.array([[score, 0, 0, 0]], np.float32)
        timeline = make_timeline(np.zeros(1), np.ones(1), score_NK)
        overlay = Overlay(timeline, NAMES, size=(1080, 1920))
        layout = overlay.layout
        row = overlay.draw(grey(1080, 1920, 0), 0.5)[layout.margin + layout.box_height - layout.padding - 1]
        return np.count_nonzero((row != row[0]).any(axis=1) & (np.ptp(row, axis=1) > 60))

    assert bar_length(0.5) / bar_length(1.0) == pytest.approx(0.5, abs=0.01)


def test_the_strip_has_the_segments_in_their_colours_and_the_cursor_moves():
    overlay = Overlay(timeline_of(0, 1, starts=[0, 3]), NAMES, size=(240, 320))
    row = 240 - overlay.layout.panel_height // 2
    first, last = (overlay.draw(grey(240, 320, 0), moment)[row] for moment in (0, 4))
    quarter, gap, end = last[40], last[160], last[290]
    assert len({tuple(quarter), tuple(gap), tuple(end)}) == 3
    np.testing.assert_array_equal(first[40], quarter)
    assert gap.max() < 20
    is_white = [np.flatnonzero((each == 255).all(axis=1)) for each in (first, last)]
    assert is_white[0].max() < 6
    assert is_white[1].min() > 313


def test_many_segments_are_drawn_once():
    labels = np.random.default_rng(0).integers(0, 4, 5000)
    overlay = Overlay(timeline_of(*labels), NAMES, size=(240, 320))
    for moment in range(0, 5000, 50):
        overlay.draw(grey(240, 320, 0), moment)
    assert overlay._box.cache_info().currsize <= 5
