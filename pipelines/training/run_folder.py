"""The folder of a named run, which a later start of the same name takes up again."""

import contextlib
import hashlib
import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.networks.weights import costs_of
from pipelines.runtime.files import alone_in, whole_file
from pipelines.runtime.paths import base_folder, new_name
from pipelines.runtime.start_checks import check_start
from pipelines.settings.recipe import to_yaml
from pipelines.settings.section import RESUMABLE, config_fingerprint, flatten, names_of_roles
from pipelines.shards.folder import describe_shards
from pipelines.shards.reading import describe_skipped
from pipelines.tracking.commit import commit_tag
from pipelines.tracking.runs import Run, start_run
from pipelines.tracking.store import resolve_tracking_uri
from pipelines.training.config import RunConfig
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
    """The video ids of a file of unreadable clips, but for lines that a full disk or a lost machine cut short."""
    video_ids = []
    for line in path.read_text().splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            video_ids.append(json.loads(line)["video_id"])
    return video_ids


@dataclass(frozen=True)
class Audience:
    """For whom a run is trained: people at a terminal, or a search.

    Attributes:
        sees_bars: where the run is, and a progress bar an epoch.
        validated: called with the step and the metrics of every validation, in the process that called `fit`.
        run_name: of the MLflow run; none: the folder's.
        tags: of the MLflow run, beside its own.
        interval: the part of the run that is to be trained now; none: all of it.
    """

    sees_bars: bool = True
    validated: Callable[[int, Metrics], None] = ignore
    run_name: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    interval: Interval | None = None


PEOPLE = Audience()


@dataclass(frozen=True)
class RunFolder:
    """One run's own folder, the MLflow run that records it, and what it ended with when it has ended before."""

    path: Path
    run: Run
    summary: str | None

    def close(self, summary: str) -> str:
        """Keep the closing summary: started again, the run has nothing left to do but to say it."""
        with whole_file(_summary_file(self.path)) as partial:
            partial.write_text(summary)
        return summary


def check_surroundings(config: RunConfig, *, read: Sequence[Path] = ()) -> None:
    """See that a run can start, as `check_start`, which reads `read` beside its storage."""
    base = base_folder()
    check_start(
        tracking_uri=resolve_tracking_uri(config.tracking.uri, base=base),
        num_workers=config.scaling.fewest_workers(),
        resources_of_worker=config.scaling.resources_of_worker(),
        written=base / config.storage,
        read=read,
    )


@contextlib.contextmanager
def open_run(
    stage: Stage,
    *,
    kind: str,
    shards: Sequence[Path],
    tags: Mapping[str, str] = PEOPLE.tags,
    run_name: str | None = None,
) -> Iterator[RunFolder]:
    """Make the folder and the MLflow run of the stage's name, or take up those of an earlier start of it.

    The MLflow run ends as FINISHED, or as FAILED or KILLED when an exception leaves the block.

    Args:
        stage: what is trained, on which rows.
        kind: name of the job, a tag of the MLflow run.
        shards: the folders that the rows are from.
        tags: more tags of the MLflow run.
        run_name: of the MLflow run; none: the folder's.

    Raises:
        UserError: the name belongs to a run with other settings or shards, or to one that another job is at work on;
            or other rows can be read than at its first start.
    """
    config = stage.config
    base = base_folder()
    path = base / config.storage / (config.name or new_name(kind))
    tracking_uri = resolve_tracking_uri(config.tracking.uri, base=base)
    descriptions = {shard_folder: describe_shards(shard_folder) for shard_folder in shards}
    fingerprint = _fingerprint(config, list(descriptions.values()))
    known = _read_run_file(path)
    if known is not None and known["fingerprint"] != fingerprint:
        raise UserError(
            f"run {path.name!r} in {path.parent} was made with other settings or shards (fingerprint "
            f"{known['fingerprint'][:12]}, now {fingerprint[:12]}; see {path / 'recipe.yaml'}): give another --name"
        )
    rows = _describe_rows(stage)
    if known is not None and "rows" not in known:
        raise UserError(f"run {path.name!r} in {path.parent} was begun by an older version: give another --name")
    if known is not None and known["rows"] != rows:
        raise UserError(_describe_other_rows(stage, path, known=known["rows"], now=rows))
    with alone_in(path):
        run = start_run(
            tracking_uri=tracking_uri,
            experiment=config.tracking.experiment,
            run_name=run_name or path.name,
            run_id=known["mlflow_run_id"] if known else None,
            tags={"stage": kind, "recipe_fingerprint": fingerprint, **commit_tag(), **tags},
            mark=folder_mark(path),
        )
        with run:
            if known is None:
                known = {"stage": kind, "fingerprint": fingerprint, "rows": rows, "mlflow_run_id": run.run_id}
                _write_run_files(path, stage, known, run=run)
            for shard_folder, description in descriptions.items():
                run.log_dataset(description["dataset"], description["fingerprint"], str(shard_folder))
            yield RunFolder(path, run, _read_summary(path, weights_name=stage.weights_name))


def _summary_file(path: Path) -> Path:
    return path / "summary.txt"


def _read_summary(path: Path, *, weights_name: str) -> str | None:
    file = _summary_file(path)
    return file.read_text() if file.is_file() and (path / weights_name).is_file() else None


def _fingerprint(config: RunConfig, descriptions: Sequence[dict[str, Any]]) -> str:
    """What a run computes follows from these alone: the settings that count, and what is in the shards."""
    parts = [config_fingerprint(config, exclude=names_of_roles(type(config), RESUMABLE))]
    for description in descriptions:
        parts += [description["fingerprint"], description["contents"]]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def _read_run_file(path: Path) -> dict[str, Any] | None:
    file = path / "run.json"
    return json.loads(file.read_text()) if file.is_file() else None


def run_id_of(path: Path) -> str | None:
    """The MLflow run of a run's folder; none before it has one."""
    known = _read_run_file(path)
    return known["mlflow_run_id"] if known else None


def folder_mark(path: Path) -> str:
    """What tells a folder from every other, also from one of the same name that was deleted; made when it is missing.

    A run that MLflow has, and whose id a kill kept out of the folder, is found again by it.
    """
    file = path / ".mark"
    if not file.is_file():
        with whole_file(file) as partial:
            partial.write_text(uuid.uuid4().hex)
    return file.read_text()


def _describe_rows(stage: Stage) -> dict[str, dict[str, Any]]:
    """The rows that train and those that validate, as `run.json` keeps them: the order of clips follows from them."""
    return {
        split: {"count": len(index), "fingerprint": index.fingerprint()}
        for split, index in (("train", stage.train_index), ("val", stage.val_index))
    }


def _describe_other_rows(stage: Stage, path: Path, *, known: dict[str, Any], now: dict[str, Any]) -> str:
    counts = ", ".join(f"{split} {known[split]['count']} then and {now[split]['count']} now" for split in known)
    lost = "; ".join(describe_skipped(list({*stage.train_index.skipped, *stage.val_index.skipped})))
    return (
        f"run {path.name!r} in {path.parent} began on other rows ({counts}), and its clips would come in another order"
        f"{f'; {lost}' if lost else ''}: bring the shards back as they were, or give another --name"
    )


def _write_run_files(path: Path, stage: Stage, known: dict[str, Any], *, run: Run) -> None:
    """Describe a run in MLflow and in its folder; `run.json` comes last, for what has it is whole."""
    config = stage.config
    run.log_metrics(costs_of(stage.card), step=0)
    run.log_params(flatten(config))
    run.log_text(to_yaml(config), "recipe.yaml")
    (path / "recipe.yaml").write_text(to_yaml(config))
    with whole_file(path / "run.json") as partial:
        partial.write_text(json.dumps(known, indent=1))
