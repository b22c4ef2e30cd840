"""Networks built by name."""

from typing import get_args

import pytest
import torch

from t3d_core.models import T3D, DenseNet3D, ModelKind, build_model, count_parameters


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("t3d", 15_311_504),
        ("t3d_121", 15_311_504),
        ("t3d_169", 23_368_336),
        ("densenet3d", 11_658_896),
        ("densenet3d_121", 11_658_896),
        ("densenet3d_169", 19_214_992),
    ],
)
def test_every_kind_builds_its_net(kind, parameters):
    with torch.device("meta"):
        net = build_model(kind, num_classes=400)
    assert type(net) is (T3D if kind.startswith("t3d") else DenseNet3D)
    assert count_parameters(net) == parameters


@pytest.mark.parametrize("kind", get_args(ModelKind))
def test_every_kind_takes_the_arguments_of_a_small_net(kind):
    with torch.device("meta"):
        net = build_model(kind, num_classes=3, growth_rate=4, block_config=(2, 2, 2, 2), num_init_features=16)
    assert net.feature_dim < 64
    assert net.classifier.out_features == 3


def test_an_unknown_kind_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'resnet' is unknown; choose one of " + ", ".join(get_args(ModelKind))):
        build_model("resnet", num_classes=400)
