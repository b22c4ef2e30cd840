"""A 3D network's 2D twin learns a teacher's features of single frames, so that its weights can be inflated.

Paper: not in it. Without ImageNet weights of the student's own family, inflation has nothing to inflate. Its
twin, taught by the same teacher on the same unlabelled clips, is the control that shows what the third dimension of a
transfer is worth.

Legend: B clips, T frames, N = B * T images, D feature width.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import DenseNet

from t3d_core.errors import UserError
from t3d_core.models import VideoNet
from t3d_core.models.densenet3d import DenseBlock, DenseLayer, DenseNet3D
from t3d_core.models.executable_net import ExecutableNet, check_finite

_DENSENET_BLOCKS = 4
_OF_KIND = {"resnet3d_18": "resnet18", "resnet3d_34": "resnet34", "resnet3d_50": "resnet50", "inception3d": "googlenet"}


class Twin(NamedTuple):
    """A 2D network without a head, which `inflate` takes the state of, and the width of its features."""

    network: nn.Module
    feature_dim: int


class FrameRegressionNet(ExecutableNet):
    """The twin on frames of clips, and a linear layer to the teacher's width, which is dropped afterwards."""

    channels_last = torch.channels_last

    def __init__(self, twin: Twin, *, teacher_dim: int, positions: Sequence[int]) -> None:
        """Put the layer on the twin, which sees the frames of each clip at `positions`: those that the teacher sees."""
        super().__init__()
        self.twin = twin.network
        self.regression = nn.Linear(twin.feature_dim, teacher_dim)
        self.positions = tuple(positions)

    def compiled_part(self) -> nn.Module:
        """Return the twin."""
        return self.twin

    def set_recompute(self, is_recomputed: bool) -> None:
        """Keep all activations.

        Raises:
            UserError: They are to be recomputed.
        """
        if is_recomputed:
            raise UserError("recompute is for 3D networks, but the network that is trained is a 2D twin: leave it off")

    def forward(self, clip_BCTHW: Tensor) -> Tensor:
        """Guess the teacher's features (N, D) of the frames of clips as the student takes them."""
        return self.regression(self.forward_features(clip_BCTHW))

    def forward_features(self, clip_BCTHW: Tensor) -> Tensor:
        """Return the twin's own features (N, D) of the frames, one clip after the other."""
        positions = torch.tensor(self.positions, device=clip_BCTHW.device)
        if self.is_debugging:
            check_finite(clip_BCTHW, "clips")
        feature_ND = self.twin(frames_at(clip_BCTHW, positions))
        if self.is_debugging:
            check_finite(feature_ND, "features")
        return feature_ND


def build_twin(kind: str, net: VideoNet) -> Twin:
    """Make the torchvision network that `net` is inflated from, with random weights.

    Args:
        kind: the kind of `net`.
        net: a DenseNet3D, T3D, ResNet3D or Inception3D; it may be on torch's meta device.

    Raises:
        UserError: a network of this kind has no 2D twin.
    """
    if isinstance(net, DenseNet3D):
        return _with_head_removed(_densenet(net), "classifier")
    if kind not in _OF_KIND:
        raise UserError(f"model.kind {kind} has no 2D twin: choose a densenet3d, t3d, resnet3d or inception3d")
    arguments = {"init_weights": True, "aux_logits": False} if kind == "inception3d" else {}
    return _with_head_removed(torchvision.models.get_model(_OF_KIND[kind], weights=None, **arguments), "fc")


def _densenet(net: DenseNet3D) -> DenseNet:
    """The 2D DenseNet of the same widths; the additional layers of a T3D begin at the concatenation of its branches."""
    blocks = [block for block in net.features.children() if isinstance(block, DenseBlock)]
    if len(blocks) != _DENSENET_BLOCKS:
        raise UserError(
            f"a network of {len(blocks)} dense blocks has no 2D twin: torchvision's have {_DENSENET_BLOCKS}"
        )
    [layer, *_] = blocks[0].values()
    assert isinstance(layer, DenseLayer), "a block holds nothing else"
    growth_rate = layer.conv2.out_channels
    return DenseNet(
        growth_rate=growth_rate,
        block_config=tuple(map(len, blocks)),
        num_init_features=layer.conv1.in_channels,
        bn_size=layer.conv1.out_channels // growth_rate,
    )


def _with_head_removed(network: nn.Module, head_name: str) -> Twin:
    head = getattr(network, head_name)
    setattr(network, head_name, nn.Identity())
    return Twin(network, head.in_features)


def frames_at(clip_BCTHW: Tensor, positions: Tensor) -> Tensor:
    """Take the frames of each clip at these positions: images (N, C, H, W), one clip after the other."""
    return torch.index_select(clip_BCTHW, 2, positions).transpose(1, 2).flatten(0, 1)
