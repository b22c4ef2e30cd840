"""The teacher's cached targets of the training rows become keys and what whitens them, in one file of the run.

RUN/keys.safetensors     statistics of the targets, keys, and when their clips are

The statistics and the keys follow from the cached features and the seed of the held-out rows alone. The keys of more
windows than the bank holds are drawn at random.

Legend: N windows (views of rows), D width of a target, d width of a key.
"""

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

    Args:
        path: of the file.
        loader: of the training rows.
        files: the teacher's targets of all their views.
        config: of the keys.
        target: what the teacher's targets are.
        seed: of the choice of windows, where there are more than the bank holds.

    Raises:
        UserError: features are missing or damaged, or too few rows have any.
    """
    windows = _draw_windows(loader, files, config, seed=seed)
    target_ND = torch.from_numpy(windows.target_ND)
    whitening = fit_whitening(
        target_ND[:_WINDOWS_FOR_STATISTICS], num_parts=NUM_PARTS[target], dim=config.dim, power=config.whitening
    )
    index = loader.index
    span_N = [clip_span(loader.clip.num_frames, loader.stride_of(int(row))) for row in windows.rows_N]
    tensors = {name: getattr(whitening, name) for name in _STATISTICS} | {
        "key_Nd": whitening(target_ND),
        "source_N": torch.from_numpy(index.source_N[windows.rows_N].astype(np.int64)),
        "row_N": torch.from_numpy(row_ids(index, windows.rows_N)),
        "start_N": torch.from_numpy(windows.start_N),
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


def _draw_windows(loader: PairLoader, files: FeatureFiles, config: KeysConfig, *, seed: int) -> _Windows:
    """Read the windows of the rows, or of as many rows drawn at random as the bank holds, in a random order."""
    index, rng = loader.index, np.random.default_rng(seed)
    most_rows = max(1, config.bank_size // files.num_views)
    drawn = np.sort(rng.permutation(len(index))[:most_rows])
    parts = []
    for shard in np.unique(index.shard_N[drawn]).tolist():
        rows = drawn[index.shard_N[drawn] == shard]
        of_shard = files.read_shard(index.shard_paths[shard])
        for row in rows.tolist():
            found = of_shard[int(index.row_N[row])]
            if not found.reason:
                parts.append(_Windows(np.full(len(found.starts_K), row), found.starts_K, found.feature_KD))
    if sum(len(part.rows_N) for part in parts) < 2:
        raise UserError(
            f"none of {len(drawn)} training rows has features of the teacher, because none could be read: prepare the "
            "shards again"
        )
    rows_N, start_N = (np.concatenate(each) for each in ([p.rows_N for p in parts], [p.start_N for p in parts]))
    target_ND = np.concatenate([part.target_ND for part in parts])
    order = rng.permutation(len(rows_N))
    return _Windows(rows_N[order], start_N[order], target_ND[order])
