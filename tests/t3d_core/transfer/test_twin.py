import pytest
import torch
from torch import nn

from t3d_core.models import build_model
from t3d_core.models.execution import Execution
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


def small_net(**arguments):
    torch.manual_seed(0)
    twin = build_twin("t3d", build_model("t3d", num_classes=0, **SMALL))
    return FrameRegressionNet(twin, teacher_dim=7, positions=[0, 3], **arguments)


def test_all_of_the_twin_learns_and_the_regression_has_the_teachers_width():
    net = small_net()
    guessed = net(torch.randn(2, 3, 4, 64, 64))
    assert guessed.shape == (4, 7)
    guessed.square().sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_the_twin_sees_the_frames_that_the_teacher_sees():
    net, clip_BCTHW = small_net().eval(), torch.randn(2, 3, 4, 64, 64)
    guessed = net(clip_BCTHW)
    clip_BCTHW[:, :, 1:3] = 0
    assert torch.equal(net(clip_BCTHW), guessed)
    torch.testing.assert_close(net.regression(net.twin(clip_BCTHW[:, :, 3]))[1], guessed[3])


OF_RUN = {"num_frames": 4, "size": 64, "batch_size": 2, "is_trained": True}


def test_channels_last_reaches_every_convolution_of_the_twin():
    net = small_net()
    Execution().prepare(net, **OF_RUN)
    convs = [module.weight for module in net.modules() if isinstance(module, nn.Conv2d)]
    assert convs
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in convs)


def test_the_twin_is_compiled():
    net = small_net()
    Execution(compile=True).prepare(net, **OF_RUN)
    assert net.twin._compiled_call_impl is not None


def test_a_twin_in_bf16_is_compared_with_fp32():
    net = small_net()
    [measured] = Execution(precision="bf16").prepare(net, **OF_RUN)
    assert measured.features < 0.05

    class WrongInBf16(nn.Conv2d):
        def forward(self, x):
            return super().forward(x) * (2 if torch.is_autocast_enabled("cpu") else 1)

    net.twin.features.conv0.__class__ = WrongInBf16
    with pytest.raises(ValueError, match="bf16 gives other features than fp32 on cpu"):
        Execution(precision="bf16").prepare(net, **OF_RUN)


def test_activations_of_a_twin_cannot_be_recomputed():
    with pytest.raises(ValueError, match="recompute is for 3D networks"):
        Execution(recompute=True).prepare(small_net(), **OF_RUN)


def test_frames_and_features_of_a_twin_that_are_not_finite_are_reported_while_debugging():
    net, clip_BCTHW = small_net(), torch.randn(2, 3, 4, 64, 64)
    Execution(debug=True).prepare(net, **OF_RUN)
    nn.init.constant_(net.twin.features.conv0.weight, float("inf"))
    with pytest.raises(ValueError, match="the features of a batch hold values that are not finite"):
        net(clip_BCTHW)
    clip_BCTHW[0, 0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="the clips of a batch hold values that are not finite"):
        net(clip_BCTHW)
