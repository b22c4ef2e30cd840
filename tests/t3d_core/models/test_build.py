"""Networks built by name: counts of parameters, and the controls of T3D-121."""

import functools
from typing import get_args

import pytest
import torch

from t3d_core.models import CONTROLS, ModelKind, build_model, count_macs, count_parameters

PARAMETERS = {
    "t3d": 15_311_504,
    "t3d_121": 15_311_504,
    "t3d_169": 23_368_336,
    "densenet3d": 11_658_896,
    "densenet3d_121": 11_658_896,
    "densenet3d_169": 19_214_992,
    "resnet3d_18": 33_409_104,
    "resnet3d_34": 63_718_736,
    "resnet3d_50": 47_018_576,
    "res3d_18": 33_371_472,
    "inception3d": 12_697_264,
    "c3d": 79_645_520,
    "densenet3d_121_wide": 13_893_860,
    "t3d_121_depths_1": 11_658_896,
    "t3d_121_depths_1_3": 13_153_424,
    "t3d_121_depths_3": 29_550_224,
    "t3d_121_without_6": 14_876_816,
}


@functools.cache
def meta_net(kind):
    with torch.device("meta"):
        return build_model(kind, num_classes=400)


def pooled_gmacs(kind):
    net = meta_net(kind)
    net.set_transition_forms("pooled")
    return count_macs(net, (1, 3, 32, 224, 224)) / 1e9


@pytest.mark.parametrize("kind", get_args(ModelKind))
def test_every_kind_builds_its_net(kind):
    assert count_parameters(meta_net(kind)) == PARAMETERS[kind]


SMALLEST = {
    **dict.fromkeys(get_args(ModelKind), (16, 32)),
    "res3d_18": (8, 16),
    "inception3d": (8, 32),
}


@pytest.mark.parametrize("kind", get_args(ModelKind))
def test_every_kind_has_its_smallest_clip(kind):
    assert (meta_net(kind).min_num_frames, meta_net(kind).min_size) == SMALLEST[kind]


def test_the_strided_stem_needs_twice_the_frames():
    with torch.device("meta"):
        net = build_model("resnet3d_18", num_classes=3, stem="strided")
    assert (net.min_num_frames, net.min_size) == (32, 32)


@pytest.mark.parametrize("arguments", [{"temporal_depths": ((1, 6),) * 3}, {"ttl_preset": "official128"}])
@pytest.mark.parametrize("kind", CONTROLS[1:])
def test_a_control_keeps_its_depths_and_widths(kind, arguments):
    with pytest.raises(ValueError, match="a control of T3D-121 has temporal_depths"):
        build_model(kind, num_classes=3, **arguments)


@pytest.mark.parametrize("kind", [kind for kind in get_args(ModelKind) if kind.startswith(("t3d", "densenet3d"))])
def test_every_dense_kind_takes_the_arguments_of_a_small_net(kind):
    with torch.device("meta"):
        net = build_model(kind, num_classes=3, growth_rate=4, block_config=(2, 2, 2, 2), num_init_features=16)
    assert net.feature_dim < 64
    assert net.classifier.out_features == 3


def test_an_unknown_kind_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'resnet' is unknown; choose one of") as error:
        build_model("resnet", num_classes=400)
    assert set(get_args(ModelKind)) <= set(str(error.value).replace(",", "").split())


@pytest.mark.heavy
def test_the_wide_densenet_costs_what_t3d_121_costs():
    assert pooled_gmacs("densenet3d_121_wide") == pytest.approx(pooled_gmacs("t3d_121"), rel=0.001)


@pytest.mark.heavy
def test_the_control_of_depth_1_is_the_densenet():
    assert pooled_gmacs("t3d_121_depths_1") == pooled_gmacs("densenet3d_121")


def test_the_controls_of_other_depths_are_as_wide_as_t3d_121():
    depths = {}
    for kind in CONTROLS[1:]:
        transitions = meta_net(kind).transitions()
        assert [ttl.out_channels for ttl in transitions] == [128, 256, 512]
        depths[kind] = [tuple(branch.conv.kernel_size[0] for branch in ttl.branches) for ttl in transitions]
    assert depths == {
        "t3d_121_depths_1": [(1,)] * 3,
        "t3d_121_depths_1_3": [(1, 3)] * 3,
        "t3d_121_depths_3": [(3,)] * 3,
        "t3d_121_without_6": [(1, 3), (1, 3, 4), (1, 3, 4)],
    }
