import copy
import io
from math import cos, pi
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from t3d_core.training.optimization import Schedule, build_adamw, build_sgd
from t3d_core.training.schedules import ScheduleKind

NUM_STEPS = 8
# A validation loss that falls, then stands still: with patience 1 the second bad validation acts.
LOSSES = [3.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.0, 1.0]


def new_optimizer():
    parameter = nn.Parameter(torch.zeros(1))
    parameter.grad = torch.zeros(1)
    return build_sgd([parameter], lr=0.8, momentum=0.9, is_nesterov=True, weight_decay=1e-4)


def new_schedule(optimizer, kind, **settings):
    settings = {"num_steps": NUM_STEPS, "every_epochs": 2, "factor": 0.5, "patience": 1} | settings
    return Schedule(optimizer, kind, **settings)


def run(optimizer, schedule, steps):
    """Give the learning rate of every step; two steps are an epoch, each step is followed by a validation."""
    rates = []
    for step in steps:
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step < NUM_STEPS - 1:
            schedule.after_step()
        if step % 2:
            schedule.after_epoch()
        schedule.after_validation(LOSSES[step])
    return rates


def one_cycle_rates():
    # 0.3 of the steps up from peak / 25, the rest down to a 1e4-th of the start; both along half a cosine.
    def between(start, end, share):
        return end + (start - end) * (1 + cos(pi * share)) / 2

    peak, top = 0.8, 0.3 * NUM_STEPS - 1
    start, last = peak / 25, NUM_STEPS - 1
    end = start / 1e4
    return [
        between(start, peak, step / top) if step <= top else between(peak, end, (step - top) / (last - top))
        for step in range(NUM_STEPS)
    ]


EXPECTED = {
    "constant": [0.8] * NUM_STEPS,
    "step": [0.8, 0.8, 0.8, 0.8, 0.4, 0.4, 0.4, 0.4],
    "plateau": [0.8, 0.8, 0.8, 0.8, 0.4, 0.4, 0.2, 0.2],
    "cosine": [0.4 * (1 + cos(pi * step / NUM_STEPS)) for step in range(NUM_STEPS)],
    "one_cycle": one_cycle_rates(),
}


@pytest.mark.parametrize("kind", EXPECTED)
def test_the_learning_rates_of_a_schedule_are_those_computed_by_hand(kind):
    optimizer = new_optimizer()
    assert run(optimizer, new_schedule(optimizer, kind), range(NUM_STEPS)) == pytest.approx(EXPECTED[kind])


def test_every_kind_of_schedule_is_tried():
    assert set(EXPECTED) == set(get_args(ScheduleKind))


def test_a_warm_up_rises_in_a_line_from_a_hundredth_and_the_cosine_has_the_steps_that_are_left():
    optimizer = new_optimizer()
    rates = run(optimizer, new_schedule(optimizer, "cosine", warmup_steps=3), range(NUM_STEPS))
    rise = [0.8 * (0.01 + 0.99 * step / 3) for step in range(3)]
    assert rates == pytest.approx(rise + [0.4 * (1 + cos(pi * step / 5)) for step in range(5)])


@pytest.mark.parametrize("warmup_steps", [-1, NUM_STEPS])
def test_a_warm_up_as_long_as_the_run_is_refused(warmup_steps):
    with pytest.raises(ValueError, match=rf"warm-up of {warmup_steps} steps must be shorter than the run of 8 steps"):
        new_schedule(new_optimizer(), "cosine", warmup_steps=warmup_steps)


def test_a_plateau_ends_where_the_rate_would_fall_below_the_smallest_and_leaves_it():
    optimizer = new_optimizer()
    schedule = new_schedule(optimizer, "plateau", patience=0, min_lr=0.2)
    rates, has_ended = [], []
    for loss in (1.0, 1.0, 0.5, 0.5, 0.5, 0.5):
        schedule.after_validation(loss)
        rates.append(optimizer.param_groups[0]["lr"])
        has_ended.append(schedule.has_ended)
    assert rates == pytest.approx([0.8, 0.4, 0.4, 0.2, 0.2, 0.2])
    assert has_ended == [False, False, False, False, True, True]


def test_rounding_does_not_end_a_plateau_one_change_early():
    optimizer = build_sgd([nn.Parameter(torch.zeros(1))], lr=0.7, momentum=0.0, is_nesterov=False, weight_decay=0.0)
    schedule = new_schedule(optimizer, "plateau", factor=0.1, patience=0, min_lr=0.07)
    for _ in range(2):
        schedule.after_validation(1.0)
    assert optimizer.param_groups[0]["lr"] < 0.07
    assert not schedule.has_ended


def test_without_a_smallest_rate_a_plateau_never_ends():
    optimizer = new_optimizer()
    schedule = new_schedule(optimizer, "plateau", factor=0.1, patience=0)
    for _ in range(40):
        schedule.after_validation(1.0)
    assert optimizer.param_groups[0]["lr"] < 1e-7
    assert not schedule.has_ended


def test_a_smallest_rate_above_the_first_is_refused():
    with pytest.raises(ValueError, match=r"schedule\.min_lr 0\.9 must be at most the optimizer's lr 0\.8"):
        new_schedule(new_optimizer(), "plateau", min_lr=0.9)


@given(
    kind=st.sampled_from(get_args(ScheduleKind)),
    cut=st.integers(0, NUM_STEPS),
    warmup_steps=st.integers(0, NUM_STEPS - 1),
    min_lr=st.sampled_from([0.0, 0.3]),
    patience=st.integers(0, 2),
)
def test_a_schedule_cut_anywhere_continues_with_the_same_learning_rates(kind, cut, warmup_steps, min_lr, patience):
    settings = {"warmup_steps": warmup_steps, "min_lr": min_lr, "patience": patience}
    whole_optimizer = new_optimizer()
    whole = new_schedule(whole_optimizer, kind, **settings)
    expected = run(whole_optimizer, whole, range(NUM_STEPS))

    optimizer = new_optimizer()
    schedule = new_schedule(optimizer, kind, **settings)
    before = run(optimizer, schedule, range(cut))
    file = io.BytesIO()
    torch.save([optimizer.state_dict(), schedule.state_dict()], file)
    file.seek(0)
    of_optimizer, of_schedule = torch.load(file, weights_only=True)
    resumed_optimizer = new_optimizer()
    resumed = new_schedule(resumed_optimizer, kind, **settings)
    resumed_optimizer.load_state_dict(of_optimizer)
    resumed.load_state_dict(of_schedule)
    assert before + run(resumed_optimizer, resumed, range(cut, NUM_STEPS)) == expected
    assert resumed.has_ended == whole.has_ended


def test_the_optimiser_moves_as_sgd_with_nesterov_momentum_and_weight_decay():
    parameter = nn.Parameter(torch.tensor([2.0]))
    optimizer = build_sgd([parameter], lr=0.1, momentum=0.9, is_nesterov=True, weight_decay=0.5)
    parameter.grad = torch.tensor([1.0])
    optimizer.step()
    # gradient 1 + 0.5 * 2 = 2; Nesterov's first move is 2 + 0.9 * 2 = 3.8.
    assert parameter.item() == pytest.approx(2.0 - 0.1 * 3.8)


def test_adamw_moves_by_the_rate_in_its_first_step_and_decays_apart_from_the_gradient():
    parameter = nn.Parameter(torch.tensor([2.0, 2.0]))
    optimizer = build_adamw([parameter], lr=0.1, betas=(0.9, 0.999), eps=1e-12, weight_decay=0.5)
    parameter.grad = torch.tensor([3.0, -0.01])
    optimizer.step()
    # 2 - 0.1 * 0.5 * 2 = 1.9, then the rate in the direction against the gradient, however large that is.
    assert parameter.tolist() == pytest.approx([1.8, 2.0])


SCALES = (0.25, 1.0, 10.0)


def scaled_optimizer(lr=0.8):
    """The first group is not the one whose scale is 1."""
    groups = []
    for scale in SCALES:
        parameter = nn.Parameter(torch.zeros(1))
        parameter.grad = torch.zeros(1)
        groups.append({"params": [parameter], "lr": lr * scale, "weight_decay": 0.0, "lr_scale": scale})
    return build_sgd(groups, lr=lr, momentum=0.9, is_nesterov=True, weight_decay=0.0)


@pytest.mark.parametrize("kind", get_args(ScheduleKind))
def test_every_group_follows_the_schedule_at_its_own_scale(kind):
    settings = {"warmup_steps": 2} if kind == "cosine" else {}
    plain, scaled = new_optimizer(), scaled_optimizer()
    of_plain, of_scaled = (new_schedule(optimizer, kind, **settings) for optimizer in (plain, scaled))
    for step in range(NUM_STEPS):
        lr = plain.param_groups[0]["lr"]
        rates = [group["lr"] for group in scaled.param_groups]
        assert rates == pytest.approx([lr * scale for scale in SCALES], rel=1e-12)
        assert (of_plain.lr, of_scaled.lr) == (lr, pytest.approx(lr))
        run(plain, of_plain, [step])
        run(scaled, of_scaled, [step])


def test_a_plateau_ends_by_the_rate_at_scale_1_and_lowers_the_smallest_rates_too():
    optimizer = scaled_optimizer(lr=1e-7)
    schedule = new_schedule(optimizer, "plateau", factor=0.5, patience=0, min_lr=5e-8)
    for _ in range(2):
        schedule.after_validation(1.0)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([5e-8 * scale for scale in SCALES])
    assert not schedule.has_ended
    schedule.after_validation(1.0)
    assert schedule.has_ended
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([5e-8 * scale for scale in SCALES])


def test_a_smallest_rate_equal_to_the_first_is_accepted_at_any_scale():
    for lr in (0.1, 0.3, 0.7):
        new_schedule(scaled_optimizer(lr), "plateau", min_lr=lr)


@pytest.mark.parametrize("kind", get_args(ScheduleKind))
def test_a_schedule_of_groups_continues_from_its_state(kind):
    whole, resumed = scaled_optimizer(), scaled_optimizer()
    of_whole = new_schedule(whole, kind)
    run(whole, of_whole, range(3))
    optimizer_state, schedule_state = copy.deepcopy([whole.state_dict(), of_whole.state_dict()])
    of_resumed = new_schedule(resumed, kind)
    resumed.load_state_dict(optimizer_state)
    of_resumed.load_state_dict(schedule_state)
    assert run(resumed, of_resumed, range(3, NUM_STEPS)) == run(whole, of_whole, range(3, NUM_STEPS))
    assert [group["lr"] for group in resumed.param_groups] == [group["lr"] for group in whole.param_groups]


def test_a_state_of_before_there_were_scales_is_taken():
    optimizer = scaled_optimizer()
    optimizer.param_groups[:] = optimizer.param_groups[1:2]
    schedule = new_schedule(optimizer, "step")
    state = copy.deepcopy(optimizer.state_dict())
    del state["param_groups"][0]["lr_scale"]
    optimizer.load_state_dict(state)
    run(optimizer, schedule, range(4))
    assert schedule.lr == pytest.approx(0.4)


def test_an_unknown_schedule_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'linear' is unknown.*constant, step, plateau, cosine, one_cycle"):
        Schedule(new_optimizer(), "linear", num_steps=1)
