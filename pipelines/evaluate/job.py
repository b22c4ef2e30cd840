"""Classifiers and shards become video-level accuracies, for one fold or several: every view of every video is scored.

Paper 4.4, Testing: non-overlapping clips over the whole video, centre crop, scores averaged to one prediction a video.
TSN: one prediction from the mean feature of several clips. Table 10: the mean over three folds.

OUTPUT/...               the files that `evaluate.report` lists; with several folds in OUTPUT/fold1, OUTPUT/fold2, ...
OUTPUT/metrics.json      with several folds: a `FoldsEvaluation`
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np

from pipelines.clips.loader import BatchLoader
from pipelines.clips.views import ViewPlan
from pipelines.evaluate.config import EvaluateConfig
from pipelines.evaluate.record import Tested, record_test
from pipelines.evaluate.report import write_metrics
from pipelines.evaluate.scoring import score_videos
from pipelines.evaluate.summary import describe_classes, describe_evaluation, describe_failures, describe_folds
from pipelines.networks.lineage import Lineage, check_lineage, evaluated_by_test
from pipelines.networks.weights import check_classifier, locate_weights, newest_run
from pipelines.prepare.make import prepared_shards
from pipelines.runtime.job_run import open_job_run, tracking_uri_of
from pipelines.runtime.paths import base_folder, new_name, output_path
from pipelines.runtime.start_checks import check_start
from pipelines.settings.build import changed
from pipelines.settings.terminal import format_summary, seen_from_here
from pipelines.shards.folder import describe_shards
from pipelines.shards.index import ShardIndex, load_index
from pipelines.shards.reading import describe_skipped
from pipelines.tracking.recorded import PARENT, SEEN_BEFORE, TRAINED_BY
from pipelines.tracking.runs import Run
from t3d_core.errors import UserError
from t3d_core.evaluation.evaluation import Evaluation, average_folds
from t3d_core.training.checkpoint import LoadedModel, load_model
from t3d_core.training.weights_card import WeightsCard, read_card


@dataclass(frozen=True)
class _Test:
    """One network and the videos of its fold, checked."""

    config: EvaluateConfig
    loaded: LoadedModel
    folders: list[Path]
    index: ShardIndex
    label_V: np.ndarray
    output: Path
    warning: str | None


def run_evaluate(config: EvaluateConfig, *, tags: Mapping[str, str] = MappingProxyType({})) -> str:
    """Test classifiers with the settings in `config`; return the closing summary.

    Args:
        config: the weights and the videos.
        tags: more tags of the MLflow run.

    Raises:
        UserError: settings, weights or shards that cannot work, before any work; or no video can be decoded.
    """
    output = output_path(config.output or config.storage / new_name("evaluate"))
    if not config.folds:
        [test] = _prepare([config], [output])
        return _run(test, run_name=output.name, tags=tags)[1]
    configs = [_of_fold(config, fold) for fold in config.folds]
    tests = _prepare(configs, [output / f"fold{fold}" for fold in config.folds])
    return _run_folds(config, tests, output, tags=tags)


def _of_fold(config: EvaluateConfig, fold: int) -> EvaluateConfig:
    """The settings that test one fold alone."""
    checkpoint = str(config.checkpoint).replace("{fold}", str(fold))  # the config has checked that there is one
    return changed(config, {"data.fold": fold, "checkpoint": checkpoint, "folds": ()})


def _prepare(configs: Sequence[EvaluateConfig], outputs: Sequence[Path]) -> list[_Test]:
    """Load and check all tests, then connect to Ray: scoring starts only when every test can run."""
    common = configs[0]
    storage, tracking_uri = base_folder() / common.storage, tracking_uri_of(common.tracking)
    models = [_load(config, tracking_uri=tracking_uri, storage=storage) for config in configs]
    reserved = {"CPU": common.cpus_per_worker} | ({"GPU": 1.0} if common.use_gpu else {})
    check = partial(
        check_start, tracking_uri=tracking_uri, num_workers=common.num_workers, resources_of_worker=reserved
    )
    folders = prepared_shards(common.data, storage=storage, before_work=check)
    tests = []
    for config, loaded, output in zip(configs, models, outputs, strict=True):
        has_fps = loaded.card.seconds_per_frame is not None
        index = load_index(folders, fold=config.data.fold, splits=[config.data.split], has_fps=has_fps)
        label_V = _labels_of_model(index, loaded.card, split=config.data.split, fold=config.data.fold)
        warning = _check_unseen(config, loaded.card, folders, index)
        tests.append(_Test(config, loaded, folders, index, label_V, output, warning))
    check(read=folders)
    return tests


def _check_unseen(config: EvaluateConfig, card: WeightsCard, folders: list[Path], index: ShardIndex) -> str | None:
    """Refuse a test on videos that the network was trained on; print and return a warning if it only saw some."""
    if config.data.split == "train":
        return None
    lineage = Lineage(config.checkpoint or "the newest run", card.lineage)
    warning = check_lineage(lineage, evaluated_by_test(folders, index, fold=config.data.fold))
    if warning is not None:
        print(f"WARNING: {warning}", flush=True)
    return warning


def _load(config: EvaluateConfig, *, tracking_uri: str, storage: Path) -> LoadedModel:
    weights = locate_weights(config.checkpoint or str(newest_run(storage)), tracking_uri=tracking_uri)
    card = read_card(weights)
    check_classifier(card, weights, num_clips=config.num_clips, num_crops=config.num_crops)
    loaded = load_model(weights)
    if config.compute.transition_forms is not None:
        loaded.model.set_transition_forms(config.compute.transition_forms)
    return loaded


def _labels_of_model(index: ShardIndex, card: WeightsCard, *, split: str, fold: int) -> np.ndarray:
    """The videos' labels (V,) in the network's numbering of classes."""
    if (index.label_N < 0).any():
        raise UserError(
            f"some rows of split {split} in fold {fold} have no label: choose another --data.split, or other "
            "--data.shards"
        )
    of_model = np.array(card.places_of(index.class_names))
    return of_model[index.label_N]


def _run(test: _Test, *, run_name: str, tags: Mapping[str, str]) -> tuple[Evaluation, str]:
    """Score one network on one fold, write and log the results, and summarise them."""
    config, card, index = test.config, test.loaded.card, test.index
    with _open_run(config, test, run_name=run_name, tags=tags) as run:
        (test.output / "metrics.json").unlink(
            missing_ok=True
        )  # an earlier test's: a folder with this file holds one whole test
        plan = ViewPlan(BatchLoader(index, card.clip_view()), num_crops=config.num_crops, num_clips=config.num_clips)
        scores, failures = score_videos(plan, test.loaded, test.label_V, config)
        tested = Tested(
            card.model_kind,
            card.class_names,
            test.folders,
            fold=config.data.fold,
            split=config.data.split,
            num_frames=card.num_frames,
            num_segments=card.num_segments,
            num_crops=config.num_crops,
        )
        recorded = record_test(tested, scores, failures, index, output=test.output, run=run)
    evaluation = recorded.evaluation
    fields = [*describe_evaluation(evaluation, card), *((("WARNING", test.warning),) if test.warning else ())]
    fields += [*(("skipped", line) for line in describe_skipped(index.skipped))]
    if failures:
        fields.append(("failed", f"{describe_failures(failures, index)}; all are listed in {recorded.failures_file}"))
    fields += [
        ("weakest", describe_classes(recorded.report, card.class_names)),
        ("reports", f"{test.output}: {', '.join(path.name for path in recorded.written)}"),
        ("mlflow", run.describe()),
    ]
    return evaluation, format_summary(fields)


def _run_folds(config: EvaluateConfig, tests: Sequence[_Test], output: Path, *, tags: Mapping[str, str]) -> str:
    """Test fold by fold; each fold has its own MLflow run inside the run that gets the mean."""
    with _open_run(config, tests[0], run_name=output.name, tags=tags) as run:
        tags = {PARENT: run.run_id}
        evaluations = {}
        for test in tests:
            fold = test.config.data.fold
            evaluations[fold], summary = _run(test, run_name=f"{output.name}-fold{fold}", tags=tags)
            print(f"fold {fold}\n{seen_from_here(summary)}", flush=True)  # the next may take hours
        averaged = average_folds(evaluations)
        metrics_file = write_metrics(dataclasses.asdict(averaged), output / "metrics.json")
        run.log_metrics(averaged.mean | {f"{name}_std": std for name, std in averaged.std.items()}, step=0)
        run.log_artifact(metrics_file)
    fields = [*describe_folds(evaluations, averaged), ("reports", str(output)), ("mlflow", run.describe())]
    return format_summary(fields)


def _trained_by(card: WeightsCard) -> dict[str, str]:
    """The tag that connects a test to its training run."""
    return {} if card.run_id is None else {TRAINED_BY: card.run_id}


@contextmanager
def _open_run(config: EvaluateConfig, test: _Test, *, run_name: str, tags: Mapping[str, str]) -> Iterator[Run]:
    seen = {SEEN_BEFORE: test.warning} if test.warning else {}
    tags = {**_trained_by(test.loaded.card), **seen, **tags}
    with open_job_run(config, config.tracking, stage="evaluate", run_name=run_name, tags=tags) as run:
        for path in test.folders:
            described = describe_shards(path)
            run.log_dataset(described["dataset"], described["fingerprint"], str(path), context=config.data.split)
        yield run
