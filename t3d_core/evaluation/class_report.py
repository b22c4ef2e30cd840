"""Labels and predictions become a report on each class, and the matrix of what was taken for what.

Legend: N examples, K classes.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support


class Confusion(NamedTuple):
    """So many examples of class `label` were taken for class `predicted`."""

    label: int
    predicted: int
    num_examples: int


@dataclass(frozen=True)
class ClassReport:
    """What became of each class; shares in [0, 1], NaN where there is nothing to take a share of.

    Attributes:
        confusion_KK: examples by [label, prediction].
        num_examples_K: examples of the class (scikit-learn's support).
        num_predicted_K: examples of all classes that were taken for it.
        recall_K: correct ones / examples of the class: its top-1 accuracy.
        precision_K: correct ones / examples that were taken for it.
    """

    confusion_KK: np.ndarray
    num_examples_K: np.ndarray
    num_predicted_K: np.ndarray
    recall_K: np.ndarray
    precision_K: np.ndarray

    def confusions(self) -> list[Confusion]:
        """All that was taken for something else, the most frequent first; equally frequent ones in order of class."""
        wrong_KK = self.confusion_KK - np.diag(self.confusion_KK.diagonal())
        labels, predictions = np.nonzero(wrong_KK)
        found = [Confusion(int(a), int(b), int(wrong_KK[a, b])) for a, b in zip(labels, predictions, strict=True)]
        return sorted(found, key=lambda confusion: -confusion.num_examples)

    def most_confused(self) -> dict[int, Confusion]:
        """The most frequent confusion of every class that has one."""
        return {confusion.label: confusion for confusion in reversed(self.confusions())}


def report_classes(label_N: np.ndarray, predicted_N: np.ndarray, *, num_classes: int) -> ClassReport:
    """Compare the classes of examples with what they were taken for; both are integers below `num_classes`."""
    classes = np.arange(num_classes)
    confusion_KK = confusion_matrix(label_N, predicted_N, labels=classes)
    precision_K, recall_K, _, num_examples_K = precision_recall_fscore_support(
        label_N, predicted_N, labels=classes, zero_division=np.nan
    )
    return ClassReport(confusion_KK, num_examples_K, confusion_KK.sum(axis=0), recall_K, precision_K)
