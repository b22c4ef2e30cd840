"""What a comparison may set: which runs, told apart by what, beside which table of the paper."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import model_validator

from pipelines.settings.section import Role, Section, UserPath
from pipelines.tracking.config import TrackingConfig
from t3d_core.errors import UserError


class CompareConfig(Section):
    """Compare runs that MLflow has: mean and spread over seeds, cost, and the paper's figures beside ours."""

    FIRST_SETTINGS = (
        "experiment",
        "runs",
        "table",
        "group_by",
        "stage",
        "metric",
        "output",
        "tracking.uri",
    )

    table: Literal[2, 3, 4, 5, 6, 8, 9, 10] | None = None
    """Table of the paper to compare with: it says what tells runs apart."""
    experiment: str | None = None
    """Experiment whose runs are compared; none: tracking.experiment."""
    runs: tuple[str, ...] = ()
    """Names or ids of runs, or of searches, whose trials are taken; none: all of the experiment."""
    group_by: tuple[str, ...] = ()
    """Parameters that tell rows apart, such as model.kind; none: those of the table, or the points of a search, or
    whatever differs between the runs."""
    stage: Literal["train", "transfer"] = "train"
    """Which runs."""
    metric: str | None = None
    """What is compared; none: video_top1 of the tests (train; val/clip_top1 of runs of which none was tested),
    check/pair_accuracy (transfer)."""
    curves: tuple[str, ...] = ("val/loss", "val/clip_top1")
    """Curves that are drawn."""
    output: Annotated[UserPath | None, Role.PLACE] = None
    """Folder for the report; none: STORAGE/compare-TIME."""
    tracking: Annotated[TrackingConfig, Role.PLACE] = TrackingConfig()
    storage: Annotated[UserPath, Role.PLACE] = Path("runs")
    """Folder with runs."""

    @model_validator(mode="after")
    def _table_groups(self) -> "CompareConfig":
        if self.table is not None and self.group_by:
            raise UserError(f"table {self.table} says what tells rows apart: leave group_by out, or table")
        if self.table is not None and self.stage != "train":
            raise UserError("the paper's tables are of classifiers: leave stage out")
        return self
