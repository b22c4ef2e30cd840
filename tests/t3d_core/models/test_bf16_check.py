"""Networks whose kernels are wrong in bfloat16 are refused, and sound ones pass: all kinds, at small sizes.

Clips have so many frames that no maps have two: there oneDNN 3.12 gives wrong gradients of weights on CPUs.
"""

import re

import pytest
import torch
from torch import nn

from t3d_core.models import T3D, build_model
from t3d_core.models.bf16_check import (
    MAX_CLIP_DIFFERENCE,
    MAX_FEATURE_DIFFERENCE,
    MAX_GRADIENT_DIFFERENCE,
    MAX_GRADIENT_DIFFERENCE_OF_A_WEIGHT,
    bf16_differences,
    check_bf16,
)
from t3d_core.models.execution import Execution

SMALL = {"growth_rate": 4, "block_config": (2, 2), "num_init_features": 16, "bn_size": 2}
OF_RUN = {"num_frames": 16, "size": 32, "batch_size": 3, "is_trained": True}
DENSE = {"growth_rate": 4, "block_config": (2, 2, 2, 2), "num_init_features": 24, "bn_size": 2}
KINDS = {
    "t3d": DENSE,
    "densenet3d": DENSE,
    "resnet3d_18": {},
    "res3d_18": {},
    "inception3d": {},
    "c3d": {},
}


LARGE = ("res3d_18", "c3d")
NEEDS_AVX512 = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() == "AVX2",
    reason="this CPU has no AVX-512, without which a large network in bf16 takes 3 to 4 minutes",
)


def new_net(**arguments):
    torch.manual_seed(0)
    return T3D(num_classes=3, **SMALL, temporal_depths=((1, 3, 6),), **arguments)


def with_first_convolution(kind):
    net = new_net()
    net.features.conv0.__class__ = kind
    return net


def in_bf16():
    return torch.is_autocast_enabled("cpu")


class TwiceInBf16(nn.Conv3d):
    """As a convolution of cuDNN 9.10.2 was."""

    def forward(self, x):
        return super().forward(x) * (2 if in_bf16() else 1)


class ZeroInBf16(nn.Conv3d):
    """A kernel that writes nothing."""

    def forward(self, x):
        return super().forward(x) * (0 if in_bf16() else 1)


class LosesTheClipInBf16(nn.Conv3d):
    """It sees other noise than it is given, which is the same for all clips."""

    def forward(self, x):
        if in_bf16():
            x = torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(3)).expand_as(x)
        return super().forward(x)


class SwapsClipsInBf16(nn.Conv3d):
    """It mixes up the clips of a batch."""

    def forward(self, x):
        return super().forward(x.roll(1, dims=0) if in_bf16() else x)


class _ChangesGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tensor, factor):
        ctx.factor = factor
        return tensor.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.factor, None


class NoGradientInBf16(nn.Conv3d):
    """Its backward kernel writes nothing into the gradient of the weight."""

    factor = 0.0

    def forward(self, x):
        weight = _ChangesGradients.apply(self.weight, self.factor if in_bf16() else 1.0)
        return self._conv_forward(x, weight, self.bias)


class TwiceTheGradientInBf16(NoGradientInBf16):
    factor = 2.0


class GradientIsNoNumberInBf16(NoGradientInBf16):
    factor = float("nan")


class NoGradientOfTheInputInBf16(nn.Conv3d):
    """What comes before it learns nothing."""

    def forward(self, x):
        return super().forward(_ChangesGradients.apply(x, 0.0) if in_bf16() else x)


@pytest.mark.heavy
@pytest.mark.parametrize("kind", [pytest.param(kind, marks=NEEDS_AVX512 if kind in LARGE else ()) for kind in KINDS])
@pytest.mark.parametrize("has_moved_statistics", [False, True])
def test_sound_networks_of_all_kinds_pass_with_room_to_the_limits(kind, has_moved_statistics):
    torch.manual_seed(0)
    net = build_model(kind, num_classes=3, **KINDS[kind])
    if has_moved_statistics:
        with torch.no_grad():
            net(2 * torch.randn(4, 3, 16, 32, 32) + 1)
    found = check_bf16(net, num_frames=48, size=32, batch_size=2, is_trained=True)
    assert 0 < found.features < 0.5 * MAX_FEATURE_DIFFERENCE
    assert 0 < found.clips < 0.5 * MAX_CLIP_DIFFERENCE
    assert 0 < found.gradients < 0.7 * MAX_GRADIENT_DIFFERENCE
    assert 0 < found.worst_gradient < 0.85 * MAX_GRADIENT_DIFFERENCE_OF_A_WEIGHT


@pytest.mark.parametrize("kernel", [TwiceInBf16, ZeroInBf16, LosesTheClipInBf16, SwapsClipsInBf16])
@pytest.mark.parametrize("is_trained", [False, True])
def test_a_forward_kernel_that_is_wrong_is_refused_before_the_run_and_not_in_fp32(kernel, is_trained):
    net = with_first_convolution(kernel)
    settings = OF_RUN | {"is_trained": is_trained}
    Execution().prepare(net, **settings)
    with pytest.raises(ValueError, match=r"^compute\.precision bf16 .* on cpu.*--compute.precision fp32"):
        Execution(precision="bf16").prepare(net, **settings)


def test_a_kernel_that_loses_the_clip_is_far_away_in_what_tells_clips_apart_whatever_their_common_part():
    net = with_first_convolution(LosesTheClipInBf16)
    assert bf16_differences(net, **OF_RUN).clips == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    "kernel", [NoGradientInBf16, TwiceTheGradientInBf16, GradientIsNoNumberInBf16, NoGradientOfTheInputInBf16]
)
@pytest.mark.parametrize("recompute", [False, True])
def test_wrong_gradients_are_refused_where_the_network_is_trained(kernel, recompute):
    net = new_net()
    net.features.denseblock2.denselayer1.conv2.__class__ = kernel
    execution = Execution(precision="bf16", recompute=recompute)
    execution.prepare(net, **OF_RUN | {"is_trained": False})
    with pytest.raises(ValueError, match=r"gives other gradients than fp32 on cpu, .* expected at most .*fp32"):
        execution.prepare(net, **OF_RUN)


def test_the_weight_whose_gradient_is_wrong_is_named():
    net = new_net()
    net.features.denseblock2.denselayer1.conv2.__class__ = NoGradientInBf16
    found = bf16_differences(net, **OF_RUN)
    assert found.worst_weight == "features.denseblock2.denselayer1.conv2.weight"
    assert found.worst_gradient == pytest.approx(1)


class WrongInLargeBatches(nn.Conv3d):
    def forward(self, x):
        return super().forward(x) * (2 if in_bf16() and len(x) > 5 else 1)


@pytest.mark.parametrize("is_trained", [False, True])
def test_a_kernel_of_the_runs_batch_size_is_compared(is_trained):
    net = with_first_convolution(WrongInLargeBatches)
    for batch_size in (1, 5):
        check_bf16(net, **OF_RUN | {"batch_size": batch_size, "is_trained": is_trained})
    with pytest.raises(ValueError, match="gives other features than fp32"):
        check_bf16(net, **OF_RUN | {"batch_size": 6, "is_trained": is_trained})


@NEEDS_AVX512
@pytest.mark.heavy
def test_one_convolution_of_t3d_121_that_is_wrong_or_loses_the_clip_is_enough():
    """A clip that is lost in the first one moves the features of white noise by 2 % alone."""
    torch.manual_seed(0)
    net = build_model("t3d_121", num_classes=0)
    settings = {"num_frames": 16, "size": 64, "batch_size": 4, "is_trained": False}
    sound = bf16_differences(net, **settings)
    assert sound.features < MAX_FEATURE_DIFFERENCE / 2
    assert sound.clips < MAX_CLIP_DIFFERENCE / 2
    for convolution, kernel in (
        (net.features.denseblock3.denselayer3.conv2, ZeroInBf16),
        (net.features.conv0, LosesTheClipInBf16),
    ):
        convolution.__class__ = kernel
        with pytest.raises(ValueError, match=r"gives other features than fp32|differences between clips"):
            check_bf16(net, **settings)
        convolution.__class__ = nn.Conv3d


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_gradients_are_those_of_the_same_clips_for_any_batch_size(batch_size):
    found = bf16_differences(new_net(), **OF_RUN | {"batch_size": batch_size})
    assert found.gradients < 0.3 * MAX_GRADIENT_DIFFERENCE


def test_weights_that_are_no_numbers_are_not_called_a_wrong_kernel():
    net = new_net()
    nn.init.constant_(net.features.conv0.weight, float("nan"))
    with pytest.raises(ValueError, match="not finite for a random clip"):
        check_bf16(net, **OF_RUN)


def test_the_check_leaves_mode_statistics_gradients_and_random_numbers_alone():
    net = new_net(drop_rate=0.5).train()
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    state = torch.get_rng_state()
    bf16_differences(net, **OF_RUN)
    assert net.training
    assert all(torch.equal(buffer, before[name]) for name, buffer in net.named_buffers())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_where_the_head_alone_is_trained_there_are_no_gradients_to_compare():
    net = new_net()
    net.freeze_backbone()
    assert bf16_differences(net, **OF_RUN).gradients == 0


def test_what_was_measured_is_one_line_with_the_time_it_took():
    [measured] = Execution(precision="bf16").prepare(new_net(), **OF_RUN)
    pattern = r"bf16 compared with fp32: features [\d.]+% apart, differences between clips [\d.]+%, gradients [\d.]+%"
    assert re.fullmatch(rf"{pattern}; took [\d.]+ s", str(measured))
    assert Execution().prepare(new_net(), **OF_RUN) == []
