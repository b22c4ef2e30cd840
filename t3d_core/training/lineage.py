"""The chain of trainings behind some weights, and whether one of them saw the videos of a test. Read without torch.

A step keeps a sketch of its videos, because a data set may be prepared again under another name, without labels, or
with other splits: the smallest hashes of the names of each folder (bottom-k sketch, Broder 1997). A tested video whose
hash is one of them was trained on. Tested videos that make up a share s of a folder are missed with probability
(1 - s)^1024: 0.05 % for the 3,783 of UCF101 among 513,320. Cards of older versions have 64 hashes of a whole step.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_SKETCH_SIZE = 1024  # about 11 kB of a card
_DIGITS = 10  # of a hash: 40 bits, so that of 20,000 other videos one matches a folder's by chance in 1 of 50,000 tests


@dataclass(frozen=True)
class TrainingStep:
    """One training of a chain, and the videos that it saw.

    Attributes:
        stage: `train` or `transfer`.
        datasets: names of the data sets.
        fingerprints: of the data sets as they were prepared.
        fold: the official split list.
        splits: the splits of the fold that were read.
        is_labelled: whether it learned from labels.
        run_id: the tracked run.
        holdout_seed: seed of the part held out of the split; None if nothing was held out.
        held_out: digest of the names of the held-out videos.
        sketch: the smallest hashes of the names of the videos of each folder; empty if an older version trained it.
    """

    stage: str
    datasets: tuple[str, ...]
    fold: int | None
    is_labelled: bool
    run_id: str | None = None
    fingerprints: tuple[str, ...] = ()
    splits: tuple[str, ...] = ("train",)
    holdout_seed: int | None = None
    held_out: str | None = None
    sketch: tuple[str, ...] = ()

    def describe(self) -> str:
        """Stage, data, labels and run in one line."""
        prints = [f" {fingerprint[:12]}" for fingerprint in self.fingerprints] or [""] * len(self.datasets)
        data = " + ".join(f"{name}{text}" for name, text in zip(self.datasets, prints, strict=True))
        labels = "with labels" if self.is_labelled else "without labels"
        run = f", run {self.run_id}" if self.run_id else ""
        return f"{self.stage} on {data}, fold {self.fold}, split {' '.join(self.splits)}, {labels}{run}"


@dataclass(frozen=True)
class EvaluatedVideos:
    """The videos of a test, or those on which a training is tested and validated.

    Attributes:
        datasets: names of the data sets.
        fold: the official split list.
        test_names: names of the videos that test.
        val_names: names of the videos that validate while training.
    """

    datasets: tuple[str, ...]
    fold: int
    test_names: frozenset[str]
    val_names: frozenset[str] = frozenset()

    def in_common(self, step: TrainingStep) -> list[str]:
        """Names of the data sets that a step has too."""
        return sorted(set(self.datasets) & set(step.datasets))

    def are_trained_on(self, step: TrainingStep) -> bool:
        """Whether a step learned from the labels of some of them: it had another fold, or other splits."""
        if not step.is_labelled or not self.in_common(step):
            return False
        return step.fold != self.fold or has_some(step.sketch, self.test_names | self.val_names)

    def are_seen(self, step: TrainingStep) -> bool:
        """Whether a step saw some videos of the test without labels, or videos with their names in other data."""
        if step.is_labelled and self.in_common(step):
            return False
        return (bool(self.in_common(step)) and step.fold != self.fold) or has_some(step.sketch, self.test_names)


def describe_lineage(steps: Sequence[TrainingStep]) -> str:
    """The whole chain in one line, the oldest step first."""
    return " -> ".join(f"{number}. {step.describe()}" for number, step in enumerate(steps, start=1))


def sketch_of(*folders: Iterable[str]) -> tuple[str, ...]:
    """The smallest hashes of the names of each folder, all of them sorted."""
    return tuple(sorted({each for names in folders for each in sorted(map(_hash, set(names)))[:_SKETCH_SIZE]}))


def has_some(sketch: Sequence[str], names: Iterable[str]) -> bool:
    """Whether the hash of one of these names is in the sketch."""
    return bool(sketch) and not set(sketch).isdisjoint(map(_hash, names))


def digest_of(names: Iterable[str]) -> str:
    """A short hash of a set of names."""
    return _hash("\n".join(sorted(set(names))))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
