"""What can be set in a baseline of a table: a linear classifier on frozen features, or on shape and length alone."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipelines.settings.section import Role, Section, UserPath
from pipelines.tracking.config import TrackingConfig
from pipelines.train.config import TrainDataConfig
from pipelines.training.config import ScalingConfig
from pipelines.transfer.config import ImageNetTeacherConfig, TeacherConfig
from t3d_core.errors import UserError


class BaselineDataConfig(TrainDataConfig):
    """Which prepared rows are learned from, the same as in training, and which are tested."""

    split: Literal["val", "test"] = "test"
    """Split of the fold to test on."""


class BaselineConfig(Section):
    """Fit a linear classifier to what no video network has learned, and test it (Paper: not in it)."""

    data: BaselineDataConfig
    kind: Literal["teacher", "shape_and_length"] = "teacher"
    """What is known of a video. teacher: a frozen 2D network's features of its frames. shape_and_length: number of
    frames, frames a second, height, width, aspect ratio and stored bytes a frame, but no pixel."""
    teacher: TeacherConfig = ImageNetTeacherConfig(kind="efficientnet_lite0", num_frames=16)
    """The 2D network. It sees the centre crop of `num_frames` frames, evenly spread over the whole video, and the
    classifier gets what `target` makes of their features."""
    seed: Annotated[int, Field(ge=0), Role.REPLICATE] = 0
    """Name of the repetition. Nothing is random, so every seed gives the same scores, and one is enough."""
    scaling: Annotated[ScalingConfig, Role.RUNNING] = ScalingConfig()
    """Processes that run the teacher, at least one."""
    tracking: Annotated[TrackingConfig, Role.PLACE] = TrackingConfig()
    storage: Annotated[UserPath, Role.PLACE] = Path("runs")
    """Folder in which the baseline's own folder is made."""
    name: Annotated[str | None, Role.PLACE] = None
    """Name of the baseline; the same name again gives the same result without work. By default a new name."""

    @model_validator(mode="after")
    def _teacher_sees_a_video(self) -> "BaselineConfig":
        if self.kind != "teacher":
            return self
        if self.teacher.num_frames is None:
            raise UserError("teacher.num_frames is not given, and a baseline has no clip: give the frames of a video")
        if self.teacher.shared_crop:
            raise UserError("teacher.shared_crop true is for a student's crop, and a baseline has none: leave it out")
        if self.scaling.most_workers() == 0:
            raise UserError("scaling.num_workers 0: a baseline's teacher runs in processes of its own: give 1 or more")
        return self
