"""A convolution and the average pooling after it become one sum, in four forms that give the same result.

Both are linear, so that they may be merged (drawn along one axis, kernel w of 3, pool 2; `#` is one multiply-add):

    literal          conv, stride 1       ### ### ### ###    then the mean of neighbours
    pooled           one conv, stride 2   ####    ####       kernel: w averaged with itself shifted by one
    averaged         one conv, stride 2   ###     ###        input: x averaged with itself shifted by one
    space_to_depth   one conv, stride 1   [##][##]           the kernel of `pooled` over 8C half-size channels

A 1x1x1 convolution is done after the pooling in all forms but the literal one: an eighth of the positions. Which form
is the fastest depends on the layer and the device; `python jobs/benchmark.py model` measures it. Parameters and their
gradients are those of the literal form.

Legend: B clips, C and O channels, T frames, H x W pixels.
"""

import math
from typing import NamedTuple, get_args

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn import functional

from t3d_core.errors import UserError
from t3d_core.model_names import TransitionForm

Axes = tuple[int, int, int]


def default_forms(num_transitions: int) -> tuple[TransitionForm, ...]:
    """Return the default forms of a net's transitions: `pooled` first, then `averaged`.

    On a CPU they were the fastest for T3D-121, and they have fewer multiply-adds than `pooled` alone.
    """
    return tuple("averaged" if index else "pooled" for index in range(num_transitions))


def checked_form(form: TransitionForm) -> TransitionForm:
    """Return `form`.

    Raises:
        UserError: It is unknown.
    """
    if form not in get_args(TransitionForm):
        raise UserError(f"transition form {form!r} is unknown; choose one of {', '.join(get_args(TransitionForm))}")
    return form


class _Window(NamedTuple):
    """What a pooled convolution sees: zeros before and after the maps, and the pool size, along T, H, W."""

    before: Axes
    after: Axes
    pool: Axes

    @property
    def pooled_dims(self) -> list[int]:
        return [dim for dim, size in enumerate(self.pool, start=2) if size == 2]

    @property
    def grown(self) -> Axes:
        """1 where the kernel of the pooled form is longer by one tap."""
        return tuple(size - 1 for size in self.pool)  # type: ignore[return-value]


def convolve_and_pool(x_BCTHW: Tensor, weight: Tensor, *, pool: Axes, form: TransitionForm) -> Tensor:
    """Convolve without changing the size, then average over `pool`.

    Args:
        x_BCTHW: Feature maps.
        weight: Kernel (O, C, d, h, w). Zeros are put around the maps; where d is even, one frame more at the end.
        pool: Size and stride of the average pooling along T, H, W, each 1 or 2; a window that is not full is left out.
        form: How the sum is ordered.

    Returns:
        Maps (B, O, T // pool[0], H // pool[1], W // pool[2]).
    """
    kernel = weight.shape[2:]
    window = _Window(
        before=tuple((size - 1) // 2 for size in kernel),  # type: ignore[arg-type]
        after=tuple(size // 2 for size in kernel),  # type: ignore[arg-type]
        pool=pool,
    )
    if form == "literal":
        return _literal(x_BCTHW, weight, window)
    if math.prod(kernel) == 1:
        return functional.conv3d(functional.avg_pool3d(x_BCTHW, pool), weight)
    return {"pooled": _pooled, "averaged": _averaged, "space_to_depth": _space_to_depth}[form](x_BCTHW, weight, window)


def _literal(x_BCTHW: Tensor, weight: Tensor, window: _Window) -> Tensor:
    maps = _convolve(x_BCTHW, weight, window, stride=(1, 1, 1))
    return maps if window.pool == (1, 1, 1) else functional.avg_pool3d(maps, window.pool)


def _pooled(x_BCTHW: Tensor, weight: Tensor, window: _Window) -> Tensor:
    return _convolve(x_BCTHW, _pooled_kernel(weight, window), window, stride=window.pool)


def _averaged(x_BCTHW: Tensor, weight: Tensor, window: _Window) -> Tensor:
    sums = _neighbour_sums(_pad(x_BCTHW, window.before, window.after), window.pooled_dims)
    return functional.conv3d(sums, weight / math.prod(window.pool), stride=window.pool)


def _space_to_depth(x_BCTHW: Tensor, weight: Tensor, window: _Window) -> Tensor:
    kernel = _pooled_kernel(weight, window)
    # Whole windows only: zero taps at the end of the kernel, and as many zeros after the maps.
    spare = tuple(-size % step for size, step in zip(kernel.shape[2:], window.pool, strict=True))
    after = tuple(zeros + more for zeros, more in zip(window.after, spare, strict=True))
    maps = _pad(x_BCTHW, window.before, after)
    return functional.conv3d(_to_depth(maps, window.pool), _to_depth(_pad(kernel, (0, 0, 0), spare), window.pool))


def _convolve(x_BCTHW: Tensor, weight: Tensor, window: _Window, *, stride: Axes) -> Tensor:
    """Convolve with the zeros of `window`: those that stand on both sides are left to the convolution."""
    extra = tuple(last - first for first, last in zip(window.before, window.after, strict=True))
    if any(extra):
        x_BCTHW = _pad(x_BCTHW, (0, 0, 0), extra)
    return functional.conv3d(x_BCTHW, weight, stride=stride, padding=window.before)


def _pooled_kernel(weight: Tensor, window: _Window) -> Tensor:
    """Return the kernel averaged over its shifts by 0 and 1 along every pooled axis, one tap longer there."""
    padded = _pad(weight, window.grown, window.grown)
    return _neighbour_sums(padded, window.pooled_dims) / math.prod(window.pool)


def _to_depth(x_BCTHW: Tensor, block: Axes) -> Tensor:
    """Move every `block` of positions into the channels: (B, C * prod(block), T // ..., H // ..., W // ...)."""
    (batch, channels), (t, h, w) = x_BCTHW.shape[:2], block
    num_t, num_h, num_w = (size // step for size, step in zip(x_BCTHW.shape[2:], block, strict=True))
    x_BCTHW = x_BCTHW[:, :, : num_t * t, : num_h * h, : num_w * w]
    parts = x_BCTHW.reshape(batch, channels, num_t, t, num_h, h, num_w, w).permute(0, 1, 3, 5, 7, 2, 4, 6)
    return parts.reshape(batch, channels * t * h * w, num_t, num_h, num_w)


def _pad(x_BCTHW: Tensor, before: tuple[int, ...], after: tuple[int, ...]) -> Tensor:
    """Put zeros before and after along T, H, W."""
    pairs = [size for axis in (2, 1, 0) for size in (before[axis], after[axis])]
    return functional.pad(x_BCTHW, pairs)


def _neighbour_sums(x: Tensor, dims: list[int]) -> Tensor:
    """Return the sum of every 2 x 2 x ... window along `dims`, at stride 1: each of them shorter by one."""
    for dim in reversed(dims):  # the innermost axis first: it is the fastest to walk along
        x = _NeighbourSum.apply(x, dim)
    return x


class _NeighbourSum(torch.autograd.Function):
    """x[i] + x[i + 1] along one axis; keeps nothing for backward, and walks there once where two slices would twice."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, dim: int) -> Tensor:
        ctx.dim = dim  # type: ignore[attr-defined]
        length = x.shape[dim] - 1
        return x.narrow(dim, 0, length) + x.narrow(dim, 1, length)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:
        dim = ctx.dim  # type: ignore[attr-defined]
        padding = [0, 0] * (grad.ndim - dim - 1) + [0, 1]
        total = functional.pad(grad, padding)
        total.narrow(dim, 1, grad.shape[dim]).add_(grad)
        return total, None
