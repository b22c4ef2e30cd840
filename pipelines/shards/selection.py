"""Which rows of an index train, and which validate."""

import hashlib

import numpy as np

from pipelines.shards.index import ShardIndex
from t3d_core.errors import UserError


def hold_out(index: ShardIndex, *, fraction: float, seed: int, at_least: int = 1) -> tuple[ShardIndex, ShardIndex]:
    """Split an index into rows to train on and rows held out, by whole source videos, at least `at_least` of them.

    Raises:
        UserError: there are too few source videos to split.
    """
    sources = np.unique(index.source_N)
    num_held = max(at_least, round(fraction * len(sources)))
    if num_held >= len(sources):
        raise UserError(
            f"data.holdout_fraction {fraction} of {len(sources)} source videos leaves none to train on: "
            "prepare more videos, or lower it"
        )
    held = np.random.default_rng(seed).permutation(sources)[:num_held]
    is_held = np.isin(index.source_N, held)
    return index.select(~is_held), index.select(is_held)


def share_of_classes(index: ShardIndex, share: float) -> ShardIndex:
    """Take a share of the rows of every class, rounded, at least one.

    The choice depends on the ids of the videos alone: every run takes the same rows, and a larger share includes them.
    """
    if share == 1:
        return index
    drawn_N = np.array([hashlib.sha256(str(video_id).encode()).hexdigest() for video_id in index.video_id_N])
    order_N = np.lexsort((index.row_N, index.shard_N, drawn_N))
    kept = []
    for label in np.unique(index.label_N):
        of_class = order_N[index.label_N[order_N] == label]
        kept.append(of_class[: max(1, round(share * len(of_class)))])
    return index.select(np.sort(np.concatenate(kept)))
