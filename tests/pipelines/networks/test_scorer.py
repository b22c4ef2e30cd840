"""A scorer inside an actor keeps its first error as text, and works no more."""

import pytest
import torch

from pipelines.networks.config import ScoringComputeConfig
from pipelines.networks.scorer import ActorScorer, make_scorer
from pipelines.networks.weights import card_of
from t3d_core.errors import UserError
from t3d_core.models import build_model
from t3d_core.training.checkpoint import load_model, save_weights
from tests.pipelines.evaluate.small_network import CLIP, MODEL

SETTINGS = {"compute": ScoringComputeConfig(), "batch_size": 2, "use_gpu": False}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    card = card_of(MODEL, CLIP, class_names=("one", "other"))
    net = build_model(card.model_kind, num_classes=2, **card.model_arguments)
    path = tmp_path_factory.mktemp("network") / "model.safetensors"
    save_weights(net, path, card=card)
    return load_model(path)


def test_the_settings_reach_the_scorer(loaded):
    scorer = make_scorer(loaded, **SETTINGS)
    assert (scorer.num_views, scorer.device) == (2, torch.device("cpu"))


def test_an_actor_works_until_its_first_error_whose_words_it_keeps(loaded):
    scorer, done = ActorScorer(loaded, **SETTINGS), []

    def fail(_):
        raise UserError("not finite")

    scorer.run(done.append)
    assert (len(done), scorer.refusal) == (1, "")
    scorer.run(fail)
    scorer.run(done.append)
    assert (len(done), scorer.refusal) == (1, "not finite")


def test_an_actor_that_cannot_be_set_up_says_why_and_does_nothing(loaded, monkeypatch):
    def refuse(*_, **__):
        raise UserError("compute.precision bf16 is wrong here")

    monkeypatch.setattr("pipelines.networks.scorer.ClipScorer", refuse)
    scorer, done = ActorScorer(loaded, **SETTINGS), []
    scorer.run(done.append)
    assert (done, scorer.refusal) == ([], "compute.precision bf16 is wrong here")
