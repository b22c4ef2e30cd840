"""Claims become a picture: each difference from a reference with its interval, on one scale."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from pipelines.compare.claims import Claim
from pipelines.compare.plots import Drawing, Picture, drawn
from pipelines.runtime.fonts import figure_text
from t3d_core.evaluation.effects import Verdict

_COLOURS: dict[Verdict, str] = {"supported": "#2f8f4e", "not supported": "#b3452c", "undecided here": "#8a8a8a"}
_BASE_HEIGHT, _CLAIM_HEIGHT = 1.3, 0.42  # inches
_MAX_LABEL = 60  # characters


def plot_claims(claims: Sequence[Claim]) -> Picture:
    """Draw a line for each claim, in the order of the table, which names the references."""
    labels = [claim.row for claim in claims]

    def draw(axes: Axes) -> None:
        for place, claim in enumerate(claims):
            effect, colour = claim.effect, _COLOURS[claim.verdict]
            axes.plot(effect.interval, (place, place), color=colour, linewidth=2.5, zorder=2)
            axes.scatter([effect.difference], [place], color=colour, s=42, zorder=3)
        axes.axvline(0, color="#8a8a8a", linewidth=1, zorder=1)
        axes.set_yticks(range(len(claims)), [figure_text(label, max_letters=_MAX_LABEL) for label in labels])
        axes.set_ylim(len(claims) - 0.5, -0.5)
        axes.grid(axis="x", alpha=0.3)
        verdicts = dict.fromkeys(claim.verdict for claim in claims)
        handles = [axes.scatter([], [], color=_COLOURS[verdict], label=verdict) for verdict in verdicts]
        axes.figure.legend(handles=handles, frameon=False, fontsize=9, loc="outside upper right", ncols=len(handles))
        axes.figure.supxlabel(
            "top-1 less the reference's; line: 95 % interval over sources and seeds", fontsize="medium"
        )

    height = _BASE_HEIGHT + _CLAIM_HEIGHT * len(claims)
    return drawn(Drawing("claims", "Differences from the reference", draw, height), [*labels, *_COLOURS])
