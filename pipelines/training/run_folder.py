"""The folder of a named run, which a later start with the same name resumes; and how a run is launched.

STORAGE/NAME/run.json              what the run is: stage, settings, MLflow run, the chain of its weights
STORAGE/NAME/checkpoint_STEP/      weights and training state; the newest few (`training.checkpoints`)
STORAGE/NAME/metrics.jsonl         its curves, also before MLflow has them
STORAGE/NAME/unreadable.jsonl      clips that could not be read, if any
STORAGE/NAME/{model,student}.safetensors, summary.txt   the result
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pipelines.networks.weights import costs_of
from pipelines.runtime.files import whole_file
from pipelines.runtime.job_run import tracking_uri_of
from pipelines.runtime.named_folder import NamedFolder, read_record
from pipelines.runtime.paths import new_name, output_path
from pipelines.runtime.start_checks import check_start
from pipelines.settings.build import changed
from pipelines.settings.recipe import read_recipe
from pipelines.settings.section import RESUMABLE, Section, config_fingerprint, names_of_roles
from pipelines.shards.folder import describe_shards
from pipelines.shards.reading import describe_skipped
from pipelines.tracking.config import TrackingConfig
from pipelines.tracking.runs import Run
from pipelines.training.clips_at_once import clips_at_once, with_clips_at_once
from pipelines.training.config import RunConfig, ScalingConfig
from pipelines.training.stage import Stage
from pipelines.training.worker import Interval, Metrics, ignore
from t3d_core.errors import UserError


def metrics_file(folder: Path) -> Path:
    """Where a run writes its curves before MLflow gets them."""
    return folder / "metrics.jsonl"


def unreadable_file(folder: Path) -> Path:
    """Where a run writes the clips that could not be read: a JSON object with video_id and reason a line."""
    return folder / "unreadable.jsonl"


def read_unreadable(path: Path) -> list[str]:
    """The video ids of a file of unreadable clips, except lines that a full disk or a lost machine left incomplete."""
    video_ids = []
    for line in path.read_text().splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            video_ids.append(json.loads(line)["video_id"])
    return video_ids


@dataclass(frozen=True)
class Launch:
    """How a run is launched: by people at a terminal, or by a search.

    Attributes:
        shows_progress: whether it prints where the run lies, and a progress bar.
        validated: called with the step and the metrics of every validation, in the process that called `fit`.
        run_name: of the MLflow run; by default the folder's.
        tags: of the MLflow run, added to its own.
        interval: the part of the run that is to be trained now; by default all of it.
    """

    shows_progress: bool = True
    validated: Callable[[int, Metrics], None] = ignore
    run_name: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    interval: Interval | None = None


TERMINAL = Launch()


@dataclass(frozen=True)
class RunFolder:
    """One run's own folder, the MLflow run that records it, and its closing summary if it has ended before.

    `clips_at_once` is what the first start settled (see `training.clips_at_once`).
    """

    path: Path
    run: Run
    summary: str | None
    clips_at_once: Mapping[str, int]

    def close(self, summary: str) -> str:
        """Keep the closing summary: started again, the finished run only prints it."""
        with whole_file(_summary_file(self.path)) as partial:
            partial.write_text(summary)
        return summary


class Surroundings(Protocol):
    """The settings of a job that say what it reserves and where it writes."""

    @property
    def scaling(self) -> ScalingConfig:
        """Its workers."""

    @property
    def tracking(self) -> TrackingConfig:
        """Its store."""

    @property
    def storage(self) -> Path:
        """Its folder."""


def check_surroundings(config: Surroundings, *, read: Sequence[Path] = ()) -> None:
    """Check that a run can start (see `check_start`): it writes to its storage and reads the folders `read`."""
    check_start(
        tracking_uri=tracking_uri_of(config.tracking),
        num_workers=config.scaling.fewest_workers(),
        resources_of_worker=config.scaling.resources_of_worker(),
        written=output_path(config.storage),
        read=read,
    )


@contextlib.contextmanager
def open_run(
    stage: Stage,
    *,
    kind: str,
    shards: Sequence[Path],
    tags: Mapping[str, str] = TERMINAL.tags,
    run_name: str | None = None,
) -> Iterator[RunFolder]:
    """Make the folder and the MLflow run of the stage's name, or resume those of an earlier start.

    The MLflow run ends as FINISHED, or as FAILED or KILLED when an exception leaves the block.

    Args:
        stage: what is trained, on which rows.
        kind: name of the job, a tag of the MLflow run.
        shards: the folders that the rows are from.
        tags: more tags of the MLflow run.
        run_name: of the MLflow run; by default the folder's.

    Raises:
        UserError: the name belongs to a run with other settings or shards; or another job is training it; or the
            rows that can be read differ from those of its first start, or the workers cannot have its micro-batches.
    """
    config = stage.config
    path = output_path(config.storage) / (config.name or new_name(kind))
    descriptions = {shard_folder: describe_shards(shard_folder) for shard_folder in shards}
    fingerprint = run_fingerprint(config, list(descriptions.values()))
    folder = NamedFolder(path, "run", fingerprint)
    rows = _describe_rows(stage)
    with folder.exclusive():
        known = folder.known(when_changed="made with other settings or shards")
        if known is not None:
            _check_rows(stage, folder, known=known, now=rows)
        summary = _read_summary(path, weights_name=stage.weights_name)
        if known is not None and summary is None and "clips_at_once" not in known:
            known = known | {"clips_at_once": _clips_of_older_start(config, folder)}
            folder.extend_record(known)
        settled = (known or {}).get("clips_at_once") or clips_at_once(config)
        if summary is None:
            with_clips_at_once(config, settled, run=folder.describe())
        tags = {"recipe_fingerprint": fingerprint, **tags}
        with folder.open_run(config, config.tracking, known=known, stage=kind, run_name=run_name, tags=tags) as run:
            if known is None:
                run.log_metrics(costs_of(stage.card), step=0)
                lineage = [asdict(step) for step in stage.card.of_run(run.run_id).lineage]
                folder.record(config, run, stage=kind, rows=rows, lineage=lineage, clips_at_once=settled)
            for shard_folder, description in descriptions.items():
                run.log_dataset(description["dataset"], description["fingerprint"], str(shard_folder))
            yield RunFolder(path, run, summary, settled)


def _summary_file(path: Path) -> Path:
    return path / "summary.txt"


def _read_summary(path: Path, *, weights_name: str) -> str | None:
    file = _summary_file(path)
    return file.read_text() if file.is_file() and (path / weights_name).is_file() else None


def run_fingerprint(config: Section, descriptions: Sequence[dict[str, Any]]) -> str:
    """A hash of all that the result follows from: the settings that count and the contents of the shards."""
    parts = [config_fingerprint(config, exclude=names_of_roles(type(config), RESUMABLE))]
    for description in descriptions:
        parts += [description["fingerprint"], description["contents"]]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def run_id_of(path: Path) -> str | None:
    """The id of the MLflow run of a run's folder; None before it has one."""
    known = read_record(path / "run.json")
    return known["mlflow_run_id"] if known else None


def _describe_rows(stage: Stage) -> dict[str, dict[str, Any]]:
    """The rows that train and those that validate, as `run.json` keeps them: the order of clips follows from them."""
    return {
        split: {"count": len(index), "fingerprint": index.fingerprint()}
        for split, index in (("train", stage.train_index), ("val", stage.val_index))
    }


def _check_rows(stage: Stage, folder: NamedFolder, *, known: dict[str, Any], now: dict[str, Any]) -> None:
    if "rows" not in known:
        raise UserError(f"{folder.describe()} was begun by an older version of this project: give another --name")
    then = known["rows"]
    if then == now:
        return
    counts = ", ".join(f"{split}: {then[split]['count']} then, {now[split]['count']} now" for split in then)
    lost = "; ".join(describe_skipped(list({*stage.train_index.skipped, *stage.val_index.skipped})))
    raise UserError(
        f"{folder.describe()} began with other rows ({counts}), so its clips would come in another order"
        f"{f'; {lost}' if lost else ''}: restore the shards as they were, or give another --name"
        f"{_describe_holdout(stage, known)}"
    )


def _clips_of_older_start(config: RunConfig, folder: NamedFolder) -> dict[str, int]:
    """What the workers of the first start gave, which an older version did not record.

    Raises:
        UserError: their parts of the batch were unequal.
    """
    num_workers = read_recipe(folder.recipe_file)["scaling"]["num_workers"]
    try:
        return clips_at_once(changed(config, {"scaling.num_workers": num_workers}))
    except UserError as error:
        raise UserError(
            f"{folder.describe()} was begun by an older version of this project with scaling.num_workers "
            f"{num_workers}, which cannot be resumed ({error}): give another --name"
        ) from error


def _describe_holdout(stage: Stage, known: dict[str, Any]) -> str:
    """How to hold out what the first start of a training run held out; empty if this start does."""
    now = [step.holdout_seed for step in stage.card.lineage[-1:]]
    then = [step["holdout_seed"] for step in known["lineage"][-1:]] if "lineage" in known else [stage.config.seed]
    if not now or None in (*now, *then) or now == then:
        return ""
    return f"; it held out other videos: --data.holdout_seed {then[0]} holds out those"
