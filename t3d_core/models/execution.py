"""How a network is run: precision, memory layout, recomputation, compilation. What it computes stays the same.

Legend: B clips, C = 3 channels, T frames, H x W pixels, D feature width.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from t3d_core.errors import UserError
from t3d_core.models.video_net import VideoNet

Precision = Literal["fp32", "bf16"]

# Sound kernels on CPU: 0.3 to 1 % for all untrained networks of the family, 3.2 % for an Inception3D with moved
# statistics. One convolution of T3D-121 that gives zeros: 23 % in blocks 1 and 2, 10 % in the third, 6 % in the last.
MAX_BF16_DIFFERENCE = 0.05


@dataclass(frozen=True)
class Execution:
    """How a network is run.

    Attributes:
        precision: `bf16` runs convolutions in bfloat16 by autocast; weights and what follows `features` stay float32.
        channels_last: Whether channels lie side by side in memory; never in bf16 on a CPU: it is wrong there.
        recompute: Whether layers keep their input alone for backward and compute the rest once more there.
        compile: Whether `torch.compile` makes kernels for the network: minutes at the first start on a machine, then
            they come from PyTorch's cache on disk (TORCHINDUCTOR_CACHE_DIR). Not with `recompute`, which PyTorch cannot
            compile where statistics are left alone.
        debug: Whether clips and features are searched for values that are not finite.
    """

    precision: Precision = "fp32"
    channels_last: bool = True
    recompute: bool = False
    compile: bool = False
    debug: bool = False

    def __post_init__(self) -> None:
        if self.compile and self.recompute:
            raise UserError("compile and recompute cannot be combined: choose one")

    def prepare(self, net: nn.Module, *, num_frames: int, size: int) -> None:
        """Set up every `VideoNet` in `net`, which is on its device already; `autocast` is left to the caller.

        Args:
            net: A network of the family, or one that contains some.
            num_frames: Frames of the clips that it will see.
            size: Their height and width in pixels.

        Raises:
            UserError: bf16 gives other features than float32 there.
        """
        for video_net in [module for module in net.modules() if isinstance(module, VideoNet)]:
            # On a CPU oneDNN's bf16 backward gives other weight gradients at every call, up to NaN, where maps are tiny
            # and their channels lie last; contiguous ones are right.
            is_cpu_bf16 = self.precision == "bf16" and next(video_net.parameters()).device.type == "cpu"
            if self.channels_last and not is_cpu_bf16:
                video_net.to(memory_format=torch.channels_last_3d)
            video_net.set_recompute(self.recompute)
            video_net.is_debugging = self.debug
            if self.precision == "bf16":
                check_bf16(video_net, num_frames=num_frames, size=size)
            if self.compile:
                video_net.features.compile()

    def autocast(self, device: torch.device) -> torch.autocast:
        """Return the context in which forward passes are to run."""
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16")


def check_bf16(net: VideoNet, *, num_frames: int, size: int) -> None:
    """Compare one forward pass in bf16 with one in float32, because kernels have been wrong (cuDNN 9.10.2).

    The kernels of backward, and those that a device picks for larger batches, are not compared.

    Args:
        net: A network on its device; its mode and its statistics are left as they are.
        num_frames: Frames of the clip, which is random.
        size: Its height and width in pixels.

    Raises:
        UserError: The features differ by more than rounding explains.
    """
    device = next(net.parameters()).device
    difference = bf16_difference(net, torch.randn(1, 3, num_frames, size, size, device=device))
    if math.isnan(difference):
        raise UserError("the network gives features that are not finite for a random clip: give other weights")
    if not difference <= MAX_BF16_DIFFERENCE:
        raise UserError(
            f"compute.precision bf16 gives other features than fp32 on {device} ({difference:.1%} apart, expected at "
            f"most {MAX_BF16_DIFFERENCE:.0%}; torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}): "
            "a kernel is wrong there. Use --compute.precision fp32 (under another --name), or another PyTorch or cuDNN"
        )


@torch.no_grad()
def bf16_difference(net: VideoNet, clip_BCTHW: Tensor) -> float:
    """Return |bf16 - fp32| / |fp32| (Euclidean norms) of the features of a clip, in evaluation mode."""
    was_training = net.training
    net.eval()
    plain_BD = net.forward_features(clip_BCTHW)
    with Execution(precision="bf16").autocast(clip_BCTHW.device):
        rounded_BD = net.forward_features(clip_BCTHW).float()
    net.train(was_training)
    return ((rounded_BD - plain_BD).norm() / plain_BD.norm()).item()
