"""Every switch against the plain path: the same results, gradients and running statistics, but for rounding."""

import copy

import pytest
import torch
from torch import nn

from t3d_core.models import T3D, build_model
from t3d_core.models.execution import Execution

SMALL = {
    "growth_rate": 4,
    "block_config": (2, 2),
    "num_init_features": 16,
    "bn_size": 2,
    "temporal_depths": ((1, 3, 6),),
}
CLIP = (2, 3, 16, 32, 32)
OF_RUN = {"num_frames": CLIP[2], "size": CLIP[3], "batch_size": CLIP[0], "is_trained": True}


def new_net(**arguments):
    torch.manual_seed(0)
    return T3D(num_classes=3, **SMALL, **arguments)


def one_step(net, execution, *, dtype=torch.float64):
    """Return the logits, the gradients by name and the buffers after a training pass."""
    net = copy.deepcopy(net).to(dtype)
    execution.prepare(net, **OF_RUN)
    clip = torch.randn(CLIP, dtype=dtype, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(2)  # dropout
    with execution.autocast(clip.device):
        logits = net.train()(clip)
    logits.square().sum().backward()
    return logits.detach(), {n: p.grad for n, p in net.named_parameters()}, dict(net.named_buffers())


@pytest.mark.parametrize(
    "execution",
    [Execution(), Execution(recompute=True), Execution(channels_last=False, recompute=True), Execution(debug=True)],
    ids=["channels_last", "channels_last, recompute", "recompute", "debug"],
)
@pytest.mark.parametrize("drop_rate", [0.0, 0.5])
def test_a_switch_changes_neither_results_nor_gradients_nor_statistics(execution, drop_rate):
    net = new_net(drop_rate=drop_rate)
    plain = one_step(net, Execution(channels_last=False))
    torch.testing.assert_close(one_step(net, execution), plain, rtol=1e-9, atol=1e-11)


def test_recomputing_does_nothing_where_no_gradient_is_wanted():
    net = new_net().eval()
    net.set_recompute(True)
    with torch.inference_mode():
        assert net(torch.randn(CLIP)).shape == (2, 3)


def test_channels_last_reaches_every_convolution():
    net = new_net()
    Execution().prepare(net, **OF_RUN)
    convs = [module.weight for module in net.modules() if isinstance(module, nn.Conv3d)]
    assert all(weight.is_contiguous(memory_format=torch.channels_last_3d) for weight in convs)


def test_bf16_changes_the_features_by_rounding_alone_and_keeps_the_weights_in_float32():
    net = new_net()
    logits, gradients, buffers = one_step(net, Execution(precision="bf16"), dtype=torch.float32)
    plain_logits, plain_gradients, plain_buffers = one_step(net, Execution(), dtype=torch.float32)
    assert {grad.dtype for grad in gradients.values()} == {torch.float32}
    torch.testing.assert_close(logits.float(), plain_logits, rtol=0, atol=0.1)
    torch.testing.assert_close(
        buffers["features.norm0.running_var"], plain_buffers["features.norm0.running_var"], rtol=0.02, atol=1e-3
    )
    name = "classifier.weight"
    assert torch.cosine_similarity(gradients[name].flatten(), plain_gradients[name].flatten(), dim=0) > 0.99


def test_a_net_that_is_cast_to_bf16_itself_gives_bf16():
    net = build_model("resnet3d_18", num_classes=3).bfloat16().eval()
    assert net(torch.randn(CLIP, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_scores_and_features_are_float32_where_convolutions_run_in_bf16():
    net = new_net()
    with Execution(precision="bf16").autocast(torch.device("cpu")):
        assert net(torch.randn(CLIP)).dtype == torch.float32
        assert net.forward_features(torch.randn(CLIP)).dtype == torch.float32
        assert net.features(torch.randn(CLIP)).dtype == torch.bfloat16


@pytest.mark.filterwarnings("ignore:User provided device_type of 'cuda'")
def test_autocast_is_that_of_the_device():
    assert Execution(precision="bf16").autocast(torch.device("cuda")).device == "cuda"


@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_in_bf16_are_the_same_at_every_call(recompute):
    """With channels last they were not: maps of 1 x 2 x 2 in the third block."""
    torch.manual_seed(0)
    net = build_model("t3d", num_classes=8, growth_rate=4, block_config=(2, 2, 2, 2), num_init_features=24, bn_size=2)
    execution = Execution(precision="bf16", recompute=recompute)
    first = one_step(net, execution, dtype=torch.float32)
    for _ in range(3):
        torch.testing.assert_close(one_step(net, execution, dtype=torch.float32), first, rtol=0, atol=0)


@pytest.mark.heavy
def test_compile_makes_kernels_of_the_features_in_forward_features_too():
    net = new_net()
    assert net.features._compiled_call_impl is None
    Execution(compile=True).prepare(net, **OF_RUN)
    assert net.features._compiled_call_impl is not None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_told_while_debugging_alone(value):
    net, clip = new_net(), torch.randn(CLIP)
    clip[1, 0, 3, 4, 5] = value
    net(clip)
    Execution(debug=True).prepare(net, **OF_RUN)
    with pytest.raises(ValueError, match=r"the clips of a batch .* not finite .* \[0, 1\] of 49152"):
        net(clip)


def test_compile_and_recompute_together_are_refused():
    with pytest.raises(ValueError, match="compile and recompute cannot be combined"):
        Execution(compile=True, recompute=True)


def test_features_that_are_not_finite_are_told_while_debugging():
    net = new_net()
    Execution(debug=True).prepare(net, **OF_RUN)
    nn.init.constant_(net.features.denseblock2.denselayer1.conv2.weight, float("inf"))
    with pytest.raises(ValueError, match=r"the features of a batch .* not finite"):
        net(torch.randn(CLIP))


@pytest.mark.slow
def test_compiled_kernels_give_the_same():
    net = new_net()
    plain = one_step(net, Execution(channels_last=False))
    found = one_step(net, Execution(compile=True))
    torch.testing.assert_close(found, plain, rtol=1e-8, atol=1e-9)
