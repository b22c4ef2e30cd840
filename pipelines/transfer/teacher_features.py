"""A teacher's features of fixed views of rows, computed once, in a side file for each shard.

A view is a start, a crop and a flip; each row has the same K views in every epoch. Shards are immutable, so derived
data lies in side files: one a shard and kind of features, in a folder named by the fingerprint of teacher, views and
fold.

OUTPUT/shards/000000.parquet                     the shard
OUTPUT/features/FINGERPRINT/000000.parquet       row i belongs to row i of the shard; one row a row group

Legend: K views of a row, D feature width.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.runtime.files import whole_file
from pipelines.shards.index import ShardIndex, rows_of_shard
from pipelines.shards.reading import DAMAGE, describe_damage, read_row
from t3d_core.errors import UserError

_SCHEMA = pa.schema(
    {
        "video_id": pa.string(),
        "reason": pa.string(),
        "starts": pa.list_(pa.int64()),
        "features": pa.list_(pa.float32()),
    }
)
_CURE = "start again after deleting it"
_MAX_NAME = 16  # hexadecimal digits of the fingerprint


class RowFeatures(NamedTuple):
    """One row of a side file: the reason why it has no features, or "" with `starts_K` and `feature_KD`."""

    video_id: str
    reason: str
    starts_K: npt.NDArray[np.int64]
    feature_KD: npt.NDArray[np.float32]


@dataclass(frozen=True)
class FeatureFiles:
    """The side files of one teacher and its views.

    Attributes:
        fingerprint: hexadecimal hash of all that the features follow from, except the shards.
        num_views: K.
        feature_dim: D.
    """

    fingerprint: str
    num_views: int
    feature_dim: int

    def file_of(self, shard_path: str) -> Path:
        """Where the features of a shard's rows lie."""
        shard = Path(shard_path)
        return shard.parents[1] / "features" / self.fingerprint[:_MAX_NAME] / shard.name

    def read(self, index: ShardIndex, row: int, view: int, frame_indices: np.ndarray) -> npt.NDArray[np.float32]:
        """Read the feature (D,) of a view whose clip has these frames.

        Raises:
            UserError: there is no feature, the file is damaged, or it belongs to another shard or to other views.
        """
        found = self.read_row(index, row)
        video_id, path = index.video_id_N[row], self.file_of(index.shard_paths[index.shard_N[row]])
        if found.reason:
            raise UserError(f"no teacher features of {video_id} in {path}: {found.reason}. To try again, {_CURE}")
        if int(found.starts_K[view]) != int(frame_indices[0]):
            raise UserError(
                f"teacher features {path} are of clips that start at {found.starts_K.tolist()}, but view {view} of "
                f"{video_id} starts at {frame_indices[0]}, because another version made them: {_CURE}"
            )
        return found.feature_KD[view]

    def read_shard(self, shard_path: str) -> list[RowFeatures]:
        """Read the features of all rows of a shard; none of a shard of which no row could be read.

        Raises:
            UserError: the file is damaged.
        """
        path = self.file_of(shard_path)
        if not path.is_file():  # see `teacher_pass`
            return []
        try:
            table = pq.read_table(path, columns=_SCHEMA.names)
        except DAMAGE as error:
            raise UserError(f"teacher features {path} cannot be read: {describe_damage(error)}; {_CURE}") from error
        return [_features_of(table.slice(row, 1), feature_dim=self.feature_dim) for row in range(len(table))]

    def read_row(self, index: ShardIndex, row: int) -> RowFeatures:
        """Read the features of all views of a row, or the reason why there are none.

        Raises:
            UserError: the file is damaged, or it belongs to another shard.
        """
        path = self.file_of(index.shard_paths[index.shard_N[row]])
        if not path.is_file():  # see `teacher_pass`
            nothing = np.zeros((0, self.feature_dim), np.float32)
            return RowFeatures(index.video_id_N[row], "no row of its shard could be read", np.zeros(0, int), nothing)
        found = _row_of(path, int(index.row_N[row]), feature_dim=self.feature_dim)
        if found.video_id != (video_id := index.video_id_N[row]):
            raise UserError(
                f"teacher features {path} row {index.row_N[row]} are of video {found.video_id}, but the shard has "
                f"{video_id} there: {_CURE}"
            )
        return found

    def missing(self, index: ShardIndex) -> list[int]:
        """The shards, as numbered by `shard_N`, that have rows in the index and no side file.

        Raises:
            UserError: a side file is damaged, or is of another teacher or of other views.
        """
        shards = np.unique(index.shard_N).tolist()
        return [shard for shard in shards if not self._is_there(index.shard_paths[shard])]

    def _is_there(self, shard_path: str) -> bool:
        path = self.file_of(shard_path)
        if not path.is_file():
            return False
        try:
            metadata = pq.read_schema(path).metadata or {}
        except DAMAGE as error:
            raise UserError(f"teacher features {path} cannot be read: {describe_damage(error)}; {_CURE}") from error
        if (there := metadata.get(b"fingerprint", b"none").decode()) != self.fingerprint:
            raise UserError(
                f"teacher features {path} are of another teacher or of other views (fingerprint "
                f"{there[:_MAX_NAME]}..., this run's is {self.fingerprint[:_MAX_NAME]}...): {_CURE}"
            )
        of_shard, its_shard = metadata.get(b"shard", b"none").decode(), _digest(shard_path)
        if of_shard != its_shard:
            raise UserError(
                f"teacher features {path} are of another shard than the one of that name (fingerprint "
                f"{of_shard[:_MAX_NAME]}..., this one's is {its_shard[:_MAX_NAME]}...): {_CURE}"
            )
        return True

    @contextmanager
    def open_file(self, shard_path: str) -> Iterator[Callable[[RowFeatures], None]]:
        """Yield a function that appends the features of a shard's next row; the file is complete or absent."""
        schema = _SCHEMA.with_metadata({"fingerprint": self.fingerprint, "shard": _digest(shard_path)})
        with (
            whole_file(self.file_of(shard_path)) as partial,
            pq.ParquetWriter(partial, schema, compression="zstd", write_page_checksum=True) as writer,
        ):

            def append(row: RowFeatures) -> None:
                columns = {
                    "video_id": [row.video_id],
                    "reason": [row.reason],
                    "starts": [row.starts_K],
                    "features": [row.feature_KD.ravel()],
                }
                writer.write_table(pa.table(columns, schema=schema))

            yield append


def _digest(shard_path: str) -> str:
    """A hash of a shard's settings and of its videos, in their order."""
    fingerprint, rows = rows_of_shard(shard_path)
    return hashlib.sha256(json.dumps([fingerprint, rows]).encode()).hexdigest()


def _row_of(path: Path, row: int, *, feature_dim: int) -> RowFeatures:
    def take(table: pa.Table) -> RowFeatures:
        return _features_of(table, feature_dim=feature_dim)

    return read_row(str(path), row, columns=_SCHEMA.names, take=take, what="teacher features", cure=_CURE)


def _features_of(table: pa.Table, *, feature_dim: int) -> RowFeatures:
    """The features in a table of one row."""
    video_id, reason, starts, features = (table.column(name)[0] for name in _SCHEMA.names)
    feature_KD = features.values.to_numpy().reshape(-1, feature_dim)
    return RowFeatures(video_id.as_py(), reason.as_py(), starts.values.to_numpy(), feature_KD)
