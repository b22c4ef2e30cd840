"""The contract that every net keeps, on small clips and, where the net has such arguments, in a small form."""

import copy
import itertools
from typing import get_args

import pytest
import torch
from torch import nn

from t3d_core.model_names import TransitionForm
from t3d_core.models import T3D, DenseNet3D
from t3d_core.models.c3d import C3D
from t3d_core.models.inception3d import Inception3D
from t3d_core.models.recompute import RecomputableLayer
from t3d_core.models.res3d import Res3D
from t3d_core.models.resnet3d import ResNet3D

pytestmark = pytest.mark.heavy

DENSE = {"growth_rate": 4, "block_config": (2, 2, 2), "num_init_features": 16, "bn_size": 2}
NETS = {
    "DenseNet3D": (DenseNet3D, DENSE),
    "T3D": (T3D, {**DENSE, "temporal_depths": ((1, 3, 6), (1, 3, 4))}),
    "ResNet3D basic": (ResNet3D, {"block": "basic", "layers": (1, 1, 1, 1)}),
    "ResNet3D bottleneck strided": (ResNet3D, {"block": "bottleneck", "layers": (2, 1, 1, 1), "stem": "strided"}),
    "ResNet3D TTL": (
        ResNet3D,
        {"block": "basic", "layers": (1, 1, 1, 1), "ttl": True, "pool_time": (True, False, True)},
    ),
    "ResNet3D TTL mixed": (
        ResNet3D,
        {"block": "basic", "layers": (1, 1, 1, 1), "ttl": True, "ttl_stages": (3,), "ttl_preset": "official128"},
    ),
    "Res3D": (Res3D, {}),
    "Inception3D": (Inception3D, {}),
    "Inception3D TTL": (Inception3D, {"ttl": True, "ttl_stages": (2, 3, 4)}),
    "C3D": (C3D, {}),
}
WITH_TTL = [name for name, (_, arguments) in NETS.items() if arguments.get("ttl") or name == "T3D"]
every_net = pytest.mark.parametrize("name", NETS)


def build(name, num_classes=3, **more):
    torch.manual_seed(0)
    make, arguments = NETS[name]
    return make(num_classes, **arguments, **more)


def smallest_clip(net, batch=2, *, fewer_frames=0, fewer_pixels=0, **options):
    size = net.min_size - fewer_pixels
    return torch.randn(batch, 3, net.min_num_frames - fewer_frames, size, size, **options)


def grads(net):
    return {name: p.grad.clone() for name, p in net.named_parameters()}


@every_net
def test_without_classes_a_net_gives_features_of_its_width(name):
    with torch.device("meta"):
        net = build(name, num_classes=0)
        assert net(smallest_clip(net)).shape == (2, net.feature_dim)
        assert net.forward_features(smallest_clip(net)).shape == (2, net.feature_dim)


@every_net
def test_logits_are_the_head_of_the_features(name):
    net = build(name).eval()
    clip = smallest_clip(net)
    logits = net(clip)
    assert logits.shape == (2, 3)
    assert torch.equal(logits, net.classifier(net.forward_features(clip)))


@every_net
def test_a_clip_that_is_smaller_than_the_smallest_is_refused_with_the_minimum(name):
    with torch.device("meta"):
        net = build(name)
        told = f"at least {net.min_num_frames} frames of {net.min_size} x {net.min_size} px"
        for fewer in ({"fewer_frames": 1}, {"fewer_pixels": 1}):
            with pytest.raises(ValueError, match=told):
                net(smallest_clip(net, **fewer))


@every_net
def test_a_clip_of_four_channels_is_refused(name):
    with torch.device("meta"):
        net = build(name)
        with pytest.raises(ValueError, match=r"must be \(batch, 3 channels"):
            net(torch.empty(2, 4, net.min_num_frames, net.min_size, net.min_size))


@every_net
def test_sizes_that_do_not_divide_by_the_stride_pass(name):
    with torch.device("meta"):
        net = build(name)
        assert net(torch.empty(2, 3, net.min_num_frames + 3, net.min_size + 5, net.min_size + 18)).shape == (2, 3)


@every_net
def test_every_parameter_gets_a_gradient(name):
    net = build(name)
    net(smallest_clip(net, batch=3)).square().sum().backward()
    assert [p_name for p_name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


@every_net
def test_with_a_frozen_backbone_real_steps_move_the_linear_head_and_nothing_else_buffers_included(name):
    net = build(name, drop_rate=0.5).eval()
    net.freeze_backbone()
    net.train()
    clip = smallest_clip(net, batch=3)
    before = copy.deepcopy(net.state_dict())
    learning = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=0.1, momentum=0.9, weight_decay=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(clip), torch.tensor([0, 1, 2])).backward()
        optimizer.step()
        net.eval().train()  # as around a validation
    moved = {key for key, tensor in net.state_dict().items() if not torch.equal(tensor, before[key])}
    assert moved == {"classifier.weight", "classifier.bias"}


@every_net
def test_no_dropout_acts_on_the_features_of_a_frozen_backbone(name):
    net = build(name, drop_rate=0.5)
    net.freeze_backbone()
    clip = smallest_clip(net)
    with torch.no_grad():
        assert torch.equal(net.train().forward_features(clip), net.eval().forward_features(clip))


@every_net
def test_convolutions_start_with_he_initialisation_and_the_head_with_bias_0(name):
    net = build(name)
    weight = max((m.weight for m in net.features.modules() if isinstance(m, nn.Conv3d)), key=torch.numel)
    assert weight.std().item() == pytest.approx((2 / weight[0].numel()) ** 0.5, rel=0.05)
    assert not net.classifier.bias.any()


@every_net
def test_dropout_acts_in_training_only(name):
    net = build(name, drop_rate=0.5)
    clip = smallest_clip(net)
    with torch.no_grad():
        assert not torch.equal(net(clip), net(clip))
        net.eval()
        assert torch.equal(net(clip), net(clip))


@every_net
@pytest.mark.parametrize("drop_rate", [-0.1, 1.0])
def test_a_drop_rate_out_of_range_is_refused(name, drop_rate):
    with torch.device("meta"), pytest.raises(ValueError, match=rf"drop_rate {drop_rate} must be in \[0, 1\)"):
        build(name, drop_rate=drop_rate)


@every_net
def test_weights_survive_a_round_trip_through_the_state_dict(name):
    source = build(name)
    clip = smallest_clip(source)
    with torch.no_grad():
        source(clip)  # moves the batch-norm statistics
        target = build(name)
        target.load_state_dict(source.state_dict())
        assert torch.equal(source.eval()(clip), target.eval()(clip))


@every_net
def test_recomputed_activations_give_the_outputs_gradients_and_statistics_of_kept_ones(name):
    kept = build(name, drop_rate=0.3)
    recomputed = copy.deepcopy(kept)
    recomputed.set_recompute(True)
    assert any(isinstance(module, RecomputableLayer) for module in recomputed.modules())
    clip, outputs = smallest_clip(kept, batch=3), []
    for net in (kept, recomputed):
        torch.manual_seed(1)
        outputs.append(net(clip))
        outputs[-1].square().sum().backward()
    torch.testing.assert_close(outputs[1], outputs[0])
    torch.testing.assert_close(grads(recomputed), grads(kept))
    torch.testing.assert_close(dict(recomputed.named_buffers()), dict(kept.named_buffers()))


@pytest.mark.parametrize("name", WITH_TTL)
def test_all_transition_forms_give_the_same_logits_and_gradients(name):
    net = build(name).double()
    clip, found = smallest_clip(net, batch=3, dtype=torch.float64), {}
    for form in get_args(TransitionForm):
        net.set_transition_forms((form,) * len(net.transitions()))
        net.zero_grad()
        logits = net(clip)
        logits.square().sum().backward()
        found[form] = (logits.detach(), grads(net))
    for form, other in itertools.pairwise(found):
        torch.testing.assert_close(found[form], found[other], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", WITH_TTL)
def test_forms_given_at_the_start_are_those_of_the_ttls(name):
    with torch.device("meta"):
        forms = ("averaged", "pooled", "space_to_depth")[: len(build(name).transitions())]
        assert tuple(ttl.form for ttl in build(name, transition_forms=forms).transitions()) == forms
