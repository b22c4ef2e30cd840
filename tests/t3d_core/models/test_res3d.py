"""Res3D: torchvision's r3d_18 behind our contract."""

import subprocess
import sys

import pytest
import torch
from torchvision.models.video import r3d_18

from t3d_core import models
from t3d_core.models import count_macs, count_parameters
from t3d_core.models.res3d import Res3D, res3d_18


def test_its_class_is_a_public_name_that_is_loaded_when_it_is_asked_for():
    assert models.Res3D is Res3D
    with pytest.raises(AttributeError, match="no attribute 'Absent'"):
        _ = models.Absent
    script = "import sys, t3d_core.models; print('torchvision' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "False\n"


def test_costs_are_exact():
    with torch.device("meta"):
        net = res3d_18()
        assert count_parameters(net) == 33_371_472
        assert round(count_macs(net, (1, 3, 16, 112, 112)) / 1e9, 2) == 40.70


@pytest.mark.heavy
def test_it_equals_torchvisions_net_of_the_same_weights():
    torch.manual_seed(0)
    other = r3d_18(weights=None, num_classes=5)
    net = res3d_18(num_classes=5)
    state = other.state_dict()
    head = {f"classifier.{name}": state.pop(f"fc.{name}") for name in ("weight", "bias")}
    net.load_state_dict({f"features.{name}": tensor for name, tensor in state.items()} | head)
    clip = torch.randn(2, 3, 9, 24, 20)
    torch.testing.assert_close(net(clip), other(clip))  # also moves the statistics of both
    torch.testing.assert_close(net.eval()(clip), other.eval()(clip))


def test_every_stage_has_its_size():
    with torch.device("meta"):
        clip = torch.empty(1, 3, 16, 112, 112)
        shapes = []
        for stage in res3d_18().features:
            clip = stage(clip)
            shapes.append(tuple(clip.shape[1:]))
    assert shapes == [(64, 16, 56, 56), (64, 16, 56, 56), (128, 8, 28, 28), (256, 4, 14, 14), (512, 2, 7, 7)]
