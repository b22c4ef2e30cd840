"""ResNet3D: exact costs, the sizes of every stage, torchvision's 2D ResNet, TTLs, errors."""

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.video.resnet import BasicBlock as TorchvisionBlock
from torchvision.models.video.resnet import Conv3DSimple, VideoResNet

from t3d_core.models import count_macs, count_parameters
from t3d_core.models.resnet3d import ResNet3D, resnet3d_18, resnet3d_34, resnet3d_50

TINY = {"block": "basic", "layers": (1, 1, 1, 1)}
MAKE_2D = {
    resnet3d_18: torchvision.models.resnet18,
    resnet3d_34: torchvision.models.resnet34,
    resnet3d_50: torchvision.models.resnet50,
}


def stage_shapes(net, clip_BCTHW):
    shapes = {}
    for name, stage in net.features.named_children():
        clip_BCTHW = stage(clip_BCTHW)
        shapes[name] = tuple(clip_BCTHW.shape[1:])
    return shapes


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("make", "parameters", "gmacs_hara", "gmacs_strided"),
    [
        (resnet3d_18, 33_409_104, 65.72, 32.86),
        (resnet3d_34, 63_718_736, 100.40, 50.20),
        (resnet3d_50, 47_018_576, 79.69, 39.85),
    ],
)
def test_costs_are_exact(make, parameters, gmacs_hara, gmacs_strided):
    with torch.device("meta"):
        assert count_parameters(make()) == parameters
        for stem, gmacs in (("hara", gmacs_hara), ("strided", gmacs_strided)):
            assert round(count_macs(make(stem=stem), (1, 3, 32, 224, 224)) / 1e9, 2) == gmacs


@pytest.mark.parametrize(
    ("make", "arguments", "parameters"),
    [
        (resnet3d_18, {}, 33_953_488),
        (resnet3d_50, {}, 50_228_304),
        (resnet3d_50, {"ttl_preset": "thirds"}, 76_734_288),
        (resnet3d_50, {"ttl_preset": "official128"}, 60_433_744),
    ],
)
def test_parameter_counts_with_ttls(make, arguments, parameters):
    with torch.device("meta"):
        assert count_parameters(make(ttl=True, **arguments)) == parameters


@pytest.mark.parametrize(("stem", "frames"), [("hara", (32, 16, 16, 8, 4, 2)), ("strided", (16, 8, 8, 4, 2, 1))])
@pytest.mark.parametrize("make", [resnet3d_18, resnet3d_50])
def test_every_stage_has_its_size(make, stem, frames):
    with torch.device("meta"):
        shapes = stage_shapes(make(stem=stem), torch.empty(1, 3, 32, 224, 224))
    names, widths = ("conv1", "maxpool", "layer1", "layer2", "layer3", "layer4"), (64, 64, 64, 128, 256, 512)
    expansion = 1 if make is resnet3d_18 else 4
    assert {name: shapes[name] for name in names} == {
        name: (width * (expansion if name.startswith("layer") else 1), num_frames, size, size)
        for name, width, num_frames, size in zip(names, widths, frames, (112, 56, 56, 28, 14, 7), strict=True)
    }


@pytest.mark.parametrize("make", [resnet3d_18, resnet3d_34, resnet3d_50])
def test_names_and_shapes_but_for_time_are_those_of_torchvisions_2d_resnet(make):
    with torch.device("meta"):
        state_2d = MAKE_2D[make](num_classes=400).state_dict()
        features = make().features.state_dict()
    assert {name: (*tensor.shape[:2], *tensor.shape[3:]) for name, tensor in features.items()} == {
        name: tuple(tensor.shape) for name, tensor in state_2d.items() if not name.startswith("fc.")
    }


class PooledStem(nn.Sequential):
    """The stem of ResNet3D out of torchvision's parts."""

    def __init__(self):
        conv = nn.Conv3d(3, 64, 7, stride=(1, 2, 2), padding=3, bias=False)
        super().__init__(conv, nn.BatchNorm3d(64), nn.ReLU(), nn.MaxPool3d(3, stride=2, padding=1))


def test_the_basic_net_equals_one_of_torchvisions_3d_blocks():
    torch.manual_seed(0)
    net = ResNet3D(num_classes=5, **TINY)
    other = VideoResNet(TorchvisionBlock, [Conv3DSimple] * 4, [1, 1, 1, 1], PooledStem, num_classes=5)
    # Both register the same tensors in the same order but for the head's place.
    other.load_state_dict(dict(zip(other.state_dict(), net.state_dict().values(), strict=True)))
    clip = torch.randn(2, 3, 17, 40, 36)
    torch.testing.assert_close(net(clip), other(clip))


def test_the_bottleneck_equals_torchvisions_2d_one_frame_by_frame_where_kernels_see_one_frame():
    torch.manual_seed(0)
    net = ResNet3D(num_classes=5, block="bottleneck", layers=(2, 1, 1, 1)).eval()
    net_2d = torchvision.models.resnet.ResNet(torchvision.models.resnet.Bottleneck, [2, 1, 1, 1], num_classes=5).eval()
    state = net.state_dict()
    for name, tensor in net_2d.state_dict().items():
        target = state[name.replace("fc.", "classifier.") if name.startswith("fc.") else f"features.{name}"]
        if tensor.ndim == 4:
            target.zero_()[:, :, target.shape[2] // 2] = tensor
        else:
            target.copy_(tensor)
    image = torch.randn(2, 3, 32, 40)
    torch.testing.assert_close(net(image[:, :, None].expand(-1, -1, 16, -1, -1)), net_2d(image))


def test_ttls_halve_the_maps_in_place_of_the_next_stage():
    with torch.device("meta"):
        net = resnet3d_18(ttl=True, ttl_stages=(1, 3))
        shapes = stage_shapes(net, torch.empty(1, 3, 32, 224, 224))
    assert {name: shape for name, shape in shapes.items() if name[:5] in ("layer", "trans")} == {
        "layer1": (64, 16, 56, 56),
        "transition1": (64, 8, 28, 28),
        "layer2": (128, 8, 28, 28),
        "layer3": (256, 4, 14, 14),
        "transition3": (256, 2, 7, 7),
        "layer4": (512, 2, 7, 7),
    }
    layers = {name: net.features.get_submodule(f"{name}.0.conv1").stride[0] for name in ("layer2", "layer3", "layer4")}
    assert layers == {"layer2": 1, "layer3": 2, "layer4": 1}


def test_the_depths_of_table_1_are_the_default_and_those_of_the_released_code_go_with_its_preset():
    def depths(**arguments):
        with torch.device("meta"):
            transitions = resnet3d_18(ttl=True, **arguments).transitions()
        return [tuple(b.conv.kernel_size[0] for b in ttl.branches) for ttl in transitions]

    assert depths() == [(1, 3, 6), (1, 3, 4), (1, 3, 4)]
    assert depths(ttl_stages=(2, 3)) == [(1, 3, 6), (1, 3, 4)]
    assert depths(ttl_preset="official128") == [(1, 3, 4)] * 3
    assert depths(ttl_stages=(3,), temporal_depths=[[1, 2]]) == [(1, 2)]


def test_the_released_preset_changes_the_width_that_the_next_stage_takes():
    with torch.device("meta"):
        net = ResNet3D(ttl=True, ttl_preset="official128", **TINY)
        assert net(torch.empty(2, 3, 16, 32, 32)).shape == (2, 400)
        assert net.features.layer2[0].conv1.in_channels == 384


def test_a_ttl_that_keeps_time_halves_pixels_alone():
    with torch.device("meta"):
        net = ResNet3D(num_classes=3, ttl=True, pool_time=(False, True, False), **TINY)
        shapes = stage_shapes(net, torch.empty(2, 3, 4, 32, 32))
    assert (net.min_num_frames, net.min_size) == (4, 32)
    assert shapes["transition1"] == (64, 2, 4, 4)
    assert shapes["layer4"] == (512, 1, 1, 1)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"block": "wide"}, "block 'wide' is unknown; choose one of basic, bottleneck"),
        ({"stem": "deep"}, "stem 'deep' is unknown; choose one of hara, strided"),
        ({"layers": (1, 1, 1)}, r"layers \(1, 1, 1\) must hold 4 entries"),
        ({"layers": (1, 0, 1, 1)}, r"layers \(1, 0, 1, 1\) must hold 4 entries, all of them 1 or more"),
        ({"ttl": True, "ttl_stages": (1, 4)}, r"ttl_stages \(1, 4\) must be some of \(1, 2, 3\), ascending"),
        ({"ttl": True, "ttl_stages": (2, 1)}, r"ttl_stages \(2, 1\) must be some of"),
        ({"ttl": True, "ttl_stages": (2, 2)}, r"ttl_stages \(2, 2\) must be some of"),
        ({"ttl": True, "ttl_stages": ()}, r"ttl_stages \(\) must be some of"),
        (
            {"ttl": True, "temporal_depths": [(1, 3)]},
            r"temporal_depths \(\(1, 3\),\) has 1 entries, but ttl_stages \(1, 2, 3\) expect 3",
        ),
        ({"ttl": True, "pool_time": (True,)}, r"pool_time \(True,\) has 1 entries, but .* expect 3"),
        ({"temporal_depths": [(1, 3)] * 3}, "temporal_depths .* is given, but this net has no TTL"),
        ({"pool_time": (True,) * 3}, "pool_time .* is given, but this net has no TTL"),
        ({"ttl": True, "ttl_preset": "halves"}, "'halves' is unknown"),
        ({"ttl": True, "growth_rate": 32}, "the TTL after stage 1 would have branches of .0, 32, 32. channels"),
        ({"transition_forms": ("pooled",)}, "this net has no TTL: set ttl to true"),
        ({"ttl": True, "transition_forms": ("pooled",)}, "this net has 3 transitions"),
    ],
)
def test_arguments_out_of_range_are_refused_with_values_and_cure(arguments, told):
    with torch.device("meta"), pytest.raises(ValueError, match=told):
        ResNet3D(**{**TINY, **arguments})
