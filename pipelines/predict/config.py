"""What can be set when one's own videos are classified."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from pipelines.networks.config import ScoringComputeConfig
from pipelines.prepare.config import GuardConfig
from pipelines.settings.section import Address, Role, Section, UserPath
from pipelines.tracking.config import TrackingConfig
from t3d_core.errors import UserError

FeatureKind = Literal["clip", "video"]


class PredictConfig(Section):
    """Classify any videos, sampled as in testing (paper 4.4); they need not be prepared."""

    POSITIONAL = "inputs"
    FIRST_SETTINGS = (
        "inputs",
        "model",
        "output",
        "demo",
        "stride_seconds",
        "timeline",
        "annotate",
        "explain",
        "features",
        "use_gpu",
    )

    inputs: tuple[Address, ...] = ()
    """Videos, folders of videos, or lists: a .txt file with one path per line, or a .csv or .tsv file with a column
    `path`; https:// addresses of videos, and s3:// and gs:// addresses of videos and folders, too. Words without an
    option name are inputs."""
    model: Address | None = None
    """Network: a weights file, a run or checkpoint folder, runs:/... or models:/... . By default the newest run in
    `storage`."""
    output: Annotated[UserPath | None, Role.PLACE] = None
    """Folder for the predictions. By default STORAGE/predict-TIME. A folder of an interrupted job is completed."""
    top: PositiveInt = 5
    """Number of classes that are printed for each video."""
    demo: Annotated[bool, Role.VIEW] = False
    """Show the whole path on new synthetic videos, with the newest network in `storage` that knows their motions; if
    there is none, a small one is trained first, in some minutes."""
    num_clips: PositiveInt | None = None
    """Clips of every video, evenly spaced. By default all clips that do not overlap (paper 4.4)."""
    stride_seconds: PositiveFloat | None = None
    """Seconds from the start of a clip to the start of the next, for a finer or coarser timeline. By default clips are
    side by side, as in testing."""
    num_crops: Literal[1, 3, 10] = 1
    """Squares of every clip that are scored, as in `evaluate`."""
    timeline: Annotated[bool, Role.VIEW] = False
    """Write the scores over time as timeline.csv and timeline.png, and print the segments of one class."""
    annotate: Annotated[bool, Role.VIEW] = False
    """Write annotated.mp4, a copy of the video with label, score and timeline drawn in."""
    explain: Annotated[bool, Role.VIEW] = False
    """Write explanation.png and explanation.mp4: where and when the clip with the highest score speaks for its class,
    and by which temporal depths of the network (Paper: not in it; gradient x activation)."""
    features: Annotated[FeatureKind | None, Role.VIEW] = None
    """Write features.parquet: what the network's last layer sees, of every clip or as the mean of every video. Weights
    without classes, as those of a transfer, give features alone."""
    smooth_seconds: Annotated[float, Field(ge=0)] = 2.0
    """Window in seconds over which a timeline is smoothed; 0 leaves the scores of the clips as they are."""
    min_segment_seconds: Annotated[float, Field(ge=0)] = 0.0
    """Segments of a timeline that are shorter join a neighbour."""
    batch_size: PositiveInt = 8
    """Clips that the network gets at once. With the value of `evaluate`, scores are the same to the last bit."""
    compute: ScoringComputeConfig = ScoringComputeConfig()
    num_workers: Annotated[int | None, Field(ge=0), Role.RUNNING] = None
    """Processes of Ray that run the network, while other CPUs decode; with 0 the job's own process scores one video
    after the other. By default few videos are. Many, or long ones, get a worker for each GPU, or else for as many CPUs
    as one process uses."""
    use_gpu: bool | None = None
    """Run the network on the GPU, with Ray one for each worker. By default it does if there is one."""
    guard: GuardConfig = GuardConfig()
    tracking: Annotated[TrackingConfig, Role.PLACE] = TrackingConfig()
    storage: Annotated[UserPath, Role.PLACE] = Path("runs")
    """Folder with training runs."""

    @model_validator(mode="after")
    def _demo_stands_alone(self) -> "PredictConfig":
        if self.demo and (self.inputs or self.model is not None):
            raise UserError("demo has its own videos and its own network: leave inputs and model out")
        return self

    @model_validator(mode="after")
    def _clips_have_one_rule(self) -> "PredictConfig":
        if self.stride_seconds is not None and self.num_clips is not None:
            raise UserError(
                f"stride_seconds {self.stride_seconds:g} and num_clips {self.num_clips} both set where clips start: "
                "leave one of them out"
            )
        return self
