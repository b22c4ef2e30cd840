"""The missing shards of a listing are made on Ray Data: each task makes one, whole or not at all."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ray
from tqdm import tqdm

from pipelines.prepare.config import DataConfig, PrepareConfig
from pipelines.prepare.contact_sheet import write_contact_sheet
from pipelines.prepare.coverage import Coverage, count_coverage
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
from pipelines.prepare.shard_task import ShardCounts, ShardTask, limits_of, try_make_shard
from pipelines.prepare.sources import LocalRoot
from pipelines.runtime import pools, session
from pipelines.runtime.paths import input_path
from pipelines.runtime.pictures import optional_picture
from pipelines.runtime.shared_storage import check_shared
from pipelines.settings.terminal import seen_from_here
from pipelines.shards.folder import ShardFolder, describe_shards
from pipelines.shards.writing import write_table
from t3d_core.errors import UserError

SHOWN_DIGITS = 12  # of a fingerprint


def prepared_shards(data: DataConfig, *, storage: Path, before_work: Callable[[], None]) -> list[Path]:
    """The absolute folders that `data` names, or else the folder that it describes, prepared under `storage`.

    Named folders win over `data.prepare`, which is then ignored: the command line may give other shards than the recipe
    prepares. (The result of `data.prepare` is unknown without listing its videos.)

    Args:
        data: which rows a run reads.
        storage: of the run.
        before_work: called before shards are made, to refuse a run that could not use them.

    Raises:
        UserError: neither is given, the shards do not have `data.fingerprint`, or as in `prepare`.
    """
    if data.shards:
        folders = [input_path(path) for path in data.shards]
        for folder in folders:
            _check_expected(describe_shards(folder)["fingerprint"], data.fingerprint, where=folder)
        return folders
    if data.prepare is None:
        raise UserError("data.shards is missing: give --data.shards FOLDER, one that jobs/prepare.py wrote")
    output = storage / (data.prepare.output or Path("data") / data.prepare.dataset.kind)
    prepare(data.prepare, output, expected=data.fingerprint, before_work=before_work)
    return [output]


def prepare(
    config: PrepareConfig, output: Path, *, expected: str | None = None, before_work: Callable[[], None] | None = None
) -> Coverage:
    """Make the missing shards of `config` in `output`; wait for any other process that is making them.

    Args:
        config: which videos, and how.
        output: the folder.
        expected: required beginning of the fingerprint of settings and videos.
        before_work: called before shards are made.

    Raises:
        UserError: unreadable annotations, a source video on both sides of a split, shards made with other settings,
            settings or videos other than `expected`.
        UserError: more videos failed than `max_failed_fraction` allows; everything was written.
    """
    folder = ShardFolder(output)
    is_made_by_listing = config.dataset.kind == "synthetic" and not folder.num_finished_shards()
    if is_made_by_listing and before_work is not None:
        before_work()  # listing writes the synthetic videos
    listing = list_videos(config, output=output)
    _check_expected(listing.description["fingerprint"], expected, where=output)
    check_fingerprint(folder, listing.description)
    if not _is_up_to_date(folder, listing):
        if before_work is not None and not is_made_by_listing:
            before_work()
        print_notes(listing)
        with folder.locked(is_patient=True):
            check_fingerprint(folder, listing.description)
            add_late_shards(folder, listing, records_to_retry(folder, listing))
            bring_up_to_date(config, folder, listing)
    coverage = count_coverage(folder.videos_file)
    check_failures(config, folder, coverage)
    return coverage


def print_notes(listing: Listing) -> None:
    """Print what was passed over and what is doubtful in the listing."""
    for note in listing.notes:
        print(seen_from_here(f"note: {note}"))


def _is_up_to_date(folder: ShardFolder, listing: Listing) -> bool:
    return (
        folder.num_finished_shards() == count_shards(folder, listing)
        and not shards_to_make(folder, listing)
        and not len(records_to_retry(folder, listing))
    )


def bring_up_to_date(config: PrepareConfig, folder: ShardFolder, listing: Listing) -> None:
    """Make the shards that are missing, then the tables; the folder is locked."""
    folder.sweep()
    write_table(listing.records, folder.records_file, row_group_size=config.videos_per_shard)
    later = places_made_later(folder, listing)
    if not folder.dataset_file.is_file() or any(shard < folder.num_finished_shards() for shard in later):
        folder.write_description(listing.description)  # unfinished: the tables describe a lost shard
    try:
        num_videos = sum(len(positions_of(folder, listing, shard)) for shard in later)
        _make_shards(build_shard_task(config, folder, listing), later, num_videos=num_videos)
    finally:
        folder.sweep()  # of killed workers
    write_tables(folder, listing)
    folder.write_description(
        listing.description | {"num_shards": count_shards(folder, listing), "contents": folder.digest_contents()}
    )
    sheet = folder.contact_sheet_file
    with optional_picture(sheet.name):
        sheet.unlink(missing_ok=True)  # an earlier one may show other rows
        write_contact_sheet(folder, sheet, num_segments=config.contact_sheet_segments, seed=config.seed)


def build_shard_task(config: PrepareConfig, folder: ShardFolder, listing: Listing) -> ShardTask:
    """The task that makes a shard of the listing, under the limits of the config."""
    guard = config.guard
    limits = limits_of(guard)
    return ShardTask(folder, listing.root, listing.description, limits, int(guard.source_gib * 2**30))


def _check_expected(fingerprint: str, expected: str | None, *, where: Path) -> None:
    if expected is not None and not fingerprint.startswith(expected):
        raise UserError(
            f"data.fingerprint {expected} is expected, but the settings and videos of {where} have "
            f"{fingerprint[:SHOWN_DIGITS]}: give the shards with that fingerprint, or another --data.fingerprint"
        )


def check_fingerprint(folder: ShardFolder, description: dict[str, Any]) -> None:
    """Raise a UserError if the folder holds shards of other settings or videos."""
    if not folder.dataset_file.is_file():
        return
    there = folder.describe()
    if there["fingerprint"] != description["fingerprint"]:
        then, now = (known["fingerprint"][:SHOWN_DIGITS] for known in (there, description))
        changed = [name for name in description if there.get(name) != description[name] and name != "fingerprint"]
        raise UserError(
            f"{folder.root} holds shards with fingerprint {then}, but these settings and videos have {now} (changed: "
            f"{', '.join(changed)}): give another output folder, or delete this one"
        )


def _make_shards(task: ShardTask, later: dict[int, frozenset[int]], *, num_videos: int) -> None:
    """Make the shards that are the keys of `later`, without the videos at the places that are its values."""
    if not later:
        return
    session.connect()
    pools.check_decoders()
    check_shared(written=task.folder.root, read=[task.root.folder] if isinstance(task.root, LocalRoot) else [])
    shards = list(later.items())

    def make(block: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        shard, places = shards[int(block["id"][0])]
        counts, error = try_make_shard(task, shard, left_out=places)
        return {name: np.array([value]) for name, value in {**counts._asdict(), "error": error}.items()}

    done = ray.data.range(len(shards), override_num_blocks=len(shards)).map_batches(make, batch_size=1)
    done.context.execution_options.label_selector = pools.selector("decode")
    done.context.enable_progress_bars = False  # our bar counts videos, over all tasks
    # A single operator needs no reserved share; with shares 1.4 of two cores were busy (tasks of 0.4 s).
    done.context.op_resource_reservation_enabled = False
    total = ShardCounts()
    with tqdm(desc="prepare", total=num_videos, unit="video", smoothing=0.1) as bar:
        for block in done.iter_batches(batch_size=None):
            if error := next(filter(None, block.pop("error").tolist()), None):
                raise UserError(f"{error}; finished shards are kept: remove the cause and start again")
            counts = ShardCounts(**{name: int(values.sum()) for name, values in block.items()})
            total = total.plus(counts)
            bar.set_postfix_str(total.describe(), refresh=False)
            bar.update(counts.num_videos)


def check_failures(config: PrepareConfig, folder: ShardFolder, coverage: Coverage) -> None:
    """Raise a UserError if more of the found videos failed than the config allows."""
    found, failed = coverage.total.found, coverage.total.found - coverage.total.prepared
    if failed > config.max_failed_fraction * found:
        raise UserError(
            f"{failed} of {found} videos failed, more than max_failed_fraction {config.max_failed_fraction:g}; the "
            f"rest is prepared, the reasons are in {folder.failures_file}"
        )
