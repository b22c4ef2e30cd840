"""Multiply-adds a second of a product of large matrices: what a network's rate is measured against."""

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
"""Of one product: in a precision that a processor has no instructions for, a large one takes minutes."""

_SIZES = (256, 512, 1024, 2048)
_DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


def matmul_ceilings(device: torch.device, *, repeats: int) -> dict[Precision, float]:
    """Return the multiply-adds a second by precision.

    Of two ways the faster: `torch.mm`, and as much as a 1x1x1 convolution, for the two may come from other libraries
    (on a CPU from MKL and oneDNN). Each at the largest size that is soon done.
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
    """Return the largest size whose product is expected to take at most `MAX_SECONDS`; the smallest if none is."""
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
