"""Videos and their annotations become shards, on Ray Data: each task makes one shard, whole or not at all.

Which videos a shard holds follows from the records, the settings and the seed, so preparing again makes only what is
missing or what failed on a file that has changed since, and two runs give the same rows. Every listed video ends as
rows of a shard or as a row of `failures.parquet`.
"""

import hashlib
import json
import os
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
from tqdm import tqdm

from pipelines import session
from pipelines.configs import DataConfig, DatasetConfig, PrepareConfig, SyntheticDatasetConfig
from pipelines.recipe import JobError
from pipelines.shards import RECORD_SCHEMA, REPORT_SCHEMA, ShardFolder, open_shard, whole_file, write_table
from t3d_core.datasets.folder import read_folder
from t3d_core.datasets.records import VideoDataset
from t3d_core.datasets.splits import check_no_leak
from t3d_core.datasets.synthetic import SyntheticSettings, write_synthetic
from t3d_core.video.decoding import VideoError
from t3d_core.video.storage import EncodedSegment, encode_segments

# Part of the fingerprint: raise it when the same settings come to mean other rows.
_FORMAT = 1
_ENCODING = "h264"


class PreparedCounts(NamedTuple):
    """Listed videos, those that failed, and stored segments."""

    num_videos: int
    num_failed: int
    num_segments: int


def run_prepare(config: PrepareConfig) -> str:
    """Prepare the data set of `config`; give the closing summary.

    Raises:
        ValueError: settings or annotations that cannot work, before any work.
        JobError: more videos failed than `max_failed_fraction` allows; everything was written.
    """
    if config.output is None:
        raise ValueError("output is missing: name the folder for the shards with --output FOLDER")
    output = session.base_folder() / config.output
    counts = prepare(config, output)
    job = "train" if ShardFolder(output).describe()["class_names"] else "transfer"
    listing = f"{counts.num_videos - counts.num_failed} of {counts.num_videos} videos prepared"
    return "\n".join(
        [
            f"shards:   {output / 'shards'}",
            f"next:     python jobs/{job}.py --data.shards {shlex.quote(str(output))}",
            f"{listing}, {counts.num_failed} failed (reasons in {output / 'failures.parquet'}), "
            f"{counts.num_segments} rows",
        ]
    )


def prepared_shards(data: DataConfig, *, storage: Path) -> list[Path]:
    """Give the absolute folders that `data` names; or prepare those that it describes under `storage`.

    Raises:
        ValueError: neither is given, or as `prepare`.
    """
    if data.shards:
        return [session.input_path(path) for path in data.shards]
    if data.prepare is None:
        raise ValueError("data.shards is missing: give --data.shards FOLDER, one that jobs/prepare.py wrote")
    output = storage / (data.prepare.output or Path("data") / data.prepare.dataset.kind)
    prepare(data.prepare, output)
    return [output]


def prepare(config: PrepareConfig, output: Path) -> PreparedCounts:
    """Make the shards of `config` that are missing in `output`.

    Raises:
        ValueError: unreadable annotations, a source video on both sides of a split, shards made with other settings.
        JobError: more videos failed than `max_failed_fraction` allows; everything was written.
    """
    folder = ShardFolder(output)
    root = _videos_root(config.dataset, output)
    dataset = _read_dataset(config.dataset, root)
    check_no_leak(dataset)
    records = _shuffled_records(dataset, seed=config.seed)
    num_shards = -(-len(records) // config.videos_per_shard)
    description = _describe(config, dataset, records, num_shards=num_shards)
    _open_output(folder, description)
    folder.sweep()
    write_table(records, folder.records_file, row_group_size=config.videos_per_shard)
    _make_missing_shards(folder, root, description, num_shards=num_shards)
    return _write_tables(folder, num_shards=num_shards, max_failed_fraction=config.max_failed_fraction)


def _videos_root(config: DatasetConfig, output: Path) -> Path:
    if isinstance(config, SyntheticDatasetConfig):
        return session.base_folder() / (config.root or output / "videos")
    return session.input_path(config.root)


def _read_dataset(config: DatasetConfig, root: Path) -> VideoDataset:
    if isinstance(config, SyntheticDatasetConfig):
        settings = config.model_dump(exclude={"kind", "root"})
        return write_synthetic(root, SyntheticSettings(**settings))
    return read_folder(
        root,
        annotations=session.input_path(config.annotations) if config.annotations else None,
        **config.model_dump(exclude={"kind", "root", "annotations"}),
    )


def _shuffled_records(dataset: VideoDataset, *, seed: int) -> pa.Table:
    """All records in the order in which they are cut into shards: by seed, whatever order they were listed in."""
    by_id = sorted(dataset.records, key=lambda record: record.video_id)
    order = np.random.default_rng(seed).permutation(len(by_id))
    rows = [asdict(by_id[place]) | {"path": os.fsencode(by_id[place].path)} for place in order]
    return pa.Table.from_pylist(rows, schema=RECORD_SCHEMA)


def _describe(config: PrepareConfig, dataset: VideoDataset, records: pa.Table, *, num_shards: int) -> dict[str, Any]:
    settings = {
        "format": _FORMAT,
        "encoding": _ENCODING,
        "dataset": dataset.name,
        "class_names": list(dataset.class_names),
        "short_side": config.short_side,
        "max_segment_seconds": config.max_segment_seconds,
        "videos_per_shard": config.videos_per_shard,
        # Without paths: videos that moved are the same data set.
        "records": _digest(records.drop_columns("path").to_pylist()),
    }
    return settings | {"fingerprint": _digest(settings), "num_folds": dataset.num_folds, "num_shards": num_shards}


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _open_output(folder: ShardFolder, description: dict[str, Any]) -> None:
    if folder.dataset_file.is_file():
        there = folder.describe()
        if there["fingerprint"] != description["fingerprint"]:
            changed = [name for name in description if there.get(name) != description[name] and name != "fingerprint"]
            raise ValueError(
                f"{folder.root} holds shards with fingerprint {there['fingerprint'][:12]}, but these settings and "
                f"videos have {description['fingerprint'][:12]} (changed: {', '.join(changed)}): give another output "
                "folder, or delete this one"
            )
        return
    with whole_file(folder.dataset_file) as partial:
        partial.write_text(json.dumps(description, indent=1))


def _make_missing_shards(folder: ShardFolder, root: Path, description: dict[str, Any], *, num_shards: int) -> None:
    records = pq.ParquetFile(folder.records_file)
    missing = [
        shard
        for shard in range(num_shards)
        if not folder.is_made(shard) or _has_repaired_video(folder.report_file(shard), records, shard, root)
    ]
    if not missing:
        return
    session.connect()

    def make(block: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        _make_shard(folder, int(block["item"][0]), root, description)
        return block

    shards = ray.data.from_items(missing, override_num_blocks=len(missing)).map_batches(make, batch_size=1)
    shards.context.enable_progress_bars = False  # ours counts shards, over all tasks
    for _ in tqdm(shards.iter_batches(batch_size=None), desc="prepare", total=len(missing), unit="shard"):
        pass


def _has_repaired_video(report: Path, records: pq.ParquetFile, shard: int, root: Path) -> bool:
    """Whether a video that failed has since come, or has another size (an empty or absent file fails as before)."""
    reported = pq.read_table(report, columns=["is_prepared", "source_bytes"]).to_pylist()
    if all(row["is_prepared"] for row in reported):
        return False
    paths = records.read_row_group(shard, columns=["path"]).column("path").to_pylist()
    return any(
        not row["is_prepared"] and _source_bytes(os.fsdecode(path), root) not in (0, row["source_bytes"])
        for row, path in zip(reported, paths, strict=True)
    )


def _make_shard(folder: ShardFolder, shard: int, root: Path, description: dict[str, Any]) -> None:
    """Encode the videos of one shard, one in memory at a time; the report comes last and stands for the whole."""
    reports: list[dict] = []
    with open_shard(folder.shard_file(shard)) as append:
        for record in pq.ParquetFile(folder.records_file).read_row_group(shard).to_pylist():
            path = os.fsdecode(record["path"])
            shown = record["path"].decode("utf-8", "backslashreplace")
            row = record | {"path": shown, "source_bytes": _source_bytes(path, root)}
            segments, reason = _encode(path, root, record, description)
            for place, segment in enumerate(segments):
                append(_shard_row(row, segment, place, description))
            reports.append(_report_row(row, segments, shard=folder.shard_file(shard).name, reason=reason))
    write_table(pa.Table.from_pylist(reports, schema=REPORT_SCHEMA), folder.report_file(shard))


def _source_bytes(path: str, root: Path) -> int:
    """Size of a listed file; 0 where there is none that may be read."""
    try:
        return os.path.getsize(path) if _is_below(root, path) else 0
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return 0


def _is_below(root: Path, path: str) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def _encode(path: str, root: Path, record: dict, description: dict[str, Any]) -> tuple[list[EncodedSegment], str]:
    """Give the segments of a video and no reason; or none, and the reason why."""
    try:
        if not _is_below(root, path):
            # A downloaded data set must not have us read, and store, other files of this machine.
            return [], f"leads out of {str(root)!r}, to {os.path.realpath(path)!r}"
        segments = encode_segments(
            path,
            encoding="h264",  # rows have no place for the offset of a copy yet
            short_side=description["short_side"],
            start_seconds=record["start_seconds"],
            end_seconds=record["end_seconds"],
            max_segment_seconds=None if record["label"] else description["max_segment_seconds"],
        )
        return list(segments), ""
    except VideoError as error:
        return [], str(error)
    except Exception as error:  # whatever one file does to the decoder, the others are prepared
        return [], repr(error)


def _shard_row(row: dict, segment: EncodedSegment, place: int, description: dict[str, Any]) -> dict:
    return {
        **row,
        "segment_id": f"{row['video_id']}#{place}",
        "dataset": description["dataset"],
        "fingerprint": description["fingerprint"],
        "start_frame": segment.start_frame,
        "num_frames": segment.num_frames,
        "fps": segment.fps,
        "height": segment.height,
        "width": segment.width,
        "encoding": _ENCODING,
        "frames": segment.data,
    }


def _report_row(row: dict, segments: list[EncodedSegment], *, shard: str, reason: str) -> dict:
    return {
        **row,
        "shard": shard,
        "is_prepared": not reason,
        "reason": reason,
        "num_segments": len(segments),
        "num_frames": sum(segment.num_frames for segment in segments),
        "stored_bytes": sum(len(segment.data) for segment in segments),
    }


def _write_tables(folder: ShardFolder, *, num_shards: int, max_failed_fraction: float) -> PreparedCounts:
    videos = pa.concat_tables(pq.read_table(folder.report_file(shard)) for shard in range(num_shards))
    failures = videos.filter(pc.invert(videos.column("is_prepared"))).select(["video_id", "path", "reason"])
    write_table(videos, folder.videos_file)
    write_table(failures, folder.failures_file)
    counts = PreparedCounts(len(videos), len(failures), pc.sum(videos.column("num_segments")).as_py())
    if counts.num_failed > max_failed_fraction * counts.num_videos:
        raise JobError(
            f"{counts.num_failed} of {counts.num_videos} videos failed, more than max_failed_fraction "
            f"{max_failed_fraction:g}; the rest is prepared, the reasons are in {folder.failures_file}"
        )
    return counts
