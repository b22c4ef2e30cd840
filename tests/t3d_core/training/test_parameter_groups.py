import pytest
from torch import nn
from torch.optim import SGD

from t3d_core.models import ResNet3D
from t3d_core.training.parameter_groups import parameter_groups


def new_net():
    return ResNet3D(3, block="basic", layers=(1, 1, 1, 1))


def by_name(net, groups):
    """Name -> (rate, decay) of every parameter in the groups."""
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    return {names[id(p)]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}


def test_by_default_all_parameters_are_one_group_in_the_order_of_the_network():
    net = new_net()
    [group] = parameter_groups(net, lr=0.1, weight_decay=1e-4)
    assert all(one is other for one, other in zip(group.pop("params"), net.parameters(), strict=True))
    assert group == {"lr": 0.1, "weight_decay": 1e-4, "lr_scale": 1.0}


def test_parameters_without_gradients_are_left_out():
    net = new_net()
    net.freeze_backbone()
    [group] = parameter_groups(net, lr=0.1, weight_decay=0.0, head_lr_scale=3.0, layer_decay=0.5)
    assert [p.shape for p in group["params"]] == [(3, 512), (3,)]
    assert (group["lr"], group["lr_scale"]) == (pytest.approx(0.3), 3.0)


def test_rates_halve_from_stage_to_stage_towards_the_stem_and_the_head_has_its_own():
    net = new_net()
    groups = parameter_groups(net, lr=0.64, weight_decay=0.0, layer_decay=0.5, head_lr_scale=10.0)
    rates = {name: rate for name, (rate, _) in by_name(net, groups).items()}
    assert rates.keys() == {name for name, _ in net.named_parameters()}
    stages = [*(f"features.layer{stage}.0.conv1.weight" for stage in (4, 3, 2, 1)), "features.conv1.weight"]
    assert [rates[name] for name in stages] == pytest.approx([0.32, 0.16, 0.08, 0.04, 0.02])
    assert rates["classifier.weight"] == rates["classifier.bias"] == pytest.approx(6.4)
    assert len(groups) == 6


def test_kernels_alone_decay_where_norms_and_biases_do_not():
    net = new_net()
    groups = parameter_groups(net, lr=0.1, weight_decay=1e-4, decay_norms_and_biases=False)
    decays = {name: decay for name, (_, decay) in by_name(net, groups).items()}
    is_vector = {name: parameter.ndim == 1 for name, parameter in net.named_parameters()}
    assert decays == {name: 0.0 if is_vector[name] else 1e-4 for name in is_vector}
    assert {name for name in decays if not decays[name]} >= {"features.bn1.weight", "classifier.bias"}
    assert len(groups) == 2


def test_the_groups_are_the_same_for_any_decay_so_that_one_trial_takes_the_state_of_another():
    net = new_net()
    some, none = (
        SGD(parameter_groups(net, lr=0.1, weight_decay=decay, decay_norms_and_biases=False)) for decay in (1e-4, 0.0)
    )
    none.load_state_dict(some.state_dict())
    assert [group["weight_decay"] for group in none.param_groups] == [1e-4, 0.0]


@pytest.mark.parametrize("scales", [{"head_lr_scale": 2.0}, {"layer_decay": 0.5}])
def test_depths_are_those_of_a_classifier(scales):
    with pytest.raises(ValueError, match=r"head_lr_scale \S+ and layer_decay \S+ are for a classifier: leave both"):
        parameter_groups(nn.Linear(2, 2), lr=0.1, weight_decay=0.0, **scales)
