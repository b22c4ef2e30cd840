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
    """Folder that the videos are written to and found in later. By default next to the shards."""
    videos_per_class: PositiveInt = 24
    """Number of videos of each of the 8 motions."""
    num_frames: PositiveInt = 48
    """Frames of each video."""
    height: PositiveInt = 72
    """Height of the videos in pixels."""
    width: PositiveInt = 96
    """Width of the videos in pixels."""
    seed: int = 0
    """Seed of the videos: the same seed gives the same bytes."""
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
    """CSV file with the columns path,label,group,split. Its paths are relative to the root or to the CSV's folder. By
    default index.csv in a local root; without such a file the folders are the labels."""
    is_labelled: bool = True
    """Whether the labels are used. Without them videos are cut into segments, as the transfer needs them."""
    is_group_within_label: bool = False
    """Whether each class numbers its groups from 1, as UCF101 does (g01..g25)."""
    val_fraction: Fraction = 0.0
    """Share of the groups held out for validation. It counts only where no splits are given."""
    test_fraction: Fraction = 0.2
    """Share of the groups held out for testing. It counts only where no splits are given."""
    num_folds: Annotated[int, Field(ge=2)] | None = None
    """Number of folds of a cross-validation by group, whether splits are given or not. Every video is tested in one
    fold (`data.fold`). As many folds as groups leave out one group at a time. By default there is one fold."""
    val_groups: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Groups that validate in every fold and are never tested (Paper: not in it). With `is_group_within_label` a group
    is called label/group. By default `val_fraction` or the given splits say what validates."""
    seed: int = 0
    """Seed of the choice of held-out videos."""


class UCF101DatasetConfig(Section):
    """UCF101 by its official lists, three folds (paper 4.1)."""

    kind: Literal["ucf101"] = "ucf101"
    root: Address
    """Folder or URI (s3://, gs://) with the videos, in class folders or not."""
    annotations: UserPath
    """Folder of the official lists: classInd.txt, trainlist01.txt ... testlist03.txt (ucfTrainTestlist)."""
    val_fraction: Fraction = 0.1
    """Share of the training videos of each fold held out for validation, by whole groups (g01 ... g25)."""
    seed: int = 0
    """Seed of the choice of held-out videos."""


class HMDB51DatasetConfig(Section):
    """HMDB51 by its official lists, three folds (paper 4.1)."""

    kind: Literal["hmdb51"] = "hmdb51"
    root: Address
    """Folder or URI (s3://, gs://) with the videos, in class folders or not."""
    annotations: UserPath
    """Folder of the official lists: CLASS_test_split1.txt ... (testTrainMulti_7030_splits)."""
    val_fraction: Fraction = 0.1
    """Share of the training videos of each fold held out for validation, by whole source videos."""
    seed: int = 0
    """Seed of the choice of held-out videos."""


class KineticsDatasetConfig(Section):
    """Kinetics-400, -600 or -700 by its official CSV files (paper 4.1)."""

    kind: Literal["kinetics"] = "kinetics"
    root: Address
    """Folder or URI (s3://, gs://) with `label/id_start_end.mp4` or `id.mp4`, in any folders."""
    annotations: tuple[UserPath, ...]
    """Official CSV files with youtube_id,time_start,time_end,split and, except in the test list, label."""
    name: str = "kinetics"
    """Name of the data set, such as kinetics400."""
    is_trimmed: bool | None = None
    """Whether a file that is named by its id alone (`id.mp4`) holds just the annotated interval. If not, the interval
    is cut out of it. By default such files are refused."""
    val_fraction: Fraction = 0.0
    """Share of the training videos held out for validation, by whole YouTube videos. It must be 0 where the files hold
    an official validation split."""
    seed: int = 0
    """Seed of the choice of held-out videos."""


class YouTube8MDatasetConfig(Section):
    """YouTube-8M, or any list of YouTube ids: unlabelled video for the transfer (paper 4.3)."""

    kind: Literal["youtube8m"] = "youtube8m"
    root: Address
    """Folder or URI (s3://, gs://) with the videos, found by their YouTube id in any folders."""
    annotations: UserPath
    """List with one id in each line, or a CSV file with ids and, if wanted, start_seconds,end_seconds."""
    id_map: UserPath | None = None
    """CSV file with yt8m_id,youtube_id. It is needed for lists of YouTube-8M's own ids."""


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
    """Wall-clock time in seconds that one video may take."""
    memory_gib: PositiveFloat = 2.0
    """Address space of the decoding process in GiB. Python and FFmpeg take about 0.4."""
    output_gib: PositiveFloat = 1.0
    """Size of the encoded segments of one video, in GiB."""
    source_gib: PositiveFloat = 8.0
    """Size of one source file in GiB. A remote file is copied to local disk while it is decoded."""


class PrepareConfig(Section):
    """Decode listed videos and write them as shards."""

    dataset: DatasetConfig
    output: Annotated[UserPath | None, Role.PLACE] = None
    """Folder for shards, videos.parquet and failures.parquet. Inside `data.prepare` the default is
    STORAGE/data/KIND."""
    encoding: Encoding = "auto"
    """How videos are stored: copy (as the source is), h264 (made for short seeks), jpeg (each frame), or auto
    (whichever suits the source)."""
    short_side: PositiveInt = 256
    """Shorter side in pixels that larger videos are scaled down to. Smaller videos are kept (paper 4.4)."""
    max_segment_seconds: PositiveFloat = 10.0
    """Longest segment in seconds that unlabelled videos are cut into. A labelled video stays one row."""
    segments_per_video: PositiveInt | None = None
    """Number of segments taken at random places of an unlabelled video without given times. By default all of it is
    taken."""
    videos_per_shard: PositiveInt = 64
    """Number of listed videos in a shard, which is the unit of work and of resuming."""
    seed: int = 0
    """Seed of the order in which videos are spread over shards."""
    max_failed_fraction: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Largest share of the found videos that may fail. Above it the job writes everything and ends with status 1."""
    guard: GuardConfig = GuardConfig()
    contact_sheet_segments: PositiveInt = 12
    """Number of random segments on contact_sheet.png."""


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
    """Encode a sample of the videos, print what the whole would take, and write nothing."""
    dry_run_videos: PositiveInt = 12
    """Number of videos in the sample of `dry_run`."""
    retry_failed: bool = False
    """Try failed videos again even if their files have not changed, for example after raising a limit of `guard`."""
    tracking: Annotated[TrackingConfig, Role.PLACE] = TrackingConfig()


class DataConfig(Section):
    """Which prepared rows are read."""

    shards: Annotated[tuple[UserPath, ...], Role.PLACE] = ()
    """One or several folders that jobs/prepare.py wrote."""
    prepare: Annotated[PrepareConfig | None, Role.PLACE] = None
    """Videos that are prepared first when `shards` names no folder."""
    fingerprint: Annotated[str | None, Role.RUNNING] = None
    """Beginning of the fingerprint that the shards must have; jobs/prepare.py prints it. By default any is accepted."""
    fold: Annotated[PositiveInt, Role.REPLICATE] = 1
    """Number of the official split list, from 1."""
