"""Which videos become shards, and how: one section a data set, and what preparing them may cost."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from pipelines.settings.section import Address, Fraction, Role, Section, UserPath
from pipelines.tracking.config import TrackingConfig
from t3d_core.video.encodings import Encoding


class SyntheticDatasetConfig(Section):
    """Short videos made on the spot, whose class is carried by motion alone."""

    kind: Literal["synthetic"] = "synthetic"
    root: UserPath | None = None
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
    root: Address
    """Folder or URI (s3://, gs://) with `label/video`, `split/label/video`, or the videos that the CSV names."""
    annotations: UserPath | None = None
    """CSV with path,label,group,split; none: index.csv in a local ROOT that has one, else the folders are labels."""
    is_labelled: bool = True
    """false: labels are ignored and videos are cut into segments, for the transfer."""
    is_group_within_label: bool = False
    """Groups are numbered anew in each class, as UCF101's g01..g25."""
    val_fraction: Fraction = 0.0
    """Without given splits: share of the groups carved out for validation."""
    test_fraction: Fraction = 0.2
    """Without given splits: share of the groups carved out for testing."""
    num_folds: Annotated[int, Field(ge=2)] | None = None
    """Cross-validation by group, given splits or not: every video is tested in one of so many folds (`data.fold`); as
    many as there are groups leaves out one at a time. None: one fold."""
    seed: int = 0
    """Of the carving."""


class UCF101DatasetConfig(Section):
    """UCF101 by its official lists, three folds (paper 4.1)."""

    kind: Literal["ucf101"] = "ucf101"
    root: Address
    """Folder or URI (s3://, gs://) with the videos, in class folders or not."""
    annotations: UserPath
    """Folder with classInd.txt, trainlist01.txt ... testlist03.txt (ucfTrainTestlist)."""
    val_fraction: Fraction = 0.1
    """Share of the training videos of each fold carved out for validation, by whole groups (g01 ... g25)."""
    seed: int = 0
    """Of the carving."""


class HMDB51DatasetConfig(Section):
    """HMDB51 by its official lists, three folds (paper 4.1)."""

    kind: Literal["hmdb51"] = "hmdb51"
    root: Address
    """Folder or URI (s3://, gs://) with the videos, in class folders or not."""
    annotations: UserPath
    """Folder with CLASS_test_split1.txt ... (testTrainMulti_7030_splits)."""
    val_fraction: Fraction = 0.1
    """Share of the training videos of each fold carved out for validation, by whole source videos."""
    seed: int = 0
    """Of the carving."""


class KineticsDatasetConfig(Section):
    """Kinetics-400, -600 or -700 by its official CSV files (paper 4.1)."""

    kind: Literal["kinetics"] = "kinetics"
    root: Address
    """Folder or URI (s3://, gs://) with `label/id_start_end.mp4` or `id.mp4`, in any folders."""
    annotations: tuple[UserPath, ...]
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
    root: Address
    """Folder or URI (s3://, gs://) with the videos, found by their YouTube id in any folders."""
    annotations: UserPath
    """An id a line, or a CSV with ids and, where wanted, start_seconds,end_seconds."""
    id_map: UserPath | None = None
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
    output: Annotated[UserPath | None, Role.PLACE] = None
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


class PrepareJobConfig(PrepareConfig):
    """Decode listed videos and write them as shards."""

    FIRST_SETTINGS = (
        "dataset.kind",
        "dataset.root",
        "dataset.annotations",
        "dataset.is_labelled",
        "output",
        "encoding",
        "short_side",
        "max_failed_fraction",
        "retry_failed",
        "dry_run",
    )

    dry_run: bool = False
    """Probe and encode a sample, print what the whole would take, and make nothing."""
    dry_run_videos: PositiveInt = 12
    """Videos in that sample."""
    retry_failed: bool = False
    """Try failed videos again even where their files have not changed, as after raising a limit of `guard`."""
    tracking: Annotated[TrackingConfig, Role.PLACE] = TrackingConfig()


class DataConfig(Section):
    """Which prepared rows are read."""

    shards: Annotated[tuple[UserPath, ...], Role.PLACE] = ()
    """Folders that jobs/prepare.py wrote: one or several."""
    prepare: Annotated[PrepareConfig | None, Role.PLACE] = None
    """Prepared first when `shards` names none."""
    fingerprint: Annotated[str | None, Role.RUNNING] = None
    """Refuse shards whose settings fingerprint (jobs/prepare.py prints it) begins otherwise; none: take any."""
    fold: Annotated[PositiveInt, Role.REPLICATE] = 1
    """Official split list, 1-based."""
