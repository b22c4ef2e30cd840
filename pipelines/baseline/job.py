"""A linear classifier learns from what no video network has learned, and is tested as networks are.

It stands in the same tables: rows, videos and sources are those of training and evaluation with the same `data`.
Its run is its test too, because there is nothing else to record.

STORAGE/NAME/run.json      what it is: settings, MLflow run
STORAGE/NAME/test/...      what `evaluate.record` writes
STORAGE/NAME/summary.txt   the result: started again, the baseline only prints it
"""

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np

from pipelines.baseline.config import BaselineConfig
from pipelines.baseline.features import TeacherFeatures, VideoFeatures, shape_and_length
from pipelines.evaluate.record import RecordedTest, Tested, record_test
from pipelines.evaluate.summary import describe_classes, describe_failures, describe_top
from pipelines.prepare.make import prepared_shards
from pipelines.runtime.files import whole_file
from pipelines.runtime.named_folder import NamedFolder
from pipelines.runtime.paths import new_name, output_path
from pipelines.settings.terminal import format_summary
from pipelines.shards.folder import describe_shards
from pipelines.shards.index import ShardIndex, load_index
from pipelines.tracking.runs import Run
from pipelines.train.stage import rows_to_train_on
from pipelines.training.run_folder import check_surroundings, run_fingerprint
from t3d_core.errors import UserError
from t3d_core.evaluation.linear_classifier import linear_scores
from t3d_core.evaluation.video_scores import VideoScores


def run_baseline(
    config: BaselineConfig, *, run_name: str | None = None, tags: Mapping[str, str] = MappingProxyType({})
) -> str:
    """Fit and test the baseline with the settings in `config`; return the closing summary.

    Args:
        config: of the baseline.
        run_name: of the MLflow run; by default the folder's.
        tags: more tags of the MLflow run.

    Raises:
        UserError: settings, shards or a teacher that cannot work.
    """
    storage = output_path(config.storage)
    path = storage / (config.name or new_name("baseline"))
    check = partial(check_surroundings, config)
    folders = prepared_shards(config.data, storage=storage, before_work=check)
    train_index, test_index = load_rows(config, folders)
    check(read=folders)
    descriptions = [describe_shards(each) for each in folders]
    folder = NamedFolder(path, "run", run_fingerprint(config, descriptions))
    with folder.exclusive():
        known = folder.known(when_changed="made with other settings or shards")
        summary_file = path / "summary.txt"
        with folder.open_run(
            config, config.tracking, known=known, stage="baseline", run_name=run_name, tags=tags
        ) as run:
            if known is None:
                folder.record(config, run, stage="baseline")
            if summary_file.is_file():
                return summary_file.read_text()
            for each, description in zip(folders, descriptions, strict=True):
                run.log_dataset(
                    description["dataset"], description["fingerprint"], str(each), context=config.data.split
                )
            summary = _fit_and_test(config, folders, train_index, test_index, output=path / "test", run=run)
            with whole_file(summary_file) as partial_file:
                partial_file.write_text(summary)
            return summary


def load_rows(config: BaselineConfig, folders: list[Path]) -> tuple[ShardIndex, ShardIndex]:
    """The rows to learn from, which are those that training learns from, and those to test."""

    def load(split: str, *, may_be_empty: bool = False) -> ShardIndex:
        has_fps = config.kind == "shape_and_length"
        fold = config.data.fold
        return load_index(folders, fold=fold, splits=[split], may_be_empty=may_be_empty, has_fps=has_fps)

    train_index, _ = rows_to_train_on(config.data, folders, load("train"), load("val", may_be_empty=True))
    test_index = load(config.data.split)
    if not train_index.class_names or (train_index.label_N < 0).any() or (test_index.label_N < 0).any():
        raise UserError(
            f"data.shards {[str(each) for each in folders]} have rows without labels in fold {config.data.fold}: "
            "prepare a labelled data set, or choose another --data.fold"
        )
    return train_index, test_index


def _fit_and_test(
    config: BaselineConfig,
    folders: list[Path],
    train_index: ShardIndex,
    test_index: ShardIndex,
    *,
    output: Path,
    run: Run,
) -> str:
    started = time.monotonic()
    train, test = _features(config, folders, [train_index, test_index])
    is_known_N = np.array([row not in train.reasons for row in range(len(train_index))])
    class_names = test_index.class_names
    score_MK = linear_scores(
        train.feature_ND[is_known_N],
        train_index.label_N[is_known_N],
        test.feature_ND,
        num_classes=len(class_names),
    )
    scores = VideoScores(test_index.label_N, len(class_names))
    scores.add(np.arange(len(test_index)), score_MK, np.zeros(len(test_index), np.int64))
    for row in test.reasons:
        scores.fail(row)
    tested = Tested(
        _describe(config),
        class_names,
        folders,
        fold=config.data.fold,
        split=config.data.split,
        num_frames=(config.teacher.num_frames or 1) if config.kind == "teacher" else 1,
    )
    recorded = record_test(tested, scores, test.reasons, test_index, output=output, run=run)
    hours = config.scaling.most_workers() * (time.monotonic() - started) / 3600
    run.log_metrics({"cost/worker_hours": hours}, step=0)
    return _summary(config, recorded, train, test, test_index, num_known=int(is_known_N.sum()), run=run)


def _features(config: BaselineConfig, folders: list[Path], indices: list[ShardIndex]) -> list[VideoFeatures]:
    if config.kind == "shape_and_length":
        return [shape_and_length(index, folders) for index in indices]
    features = TeacherFeatures(config, folders)
    return [features.of_rows(index, config.teacher.target) for index in indices]


def _describe(config: BaselineConfig) -> str:
    if config.kind == "shape_and_length":
        return "shape and length, linear"
    statistics = config.teacher.target
    return f"frozen {config.teacher.kind}, {statistics} of {config.teacher.num_frames} frames, linear"


def _summary(
    config: BaselineConfig,
    recorded: RecordedTest,
    train: VideoFeatures,
    test: VideoFeatures,
    test_index: ShardIndex,
    *,
    num_known: int,
    run: Run,
) -> str:
    evaluation, class_names = recorded.evaluation, test_index.class_names
    fields = [
        ("result", f"{describe_top(evaluation)}  (chance {1 / len(class_names):.3f})"),
        ("baseline", _describe(config)),
        (
            "tested",
            f"{evaluation.num_videos} of {evaluation.num_listed} listed videos (coverage {evaluation.coverage:.1%}), "
            f"learned from {num_known} videos",
        ),
    ]
    if train.reasons:
        fields.append(("unread", f"{len(train.reasons)} videos to learn from were left out"))
    if test.reasons:
        failed = f"{describe_failures(test.reasons, test_index)}; all are listed in {recorded.failures_file}"
        fields.append(("failed", failed))
    weakest = describe_classes(recorded.report, class_names)
    return format_summary([*fields, ("weakest", weakest), ("mlflow", run.describe())])
