"""A dataset section becomes the table of all listed videos, in the order in which they are cut into shards.

The root is listed once. Videos of the annotations that the root lacks stay in the table and count as missing.
The table is Arrow: half a million rows are 100 MB.
"""

import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterable, Sequence
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
from pipelines.prepare.found_files import FoundFiles
from pipelines.prepare.sources import LocalRoot, VideoRoot, open_root
from pipelines.runtime.paths import base_folder, input_path
from pipelines.shards.schemas import RECORD_SCHEMA
from t3d_core.datasets.folder import INDEX_NAME, read_folder
from t3d_core.datasets.hmdb51 import read_hmdb51
from t3d_core.datasets.kinetics import read_kinetics
from t3d_core.datasets.missing_videos import and_more, describe_none_found, notes_on_missing
from t3d_core.datasets.records import VideoDataset, VideoRecord
from t3d_core.datasets.splits import check_no_leak
from t3d_core.datasets.synthetic import SyntheticSettings, write_synthetic
from t3d_core.datasets.ucf101 import read_ucf101
from t3d_core.datasets.unicode_form import printable
from t3d_core.datasets.video_files import VIDEO_EXTENSIONS, find_twins, is_video_name
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
        notes: what was passed over and what is doubtful, a line each.
    """

    root: VideoRoot
    records: pa.Table
    description: dict[str, Any]
    notes: tuple[str, ...] = ()

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
    root, found, dataset = _read(config.dataset, output)
    overlaps = check_no_leak(dataset)
    records = _shuffled_records(dataset.records, sizes=found.sizes, seed=config.seed)
    description = _describe(config, dataset, records) | {"official_overlaps": list(overlaps)}
    listing = Listing(root, records, description, _notes(config.dataset, root, found, dataset))
    if not listing.is_found().any():
        missing = _missing(dataset, found)
        raise UserError(
            describe_none_found(
                missing,
                num_listed=len(records),
                name=dataset.name,
                root=str(config.dataset.root),
                first=f"'{printable(dataset.records[0].path)}'",
                file_names=found.sizes,
                holds=found.describe(),
            )
        )
    return listing


def _read(config: DatasetConfig, output: Path) -> tuple[VideoRoot, FoundFiles, VideoDataset]:
    if isinstance(config, SyntheticDatasetConfig):
        folder = base_folder() / (config.root or output / "videos")
        dataset = write_synthetic(folder, SyntheticSettings(**config.model_dump(exclude={"kind", "root"})))
        root: VideoRoot = open_root(folder)
        return root, root.list_files(), dataset
    root = open_root(config.root)
    found = root.list_files()
    return root, found, _read_annotated(config, root, found)


def _read_annotated(config: DatasetConfig, root: VideoRoot, found: FoundFiles) -> VideoDataset:
    if isinstance(config, FolderDatasetConfig):
        return _read_folder(config, root, found)
    if isinstance(config, YouTube8MDatasetConfig):
        id_map = input_path(config.id_map) if config.id_map else None
        return read_youtube8m(input_path(config.annotations), file_names=found.sizes, id_map=id_map)
    options = config.model_dump(exclude={"kind", "root", "annotations"})
    if isinstance(config, KineticsDatasetConfig):
        return read_kinetics([input_path(path) for path in config.annotations], file_names=found.sizes, **options)
    assert isinstance(config, UCF101DatasetConfig | HMDB51DatasetConfig)
    read: Callable[..., VideoDataset] = read_ucf101 if isinstance(config, UCF101DatasetConfig) else read_hmdb51
    return read(input_path(config.annotations), file_names=found.sizes, **options)


def _read_folder(config: FolderDatasetConfig, root: VideoRoot, found: FoundFiles) -> VideoDataset:
    options = config.model_dump(exclude={"kind", "root", "annotations"})
    annotations = _csv_of(config, root)
    if annotations is None and not any(map(is_video_name, found.sizes)):
        raise UserError(
            f"no videos found in root {config.root!r}, which holds {found.describe()}: looked for {INDEX_NAME} and for "
            f"files that end in {', '.join(VIDEO_EXTENSIONS)}"
        )
    late: dict[str, int] = {}

    def look_up(names: Collection[str]) -> Collection[str]:
        sizes = root.sizes_of(names)
        late.update(sizes)
        return sizes

    dataset = read_folder(
        found.sizes, name=root.name, annotations=annotations, root=root.address, look_up=look_up, **options
    )
    found.sizes.update(late)
    return dataset


def _csv_of(config: FolderDatasetConfig, root: VideoRoot) -> Path | None:
    if config.annotations:
        return input_path(config.annotations)
    if isinstance(root, LocalRoot) and (root.folder / INDEX_NAME).is_file():
        return root.folder / INDEX_NAME
    return None


def _notes(config: DatasetConfig, root: VideoRoot, found: FoundFiles, dataset: VideoDataset) -> tuple[str, ...]:
    """Notes on what was passed over; of a CSV nothing is, because what it names is looked for by name."""
    notes = dataset.notes + _note_on_labels(dataset.class_names)
    if not isinstance(config, FolderDatasetConfig):
        return found.note_of_left_behind() + notes
    if _csv_of(config, root) is None:
        return found.note_of_left_behind() + found.notes_by_extension() + _note_of_twins(dataset) + notes
    missing = _missing(dataset, found)
    return notes_on_missing(missing, file_names=found.sizes.keys() - {r.path for r in dataset.records}) + notes


def _missing(dataset: VideoDataset, found: FoundFiles) -> list[str]:
    """The paths without a file, in the list's order."""
    return [record.path for record in dataset.records if record.path not in found.sizes]


def _note_of_twins(dataset: VideoDataset) -> tuple[str, ...]:
    """The note on files of one name, such as a clip and its preview: held out or not, each would leak the other."""
    twins = find_twins(record.path for record in dataset.records)
    return tuple(
        f"{one!r} and {other!r} are two videos{and_more(twins)}: delete one if it is a copy" for one, other in twins[:1]
    )


def _note_on_labels(class_names: Sequence[str]) -> tuple[str, ...]:
    """The note on classes whose names differ in letter case, blanks and underscores only."""
    first: dict[str, str] = {}
    names = [
        (first.setdefault(" ".join(name.casefold().replace("_", " ").split()), name), name) for name in class_names
    ]
    pairs = [(one, other) for one, other in names if one != other]
    return tuple(
        f"classes {one!r} and {other!r} are two, although they differ in case or blanks only{and_more(pairs)}"
        for one, other in pairs[:1]
    )


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
