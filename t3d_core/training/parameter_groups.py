"""A network becomes the parameter groups of its optimiser: one, or several with rates and decays of their own.

The default is one group of all parameters, as in the paper. Paper: the rest is not in it.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

from t3d_core.errors import UserError
from t3d_core.models import VideoNet
from t3d_core.models.depth_groups import depth_groups

ParameterGroup = dict[str, Any]
"""`params` in the order of the network, `lr`, `weight_decay`, and `lr_scale`, which `lr` is multiplied by already."""


def parameter_groups(
    net: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    head_lr_scale: float = 1.0,
    layer_decay: float = 1.0,
    decay_norms_and_biases: bool = True,
) -> list[ParameterGroup]:
    """Return the groups of the parameters of `net` that get gradients.

    Args:
        net: any network; one with a scale other than 1 has to be a `VideoNet`.
        lr: learning rate of parameters whose scale is 1.
        weight_decay: of parameters that decay.
        head_lr_scale: factor of the linear head's rate.
        layer_decay: factor of the rate from one depth to the one before it; the head has 1, what is right before it
            `layer_decay`, the stem the smallest power (BEiT, arXiv 2106.08254, for fine-tuning).
        decay_norms_and_biases: whether vectors (biases, scales and shifts of norms) decay as all other parameters.

    Raises:
        UserError: a scale other than 1 is given for a network without a linear head.
    """
    scale_of = _scales(net, head_lr_scale=head_lr_scale, layer_decay=layer_decay)
    # Not by the decay itself: with any decay, 0 too, the groups are the same, and so is the state of their optimiser.
    groups: dict[tuple[float, bool], ParameterGroup] = {}
    for name, parameter in net.named_parameters():
        if not parameter.requires_grad:
            continue
        scale = scale_of.get(name, 1.0)
        is_decayed = decay_norms_and_biases or parameter.ndim > 1
        decay = weight_decay if is_decayed else 0.0
        group = {"params": [], "lr": lr * scale, "weight_decay": decay, "lr_scale": scale}
        groups.setdefault((scale, is_decayed), group)["params"].append(parameter)
    return list(groups.values())


def _scales(net: nn.Module, *, head_lr_scale: float, layer_decay: float) -> Mapping[str, float]:
    """The factor of each parameter's rate, by name; empty where all are 1."""
    if head_lr_scale == layer_decay == 1:
        return {}
    if not isinstance(net, VideoNet):
        raise UserError(
            f"head_lr_scale {head_lr_scale:g} and layer_decay {layer_decay:g} are for a classifier: leave both at 1"
        )
    *backbone, head = depth_groups(net)
    scales = {name: layer_decay ** (len(backbone) - depth) for depth, group in enumerate(backbone) for name in group}
    return scales | dict.fromkeys(head, head_lr_scale)
