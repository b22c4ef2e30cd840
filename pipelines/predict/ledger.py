"""Predictions go into a folder as they are made, and an interrupted job is completed there.

OUTPUT/predictions.jsonl      one line for each video, written as soon as it is scored
OUTPUT/predictions.parquet    the same as a table, written at the end
OUTPUT/predict.json           what the scores depend on: the network and the sampling
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.runtime.files import whole_file
from pipelines.shards.writing import write_table
from t3d_core.errors import UserError
from t3d_core.prediction.video_prediction import VideoPrediction

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
    """The results of one job.

    Args:
        folder: made when it is missing.
        scored_by: what the scores depend on, as JSON.
        class_names: of the network, in the order of the scores.

    Raises:
        UserError: the folder holds results that depend on something else.
    """

    def __init__(self, folder: Path, *, scored_by: Mapping[str, Any], class_names: Sequence[str]) -> None:
        self.folder, self._class_names = folder, tuple(class_names)
        self.jsonl, self.parquet = folder / "predictions.jsonl", folder / "predictions.parquet"
        self._claim(folder / "predict.json", json.dumps(dict(scored_by), sort_keys=True, indent=1))
        self._rows = {row["video"]: row for row in self._read()}

    @property
    def done(self) -> set[str]:
        """Names of the videos that have a prediction."""
        return {name for name, row in self._rows.items() if row["status"] == "ok"}

    def append(self, result: PredictedVideo) -> None:
        """Write the result of a video; it is on disk when this returns."""
        row = self._row_of(result)
        self._rows[result.video] = row
        with self.jsonl.open("ab") as file:
            # Names may hold bytes that are not UTF-8, as surrogates, which JSON writes in ASCII.
            file.write(json.dumps(row).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def write_parquet(self) -> None:
        """Write the table of all results, in the order in which the videos came first."""
        rows = [row | {"video": _printable(row["video"])} for row in self._rows.values()]
        table = pa.Table.from_pylist(rows, schema=SCHEMA)
        write_table(table.replace_schema_metadata({"class_names": json.dumps(self._class_names)}), self.parquet)

    def _claim(self, path: Path, content: str) -> None:
        if not path.exists():
            with whole_file(path) as partial:
                partial.write_text(content)
        elif path.read_text() != content:
            raise UserError(
                f"{self.folder} holds predictions of another network or with another sampling: give another --output"
            )

    def _read(self) -> list[dict[str, Any]]:
        """The whole lines there are; what a killed job wrote in part is cut off."""
        if not self.jsonl.exists():
            return []
        content = self.jsonl.read_bytes()
        whole = content.rpartition(b"\n")[0]
        if len(content) > len(whole) + 1 or content[-1:] not in (b"", b"\n"):
            with whole_file(self.jsonl) as partial:
                partial.write_bytes(whole + b"\n" if whole else b"")
        return [json.loads(line) for line in whole.splitlines()]

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


def describe_scoring(weights_digest: str, sampling: object, batch_size: int) -> dict[str, Any]:
    """What scores depend on."""
    return {"weights_sha256": weights_digest, "sampling": asdict(sampling), "batch_size": batch_size}  # type: ignore[call-overload]


def _printable(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")
