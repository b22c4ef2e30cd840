"""A network runs in bfloat16 and in float32: its features and its gradients must be the same except for rounding.

Kernels have been wrong: cuDNN 9.10.2 in forward passes, oneDNN 3.12 on CPUs in the gradients of 3x3x3 convolutions on
maps of two frames. Four unlike clips go through the network one by one in float32, and again in bfloat16 in batches of
the run's size, because a device picks its kernels by the size. The network is in evaluation mode: what a batch norm
computes in training, and how it is differentiated, is not compared.

Legend: K = 4 clips, B clips of a batch, N clips of all batches, C = 3 channels, T frames, H x W pixels, F numbers of a
clip's features.
"""

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from t3d_core.errors import UserError
from t3d_core.models.executable_net import ExecutableNet

NUM_CLIPS = 4

# Sound kernels on CPU (T3D-121, T3D-169, ResNet3D, Res3D, Inception3D and C3D, untrained and with moved statistics):
# features 0.3 to 1.1 %, differences between clips 0.6 to 2 %. A network that loses the clip is 100 % away in these.
MAX_FEATURE_DIFFERENCE = 0.05
MAX_CLIP_DIFFERENCE = 0.1
# The same of gradients, where rounding turns some ReLUs on or off: 3 to 20 % over all parameters, up to 44 % for one
# weight. A gradient that is zero, doubled or something else is 100 % away or more.
MAX_GRADIENT_DIFFERENCE = 0.5
MAX_GRADIENT_DIFFERENCE_OF_A_WEIGHT = 0.75
# The gradient of a weight that hardly matters is compared with this share of the norm of all gradients.
_SMALL_SHARE = 1e-3

Gradients = dict[str, Tensor]


class Bf16Differences(NamedTuple):
    """How far bfloat16 is from float32, as |bf16 - fp32| / |fp32| (Euclidean norms), and what it took to measure.

    Attributes:
        features: Of the features of all clips.
        clips: Of what tells clips apart: the features minus their mean over the clips.
        gradients: Of the gradients of all parameters; 0 where none were compared.
        worst_weight: Name of the weight (of two dimensions or more) whose gradient is farthest away, or "".
        worst_gradient: Of that gradient.
        seconds: Time that the comparison took.
    """

    features: float
    clips: float
    gradients: float
    worst_weight: str
    worst_gradient: float
    seconds: float

    def __str__(self) -> str:
        """Describe the differences for people, on one line."""
        of_gradients = f", gradients {self.gradients:.1%}" if self.worst_weight else ""
        return (
            f"bf16 compared with fp32: features {self.features:.1%} apart, differences between clips {self.clips:.1%}"
            f"{of_gradients}; took {self.seconds:.1f} s"
        )


class _Outcome(NamedTuple):
    feature_NF: Tensor
    gradients: Gradients


def check_bf16(net: ExecutableNet, *, num_frames: int, size: int, batch_size: int, is_trained: bool) -> Bf16Differences:
    """Compare a network in bf16 with itself in float32 on clips that it makes up.

    Args:
        net: A network on its device; its mode, statistics and gradients are left as they are.
        num_frames: Frames of a clip.
        size: Height and width of a clip.
        batch_size: Clips that the run sends through the network at once.
        is_trained: Whether gradients are compared as well.

    Raises:
        UserError: The features, the differences between clips or the gradients differ by more than rounding explains.
    """
    found = bf16_differences(net, num_frames=num_frames, size=size, batch_size=batch_size, is_trained=is_trained)
    device = next(net.parameters()).device
    cure = (
        f"(torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}): a kernel is wrong there. Use "
        "--compute.precision fp32 (under another --name), or another PyTorch or cuDNN"
    )
    of_weight = f" for {found.worst_weight}"
    for what, of_what, difference, limit in (
        ("features", "", found.features, MAX_FEATURE_DIFFERENCE),
        ("differences between clips", "", found.clips, MAX_CLIP_DIFFERENCE),
        ("gradients", of_weight, found.worst_gradient, MAX_GRADIENT_DIFFERENCE_OF_A_WEIGHT),
        ("gradients", " over all parameters", found.gradients, MAX_GRADIENT_DIFFERENCE),
    ):
        if not difference <= limit:  # nor if it is not a number
            raise UserError(
                f"compute.precision bf16 gives other {what} than fp32 on {device}, {difference:.1%} apart{of_what}, "
                f"expected at most {limit:.0%} {cure}"
            )
    return found


def bf16_differences(
    net: ExecutableNet, *, num_frames: int, size: int, batch_size: int, is_trained: bool
) -> Bf16Differences:
    """Measure what `check_bf16` judges; arguments are the same.

    Raises:
        UserError: The features are not finite in float32.
    """
    started, was_training = time.monotonic(), net.training
    clip_KCTHW = _unlike_clips(num_frames, size).to(next(net.parameters()).device)
    place_N = torch.arange(max(batch_size, -(-NUM_CLIPS // batch_size) * batch_size)) % NUM_CLIPS
    parameters = {name: each for name, each in net.named_parameters() if is_trained and each.requires_grad}
    net.eval()
    plain = _run(net, clip_KCTHW, torch.arange(NUM_CLIPS).split(1), parameters, is_bf16=False)
    rounded = _run(net, clip_KCTHW, place_N.split(batch_size), parameters, is_bf16=True)
    net.train(was_training)
    plain_NF = plain.feature_NF[place_N]
    if not plain_NF.isfinite().all():
        raise UserError("the network gives features that are not finite for a random clip: give other weights")
    gradients, (worst_gradient, worst_weight) = _compare_gradients(rounded.gradients, plain.gradients)
    return Bf16Differences(
        features=_difference(rounded.feature_NF, plain_NF),
        clips=_difference(rounded.feature_NF - rounded.feature_NF.mean(dim=0), plain_NF - plain_NF.mean(dim=0)),
        gradients=gradients,
        worst_weight=worst_weight,
        worst_gradient=worst_gradient,
        seconds=time.monotonic() - started,
    )


def _unlike_clips(num_frames: int, size: int) -> Tensor:
    """Clips of other colours, shapes and movements: white noise alone gives almost the same features, clip by clip."""
    generator = torch.Generator().manual_seed(0)
    colour = torch.randn(NUM_CLIPS, 3, 1, 1, 1, generator=generator)
    blobs = torch.randn(NUM_CLIPS, 3, 4, 4, 4, generator=generator)
    noise = torch.randn(NUM_CLIPS, 3, num_frames, size, size, generator=generator)
    return colour + functional.interpolate(blobs, size=(num_frames, size, size), mode="trilinear") + noise / 2


def _run(
    net: ExecutableNet,
    clip_KCTHW: Tensor,
    batches: Sequence[Tensor],
    parameters: Mapping[str, nn.Parameter],
    *,
    is_bf16: bool,
) -> _Outcome:
    """Give the features of every place of every batch, and the gradients of a random direction of each clip's features.

    A clip that comes more than once counts as once, so that the gradients are the same for any batches.
    """
    count_K = torch.cat(list(batches)).bincount()
    features: list[Tensor] = []
    gradients: Gradients = {}
    for place_B in batches:
        with (
            torch.set_grad_enabled(bool(parameters)),
            torch.autocast(clip_KCTHW.device.type, dtype=torch.bfloat16, enabled=is_bf16),
        ):
            feature_BF = net.forward_features(clip_KCTHW[place_B]).float().unflatten(0, (len(place_B), -1)).flatten(1)
        features.append(feature_BF.detach())
        if feature_BF.requires_grad:
            direction_BF = _directions(feature_BF.shape[1])[place_B] / count_K[place_B, None]
            loss = (feature_BF * direction_BF.to(feature_BF.device)).sum()
            for name, gradient in _gradients_of(loss, parameters).items():
                gradients[name] = gradients[name] + gradient if name in gradients else gradient
    return _Outcome(torch.cat(features), gradients)


def _directions(num_numbers: int) -> Tensor:
    return torch.randn(NUM_CLIPS, num_numbers, generator=torch.Generator().manual_seed(1))


def _gradients_of(loss: Tensor, parameters: Mapping[str, nn.Parameter]) -> Gradients:
    """The gradients of those parameters that the loss follows from; a head does not make features."""
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return {name: each for name, each in zip(parameters, found, strict=True) if each is not None}


def _compare_gradients(found: Gradients, expected: Gradients) -> tuple[float, tuple[float, str]]:
    """Return the difference over all gradients, and that of the weight with the largest, with its name."""
    if not expected:
        return 0.0, (0.0, "")
    norm_of_all = torch.stack([each.norm() for each in expected.values()]).norm()
    distances = {name: (found.get(name, torch.zeros_like(each)) - each).norm() for name, each in expected.items()}
    of_weights = [
        (_finite_or_inf(distances[name] / each.norm().clamp(min=_SMALL_SHARE * norm_of_all.item())), name)
        for name, each in expected.items()
        if each.ndim > 1
    ]
    return _finite_or_inf(torch.stack(list(distances.values())).norm() / norm_of_all), max(of_weights)


def _difference(found: Tensor, expected: Tensor) -> float:
    return _finite_or_inf((found - expected).norm() / expected.norm())


def _finite_or_inf(value: Tensor) -> float:
    """A number that compares: NaN is as far away as anything."""
    return torch.nan_to_num(value, nan=float("inf"), posinf=float("inf")).item()
