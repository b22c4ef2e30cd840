"""The networks of all cases, with random weights, on disk where each finds its own; and what a clip costs them.

Legend: B clips, C channels, T frames, H x W pixels.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.video import r3d_18

from pipelines.benchmark.measuring.small_network import SMALL_T3D
from pipelines.benchmark.predict.config import PredictSuiteConfig
from t3d_core.models.build import build_model
from t3d_core.models.cost import count_macs, count_parameters
from t3d_core.training.checkpoint import save_weights
from t3d_core.training.weights_card import WeightsCard
from t3d_core.video.sizes import default_short_side

NUM_CLASSES = 400
# VideoMAE-S: Tong et al., arXiv 2203.12602. The base model has 87 million parameters and three times the cost.
_VIDEOMAE_SMALL = {
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "intermediate_size": 1536,
}


class NetworkCost(NamedTuple):
    """What a network costs: parameters, and multiply-adds of a clip."""

    num_parameters: int
    macs: int


def write_ours(path: Path, config: PredictSuiteConfig) -> NetworkCost:
    """Write our network with the card of its clips."""
    torch.manual_seed(0)
    net = build_model(config.model.kind, num_classes=NUM_CLASSES, **config.model.arguments())
    card = WeightsCard(
        model_kind=config.model.kind,
        model_arguments=config.model.arguments(),
        class_names=tuple(f"class {number}" for number in range(NUM_CLASSES)),
        num_frames=config.num_frames,
        frame_stride=config.frame_stride,
        short_side=default_short_side(config.crop_size),
        crop_size=config.crop_size,
        short_video="repeat_last",
        mean=(0.43216, 0.394666, 0.37645),
        std=(0.22803, 0.22145, 0.216989),
    )
    save_weights(net, path, card=card)
    return _cost(net, config.num_frames, config.crop_size)


def write_small(path: Path) -> None:
    """Write a network so small that its memory does not hide a growth elsewhere, for videos of 16 frames and more."""
    small = {"num_frames": 16, "frame_stride": 1, "crop_size": 32}
    write_ours(path, PredictSuiteConfig(model=SMALL_T3D, **small))


def write_torchvision(path: Path, config: PredictSuiteConfig) -> NetworkCost:
    """Write torchvision's r3d_18 as people store a network."""
    torch.manual_seed(0)
    net = r3d_18(weights=None, num_classes=NUM_CLASSES)
    torch.save(net.state_dict(), path)
    return _cost(net, config.num_frames, config.crop_size)


def write_videomae(folder: Path, config: PredictSuiteConfig) -> NetworkCost:
    """Write a VideoMAE-S with its image processor, as Hugging Face's hub has them.

    Raises:
        ImportError: transformers is not installed.
    """
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification, VideoMAEImageProcessor

    size = config.videomae_size
    described = {"image_size": size, "num_frames": config.num_frames, "num_labels": NUM_CLASSES, **_VIDEOMAE_SMALL}
    torch.manual_seed(0)
    VideoMAEForVideoClassification(VideoMAEConfig(**described)).save_pretrained(folder)
    scaled = {"size": {"shortest_edge": size}, "crop_size": {"height": size, "width": size}}
    VideoMAEImageProcessor(**scaled).save_pretrained(folder)
    # The fused attention of the default form is not counted.
    counted = VideoMAEForVideoClassification(VideoMAEConfig(**described, attn_implementation="eager"))
    return _cost(_TimeFirst(counted), config.num_frames, size)


class _TimeFirst(nn.Module):
    """A network of clip_BTCHW that takes clip_BCTHW."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self._net = net

    def forward(self, clip_BCTHW: Tensor) -> object:
        return self._net(clip_BCTHW.transpose(1, 2))


def _cost(net: nn.Module, num_frames: int, size: int) -> NetworkCost:
    return NetworkCost(count_parameters(net), count_macs(net, (1, 3, num_frames, size, size)))
