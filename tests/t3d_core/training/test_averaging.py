import copy

import pytest
import torch
from torch import nn

from t3d_core.models import build_model
from t3d_core.training.averaging import WeightAverage, measure_batch_norms


@pytest.fixture
def one_process_group():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def alone(_):
    """The sum over the workers of a run that has one."""


def small_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4), nn.ReLU(), nn.Conv3d(4, 2, 1), nn.BatchNorm3d(2))


def batches(*sizes):
    torch.manual_seed(1)
    return [torch.randn(size, 3, 2, 4, 4) * (1 + size) + size for size in sizes]


def run_over(net, given):
    def run_batches():
        for batch in given:
            net(batch)

    return run_batches


def statistics(net):
    return {name: value for name, value in net.state_dict().items() if "running" in name}


def assert_close(found, expected, **tolerance):
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(
            found[name], expected[name], msg=lambda text, name=name: f"{name}: {text}", **tolerance
        )


# ---- weights


def train_a_little(net):
    """Give new values to everything, the counters of the batch norms among them."""
    net.train()(torch.randn(2, 3, 2, 4, 4))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d])
def test_the_average_is_the_one_computed_by_hand(memory_format):
    net = small_net().to(memory_format=memory_format)
    average, expected = WeightAverage(net, decay=0.9), None
    for _ in range(4):
        train_a_little(net)
        average.update(net)
        state = {name: value.clone() for name, value in net.state_dict().items()}
        if expected is None:
            expected = state
        for name, value in state.items():
            is_counter = name.endswith("num_batches_tracked")
            expected[name] = value if is_counter else 0.9 * expected[name] + 0.1 * value
    assert_close(average.module.state_dict(), expected)
    assert average.module.state_dict()["1.num_batches_tracked"] == 4
    assert average.module[0].weight.is_contiguous(memory_format=memory_format)


def test_the_average_is_a_network_for_validation_and_leaves_the_trained_one_alone():
    net = small_net()
    average = WeightAverage(net, decay=0.5)
    before = copy.deepcopy(net.state_dict())
    average.update(net)
    assert not average.module.training
    assert not any(parameter.requires_grad for parameter in average.module.parameters())
    assert net.training
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert_close(net.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("num_before", [0, 1, 2])
def test_a_resumed_average_continues_as_if_nothing_had_been(num_before, tmp_path):
    net = small_net()
    average = WeightAverage(net, decay=0.9)
    for step in range(4):
        if step == num_before:
            torch.save(average.state_dict(), tmp_path / "state.pt")
            resumed = WeightAverage(small_net(), decay=0.9)
            resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        train_a_little(net)
        average.update(net)
        if step >= num_before:
            resumed.update(net)
    assert_close(resumed.state_dict(), average.state_dict(), rtol=0, atol=0)


@pytest.mark.heavy
def test_the_average_of_a_compiled_network_of_the_family_runs():
    net = tiny_t3d()
    net.features.compile(backend="eager")
    average = WeightAverage(net, decay=0.9)
    average.update(net)
    clip = torch.randn(2, 3, 16, 32, 32)
    assert torch.equal(average.module(clip), net.eval()(clip))


# ---- batch norms


def test_the_statistics_become_those_of_all_positions_of_all_batches():
    net, given = nn.BatchNorm3d(3), batches(5, 2, 3)
    measure_batch_norms(net, run_over(net, given), sum_over_workers=alone)
    values = torch.cat(given).double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(net.running_mean, values.mean(dim=1).float())
    torch.testing.assert_close(net.running_var, values.var(dim=1).float())


def test_later_norms_see_what_they_see_in_training():
    net, given = small_net(), batches(4, 4)
    expected = copy.deepcopy(net).train()
    seen = []
    expected[4].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    run_over(expected, given)()
    measure_batch_norms(net, run_over(net, given), sum_over_workers=alone)
    values = torch.cat(seen).transpose(0, 1).flatten(1)
    torch.testing.assert_close(net[4].running_mean, values.mean(dim=1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net[4].running_var, values.var(dim=1), rtol=1e-4, atol=1e-5)


def test_one_batch_gives_what_training_with_momentum_1_gives():
    net, [batch] = tiny_t3d(), [torch.randn(3, 3, 16, 32, 32)]
    expected = copy.deepcopy(net).train()
    for norm in expected.modules():
        if isinstance(norm, nn.BatchNorm3d):
            norm.momentum = 1.0
    expected(batch)
    measure_batch_norms(net, run_over(net, [batch]), sum_over_workers=alone)
    assert_close(statistics(net), statistics(expected), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("split", [1, 3, 0], ids=["unequal", "second has none", "first has none"])
def test_two_workers_measure_what_one_with_both_their_batches_measures(split):
    given = batches(5, 2, 3)
    whole = small_net()
    measure_batch_norms(whole, run_over(whole, given), sum_over_workers=alone)
    sent, workers = [], [small_net(), small_net()]
    parts = given[:split], given[split:]
    for net, part in zip(workers, parts, strict=True):
        measure_batch_norms(net, run_over(net, part), sum_over_workers=lambda moments: sent.append(moments.clone()))
    for net, part in zip(workers, parts, strict=True):
        measure_batch_norms(net, run_over(net, part), sum_over_workers=lambda moments: moments.copy_(sum(sent)))
        assert_close(statistics(net), statistics(whole))
    assert_close(statistics(workers[0]), statistics(workers[1]), rtol=0, atol=0)


def test_flags_momenta_counters_and_weights_stay_as_they_are():
    net = nn.Sequential(small_net(), nn.Dropout(0.5), nn.BatchNorm3d(2, momentum=None))
    net.train()
    net[0][1].eval()
    before = copy.deepcopy(net)
    measure_batch_norms(net, run_over(net, batches(4)), sum_over_workers=alone)
    assert [m.training for m in net.modules()] == [m.training for m in before.modules()]
    assert (net[0][1].momentum, net[2].momentum) == (0.1, None)
    kept = {name: value for name, value in net.state_dict().items() if "running" not in name}
    assert_close(kept, {name: before.state_dict()[name] for name in kept}, rtol=0, atol=0)
    assert not any(module._forward_pre_hooks for module in net.modules())


def test_dropout_is_off_while_statistics_are_measured():
    net, [batch] = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm3d(3)), batches(4)
    measure_batch_norms(net, run_over(net, [batch]), sum_over_workers=alone)
    torch.testing.assert_close(net[1].running_mean, batch.mean(dim=(0, 2, 3, 4)))


def test_norms_that_see_nothing_and_those_without_statistics_stay_as_they_are():
    net = nn.ModuleDict({"seen": nn.BatchNorm3d(3), "unseen": nn.BatchNorm3d(3), "plain": nn.BatchNorm3d(3)})
    net["plain"] = nn.BatchNorm3d(3, track_running_stats=False)
    nn.init.constant_(net["unseen"].running_var, 5.0)
    [batch] = batches(4)
    measure_batch_norms(net, lambda: net["plain"](net["seen"](batch)), sum_over_workers=alone)
    assert net["unseen"].running_var.tolist() == [5.0] * 3
    assert net["plain"].running_mean is None
    measure_batch_norms(nn.Linear(1, 1), lambda: None, sum_over_workers=alone)


def test_a_batch_that_fails_leaves_the_statistics_as_they_were():
    net = small_net().train()
    before = copy.deepcopy(net.state_dict())

    def fail():
        net(batches(4)[0])
        raise RuntimeError("no more memory")

    with pytest.raises(RuntimeError, match="no more memory"):
        measure_batch_norms(net, fail, sum_over_workers=alone)
    assert_close(net.state_dict(), before, rtol=0, atol=0)
    assert net.training
    assert not any(module._forward_pre_hooks for module in net.modules())


def test_synchronised_norms_wait_for_nobody(one_process_group):
    net, [batch] = small_net(), batches(4)
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(small_net())
    with pytest.raises(ValueError, match="GPU"):  # in training they would speak to the others, and cannot on a CPU
        synchronised.train()(batch)
    for each in (net, synchronised):
        measure_batch_norms(each, run_over(each, [batch]), sum_over_workers=alone)
    assert_close(statistics(synchronised), statistics(net), rtol=0, atol=0)


@pytest.mark.heavy
def test_a_compiled_network_is_measured_as_a_plain_one():
    clip = torch.randn(2, 3, 16, 32, 32)
    plain, compiled = tiny_t3d(), tiny_t3d()
    compiled.features.compile(backend="eager")
    with torch.no_grad():
        compiled.eval()(clip)  # compiled before any hook is there
    for net in (plain, compiled):
        measure_batch_norms(net, run_over(net, [clip]), sum_over_workers=alone)
    assert_close(statistics(compiled), statistics(plain), rtol=0, atol=0)


def test_bfloat16_and_channels_last_are_measured_in_full_precision():
    net = tiny_t3d().to(memory_format=torch.channels_last_3d)
    clip = torch.randn(2, 3, 16, 32, 32)
    plain = tiny_t3d()
    measure_batch_norms(plain, run_over(plain, [clip]), sum_over_workers=alone)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        measure_batch_norms(net, run_over(net, [clip]), sum_over_workers=alone)
    assert all(value.dtype == torch.float32 for value in statistics(net).values())
    first = "features.norm0.running_var"
    torch.testing.assert_close(statistics(net)[first], statistics(plain)[first], rtol=0.02, atol=1e-3)


def tiny_t3d():
    torch.manual_seed(0)
    return build_model(
        "t3d",
        num_classes=3,
        ttl_preset="thirds",
        growth_rate=4,
        block_config=(2, 2, 2, 2),
        num_init_features=24,
        bn_size=2,
    )
