"""A clip and a class become a map over space and time and a share of each temporal depth: why the net decided so.

Maps: gradient x activation, position by position, summed over channels and rectified. At maps that a global average
and a linear layer follow, that is Grad-CAM (Selvaraju et al., arXiv 1610.02391) and CAM. At earlier maps Grad-CAM
averages the gradient over positions first, which loses where and when it acts; without that average the method is
known as HiResCAM (Draelos & Carin, arXiv 2011.08891). The last maps of 16 frames have one or two frames, so they cannot
say when. The map here is the product of the maps of the last three sizes: it is high where all of them agree, and it
resolves time as the first of them does:

    T3D-121, 16 x 224 x 224:  block 2, 4 x 28 x 28  *  block 3, 2 x 14 x 14  *  block 4, 1 x 7 x 7

C3D fits this too: its maps pass fully connected layers, so that the gradient differs from position to position.
Captum computes gradients and activations of all layers in one pass.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from captum.attr import LayerGradientXActivation
from torch import Tensor, nn
from torch.nn import functional

from t3d_core.errors import UserError
from t3d_core.models.temporal_transition import TemporalBranch, TemporalTransitionLayer
from t3d_core.models.video_net import VideoNet

_NUM_SIZES = 3


@dataclass(frozen=True)
class BranchShares:
    """How much each branch of one temporal transition layer counts in a decision.

    Attributes:
        temporal_depths: Frames that the kernel of each of K branches spans.
        share_BK: float32 in [0, 1], sum 1 over K; NaN for a clip to whose class no branch contributes.
    """

    temporal_depths: tuple[int, ...]
    share_BK: Tensor

    def of_clip(self, index: int) -> list[tuple[int, float]]:
        """Return the (temporal depth, share) of each branch for the clip at `index`."""
        return list(zip(self.temporal_depths, self.share_BK[index].tolist(), strict=True))


@dataclass(frozen=True)
class ClipExplanation:
    """Where, when and by which temporal depths clips speak for a class.

    Attributes:
        map_BTHW: float32 in [0, 1], of the clip's frames and pixels; 1 at the maximum of each clip, and all zero where
            nothing speaks for the class.
        branch_shares: One entry for each temporal transition layer, from the first to the last; empty without TTL.
    """

    map_BTHW: Tensor
    branch_shares: tuple[BranchShares, ...]


def explain_clip(net: VideoNet, clip_BCTHW: Tensor, class_B: Tensor) -> ClipExplanation:
    """Explain by how much the logit of a class exceeds the mean of all logits, each clip by itself.

    Softmax depends on such differences alone. The net runs in evaluation and comes back in the mode, with the
    gradients and the hooks that it had. `num_segments` is ignored.

    The contribution of a branch is the sum of gradient x activation over its output: to first order, what this excess
    loses without the branch. Contributions of the branches of a layer add up to that of their concatenated maps. The
    share is their absolute value over the sum of absolute values, because a branch that speaks against the class
    counts too.

    Args:
        net: A net with a head, not compiled.
        clip_BCTHW: Normalised clips on the net's device, not made in `torch.inference_mode`.
        class_B: int64 index of a class for each clip.

    Raises:
        UserError: The net has no head, a class is unknown, there is not one class for each clip, the call stands
            inside `torch.inference_mode` (`torch.no_grad` is fine), or the net refuses the clips.
    """
    _check(net, clip_BCTHW, class_B)
    branches = [branch for transition in net.transitions() for branch in _branches(transition)]
    stages = list(net.features.children())
    with _in_evaluation(net):
        # Captum changes `requires_grad` of what it gets: a detached tensor leaves the caller's own alone.
        products = _gradient_x_activation(net, [*stages, *branches], clip_BCTHW.detach(), class_B)
    return ClipExplanation(
        map_BTHW=_agreement(products[: len(stages)], clip_BCTHW.shape[2:]),
        branch_shares=_shares_of_transitions(net.transitions(), products[len(stages) :]),
    )


def _check(net: VideoNet, clip_BCTHW: Tensor, class_B: Tensor) -> None:
    if not isinstance(net.classifier, nn.Linear):
        raise UserError("a net without a head (num_classes 0) has no classes to explain: give it one")
    if torch.is_inference_mode_enabled():
        raise UserError("an explanation needs gradients: call it outside of torch.inference_mode")
    num_classes = net.classifier.out_features
    if class_B.shape != clip_BCTHW.shape[:1]:
        raise UserError(
            f"class_B of shape {tuple(class_B.shape)} must have one class for each of {len(clip_BCTHW)} clips"
        )
    if class_B.min() < 0 or class_B.max() >= num_classes:
        raise UserError(f"class_B {class_B.tolist()} must be indices of classes, from 0 to {num_classes - 1}")


@contextmanager
def _in_evaluation(net: nn.Module) -> Iterator[None]:
    """Let batch norm use its statistics and dropout rest, then give each module back the mode that it had."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _gradient_x_activation(net: VideoNet, layers: list[nn.Module], clip_BCTHW: Tensor, class_B: Tensor) -> list[Tensor]:
    """Return the gradient of the class's excess times the output, for the output of each layer."""

    def excess(clip_BCTHW: Tensor) -> Tensor:
        logits_BN = net.classifier(net.forward_features(clip_BCTHW))
        return logits_BN - logits_BN.mean(dim=1, keepdim=True)

    return [product.detach() for product in LayerGradientXActivation(excess, layers).attribute(clip_BCTHW, class_B)]


def _agreement(products: list[Tensor], size: torch.Size) -> Tensor:
    """Multiply the rectified maps of the last layer of each of the last sizes, each upsampled to (T, H, W) `size`."""
    last_of_size = {tuple(product.shape[2:]): product for product in products}
    maps = [_heat(product, size) for product in list(last_of_size.values())[-_NUM_SIZES:]]
    return _divided_by_maximum(torch.stack(maps).prod(dim=0))


def _heat(product_BCTHW: Tensor, size: torch.Size) -> Tensor:
    """Sum over channels, rectify, upsample: (B, T, H, W) in [0, 1]."""
    heat = product_BCTHW.float().sum(dim=1, keepdim=True).relu()
    return _divided_by_maximum(functional.interpolate(heat, size=size, mode="trilinear").squeeze(1))


def _divided_by_maximum(heat_BTHW: Tensor) -> Tensor:
    maximum = heat_BTHW.amax(dim=(1, 2, 3), keepdim=True)
    return torch.where(maximum > 0, heat_BTHW / maximum, 0.0)


def _shares_of_transitions(
    transitions: list[TemporalTransitionLayer], products: list[Tensor]
) -> tuple[BranchShares, ...]:
    shares, remaining = [], iter(products)
    for transition in transitions:
        contribution_BK = torch.stack(
            [next(remaining).float().sum(dim=(1, 2, 3, 4)) for _ in _branches(transition)], dim=1
        ).abs()
        depths = tuple(branch.conv.kernel_size[0] for branch in _branches(transition))
        shares.append(BranchShares(depths, contribution_BK / contribution_BK.sum(dim=1, keepdim=True)))
    return tuple(shares)


def _branches(transition: TemporalTransitionLayer) -> list[TemporalBranch]:
    return [cast(TemporalBranch, branch) for branch in transition.branches]
