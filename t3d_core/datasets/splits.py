"""VideoRecords become VideoRecords with held-out sets, cut by source; a split that leaks a source is refused.

A random split of clips leaks: on UCF101 clips of one group look alike, and accuracy on such a split says nothing.
The paper uses official splits only (4.1); what they do not hold out is carved here, by whole sources.
"""

import hashlib
import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace

from t3d_core.datasets.records import SPLITS, VideoDataset, VideoRecord

_MAX_EXAMPLES = 5


def check_no_leak(dataset: VideoDataset) -> None:
    """Refuse a data set in which one source stands in two of train, val and test of one fold.

    Raises:
        ValueError: Names up to five leaking sources, each with its fold and splits, and how many there are.
    """
    splits_by_source: defaultdict[tuple[str, int], set[str]] = defaultdict(set)
    for record in dataset.records:
        for fold, split in enumerate(record.splits, start=1):
            if split != "unused":
                splits_by_source[record.source, fold].add(split)
    leaks = [
        f"source {source!r} in fold {fold} stands in {' and '.join(sorted(splits, key=SPLITS.index))}"
        for (source, fold), splits in splits_by_source.items()
        if len(splits) > 1
    ]
    if leaks:
        raise ValueError(
            f"{dataset.name}: {len(leaks)} source(s) leak between splits: {'; '.join(leaks[:_MAX_EXAMPLES])}"
            f"{'; ...' if len(leaks) > _MAX_EXAMPLES else ''}. Keep all videos of a source in one split"
        )


def carve_by_source(
    records: Iterable[VideoRecord], *, fold: int, split_from: str, split_to: str, fraction: float, seed: int
) -> tuple[VideoRecord, ...]:
    """Move whole sources from one split of a fold to another.

    About `fraction` of the videos move, evenly over the classes as far as whole sources allow, at least one source
    and never the last. Which sources move follows from their names, classes and the seed, not from the records' order.

    Args:
        records: The videos; their order is kept.
        fold: Official fold, from 1.
        split_from: Split that gives sources.
        split_to: Split that takes them.
        fraction: Share of the videos of `split_from` to move, between 0 and 1, both excluded.
        seed: Which sources move.

    Raises:
        ValueError: `fraction` is out of range, or `split_from` holds fewer than two sources.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must lie between 0 and 1, both excluded, got {fraction}")
    records = tuple(records)
    labels_by_source: defaultdict[str, list[str | None]] = defaultdict(list)
    for record in records:
        if record.splits[fold - 1] == split_from:
            labels_by_source[record.source].append(record.label)
    if len(labels_by_source) < 2:
        raise ValueError(
            f"cannot carve {split_to} out of {split_from} in fold {fold}: it takes 2 sources, there are "
            f"{len(labels_by_source)}. Give more sources or a fraction of 0"
        )
    moved = _choose_sources(labels_by_source, fraction=fraction, seed=seed)
    return tuple(
        _with_split(record, fold=fold, split=split_to)
        if record.source in moved and record.splits[fold - 1] == split_from
        else record
        for record in records
    )


def carve_test_and_val(
    records: Iterable[VideoRecord], *, test_fraction: float, val_fraction: float, seed: int
) -> tuple[VideoRecord, ...]:
    """Carve test, then val, out of the training videos of fold 1, by source.

    Both fractions are shares of all training videos given; 0 carves nothing.
    """
    records = tuple(records)
    check_fractions(test_fraction=test_fraction, val_fraction=val_fraction)
    if test_fraction > 0:
        records = carve_by_source(
            records, fold=1, split_from="train", split_to="test", fraction=test_fraction, seed=seed
        )
    if val_fraction > 0:
        share_of_rest = val_fraction / (1 - test_fraction)
        records = carve_by_source(
            records, fold=1, split_from="train", split_to="val", fraction=share_of_rest, seed=seed
        )
    return records


def check_fractions(*, test_fraction: float, val_fraction: float) -> None:
    """Refuse held-out shares below 0, or that leave nothing to train on.

    Raises:
        ValueError: Names both values.
    """
    if not (test_fraction >= 0 and val_fraction >= 0 and test_fraction + val_fraction < 1):
        raise ValueError(
            f"test_fraction and val_fraction must be at least 0 and together below 1, got {test_fraction} and "
            f"{val_fraction}"
        )


def _choose_sources(labels_by_source: dict[str, list[str | None]], *, fraction: float, seed: int) -> set[str]:
    """Take sources, those of the least touched classes first, until `fraction` of the videos is reached."""
    class_sizes = Counter(label for labels in labels_by_source.values() for label in labels)
    target = fraction * class_sizes.total()
    moved: set[str] = set()
    moved_by_class: Counter[str | None] = Counter()

    def share_taken(source: str) -> float:
        # "+ 1": a class with few videos comes last, so that training loses a class only when it must.
        labels = labels_by_source[source]
        # fsum rounds once, so the order of the records cannot change the choice.
        return math.fsum((moved_by_class[label] + 1) / class_sizes[label] for label in labels) / len(labels)

    waiting = [(share_taken(source), _rank(source, seed=seed), source) for source in labels_by_source]
    heapq.heapify(waiting)
    while waiting and moved_by_class.total() < target and len(moved) < len(labels_by_source) - 1:
        share, rank, source = heapq.heappop(waiting)
        # Shares only grow, so a stale entry is put back and the smallest fresh one is the true minimum.
        if share_taken(source) > share:
            heapq.heappush(waiting, (share_taken(source), rank, source))
        elif not moved or _comes_nearer(target, at=moved_by_class.total(), step=len(labels_by_source[source])):
            moved.add(source)
            moved_by_class.update(labels_by_source[source])
    return moved


def _rank(source: str, *, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{source}".encode(errors="surrogateescape")).digest()


def _comes_nearer(target: float, *, at: int, step: int) -> bool:
    return abs(at + step - target) < abs(at - target)


def _with_split(record: VideoRecord, *, fold: int, split: str) -> VideoRecord:
    return replace(record, splits=(*record.splits[: fold - 1], split, *record.splits[fold:]))
