"""Inflated nets against torchvision's 2D networks on clips that stand still, and weights that do not fit."""

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.densenet import DenseNet
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from t3d_core.models import T3D, DenseNet3D, densenet3d_121, t3d_121
from t3d_core.models.c3d import c3d
from t3d_core.models.inception3d import inception3d
from t3d_core.models.resnet3d import ResNet3D, resnet3d_18, resnet3d_50
from t3d_core.transfer.imagenet_weights import IMAGENET_MEAN, IMAGENET_STD
from t3d_core.transfer.inflation import inflate, load_2d_state
from tests.t3d_core.transfer.random_weights import with_random_weights

pytestmark = pytest.mark.heavy

SMALL = {"growth_rate": 4, "block_config": (2, 2), "num_init_features": 16, "bn_size": 2}
MAKE_2D = {
    "googlenet": lambda **arguments: torchvision.models.googlenet(init_weights=False, aux_logits=False, **arguments),
    "densenet121": torchvision.models.densenet121,
    "resnet18": torchvision.models.resnet18,
    "resnet50": torchvision.models.resnet50,
}


def maps_2d(net_2d, image):
    """What enters the global average pool."""
    if isinstance(net_2d, DenseNet):
        return net_2d.features(image).relu()
    pooled = []
    hook = net_2d.avgpool.register_forward_pre_hook(lambda _, arguments: pooled.append(arguments[0]))
    net_2d(image)
    hook.remove()
    return pooled[0]


def still_clip(image, num_frames):
    return image[:, :, None].expand(-1, -1, num_frames, -1, -1)


def repeat_border_frames(net_3d):
    """Let convolutions see the first and the last frame beyond the ends of a clip, where they see zeros otherwise."""
    for module in net_3d.modules():
        if isinstance(module, nn.Conv3d) and module.padding[0]:
            ends = (0, 0, 0, 0, module.padding[0], module.padding[0])
            module.padding = (0, *module.padding[1:])
            module.register_forward_pre_hook(
                lambda _, arguments, ends=ends: nn.functional.pad(arguments[0], ends, mode="replicate")
            )
    return net_3d


def relative_error(found, expected):
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize(
    ("make_3d", "arguments"),
    [
        (DenseNet3D, {}),
        (T3D, {"ttl_preset": "growth", "temporal_depths": [(1, 3, 6)]}),
        (T3D, {"ttl_preset": "thirds", "temporal_depths": [(1, 3, 4)]}),
        (T3D, {"ttl_preset": "thirds", "temporal_depths": [(6, 2)]}),
    ],
    ids=["DenseNet3D", "growth", "thirds", "no depth 1"],
)
def test_the_middle_maps_of_a_still_clip_are_those_of_the_2d_densenet(make_3d, arguments):
    net_2d = with_random_weights(DenseNet(num_classes=5, **SMALL)).double()
    net_3d = make_3d(num_classes=3, **SMALL, **arguments).double().eval()
    # torchvision's last norm is named for four blocks, whatever their number.
    inflate(net_3d, {name.replace("norm5", "norm3"): tensor for name, tensor in net_2d.state_dict().items()})
    image = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        maps, expected = net_3d.features(still_clip(image, 64)), maps_2d(net_2d, image)
    # Of 16 frames, zeros beyond the ends of the clip reach at most 5 on each side.
    assert all(relative_error(maps[:, :, frame], expected) < 1e-9 for frame in range(5, 11))
    assert relative_error(maps[:, :, 0], expected) > 1e-3


@pytest.mark.parametrize(("block", "block_2d"), [("basic", BasicBlock), ("bottleneck", Bottleneck)])
def test_on_a_still_clip_an_inflated_resnet_has_the_maps_of_the_2d_one(block, block_2d):
    net_2d = with_random_weights(ResNet(block_2d, [1, 1, 1, 1])).double()
    net_3d = ResNet3D(num_classes=3, block=block, layers=(1, 1, 1, 1), stem="strided").double().eval()
    inflate(net_3d, net_2d.state_dict())
    image = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        maps = repeat_border_frames(net_3d).features(still_clip(image, 32))
        assert relative_error(maps[:, :, 0], maps_2d(net_2d, image)) < 1e-9


@pytest.mark.parametrize(
    ("kind", "make_3d", "size"),
    [
        ("resnet18", resnet3d_18, 64),
        ("densenet121", densenet3d_121, 64),
        ("googlenet", inception3d, 64),
        ("googlenet", inception3d, 50),
    ],
)
def test_the_features_of_a_whole_net_on_a_still_clip_are_those_of_the_2d_network(kind, make_3d, size):
    net_2d, net_3d = with_random_weights(MAKE_2D[kind]()), make_3d(num_classes=0).eval()
    report = inflate(net_3d, net_2d.state_dict())
    assert report == (len(list(net_3d.parameters())), ())
    image = torch.randn(1, 3, size, size)
    with torch.no_grad():
        feature = repeat_border_frames(net_3d)(still_clip(image, net_3d.min_num_frames))
        assert relative_error(feature, maps_2d(net_2d, image).mean(dim=(2, 3))) < 1e-4


def test_every_slice_of_time_of_a_kernel_is_the_2d_kernel_divided_by_the_depth():
    net_2d = with_random_weights(MAKE_2D["densenet121"]())
    net_3d = t3d_121(num_classes=3)
    inflate(net_3d, net_2d.state_dict())
    stem = net_3d.features.conv0.weight
    assert torch.equal(stem, net_2d.features.conv0.weight[:, :, None].expand(-1, -1, 3, -1, -1) / 3)
    branches, conv_2d = net_3d.features.transition1.branches, net_2d.features.transition1.conv.weight
    assert torch.equal(branches[0].conv.weight[..., 0], conv_2d[:64])
    deep = branches[2].conv.weight
    assert deep.shape[2:] == (6, 3, 3)
    assert torch.equal(deep[..., 1, 1], conv_2d[96:, :, 0].expand(-1, -1, 6) / 6)
    assert deep.count_nonzero() == deep[..., 1, 1].count_nonzero()
    assert all(torch.equal(b.norm.running_var, net_2d.features.transition1.norm.running_var) for b in branches)


def test_the_head_stays_as_initialised_and_is_reported():
    net = resnet3d_18(num_classes=7)
    head = net.classifier.weight.clone()
    report = inflate(net, with_random_weights(MAKE_2D["resnet18"]()).state_dict())
    assert report.left_at_init == ("classifier.weight", "classifier.bias")
    assert report.num_copied == len(list(net.parameters())) - 2
    assert torch.equal(net.classifier.weight, head)


@pytest.mark.parametrize(
    ("make_3d", "kind"), [(resnet3d_50, "resnet50"), (inception3d, "googlenet")], ids=["ResNet3D", "Inception3D"]
)
@pytest.mark.parametrize("preset", ["growth", "thirds"])
def test_ttls_without_a_2d_counterpart_stay_as_initialised_and_are_reported(make_3d, kind, preset):
    net = make_3d(num_classes=0, ttl=True, ttl_preset=preset)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    report = inflate(net, with_random_weights(MAKE_2D[kind]()).state_dict())
    of_ttls = [name for name, _ in net.named_parameters() if ".transition" in name]
    assert of_ttls != []
    assert list(report.left_at_init) == of_ttls
    assert all(torch.equal(net.state_dict()[name], before[name]) for name in of_ttls)


def test_a_t3d_that_mixes_its_branches_keeps_its_ttls_and_what_is_as_wide_as_they_are():
    net = t3d_121(num_classes=0, ttl_preset="official128")
    before = {name: tensor.clone() for name, tensor in net.named_parameters()}
    report = inflate(net, with_random_weights(MAKE_2D["densenet121"]()).state_dict())
    left = set(report.left_at_init)
    assert {name for name in before if ".transition" in name} <= left
    assert [
        name for name in left if name.startswith(("features.conv0", "features.norm0", "features.denseblock1"))
    ] == []
    assert "features.denseblock2.denselayer1.conv1.weight" in left
    assert "features.denseblock2.denselayer1.conv2.weight" not in left
    assert all(torch.equal(p, before[name]) == (name in left) for name, p in net.named_parameters())


@pytest.mark.parametrize(
    ("make_3d", "make_2d", "told"),
    [
        (
            densenet3d_121,
            torchvision.models.densenet169,
            r"features\.transition3\.branches\.0\.norm\.weight .* transition3\.norm\.weight of shape \(1024,\), "
            r"but the 2D weights have \(1280,\)",
        ),
        (
            lambda: resnet3d_50(ttl=True, ttl_preset="official128"),
            torchvision.models.resnet18,
            r"layer1\.0\.conv1\.weight of shape \(64, 64, 1, 1\), but the 2D weights have \(64, 64, 3, 3\)",
        ),
        (resnet3d_18, torchvision.models.resnet34, r"have a tensor layer1\.2\.conv1\.weight of shape \(64, 64, 3, 3\)"),
        (t3d_121, torchvision.models.resnet18, r"conv0\.weight of shape \(64, 3, 7, 7\), but the 2D weights have none"),
        (c3d, torchvision.models.resnet18, r"conv1\.conv\.weight of shape .* have none"),
    ],
    ids=["deeper DenseNet", "shallower ResNet", "deeper ResNet", "ResNet for a DenseNet", "C3D"],
)
def test_weights_of_another_network_are_refused_with_the_first_tensor_that_does_not_fit(make_3d, make_2d, told):
    with torch.device("meta"):
        net, state_2d = make_3d(), make_2d().state_dict()
    with pytest.raises(ValueError, match=told):
        inflate(net, state_2d)


def test_nothing_is_copied_from_weights_that_do_not_fit():
    net = resnet3d_18(num_classes=3)
    before = net.features.conv1.weight.clone()
    with pytest.raises(ValueError, match="another network"):
        inflate(net, {"conv1.weight": torch.zeros(64, 3, 7, 7)})
    assert torch.equal(net.features.conv1.weight, before)


def test_googlenets_own_normalisation_is_folded_into_the_weights_of_its_download(download_of_googlenet):
    net_2d, _ = download_of_googlenet
    net_3d = inception3d(num_classes=0).eval()
    assert inflate(net_3d, load_2d_state("googlenet")).left_at_init == ()
    pixels = torch.rand(2, 3, 40, 40)
    by_imagenet = torchvision.transforms.functional.normalize(pixels, IMAGENET_MEAN, IMAGENET_STD)
    by_half = torchvision.transforms.functional.normalize(pixels, (0.5,) * 3, (0.5,) * 3)
    with torch.no_grad():
        found = net_3d.features.conv1(still_clip(by_imagenet, 16))[:, :, 4]
        expected = net_2d.conv1(by_half)
    inside = (..., slice(2, -2), slice(2, -2))
    assert relative_error(found[inside], expected[inside]) < 1e-5


def test_a_densenet_file_with_the_names_of_old_pytorch_is_inflated(tmp_path):
    state = with_random_weights(MAKE_2D["densenet121"]()).state_dict()
    old = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    for part in ("norm1", "norm2", "conv1", "conv2"):
        old = {
            name.replace(f".{part}.", f".{part[:-1]}.{part[-1]}.") if ".denselayer" in name else name: tensor
            for name, tensor in old.items()
        }
    assert "features.denseblock1.denselayer1.norm.1.running_mean" in old
    torch.save(old, tmp_path / "old.pth")
    assert inflate(densenet3d_121(num_classes=0), load_2d_state(str(tmp_path / "old.pth"))).left_at_init == ()
