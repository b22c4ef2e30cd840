import pytest

from pipelines.evaluate.job import run_evaluate
from tests.pipelines.evaluate.small_network import evaluate_config


def test_folds_and_their_weights_must_fit_together(two_folds, tmp_path):
    with pytest.raises(ValueError, match=r"checkpoint runs/mine is the same for all: write \{fold\} in place"):
        evaluate_config(two_folds, tmp_path, "runs/mine", folds=(1, 2))
    with pytest.raises(
        ValueError, match=r"checkpoint runs/a\{fold\} names one for each fold: add the folds, as in --folds 1 2 3"
    ):
        evaluate_config(two_folds, tmp_path, "runs/a{fold}")
    with pytest.raises(ValueError, match=r"folds \[1, 2, 1\] has a fold twice"):
        evaluate_config(two_folds, tmp_path, "runs/a{fold}", folds=(1, 2, 1))


def test_a_number_of_clips_is_no_setting_of_a_network_of_segments(synthetic_shards, segment_weights, tmp_path):
    with pytest.raises(ValueError, match=r"num_clips 5 is for networks that score clip by clip.* takes 2 clips"):
        run_evaluate(evaluate_config(synthetic_shards, tmp_path, segment_weights, num_clips=5))
