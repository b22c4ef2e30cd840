"""The teacher's cached targets of the training rows become keys and what whitens them, in one file of the run.

RUN/keys.safetensors     statistics of the targets, keys, and when their clips are

The statistics and the keys follow from the cached features and the seed of the held-out rows alone. The keys of more
windows than the bank holds are drawn at random.

Legend: N windows (views of rows), D width of a target, d width of a key.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file

from pipelines.runtime.files import whole_file
from pipelines.transfer.config import KeysConfig
from pipelines.transfer.pair_loader import PairLoader, row_ids
from pipelines.transfer.teacher_features import FeatureFiles
from t3d_core.errors import UserError
from t3d_core.training.correspondence_task import Keys
from t3d_core.transfer.frame_targets import NUM_PARTS, TargetKind
from t3d_core.transfer.key_bank import KeyBank, Moments
from t3d_core.transfer.whitening import Whitening, fit_whitening
from t3d_core.video.clip_sampling import clip_span

_WINDOWS_FOR_STATISTICS = 20_000
_STATISTICS = ("mean_D", "std_D", "basis_PDd")


class _Windows(NamedTuple):
    """Views of rows: which row of the index, the first frame, and the teacher's target."""

    rows_N: npt.NDArray[np.int64]
    start_N: npt.NDArray[np.int64]
    target_ND: npt.NDArray[np.float32]


def write_keys(
    path: Path, loader: PairLoader, files: FeatureFiles, config: KeysConfig, *, target: TargetKind, seed: int
) -> None:
    """Make the keys of the loader's rows and write them; the file is complete or absent.

    Targets are read shard by shard, because those of all rows would fill the memory.

    Args:
        path: of the file.
        loader: of the training rows.
        files: the teacher's targets of all their views.
        config: of the keys.
        target: what the teacher's targets are.
        seed: of the choice of rows, where they have more windows than the bank holds.

    Raises:
        UserError: features are damaged, or too few rows have any.
    """
    index = loader.index
    drawn = np.random.default_rng(seed).permutation(len(index))
    of_statistics = drawn[: max(2, _WINDOWS_FOR_STATISTICS // files.num_views)]
    parts = [windows.target_ND for windows in _windows_of(loader, files, of_statistics)]
    if sum(map(len, parts)) < 2:
        raise UserError(
            f"none of {len(of_statistics)} training rows has features of the teacher, because none could be read: "
            "prepare the shards again"
        )
    target_ND = torch.from_numpy(np.concatenate(parts))
    whitening = fit_whitening(target_ND, num_parts=NUM_PARTS[target], dim=config.dim, power=config.whitening)
    of_bank = drawn[: max(1, config.bank_size // files.num_views)]
    found = [
        (windows.rows_N, windows.start_N, whitening(torch.from_numpy(windows.target_ND)))
        for windows in _windows_of(loader, files, of_bank)
    ]
    rows_N, start_N = (np.concatenate([each[place] for each in found]) for place in (0, 1))
    span_N = [clip_span(loader.clip.num_frames, loader.stride_of(int(row))) for row in rows_N]
    tensors = {name: getattr(whitening, name) for name in _STATISTICS} | {
        "key_Nd": torch.cat([key_Nd for _, _, key_Nd in found]),
        "source_N": torch.from_numpy(index.source_N[rows_N].astype(np.int64)),
        "row_N": torch.from_numpy(row_ids(index, rows_N)),
        "start_N": torch.from_numpy(start_N),
        "span_N": torch.tensor(span_N, dtype=torch.int64),
    }
    with whole_file(path) as partial:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial)


def load_keys(path: Path, *, temperature: float) -> Keys:
    """Read what `write_keys` wrote; comparisons divide likenesses by `temperature`."""
    tensors = load_file(path)
    whitening = Whitening(*(tensors[name] for name in _STATISTICS))
    moments = Moments(*(tensors[name] for name in Moments._fields))
    return Keys(whitening, KeyBank(tensors["key_Nd"], moments, tensors["span_N"], temperature=temperature))


def _windows_of(loader: PairLoader, files: FeatureFiles, rows: npt.NDArray[np.integer]) -> Iterator[_Windows]:
    """Read the windows of rows, shard by shard; rows without features are left out."""
    index = loader.index
    for shard in np.unique(index.shard_N[rows]).tolist():
        of_shard = files.read_shard(index.shard_paths[shard])
        if not of_shard:
            continue
        found = [(int(row), of_shard[int(index.row_N[row])]) for row in np.sort(rows[index.shard_N[rows] == shard])]
        readable = [(row, features) for row, features in found if not features.reason]
        if readable:
            yield _Windows(
                np.concatenate([np.full(len(features.starts_K), row) for row, features in readable]),
                np.concatenate([features.starts_K for _, features in readable]),
                np.concatenate([features.feature_KD for _, features in readable]),
            )
