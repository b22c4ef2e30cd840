"""DenseNet3D against Table 1, against torchvision's 2D DenseNet, and at its edges."""

import re

import pytest
import torch
from torch import nn
from torchvision.models import densenet121, densenet169
from torchvision.models.densenet import DenseNet as DenseNet2D

from t3d_core.models import T3D, DenseNet3D, count_parameters, densenet3d_121, densenet3d_169, t3d_121

pytestmark = pytest.mark.heavy

SMALL = {"growth_rate": 4, "block_config": (2, 2, 2, 2), "num_init_features": 8, "bn_size": 2}
TABLE_1_SHAPES = {
    "conv0": (64, 16, 112, 112),
    "pool0": (64, 16, 56, 56),
    "denseblock1": (256, 16, 56, 56),
    "transition1": (128, 8, 28, 28),
    "denseblock2": (512, 8, 28, 28),
    "transition2": (256, 4, 14, 14),
    "denseblock3": (1024, 4, 14, 14),
    "transition3": (512, 2, 7, 7),
    "denseblock4": (1024, 2, 7, 7),
}


def stage_shapes(net, clip_BCTHW):
    shapes = {}
    for name, stage in net.features.named_children():
        clip_BCTHW = stage(clip_BCTHW)
        shapes[name] = tuple(clip_BCTHW.shape[1:])
    return shapes


@pytest.mark.parametrize("make", [densenet3d_121, t3d_121])
def test_every_stage_has_the_output_size_of_table_1(make):
    with torch.device("meta"):
        shapes = stage_shapes(make(), torch.empty(1, 3, 32, 224, 224))
    assert {name: shapes[name] for name in TABLE_1_SHAPES} == TABLE_1_SHAPES


@pytest.mark.parametrize(
    ("make", "num_classes", "parameters"),
    [
        (densenet3d_121, 400, 11_658_896),
        (densenet3d_121, 101, 11_352_421),
        (densenet3d_169, 400, 19_214_992),
        (densenet3d_169, 101, 18_717_157),
    ],
)
def test_parameter_counts_are_exact(make, num_classes, parameters):
    with torch.device("meta"):
        assert count_parameters(make(num_classes=num_classes)) == parameters


@pytest.mark.parametrize(("make_3d", "make_2d"), [(densenet3d_121, densenet121), (densenet3d_169, densenet169)])
def test_each_3d_kernel_holds_three_times_the_weights_of_torchvisions_2d_kernel(make_3d, make_2d):
    with torch.device("meta"):
        expected = sum(p.numel() * (3 if p.ndim == 4 and p.shape[-1] > 1 else 1) for p in make_2d().parameters())
        assert count_parameters(make_3d(num_classes=1000)) == expected


def test_on_a_still_clip_a_net_with_centre_tap_kernels_equals_torchvisions_2d_densenet():
    torch.manual_seed(0)
    net_2d = DenseNet2D(num_classes=5, **SMALL).eval()
    for module in net_2d.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.bias, std=0.1)
    net_3d = DenseNet3D(num_classes=5, **SMALL).eval()
    weights_3d = net_3d.state_dict()
    for name, weight_2d in net_2d.state_dict().items():
        in_branch = re.sub(r"(transition\d)", r"\1.branches.0", name)
        weight_3d = weights_3d[in_branch]
        if weight_2d.ndim == 4:
            weight_3d.zero_()[:, :, weight_3d.shape[2] // 2] = weight_2d
        else:
            weight_3d.copy_(weight_2d)
    image = torch.randn(2, 3, 64, 64)
    still_clip = image[:, :, None].expand(-1, -1, 16, -1, -1)
    torch.testing.assert_close(net_3d(still_clip), net_2d(image))


def test_a_t3d_whose_ttls_have_only_depth_1_is_the_densenet3d():
    densenet = DenseNet3D(num_classes=3, **SMALL).eval()
    t3d = T3D(num_classes=3, temporal_depths=((1,), (1,), (1,)), **SMALL).eval()
    t3d.load_state_dict(densenet.state_dict())
    clip = torch.randn(2, 3, 16, 32, 32)
    assert torch.equal(t3d(clip), densenet(clip))


@pytest.mark.parametrize(("make", "feature_dim"), [(densenet3d_121, 1024), (densenet3d_169, 1664)])
def test_without_classes_the_net_gives_features(make, feature_dim):
    with torch.device("meta"):
        net = make(num_classes=0)
        assert net.feature_dim == feature_dim
        assert net(torch.empty(2, 3, 16, 32, 32)).shape == (2, feature_dim)


def test_reset_classifier_changes_the_classes_and_keeps_the_features():
    net = DenseNet3D(num_classes=7, **SMALL).eval()
    clip = torch.randn(2, 3, 16, 32, 32)
    before = net.forward_features(clip)
    net.reset_classifier(4)
    assert net(clip).shape == (2, 4)
    assert torch.equal(net.forward_features(clip), before)
    net.reset_classifier(0)
    assert torch.equal(net(clip), before)


def test_reset_classifier_keeps_the_precision_of_the_net():
    net = DenseNet3D(num_classes=7, **SMALL).double()
    net.reset_classifier(4)
    assert net.classifier.weight.dtype == torch.float64


@pytest.mark.parametrize(
    ("arguments", "num_frames", "size"),
    [
        ({}, 16, 32),
        ({"stem_pool_stride": (1, 2, 4)}, 16, 64),
        ({"pool_time": (True, False, False)}, 4, 32),
        ({"block_config": (2, 2)}, 4, 8),
        ({"stem_pool_stride": (2, 2, 2)}, 32, 32),
    ],
)
def test_the_smallest_clip_follows_from_stem_and_blocks_and_passes(arguments, num_frames, size):
    net = DenseNet3D(num_classes=3, **{**SMALL, **arguments})
    assert (net.min_num_frames, net.min_size) == (num_frames, size)
    assert net(torch.randn(2, 3, num_frames, size, size)).shape == (2, 3)


def test_a_clip_without_a_batch_dimension_is_refused():
    with pytest.raises(ValueError, match="must be \\(batch, 3 channels, frames, H, W\\)"):
        DenseNet3D(num_classes=3, **SMALL)(torch.randn(3, 16, 32, 32))


@pytest.mark.parametrize("block_config", [(), (2, 0)])
def test_a_net_without_layers_in_a_block_is_refused(block_config):
    with pytest.raises(ValueError, match="block_config"):
        DenseNet3D(block_config=block_config)


def test_a_negative_number_of_classes_is_refused():
    with pytest.raises(ValueError, match="num_classes -1"):
        DenseNet3D(num_classes=-1, **SMALL)
