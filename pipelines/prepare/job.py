"""Videos and their annotations become shards, on Ray Data: each task makes one shard, whole or not at all.

The videos of a shard follow from the records, the settings and the seed, so a second start makes only what is missing,
and two runs give the same rows. A failed video goes into a late shard once its file has come or has another size.
Every listed video ends as rows of a shard or as a row of `failures.parquet`.
"""

import json
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from pipelines.prepare.config import PrepareJobConfig
from pipelines.prepare.coverage import Coverage, count_coverage, format_coverage, metrics, write_coverage_csv
from pipelines.prepare.late_shards import (
    add_late_shards,
    records_to_retry,
)
from pipelines.prepare.listing import Listing, list_videos
from pipelines.prepare.make import (
    SHOWN_DIGITS,
    bring_up_to_date,
    build_shard_task,
    check_failures,
    check_fingerprint,
    print_notes,
)
from pipelines.prepare.plan import format_plan, plan_prepare
from pipelines.runtime.files import whole_file
from pipelines.runtime.job_run import open_job_run
from pipelines.runtime.paths import output_path
from pipelines.settings.terminal import format_summary, seen_from_here
from pipelines.shards.folder import ShardFolder
from pipelines.tracking.runs import Run
from t3d_core.errors import UserError


def run_prepare(config: PrepareJobConfig) -> str:
    """Prepare the data set of `config`, log the result to MLflow, and return the summary.

    Raises:
        UserError: wrong settings or annotations, or another prepare job in the same folder; raised before any work.
        UserError: more videos failed than `max_failed_fraction` allows; everything was written.
    """
    if config.output is None:
        raise UserError("output is missing: name the folder for the shards with --output FOLDER")
    output = output_path(config.output)
    listing = list_videos(config, output=output)
    num_found, num_listed = listing.is_found().sum(), len(listing.records)
    print(seen_from_here(f"{num_found:,} of {num_listed:,} listed videos found in {listing.root.address}"))
    if any(overlaps := listing.description["official_overlaps"]):
        print(f"note: the published lists put {overlaps} source videos of the folds into both train and test")
    print_notes(listing)
    folder = ShardFolder(output)
    if config.dry_run:
        plan = plan_prepare(
            build_shard_task(config, folder, listing), listing, num_videos=config.dry_run_videos, seed=config.seed
        )
        return format_plan(plan, free_bytes=_free_bytes(output))
    check_fingerprint(folder, listing.description)
    with folder.locked(is_patient=False), _tracked(config, folder, listing) as run:
        check_fingerprint(folder, listing.description)
        add_late_shards(
            folder, listing, records_to_retry(folder, listing, is_job=True, retry_failed=config.retry_failed)
        )
        bring_up_to_date(config, folder, listing)
        coverage = count_coverage(folder.videos_file)
        print(format_coverage(coverage))
        _log(run, folder, coverage)
        check_failures(config, folder, coverage)
    job = "train" if listing.description["class_names"] else "transfer"
    num_prepared, num_listed = coverage.total.prepared, coverage.total.listed
    others = f"; the reasons of the others are in {folder.failures_file}" if num_prepared < num_listed else ""
    num_notes = len(listing.notes)
    notes = [("notes", f"{num_notes} on what was listed: see the first lines of this output")] if num_notes else []
    look_at = [("look at", str(folder.contact_sheet_file))] if folder.contact_sheet_file.is_file() else []
    return format_summary(
        [
            ("videos", f"{num_prepared:,} of {num_listed:,} prepared, {coverage.num_segments:,} rows{others}"),
            *notes,
            ("shards", str(output / "shards")),
            *look_at,
            ("settings", f"{listing.description['fingerprint'][:SHOWN_DIGITS]}, for --data.fingerprint"),
            ("mlflow", run.describe()),
            ("next", f"python jobs/{job}.py --data.shards {shlex.quote(str(output))}"),
        ]
    )


def _free_bytes(output: Path) -> int:
    """Free space where the folder is, or will be."""
    return shutil.disk_usage(next(path for path in (output, *output.absolute().parents) if path.exists())).free


@contextmanager
def _tracked(config: PrepareJobConfig, folder: ShardFolder, listing: Listing) -> Iterator[Run]:
    """An MLflow run of this job; a run that a killed job left open for this folder is closed."""
    if folder.run_file.is_file():
        Run(**json.loads(folder.run_file.read_text())).close_if_possible("KILLED")
    name, tags = f"prepare-{folder.root.name}", {"dataset_fingerprint": listing.description["fingerprint"]}

    def keep(run: Run) -> None:
        with whole_file(folder.run_file) as partial:
            partial.write_text(json.dumps(asdict(run)))

    try:
        with open_job_run(config, config.tracking, stage="prepare", run_name=name, tags=tags, on_open=keep) as run:
            yield run
    finally:
        folder.run_file.unlink(missing_ok=True)  # once the run is closed


def _log(run: Run, folder: ShardFolder, coverage: Coverage) -> None:
    run.log_metrics(metrics(coverage), step=0)
    run.log_dataset(folder.root.name, folder.describe()["fingerprint"], str(folder.root), context="prepare")
    with tempfile.TemporaryDirectory() as temporary:
        write_coverage_csv(coverage, Path(temporary) / "coverage.csv")
        run.log_artifact(Path(temporary) / "coverage.csv")
    for file in (folder.contact_sheet_file, folder.failures_file):
        if file.is_file():
            run.log_artifact(file)
