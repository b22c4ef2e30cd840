"""Scores do not depend on what else is scored: this is what makes `predict` and `evaluate` agree to the last bit."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from t3d_core.models import build_model
from t3d_core.prediction.clip_scorer import ClipScorer
from t3d_core.training.checkpoint import LoadedModel
from t3d_core.training.weights_card import WeightsCard

SMALL = {
    "t3d": {"growth_rate": 4, "block_config": (2, 2, 2, 2), "num_init_features": 24, "bn_size": 2},
    "densenet3d": {"growth_rate": 4, "block_config": (2, 2, 2, 2), "num_init_features": 24, "bn_size": 2},
    "resnet3d_18": {},
    "res3d_18": {},
    "inception3d": {},
}
CLASSES = tuple("abcdefghij")


def loaded(kind, *, num_segments=1):
    torch.manual_seed(0)
    model = build_model(kind, num_classes=len(CLASSES), **SMALL[kind]).eval()
    model.num_segments = num_segments
    card = WeightsCard(
        kind, SMALL[kind], CLASSES, 16, 2, 36, 32, "loop", (0.5,) * 3, (0.25,) * 3, num_segments=num_segments
    )
    return LoadedModel(model, card)


def views(count, *, num_segments=1):
    shape = (count, num_segments, 16, 32, 32, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def scorer_of(kind, *, batch_size, **options):
    return ClipScorer(loaded(kind, **options), device=torch.device("cpu"), batch_size=batch_size)


@pytest.mark.parametrize("kind", SMALL)
def test_a_view_has_the_same_bits_alone_and_in_any_place(kind):
    scorer, clips = scorer_of(kind, batch_size=3), views(7)
    score_BK, feature_BD = scorer.score_with_features(clips)
    assert score_BK.shape == (7, 10)
    assert all(map(np.array_equal, scorer.score_with_features(clips[::-1]), (score_BK[::-1], feature_BD[::-1])))
    for place in range(7):
        alone = scorer.score_with_features(clips[place : place + 1])
        assert all(map(np.array_equal, alone, (score_BK[place : place + 1], feature_BD[place : place + 1])))


def test_the_segments_of_a_view_are_scored_together():
    scorer, clips = scorer_of("t3d", batch_size=4, num_segments=2), views(3, num_segments=2)
    assert scorer.num_views == 2
    score_BK = scorer.score(clips)
    assert np.array_equal(scorer.score(clips[1:2])[0], score_BK[1])
    assert not np.array_equal(scorer.score(clips[:, ::-1].copy()[:1] * 0 + clips[:1, :1])[0], score_BK[0])


def test_scores_are_probabilities_of_the_network():
    scorer, clips = scorer_of("t3d", batch_size=5), views(2)
    net, card = loaded("t3d")
    clip_BCTHW = (torch.from_numpy(clips[:, 0]).permute(0, 4, 1, 2, 3) / 255 - card.mean[0]) / card.std[0]
    with torch.inference_mode():
        expected = net(clip_BCTHW).softmax(dim=1).numpy()
    np.testing.assert_allclose(scorer.score(clips), expected, atol=1e-5)


def test_features_are_what_the_head_classifies():
    scorer = scorer_of("t3d", batch_size=2)
    score_BK, feature_BD = scorer.score_with_features(views(3))
    head = loaded("t3d").model.classifier
    with torch.inference_mode():
        np.testing.assert_allclose(head(torch.from_numpy(feature_BD)).softmax(dim=1).numpy(), score_BK, atol=1e-6)


def test_a_network_without_classes_gives_its_features_and_no_scores():
    net, card = loaded("t3d")
    net.reset_classifier(0)
    headless = LoadedModel(net, replace(card, class_names=()))
    scorer = ClipScorer(headless, device=torch.device("cpu"), batch_size=2)
    score_BK, feature_BD = scorer.score_with_features(views(3))
    assert score_BK.shape == (3, 0)
    assert np.array_equal(feature_BD, scorer_of("t3d", batch_size=2).score_with_features(views(3)).feature_BD)


def test_no_view_gives_no_score():
    assert scorer_of("t3d", batch_size=2).score(views(0)).shape == (0, 10)
