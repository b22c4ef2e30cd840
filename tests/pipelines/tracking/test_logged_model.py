"""What a user of a logged model gets."""

import os

import mlflow
import numpy as np
import pytest
import torch

from pipelines.tracking.models import log_model
from t3d_core.training.checkpoint import load_model
from t3d_core.video.transforms import normalize_clip

CLIP_SHAPE_THWC = (16, 32, 32, 3)


@pytest.fixture
def store_of_user(run):
    """What a user of the model does: names the store to MLflow; undone for the tests that follow."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(run.tracking_uri)
    yield
    mlflow.set_tracking_uri(before)


@pytest.mark.usefixtures("store_of_user")
def test_a_logged_model_gives_the_probabilities_of_the_network(run, weights_path):
    clips_BTHWC = np.random.default_rng(0).integers(0, 256, (2, *CLIP_SHAPE_THWC), dtype=np.uint8)
    model, card = load_model(weights_path)
    with torch.inference_mode():
        clips_BCTHW = normalize_clip(torch.from_numpy(clips_BTHWC), mean=card.mean, std=card.std)
        expected_BK = model(clips_BCTHW).softmax(dim=1).numpy()

    model_uri = log_model(run, weights_path)
    loaded = mlflow.pyfunc.load_model(model_uri)

    probabilities_BK = loaded.predict(clips_BTHWC)
    assert probabilities_BK.dtype == np.float32
    np.testing.assert_allclose(probabilities_BK, expected_BK, rtol=1e-4, atol=1e-6)
    (input_spec,) = loaded.metadata.signature.inputs
    (output_spec,) = loaded.metadata.signature.outputs
    assert (input_spec.type, input_spec.shape) == (np.dtype("uint8"), (-1, *CLIP_SHAPE_THWC))
    assert (output_spec.type, output_spec.shape) == (np.dtype("float32"), (-1, 3))
    assert loaded.metadata.run_id == run.run_id
