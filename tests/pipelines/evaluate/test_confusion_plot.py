import itertools
import warnings
from io import BytesIO

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from pipelines.evaluate.confusion_plot import plot_confusion
from t3d_core.evaluation.class_report import ClassReport, report_classes


def plot(names, *, num_videos=200, title="t3d"):
    rng = np.random.default_rng(0)
    label_N, guessed_N = rng.integers(0, len(names), (2, num_videos))
    predicted_N = np.where(rng.random(num_videos) < 0.7, label_N, guessed_N)
    report = report_classes(label_N, predicted_N, num_classes=len(names))
    return report, Image.open(BytesIO(plot_confusion(report, names, title=title)))


def test_few_classes_have_names_and_their_counts_in_the_cells(drawn):
    names = ["bend", "jack", "$jump^", "a name that is far too long to stand beside a row"]
    report, picture = plot(names)
    assert picture.format == "PNG"
    matrix = drawn[0].axes[0]
    assert [label.get_text() for label in matrix.get_xticklabels()] == [
        "bend", "jack", r"\$jump^", "a name that i...beside a row"
    ]  # fmt: skip
    counts = {text.get_position(): text.get_text() for text in matrix.texts}
    assert counts == {(b, a): str(count) for (a, b), count in np.ndenumerate(report.confusion_KK) if count}


@pytest.mark.heavy
def test_a_hundred_classes_have_names_that_do_not_overlap_and_400_have_none(drawn):
    plot([f"class {number}" for number in range(101)])
    labels = drawn[0].axes[0].get_yticklabels()
    boxes = [label.get_window_extent() for label in labels]
    assert len(labels) == 101
    assert all(above.y0 >= below.y1 - 1 for above, below in itertools.pairwise(boxes))  # pixels
    plot([f"{'W' * 80} {number}" for number in range(400)])
    assert not any("W" in label.get_text() for label in drawn[1].axes[0].get_yticklabels())


def test_long_names_that_are_shortened_to_the_same_text_have_their_numbers(drawn):
    plot([f"{'long ' * 8}{number}{' name' * 8}" for number in range(3)])
    shown = [label.get_text() for label in drawn[0].axes[0].get_xticklabels()]
    assert [text.partition(":")[0] for text in shown] == ["0", "1", "2"]
    assert len({text.partition(":")[2] for text in shown}) == 1


def test_a_matrix_without_any_video_is_drawn(drawn):
    nothing_K = np.zeros(3, int)
    report = ClassReport(np.zeros((3, 3), int), nothing_K, nothing_K, nothing_K * np.nan, nothing_K * np.nan)
    plot_confusion(report, ["run", "skip", "walk"], title="t3d")
    assert drawn[0].subfigs[1].texts[0].get_text() == "No confusions"


def test_right_ones_are_blue_and_wrong_ones_red(drawn):
    report = report_classes(np.array([0, 0, 1]), np.array([0, 1, 1]), num_classes=2)
    plot_confusion(report, ["a", "b"], title="t3d")
    wrong, right = (image.to_rgba(image.get_array()) for image in drawn[0].axes[0].images)
    assert right[0, 0, 2] > right[0, 0, 0]
    assert wrong[0, 1, 0] > wrong[0, 1, 2]
    assert wrong[1, 0, :3] == pytest.approx(1)  # white: there are none


def test_the_most_frequent_confusions_are_listed(drawn):
    report = report_classes(np.array([0, 0, 0, 1]), np.array([1, 1, 2, 1]), num_classes=3)
    plot_confusion(report, ["run", "skip", "walk"], title="t3d")
    lines = [line for text in drawn[0].subfigs[1].texts for line in text.get_text().splitlines() if line]
    assert [line.strip("\u200e") for line in lines] == [
        "Most frequent confusions",
        "2  run  as  skip",
        "1  run  as  walk",
    ]


@pytest.mark.parametrize(
    ("names", "title"),
    [
        (["run", "skip", "walk"], "t3d"),
        (["a name that is far too long", "another name that is far too long"], "t3d"),
        (["run", "skip"], "a long title, " * 12),
        (["run"], "t3d"),
        (["W" * 80, "W" * 81], "t3d"),
        ([f"a\nb\nc\n{number}" for number in range(8)], "t3d"),
        ([f"$x_{number}^2$ \\frac{{ $ _" for number in range(8)], "$"),
        (["\u8dd1\u6b65" * 40, "\u0628\u0647" * 40, "", "\U0001f3c3"], "t3d"),
    ],
)
def test_every_text_is_inside_the_picture(drawn, names, title):
    with warnings.catch_warnings(action="error"):
        warnings.filterwarnings("ignore", module="sklearn")
        plot(names, title=title)
    texts = [text for text in drawn[0].findobj(Text) if text.get_visible() and text.get_text().strip()]
    outside = [text.get_text() for text in texts if not is_inside(text.get_window_extent(), drawn[0].bbox)]
    assert not outside


def is_inside(box, around):
    return around.x0 <= box.x0 and box.x1 <= around.x1 and around.y0 <= box.y0 and box.y1 <= around.y1
