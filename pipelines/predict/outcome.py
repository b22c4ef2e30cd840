"""What became of one video in a job, for the screen and for the counts of the summary."""

from collections.abc import Sequence
from typing import NamedTuple

from pipelines.predict.ledger import PredictedVideo
from pipelines.predict.screen import describe_video


class VideoOutcome(NamedTuple):
    """What became of one video.

    Attributes:
        result: its prediction, or why there is none.
        lines: about its files.
        fault: why they could not be made; empty where they were, or were not asked for.
    """

    result: PredictedVideo
    lines: Sequence[str] = ()
    fault: str = ""

    def describe(self, class_names: Sequence[str], *, top: int) -> str:
        """The lines for the screen."""
        shown = [describe_video(self.result, class_names, top=top), *self.lines]
        return "\n  ".join([*shown, f"its files cannot be written: {self.fault}"] if self.fault else shown)
