"""A small network's weights, and its exported file, run."""

import torch
from torch import nn

from pipelines.export.program import FORMATS
from t3d_core.models import build_model
from t3d_core.training.checkpoint import load_model, save_weights
from t3d_core.training.weights_card import WeightsCard
from t3d_core.video.transforms import normalize_clip

CARD = WeightsCard(
    model_kind="t3d",
    model_arguments={
        "growth_rate": 4,
        "block_config": (2, 1),
        "temporal_depths": ((1, 3, 6),),
        "num_init_features": 16,
        "bn_size": 2,
    },
    class_names=("jump", "run", "walk"),
    num_frames=16,
    frame_stride=2,
    short_side=37,
    crop_size=32,
    short_video="loop",
    mean=(0.1, 0.2, 0.3),
    std=(0.4, 0.5, 0.6),
)


def save_network(folder, card=CARD):
    """Weights of a network whose every batch norm has statistics and scales of its own."""
    torch.manual_seed(0)
    net = build_model(card.model_kind, num_classes=len(card.class_names), **card.model_arguments)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.running_mean.normal_(std=0.5)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.5)
    folder.mkdir(exist_ok=True)
    save_weights(net, folder / "model.safetensors", card=card)
    return folder / "model.safetensors"


def run(file_format, path, clip_BTHWC):
    with torch.no_grad():
        return FORMATS[file_format].open(path)(clip_BTHWC)


def eager(weights, clip_BTHWC):
    net, card = load_model(weights)
    with torch.no_grad():
        output = net(normalize_clip(clip_BTHWC, mean=card.mean, std=card.std))
        return output.softmax(dim=1) if card.class_names else output


def noise(batch):
    return torch.randint(0, 256, (batch, 16, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
