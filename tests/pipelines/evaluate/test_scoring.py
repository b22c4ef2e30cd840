import numpy as np
import pytest
import torch
from ray.data._internal.logical.optimizers import get_execution_plan

from pipelines.evaluate.job import run_evaluate
from pipelines.evaluate.scoring import Scorer, _refuse, _scored_by_actors
from pipelines.networks.config import ScoringComputeConfig
from t3d_core.training.checkpoint import load_model, save_weights
from tests.pipelines.evaluate.small_network import evaluate_config, network_input, plan_of, scores_of


def test_a_score_is_the_softmax_of_the_network(synthetic_shards, weights):
    plan = plan_of(synthetic_shards, weights, num_crops=3)
    scored = scores_of(plan, weights)
    net, card = load_model(weights)
    with torch.no_grad():
        logits_BK = net(network_input(plan.batch(range(5))["clip_BSTHWC"][:, 0], card))
    np.testing.assert_allclose(scored["score_BK"], logits_BK.softmax(dim=1), atol=1e-4)
    assert scored["row_B"].tolist() == [0] * 5
    assert not any(scored["refusal_B"])


def test_segments_are_scored_by_the_mean_of_their_features(synthetic_shards, segment_weights):
    plan = plan_of(synthetic_shards, segment_weights)
    scored = scores_of(plan, segment_weights)
    net, card = load_model(segment_weights)
    with torch.no_grad():
        feature_BSD = torch.stack(
            [net.forward_features(network_input(view, card)) for view in plan.batch(range(5))["clip_BSTHWC"]]
        )
        score_BK = net.classifier(feature_BSD.mean(dim=1)).softmax(dim=1)
    np.testing.assert_allclose(scored["score_BK"], score_BK, atol=1e-4)


def test_switches_of_testing_change_no_score_but_by_rounding(synthetic_shards, weights):
    plan = plan_of(synthetic_shards, weights)
    plain = scores_of(plan, weights, fold_batch_norm=False, channels_last=False)["score_BK"]
    assert 0 < np.abs(scores_of(plan, weights)["score_BK"] - plain).max() < 1e-4
    assert 1e-4 < np.abs(scores_of(plan, weights, precision="bf16")["score_BK"] - plain).max() < 0.2


def test_a_view_without_pixels_gets_no_score_and_leaves_the_others_alone(damaged, weights):
    plan = plan_of(damaged.shards, weights)
    batch = plan.batch(range(plan.num_views))
    is_damaged_B = np.isin(plan.loader.index.video_id_N[batch["row_B"]], damaged.video_ids)
    assert is_damaged_B.sum() == 4
    assert np.array_equal(batch["reason_B"] != "", is_damaged_B)
    scorer = Scorer(load_model(weights), compute=ScoringComputeConfig(), batch_size=4, use_gpu=False)
    score_BK = scorer.score(batch)["score_BK"]
    assert np.isnan(score_BK[is_damaged_B]).all()
    alone = scorer.score({name: column[~is_damaged_B] for name, column in batch.items()})["score_BK"]
    assert np.array_equal(score_BK[~is_damaged_B], alone)


def test_actors_score_and_do_not_decode(synthetic_shards, weights, tmp_path):
    """Else each network would wait for its own decoding, and free CPUs would do nothing."""
    plan = plan_of(synthetic_shards, weights)
    config = evaluate_config(synthetic_shards, tmp_path, weights, cpus_per_worker=1.0)
    physical = get_execution_plan(_scored_by_actors(plan, load_model(weights), config)._logical_plan)[0]
    assert physical.dag.name == "MapBatches(Scorer)"
    assert physical.dag.input_dependencies[0].name == "ReadRange->MapBatches(load_some)"


@pytest.fixture
def broken(weights, tmp_path):
    """A network whose weights have gone to NaN."""
    net, card = load_model(weights)
    torch.nn.init.constant_(net.features.conv0.weight, float("nan"))
    save_weights(net, tmp_path / "broken.safetensors", card=card)
    return tmp_path / "broken.safetensors"


def test_forms_that_do_not_fit_the_network_are_refused(synthetic_shards, weights, tmp_path):
    forms = ScoringComputeConfig(transition_forms=("pooled",))
    with pytest.raises(ValueError, match=r"1 entries, but this net has 3 transitions"):
        run_evaluate(evaluate_config(synthetic_shards, tmp_path, weights, compute=forms))


def test_scores_that_are_no_numbers_are_refused_and_debugging_says_where(synthetic_shards, broken):
    plan = plan_of(synthetic_shards, broken)
    with pytest.raises(ValueError, match="scores that are not finite"):
        _refuse(scores_of(plan, broken))
    with pytest.raises(ValueError, match="the features of a batch hold values that are not finite"):
        _refuse(scores_of(plan, broken, debug=True))
    with pytest.raises(ValueError, match="the network gives features that are not finite for a random clip"):
        _refuse(scores_of(plan, broken, precision="bf16"))
