"""A listing becomes a forecast of the costs: a sample of the videos is prepared for real and thrown away.

The costs of the sample (seconds on one core, bytes, shards) are scaled to all found videos. Files differ, so a larger
sample gives a better forecast; the printed interval is the standard error of the mean.
"""

import statistics
import time
from typing import NamedTuple

import numpy as np

from pipelines.prepare.listing import Listing
from pipelines.prepare.shard_task import ShardTask, prepare_video
from pipelines.runtime.text_table import format_table

_CLUSTER_CORES = (8, 64, 512)


class Total(NamedTuple):
    """A sum over all found videos, estimated from the sample, and its standard error."""

    value: float
    error: float


class PreparePlan(NamedTuple):
    """What preparing all found videos would take.

    Attributes:
        num_listed: videos in the annotations.
        num_found: of them, those whose file is there.
        num_shards: shards to make.
        num_sampled: videos that were tried.
        num_failed: of them, those that failed.
        seconds: duration of what would be stored.
        core_seconds: time of one core, reading included.
        source_bytes: bytes read.
        stored_bytes: bytes written.
        num_segments: rows written.
    """

    num_listed: int
    num_found: int
    num_shards: int
    num_sampled: int
    num_failed: int
    seconds: Total
    core_seconds: Total
    source_bytes: Total
    stored_bytes: Total
    num_segments: Total


def plan_prepare(task: ShardTask, listing: Listing, *, num_videos: int, seed: int) -> PreparePlan:
    """Prepare up to `num_videos` random found videos in memory, on one core, and scale the costs to all."""
    found = np.flatnonzero(listing.is_found())
    chosen = np.random.default_rng(seed).permutation(found)[:num_videos]
    records = listing.records.take(chosen).to_pylist()
    prepare_video(records[0], task)  # starts the decoding process
    tried = [_try(record, task) for record in records]
    totals = {
        name: _scaled([getattr(trial, name) for trial in tried], len(found))
        for name in _Trial._fields
        if name != "is_failed"
    }
    return PreparePlan(
        num_listed=len(listing.records),
        num_found=len(found),
        num_shards=listing.num_shards,
        num_sampled=len(tried),
        num_failed=sum(trial.is_failed for trial in tried),
        **totals,
    )


def format_plan(plan: PreparePlan, *, free_bytes: int) -> str:
    """The plan as lines for a person, with the hours on clusters of some sizes."""
    hours = plan.core_seconds.value / 3600
    rows = [
        ["videos", f"{plan.num_listed:,}", f"listed, {plan.num_found:,} found"],
        ["shards", f"{plan.num_shards:,}", ""],
        _row("rows", plan.num_segments, 1, ""),
        _row("video", plan.seconds, 3600, "hours"),
        _row("bytes in", plan.source_bytes, 1e9, "GB"),
        _row("bytes out", plan.stored_bytes, 1e9, f"GB ({free_bytes / 1e9:,.1f} GB are free there)"),
        _row("work", plan.core_seconds, 3600, "core-hours, if all cores are as fast as this one; by number of cores:"),
        *(["", str(cores), f"cores: {hours / _busy(cores, plan):,.4f} hours"] for cores in _CLUSTER_CORES),
    ]
    tried = (
        f"dry run: {plan.num_sampled} of {plan.num_found:,} found videos prepared in memory, {plan.num_failed} of them "
        "failed; no shard was written"
    )
    return "\n".join([tried, *format_table(None, rows, align="<><")])


class _Trial(NamedTuple):
    """One video; `PreparePlan` describes the fields."""

    is_failed: bool
    seconds: float
    core_seconds: float
    source_bytes: int
    stored_bytes: int
    num_segments: int


def _try(record: dict, task: ShardTask) -> _Trial:
    start = time.perf_counter()
    outcome = prepare_video(record, task)
    return _Trial(
        is_failed=bool(outcome.reason),
        seconds=sum(segment.num_frames / segment.fps for segment in outcome.segments),
        core_seconds=time.perf_counter() - start,
        source_bytes=outcome.source_bytes,
        stored_bytes=sum(len(segment.data) for segment in outcome.segments),
        num_segments=len(outcome.segments),
    )


def _scaled(values: list[float] | list[int], num_videos: int) -> Total:
    """The sum over `num_videos`, estimated from the sample `values`."""
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return Total(statistics.fmean(values) * num_videos, error * num_videos)


def _row(name: str, total: Total, scale: float, unit: str) -> list[str]:
    return [name, f"{total.value / scale:,.3f}", f"+- {total.error / scale:,.3f} {unit}"]


def _busy(cores: int, plan: PreparePlan) -> int:
    """Cores that have work: one core makes a shard."""
    return min(cores, plan.num_shards)
