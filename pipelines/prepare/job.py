"""Videos and their annotations become shards, on Ray Data: each task makes one shard, whole or not at all.

Which videos a shard holds follows from the records, the settings and the seed, so preparing again makes only what is
missing, and two runs give the same rows. A video that failed and whose file has come, or has another size now, goes
into a late shard. Every listed video ends as rows of a shard or as a row of `failures.parquet`.
"""

import json
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import ray
from tqdm import tqdm

from pipelines.configs import DataConfig, PrepareJobConfig
from pipelines.prepare.config import PrepareConfig
from pipelines.prepare.contact_sheet import write_contact_sheet
from pipelines.prepare.coverage import Coverage, count_coverage, format_coverage, metrics, write_coverage_csv
from pipelines.prepare.late_shards import (
    add_late_shards,
    count_shards,
    places_made_later,
    positions_of,
    records_to_retry,
    shards_to_make,
    write_tables,
)
from pipelines.prepare.listing import Listing, list_videos
from pipelines.prepare.plan import format_plan, plan_prepare
from pipelines.prepare.shard_task import ShardCounts, ShardTask, make_shard_or_tell
from pipelines.prepare.sources import LocalRoot
from pipelines.runtime import pools, session
from pipelines.runtime.shared_storage import check_shared
from pipelines.settings.recipe import JobError, flatten, to_yaml
from pipelines.shards.folder import ShardFolder, describe_shards, whole_file, write_table
from pipelines.tracking import runs as tracking
from t3d_core.video.guard import GuardLimits

_SHOWN_DIGITS = 12  # of a fingerprint


def run_prepare(config: PrepareJobConfig) -> str:
    """Prepare the data set of `config` and log what came of it to MLflow; give the closing summary.

    Raises:
        ValueError: settings or annotations that cannot work, or another prepare at the same folder, before any work.
        JobError: more videos failed than `max_failed_fraction` allows; everything was written.
    """
    if config.output is None:
        raise ValueError("output is missing: name the folder for the shards with --output FOLDER")
    output = session.base_folder() / config.output
    listing = list_videos(config, output=output)
    print(f"{listing.is_found().sum():,} of {len(listing.records):,} listed videos found in {listing.root.address}")
    if any(overlaps := listing.description["official_overlaps"]):
        print(f"note: the published lists put {overlaps} source videos of the folds into both train and test")
    folder = ShardFolder(output)
    if config.dry_run:
        plan = plan_prepare(_task(config, folder, listing), listing, num_videos=config.dry_run_videos, seed=config.seed)
        return format_plan(plan, free_bytes=_free_bytes(output))
    _check_fingerprint(folder, listing.description)
    with folder.locked(is_patient=False), _tracked(config, folder, listing) as run:
        _check_fingerprint(folder, listing.description)
        add_late_shards(
            folder, listing, records_to_retry(folder, listing, is_job=True, retry_failed=config.retry_failed)
        )
        _bring_up_to_date(config, folder, listing)
        coverage = count_coverage(folder.videos_file)
        print(format_coverage(coverage))
        _log(run, folder, coverage)
        _check_failures(config, folder, coverage)
    job = "train" if listing.description["class_names"] else "transfer"
    return "\n".join(
        [
            f"shards:   {output / 'shards'}",
            f"look:     {folder.contact_sheet_file}",
            f"mlflow:   {run.describe()}",
            f"settings: {listing.description['fingerprint'][:_SHOWN_DIGITS]}, for --data.fingerprint",
            f"next:     python jobs/{job}.py --data.shards {shlex.quote(str(output))}",
            f"{coverage.total.prepared} of {coverage.total.listed} videos prepared, {coverage.num_segments} rows; "
            f"reasons of the others in {folder.failures_file}",
        ]
    )


def prepared_shards(data: DataConfig, *, storage: Path, before_work: Callable[[], None]) -> list[Path]:
    """Give the absolute folders that `data` names; or prepare those that it describes under `storage`.

    Named folders come first, as where the command line gives other shards than the recipe prepares; `data.prepare`
    beside them is not looked at. (What it would make cannot be told without listing its videos.)

    Args:
        data: which rows a run reads.
        storage: of the run.
        before_work: called before shards are made, to refuse a run that could not use them.

    Raises:
        ValueError: neither is given, shards are not of `data.fingerprint`, or as `prepare`.
    """
    if data.shards:
        folders = [session.input_path(path) for path in data.shards]
        for folder in folders:
            _check_expected(describe_shards(folder)["fingerprint"], data.fingerprint, where=folder)
        return folders
    if data.prepare is None:
        raise ValueError("data.shards is missing: give --data.shards FOLDER, one that jobs/prepare.py wrote")
    output = storage / (data.prepare.output or Path("data") / data.prepare.dataset.kind)
    prepare(data.prepare, output, expected=data.fingerprint, before_work=before_work)
    return [output]


def prepare(
    config: PrepareConfig, output: Path, *, expected: str | None = None, before_work: Callable[[], None] | None = None
) -> Coverage:
    """Make the shards of `config` that are missing in `output`, after any other process that is making them.

    Args:
        config: which videos, and how.
        output: the folder.
        expected: how the fingerprint of the settings and videos must begin.
        before_work: called before shards are made.

    Raises:
        ValueError: unreadable annotations, a source video on both sides of a split, shards made with other settings,
            settings or videos other than `expected`.
        JobError: more videos failed than `max_failed_fraction` allows; everything was written.
    """
    folder = ShardFolder(output)
    listing = list_videos(config, output=output)
    _check_expected(listing.description["fingerprint"], expected, where=output)
    _check_fingerprint(folder, listing.description)
    if not _is_up_to_date(folder, listing):
        if before_work is not None:
            before_work()
        with folder.locked(is_patient=True):
            _check_fingerprint(folder, listing.description)
            add_late_shards(folder, listing, records_to_retry(folder, listing))
            _bring_up_to_date(config, folder, listing)
    coverage = count_coverage(folder.videos_file)
    _check_failures(config, folder, coverage)
    return coverage


def _is_up_to_date(folder: ShardFolder, listing: Listing) -> bool:
    return (
        folder.num_finished_shards() == count_shards(folder, listing)
        and not shards_to_make(folder, listing)
        and not len(records_to_retry(folder, listing))
    )


def _bring_up_to_date(config: PrepareConfig, folder: ShardFolder, listing: Listing) -> None:
    """Make the shards that are missing, then the tables; the folder is locked."""
    folder.sweep()
    write_table(listing.records, folder.records_file, row_group_size=config.videos_per_shard)
    later = places_made_later(folder, listing)
    if not folder.dataset_file.is_file() or any(shard < folder.num_finished_shards() for shard in later):
        folder.write_description(listing.description)  # unfinished: the tables describe a shard that was lost
    try:
        num_videos = sum(len(positions_of(folder, listing, shard)) for shard in later)
        _make_shards(_task(config, folder, listing), later, num_videos=num_videos)
    finally:
        folder.sweep()  # what killed workers left
    write_tables(folder, listing)
    folder.write_description(
        listing.description | {"num_shards": count_shards(folder, listing), "contents": folder.digest_contents()}
    )
    write_contact_sheet(folder, folder.contact_sheet_file, num_segments=config.contact_sheet_segments, seed=config.seed)


def _task(config: PrepareConfig, folder: ShardFolder, listing: Listing) -> ShardTask:
    guard = config.guard
    limits = GuardLimits(guard.seconds, int(guard.memory_gib * 2**30), int(guard.output_gib * 2**30))
    return ShardTask(folder, listing.root, listing.description, limits, int(guard.source_gib * 2**30))


def _free_bytes(output: Path) -> int:
    """Free space where the folder is, or will be."""
    return shutil.disk_usage(next(path for path in (output, *output.absolute().parents) if path.exists())).free


def _check_expected(fingerprint: str, expected: str | None, *, where: Path) -> None:
    if expected is not None and not fingerprint.startswith(expected):
        raise ValueError(
            f"data.fingerprint {expected} is expected, but the settings and videos of {where} have "
            f"{fingerprint[:_SHOWN_DIGITS]}: give shards that were prepared as expected, or another --data.fingerprint"
        )


def _check_fingerprint(folder: ShardFolder, description: dict[str, Any]) -> None:
    if not folder.dataset_file.is_file():
        return
    there = folder.describe()
    if there["fingerprint"] != description["fingerprint"]:
        then, now = (known["fingerprint"][:_SHOWN_DIGITS] for known in (there, description))
        changed = [name for name in description if there.get(name) != description[name] and name != "fingerprint"]
        raise ValueError(
            f"{folder.root} holds shards with fingerprint {then}, but these settings and videos have {now} (changed: "
            f"{', '.join(changed)}): give another output folder, or delete this one"
        )


def _make_shards(task: ShardTask, later: dict[int, frozenset[int]], *, num_videos: int) -> None:
    """Make the shards that are the keys of `later`, but for the videos at those places."""
    if not later:
        return
    session.connect()
    pools.check_decoders()
    check_shared(written=task.folder.root, read=[task.root.folder] if isinstance(task.root, LocalRoot) else [])
    shards = list(later.items())

    def make(block: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        shard, places = shards[int(block["id"][0])]
        counts, error = make_shard_or_tell(task, shard, left_out=places)
        return {name: np.array([value]) for name, value in {**counts._asdict(), "error": error}.items()}

    done = ray.data.range(len(shards), override_num_blocks=len(shards)).map_batches(make, batch_size=1)
    done.context.execution_options.label_selector = pools.selector("decode")
    done.context.enable_progress_bars = False  # ours counts videos, over all tasks
    # One operator needs no share of its own, and with shares two cores were busy 1.4 of the time (tasks of 0.4 s).
    done.context.op_resource_reservation_enabled = False
    total = ShardCounts()
    with tqdm(desc="prepare", total=num_videos, unit="video", smoothing=0.1) as bar:
        for block in done.iter_batches(batch_size=None):
            if error := next(filter(None, block.pop("error").tolist()), None):
                raise JobError(f"{error}; what is done is kept: put that right and start again")
            counts = ShardCounts(**{name: int(values.sum()) for name, values in block.items()})
            total = total.plus(counts)
            bar.set_postfix_str(total.describe(), refresh=False)
            bar.update(counts.num_videos)


def _check_failures(config: PrepareConfig, folder: ShardFolder, coverage: Coverage) -> None:
    found, failed = coverage.total.found, coverage.total.found - coverage.total.prepared
    if failed > config.max_failed_fraction * found:
        raise JobError(
            f"{failed} of {found} videos failed, more than max_failed_fraction {config.max_failed_fraction:g}; the "
            f"rest is prepared, the reasons are in {folder.failures_file}"
        )


@contextmanager
def _tracked(config: PrepareJobConfig, folder: ShardFolder, listing: Listing) -> Iterator[tracking.Run]:
    """An MLflow run of this job; the one that a killed job left open at this folder is closed."""
    uri = tracking.resolve_tracking_uri(config.tracking.uri, base=session.base_folder())
    if folder.run_file.is_file():
        tracking.Run(**json.loads(folder.run_file.read_text())).close_if_possible("KILLED")
    run = tracking.start_run(
        tracking_uri=uri,
        experiment=config.tracking.experiment,
        run_name=f"prepare-{folder.root.name}",
        run_id=None,
        tags={"stage": "prepare", "dataset_fingerprint": listing.description["fingerprint"]} | tracking.commit_tag(),
    )
    with whole_file(folder.run_file) as partial:
        partial.write_text(json.dumps(asdict(run)))
    try:
        with run:
            run.log_params(flatten(config))
            run.log_text(to_yaml(config), "recipe.yaml")
            yield run
    finally:
        folder.run_file.unlink()


def _log(run: tracking.Run, folder: ShardFolder, coverage: Coverage) -> None:
    run.log_metrics(metrics(coverage), step=0)
    run.log_dataset(folder.root.name, folder.describe()["fingerprint"], str(folder.root), context="prepare")
    with tempfile.TemporaryDirectory() as temporary:
        write_coverage_csv(coverage, Path(temporary) / "coverage.csv")
        run.log_artifact(Path(temporary) / "coverage.csv")
    for file in (folder.contact_sheet_file, folder.failures_file):
        run.log_artifact(file)
