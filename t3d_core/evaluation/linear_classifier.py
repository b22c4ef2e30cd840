"""Features of labelled examples go in, a linear classifier or its scores of other examples come out.

Paper: not in it. Probes and baselines are judged by the same classifier. Legend: N examples to learn from, M others,
D feature width, K classes.
"""

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from t3d_core.errors import UserError

_INVERSE_PENALTY = 0.1
_MAX_STEPS = 2000


def linear_classifier() -> Pipeline:
    """A logistic regression with an L2 penalty on standardised features; nothing of it is random."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=_INVERSE_PENALTY, max_iter=_MAX_STEPS))


def linear_scores(
    feature_ND: npt.NDArray[np.floating],
    label_N: npt.NDArray[np.integer],
    other_MD: npt.NDArray[np.floating],
    *,
    num_classes: int,
) -> npt.NDArray[np.float64]:
    """Fit the classifier to some examples, and score others.

    Args:
        feature_ND: features to learn from.
        label_N: class of each, in 0..K-1.
        other_MD: features to score.
        num_classes: K.

    Returns:
        Probabilities (M, K); 0 for classes without an example to learn from.

    Raises:
        UserError: there are examples of one class alone, or features are not finite.
    """
    known = np.unique(label_N)
    if len(known) < 2:
        raise UserError(f"a linear classifier needs examples of at least 2 classes, got {len(known)}")
    if not (np.isfinite(feature_ND).all() and np.isfinite(other_MD).all()):
        raise UserError("a linear classifier needs finite features")
    score_MK = np.zeros((len(other_MD), num_classes))
    if len(other_MD):
        score_MK[:, known] = linear_classifier().fit(feature_ND, label_N).predict_proba(other_MD)
    return score_MK
