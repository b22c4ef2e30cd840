"""Weights of an ImageNet 2D network become those of the matching 3D network.

Inflation is that of Carreira & Zisserman (arXiv 1705.07750, 3): a 2D kernel is repeated d times along time and divided
by d, so that the 3D net sees in a still clip what the 2D net sees in its frame:

    w (O, C, h, w)   ->   [ w/d  w/d  ...  w/d ] (O, C, d, h, w)

Paper: 3.2 transfers by correspondence alone; this is the control that it lacks.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from t3d_core.errors import UserError
from t3d_core.models.temporal_transition import TemporalBranch, TemporalTransitionLayer
from t3d_core.models.video_net import VideoNet
from t3d_core.transfer.imagenet_weights import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    downloaded_state,
    read_state,
    with_current_names,
)

SOURCES = ("densenet121", "densenet169", "resnet18", "resnet34", "resnet50", "googlenet")
# Heads, and GoogLeNet's auxiliary ones: classes of ImageNet.
_HEADS = ("classifier.", "fc.", "aux1.", "aux2.")
# Counts the batches of training; a mean with momentum does not ask for it.
_COUNTER = "num_batches_tracked"


class InflationReport(NamedTuple):
    """What `inflate` did.

    Attributes:
        num_copied: Parameters (tensors) that came from the 2D network; batch-norm statistics came with them.
        left_at_init: Names of the parameters of the 3D net that had no 2D counterpart and are as they were.
    """

    num_copied: int
    left_at_init: tuple[str, ...]


class _Origin(NamedTuple):
    """Where a tensor of the 3D net comes from: a 2D tensor, its shape, and which of its filters."""

    name: str
    shape: tuple[int, ...]
    filters: slice


def load_2d_state(source: str) -> dict[str, Tensor]:
    """Return the 2D `state_dict` of a torchvision model, for `inflate`.

    Args:
        source: One of `SOURCES` for torchvision's ImageNet weights, or a file of `torch.save(state_dict)`. GoogLeNet's
            own weights expect another normalisation than the rest; it is folded into them, so that all take ImageNet's
            mean and std. A file is taken as it is.

    Raises:
        UserError: It is neither a name nor a file, cannot be downloaded or cannot be read.
    """
    if source in SOURCES:
        cure = "take another network" if source == "googlenet" else "name that file in place of the model"
        state = downloaded_state(source, cure=cure)
        return _with_folded_normalisation(state) if source == "googlenet" else state
    if not Path(source).exists():
        raise UserError(f"2D weights {source!r} are neither a file nor one of {', '.join(SOURCES)}")
    return with_current_names(read_state(Path(source), what="2D weights"))


@torch.no_grad()
def inflate(net: VideoNet, state_2d: Mapping[str, Tensor]) -> InflationReport:
    """Copy the weights of a torchvision 2D network into the 3D net of the same kind, in place.

    Batch-norm parameters and statistics are copied; heads are left out. The transition of a 2D DenseNet goes into a T3D
    so that each channel of a TTL's concatenation is that channel of the 2D transition: the branches take its filters
    slice by slice, at the centre pixel of their kernels, and each branch its batch norm. What the 2D network does not
    have stays as initialised: transitions that mix their branches (`official128`), tensors after these whose width is
    another one, and the TTLs of ResNet3D and Inception3D.

    Args:
        net: A DenseNet3D, T3D, ResNet3D or Inception3D.
        state_2d: State of the DenseNet, ResNet or GoogLeNet of the same depth.

    Raises:
        UserError: The state is that of another network; the first tensor that is missing, left over or of another
            shape is named, and `net` is as it was.
    """
    tensors_2d = {
        name.removeprefix("features."): tensor
        for name, tensor in state_2d.items()
        if not name.startswith(_HEADS) and not name.endswith(_COUNTER)
    }
    origins = _origins(net, tensors_2d)
    _check_nothing_is_left_over(net, tensors_2d, origins)
    tensors_3d = net.features.state_dict()
    for name, origin in origins.items():
        tensors_3d[name].copy_(_inflated(tensors_2d[origin.name][origin.filters], tensors_3d[name].shape))
    copied = {f"features.{name}" for name in origins}
    parameters = [name for name, _ in net.named_parameters()]
    left = tuple(name for name in parameters if name not in copied)
    return InflationReport(num_copied=len(parameters) - len(left), left_at_init=left)


def _inflated(weight_2d: Tensor, shape_3d: torch.Size) -> Tensor:
    """Repeat a kernel (O, C, h, w) along time, at the centre of a larger kernel; return any other tensor as it is."""
    if weight_2d.ndim != 4:
        return weight_2d
    depth, height, width = shape_3d[2:]
    above, beside = (height - weight_2d.shape[2]) // 2, (width - weight_2d.shape[3]) // 2
    centred = functional.pad(weight_2d, (beside, beside, above, above))
    return centred[:, :, None].expand(shape_3d) / depth


def _origins(net: VideoNet, tensors_2d: Mapping[str, Tensor]) -> dict[str, _Origin]:
    """Find the 2D tensor of every tensor of `features` that has one.

    Raises:
        UserError: A 2D tensor is missing or has another shape.
    """
    origins, is_width_free = {}, False
    for stage, module in net.features.named_children():
        if isinstance(module, TemporalTransitionLayer):
            has_counterpart = f"{stage}.conv.weight" in tensors_2d
            found = _origins_of_transition(stage, module) if has_counterpart and module.mix is None else {}
            is_width_free = is_width_free or module.mix is not None
        else:
            found = _origins_of_stage(stage, module.state_dict())
        for name, origin in found.items():
            if _fits(name, origin, tensors_2d, is_width_free=is_width_free):
                origins[name] = origin
    return origins


def _origins_of_stage(stage: str, tensors_3d: Mapping[str, Tensor]) -> dict[str, _Origin]:
    """Each tensor comes from the 2D tensor of its name, which has no time."""
    return {
        f"{stage}.{name}": _Origin(f"{stage}.{name}", (*tensor.shape[:2], *tensor.shape[3:]), slice(None))
        for name, tensor in tensors_3d.items()
        if not name.endswith(_COUNTER)
    }


def _origins_of_transition(stage: str, transition: TemporalTransitionLayer) -> dict[str, _Origin]:
    """Each branch comes from the batch norm and from its slice of the 1x1 filters of the 2D transition."""
    origins, first = {}, 0
    for index, branch in enumerate(transition.branches):
        assert isinstance(branch, TemporalBranch)
        place, in_channels = f"{stage}.branches.{index}", branch.conv.in_channels
        for name in branch.norm.state_dict():
            if name != _COUNTER:
                origins[f"{place}.norm.{name}"] = _Origin(f"{stage}.norm.{name}", (in_channels,), slice(None))
        last = first + branch.conv.out_channels
        shape = (transition.out_channels, in_channels, 1, 1)
        origins[f"{place}.conv.weight"] = _Origin(f"{stage}.conv.weight", shape, slice(first, last))
        first = last
    return origins


def _fits(name: str, origin: _Origin, tensors_2d: Mapping[str, Tensor], *, is_width_free: bool) -> bool:
    """Return whether the 2D tensor exists in the right shape, or (false) with a width that may differ.

    Raises:
        UserError: It is neither.
    """
    needs = f"features.{name} of the 3D net needs a 2D tensor {origin.name} of shape {origin.shape}"
    if origin.name not in tensors_2d:
        raise UserError(f"{needs}, but the 2D weights have none: they belong to another network")
    shape = tuple(tensors_2d[origin.name].shape)
    if shape == origin.shape:
        return True
    if is_width_free and len(shape) == len(origin.shape):
        return False
    raise UserError(f"{needs}, but the 2D weights have {shape}: they belong to another network")


def _check_nothing_is_left_over(
    net: VideoNet, tensors_2d: Mapping[str, Tensor], origins: Mapping[str, _Origin]
) -> None:
    used = {origin.name for origin in origins.values()}
    stages_3d = net.features.state_dict().keys()
    transitions = tuple(
        f"{name}." for name, m in net.features.named_children() if isinstance(m, TemporalTransitionLayer)
    )
    for name, tensor in tensors_2d.items():
        if name not in used and name not in stages_3d and not name.startswith(transitions):
            raise UserError(
                f"the 2D weights have a tensor {name} of shape {tuple(tensor.shape)}, for which the 3D net has no "
                "place: they belong to another network"
            )


def _with_folded_normalisation(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Let GoogLeNet's weights take images normalised by ImageNet's mean and std.

    torchvision's GoogLeNet turns such an image x into a * x + b, which is the image normalised by a mean and a std of
    0.5 (`transform_input`), before its first convolution. With the weights a * w, the convolution falls short of what
    it was by the sum of b * w, which the running mean behind it takes in. Not so at the borders, where torchvision pads
    a * x + b with zeros, and a folded net pads x.
    """
    scale = torch.tensor(IMAGENET_STD) / 0.5
    shift = (torch.tensor(IMAGENET_MEAN) - 0.5) / 0.5
    weight = state["conv1.conv.weight"]
    constant = (weight * shift[:, None, None]).sum(dim=(1, 2, 3))
    return state | {
        "conv1.conv.weight": weight * scale[:, None, None],
        "conv1.bn.running_mean": state["conv1.bn.running_mean"] - constant,
    }
