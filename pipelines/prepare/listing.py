"""A dataset section becomes the table of all listed videos, in the order in which they are cut into shards.

The root is listed once. Videos of the annotations that the root lacks stay in the table and count as missing.
The table is Arrow: half a million rows are 100 MB.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pipelines.prepare.config import (
    DatasetConfig,
    FolderDatasetConfig,
    HMDB51DatasetConfig,
    KineticsDatasetConfig,
    PrepareConfig,
    SyntheticDatasetConfig,
    UCF101DatasetConfig,
    YouTube8MDatasetConfig,
)
from pipelines.prepare.sources import LocalRoot, VideoRoot, open_root
from pipelines.runtime.paths import base_folder, input_path
from pipelines.shards.schemas import RECORD_SCHEMA
from t3d_core.datasets.folder import INDEX_NAME, path_below, read_folder
from t3d_core.datasets.hmdb51 import read_hmdb51
from t3d_core.datasets.kinetics import read_kinetics
from t3d_core.datasets.records import VideoDataset, VideoRecord
from t3d_core.datasets.splits import check_no_leak
from t3d_core.datasets.synthetic import SyntheticSettings, write_synthetic
from t3d_core.datasets.ucf101 import read_ucf101
from t3d_core.datasets.youtube8m import read_youtube8m
from t3d_core.errors import UserError

# Part of the fingerprint: raise it when the same settings give other rows.
_FORMAT = 2
_ROWS_AT_ONCE = 10_000


class Listing(NamedTuple):
    """All listed videos of a data set.

    Attributes:
        root: where the videos lie.
        records: rows of `RECORD_SCHEMA` in shard order.
        description: what `dataset.json` holds: settings, class names, fingerprint.
    """

    root: VideoRoot
    records: pa.Table
    description: dict[str, Any]

    @property
    def videos_per_shard(self) -> int:
        """Records of a shard; the last one may have fewer."""
        return self.description["videos_per_shard"]

    @property
    def num_shards(self) -> int:
        """Shards that the records fill."""
        return -(-len(self.records) // self.videos_per_shard)

    def is_found(self) -> np.ndarray:
        """(N,) bool: the record's file is there."""
        return self.records.column("listed_bytes").is_valid().to_numpy()

    def num_bytes(self) -> np.ndarray:
        """(N,) int64: size of the record's file; 0 where there is none."""
        return self.records.column("listed_bytes").fill_null(0).to_numpy()


def list_videos(config: PrepareConfig, *, output: Path) -> Listing:
    """Read the annotations and list the root.

    Args:
        config: the data set and how it is prepared.
        output: the shards' folder; synthetic videos are made there unless `config` names another folder.

    Raises:
        UserError: no root, unreadable annotations, a source video on both sides of a split, or none of the listed
            videos below the root.
    """
    root, sizes, dataset = _read(config.dataset, output)
    overlaps = check_no_leak(dataset)
    records = _shuffled_records(dataset.records, sizes=sizes, seed=config.seed)
    listing = Listing(root, records, _describe(config, dataset, records) | {"official_overlaps": list(overlaps)})
    if not listing.is_found().any():
        raise UserError(
            f"not one of the {len(records)} listed videos of {dataset.name} is below root {config.dataset.root!r} (the "
            f"first would be {os.fsdecode(records.column('path')[0].as_py())!r}): give the folder of the videos as root"
        )
    return listing


def _read(config: DatasetConfig, output: Path) -> tuple[VideoRoot, dict[str, int], VideoDataset]:
    if isinstance(config, SyntheticDatasetConfig):
        folder = base_folder() / (config.root or output / "videos")
        dataset = write_synthetic(folder, SyntheticSettings(**config.model_dump(exclude={"kind", "root"})))
        root: VideoRoot = open_root(folder)
        return root, root.list_videos(), dataset
    root = open_root(config.root)
    sizes = root.list_videos()
    return root, sizes, _read_annotated(config, root, sizes)


def _read_annotated(config: DatasetConfig, root: VideoRoot, sizes: dict[str, int]) -> VideoDataset:
    if isinstance(config, FolderDatasetConfig):
        return _read_folder(config, root, sizes)
    if isinstance(config, YouTube8MDatasetConfig):
        id_map = input_path(config.id_map) if config.id_map else None
        return read_youtube8m(input_path(config.annotations), file_names=sizes, id_map=id_map)
    options = config.model_dump(exclude={"kind", "root", "annotations"})
    if isinstance(config, KineticsDatasetConfig):
        return read_kinetics([input_path(path) for path in config.annotations], file_names=sizes, **options)
    assert isinstance(config, UCF101DatasetConfig | HMDB51DatasetConfig)
    read: Callable[..., VideoDataset] = read_ucf101 if isinstance(config, UCF101DatasetConfig) else read_hmdb51
    return read(input_path(config.annotations), file_names=sizes, **options)


def _read_folder(config: FolderDatasetConfig, root: VideoRoot, sizes: dict[str, int]) -> VideoDataset:
    options = config.model_dump(exclude={"kind", "root", "annotations"})
    annotations = input_path(config.annotations) if config.annotations else None
    if not isinstance(root, LocalRoot):
        return read_folder(sizes, name=root.name, annotations=annotations, **options)
    if annotations is None and (root.folder / INDEX_NAME).is_file():
        annotations = root.folder / INDEX_NAME
    prefix = path_below(root.folder, folder=annotations.parent) if annotations else ""
    return read_folder(sizes, name=root.name, annotations=annotations, prefix=prefix, **options)


def _shuffled_records(records: Iterable[VideoRecord], *, sizes: dict[str, int], seed: int) -> pa.Table:
    """The records in the order in which they are cut into shards: by seed, whatever order they were listed in."""
    by_id = sorted(records, key=lambda record: record.video_id)
    columns: dict[str, list] = {field.name: [getattr(r, field.name) for r in by_id] for field in fields(VideoRecord)}
    columns["path"] = [os.fsencode(record.path) for record in by_id]
    columns["listed_bytes"] = [sizes.get(record.path) for record in by_id]
    table = pa.table({name: columns[name] for name in RECORD_SCHEMA.names}, schema=RECORD_SCHEMA)
    return table.take(pa.array(np.random.default_rng(seed).permutation(len(table))))


def _describe(config: PrepareConfig, dataset: VideoDataset, records: pa.Table) -> dict[str, Any]:
    is_cut = _is_cut(config.dataset)
    settings = {
        "format": _FORMAT,
        "encoding": config.encoding,
        "dataset": dataset.name,
        "class_names": list(dataset.class_names),
        "short_side": config.short_side,
        # Neither changes a data set whose videos stay one row each.
        "max_segment_seconds": config.max_segment_seconds if is_cut else None,
        "segments_per_video": config.segments_per_video if is_cut else None,
        "is_trimmed": config.dataset.is_trimmed if isinstance(config.dataset, KineticsDatasetConfig) else None,
        "seed": config.seed,
        "videos_per_shard": config.videos_per_shard,
        # Without the layout of the files, whole or trimmed: videos that were moved are the same data set.
        "records": _digest_of_rows(records.drop_columns(["path", "listed_bytes", "start_seconds", "end_seconds"])),
    }
    return settings | {
        "fingerprint": hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest(),
        "num_folds": dataset.num_folds,
        "num_videos": len(records),
    }


def _is_cut(config: DatasetConfig) -> bool:
    """Whether videos are cut into segments; in a data set for classification every video stays one row."""
    return isinstance(config, YouTube8MDatasetConfig) or (
        isinstance(config, FolderDatasetConfig) and not config.is_labelled
    )


def _digest_of_rows(table: pa.Table) -> str:
    digest = hashlib.sha256()
    for first in range(0, len(table), _ROWS_AT_ONCE):
        digest.update(json.dumps(table.slice(first, _ROWS_AT_ONCE).to_pylist(), sort_keys=True).encode())
    return digest.hexdigest()
