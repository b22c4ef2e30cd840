"""What a comparison may set: which runs, by which settings they are grouped, and which table of the paper."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipelines.settings.section import Role, Section, UserPath
from pipelines.tracking.config import TrackingConfig
from t3d_core.errors import UserError


class CompareConfig(Section):
    """Compare runs in MLflow: mean and spread over seeds, cost, and the paper's figures next to ours."""

    FIRST_SETTINGS = (
        "experiment",
        "runs",
        "table",
        "group_by",
        "stage",
        "metric",
        "reference",
        "output",
        "tracking.uri",
    )

    table: Literal[2, 3, 4, 5, 6, 8, 9, 10] | None = None
    """Table of the paper to compare with; it decides how runs are grouped. By default there is none."""
    experiment: str | None = None
    """Experiment whose runs are compared. By default tracking.experiment."""
    runs: tuple[str, ...] = ()
    """Names or ids of the runs to compare, or of searches whose trials to compare. By default all of the experiment."""
    group_by: tuple[str, ...] = ()
    """Parameters that make the rows, such as model.kind. By default those of the table, else the points of a search,
    else all settings that differ between the runs."""
    stage: Literal["train", "transfer"] = "train"
    """Stage of the runs to compare."""
    metric: str | None = None
    """Metric to compare. By default video_top1 of the tests, or val/clip_top1 if no run was tested (train);
    probe/linear_top1, else check/pair_accuracy, else check/key_rank, of which some run has it (transfer)."""
    reference: str | None = None
    """Row that the others are compared with, by its label, or by the name or id of one of its runs. By default the
    baseline of the table, else the row whose runs are named first in `runs`, else made first; never the best row."""
    results: tuple[UserPath, ...] = ()
    """Files results.csv of earlier comparisons, of one data set or several, to compare in place of runs in MLflow.
    `reference` is then a row's label, or the part of labels that makes a row the reference of the others."""
    smallest_difference: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """With results: the least difference in accuracy that you would care for. A claim whose whole interval lies below
    it is not supported."""
    curves: tuple[str, ...] = ("val/loss", "val/clip_top1")
    """Metrics whose curves are drawn."""
    output: Annotated[UserPath | None, Role.PLACE] = None
    """Folder for the report. By default STORAGE/compare-TIME."""
    tracking: Annotated[TrackingConfig, Role.PLACE] = TrackingConfig()
    storage: Annotated[UserPath, Role.PLACE] = Path("runs")
    """Folder in which the report's folder is made."""

    @model_validator(mode="after")
    def _rows_are_known(self) -> "CompareConfig":
        if self.table is not None and self.group_by:
            raise UserError(f"table {self.table} already groups the runs: leave out group_by or table")
        if self.table is not None and self.stage != "train":
            raise UserError(
                f"table {self.table} is about classifiers, not stage {self.stage}: leave out stage or table"
            )
        if self.results and self.reference is None:
            raise UserError("results need the row that the others are compared with: add --reference LABEL")
        if self.results and (self.runs or self.table is not None or self.group_by or self.metric):
            raise UserError(
                "results are rows of tests already, and no runs in MLflow: leave out runs, table, group_by and metric"
            )
        return self
