import csv
import warnings
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from pipelines.predict.timeline_files import COLUMNS, plot_timeline, write_timeline_csv
from t3d_core.prediction.timeline import make_timeline


def timeline_of(*labels, num_classes=8, stride=1.0, seconds=1.0, drop=(), **options):
    """One clip for each label; the clips at the places `drop` are missing."""
    score_NK = np.random.default_rng(0).dirichlet(np.ones(num_classes), len(labels))
    score_NK = (0.2 * score_NK + 0.8 * np.eye(num_classes)[list(labels)]).astype(np.float32)
    kept = [place for place in range(len(labels)) if place not in drop]
    start_N = np.arange(len(labels)) * stride
    return make_timeline(start_N[kept], start_N[kept] + seconds, score_NK[kept], **options)


def test_the_csv_has_five_classes_per_clip_and_the_class_of_the_segment_first(tmp_path):
    names = ["a,b", 'c"d', "\u8dd1", "line\nbreak", "e", "f", "g", "h"]
    timeline = timeline_of(0, 3, 2, window_seconds=3)
    write_timeline_csv(tmp_path / "timeline.csv", timeline, names)
    with (tmp_path / "timeline.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert tuple(header) == COLUMNS
    assert len(rows) == 15
    for clip in range(3):
        of_clip = rows[5 * clip : 5 * clip + 5]
        order = np.argsort(-timeline.smoothed_NK[clip])[:5]
        assert [row[3] for row in of_clip] == [names[label] for label in order]
        assert {tuple(row[:3]) for row in of_clip} == {(f"{clip + 0.5:.3f}", f"{clip:.3f}", f"{clip + 1:.3f}")}
        assert [float(row[4]) for row in of_clip] == pytest.approx(timeline.score_NK[clip, order], abs=1e-6)
        assert [float(row[5]) for row in of_clip] == pytest.approx(timeline.smoothed_NK[clip, order], abs=1e-6)


def test_the_csv_of_two_classes_has_both(tmp_path):
    write_timeline_csv(tmp_path / "timeline.csv", timeline_of(0, 1, num_classes=2), ["a", "b"])
    assert len((tmp_path / "timeline.csv").read_text().splitlines()) == 1 + 2 * 2


def test_no_csv_is_left_where_writing_fails(tmp_path):
    with pytest.raises(IndexError):
        write_timeline_csv(tmp_path / "timeline.csv", timeline_of(0, 1, 5), ["a"])
    assert not list(tmp_path.iterdir())


def test_the_plot_has_a_line_for_each_class_on_top_and_one_for_the_others(drawn):
    names = ["$jump^", "_run", "a name that is far too long to stand in a legend", *"defgh"]
    picture = Image.open(BytesIO(plot_timeline(timeline_of(0, 0, 0, 1, 1, 2), names, "x.mp4")))
    assert picture.format == "PNG"
    [figure] = drawn
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        r"\$jump^", "_run", "a name that i... in a legend", "highest other class"
    ]  # fmt: skip
    scores, band = figure.axes
    assert len(scores.lines) == 4
    faces = [tuple(face) for face in band.collections[0].get_facecolors()]
    assert len(set(faces)) == 3


def test_a_gap_breaks_the_lines_and_a_line_reaches_from_the_first_clip_to_the_last(drawn):
    plot_timeline(timeline_of(0, 0, 0, 0, 1, drop=[2]), [*"abcdefgh"], "gap")
    seconds = drawn[0].axes[0].lines[0].get_xdata()
    np.testing.assert_array_equal(seconds, [0, 0.5, 1.5, 2, np.nan, 3, 3.5, 4.5, 5, np.nan])


def test_a_plot_of_a_single_clip_of_a_single_class(drawn):
    plot_timeline(timeline_of(0, num_classes=1), ["a"], "one")
    assert len(drawn[0].axes[0].lines) == 1


@pytest.mark.parametrize(("num_clips", "last"), [(5, "0:05"), (600, "10:00"), (7200, "2:00:00")])
def test_the_axis_has_at_most_a_dozen_round_moments(drawn, num_clips, last):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_timeline(timeline_of(*([0] * num_clips), num_classes=2), ["a", "b"], "x" * 300)
    band = drawn[0].axes[1]
    shown = [label.get_text() for place, label in zip(band.get_xticks(), band.get_xticklabels(), strict=True)
             if band.get_xlim()[0] <= place <= band.get_xlim()[1]]  # fmt: skip
    assert shown[0] == "0:00"
    assert shown[-1] == last
    assert 3 <= len(shown) <= 13


def test_a_line_of_a_long_video_has_some_hundred_points_that_are_means(drawn):
    labels = np.random.default_rng(0).integers(0, 8, 5000)
    timeline = timeline_of(*labels, stride=1.44, seconds=2.1, window_seconds=6)
    plot_timeline(timeline, [*"abcdefgh"], "long")
    scores, band = drawn[0].axes
    label = next(iter(np.bincount([each.label for each in timeline.segments()]).argsort()[::-1]))
    assert all(len(line.get_xdata()) < 620 for line in scores.lines)
    assert len(scores.lines) == 7, "six classes and the others"
    assert scores.get_ylabel() == "smoothed score,\nmeans of 12 s"
    means = [np.nanmean(line.get_ydata()[1:-2]) for line in scores.lines]
    assert any(mean == pytest.approx(timeline.smoothed_NK[:, label].mean(), abs=0.01) for mean in means)
    assert len(band.collections[0].get_facecolors()) == len(timeline.segments())
