"""Each class of a timeline has one colour, the same in its plot and in the annotated video."""

from collections.abc import Iterable

from t3d_core.prediction.timeline import Segment

# After the palette of Okabe and Ito, which colour-blind people can tell apart; none is faint on white or on black.
_COLOURS = ("#e69f00", "#3f9fe0", "#00a878", "#e8553a", "#c979ad", "#8f7ef0")
MAX_COLOURED = len(_COLOURS)
OTHER_COLOUR = "#9a9a9a"


def class_colours(segments: Iterable[Segment]) -> dict[int, str]:
    """Give a colour to the classes that are on top for the longest time; all others are grey.

    Args:
        segments: of one timeline.

    Returns:
        Colour by label, as `#rrggbb`; at most `MAX_COLOURED`, the longest class first.
    """
    seconds: dict[int, float] = {}
    for each in segments:
        seconds[each.label] = seconds.get(each.label, 0.0) + each.end_seconds - each.start_seconds
    longest = sorted(seconds, key=lambda label: (-seconds[label], label))
    return dict(zip(longest, _COLOURS, strict=False))
