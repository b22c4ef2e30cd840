"""A frozen teacher's targets become keys: short vectors of unit length in which no direction drowns the others.

The teacher never learns, so the statistics of a data set are measured once. Paper: not in it; its head sees the raw
features, most of whose variance lies in a few directions that say which scene it is.

Legend: B or N clips, P parts of a target, D width of a part, d width of a part's key.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

_SMALLEST_SHARE = 1e-6  # of the variance of the first component: what is below is rounding


class Whitening(nn.Module):
    """Standardise, take principal components, divide each by a power of its standard deviation, scale to length 1.

    Each part of a target is treated alone, and all parts weigh the same.

    Attributes:
        key_dim: width P * d of the keys.
    """

    mean_D: Tensor
    std_D: Tensor
    basis_PDd: Tensor

    def __init__(self, mean_D: Tensor, std_D: Tensor, basis_PDd: Tensor) -> None:
        """Use these statistics: mean and standard deviation (P * D,) of targets, and scaled components (P, D, d)."""
        super().__init__()
        self.register_buffer("mean_D", mean_D)
        self.register_buffer("std_D", std_D)
        self.register_buffer("basis_PDd", basis_PDd)
        self.key_dim = basis_PDd.shape[0] * basis_PDd.shape[2]

    @torch.no_grad()
    def forward(self, target_BD: Tensor) -> Tensor:
        """Give the keys (B, P * d), of length 1, of targets (B, P * D)."""
        standard_BPD = ((target_BD - self.mean_D) / self.std_D).unflatten(1, (len(self.basis_PDd), -1))
        part_BPd = functional.normalize(torch.einsum("bpi,pij->bpj", standard_BPD, self.basis_PDd), dim=2)
        return part_BPd.flatten(1) / len(self.basis_PDd) ** 0.5


def fit_whitening(target_ND: Tensor, *, num_parts: int, dim: int, power: float) -> Whitening:
    """Measure the statistics of targets.

    Args:
        target_ND: (N, P * D), at least two different ones.
        num_parts: P.
        dim: most components of each part that are kept; all parts keep equally many.
        power: 0 leaves the components their standard deviations, 1 gives all of them the same.
    """
    target_ND = target_ND.double()
    mean_D, std_D = target_ND.mean(dim=0), target_ND.std(dim=0, correction=0)
    std_D = torch.where(std_D > 0, std_D, 1)
    standard_NPD = ((target_ND - mean_D) / std_D).unflatten(1, (num_parts, -1))
    variances, components = torch.linalg.eigh(torch.einsum("npi,npj->pij", standard_NPD, standard_NPD) / len(target_ND))
    variances, components = variances.flip(1), components.flip(2)  # the largest first
    rank = int((variances > _SMALLEST_SHARE * variances[:, :1]).sum(dim=1).min())
    kept = slice(0, max(1, min(dim, rank)))
    scale_Pd = torch.where(variances > 0, variances, 1)[:, kept].sqrt() ** -power
    basis_PDd = components[:, :, kept] * scale_Pd[:, None, :]
    return Whitening(mean_D.float(), std_D.float(), basis_PDd.float())
