"""Which rows of an index train, and which validate."""

import hashlib
from collections.abc import Callable, Collection, Sequence
from typing import Any

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


def some_sources(index: ShardIndex, num_sources: int, *, fold: int, tested: Sequence[Collection[str]]) -> ShardIndex:
    """Take the rows of so many source videos, in the order of the folds that test them, from the next fold on.

    Within a fold they are ordered by name; those that no fold tests come last. So the folds together train on all
    sources equally often, as far as their number allows, and a larger number includes the sources of a smaller one.

    Args:
        index: the rows.
        num_sources: number of sources, at least 1.
        fold: number of the split list that the rows are from, from 1.
        tested: for each fold, the names of the sources that it tests.

    Raises:
        UserError: there are fewer sources.
    """

    def place(code: int) -> tuple[int, str]:
        name = str(index.source_names[code])
        folds_ahead = [ahead for ahead in range(len(tested)) if name in tested[(fold + ahead) % len(tested)]]
        return (min(folds_ahead, default=len(tested)), name)

    return _first_sources(index, num_sources, place, which=f"that fold {fold} has to train on")


def drawn_sources(index: ShardIndex, num_sources: int) -> ShardIndex:
    """Take the rows of a number of source videos.

    The choice depends on their names alone: every run takes the same ones, and more sources include fewer.

    Raises:
        UserError: there are fewer sources.
    """

    def place(code: int) -> str:
        return hashlib.sha256(str(index.source_names[code]).encode()).hexdigest()

    return _first_sources(index, num_sources, place, which="that are not held out")


def _first_sources(index: ShardIndex, num_sources: int, place: Callable[[int], Any], *, which: str) -> ShardIndex:
    """Take the rows of the first sources in the order of `place`, which is given numbers of sources."""
    codes = np.unique(index.source_N)
    if num_sources > len(codes):
        raise UserError(
            f"data.num_sources {num_sources} is more than the {len(codes)} source videos {which}: lower it, or prepare "
            "more videos"
        )
    return index.select(np.isin(index.source_N, sorted(codes, key=place)[:num_sources]))
