import pytest
import torch

from t3d_core.models import build_model
from t3d_core.transfer.inflation import inflate
from t3d_core.transfer.twin import FrameRegressionNet, build_twin, frames_at

SMALL = {"growth_rate": 4, "block_config": (2, 3, 1, 2), "num_init_features": 24, "bn_size": 2}


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("t3d", SMALL),
        ("densenet3d", SMALL),
        ("t3d_121", {}),
        ("densenet3d_169", {}),
        ("resnet3d_18", {}),
        ("resnet3d_50", {}),
        ("inception3d", {}),
    ],
)
def test_the_twin_is_the_network_whose_weights_the_3d_net_takes(kind, arguments):
    net = build_model(kind, num_classes=0, **arguments)
    twin = build_twin(kind, net)
    assert twin.feature_dim == net.feature_dim
    report = inflate(net, twin.network.state_dict())
    assert report.left_at_init == ()
    assert twin.network.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, net.feature_dim)


def test_a_network_without_a_2d_family_has_no_twin():
    with pytest.raises(ValueError, match=r"model\.kind c3d has no 2D twin: choose"):
        build_twin("c3d", build_model("c3d", num_classes=0))


def test_a_densenet_of_other_than_four_blocks_has_no_twin():
    with pytest.raises(ValueError, match="of 2 dense blocks has no 2D twin: torchvision's have 4"):
        build_twin("densenet3d", build_model("densenet3d", num_classes=0, block_config=(1, 1)))


def test_the_frames_of_each_clip_are_taken_one_clip_after_the_other():
    clip_BCTHW = torch.arange(2 * 3 * 5).reshape(2, 3, 5, 1, 1)
    images = frames_at(clip_BCTHW, torch.tensor([0, 4]))
    assert images.shape == (4, 3, 1, 1)
    assert images[:, 0, 0, 0].tolist() == [0, 4, 15, 19]


def test_all_of_the_twin_learns_and_the_regression_has_the_teachers_width():
    twin = build_twin("t3d", build_model("t3d", num_classes=0, **SMALL))
    net = FrameRegressionNet(twin, teacher_dim=7)
    guessed = net(torch.randn(4, 3, 64, 64))
    assert guessed.shape == (4, 7)
    guessed.square().sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
