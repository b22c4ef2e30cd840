"""A trained network becomes the same function with fewer steps: batch norms go into the convolutions before them.

What comes out is for inference only. A batch norm that stands before its ReLU and convolution, as the first of a dense
layer does, has no convolution to go into and stays.
"""

import copy
import itertools
from collections.abc import Iterator

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from t3d_core.models.video_net import VideoNet


def fold_batch_norms(net: VideoNet) -> VideoNet:
    """Return a copy of `net` in evaluation mode, whose convolutions have taken up the batch norms that follow them.

    Args:
        net: Any network of the family; it is left as it is.
    """
    folded = copy.deepcopy(net).eval()
    for module in folded.modules():
        for conv_name, norm_name in _pairs(module):
            fused = fuse_conv_bn_eval(getattr(module, conv_name), getattr(module, norm_name))
            setattr(module, conv_name, fused)
            setattr(module, norm_name, nn.Identity())
    return folded


def _pairs(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield the names of every convolution among the children of `module` and of the batch norm right behind it.

    Children stand in the order in which they act. In a temporal branch the norm comes first, and what comes after the
    convolution is another branch's.
    """
    children = list(module.named_children())
    for (first_name, first), (second_name, second) in itertools.pairwise(children):
        if isinstance(first, nn.Conv3d) and isinstance(second, nn.BatchNorm3d):
            yield first_name, second_name
