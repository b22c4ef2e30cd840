"""Multiply-adds per second of a product of large matrices: the reference for a network's rate."""

import statistics
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from pipelines.benchmark.measuring.rows import alternating_seconds
from t3d_core.models.execution import Precision

MAX_SECONDS = 1.0
"""Limit for one product: without instructions for its precision, a large one takes minutes."""

_SIZES = (256, 512, 1024, 2048)
_DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


def matmul_ceilings(device: torch.device, *, repeats: int) -> dict[Precision, float]:
    """Return the multiply-adds per second by precision.

    The faster of two ways counts: `torch.mm` and an equal 1x1x1 convolution, because they may use different libraries
    (on a CPU, MKL and oneDNN). Each has the largest size that takes at most `MAX_SECONDS`.
    """
    ways = {
        (precision, make): partial(make, dtype=dtype, device=device)
        for precision, dtype in _DTYPES.items()
        for make in (_mm, _conv)
    }
    with torch.inference_mode():
        sizes = {key: largest_in_time(make_product) for key, make_product in ways.items()}
        seconds = alternating_seconds({key: ways[key](size) for key, size in sizes.items()}, repeats=repeats)
    rates = {key: 2 * sizes[key] ** 3 / statistics.median(rounds) for key, rounds in seconds.items()}
    return {precision: max(rates[precision, _mm], rates[precision, _conv]) for precision in _DTYPES}


def largest_in_time(
    make_product: Callable[[int], Callable[[], object]], *, clock: Callable[[], float] = time.perf_counter
) -> int:
    """Return the largest size whose product is expected to take at most `MAX_SECONDS`, else the smallest."""
    for size, larger in pairwise(_SIZES):
        product = make_product(size)
        product()  # the first call also loads libraries
        start = clock()
        product()
        if (clock() - start) * (larger / size) ** 3 > MAX_SECONDS:
            return size
    return _SIZES[-1]


def _mm(size: int, *, dtype: torch.dtype, device: torch.device) -> Callable[[], None]:
    kernel, columns = (torch.randn(size, width, device=device, dtype=dtype) for width in (size, 2 * size))
    return partial(_run_and_wait, partial(torch.mm, kernel, columns), device)


def _conv(size: int, *, dtype: torch.dtype, device: torch.device) -> Callable[[], None]:
    maps = torch.randn(2, size, size // 256, 16, 16, device=device, dtype=dtype)
    kernel = torch.randn(size, size, 1, 1, 1, device=device, dtype=dtype)
    last = partial(Tensor.contiguous, memory_format=torch.channels_last_3d)
    return partial(_run_and_wait, partial(nn.functional.conv3d, last(maps), last(kernel)), device)


def _run_and_wait(run: Callable[[], Tensor], device: torch.device) -> None:
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
