"""What a shard is: one Parquet file of encoded segments, whole or absent; and the files next to it.

OUTPUT/dataset.json      settings, fingerprint, class names; once prepared also the number of shards and their contents
OUTPUT/records.parquet   every listed video, in shard order: one row group a shard
OUTPUT/late/*.parquet    which records a late shard holds: videos that failed at first (`prepare.late_shards`)
OUTPUT/shards/*.parquet  one row a segment, one row a row group: a reader reads just the rows that it needs; every page
                         has a checksum (`shards.reading`)
OUTPUT/reports/*.parquet one row for each listed video of that shard: prepared, with what the index needs of its
                         rows (`shards.index`), or failed with a reason
OUTPUT/videos.parquet    the last report of every video, once prepared;  OUTPUT/failures.parquet  the failed ones
OUTPUT/features/*/*.parquet  a teacher's features of its rows, for a transfer (`transfer.teacher_features`)
OUTPUT/contact_sheet.png some segments, to look at
OUTPUT/mlflow_run.json   the run of the prepare job that is running;  OUTPUT/.lock  held by it
"""

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from pipelines.runtime.files import exclusive_folder, whole_file
from t3d_core.errors import UserError

_LOG = logging.getLogger(__name__)
_LAYOUT = 2  # of a prepared folder: raise it when the files next to the shards change


@dataclass(frozen=True)
class ShardFolder:
    """Where the parts of one prepared data set are."""

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
        """The MLflow run of the prepare job that is running here."""
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
        """Late shards that exist or are still missing."""
        return len(list(self.root.glob("late/*.parquet")))

    def read_late(self, shard: int) -> np.ndarray:
        """Which records the late shard number `shard` holds: their places in `records.parquet`."""
        return pq.read_table(self.late_file(shard)).column("position").to_numpy()

    def read_records(self, shard: int) -> list[dict]:
        """The records of shard number `shard`, rows of `RECORD_SCHEMA`."""
        with pq.ParquetFile(self.records_file) as file:
            if not self.late_file(shard).is_file():
                return file.read_row_group(shard).to_pylist()
            groups, rows = np.divmod(self.read_late(shard), file.metadata.row_group(0).num_rows)
            tables = {group: file.read_row_group(group) for group in np.unique(groups).tolist()}
            return [
                record
                for group, row in zip(groups.tolist(), rows.tolist(), strict=True)
                for record in tables[group].slice(row, 1).to_pylist()
            ]

    def is_made(self, shard: int) -> bool:
        """Whether shard number `shard` and its report, which is written after it, exist."""
        return self.shard_file(shard).is_file() and self.report_file(shard).is_file()

    def num_finished_shards(self) -> int:
        """Number of shards when prepare last finished; 0 if it never did."""
        return self.describe().get("num_shards", 0) if self.dataset_file.is_file() and self.videos_file.is_file() else 0

    def write_description(self, description: dict) -> None:
        """Write `dataset.json`; with `num_shards` it records that prepare has finished."""
        with whole_file(self.dataset_file) as partial:
            partial.write_text(json.dumps(description | {"layout": _LAYOUT}, indent=1))

    def digest_contents(self) -> str:
        """A hash that changes with the set of prepared videos, and with the shard of any of them."""
        digest = hashlib.sha256()
        with pq.ParquetFile(self.videos_file) as file:
            for batch in file.iter_batches(columns=["video_id", "is_prepared", "shard"]):
                for row in batch.filter(batch.column("is_prepared")).to_pylist():
                    digest.update(json.dumps([row["video_id"], row["shard"]]).encode())
        return digest.hexdigest()

    @contextmanager
    def locked(self, *, is_patient: bool) -> Iterator[None]:
        """Hold this folder for the only process that writes to it; the lock ends with the process, however it ends.

        Args:
            is_patient: wait while another process holds it.

        Raises:
            UserError: another process holds it, and `is_patient` is false.
        """

        def wait_or_raise(holder: str) -> None:
            if not is_patient:
                raise UserError(
                    f"another prepare job ({holder}) is writing to {self.root}: wait for it, or give another output"
                )
            _LOG.warning("Waiting for another prepare job (%s) that is writing to %s", holder, self.root)

        with exclusive_folder(self.root, when_taken=wait_or_raise):
            yield

    def sweep(self) -> None:
        """Delete the unfinished files of killed processes."""
        for folder in (self.root, self.root / "shards", self.root / "reports", self.root / "late"):
            for partial in folder.glob("*.partial"):
                partial.unlink()

    def describe(self) -> dict:
        """Read `dataset.json`.

        Raises:
            UserError: nothing was prepared here, or by an earlier version, or the file is damaged.
        """
        if not self.dataset_file.is_file():
            raise UserError(
                f"{self.root} holds no prepared shards ({self.dataset_file.name} is missing): run jobs/prepare.py first"
            )
        try:
            description = dict(json.loads(self.dataset_file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(
                f"{self.dataset_file} cannot be read ({error}): run jobs/prepare.py again after deleting it"
            ) from error
        if (layout := description.get("layout")) != _LAYOUT:
            raise UserError(
                f"{self.root} was prepared by another version of jobs/prepare.py (layout {layout}, not {_LAYOUT}): "
                "prepare the videos again into another folder, or delete this one"
            )
        return description


def open_shard_folder(path: Path) -> ShardFolder:
    """Take a folder that `prepare` wrote, or the `shards` folder inside it."""
    is_inner = path.name == "shards" and (path.parent / "dataset.json").is_file()
    return ShardFolder(path.parent if is_inner else path)


def describe_shards(path: Path) -> dict:
    """Read the settings, fingerprints and class names of a prepared folder.

    Raises:
        UserError: nothing was prepared there, or prepare did not finish.
    """
    folder = open_shard_folder(path)
    description = folder.describe()
    if not folder.num_finished_shards():
        raise UserError(f"{folder.root} is not finished: run jobs/prepare.py again with the same settings")
    return description
