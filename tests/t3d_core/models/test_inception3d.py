"""Inception3D: exact costs, the sizes of every stage, torchvision's GoogLeNet, TTLs, errors."""

import pytest
import torch
import torchvision
from torch import nn

from t3d_core.models import count_macs, count_parameters
from t3d_core.models.inception3d import inception3d

STAGE_SHAPES = {
    "conv1": (64, 16, 112, 112),
    "maxpool1": (64, 16, 56, 56),
    "conv3": (192, 16, 56, 56),
    "maxpool2": (192, 16, 28, 28),
    "inception3a": (256, 16, 28, 28),
    "inception3b": (480, 16, 28, 28),
    "maxpool3": (480, 8, 14, 14),
    "inception4a": (512, 8, 14, 14),
    "inception4d": (528, 8, 14, 14),
    "inception4e": (832, 8, 14, 14),
    "maxpool4": (832, 4, 7, 7),
    "inception5a": (832, 4, 7, 7),
    "inception5b": (1024, 4, 7, 7),
}


def stage_shapes(net, clip_BCTHW):
    shapes = {}
    for name, stage in net.features.named_children():
        clip_BCTHW = stage(clip_BCTHW)
        shapes[name] = tuple(clip_BCTHW.shape[1:])
    return shapes


def test_costs_are_exact():
    with torch.device("meta"):
        net = inception3d()
        assert count_parameters(net) == 12_697_264
        assert round(count_macs(net, (1, 3, 32, 224, 224)) / 1e9, 2) == 55.58


@pytest.mark.parametrize(
    ("arguments", "parameters"),
    [({}, 16_465_264), ({"ttl_stages": (2, 3, 4)}, 16_712_176), ({"ttl_preset": "official128"}, 23_456_112)],
)
def test_parameter_counts_with_ttls(arguments, parameters):
    with torch.device("meta"):
        assert count_parameters(inception3d(ttl=True, **arguments)) == parameters


def test_every_stage_has_the_size_of_i3d():
    with torch.device("meta"):
        shapes = stage_shapes(inception3d(), torch.empty(1, 3, 32, 224, 224))
    assert {name: shapes[name] for name in STAGE_SHAPES} == STAGE_SHAPES


def test_names_and_shapes_but_for_time_are_those_of_torchvisions_googlenet():
    with torch.device("meta"):
        state_2d = torchvision.models.googlenet(init_weights=False, aux_logits=False).state_dict()
        features = inception3d().features.state_dict()
    assert {name: (*tensor.shape[:2], *tensor.shape[3:]) for name, tensor in features.items()} == {
        name: tuple(tensor.shape) for name, tensor in state_2d.items() if not name.startswith("fc.")
    }


@pytest.mark.parametrize("size", [64, 45])
def test_it_equals_torchvisions_googlenet_frame_by_frame_where_kernels_see_one_frame(size):
    torch.manual_seed(0)
    net = inception3d(num_classes=1000).eval()
    net_2d = torchvision.models.googlenet(init_weights=False, aux_logits=False).eval()
    state = net.state_dict()
    for name, tensor in net_2d.state_dict().items():
        target = state[name.replace("fc.", "classifier.") if name.startswith("fc.") else f"features.{name}"]
        if tensor.ndim == 4:
            target.zero_()[:, :, target.shape[2] // 2] = tensor
        else:
            target.copy_(tensor)
    image = torch.randn(2, 3, size, size)
    with torch.no_grad():
        found, expected = net(image[:, :, None].expand(-1, -1, 11, -1, -1)), net_2d(image)
    torch.testing.assert_close(found, expected)


def test_a_convolution_has_no_bias_and_a_batch_norm_after_it_of_epsilon_1e_3():
    with torch.device("meta"):
        modules = [m for m in inception3d().features.modules() if isinstance(m, nn.Conv3d | nn.BatchNorm3d)]
    assert len(modules) == 2 * 57
    for conv, norm in zip(modules[::2], modules[1::2], strict=True):
        assert (conv.bias, conv.out_channels, norm.eps) == (None, norm.num_features, 1e-3)


def test_ttls_stand_in_place_of_the_pools():
    with torch.device("meta"):
        net = inception3d(ttl=True, ttl_stages=(2, 3, 4), growth_rate=32)
        shapes = stage_shapes(net, torch.empty(1, 3, 32, 224, 224))
    expected = {name.replace("maxpool", "transition"): shape for name, shape in STAGE_SHAPES.items()}
    expected["maxpool1"] = expected.pop("transition1")
    assert {name: shapes[name] for name in expected} == expected
    assert not {"maxpool2", "maxpool3", "maxpool4"} & set(shapes)
    depths = [tuple(b.conv.kernel_size[0] for b in ttl.branches) for ttl in net.transitions()]
    assert depths == [(1, 3, 6), (1, 3, 4), (1, 3, 4)]


def test_ttls_stand_after_stages_3_and_4_unless_told_otherwise():
    with torch.device("meta"):
        names = [name for name, _ in inception3d(ttl=True).features.named_children()]
    assert [name for name in names if name.startswith(("maxpool", "transition"))] == [
        "maxpool1",
        "maxpool2",
        "transition3",
        "transition4",
    ]


def test_a_ttl_that_keeps_time_lowers_the_fewest_frames():
    with torch.device("meta"):
        net = inception3d(ttl=True, ttl_stages=(1, 3, 4), growth_rate=16, pool_time=(False, False, True))
        assert (net.min_num_frames, net.min_size) == (4, 32)
        assert stage_shapes(net, torch.empty(2, 3, 4, 32, 32))["inception5b"] == (1024, 1, 1, 1)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"ttl_stages": (4, 5)}, r"ttl_stages \(4, 5\) must be some of \(1, 2, 3, 4\), ascending"),
        ({"ttl_stages": (2, 3), "pool_time": (True, True)}, "asks to halve frames after stage 2: this net keeps them"),
        ({"ttl_stages": (1,)}, "the TTL after stage 1 would have branches of .0, 32, 32. channels"),
        ({"temporal_depths": [(1, 3)]}, r"has 1 entries, but ttl_stages \(3, 4\) expect 2"),
        ({"ttl": False, "temporal_depths": [(1, 3)] * 2}, "temporal_depths .* is given, but this net has no TTL"),
    ],
)
def test_options_of_ttls_out_of_range_are_refused(arguments, told):
    with torch.device("meta"), pytest.raises(ValueError, match=told):
        inception3d(**{"ttl": True, **arguments})
