"""What a shard is: one Parquet file of encoded segments, whole or absent, and the index over the rows of many.

OUTPUT/dataset.json      settings, fingerprint, class names; once prepared also the number of shards and what is in them
OUTPUT/records.parquet   every listed video, in shard order: one row group a shard
OUTPUT/late/*.parquet    which records a late shard holds: videos that failed at first (`late_shards`)
OUTPUT/shards/*.parquet  one row a segment, one row a row group: a reader touches just the rows it wants
OUTPUT/reports/*.parquet one row a listed video of that shard: prepared, or failed with a reason
OUTPUT/videos.parquet    all reports, once prepared;  OUTPUT/failures.parquet  the failed ones
OUTPUT/.lock             held by the process that writes here
"""

import fcntl
import functools
import hashlib
import json
import logging
import os
import socket
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

FRAMES_COLUMN = "frames"

_LOG = logging.getLogger(__name__)
_ROW_GROUP_ROWS = 8192  # of a table that is written piece by piece

_VIDEO_FIELDS = {
    "video_id": pa.string(),
    "path": pa.string(),
    "label": pa.string(),
    "source": pa.string(),
    "splits": pa.list_(pa.string()),
    "start_seconds": pa.float64(),
    "end_seconds": pa.float64(),
}
# A file name need not be UTF-8: only its bytes open the file; shards and reports show it as text.
# listed_bytes: size of the file when the root was listed, null where there was none.
RECORD_SCHEMA = pa.schema(_VIDEO_FIELDS | {"path": pa.binary(), "listed_bytes": pa.int64()})
SHARD_SCHEMA = pa.schema(
    [
        ("segment_id", pa.string()),
        *_VIDEO_FIELDS.items(),
        ("dataset", pa.string()),
        ("fingerprint", pa.string()),
        ("source_bytes", pa.int64()),
        ("start_frame", pa.int64()),
        ("frame_offset", pa.int64()),
        ("num_frames", pa.int64()),
        ("fps", pa.float64()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("encoding", pa.string()),
        (FRAMES_COLUMN, pa.large_binary()),
    ]
)
_INDEX_COLUMNS = ["video_id", "dataset", "source", "label", "splits", "frame_offset", "num_frames", "height", "width"]
REPORT_SCHEMA = pa.schema(
    [
        *_VIDEO_FIELDS.items(),
        ("shard", pa.string()),
        ("is_found", pa.bool_()),
        ("is_decoded", pa.bool_()),
        ("is_prepared", pa.bool_()),
        ("reason", pa.string()),
        ("encoding", pa.string()),
        ("num_segments", pa.int32()),
        ("num_frames", pa.int64()),
        ("seconds", pa.float64()),
        ("source_bytes", pa.int64()),
        ("stored_bytes", pa.int64()),
    ]
)
FAILURE_COLUMNS = ["video_id", "path", "label", "is_found", "reason"]


@dataclass(frozen=True)
class ShardFolder:
    """Where the parts of one prepared data set lie."""

    root: Path

    @property
    def dataset_file(self) -> Path:
        """Settings, fingerprint and class names."""
        return self.root / "dataset.json"

    @property
    def records_file(self) -> Path:
        """Every listed video, in shard order."""
        return self.root / "records.parquet"

    @property
    def videos_file(self) -> Path:
        """What became of every listed video."""
        return self.root / "videos.parquet"

    @property
    def failures_file(self) -> Path:
        """The videos that could not be prepared, with the reason."""
        return self.root / "failures.parquet"

    @property
    def contact_sheet_file(self) -> Path:
        """Some segments, to look at."""
        return self.root / "contact_sheet.png"

    @property
    def run_file(self) -> Path:
        """The MLflow run of the prepare that is at work here."""
        return self.root / "mlflow_run.json"

    def shard_file(self, shard: int) -> Path:
        """The segments of shard number `shard`."""
        return self.root / "shards" / f"{shard:06d}.parquet"

    def report_file(self, shard: int) -> Path:
        """What became of the listed videos of shard number `shard`."""
        return self.root / "reports" / f"{shard:06d}.parquet"

    def late_file(self, shard: int) -> Path:
        """Which records the late shard number `shard` holds."""
        return self.root / "late" / f"{shard:06d}.parquet"

    def num_late_shards(self) -> int:
        """Late shards that are made or to be made."""
        return len(list(self.root.glob("late/*.parquet")))

    def late_positions(self, shard: int) -> np.ndarray:
        """Places of the records of the late shard number `shard` in `records.parquet`."""
        return pq.read_table(self.late_file(shard)).column("position").to_numpy()

    def read_records(self, shard: int) -> list[dict]:
        """The records of shard number `shard`, rows of `RECORD_SCHEMA`."""
        with pq.ParquetFile(self.records_file) as file:
            if not self.late_file(shard).is_file():
                return file.read_row_group(shard).to_pylist()
            groups, rows = np.divmod(self.late_positions(shard), file.metadata.row_group(0).num_rows)
            tables = {group: file.read_row_group(group) for group in np.unique(groups).tolist()}
            return [
                record
                for group, row in zip(groups.tolist(), rows.tolist(), strict=True)
                for record in tables[group].slice(row, 1).to_pylist()
            ]

    def is_made(self, shard: int) -> bool:
        """Whether shard number `shard` and its report, which is written after it, are there."""
        return self.shard_file(shard).is_file() and self.report_file(shard).is_file()

    def num_finished_shards(self) -> int:
        """Shards that were there when prepare last came to its end; 0 if it never did."""
        return self.describe().get("num_shards", 0) if self.dataset_file.is_file() and self.videos_file.is_file() else 0

    def write_description(self, description: dict) -> None:
        """Write `dataset.json`; with `num_shards` it says that prepare has come to its end."""
        with whole_file(self.dataset_file) as partial:
            partial.write_text(json.dumps(description, indent=1))

    def digest_contents(self) -> str:
        """A hash that changes when a video is prepared that was not before, or is so no more."""
        digest = hashlib.sha256()
        with pq.ParquetFile(self.videos_file) as file:
            for batch in file.iter_batches(columns=["video_id", "is_prepared", "num_segments", "num_frames", "shard"]):
                digest.update(json.dumps(batch.to_pydict()).encode())
        return digest.hexdigest()

    @contextmanager
    def locked(self, *, is_patient: bool) -> Iterator[None]:
        """Hold this folder for the only process that writes to it; the lock ends with the process, however it ends.

        Args:
            is_patient: wait while another process holds it.

        Raises:
            ValueError: another process holds it and we do not wait.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                if not is_patient:
                    raise ValueError(
                        f"another prepare ({file.read()}) is writing to {self.root}: wait for it, or give another "
                        "output"
                    ) from None
                _LOG.warning("Waiting for another prepare (%s) that is writing to %s", file.read(), self.root)
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError as error:  # some cluster file systems have no locks
                _LOG.warning("%s cannot be locked (%s): start no second prepare there", self.root, error)
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            yield

    def sweep(self) -> None:
        """Delete what killed processes left unfinished."""
        for folder in (self.root, self.root / "shards", self.root / "reports", self.root / "late"):
            for partial in folder.glob("*.partial"):
                partial.unlink()

    def describe(self) -> dict:
        """Read `dataset.json`.

        Raises:
            ValueError: nothing was prepared here.
        """
        if not self.dataset_file.is_file():
            raise ValueError(
                f"{self.root} holds no prepared shards ({self.dataset_file.name} is missing): run jobs/prepare.py first"
            )
        return json.loads(self.dataset_file.read_text())


def open_shard_folder(path: Path) -> ShardFolder:
    """Take a folder that `prepare` wrote, or the `shards` folder inside it."""
    is_inner = path.name == "shards" and (path.parent / "dataset.json").is_file()
    return ShardFolder(path.parent if is_inner else path)


def describe_shards(path: Path) -> dict:
    """Read the settings, fingerprints and class names of a prepared folder.

    Raises:
        ValueError: nothing was prepared there, or not to its end.
    """
    folder = open_shard_folder(path)
    description = folder.describe()
    if not folder.num_finished_shards():
        raise ValueError(f"{folder.root} is not finished: run jobs/prepare.py again with the same settings")
    return description


def write_table(table: pa.Table, path: Path, *, row_group_size: int | None = None) -> None:
    """Write a Parquet file that is complete or absent."""
    with whole_file(path) as partial:
        pq.write_table(table, partial, row_group_size=row_group_size, compression="zstd")


@contextmanager
def open_table(path: Path, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """Give a function that appends rows to a Parquet file, which is complete or absent; few rows are in memory."""
    with whole_file(path) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        waiting: list[pa.Table] = []

        def append(table: pa.Table) -> None:
            waiting.append(table)
            if sum(map(len, waiting)) >= _ROW_GROUP_ROWS:
                flush()

        def flush() -> None:
            writer.write_table(pa.concat_tables(waiting))
            waiting.clear()

        yield append
        if waiting:
            flush()


@contextmanager
def open_shard(path: Path) -> Iterator[Callable[[dict], None]]:
    """Give a function that appends one segment (a dict of `SHARD_SCHEMA`) to the shard, as a row group of its own."""
    with whole_file(path) as partial, pq.ParquetWriter(partial, SHARD_SCHEMA, compression="zstd") as writer:
        yield lambda row: writer.write_table(pa.Table.from_pylist([row], schema=SHARD_SCHEMA))


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary name to write to, unique over all nodes, that becomes `path` if the block ends without error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@functools.lru_cache(maxsize=32)
def _open_parquet(path: str) -> pq.ParquetFile:
    return pq.ParquetFile(path)


def read_frames(path: str, row: int) -> bytes:
    """Read the encoded frames of one row of a shard: no other row is touched."""
    return _open_parquet(path).read_row_group(row, columns=[FRAMES_COLUMN]).column(0)[0].as_py()


@dataclass(frozen=True)
class ShardIndex:
    """Everything about the rows of some shards but their frames. All arrays have one entry a row (N).

    Attributes:
        shard_paths: the shard files.
        class_names: label index -> name; empty when unlabelled.
        shard_N: which shard file, an index into `shard_paths`.
        row_N: which row of that file.
        label_N: label index, -1 when unlabelled.
        source_N: number of the source video; rows of one source never make a negative pair.
        frame_offset_N: stored frames before the row's first one (a stream copy begins at a key frame).
        num_frames_N: frames of the row.
        height_N: pixels, as stored.
        width_N: pixels, as stored.
        video_id_N: id of the video the row was cut from.
    """

    shard_paths: tuple[str, ...]
    class_names: tuple[str, ...]
    shard_N: np.ndarray
    row_N: np.ndarray
    label_N: np.ndarray
    source_N: np.ndarray
    frame_offset_N: np.ndarray
    num_frames_N: np.ndarray
    height_N: np.ndarray
    width_N: np.ndarray
    video_id_N: np.ndarray

    def __len__(self) -> int:
        return len(self.row_N)

    def select(self, rows: np.ndarray) -> "ShardIndex":
        """The index of just `rows` (positions or a mask)."""
        per_row = {name: getattr(self, name)[rows] for name in self.__dataclass_fields__ if name.endswith("_N")}
        return ShardIndex(self.shard_paths, self.class_names, **per_row)

    def frames(self, position: int) -> bytes:
        """The encoded frames of row `position`."""
        return read_frames(self.shard_paths[self.shard_N[position]], int(self.row_N[position]))


def load_index(folders: Sequence[Path], *, fold: int, splits: Sequence[str]) -> ShardIndex:
    """Read the index of all rows that stand in one of `splits` of official fold `fold` (1-based).

    Raises:
        ValueError: a folder is missing or unfinished, the folders have different classes, or the fold does not exist.
    """
    if not folders:
        raise ValueError("data.shards names no folder: give one that jobs/prepare.py wrote")
    opened = [open_shard_folder(path) for path in folders]
    described = [describe_shards(path) for path in folders]
    class_names = _common_class_names(folders, described)
    tables: list[pa.Table] = []
    paths: list[str] = []
    for folder, description in zip(opened, described, strict=True):
        if not 1 <= fold <= description["num_folds"]:
            raise ValueError(
                f"data.fold {fold} does not exist in {folder.root}: it has folds 1..{description['num_folds']}"
            )
        for shard in range(description["num_shards"]):
            tables.append(_read_index_table(folder.shard_file(shard), shard=len(paths)))
            paths.append(str(folder.shard_file(shard).absolute()))
    table = pa.concat_tables(tables)
    split_N = pc.list_element(table.column("splits"), fold - 1)
    table = table.filter(pc.is_in(split_N, pa.array(list(splits))))
    return _index_of(table, paths=tuple(paths), class_names=class_names)


def _common_class_names(folders: Sequence[Path], described: Sequence[dict]) -> tuple[str, ...]:
    names = {tuple(description["class_names"]) for description in described}
    if len(names) > 1 and () in names:
        return ()  # labelled and unlabelled shards together serve the transfer, which reads no label
    if len(names) > 1:
        raise ValueError(f"data.shards {[str(f) for f in folders]} were prepared with different classes")
    return names.pop()


def _read_index_table(path: Path, *, shard: int) -> pa.Table:
    if not path.is_file():
        raise ValueError(
            f"shard {path} is missing: run jobs/prepare.py again with the same settings, it makes the rest"
        )
    table = pq.read_table(path, columns=_INDEX_COLUMNS)
    table = table.append_column("shard", pa.array(np.full(len(table), shard, np.int32)))
    return table.append_column("row", pa.array(np.arange(len(table), dtype=np.int32)))


def _index_of(table: pa.Table, *, paths: tuple[str, ...], class_names: tuple[str, ...]) -> ShardIndex:
    source = pc.binary_join_element_wise(table.column("dataset"), table.column("source"), "/")
    label = pc.index_in(table.column("label"), pa.array(class_names, pa.string()))
    return ShardIndex(
        shard_paths=paths,
        class_names=class_names,
        shard_N=table.column("shard").to_numpy(),
        row_N=table.column("row").to_numpy(),
        label_N=label.fill_null(-1).to_numpy().astype(np.int64),
        source_N=np.unique(source.to_numpy(zero_copy_only=False), return_inverse=True)[1].astype(np.int64),
        frame_offset_N=table.column("frame_offset").to_numpy(),
        num_frames_N=table.column("num_frames").to_numpy(),
        height_N=table.column("height").to_numpy(),
        width_N=table.column("width").to_numpy(),
        video_id_N=table.column("video_id").to_numpy(zero_copy_only=False),
    )


def num_listed(folders: Sequence[Path], *, fold: int, split: str) -> int:
    """Count the videos that the annotations list for a split, prepared or not: the base of coverage."""
    total = 0
    for path in folders:
        splits = pq.read_table(open_shard_folder(path).videos_file, columns=["splits"]).column("splits")
        total += pc.sum(pc.equal(pc.list_element(splits, fold - 1), split)).as_py() or 0
    return total


def hold_out(index: ShardIndex, *, fraction: float, seed: int, at_least: int = 1) -> tuple[ShardIndex, ShardIndex]:
    """Part an index into the rows to train on and the rows held out, by whole source videos, `at_least` so many.

    Raises:
        ValueError: there are too few source videos to part.
    """
    sources = np.unique(index.source_N)
    num_held = max(at_least, round(fraction * len(sources)))
    if num_held >= len(sources):
        raise ValueError(
            f"data.holdout_fraction {fraction} of {len(sources)} source videos leaves none to train on: "
            "prepare more videos, or lower it"
        )
    held = np.random.default_rng(seed).permutation(sources)[:num_held]
    is_held = np.isin(index.source_N, held)
    return index.select(~is_held), index.select(is_held)
