"""A layer that keeps only its input for backward and computes the rest once more there: memory for time."""

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


class RecomputableLayer(nn.Module):
    """A layer whose activations can be left out of what is kept for backward.

    The second computation leaves running statistics alone, and dropout draws what it drew before, so that results,
    gradients and buffers are those of a plain layer.

    Attributes:
        is_recomputed: Whether to do so; see `VideoNet.set_recompute`.
    """

    is_recomputed: bool = False

    def compute(self, *inputs: Any) -> Tensor:
        """The layer itself."""
        raise NotImplementedError

    def forward(self, *inputs: Any) -> Tensor:
        """`compute`, with or without keeping its activations."""
        if not (self.is_recomputed and torch.is_grad_enabled()):
            return self.compute(*inputs)
        return checkpoint(self.compute, *inputs, use_reentrant=False, context_fn=partial(_contexts, self))


def _contexts(layer: nn.Module) -> tuple[contextlib.AbstractContextManager, contextlib.AbstractContextManager]:
    """What the first and the second computation run in."""
    return contextlib.nullcontext(), _untracked_statistics(layer)


@contextlib.contextmanager
def _untracked_statistics(layer: nn.Module) -> Iterator[None]:
    """Let batch norms update copies of their running statistics, because the statistics themselves are updated already.

    Without any copies autograd would keep fewer tensors than in the first computation, and raise an error.
    """
    norms = [module for module in layer.modules() if isinstance(module, _BatchNorm)]
    before = [dict(norm._buffers) for norm in norms]
    for norm in norms:
        norm._buffers.update({name: kept if kept is None else kept.clone() for name, kept in norm._buffers.items()})
    try:
        yield
    finally:
        for norm, buffers in zip(norms, before, strict=True):
            norm._buffers.update(buffers)
