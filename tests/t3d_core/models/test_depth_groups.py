import itertools

import pytest
import torch

from t3d_core.models import T3D, Inception3D
from t3d_core.models.depth_groups import depth_groups
from tests.t3d_core.models.test_family import NETS, build, smallest_clip

every_net = pytest.mark.parametrize("name", NETS)


def order_of_calls(net):
    """The place of every module among those that a clip passes."""
    calls = {}

    def note(name):
        calls.setdefault(name, len(calls))

    for name, module in net.named_modules():
        module.register_forward_pre_hook(lambda _, __, name=name: note(name))
    with torch.no_grad():
        net.eval()(smallest_clip(net))
    return calls


def place_of(parameter_name, calls):
    """The place of the module that has the parameter, or of the layer that computes with it."""
    name = parameter_name.rpartition(".")[0]
    while name not in calls:
        name = name.rpartition(".")[0]
    return calls[name]


@pytest.mark.heavy
@every_net
def test_every_parameter_is_in_exactly_one_group_and_the_groups_follow_depth(name):
    net = build(name)
    groups = depth_groups(net)
    assert sorted(inner for group in groups for inner in group) == sorted(inner for inner, _ in net.named_parameters())
    parameters = dict(net.named_parameters())
    assert all(parameter is parameters[inner] for group in groups for inner, parameter in group.items())
    calls = order_of_calls(net)
    places = [[place_of(inner, calls) for inner in group] for group in groups]
    assert all(max(before) < min(after) for before, after in itertools.pairwise(places))
    assert [*groups[-1]] == ["classifier.weight", "classifier.bias"]


@every_net
def test_a_net_has_a_group_a_stage(name):
    with torch.device("meta"):
        groups = depth_groups(build(name))
    several = {"DenseNet3D": 5, "T3D": 5, "Inception3D": 7, "Inception3D TTL": 7, "C3D": 8}
    assert len(groups) == several.get(name, 6)


def test_a_group_begins_with_the_layer_that_changes_the_stage():
    with torch.device("meta"):
        t3d, inception = depth_groups(T3D(3, growth_rate=4)), depth_groups(Inception3D(3))
    assert {name.split(".")[1] for name in t3d[1]} == {"denseblock1", "transition1"}
    assert {name.split(".")[1] for name in t3d[4]} == {"denseblock4", "norm5"}
    assert {name.split(".")[1] for name in inception[4]} == {f"inception4{letter}" for letter in "abcde"}


def test_a_network_without_a_head_has_an_empty_group_for_it():
    with torch.device("meta"):
        assert depth_groups(build("T3D", num_classes=0))[-1] == {}


def test_synchronised_norms_stay_in_the_group_of_their_convolution():
    net = torch.nn.SyncBatchNorm.convert_sync_batchnorm(build("ResNet3D basic"))
    assert [*depth_groups(net)[0]] == ["features.conv1.weight", "features.bn1.weight", "features.bn1.bias"]
