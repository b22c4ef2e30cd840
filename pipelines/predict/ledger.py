"""Predictions go into a folder as they are made, and an interrupted job is completed there.

OUTPUT/predictions.jsonl      one line for each video, written as soon as it is scored; its last line counts
OUTPUT/predictions.parquet    the same as a table, written at the end
OUTPUT/predict.json           what the scores depend on: the network and the sampling
OUTPUT/features.*             features, where they are asked for: see `predict.features`
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.predict.config import FeatureKind
from pipelines.predict.features import FeatureLedger
from pipelines.predict.video_lines import VideoLines, printable
from pipelines.runtime.files import whole_file
from t3d_core.errors import UserError
from t3d_core.prediction.video_prediction import VideoPrediction

# What is held at once when the table is written; a single long video may hold more numbers.
_ROWS_A_GROUP, _NUMBERS_A_GROUP = 256, 1 << 20
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
        features: kind of the features that are kept too, if any.

    Attributes:
        class_names: as given.
        done: names of the videos that have a prediction.

    Raises:
        UserError: the folder holds results that depend on something else.
    """

    def __init__(
        self,
        folder: Path,
        *,
        scored_by: Mapping[str, Any],
        class_names: Sequence[str],
        features: FeatureKind | None = None,
    ) -> None:
        self.folder, self.class_names = folder, tuple(class_names)
        self.jsonl, self.parquet = folder / "predictions.jsonl", folder / "predictions.parquet"
        self._claim(folder / "predict.json", json.dumps(dict(scored_by), sort_keys=True, indent=1))
        self._lines = VideoLines(self.jsonl, is_done=lambda row: row["status"] == "ok")
        self.done = self._lines.done
        self._features: FeatureLedger | None = None
        if features is not None:
            metadata = {
                name: value if isinstance(value, str) else json.dumps(value) for name, value in scored_by.items()
            }
            self._features = FeatureLedger(folder, kind=features, metadata=metadata)

    def is_complete(self, video: str) -> bool:
        """Whether a video has a prediction, and features where they are kept."""
        return video in self.done and (self._features is None or video in self._features.done)

    def append(self, result: PredictedVideo) -> None:
        """Write the result of a video; it is on disk when this returns.

        Raises:
            OSError: it cannot be written; the next start ignores what was written in part.
        """
        if self._features is not None and result.prediction is not None:
            self._features.append(result.video, result.prediction)
        self._lines.append(self._row_of(result))

    def prediction_of(self, video: str) -> VideoPrediction:
        """The prediction of a video in `done`, as it was entered, without features."""
        row = self._lines.last_row(video)
        return VideoPrediction(
            score_K=np.array(row["scores"]),
            score_NK=np.array([clip["scores"] for clip in row["clips"]], np.float32),
            start_N=np.array([clip["start_seconds"] for clip in row["clips"]]),
            end_N=np.array([clip["end_seconds"] for clip in row["clips"]]),
            num_padded=row["num_padded_frames"],
        )

    def write_parquet(self) -> list[Path]:
        """Write the tables of all results, in the order in which the videos came first; return their paths."""
        schema = SCHEMA.with_metadata({"class_names": json.dumps(self.class_names)})
        with whole_file(self.parquet) as partial, pq.ParquetWriter(partial, schema) as writer:
            for some in self._groups():
                writer.write_table(pa.Table.from_pylist(some, schema=schema))
        features = None if self._features is None else self._features.write_parquet()
        return [self.parquet] if features is None else [self.parquet, features]

    def _groups(self) -> Iterator[list[dict[str, Any]]]:
        some: list[dict[str, Any]] = []
        num_held = 0
        for row in self._lines.last_rows():
            num_numbers = sum(2 + len(clip["scores"]) for clip in row["clips"] or ())
            if some and (len(some) == _ROWS_A_GROUP or num_held + num_numbers > _NUMBERS_A_GROUP):
                yield some
                some, num_held = [], 0
            some.append(_printable_row(row))
            num_held += num_numbers
        if some:
            yield some

    def _claim(self, path: Path, content: str) -> None:
        if not path.exists():
            with whole_file(path) as partial:
                partial.write_text(content)
        elif path.read_text() != content:
            raise UserError(
                f"{self.folder} holds predictions of another network or with another sampling: give another --output"
            )

    def _row_of(self, result: PredictedVideo) -> dict[str, Any]:
        prediction = result.prediction
        if prediction is None:
            empty = dict.fromkeys(SCHEMA.names)
            return empty | {"video": result.video, "status": "failed", "reason": result.reason}
        label, score = prediction.top(1)[0] if self.class_names else (None, None)
        spans = zip(prediction.start_N.tolist(), prediction.end_N.tolist(), prediction.score_NK.tolist(), strict=True)
        return {
            "video": result.video,
            "status": "ok",
            "reason": "",
            "label": None if label is None else self.class_names[label],
            "score": score,
            "scores": prediction.score_K.tolist(),
            "start_seconds": float(prediction.start_N[0]),
            "end_seconds": float(np.max(prediction.end_N)),
            "num_padded_frames": prediction.num_padded,
            "clips": [{"start_seconds": start, "end_seconds": end, "scores": scores} for start, end, scores in spans],
        }


def _printable_row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "video": printable(row["video"]), "reason": printable(row["reason"])}
