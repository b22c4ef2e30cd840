"""VideoRecords become VideoRecords with held-out sets, cut by source; a split that leaks a source is refused.

A random split of clips leaks: on UCF101 clips of one group look alike, and accuracy on such a split means nothing.
The paper uses official splits only (4.1); what they do not hold out is carved here, by whole sources.
"""

import hashlib
import heapq
import math
import warnings
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import replace

from t3d_core.datasets.records import SPLITS, VideoDataset, VideoRecord
from t3d_core.errors import UserError

_MAX_EXAMPLES = 5

# The label of every video of one source, sorted.
_Labels = tuple[str | None, ...]


def check_no_leak(dataset: VideoDataset) -> tuple[int, ...]:
    """Refuse a data set in which one source stands in two of train, val and test of one fold.

    Overlaps in the published lists cannot be refused, because nobody could then use the lists: a source in two of
    `dataset.official_splits` is counted. HMDB51 keeps a source video on one side within each class only, and one film
    gives clips of many classes.

    Returns:
        For each fold, the number of sources that stand in two of the official splits: 0 where nothing overlaps.

    Raises:
        UserError: Names up to five leaking sources, each with its fold and splits, and how many there are.
    """
    overlaps_by_fold = [_overlaps(dataset.records, fold=fold) for fold in range(1, dataset.num_folds + 1)]
    leaks = [
        f"source {source!r} in fold {fold} is in {' and '.join(sorted(splits, key=SPLITS.index))}"
        for fold, overlaps in enumerate(overlaps_by_fold, start=1)
        for source, splits in overlaps.items()
        if not splits.issubset(dataset.official_splits)
    ]
    if leaks:
        raise UserError(
            f"{dataset.name}: {len(leaks)} source(s) leak between splits: {'; '.join(leaks[:_MAX_EXAMPLES])}"
            f"{'; ...' if len(leaks) > _MAX_EXAMPLES else ''}. Keep all videos of a source in one split"
        )
    return tuple(len(overlaps) for overlaps in overlaps_by_fold)


def _overlaps(records: Iterable[VideoRecord], *, fold: int) -> dict[str, set[str]]:
    """Sources that stand in two or three of train, val and test, with these splits."""
    first_split: dict[str, str] = {}
    overlaps: dict[str, set[str]] = {}
    for record in records:
        split = record.splits[fold - 1]
        if split != "unused" and first_split.setdefault(record.source, split) != split:
            overlaps.setdefault(record.source, {first_split[record.source]}).add(split)
    return overlaps


def carve_by_source(
    records: Iterable[VideoRecord], *, fold: int, split_from: str, split_to: str, fraction: float, seed: int
) -> tuple[VideoRecord, ...]:
    """Move whole sources from one split of a fold to another.

    About `fraction` of the videos move, evenly over the classes as far as whole sources allow, at least one source
    and never the last. Which sources move follows from their names, classes and the seed, not from the records' order.
    A source that stands in a further split too (the overlaps of official lists) stays: moving a part would leak it.

    Args:
        records: The videos; their order is kept.
        fold: Official fold, from 1.
        split_from: Split that gives sources.
        split_to: Split that takes them.
        fraction: Share of the videos of `split_from` to move, between 0 and 1, both excluded.
        seed: Which sources move.

    Raises:
        UserError: `fraction` is out of range, or fewer than two sources can move.
    """
    if not 0 < fraction < 1:
        raise UserError(f"fraction must lie between 0 and 1, both excluded, got {fraction}")
    records = tuple(records)
    staying = _overlaps(records, fold=fold)
    in_split = [record for record in records if record.splits[fold - 1] == split_from]
    labels_by_source: defaultdict[str, list[str | None]] = defaultdict(list)
    for record in in_split:
        if record.source not in staying:
            labels_by_source[record.source].append(record.label)
    if len(labels_by_source) < 2:
        raise UserError(
            f"cannot carve {split_to} out of {split_from} in fold {fold}: at least 2 sources are needed, there are "
            f"{len(labels_by_source)}. Give more sources or a fraction of 0"
        )
    class_sizes = Counter(record.label for record in in_split)
    moved = _choose_sources(labels_by_source, class_sizes=class_sizes, fraction=fraction, seed=seed)
    return tuple(
        _with_split(record, fold=fold, split=split_to)
        if record.source in moved and record.splits[fold - 1] == split_from
        else record
        for record in records
    )


def carve_val(records: Iterable[VideoRecord], *, fraction: float, seed: int) -> tuple[VideoRecord, ...]:
    """Carve validation out of the official training videos of every fold, by source; test lists stay as they are.

    Args:
        records: The videos, with train and test of each official fold.
        fraction: Share of each fold's training videos, at least 0 and below 1; 0 carves nothing.
        seed: Which sources move.
    """
    check_fractions(test_fraction=0, val_fraction=fraction)
    records = tuple(records)
    if fraction > 0 and records:
        for fold in range(1, len(records[0].splits) + 1):
            records = carve_by_source(
                records, fold=fold, split_from="train", split_to="val", fraction=fraction, seed=seed
            )
    return records


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


def cross_validation(
    records: Iterable[VideoRecord],
    *,
    num_folds: int,
    val_fraction: float,
    seed: int,
    val_sources: Collection[str] = (),
) -> tuple[VideoRecord, ...]:
    """Give every video one test in `num_folds` folds, by whole sources, the classes spread as evenly as these allow.

    Splits that the videos have are not looked at.

    Args:
        records: The videos, with labels.
        num_folds: Number of folds; one for each source is leave-one-out (of one person, for example).
        val_fraction: Share of each fold's training videos that validates, at least 0 and below 1.
        seed: Which sources come together.
        val_sources: Sources that validate in every fold instead of being tested in one.

    Raises:
        UserError: There are fewer sources to test than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold  # takes a second to import, so only where it is used

    records = tuple(records)
    tested_in_turn = (record for record in records if record.source not in val_sources)
    ordered = sorted(tested_in_turn, key=lambda record: record.video_id)
    sources = [record.source for record in ordered]
    if len(set(sources)) < num_folds:
        besides = " besides those that validate" if val_sources else ""
        raise UserError(f"num_folds {num_folds} needs at least as many sources{besides}, there are {len(set(sources))}")
    folds = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
    fold_of: dict[str, int] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes with fewer videos than folds
        for fold, (_, tested) in enumerate(folds.split(ordered, [record.label for record in ordered], sources)):
            fold_of |= {sources[place]: fold for place in tested}

    def splits_of(source: str) -> tuple[str, ...]:
        if source in val_sources:
            return ("val",) * num_folds
        return tuple("test" if fold == fold_of[source] else "train" for fold in range(num_folds))

    parted = tuple(replace(record, splits=splits_of(record.source)) for record in records)
    return carve_val(parted, fraction=val_fraction, seed=seed)


def validate_on(records: Iterable[VideoRecord], sources: Collection[str]) -> tuple[VideoRecord, ...]:
    """Move sources of the one fold's training videos into its validation set.

    Raises:
        UserError: Other sources validate already, one of these is not for training, or none is left to train on.
    """
    records = tuple(records)
    moved = [record for record in records if record.source in sources]
    others = [record for record in records if record.source not in sources]
    if validating := next((record for record in others if record.splits == ("val",)), None):
        raise UserError(
            f"val_groups {sorted(sources)} are not all that validates: group {validating.source!r} has split val "
            "already: name it too, or leave val_groups out"
        )
    if kept := next((record for record in moved if record.splits[0] not in ("train", "val")), None):
        raise UserError(
            f"val_groups: group {kept.source!r} has split {kept.splits[0]} in the annotations: name groups of split "
            "train, or give no splits"
        )
    if ("train",) not in {record.splits for record in others}:
        raise UserError(f"val_groups {sorted(sources)} leave no group to train on: name fewer")
    return tuple(_with_split(record, fold=1, split="val") if record.source in sources else record for record in records)


def check_fractions(*, test_fraction: float, val_fraction: float) -> None:
    """Refuse held-out shares below 0, or that leave nothing to train on.

    Raises:
        UserError: Names both values.
    """
    if not (test_fraction >= 0 and val_fraction >= 0 and test_fraction + val_fraction < 1):
        raise UserError(
            f"test_fraction and val_fraction must be at least 0 and together below 1, got {test_fraction} and "
            f"{val_fraction}"
        )


def _choose_sources(
    labels_by_source: dict[str, list[str | None]], *, class_sizes: Counter[str | None], fraction: float, seed: int
) -> set[str]:
    """Take sources, those of the least touched classes first, until `fraction` of the videos is reached."""
    target = fraction * class_sizes.total()
    moved: set[str] = set()
    moved_by_class: Counter[str | None] = Counter()

    def share_taken(labels: _Labels) -> float:
        # "+ 1": a class with few videos comes last, so that training loses a class only when it must.
        # fsum rounds once, so the order of the records cannot change the choice.
        return math.fsum((moved_by_class[label] + 1) / class_sizes[label] for label in labels) / len(labels)

    queues = _queues_by_labels(labels_by_source, seed=seed)
    waiting = [(share_taken(labels), *queue[-1], labels) for labels, queue in queues.items()]
    heapq.heapify(waiting)
    while waiting and moved_by_class.total() < target and len(moved) < len(labels_by_source) - 1:
        share, _, source, labels = heapq.heappop(waiting)
        # Shares only grow, so a stale entry is put back and the smallest fresh one is the true minimum.
        if share_taken(labels) == share:
            queues[labels].pop()
            if not moved or _comes_nearer(target, at=moved_by_class.total(), step=len(labels)):
                moved.add(source)
                moved_by_class.update(labels)
        if queues[labels]:
            heapq.heappush(waiting, (share_taken(labels), *queues[labels][-1], labels))
    return moved


def _queues_by_labels(
    labels_by_source: dict[str, list[str | None]], *, seed: int
) -> dict[_Labels, list[tuple[bytes, str]]]:
    """Queues of sources whose videos have the same labels, and which differ only in rank; the next one is last.

    Half a million sources make a few queues, and only the heads of these are compared.
    """
    queues: defaultdict[_Labels, list[tuple[bytes, str]]] = defaultdict(list)
    for source, labels in labels_by_source.items():
        queues[tuple(sorted(labels, key=repr))].append((_rank(source, seed=seed), source))
    for queue in queues.values():
        queue.sort(reverse=True)
    return queues


def _rank(source: str, *, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{source}".encode(errors="surrogateescape")).digest()


def _comes_nearer(target: float, *, at: int, step: int) -> bool:
    return abs(at + step - target) < abs(at - target)


def _with_split(record: VideoRecord, *, fold: int, split: str) -> VideoRecord:
    return replace(record, splits=(*record.splits[: fold - 1], split, *record.splits[fold:]))
