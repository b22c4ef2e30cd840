"""2D networks with weights as good as trained ones."""

import torch
from torch import nn


def with_random_weights(net_2d):
    """Weights that keep the signal, and batch norms of which every part matters."""
    torch.manual_seed(0)
    for module in net_2d.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return net_2d.eval()
