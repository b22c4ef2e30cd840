from math import cos, pi

import pytest
import torch
from torch import nn

from t3d_core.training.optimization import Schedule, build_sgd

NUM_STEPS = 8
# A validation loss that falls, then stands still: with patience 1 the second bad validation acts.
LOSSES = [3.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.0, 1.0]


def new_optimizer():
    parameter = nn.Parameter(torch.zeros(1))
    parameter.grad = torch.zeros(1)
    return build_sgd([parameter], lr=0.8, momentum=0.9, is_nesterov=True, weight_decay=1e-4)


def new_schedule(optimizer, kind):
    return Schedule(optimizer, kind, num_steps=NUM_STEPS, every_epochs=2, factor=0.5, patience=1)


def run(optimizer, schedule, steps):
    """Give the learning rate of every step; two steps are an epoch, each step is followed by a validation."""
    rates = []
    for step in steps:
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
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
    "one_cycle": one_cycle_rates(),
}


@pytest.mark.parametrize("kind", EXPECTED)
def test_the_learning_rates_of_a_schedule_are_those_computed_by_hand(kind):
    optimizer = new_optimizer()
    assert run(optimizer, new_schedule(optimizer, kind), range(NUM_STEPS)) == pytest.approx(EXPECTED[kind])


@pytest.mark.parametrize("kind", EXPECTED)
@pytest.mark.parametrize("num_before", [3, 4])
def test_a_resumed_schedule_goes_on_with_the_same_learning_rates(kind, num_before):
    optimizer = new_optimizer()
    schedule = new_schedule(optimizer, kind)
    before = run(optimizer, schedule, range(num_before))
    resumed_optimizer = new_optimizer()
    resumed = new_schedule(resumed_optimizer, kind)
    resumed_optimizer.load_state_dict(optimizer.state_dict())
    resumed.load_state_dict(schedule.state_dict())
    after = run(resumed_optimizer, resumed, range(num_before, NUM_STEPS))
    assert before + after == pytest.approx(EXPECTED[kind])


def test_the_optimiser_moves_as_sgd_with_nesterov_momentum_and_weight_decay():
    parameter = nn.Parameter(torch.tensor([2.0]))
    optimizer = build_sgd([parameter], lr=0.1, momentum=0.9, is_nesterov=True, weight_decay=0.5)
    parameter.grad = torch.tensor([1.0])
    optimizer.step()
    # gradient 1 + 0.5 * 2 = 2; Nesterov's first move is 2 + 0.9 * 2 = 3.8.
    assert parameter.item() == pytest.approx(2.0 - 0.1 * 3.8)


def test_an_unknown_schedule_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'cosine' is unknown.*constant, step, plateau, one_cycle"):
        Schedule(new_optimizer(), "cosine", num_steps=1)
