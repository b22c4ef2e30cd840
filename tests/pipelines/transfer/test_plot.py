from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from pipelines.transfer.plot import plot_checks

PAIRS = {
    "check/pair_accuracy": [(0, 0.5), (10, 0.7)],
    "check/pair_accuracy_low": [(0, 0.45), (10, 0.62)],
    "check/pair_accuracy_high": [(0, 0.55), (10, 0.78)],
    "check/pair_accuracy_jittered": [(0, 0.5), (10, 0.6)],
}


@pytest.fixture
def axes_of(drawn):
    """Draw, and give the panels by their titles."""

    def draw(curves):
        picture = Image.open(BytesIO(plot_checks(curves, title="teach")))
        assert len(np.unique(np.asarray(picture))) > 10
        return {axes.get_title(loc="left").split(":")[0]: axes for axes in drawn[-1].axes}

    return draw


def test_every_curve_that_there_is_is_drawn_and_no_panel_stays_empty(axes_of):
    panels = axes_of(PAIRS | {"check/effective_rank": [(0, 9.0), (10, 3.0)], "lr": [(0, 0.1)]})
    assert list(panels) == ["Held-out pairs", "Features of held-out clips"]
    lines = {line.get_label(): line.get_ydata().tolist() for line in panels["Held-out pairs"].lines}
    assert lines == {"as they are, 95 % interval": [0.5, 0.7], "other colours": [0.5, 0.6]}
    assert panels["Features of held-out clips"].lines[0].get_ydata().tolist() == [9.0, 3.0]


def test_the_interval_is_a_band_around_the_accuracy(axes_of):
    [band] = axes_of(PAIRS)["Held-out pairs"].collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (0.45, 0.78)


@pytest.mark.parametrize("name", ["W" * 300, "$x_1$ $\\frac{", "a\nb"])
def test_a_name_of_any_kind_stands_inside_the_picture(drawn, name):
    plot_checks(PAIRS, title=name)
    [figure] = drawn
    figure.set_dpi(110)  # of the file
    [title] = [text for text in figure.texts if text.get_text() == figure.get_suptitle()]
    assert title.get_window_extent().x1 < figure.bbox.x1
    assert title.get_window_extent().height < 30  # one line


def test_the_band_of_a_probe_begins_where_its_interval_was_first_measured(axes_of):
    """A run that an earlier version began has fewer ends of intervals than accuracies."""
    probe = {"probe/linear_top1": [(0, 0.3), (5, 0.4)], "probe/knn_top1": [(0, 0.3), (5, 0.4)]}
    ends = {f"{name}_{end}": [(5, value)] for name in probe for end, value in (("low", 0.2), ("high", 0.6))}
    [band] = axes_of(probe | ends)["Frozen features on labelled videos"].collections
    assert {*band.get_paths()[0].vertices[:, 0]} == {5}


def test_a_probe_without_checks_is_drawn_alone(axes_of):
    assert list(axes_of({"probe/linear_top1": [(0, 0.3), (5, 0.4)]})) == ["Frozen features on labelled videos"]
