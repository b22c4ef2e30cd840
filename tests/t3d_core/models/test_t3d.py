"""T3D: exact parameter counts of every preset, small nets, errors."""

from typing import get_args

import pytest
import torch

from t3d_core.models import T3D, TransitionForm, count_parameters, t3d_121, t3d_169

SMALL = {"growth_rate": 4, "block_config": (2, 2, 2, 2), "num_init_features": 16, "bn_size": 2}
PRESETS = ("growth", "thirds", "official128")


@pytest.mark.parametrize(
    ("make", "preset", "num_classes", "parameters"),
    [
        (t3d_121, "growth", 400, 15_311_504),
        (t3d_121, "growth", 101, 15_005_029),
        (t3d_121, "thirds", 400, 25_789_072),
        (t3d_121, "thirds", 101, 25_482_597),
        (t3d_121, "official128", 400, 29_731_728),
        (t3d_121, "official128", 101, 29_463_525),
        (t3d_169, "growth", 400, 23_368_336),
        (t3d_169, "growth", 101, 22_870_501),
        (t3d_169, "thirds", 400, 39_358_352),
        (t3d_169, "official128", 400, 38_374_032),
    ],
)
def test_parameter_counts_are_exact(make, preset, num_classes, parameters):
    with torch.device("meta"):
        assert count_parameters(make(num_classes=num_classes, ttl_preset=preset)) == parameters


@pytest.mark.parametrize(("preset", "feature_dim"), [("growth", 1024), ("thirds", 1024), ("official128", 896)])
def test_feature_width_of_t3d_121(preset, feature_dim):
    with torch.device("meta"):
        net = t3d_121(ttl_preset=preset)
        assert net.feature_dim == feature_dim
        assert net.forward_features(torch.empty(2, 3, 16, 32, 32)).shape == (2, feature_dim)


@pytest.mark.parametrize(
    ("preset", "depths"),
    [("growth", ((1, 3, 6), (1, 3, 4), (1, 3, 4))), ("official128", ((1, 3, 4), (1, 3, 4), (1, 3, 4)))],
)
def test_each_preset_has_its_own_depths(preset, depths):
    with torch.device("meta"):
        features = t3d_121(ttl_preset=preset).features
    ttls = (features.transition1, features.transition2, features.transition3)
    assert tuple(tuple(b.conv.kernel_size[0] for b in ttl.branches) for ttl in ttls) == depths


def test_only_the_released_code_mixes_the_branches():
    with torch.device("meta"):
        mixes = {preset: t3d_121(ttl_preset=preset).features.transition1.mix for preset in PRESETS}
    assert {preset for preset, mix in mixes.items() if mix is not None} == {"official128"}
    conv = mixes["official128"].conv
    assert (conv.in_channels, conv.out_channels, conv.kernel_size) == (384, 384, (1, 1, 1))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_parameter_of_a_small_net_gets_a_gradient(preset):
    torch.manual_seed(0)
    net = T3D(num_classes=3, ttl_preset=preset, **SMALL)
    net(torch.randn(2, 3, 16, 32, 32)).square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_net_of_two_blocks_takes_one_entry_of_depths():
    net = T3D(
        num_classes=3, growth_rate=4, block_config=[2, 3], num_init_features=16, bn_size=2, temporal_depths=[[1, 2, 5]]
    )
    assert net(torch.randn(2, 3, 5, 20, 12)).shape == (2, 3)


def test_a_net_of_one_block_has_no_ttl():
    net = T3D(num_classes=3, growth_rate=4, block_config=(2,), num_init_features=8, bn_size=2, temporal_depths=())
    assert net(torch.randn(2, 3, 4, 8, 8)).shape == (2, 3)


def test_sizes_that_do_not_divide_by_the_stride_pass():
    assert T3D(num_classes=3, **SMALL)(torch.randn(2, 3, 19, 37, 50)).shape == (2, 3)


@pytest.mark.parametrize(
    "arguments",
    [{"block_config": (2, 2)}, {"temporal_depths": ((1, 3),)}],
    ids=["too many for fewer blocks", "too few"],
)
def test_depths_that_do_not_fit_the_blocks_are_refused(arguments):
    with pytest.raises(ValueError, match="transitions: give one entry for each"):
        T3D(num_classes=3, **{**SMALL, **arguments})


def test_a_net_too_narrow_for_its_ttl_is_refused_with_the_block():
    with pytest.raises(ValueError, match="the TTL after block 1"):
        T3D(num_classes=3, **{**SMALL, "num_init_features": 4})


def test_an_unknown_preset_is_refused():
    with pytest.raises(ValueError, match="'halves' is unknown"):
        T3D(num_classes=3, ttl_preset="halves", **SMALL)


@pytest.mark.heavy
def test_t3d_121_is_the_same_in_every_form_forward_and_backward():
    torch.manual_seed(0)
    net = t3d_121(num_classes=5).double()
    clip = torch.randn(1, 3, 16, 64, 64, dtype=torch.float64)
    found = {}
    for form in get_args(TransitionForm):
        net.set_transition_forms(form)
        net.zero_grad()
        logits = net.train()(clip)
        logits.square().sum().backward()
        found[form] = logits.detach(), [parameter.grad.clone() for parameter in net.parameters()]
    for form in ("pooled", "averaged", "space_to_depth"):
        torch.testing.assert_close(found[form], found["literal"], rtol=1e-7, atol=1e-7)
