"""The features of predicted videos go into a folder as they are made, and become one table at the end.

OUTPUT/features.jsonl      one line for each video: when its clips are shown, and where in the next file its rows are
OUTPUT/features.f32        the numbers: little-endian float32, D a row
OUTPUT/features.parquet    the table: a row for each clip, or one for each video

Legend: N clips of a video, R rows of a table, D feature dimensions.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.predict.config import FeatureKind
from pipelines.predict.video_lines import VideoLines, append_synced, printable
from pipelines.runtime.files import whole_file
from t3d_core.prediction.video_prediction import VideoPrediction

_ROWS_A_GROUP = 4096
_NUMBER = np.dtype("<f4")


class FeatureLedger:
    """The features of one job; as `Ledger`, it holds names and places in memory.

    Args:
        folder: exists.
        kind: a row for each clip, or one for each video, the mean over its clips.
        metadata: of the table.

    Attributes:
        done: names of the videos that have features of this kind.
        parquet: the table.
    """

    def __init__(self, folder: Path, *, kind: FeatureKind, metadata: Mapping[str, str]) -> None:
        self._kind, self._metadata = kind, {"features": kind, **metadata}
        self.parquet, self._numbers = folder / "features.parquet", folder / "features.f32"
        self._numbers.touch()
        self._lines = VideoLines(folder / "features.jsonl", is_done=self._is_done)
        self.done = self._lines.done

    def append(self, video: str, prediction: VideoPrediction) -> None:
        """Write the features of a video; they are on disk when this returns.

        Raises:
            OSError: they cannot be written; the next start ignores what was written in part.
        """
        start_N, end_N, feature_ND = prediction.start_N, prediction.end_N, prediction.feature_ND
        assert feature_ND is not None
        if self._kind == "video":
            start_N, end_N = start_N[:1], end_N.max(keepdims=True)
            feature_ND = feature_ND.mean(axis=0, dtype=np.float64, keepdims=True)
        content = np.ascontiguousarray(feature_ND, _NUMBER).data.cast("B")
        begin = append_synced(self._numbers, content)
        times = {"start_seconds": start_N.tolist(), "end_seconds": end_N.tolist()}
        self._lines.append({"video": video, "kind": self._kind, "begin": begin, "end": begin + len(content), **times})

    def write_parquet(self) -> Path | None:
        """Write the table of all videos, in the order in which they came first; return its path, None without any."""
        tables = self._tables()
        if (first := next(tables, None)) is None:
            return None
        schema = first.schema.with_metadata(self._metadata)
        with whole_file(self.parquet) as partial, pq.ParquetWriter(partial, schema) as writer:
            some, num_rows = [first], len(first)
            for table in tables:
                if num_rows + len(table) > _ROWS_A_GROUP:
                    writer.write_table(pa.concat_tables(some).cast(schema))
                    some, num_rows = [], 0
                some.append(table)
                num_rows += len(table)
            writer.write_table(pa.concat_tables(some).cast(schema))
        return self.parquet

    def _is_done(self, row: Mapping[str, Any]) -> bool:
        return row["kind"] == self._kind and row["end"] <= self._numbers.stat().st_size

    def _tables(self) -> Iterator[pa.Table]:
        """The rows of each video, of a long one in parts."""
        for row in self._lines.last_rows():
            if row["video"] not in self.done:
                continue
            num_rows = len(row["start_seconds"])
            feature_dim = (row["end"] - row["begin"]) // (num_rows * _NUMBER.itemsize)
            feature_RD = np.memmap(self._numbers, _NUMBER, "r", offset=row["begin"], shape=(num_rows, feature_dim))
            for first in range(0, num_rows, _ROWS_A_GROUP):
                part = slice(first, first + _ROWS_A_GROUP)
                yield _table(row, part, feature_RD[part])


def _table(row: Mapping[str, Any], part: slice, feature_RD: np.ndarray) -> pa.Table:
    values = pa.array(np.array(feature_RD, np.float32).reshape(-1))
    return pa.table(
        {
            "video": [printable(row["video"])] * len(feature_RD),
            "start_seconds": row["start_seconds"][part],
            "end_seconds": row["end_seconds"][part],
            "feature": pa.FixedSizeListArray.from_arrays(values, feature_RD.shape[1]),
        }
    )
