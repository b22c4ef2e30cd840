"""What is drawn of a comparison."""

import warnings

from matplotlib.text import Text

from pipelines.compare.plots import pareto_front, plot_comparison


def test_the_pareto_front_is_what_nothing_beats_in_both(store):
    for value, gmacs in ((0.5, 1.0), (0.4, 2.0), (0.7, 3.0), (0.7, 4.0)):
        store.train(seed=0, value=value, epochs=int(gmacs), metrics={"model/gmacs": gmacs})
    rows = store.compare(group_by=("epochs",)).rows
    assert [row.label for row in pareto_front(rows, is_more_better=True)] == ["epochs=1", "epochs=3"]


def test_labels_of_any_kind_are_drawn_inside_the_picture(store, drawn):
    names = ["_under_", "$x_1$ $\\frac{", "W" * 300, "a\nb", "caf\u00e9"]
    for number, name in enumerate(names):
        store.train(seed=0, value=0.1 * (number + 1), init_from=name, epochs=number)
    comparison = store.compare(group_by=("init_from", "epochs"))
    curves = {"val/clip_top1": {row.label: [[(0, 0.1), (5, row.mean)]] for row in comparison.rows}}
    with warnings.catch_warnings(action="error"):
        pictures = plot_comparison(comparison, curves)
    assert [picture.name for picture in pictures] == ["bars", "macs", "curves_val_clip_top1", "coordinates"]
    for figure in drawn:
        figure.set_dpi(110)  # of the file
        beyond = {tick for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis) for tick in beyond_limits(axis)}
        texts = [text for text in figure.findobj(Text) if text.get_visible() and text not in beyond]
        boxes = {text.get_text(): text.get_window_extent() for text in texts if text.get_text().strip()}
        assert not [text for text, box in boxes.items() if box.x0 < 0 or box.x1 > figure.bbox.x1]
    [legend] = drawn[4].legends
    assert len(legend.get_texts()) == len(names)


def beyond_limits(axis):
    """Labels of ticks that are not drawn."""
    low, high = sorted(axis.get_view_interval())
    return [tick.label1 for tick in (*axis.majorTicks, *axis.minorTicks) if not low <= tick.get_loc() <= high]


def test_a_picture_that_cannot_be_drawn_is_left_out(store, monkeypatch, caplog):
    monkeypatch.setattr("pipelines.compare.plots._draw_bars", lambda *_: 1 / 0)
    for seed in range(2):
        store.train(seed=seed)
    assert [picture.name for picture in plot_comparison(store.compare(), {})] == ["macs"]
    assert "bars.png is not drawn" in caplog.text
