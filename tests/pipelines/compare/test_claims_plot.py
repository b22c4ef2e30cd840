"""What is drawn of claims."""

from matplotlib.figure import Figure

from pipelines.compare.claims import Claim
from pipelines.compare.claims_plot import plot_claims
from t3d_core.evaluation.effects import Effect
from t3d_core.evaluation.intervals import Interval


def test_each_claim_has_its_difference_and_interval_on_a_line_of_its_own(monkeypatch):
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *args, **kw: (figures.append(self), save(self, *args, **kw)))
    claims = [
        claim("contrast, few", "random, few", 0.2, (0.1, 0.3), "supported"),
        claim("pairs, few", "random, few", 0.0, (-0.2, 0.2), "undecided here"),
    ]
    picture = plot_claims(claims)
    assert picture.light[:4] == picture.dark[:4] == b"\x89PNG"
    axes = figures[0].axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "contrast, few",
        "pairs, few",
    ]
    intervals = [line for line in axes.lines if line.get_linewidth() == 2.5]
    assert [(tuple(line.get_xdata()), tuple(line.get_ydata())) for line in intervals] == [
        ((0.1, 0.3), (0, 0)),
        ((-0.2, 0.2), (1, 1)),
    ]
    assert intervals[0].get_color() != intervals[1].get_color()
    [legend] = figures[0].legends
    assert [text.get_text() for text in legend.get_texts()] == ["supported", "undecided here"]
    low, high = axes.get_ylim()
    assert low > high, "the first claim is the upper one"


def claim(row, reference, difference, interval, verdict):
    return Claim(row, 0.5, reference, 0.3, Effect(difference, Interval(*interval), 0.01, 20, 3), 0.02, verdict)
