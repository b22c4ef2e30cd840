"""Counted costs against the figures of the design, arithmetic by hand, and what a real pass keeps."""

import functools

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from t3d_core.models import (
    T3D,
    build_model,
    count_macs,
    count_parameters,
    count_saved_bytes,
    count_training_macs,
)

SMALL = {"growth_rate": 4, "block_config": (2, 2, 2, 2), "num_init_features": 16, "bn_size": 2}

CLIP = (1, 3, 32, 224, 224)


@functools.cache
def meta_net(kind, **arguments):
    with torch.device("meta"):
        return build_model(kind, num_classes=400, **arguments)


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("kind", "arguments", "num_frames", "size", "gmacs"),
    [
        ("densenet3d_121", {}, 32, 224, 62.55),
        ("t3d_121", {}, 32, 224, 102.85),
        ("t3d_121", {"ttl_preset": "thirds"}, 32, 224, 130.14),
        ("densenet3d_169", {}, 32, 224, 64.86),
        ("t3d_169", {}, 32, 224, 105.56),
        ("densenet3d_121", {}, 16, 112, 7.81),
        ("t3d_121", {}, 16, 112, 12.85),
        ("densenet3d_121", {}, 32, 112, 15.62),
        ("t3d_121", {}, 32, 112, 25.69),
        ("densenet3d_121", {}, 16, 224, 31.27),
        ("t3d_121", {}, 16, 224, 51.43),
    ],
)
def test_multiply_adds_of_the_papers_nets(kind, arguments, num_frames, size, gmacs):
    net = meta_net(kind, transition_forms="literal", **arguments)
    assert round(count_macs(net, (1, 3, num_frames, size, size)) / 1e9, 2) == gmacs


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("kind", "forms", "gmacs"),
    [
        ("densenet3d_121", "pooled", 60.03),
        ("t3d_121", "pooled", 71.25),
        ("t3d_121", "averaged", 65.07),
        ("t3d_121", "space_to_depth", 72.33),
        ("t3d_121", ("pooled", "literal", "literal"), 77.88),
        ("t3d_121", ("pooled", "averaged", "averaged"), 69.95),
        ("resnet3d_18", None, 65.72),
        ("resnet3d_34", None, 100.4),
        ("resnet3d_50", None, 79.69),
        ("res3d_18", None, 325.57),
        ("inception3d", None, 55.58),
        ("c3d", None, 308.03),
    ],
)
def test_multiply_adds_of_pooled_transitions_and_of_other_families(kind, forms, gmacs):
    arguments = {} if forms is None else {"transition_forms": forms}
    assert round(count_macs(meta_net(kind, **arguments), CLIP) / 1e9, 2) == gmacs


@pytest.mark.heavy
def test_t3d_121_keeps_1_46_gib_a_clip_for_backward_and_0_26_where_layers_are_recomputed():
    net = meta_net("t3d_121", transition_forms="literal")
    assert round(count_saved_bytes(net, CLIP) / 2**30, 2) == 1.46
    net.set_recompute(True)
    kept = count_saved_bytes(net, CLIP)
    net.set_recompute(False)
    assert round(kept / 2**30, 2) == 0.26


def test_a_training_step_costs_three_forward_passes_and_less_than_one_more_where_layers_are_recomputed():
    net, shape = T3D(num_classes=3, **SMALL), (2, 3, 16, 32, 32)
    forward = count_macs(net, shape)
    first_layer = 16 * 3 * 3 * 7 * 7 * 2 * (8 * 16 * 16)  # the clip gets no gradient
    plain = count_training_macs(net, shape)
    assert plain == 3 * forward - first_layer
    net.set_recompute(True)
    assert plain < count_training_macs(net, shape) < plain + forward


def test_the_t3d_has_1_3_times_the_parameters_of_the_densenet3d():
    ratio = count_parameters(meta_net("t3d_121")) / count_parameters(meta_net("densenet3d_121"))
    assert round(ratio, 3) == 1.313


def test_multiply_adds_of_a_convolution_and_a_linear_layer_by_hand():
    net = nn.Sequential(nn.Conv3d(3, 5, kernel_size=(3, 1, 1), bias=False), nn.Flatten(), nn.Linear(5 * 2 * 4 * 4, 7))
    assert count_macs(net, (2, 3, 4, 4, 4)) == 2 * (5 * 3 * 3 * (2 * 4 * 4) + 5 * 2 * 4 * 4 * 7)


def test_a_storage_kept_twice_counts_once_and_weights_do_not_count():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(8, 4), nn.Linear(8, 4)

        def forward(self, x):
            return self.first(x) + self.second(x)

    assert count_saved_bytes(Twice(), (5, 8)) == 5 * 8 * 4


def test_counted_bytes_are_those_that_a_real_pass_keeps():
    net, clip = T3D(num_classes=3, **SMALL), torch.randn(2, 3, 16, 32, 32)
    own = {tensor.data_ptr() for tensor in (*net.parameters(), *net.buffers())}
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = net(clip)  # held, so that no address is used twice
    assert logits.requires_grad
    assert sum(n for address, n in kept.items() if address not in own) == count_saved_bytes(net, clip.shape)


def test_counting_leaves_the_net_as_it_was():
    net = T3D(num_classes=3, **SMALL).eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    count_macs(net, (2, 3, 16, 32, 32))
    count_saved_bytes(net, (2, 3, 16, 32, 32))
    assert not net.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
