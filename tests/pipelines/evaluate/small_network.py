from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from pipelines.clips.config import ClipConfig
from pipelines.clips.loader import BatchLoader
from pipelines.clips.views import ViewPlan
from pipelines.evaluate.config import EvaluateConfig, EvaluateDataConfig
from pipelines.evaluate.scoring import Scorer
from pipelines.networks.config import ScoringComputeConfig, T3DConfig
from pipelines.networks.weights import card_of
from pipelines.shards.index import load_index
from pipelines.tracking.config import TrackingConfig
from t3d_core.models import build_model
from t3d_core.training.checkpoint import load_model, save_weights
from t3d_core.video.transforms import normalize_clip
from tests.pipelines.damage import changed_videos

MODEL = T3DConfig(growth_rate=4, block_config=(2, 2, 2, 2), num_init_features=24, bn_size=2)
CLIP = ClipConfig(num_frames=16, frame_stride=1, crop_size=32)  # two clips in the 40 frames of a synthetic video


def save_network(shards, path, clip):
    index = load_index([shards], fold=1, splits=["train"])
    card = card_of(MODEL, clip, class_names=index.class_names)
    torch.manual_seed(0)
    net = build_model(card.model_kind, num_classes=len(card.class_names), **card.model_arguments).eval()
    batch = BatchLoader(index, card_of(MODEL, CLIP, class_names=()).clip_view()).center_batch(np.arange(len(index)))
    with torch.no_grad():
        feature_BD = net.forward_features(network_input(batch["clip_BTHWC"], card))
        scale_D = feature_BD.std(dim=0) + 1e-6
        mean_KD = torch.stack([feature_BD[batch["label_B"] == k].mean(dim=0) for k in range(len(card.class_names))])
        net.classifier.weight[:] = mean_KD / scale_D**2
        net.classifier.bias[:] = -(mean_KD / scale_D).square().sum(dim=1) / 2
    save_weights(net, path, card=card)
    return path


def network_input(clip_BTHWC, card):
    return normalize_clip(torch.from_numpy(np.ascontiguousarray(clip_BTHWC)), mean=card.mean, std=card.std)


def evaluate_config(shards, tmp_path, checkpoint, **changes):
    settings = {
        "checkpoint": str(checkpoint),
        "data": EvaluateDataConfig(shards=(shards,)),
        "output": tmp_path / "result",
        "tracking": TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db"),
        "storage": tmp_path / "runs",
        "batch_size": 3,
        "cpus_per_worker": 0.3,
    }
    return EvaluateConfig(**settings | changes)


def plan_of(shards, weights, **changes):
    index = load_index([shards], fold=1, splits=["test"])
    return ViewPlan(BatchLoader(index, load_model(weights).card.clip_view()), **changes)


def scores_of(plan, weights, **compute):
    """What an actor gives for the first views, in this process."""
    scorer = Scorer(load_model(weights), compute=ScoringComputeConfig(**compute), batch_size=5, use_gpu=False)
    return scorer.score(plan.batch(range(5)))


class Damaged(NamedTuple):
    shards: Path
    video_ids: tuple[str, str]


def replace_frames(shard, row, frames):
    """Write a shard anew with other frames in one row, as if it had been made so."""
    table = pq.read_table(shard)
    place = table.schema.get_field_index("frames")
    column = [frames if number == row else old for number, old in enumerate(table.column(place).to_pylist())]
    table = table.set_column(place, "frames", pa.array(column, pa.large_binary()))
    pq.write_table(table, shard, row_group_size=1)
    with changed_videos(shard.parents[1]) as videos:
        for video in videos:
            if video["shard"] == shard.name:
                video["shard_bytes"] = shard.stat().st_size
