"""Keys give small directions of the teacher's targets a say."""

import pytest
import torch

from t3d_core.transfer.whitening import fit_whitening


def targets(num_parts=1, deviations=(10.0, 1.0, 0.1), number=4000):
    torch.manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(num_parts, len(deviations), len(deviations)))[0]
    return torch.einsum(
        "npi,pij->npj", torch.randn(number, num_parts, len(deviations)) * torch.tensor(deviations), rotation
    ).flatten(1) + torch.arange(num_parts * len(deviations))


def spread(key_Nd):
    """Largest by smallest standard deviation of the keys' principal components."""
    variances = torch.linalg.eigvalsh(key_Nd.T.cov())
    return float((variances[-1] / variances[0]).sqrt())


@pytest.mark.parametrize("num_parts", [1, 2])
def test_keys_have_length_one_and_every_part_weighs_the_same(num_parts):
    whitening = fit_whitening(targets(num_parts), num_parts=num_parts, dim=2, power=0.5)
    key_Nd = whitening(targets(num_parts))
    assert whitening.key_dim == key_Nd.shape[1] == 2 * num_parts
    assert key_Nd.norm(dim=1).numpy() == pytest.approx(1, abs=1e-5)
    lengths = key_Nd.unflatten(1, (num_parts, -1)).norm(dim=2)
    assert lengths.numpy() == pytest.approx(num_parts**-0.5, abs=1e-5)


def test_the_power_decides_how_much_small_directions_count():
    at = [spread(fit_whitening(targets(), num_parts=1, dim=3, power=power)(targets())) for power in (0, 0.5, 1)]
    assert at[0] > 2 * at[1] > 4 * at[2]
    assert at[2] == pytest.approx(1, abs=0.05)


def test_the_largest_components_are_kept():
    torch.manual_seed(0)
    shared = torch.randn(500, 1)
    target_ND = torch.cat([shared, shared, shared, torch.randn(500, 1)], dim=1)  # three of four are one direction
    [key_N] = fit_whitening(target_ND, num_parts=1, dim=1, power=1)(target_ND).T
    agreement = (key_N.sign() == shared[:, 0].sign()).float().mean().item()
    assert max(agreement, 1 - agreement) > 0.95  # the sign of a component is arbitrary


def test_constant_numbers_and_more_components_than_there_are_give_finite_keys():
    target_ND = torch.cat([targets()[:5], torch.ones(5, 2)], dim=1)
    whitening = fit_whitening(target_ND, num_parts=1, dim=64, power=1)
    assert whitening.key_dim == 3
    assert whitening(target_ND).isfinite().all()
    assert fit_whitening(torch.ones(4, 6), num_parts=2, dim=3, power=0.5)(torch.ones(4, 6)).isfinite().all()
