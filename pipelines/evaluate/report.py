"""Scores of videos become the files of a test: metrics.json, scores.parquet, the report on each class, failures.

OUTPUT/metrics.json             an `Evaluation`
OUTPUT/scores.parquet           a row a scored video: source, class, predicted class, scores of all classes
OUTPUT/classes.csv              a row a class: videos, accuracy, precision, the class it is most often confused with
OUTPUT/confusion_matrix.csv     videos by class (rows) and predicted class (columns);  confusion_matrix.png  the picture
OUTPUT/failures.parquet         videos that could not be read or decoded, with the reason; only when there are any

Legend: V videos, K classes.
"""

import csv
import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.evaluate.confusion_plot import plot_confusion
from pipelines.runtime.files import whole_file
from pipelines.runtime.pictures import optional_picture
from pipelines.shards.index import ShardIndex
from pipelines.shards.writing import write_table
from t3d_core.evaluation.class_report import ClassReport, report_classes
from t3d_core.evaluation.evaluation import Evaluation
from t3d_core.evaluation.metrics import predicted_classes
from t3d_core.evaluation.video_scores import VideoScores


def report_videos(scores: VideoScores, class_names: Sequence[str]) -> ClassReport:
    """The report on the classes, over all scored videos."""
    is_scored_V = scores.is_scored_V
    label_V = scores.label_V[is_scored_V]
    predicted_V = predicted_classes(scores.mean_VK()[is_scored_V], label_V)
    return report_classes(label_V, predicted_V, num_classes=len(class_names))


def write_metrics(metrics: Mapping[str, Any], path: Path) -> Path:
    """Write a JSON file, whole or not at all; return its path."""
    with whole_file(path) as partial:
        partial.write_text(json.dumps(metrics, indent=1))
    return path


def write_results(
    output: Path,
    evaluation: Evaluation,
    report: ClassReport,
    scores: VideoScores,
    index: ShardIndex,
    class_names: Sequence[str],
    *,
    tested: str,
    num_listed_of: Counter[str],
) -> list[Path]:
    """Write everything except the failures; return the paths, without that of a picture that cannot be drawn.

    Args:
        output: folder, made when it is missing.
        evaluation: content of metrics.json.
        report: of the classes.
        scores: of the videos.
        index: names the videos of `scores`.
        class_names: of the classes that are scored.
        tested: what was tested, for the picture's title.
        num_listed_of: videos that the annotations list, by class.
    """
    paths = [output / name for name in ("scores.parquet", "classes.csv", "confusion_matrix.csv")]
    write_table(_scores_table(scores, index, class_names), paths[0])
    _write_csv(_class_rows(report, class_names, num_listed_of), paths[1])
    _write_csv(
        [
            ["class", *class_names],
            *([name, *row] for name, row in zip(class_names, report.confusion_KK.tolist(), strict=True)),
        ],
        paths[2],
    )
    picture = output / "confusion_matrix.png"
    with optional_picture(picture.name):
        picture.unlink(missing_ok=True)  # an earlier test's
        with whole_file(picture) as partial:
            partial.write_bytes(plot_confusion(report, class_names, title=_title(evaluation, tested)))
        paths.append(picture)
    # Written last: a folder with metrics.json is complete.
    return [*paths, write_metrics(dataclasses.asdict(evaluation), output / "metrics.json")]


def write_failures(output: Path, failures: Mapping[int, str], index: ShardIndex) -> Path | None:
    """Write which videos have no score and why; return the path. Without failures, delete the file and return None."""
    path = output / "failures.parquet"
    if not failures:
        path.unlink(missing_ok=True)
        return None
    rows = sorted(failures)
    reasons = [failures[row] for row in rows]
    write_table(pa.table({"video_id": pa.array(index.video_id_N[rows], pa.string()), "reason": reasons}), path)
    return path


def _scores_table(scores: VideoScores, index: ShardIndex, class_names: Sequence[str]) -> pa.Table:
    is_scored_V = scores.is_scored_V
    label_V, score_VK = scores.label_V[is_scored_V], scores.mean_VK()[is_scored_V]
    names = np.array(class_names)
    table = pa.table(
        {
            "video_id": pa.array(index.video_id_N[is_scored_V], pa.string()),
            "source": pa.array(index.source_names[index.source_N[is_scored_V]], pa.string()),
            "label": names[label_V],
            "predicted": names[predicted_classes(score_VK, label_V)],
            "num_views": scores.num_views_V[is_scored_V],
            "scores": list(score_VK.astype(np.float32)),
        }
    )
    return table.replace_schema_metadata({"class_names": json.dumps(class_names)})


def _class_rows(report: ClassReport, names: Sequence[str], num_listed_of: Counter[str]) -> Iterable[list[Any]]:
    """A heading and a row a class; cells without a value are empty."""
    yield ["number", "class", "listed", "support", "top1", "precision", "predicted", "confused_with", "num_confused"]
    confused = report.most_confused()
    for label, name in enumerate(names):
        confusion = confused.get(label)
        yield [
            label,
            name,
            num_listed_of[name],
            int(report.num_examples_K[label]),
            _share(report.recall_K[label]),
            _share(report.precision_K[label]),
            int(report.num_predicted_K[label]),
            names[confusion.predicted] if confusion else "",
            confusion.num_examples if confusion else "",
        ]


def _share(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.6f}"


def _title(evaluation: Evaluation, tested: str) -> str:
    return (
        f"{tested}: video top-1 {evaluation.video_top1:.1%}, top-5 {evaluation.video_top5:.1%} of "
        f"{evaluation.num_videos:,} videos, coverage {evaluation.coverage:.1%}"
    )


def _write_csv(rows: Iterable[Sequence[Any]], path: Path) -> None:
    with whole_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
