"""A network becomes its parameters in groups from the input to the head: what layer-wise learning rates go by.

    T3D          conv0 norm0 | denseblock1 transition1 | denseblock2 transition2 | ... | denseblock4 norm5 | classifier
    ResNet3D     conv1 bn1   | layer1                  | layer2                  | ... | layer4            | classifier
    Inception3D  conv1 | conv2 | conv3 | inception3a inception3b | inception4a ... | ...             | classifier
    C3D          conv1 | conv2 | conv3a conv3b | ...   | fc6 | fc7                                         | classifier

Paper: not in it. The groups are the stages of each network: layers of one stage work on maps of one size.
"""

import re
from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from t3d_core.models.temporal_transition import TemporalTransitionLayer
from t3d_core.models.video_net import VideoNet


def depth_groups(net: VideoNet) -> list[dict[str, nn.Parameter]]:
    """Return the named parameters of every group, from the input to the head; each parameter is in exactly one.

    The last group is the head's; it is empty for a network without a head.
    """
    groups: list[dict[str, nn.Parameter]] = []
    stage_before = ""
    for name, part in _parts_by_depth(net):
        parameters = {f"{name}.{inner}": parameter for inner, parameter in part.named_parameters()}
        if not parameters:
            continue
        stage = _stage_of(name)
        if groups and (stage == stage_before or isinstance(part, _BatchNorm | TemporalTransitionLayer)):
            groups[-1] |= parameters
        else:
            groups.append(parameters)
        stage_before = stage
    head = {f"classifier.{name}": parameter for name, parameter in net.classifier.named_parameters()}
    return [*groups, head]


def _parts_by_depth(net: VideoNet) -> Iterator[tuple[str, nn.Module]]:
    """The parts before the head, in the order in which a clip passes them, with their names in the network."""
    for name, part in net.features.named_children():
        yield f"features.{name}", part
    for name, part in net.named_children():
        if name not in ("features", "classifier"):
            yield name, part


def _stage_of(name: str) -> str:
    """The name without the letter after its number: `inception4a` and `inception4b` are of one stage."""
    return re.sub(r"(?<=\d)[a-z]$", "", name)
