from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from t3d_core.evaluation.class_report import Confusion, report_classes

NUM_CLASSES = 5
PAIRS = st.lists(st.tuples(st.integers(0, NUM_CLASSES - 1), st.integers(0, NUM_CLASSES - 1)), min_size=1, max_size=30)


def report_of(pairs):
    label_N, predicted_N = np.array(pairs).T
    return report_classes(label_N, predicted_N, num_classes=NUM_CLASSES)


@given(PAIRS)
@settings(deadline=None)
def test_each_class_has_its_share_of_right_ones_or_none(pairs):
    report = report_of(pairs)
    for k in range(NUM_CLASSES):
        own, taken = [p for label, p in pairs if label == k], [label for label, p in pairs if p == k]
        assert report.num_examples_K[k] == len(own)
        assert report.num_predicted_K[k] == len(taken)
        np.testing.assert_equal(report.recall_K[k], own.count(k) / len(own) if own else np.nan)
        np.testing.assert_equal(report.precision_K[k], taken.count(k) / len(taken) if taken else np.nan)


@given(PAIRS)
@settings(deadline=None)
def test_confusions_are_all_wrong_pairs_the_most_frequent_first(pairs):
    report = report_of(pairs)
    wrong = Counter((label, predicted) for label, predicted in pairs if label != predicted)
    expected = [Confusion(*pair, count) for pair, count in sorted(wrong.items(), key=lambda item: (-item[1], item[0]))]
    assert report.confusions() == expected
    assert report.most_confused() == {
        label: next(each for each in expected if each.label == label) for label in {label for label, _ in wrong}
    }
    assert report.confusion_KK.sum() == len(pairs)
    assert report.confusion_KK.diagonal().sum() == len(pairs) - wrong.total()


def test_a_class_without_examples_is_no_error_and_no_zero():
    report = report_of([(0, 0), (0, 1)])
    assert report.recall_K[0] == 0.5
    assert np.isnan(report.recall_K[1:]).all()
    assert report.precision_K[:2].tolist() == [1.0, 0.0]
