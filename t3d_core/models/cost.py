"""A network and the shape of its clips become exact costs: parameters, multiply-adds, bytes kept for backward.

Nothing is computed: a copy of the network runs on the `meta` device, so a 32 x 224 x 224 clip costs no memory.
"""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters, batch-norm statistics not among them."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, clip_shape: Sequence[int]) -> int:
    """Return the multiply-adds of convolutions and linear layers in one forward pass.

    Args:
        model: Any network that takes a clip; it is left as it is.
        clip_shape: Shape (B, C, T, H, W).
    """
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        _on_meta(model).eval()(torch.empty(tuple(clip_shape), device="meta"))
    # PyTorch counts a multiply-add as two operations.
    return counter.get_total_flops() // 2


def count_training_macs(model: nn.Module, clip_shape: Sequence[int]) -> int:
    """Return the multiply-adds of one training step: forward, backward, and what is recomputed for it.

    Args:
        model: Any network that takes a clip; it is left as it is.
        clip_shape: Shape (B, C, T, H, W).
    """
    model, counter = _on_meta(model).train(), FlopCounterMode(display=False)
    with counter:
        model(torch.empty(tuple(clip_shape), device="meta")).sum().backward()
    return counter.get_total_flops() // 2


def count_saved_bytes(model: nn.Module, clip_shape: Sequence[int]) -> int:
    """Return the bytes that autograd keeps for backward after one training forward in float32.

    Args:
        model: Any network that takes a clip; it is left as it is.
        clip_shape: Shape (B, C, T, H, W).
    """
    model = _on_meta(model).train()
    return saved_bytes(model, lambda: model(torch.empty(tuple(clip_shape), device="meta")))


def saved_bytes(model: nn.Module, forward: Callable[[], object]) -> int:
    """Return the bytes that autograd keeps for backward while `forward` runs.

    A storage that several operations keep counts once; parameters and buffers do not count, the clip does. Of a
    recomputed layer only its input counts, because only that is kept.

    Args:
        model: The network that runs, as it is.
        forward: Runs it.
    """
    own = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}

    nothing = torch.empty(0)

    def keep(tensor: Tensor) -> Tensor:
        """Hold the storage, so that no other gets its address; autograd gets nothing, because backward never runs."""
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return nothing

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        forward()
    return sum(storage.nbytes() for address, storage in kept.items() if address not in own)


def _on_meta(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).to("meta")
