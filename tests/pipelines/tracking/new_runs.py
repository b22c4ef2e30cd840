"""Runs and weights files of these tests."""

import torch
from mlflow import MlflowClient

from pipelines.tracking.runs import start_run
from t3d_core.models import build_model
from t3d_core.training.checkpoint import save_weights
from t3d_core.training.weights_card import WeightsCard

MODEL_ARGUMENTS = {
    "growth_rate": 4,
    "block_config": (1, 1, 1, 1),
    "num_init_features": 8,
    "bn_size": 2,
    "ttl_preset": "thirds",
}
CLIP_SHAPE_THWC = (16, 32, 32, 3)


def open_run(tracking_uri, *, run_id=None, experiment="t3d", tags=None, mark=None):
    about = {"experiment": experiment, "run_name": "first", "run_id": run_id, "tags": tags or {}, "mark": mark}
    return start_run(tracking_uri=tracking_uri, **about)


def write_weights(path, *, class_names):
    torch.manual_seed(0)
    card = WeightsCard(
        model_kind="t3d",
        model_arguments=MODEL_ARGUMENTS,
        class_names=class_names,
        num_frames=CLIP_SHAPE_THWC[0],
        frame_stride=1,
        short_side=36,
        crop_size=CLIP_SHAPE_THWC[1],
        short_video="loop",
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.2, 0.3),
    )
    save_weights(build_model("t3d", num_classes=len(class_names), **MODEL_ARGUMENTS), path, card=card)
    return path


def read_run(run):
    return MlflowClient(run.tracking_uri).get_run(run.run_id)
