"""C3D with batch norm: exact costs, the sizes of every stage, clips of any size."""

import pytest
import torch
from torch import nn

from t3d_core.models import count_macs, count_parameters
from t3d_core.models.c3d import c3d

POOL_SHAPES = {
    "pool1": (64, 16, 56, 56),
    "pool2": (128, 8, 28, 28),
    "pool3": (256, 4, 14, 14),
    "pool4": (512, 2, 7, 7),
    "pool5": (512, 1, 4, 4),
}


def test_costs_are_exact():
    with torch.device("meta"):
        net = c3d()
        assert count_parameters(net) == 79_645_520
        # 38.55 G by hand: convolutions 38.4966 G, fc6 and fc7 0.0503 G, head 0.0016 G.
        assert round(count_macs(net.eval(), (1, 3, 16, 112, 112)) / 1e9, 2) == 38.55


def test_every_pool_has_the_size_of_tran_et_al():
    with torch.device("meta"):
        maps, shapes = torch.empty(1, 3, 16, 112, 112), {}
        for name, layer in c3d().features.named_children():
            maps = layer(maps)
            shapes[name] = tuple(maps.shape[1:])
    assert {name: shapes[name] for name in POOL_SHAPES} == POOL_SHAPES


def test_at_16_x_112_x_112_the_adaptive_pool_changes_nothing():
    with torch.device("meta"):
        net = c3d(num_classes=0)
    maps = torch.randn(2, 512, 1, 4, 4)
    assert torch.equal(net.fit_maps(maps), maps)


@pytest.mark.parametrize("shape", [(16, 32, 32), (16, 171, 128), (32, 224, 224)])
def test_clips_of_other_sizes_pass(shape):
    with torch.device("meta"):
        assert c3d(num_classes=5)(torch.empty(2, 3, *shape)).shape == (2, 5)


def test_a_batch_norm_stands_after_every_convolution_and_fully_connected_layer_none_of_which_has_a_bias():
    with torch.device("meta"):
        net = c3d(num_classes=0)
    modules = [m for m in net.modules() if isinstance(m, nn.Conv3d | nn.Linear | nn.BatchNorm3d | nn.BatchNorm1d)]
    kinds = [type(module) for module in modules]
    assert kinds == [nn.Conv3d, nn.BatchNorm3d] * 8 + [nn.Linear, nn.BatchNorm1d] * 2
    assert all(module.bias is None for module in modules[::2])


def test_dropout_stands_after_both_fully_connected_layers():
    with torch.device("meta"):
        net = c3d(num_classes=3, drop_rate=0.4)
    assert (net.drop6.p, net.head_drop.p) == (0.4, 0.4)


@pytest.mark.heavy
def test_fully_connected_layers_start_with_he_initialisation():
    weight = c3d(num_classes=0).fc6.linear.weight
    assert weight.std().item() == pytest.approx((2 / 8192) ** 0.5, rel=0.02)


@pytest.mark.heavy
def test_what_enters_fc7_is_dropped_out_in_training():
    torch.manual_seed(0)
    net = c3d(num_classes=0, drop_rate=0.5).train()
    net.head_drop.p = 0.0
    clip = torch.randn(2, 3, 16, 32, 32)
    assert not torch.equal(net(clip), net(clip))
