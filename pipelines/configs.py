"""What can be set, stage by stage: frozen sections whose defaults are the paper's values.

A dotted path into these trees is the command-line option, the MLflow parameter and the search key.
"""

import warnings
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from pipelines.model_configs import Fraction, ModelConfig, TransitionForm
from pipelines.recipe import Section
from t3d_core.training.schedules import ScheduleKind
from t3d_core.video.cropping import default_short_side
from t3d_core.video.storage import Encoding

# pydantic warns of the field `register` because metaclasses have a method of that name; instances have none.
warnings.filterwarnings("ignore", message='Field name "register"')

Color = tuple[float, float, float]
PositiveColor = tuple[PositiveFloat, PositiveFloat, PositiveFloat]
IMAGENET: tuple[Color, Color] = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class SyntheticDatasetConfig(Section):
    """Short videos made on the spot, whose class is carried by motion alone."""

    kind: Literal["synthetic"] = "synthetic"
    root: Path | None = None
    """Folder to write the videos to, and to find them in again; none: beside the shards."""
    videos_per_class: PositiveInt = 24
    """Videos of each of the 8 motions."""
    num_frames: PositiveInt = 48
    """Frames a video."""
    height: PositiveInt = 72
    """Pixels."""
    width: PositiveInt = 96
    """Pixels."""
    seed: int = 0
    """The same seed gives the same bytes."""
    val_fraction: Fraction = 0.15
    """Share of the videos of each class for validation."""
    test_fraction: Fraction = 0.2
    """Share of the videos of each class for testing."""


class FolderDatasetConfig(Section):
    """Class folders, or a CSV with the columns path,label,group,split."""

    kind: Literal["folder"] = "folder"
    root: str
    """Folder or URI (s3://, gs://) with `label/video`, `split/label/video`, or the videos that the CSV names."""
    annotations: Path | None = None
    """CSV with path,label,group,split; none: index.csv in a local ROOT that has one, else the folders are labels."""
    is_labelled: bool = True
    """false: labels are ignored and videos are cut into segments, for the transfer."""
    is_group_within_label: bool = False
    """Groups are numbered anew in each class, as UCF101's g01..g25."""
    val_fraction: Fraction = 0.0
    """Without given splits: share of the groups carved out for validation."""
    test_fraction: Fraction = 0.2
    """Without given splits: share of the groups carved out for testing."""
    seed: int = 0
    """Of the carving."""


class UCF101DatasetConfig(Section):
    """UCF101 by its official lists, three folds (paper 4.1)."""

    kind: Literal["ucf101"] = "ucf101"
    root: str
    """Folder or URI (s3://, gs://) with the videos, in class folders or not."""
    annotations: Path
    """Folder with classInd.txt, trainlist01.txt ... testlist03.txt (ucfTrainTestlist)."""
    val_fraction: Fraction = 0.1
    """Share of the training videos of each fold carved out for validation, by whole groups (g01 ... g25)."""
    seed: int = 0
    """Of the carving."""


class HMDB51DatasetConfig(Section):
    """HMDB51 by its official lists, three folds (paper 4.1)."""

    kind: Literal["hmdb51"] = "hmdb51"
    root: str
    """Folder or URI (s3://, gs://) with the videos, in class folders or not."""
    annotations: Path
    """Folder with CLASS_test_split1.txt ... (testTrainMulti_7030_splits)."""
    val_fraction: Fraction = 0.1
    """Share of the training videos of each fold carved out for validation, by whole source videos."""
    seed: int = 0
    """Of the carving."""


class KineticsDatasetConfig(Section):
    """Kinetics-400, -600 or -700 by its official CSV files (paper 4.1)."""

    kind: Literal["kinetics"] = "kinetics"
    root: str
    """Folder or URI (s3://, gs://) with `label/id_start_end.mp4` or `id.mp4`, in any folders."""
    annotations: tuple[Path, ...]
    """CSV files with youtube_id,time_start,time_end,split and, but for the test list, label."""
    name: str = "kinetics"
    """Name of the data set, such as kinetics400."""
    is_trimmed: bool | None = None
    """Files named by the id alone (`id.mp4`) hold just the annotated interval (true), or it is cut out (false)."""
    val_fraction: Fraction = 0.0
    """Share of the training videos carved out for validation, by whole YouTube videos; not beside an official val."""
    seed: int = 0
    """Of the carving."""


class YouTube8MDatasetConfig(Section):
    """YouTube-8M, or any list of YouTube ids: unlabelled video for the transfer (paper 4.3)."""

    kind: Literal["youtube8m"] = "youtube8m"
    root: str
    """Folder or URI (s3://, gs://) with the videos, found by their YouTube id in any folders."""
    annotations: Path
    """An id a line, or a CSV with ids and, where wanted, start_seconds,end_seconds."""
    id_map: Path | None = None
    """CSV with yt8m_id,youtube_id, for lists that carry YouTube-8M's own ids."""


DatasetConfig = Annotated[
    SyntheticDatasetConfig
    | FolderDatasetConfig
    | UCF101DatasetConfig
    | HMDB51DatasetConfig
    | KineticsDatasetConfig
    | YouTube8MDatasetConfig,
    Field(discriminator="kind"),
]


class GuardConfig(Section):
    """What one video may cost before it counts as failed; decoding runs in a process of its own."""

    seconds: Annotated[float, Field(gt=0, le=86_400)] = 300.0
    """Time on the clock."""
    memory_gib: PositiveFloat = 2.0
    """Address space of the decoding process; Python and FFmpeg take about 0.4."""
    output_gib: PositiveFloat = 1.0
    """Encoded segments of one video."""
    source_gib: PositiveFloat = 8.0
    """Size of one source file; of a remote one there is a copy on local disk while it is decoded."""


class PrepareConfig(Section):
    """Decode listed videos and write them as shards."""

    dataset: DatasetConfig
    output: Path | None = None
    """Folder for shards, videos.parquet and failures.parquet; none (inside `data.prepare` only): STORAGE/data/KIND."""
    encoding: Encoding = "auto"
    """copy (as the source is), h264 (made for short seeks), jpeg (each frame), or auto: whichever suits the source."""
    short_side: PositiveInt = 256
    """Pixels; larger videos are scaled down to it, smaller ones are kept (paper 4.4)."""
    max_segment_seconds: PositiveFloat = 10.0
    """Unlabelled videos are cut into segments of at most this; a labelled video stays one row."""
    segments_per_video: PositiveInt | None = None
    """From an unlabelled video without given times take so many segments at random places; none: all of it."""
    videos_per_shard: PositiveInt = 64
    """Listed videos a shard: the unit of work and of resuming."""
    seed: int = 0
    """Of the order in which videos are spread over shards."""
    max_failed_fraction: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Above this share of found videos that fail the job ends with status 1, after writing everything."""
    guard: GuardConfig = GuardConfig()
    contact_sheet_segments: PositiveInt = 12
    """Random segments on contact_sheet.png."""


class TrackingConfig(Section):
    """MLflow."""

    uri: str | None = None
    """Tracking server or database; none: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db where you stand."""
    experiment: str = "t3d"
    """Experiment to which runs belong."""


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
    fold: PositiveInt = 1
    """Official split list, 1-based."""


class TrainDataConfig(DataConfig):
    """Which prepared rows training reads: those of split `train`, validating on split `val`."""

    holdout_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Where the fold has no split `val`: share of the source videos of `train` that validate instead."""


class TransferDataConfig(DataConfig):
    """Which prepared rows the transfer reads: those of split `train`; labels are ignored."""

    holdout_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the source videos kept out of training, for the reported pair accuracy."""
    holdout_clips_per_row: PositiveInt = 1
    """Clips drawn from every held-out row, with fixed seeds."""


class EvaluateDataConfig(DataConfig):
    """Which prepared rows are tested."""

    split: Literal["train", "val", "test"] = "test"
    """Split of the fold."""


class ClipConfig(Section):
    """How a clip is taken from a video."""

    num_frames: PositiveInt = 32
    """Frames a clip (paper Table 3)."""
    frame_stride: PositiveInt = 2
    """Source frames from one clip frame to the next (paper Table 6)."""
    crop_size: PositiveInt = 224
    """Pixels of the square crop (paper Table 5)."""
    short_side: PositiveInt | None = None
    """Pixels of the shorter side before the crop; none: crop_size * 256 / 224, as the paper's 256 to 224."""
    short_video: Literal["loop", "repeat_last"] = "loop"
    """What fills the clip when the video is shorter than its span."""
    mean: Color = IMAGENET[0]
    """Subtracted from RGB on the 0..1 scale."""
    std: PositiveColor = IMAGENET[1]
    """Divides RGB after that."""

    @model_validator(mode="after")
    def _crop_fits(self) -> "ClipConfig":
        if self.short_side_pixels() < self.crop_size:
            raise ValueError(f"short_side {self.short_side} is smaller than crop_size {self.crop_size}")
        return self

    def short_side_pixels(self) -> int:
        """The short side, given or derived from the crop."""
        return self.short_side or default_short_side(self.crop_size)


class ComputeConfig(Section):
    """How the network is run; what it computes stays the same, but for rounding."""

    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: convolutions and matrix products in bfloat16 (autocast), checked against fp32 before the run."""
    channels_last: bool = True
    """Keep a position's channels side by side in memory; not in bf16 on a CPU, whose kernels are wrong then."""
    compile: bool = False
    """torch.compile: minutes at the first start on a machine, then from its cache on disk."""
    debug: bool = False
    """Search clips and features for values that are not finite."""


class TrainComputeConfig(ComputeConfig):
    """How the network is run in training."""

    recompute: bool = False
    """Keep a layer's input alone for backward and compute the rest once more there: less memory, a slower step."""

    @model_validator(mode="after")
    def _one_of_two(self) -> "TrainComputeConfig":
        if self.compile and self.recompute:
            raise ValueError("compile and recompute cannot be combined: choose one")
        return self


class EvaluateComputeConfig(ComputeConfig):
    """How the network is run in testing."""

    transition_forms: TransitionForm | tuple[TransitionForm, ...] | None = None
    """How transitions compute their sum, for another machine than the weights were trained on; none: as they say."""

    fold_batch_norm: bool = True
    """Fold batch norms into the convolutions before them."""


class TeacherConfig(Section):
    """The frozen ImageNet 2D network."""

    kind: Literal["densenet121", "densenet169", "resnet18", "resnet34", "resnet50", "efficientnet_lite0"] = (
        "densenet121"
    )
    """Network; efficientnet_lite0 comes in a package, the others are torchvision's download."""
    weights: Path | None = None
    """Local file with the weights, for a network without internet."""
    num_frames: PositiveInt | None = None
    """Frames of the clip that it sees, spread evenly; none: all of them (paper: 32)."""
    crop_size: PositiveInt = 224
    """Pixels of its own square crop."""


class OptimizerConfig(Section):
    """SGD (paper 4.4)."""

    lr: PositiveFloat = 0.1
    """Learning rate at the start (one_cycle: at the peak)."""
    momentum: Fraction = 0.9
    """Of SGD."""
    nesterov: bool = True
    """Nesterov's form of momentum."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """L2, on all parameters."""


class ScheduleConfig(Section):
    """How the learning rate changes."""

    kind: ScheduleKind
    """constant, step (every N epochs), plateau (of the validation loss) or one_cycle (over the whole run)."""
    every_epochs: PositiveInt = 30
    """step: epochs between two changes (paper 4.4, transfer)."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """step, plateau: what the rate is multiplied by."""
    patience: PositiveInt = 10
    """plateau: validations without a lower loss that are borne; one more changes the rate."""


class ScalingConfig(Section):
    """Train workers, as ray.train.ScalingConfig."""

    num_workers: Annotated[int, Field(ge=0)] = 1
    """Processes of data-parallel training; 0: in this process, without any."""
    use_gpu: bool = False
    """One GPU a worker."""
    resources_per_worker: dict[str, float] = Field(default_factory=lambda: {"CPU": 1.0})
    """What each worker reserves; at least one CPU of the cluster must be left for decoding."""

    def resources_of_worker(self) -> dict[str, float]:
        """All that one worker reserves."""
        return self.resources_per_worker | ({"GPU": 1.0} if self.use_gpu else {})


class CheckpointConfig(Section):
    """Checkpoints, as ray.train.CheckpointConfig."""

    num_to_keep: PositiveInt = 2
    """Older ones are deleted."""
    every_steps: PositiveInt = 500
    """Steps between two checkpoints; one more is written at the end."""


class FailureConfig(Section):
    """Failed workers, as ray.train.FailureConfig."""

    max_failures: Annotated[int, Field(ge=-1)] = 3
    """Restarts from the last checkpoint before the run fails; -1: no limit."""


class RunConfig(Section):
    """What all training runs have in common."""

    global_batch_size: PositiveInt
    """Clips a step, over all workers."""
    epochs: PositiveInt
    """Passes over the training rows."""
    validate_every_epochs: PositiveInt = 1
    """Epochs between two validations; one more is made before the first step and one at the end."""
    log_every_steps: PositiveInt = 10
    """Steps between two points in MLflow."""
    seed: int = 0
    """Of initial weights, order, crops and flips."""
    clip: ClipConfig = ClipConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig
    compute: TrainComputeConfig = TrainComputeConfig()
    scaling: ScalingConfig = ScalingConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    failure: FailureConfig = FailureConfig()
    tracking: TrackingConfig = TrackingConfig()
    storage: Path = Path("runs")
    """Folder in which the run's own folder is made; on a cluster one that all nodes share."""
    name: str | None = None
    """Name of the run; the same name again resumes it. None: a new name."""

    def clips_per_worker(self) -> int:
        """Clips that one worker trains on in a step."""
        return self.global_batch_size // max(1, self.scaling.num_workers)

    @model_validator(mode="after")
    def _batch_can_be_shared(self) -> "RunConfig":
        if self.global_batch_size % max(1, self.scaling.num_workers):
            raise ValueError(
                f"global_batch_size {self.global_batch_size} cannot be shared by scaling.num_workers "
                f"{self.scaling.num_workers}: choose a multiple"
            )
        return self


class TransferConfig(RunConfig):
    """Teach a 3D network by telling matching from non-matching frames and clips (paper 3.2)."""

    data: TransferDataConfig
    model: ModelConfig
    teacher: TeacherConfig = TeacherConfig()
    global_batch_size: PositiveInt = 32
    """Clips a step, over all workers (paper 4.4)."""
    epochs: PositiveInt = 150
    """Passes over the training rows (paper 4.4)."""
    schedule: ScheduleConfig = ScheduleConfig(kind="step")

    @model_validator(mode="after")
    def _worker_sees_pairs(self) -> "TransferConfig":
        if self.global_batch_size < 2 * max(1, self.scaling.num_workers):
            raise ValueError(
                f"global_batch_size {self.global_batch_size} gives a worker fewer than 2 clips, and so no negative "
                f"pair: at least {2 * max(1, self.scaling.num_workers)}"
            )
        return self


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
    init_from: str | None = None
    """Weights to start from: a file, a checkpoint or run folder, runs:/... or models:/...; none: from scratch."""
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
        if self.replace_head and self.init_from is None:
            raise ValueError("replace_head needs the weights whose head it replaces: add --init_from WEIGHTS")
        if self.inflate_from is not None and self.clip is not None and (self.clip.mean, self.clip.std) != IMAGENET:
            raise ValueError(
                f"inflate_from takes weights for clips normalised by ImageNet's mean and std {IMAGENET}, given "
                f"clip.mean {self.clip.mean} and clip.std {self.clip.std}: leave them as they are by default"
            )
        if self.alias is not None and self.register is None:
            raise ValueError(f"alias {self.alias!r} needs the name of a registered model: add --register NAME")
        return self


class EvaluateConfig(Section):
    """Score every test clip of every video, average to one prediction a video (paper 4.4, Testing)."""

    data: EvaluateDataConfig
    checkpoint: str | None = None
    """Weights: a file, a checkpoint or run folder, runs:/... or models:/...; none: the newest run in `storage`."""
    output: Path | None = None
    """Folder for metrics.json and scores.parquet; none: STORAGE/evaluate-TIME."""
    batch_size: PositiveInt = 8
    """Clips that a worker scores at once."""
    compute: EvaluateComputeConfig = EvaluateComputeConfig()
    num_workers: PositiveInt = 1
    """Processes that hold the network."""
    use_gpu: bool = False
    """One GPU a worker."""
    tracking: TrackingConfig = TrackingConfig()
    storage: Path = Path("runs")
    """Folder with training runs, and with the shards that `data.prepare` makes."""


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
