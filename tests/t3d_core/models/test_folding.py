"""Folded batch norms compute what the network computed."""

import pytest
import torch
from torch import nn

from t3d_core.models import build_model
from t3d_core.models.folding import fold_batch_norms

SMALL = {
    "growth_rate": 4,
    "block_config": (2, 2),
    "num_init_features": 16,
    "bn_size": 2,
    "temporal_depths": ((1, 3, 6),),
}


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("t3d", SMALL),
        ("t3d", SMALL | {"ttl_preset": "official128"}),
        ("densenet3d", {name: value for name, value in SMALL.items() if name != "temporal_depths"}),
        ("resnet3d_18", {"ttl": True, "layers": (1, 1, 1, 1)}),
        ("resnet3d_50", {"layers": (1, 1, 1, 1)}),
        ("res3d_18", {}),
        ("inception3d", {"ttl": True}),
        ("c3d", {}),
    ],
)
def test_folded_batch_norms_leave_the_results_as_they_are(kind, arguments):
    torch.manual_seed(0)
    net = build_model(kind, num_classes=3, **arguments).double()
    clip = torch.randn(2, 3, 16, 32, 32, dtype=torch.float64)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm3d | nn.BatchNorm1d):
            for tensor in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(tensor, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
    folded = fold_batch_norms(net.eval())
    torch.testing.assert_close(folded(clip), net(clip))
    num_norms = [sum(isinstance(module, nn.BatchNorm3d) for module in each.modules()) for each in (folded, net)]
    assert num_norms[0] < num_norms[1]
    if not kind.startswith(("t3d", "densenet3d")) and "ttl" not in arguments:
        assert num_norms[0] == 0
