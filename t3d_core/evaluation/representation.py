"""Features of a frozen network and their labels go in, measures of the quality of the features come out.

Not in the paper, which judges a transfer by fine-tuning alone. Legend: N examples, D feature width.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.base import ClassifierMixin
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer

from t3d_core.errors import UserError
from t3d_core.evaluation.intervals import Interval, accuracy_interval
from t3d_core.evaluation.linear_classifier import linear_classifier

_MAX_PARTS = 10  # of cross-validation
_MAX_NEIGHBOURS = 5


class ProbeAccuracy(NamedTuple):
    """Share of the examples that simple classifiers on the features get right, in [0, 1].

    Attributes:
        linear_top1: of the logistic regression.
        knn_top1: of the neighbours.
        linear_interval: 95 % interval over groups: how far the choice of the groups that were classified may have moved
            the share. It does not cover what the classifiers learned from the other groups.
        knn_interval: the same of the neighbours.
    """

    linear_top1: float
    knn_top1: float
    linear_interval: Interval
    knn_interval: Interval


class FeatureSpread(NamedTuple):
    """How much of their space features fill.

    Attributes:
        std: standard deviation of features of unit length, the mean over dimensions, times sqrt(D): 1 where they point
            everywhere alike, 0 where they are one point (arXiv 2011.10566, 4.1).
        effective_rank: exp of the entropy of the singular values' shares, of centred features: from 1, a line, to D
            (Roy and Vetterli, 2007).
    """

    std: float
    effective_rank: float


def probe_features(
    feature_ND: npt.NDArray[np.floating], label_N: npt.NDArray[np.integer], group_N: npt.NDArray[np.integer]
) -> ProbeAccuracy:
    """Classify every example by classifiers that saw no example of its group: a logistic regression, and 5 neighbours.

    The groups are dealt to at most 10 parts, and each part is classified by what the others teach. Features are
    standardised for the first, and compared by their angle by the second.

    Args:
        feature_ND: features.
        label_N: class of each.
        group_N: source of each (a scene, a person); examples of one group are never on both sides.

    Raises:
        UserError: a class has examples of one group alone, there is one class alone, or features are not finite.
    """
    num_groups = len(np.unique(group_N))
    check_probe(label_N, group_N)
    if not np.isfinite(feature_ND).all():
        raise UserError("a probe needs finite features")

    def is_correct(classifier: ClassifierMixin) -> npt.NDArray[np.bool_]:
        parts = GroupKFold(min(_MAX_PARTS, num_groups))
        predicted_N = cross_val_predict(classifier, feature_ND, label_N, groups=group_N, cv=parts)
        return predicted_N == label_N

    neighbours = KNeighborsClassifier(min(_MAX_NEIGHBOURS, num_groups - 1))
    linear_N = is_correct(linear_classifier())
    knn_N = is_correct(make_pipeline(Normalizer(), neighbours))
    return ProbeAccuracy(
        float(linear_N.mean()),
        float(knn_N.mean()),
        accuracy_interval(linear_N, group_N),
        accuracy_interval(knn_N, group_N),
    )


def check_probe(label_N: npt.NDArray[np.integer], group_N: npt.NDArray[np.integer]) -> None:
    """Check that every class can be learned from other groups than those that it is tested on.

    Raises:
        UserError: a class has examples of one group alone, or there is one class alone.
    """
    labels = np.unique(label_N)
    if len(labels) < 2:
        raise UserError(f"a probe needs at least 2 classes, got {len(labels)}")
    lonely = [int(label) for label in labels if len(np.unique(group_N[label_N == label])) < 2]
    if lonely:
        raise UserError(f"a probe needs at least 2 sources of every class; classes {lonely[:5]} have one")


def spread_of(feature_ND: npt.NDArray[np.floating]) -> FeatureSpread:
    """Measure how much of their space features fill: a collapsed network gives one point, or a line."""
    length_N1 = np.linalg.norm(feature_ND, axis=1, keepdims=True)
    unit_ND = feature_ND / np.maximum(length_N1, 1e-12)
    std = float(unit_ND.std(axis=0).mean() * np.sqrt(feature_ND.shape[1]))
    singular = np.linalg.svd(feature_ND - feature_ND.mean(axis=0), compute_uv=False)
    share = singular[singular > 0] / max(float(singular.sum()), 1e-12)
    return FeatureSpread(std, float(np.exp(-(share * np.log(share)).sum())))
