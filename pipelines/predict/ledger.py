"""Predictions go into a folder as they are made, and an interrupted job is completed there.

OUTPUT/predictions.jsonl      one line for each video, written as soon as it is scored; its last line counts
OUTPUT/predictions.parquet    the same as a table, written at the end
OUTPUT/predict.json           what the scores depend on: the network and the sampling
"""

import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.runtime.files import whole_file
from t3d_core.errors import UserError
from t3d_core.prediction.video_prediction import VideoPrediction

_ROWS_A_GROUP = 256
_CLIP = pa.struct([("start_seconds", pa.float64()), ("end_seconds", pa.float64()), ("scores", pa.list_(pa.float32()))])
SCHEMA = pa.schema(
    [
        ("video", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("label", pa.string()),
        ("score", pa.float64()),
        ("scores", pa.list_(pa.float64())),
        ("start_seconds", pa.float64()),
        ("end_seconds", pa.float64()),
        ("num_padded_frames", pa.int64()),
        ("clips", pa.list_(_CLIP)),
    ]
)


@dataclass(frozen=True)
class PredictedVideo:
    """The result for one video: a prediction, or the reason why there is none.

    Attributes:
        video: its name.
        prediction: None where it failed.
        reason: empty where it did not fail.
    """

    video: str
    prediction: VideoPrediction | None = None
    reason: str = ""


class Ledger:
    """The results of one job; in memory are only names and where their lines begin.

    Args:
        folder: made when it is missing.
        scored_by: what the scores depend on, as JSON.
        class_names: of the network, in the order of the scores.

    Attributes:
        done: names of the videos that have a prediction.

    Raises:
        UserError: the folder holds results that depend on something else.
    """

    def __init__(self, folder: Path, *, scored_by: Mapping[str, Any], class_names: Sequence[str]) -> None:
        self.folder, self._class_names = folder, tuple(class_names)
        self.jsonl, self.parquet = folder / "predictions.jsonl", folder / "predictions.parquet"
        self.done: set[str] = set()
        self._begin_of: dict[str, int] = {}  # of the last line of each video, in the order of the first ones
        self._claim(folder / "predict.json", json.dumps(dict(scored_by), sort_keys=True, indent=1))
        self._read()

    def append(self, result: PredictedVideo) -> None:
        """Write the result of a video; it is on disk when this returns.

        Raises:
            OSError: it cannot be written; a line in part is cut off at the next start.
        """
        row = self._row_of(result)
        with self.jsonl.open("ab") as file:
            begin = file.tell()
            # Names may hold bytes that are not UTF-8, as surrogates, which JSON writes in ASCII.
            file.write(json.dumps(row).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._enter(row, begin)

    def write_parquet(self) -> None:
        """Write the table of all results, in the order in which the videos came first."""
        schema = SCHEMA.with_metadata({"class_names": json.dumps(self._class_names)})
        self.jsonl.touch()
        with (
            whole_file(self.parquet) as partial,
            pq.ParquetWriter(partial, schema) as writer,
            self.jsonl.open("rb") as file,
        ):
            begins = iter(self._begin_of.values())
            while some := list(itertools.islice(begins, _ROWS_A_GROUP)):
                writer.write_table(pa.Table.from_pylist([_printable_row(file, begin) for begin in some], schema=schema))

    def _claim(self, path: Path, content: str) -> None:
        if not path.exists():
            with whole_file(path) as partial:
                partial.write_text(content)
        elif path.read_text() != content:
            raise UserError(
                f"{self.folder} holds predictions of another network or with another sampling: give another --output"
            )

    def _read(self) -> None:
        """Enter the whole lines there are; what a killed job wrote in part is cut off."""
        if not self.jsonl.exists():
            return
        end = 0
        with self.jsonl.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    self._enter(json.loads(line), end)
                    end += len(line)
        os.truncate(self.jsonl, end)

    def _enter(self, row: Mapping[str, Any], begin: int) -> None:
        self._begin_of[row["video"]] = begin
        if row["status"] == "ok":
            self.done.add(row["video"])

    def _row_of(self, result: PredictedVideo) -> dict[str, Any]:
        prediction = result.prediction
        if prediction is None:
            empty = dict.fromkeys(SCHEMA.names)
            return empty | {"video": result.video, "status": "failed", "reason": result.reason}
        [(label, score)] = prediction.top(1)
        spans = zip(prediction.start_N.tolist(), prediction.end_N.tolist(), prediction.score_NK.tolist(), strict=True)
        return {
            "video": result.video,
            "status": "ok",
            "reason": "",
            "label": self._class_names[label],
            "score": score,
            "scores": prediction.score_K.tolist(),
            "start_seconds": float(prediction.start_N[0]),
            "end_seconds": float(np.max(prediction.end_N)),
            "num_padded_frames": prediction.num_padded,
            "clips": [{"start_seconds": start, "end_seconds": end, "scores": scores} for start, end, scores in spans],
        }


def _printable_row(file: BinaryIO, begin: int) -> dict[str, Any]:
    """The row whose line begins there; what is not UTF-8 in its texts is shown as codes."""
    file.seek(begin)
    row = json.loads(file.readline())
    return row | {name: _printable(row[name]) for name in ("video", "reason")}


def _printable(text: str) -> str:
    return os.fsencode(text).decode("utf-8", "backslashreplace")
