"""The listed videos of one shard become its rows and its report: the unit of work, and of resuming, of `prepare`.

Each video is prepared whole, or the report gives the reason why not. The contents of a shard follow from the records
and the settings alone, so a task that is run again, on any node, writes the same bytes.
"""

import errno
import functools
import os
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa

from pipelines.prepare.config import GuardConfig
from pipelines.prepare.local_copies import LocalFile
from pipelines.prepare.sources import MissingVideoError, VideoRoot
from pipelines.shards.folder import ShardFolder
from pipelines.shards.schemas import INDEXED_COLUMNS, REPORT_SCHEMA
from pipelines.shards.writing import ShardWriter, open_shard, write_table
from t3d_core.video.container import EmptyIntervalError, VideoError
from t3d_core.video.guard import DecoderKilledError, GuardedDecoder, GuardLimits
from t3d_core.video.storage import EncodedSegment


@dataclass(frozen=True)
class ShardTask:
    """What every task needs to know.

    Attributes:
        folder: where shards and reports go.
        root: where the videos lie.
        description: `dataset.json`.
        limits: what one video may cost.
        max_source_bytes: size of one source file.
    """

    folder: ShardFolder
    root: VideoRoot
    description: dict[str, Any]
    limits: GuardLimits
    max_source_bytes: int


class ShardCounts(NamedTuple):
    """What one task did: videos, those without a file, those that failed, and bytes read and written."""

    num_videos: int = 0
    num_missing: int = 0
    num_failed: int = 0
    source_bytes: int = 0
    stored_bytes: int = 0

    def plus(self, other: "ShardCounts") -> "ShardCounts":
        """The sum, field by field."""
        return ShardCounts(*(a + b for a, b in zip(self, other, strict=True)))

    def describe(self) -> str:
        """The text of the progress bar."""
        return (
            f"{self.num_missing} missing, {self.num_failed} failed, {self.source_bytes / 1e6:,.0f} MB read, "
            f"{self.stored_bytes / 1e6:,.0f} MB stored"
        )


class Outcome(NamedTuple):
    """The result for one video; `reason` is empty when it is prepared.

    A failed video is tried again once the size of its file differs from `source_bytes`. If that is 0 although the file
    was found, the next job tries it again: a machine or a network failed, not the file.
    """

    segments: list[EncodedSegment]
    source_bytes: int = 0
    is_found: bool = True
    is_decoded: bool = True
    reason: str = ""


_IN_A_LATER_SHARD = Outcome([], is_decoded=False, reason="prepared in a later shard")


def make_shard(task: ShardTask, shard: int, *, left_out: Collection[int] = ()) -> ShardCounts:
    """Encode the videos of one shard, one in memory at a time; the report is written last and marks the shard as done.

    Args:
        task: what every task needs to know.
        shard: its number.
        left_out: places of videos whose rows belong to a later shard.

    Raises:
        OSError: the disk is full, or the output cannot be written; nothing half-written is left.
    """
    reports: list[dict] = []
    num_rows = 0
    path = task.folder.shard_file(shard)
    with open_shard(path) as shard_file:
        for place, record in enumerate(task.folder.read_records(shard)):
            outcome = _IN_A_LATER_SHARD if place in left_out else prepare_video(record, task)
            shown = {"path": record["path"].decode("utf-8", "backslashreplace"), "source_bytes": outcome.source_bytes}
            _append_rows(shard_file, record | shown, outcome.segments, task.description)
            reports.append(_report_row(record | shown, outcome, shard=path.name, first_row=num_rows))
            num_rows += len(outcome.segments)
    of_shard = {"shard_bytes": shard_file.num_bytes}
    table = pa.Table.from_pylist([report | of_shard for report in reports], schema=REPORT_SCHEMA)
    write_table(table, task.folder.report_file(shard))
    return ShardCounts(
        num_videos=len(reports),
        num_missing=sum(not report["is_found"] for report in reports),
        num_failed=sum(report["is_found"] and not report["is_prepared"] for report in reports),
        source_bytes=sum(report["source_bytes"] for report in reports),
        stored_bytes=sum(report["stored_bytes"] for report in reports),
    )


def try_make_shard(task: ShardTask, shard: int, *, left_out: Collection[int]) -> tuple[ShardCounts, str]:
    """Make one shard, or return empty counts and the error: Ray Data would hide an exception behind one of its own."""
    try:
        return make_shard(task, shard, left_out=left_out), ""
    except OSError as error:
        return ShardCounts(), f"{task.folder.shard_file(shard)} cannot be made: {error}"


def prepare_video(record: dict, task: ShardTask) -> Outcome:
    """Encode one listed video, a row of `RECORD_SCHEMA`; anything wrong with it becomes the reason.

    Raises:
        OSError: this machine fails: its disk is full, or it cannot start a process.
    """
    with ExitStack() as stack:
        try:
            opened = task.root.open_locally(os.fsdecode(record["path"]), max_bytes=task.max_source_bytes)
            file = stack.enter_context(opened)
        except MissingVideoError as error:
            return Outcome([], is_found=False, is_decoded=False, reason=str(error))
        except VideoError as error:  # not tried again until the file is another one
            return Outcome([], record["listed_bytes"] or 0, is_decoded=False, reason=str(error))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):  # of the local copy of a remote file
                raise
            return Outcome([], is_decoded=False, reason=f"unreadable: {error.strerror}")
        return _encode(file, record, task)


def _encode(file: LocalFile, record: dict, task: ShardTask, *, num_tries: int = 2) -> Outcome:
    try:
        segments = _decoder(task.limits).encode_segments(file.path, **_encode_options(record, task.description))
        return Outcome(list(segments), file.num_bytes)
    except DecoderKilledError as error:
        if num_tries > 1:
            return _encode(file, record, task, num_tries=num_tries - 1)
        # Memory ran out, probably because of other processes: without a size in the report the next job tries it again.
        return Outcome([], is_decoded=False, reason=f"{error}, twice")
    except EmptyIntervalError as error:
        return Outcome([], file.num_bytes, reason=str(error))
    except ValueError as error:  # VideoError, or an interval that makes no sense
        return Outcome([], file.num_bytes, is_decoded=False, reason=str(error))


def _encode_options(record: dict, description: dict[str, Any]) -> dict[str, Any]:
    """The options of the encoder; without `max_segment_seconds` a video stays one segment."""
    options = {
        "encoding": description["encoding"],
        "short_side": description["short_side"],
        "start_seconds": record["start_seconds"],
        "end_seconds": record["end_seconds"],
    }
    if description["max_segment_seconds"] is not None:
        options["max_segment_seconds"] = description["max_segment_seconds"]
        if record["start_seconds"] is None and record["end_seconds"] is None:
            options["num_random_segments"] = description["segments_per_video"]
            options["seed"] = [description["seed"], *record["video_id"].encode("utf-8", "surrogateescape")]
    return options


def limits_of(guard: GuardConfig) -> GuardLimits:
    """What one video may cost, by the settings."""
    return GuardLimits(guard.seconds, int(guard.memory_gib * 2**30), int(guard.output_gib * 2**30))


@functools.cache
def _decoder(limits: GuardLimits) -> GuardedDecoder:
    """One child for all tasks of this process; the child ends when this process does."""
    return GuardedDecoder(limits)


def _append_rows(
    shard_file: ShardWriter, row: dict, segments: list[EncodedSegment], description: dict[str, Any]
) -> None:
    for place, segment in enumerate(segments):
        shard_file.append(
            {
                **row,
                "segment_id": f"{row['video_id']}#{place}",
                "dataset": description["dataset"],
                "fingerprint": description["fingerprint"],
                "start_frame": segment.start_frame,
                "frame_offset": segment.frame_offset,
                "num_frames": segment.num_frames,
                "fps": segment.fps,
                "height": segment.height,
                "width": segment.width,
                "encoding": segment.encoding,
                "key_distance": segment.key_distance,
                "frames": segment.data,
            }
        )


def _report_row(row: dict, outcome: Outcome, *, shard: str, first_row: int) -> dict:
    segments = outcome.segments
    return {
        **row,
        "shard": shard,
        "is_found": outcome.is_found,
        "is_decoded": outcome.is_decoded,
        "is_prepared": not outcome.reason,
        "reason": outcome.reason,
        "encoding": segments[0].encoding if segments else "",
        "num_segments": len(segments),
        "num_frames": sum(segment.num_frames for segment in segments),
        "seconds": sum(segment.num_frames / segment.fps for segment in segments),
        "stored_bytes": sum(len(segment.data) for segment in segments),
        "rows": [
            {"row": number} | {name: getattr(segment, name) for name in INDEXED_COLUMNS}
            for number, segment in enumerate(segments, start=first_row)
        ],
        "notes": _notes(segments),
    }


def _notes(segments: list[EncodedSegment]) -> list[str]:
    """What is doubtful about a video, a sentence each."""
    notes = [note for segment in segments for note in segment.notes]
    if sum(segment.num_frames for segment in segments) == 1:
        notes.append("a single frame, which training repeats")
    return list(dict.fromkeys(notes))
