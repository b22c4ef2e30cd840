"""A convolution and its pooling: every form against the literal one, in float64, forward and backward."""

import itertools

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from t3d_core.models.transition_forms import _NeighbourSum, convolve_and_pool

OTHER_FORMS = ("pooled", "averaged", "space_to_depth")
DEPTHS = (1, 2, 3, 4, 5, 6, 7)


def run(form, depth, size, pool):
    """Return the result and the gradients of maps and kernel, for fixed random numbers."""
    generator = torch.Generator().manual_seed(0)
    side = 1 if depth == 1 else 3
    x = torch.randn(2, 3, *size, dtype=torch.float64, generator=generator, requires_grad=True)
    weight = torch.randn(4, 3, depth, side, side, dtype=torch.float64, generator=generator, requires_grad=True)
    out = convolve_and_pool(x, weight, pool=pool, form=form)
    # A weighted sum: every position has its own gradient.
    (out * torch.randn(out.shape, dtype=torch.float64, generator=generator)).sum().backward()
    return out, x.grad, weight.grad


@pytest.mark.parametrize("pool", [(2, 2, 2), (1, 2, 2)])
@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("form", OTHER_FORMS)
def test_every_form_gives_the_literal_result_and_gradients(form, depth, pool):
    for size in itertools.product((2, 3, 8, 9), (4, 5), (2, 7)):  # even, odd, shorter than the kernel
        for found, expected in zip(run(form, depth, size, pool), run("literal", depth, size, pool), strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_a_pooled_form_does_not_convolve_at_full_size():
    x, weight = torch.empty(1, 2, 8, 8, 8, device="meta"), torch.empty(3, 2, 3, 3, 3, device="meta")
    macs = {}
    for form in ("literal", *OTHER_FORMS):
        counter = FlopCounterMode(display=False)
        with counter:
            convolve_and_pool(x, weight, pool=(2, 2, 2), form=form)
        macs[form] = counter.get_total_flops() // 2
    positions = 4**3
    assert macs == {
        "literal": 8 * positions * 3 * 2 * 27,
        "pooled": positions * 3 * 2 * 64,
        "averaged": positions * 3 * 2 * 27,
        "space_to_depth": positions * 3 * 2 * 64,
    }


@pytest.mark.parametrize("form", OTHER_FORMS)
def test_channels_last_maps_give_the_same(form):
    x, weight = torch.randn(2, 8, 5, 6, 7, dtype=torch.float64), torch.randn(4, 8, 3, 3, 3, dtype=torch.float64)
    plain = convolve_and_pool(x, weight, pool=(2, 2, 2), form=form)
    last = convolve_and_pool(x.to(memory_format=torch.channels_last_3d), weight, pool=(2, 2, 2), form=form)
    torch.testing.assert_close(last, plain)


@pytest.mark.parametrize("dim", [2, 3, 4])
def test_the_neighbour_sum_passes_a_numerical_check_of_its_gradient(dim):
    x = torch.randn(1, 2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda maps: _NeighbourSum.apply(maps, dim), (x,))
