"""A network in training becomes a better one to validate: an average of its weights, batch norms measured anew.

Neither is in the paper. Legend: C channels.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class WeightAverage:
    """A copy of a network whose weights and running statistics are exponential moving averages of the network's.

    After the first step it is the network itself, after each later one `decay` times itself plus the rest of it.
    """

    def __init__(self, net: nn.Module, *, decay: float) -> None:
        """Copy `net` (not its data-parallel wrapper); `decay` is in [0, 1]."""
        self._average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
        self._average.requires_grad_(False).eval()

    @property
    def module(self) -> nn.Module:
        """The averaged network, in evaluation mode, without gradients."""
        return self._average.module

    def update(self, net: nn.Module) -> None:
        """Take in the weights of `net` after an optimiser step."""
        self._average.update_parameters(net)
        for averaged, current in zip(self.module.buffers(), net.buffers(), strict=True):
            if not averaged.is_floating_point():  # a counter: rounded averages of it would stand still
                averaged.copy_(current)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return self._average.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from `state_dict()`."""
        self._average.load_state_dict(state)


@torch.no_grad()
def measure_batch_norms(
    net: nn.Module, run_batches: Callable[[], None], *, sum_over_workers: Callable[[Tensor], object]
) -> None:
    """Set the running statistics of all batch norms to those of the given batches of all workers (precise BN).

    Each batch is normalised by its own statistics, as in training, but without dropout: `net` is in evaluation mode
    meanwhile, and also its synchronised batch norms wait for nobody, so that workers may have different numbers of
    batches, or none. The result is the exact mean and unbiased variance over the positions of all batches. Training
    flags, momenta and counters stay as they are; so do the statistics of batch norms that saw no batch anywhere, and
    all of them where `run_batches` fails.

    Args:
        net: the network, not its data-parallel wrapper.
        run_batches: runs `net` over this worker's batches.
        sum_over_workers: adds a tensor over all workers, in place; called once, by all of them.
    """
    norms = [
        _MeasuredNorm(norm, norm.running_mean, norm.running_var)
        for norm in net.modules()
        if isinstance(norm, _BatchNorm) and norm.running_mean is not None and norm.running_var is not None
    ]
    if not norms:
        return
    with _evaluating(net), contextlib.ExitStack() as stack:
        for norm in norms:
            stack.enter_context(norm.observing())
        run_batches()
    moments = torch.cat([norm.moments for norm in norms])
    sum_over_workers(moments)
    for norm, of_norm in zip(norms, moments.split([len(norm.moments) for norm in norms]), strict=True):
        norm.take_over(of_norm)


@contextlib.contextmanager
def _evaluating(net: nn.Module) -> Iterator[None]:
    """Put all of `net` into evaluation mode for a while, and let nothing of it run as compiled before."""
    was_training = {module: module.training for module in net.modules()}
    net.eval()
    try:
        with torch.compiler.set_stance("force_eager"):  # compiled code would not call the hooks of `observing`
            yield
    finally:
        for module, is_training in was_training.items():
            module.training = is_training


class _MeasuredNorm:
    """A batch norm, its running statistics, and what was seen of its input.

    Attributes:
        moments: number, sums and sums of squares of the positions seen: 1 + C + C values, float64.
    """

    def __init__(self, norm: _BatchNorm, running_mean_C: Tensor, running_var_C: Tensor) -> None:
        self._norm, self._running_mean_C, self._running_var_C = norm, running_mean_C, running_var_C
        self.moments = running_mean_C.new_zeros(1 + 2 * len(running_mean_C), dtype=torch.float64)

    @contextlib.contextmanager
    def observing(self) -> Iterator[None]:
        """Normalise each input by its own statistics and add them up; afterwards the old statistics are back."""
        mean_C, var_C = self._running_mean_C.clone(), self._running_var_C.clone()
        hook = self._norm.register_forward_pre_hook(self._observe)
        try:
            yield
        finally:
            hook.remove()
            self._running_mean_C.copy_(mean_C)
            self._running_var_C.copy_(var_C)

    def take_over(self, moments: Tensor) -> None:
        """Set the running statistics to those of the positions in `moments`, where there are any."""
        num_positions = int(moments[0])
        if num_positions == 0:
            return
        mean_C, mean_square_C = (moments[1:] / num_positions).chunk(2)
        var_C = (mean_square_C - mean_C.square()).clamp(min=0) * num_positions / max(1, num_positions - 1)
        self._running_mean_C.copy_(mean_C)
        self._running_var_C.copy_(var_C)

    def _observe(self, _: nn.Module, inputs: tuple[Tensor]) -> None:
        values = inputs[0].to(self._running_mean_C.dtype)
        var_C, mean_C = torch.var_mean(values, dim=[axis for axis in range(values.ndim) if axis != 1], correction=0)
        self._running_mean_C.copy_(mean_C)
        self._running_var_C.copy_(var_C)
        num_positions, mean_C, var_C = values.numel() // values.shape[1], mean_C.double(), var_C.double()
        self.moments[0] += num_positions
        self.moments[1:] += num_positions * torch.cat([mean_C, var_C + mean_C.square()])
