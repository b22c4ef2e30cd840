"""Annotations become VideoRecords: what every data-set reader gives and every later stage takes.

A record names one video (or a trimmed interval of one), its class, its source and its split in each official fold
(paper 4.1, Table 7). The source decides what may be compared with what: clips of one source never stand on both sides
of a split and never make a negative pair (paper 3.2).

Readers never open or look for a video: they are given the names of the video files there are, so that local folders and
object stores are read alike. A record is small (YouTube-8M: half a million of them): `splits` is one tuple for all that
share it, and `source` the very string of `video_id` where a video is its own source.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from t3d_core.datasets.problems import Problems
from t3d_core.datasets.unicode_form import is_utf8
from t3d_core.errors import UserError

SPLITS = ("train", "val", "test", "unused")


@dataclass(frozen=True, slots=True)
class VideoRecord:
    """One video of a data set.

    Attributes:
        video_id: Unique name within the data set, the same on every machine, printable.
        path: POSIX path below the data set's root: where the file is or, if it is missing, where it was expected.
            Bytes that are not UTF-8 stand as surrogates (`os.fsdecode`).
        label: Class name, or None where the annotations give none.
        source: The source video or group. Clips of one source are kept on one side of every split.
        splits: Entry f - 1 is the split of fold f, one of `SPLITS`.
        start_seconds: Start of the trimmed interval; None is the start of the video. 0 or more means that this very
            interval was listed, so that it is taken whole.
        end_seconds: End of the trimmed interval, not included; None is the end of the video.
    """

    video_id: str
    path: str
    label: str | None
    source: str
    splits: tuple[str, ...]
    start_seconds: float | None = None
    end_seconds: float | None = None


@dataclass(frozen=True)
class VideoDataset:
    """All videos of one data set; it checks itself when it is made.

    Attributes:
        name: Name of the data set, as it is logged.
        class_names: Sorted class names; the class index of a label is its place here. Empty: unlabelled.
        records: The videos.
        official_splits: Splits that published lists fix, where these lists themselves put one source into two of them
            (HMDB51, Kinetics): this cannot be corrected, so `splits.check_no_leak` counts it instead of refusing it.
        notes: What the reader passed over, a line each.

    Raises:
        UserError: A video_id appears twice, a path leads out of the root, an id, label or source is not UTF-8, a label
            is no class name, a split is unknown, the number of folds differs between records, or the class names are
            not sorted and unique. The message names the record.
    """

    name: str
    class_names: tuple[str, ...]
    records: tuple[VideoRecord, ...]
    official_splits: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if list(self.class_names) != sorted(set(self.class_names)):
            raise UserError(f"{self.name}: class_names must be sorted and unique, got {self.class_names}")
        _check_unique_ids(self.name, self.records)
        known_labels = {None, *self.class_names}
        known_splits: set[tuple[str, ...]] = set()
        problems = Problems()
        for record in self.records:
            with problems:
                if record.label not in known_labels:
                    raise UserError(
                        f"{self.name}: label {record.label!r} of video {record.video_id!r} is not one of the "
                        f"{len(self.class_names)} class names {_shortened(self.class_names)}"
                    )
                _check_path(self.name, record)
                _check_text(self.name, record)
                if record.splits not in known_splits:
                    _check_splits(self.name, record, num_folds=self.num_folds)
                    known_splits.add(record.splits)
        problems.check()

    @property
    def num_folds(self) -> int:
        """Number of official folds; 0 for a data set without records."""
        return len(self.records[0].splits) if self.records else 0


def _check_unique_ids(name: str, records: Sequence[VideoRecord]) -> None:
    if len({record.video_id for record in records}) == len(records):
        return
    first_by_id: dict[str, VideoRecord] = {}
    problems = Problems()
    for record in records:
        if first := first_by_id.get(record.video_id):
            problems.add(f"{name}: video_id {record.video_id!r} appears twice: {first.path!r} and {record.path!r}")
        first_by_id[record.video_id] = first or record
    problems.check()


def _check_path(name: str, record: VideoRecord) -> None:
    path = record.path
    if not path or path.startswith("/") or (".." in path and ".." in path.split("/")):
        raise UserError(
            f"{name}: path {path!r} of video {record.video_id!r} must lead to a file below the root (not absolute, no "
            f"..): correct the annotations"
        )


def _check_text(name: str, record: VideoRecord) -> None:
    for text in (record.video_id, record.source, record.label or ""):
        if not is_utf8(text):
            raise UserError(f"{name}: {text!r} is not UTF-8: save the annotations in that encoding")


def _check_splits(name: str, record: VideoRecord, *, num_folds: int) -> None:
    if not record.splits or len(record.splits) != num_folds:
        raise UserError(
            f"{name}: video {record.video_id!r} has splits for {len(record.splits)} folds {record.splits}, expected "
            f"{max(num_folds, 1)} as for the first video"
        )
    for fold, split in enumerate(record.splits, start=1):
        if split not in SPLITS:
            raise UserError(
                f"{name}: split {split!r} of video {record.video_id!r} in fold {fold} is not one of {', '.join(SPLITS)}"
            )


def _shortened(names: tuple[str, ...]) -> str:
    return f"({', '.join(names[:10])}{', ...' if len(names) > 10 else ''})"
