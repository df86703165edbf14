"""Compact bilinear fusion as two custom operators, each the other's derivative, so that any order can be had.

With v_i the count sketch of input i, :func:`fuse` is the circular convolution of all v_i: linear in each input. Its
derivative in one input is the correlation of the cotangent with the convolution of the others, :func:`fuse_grad`. To
``torch.compile`` and ``torch.export`` both are opaque: complex numbers are not at home there.

Shapes: input i is (B, C_i) or (B, C_i, H, W), of any strides; ``hashes`` int64 in [0, d) and ``signs`` int8 of -1 and 1
are (C_1 + ... + C_m,), one input's after the other's; the output is (B, d) or (B, d, H, W), or summed over the H W
locations (B, d). Inside, a map is B samples of L locations, (B, L, C): channels last, and so are the results.

Reference: Wang et al., Spatiotemporal Pyramid Network for Video Action Recognition, CVPR 2017, algorithm 1; Pham and
Pagh, Fast and scalable polynomial kernels via explicit feature maps, KDD 2013.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from twostream.clip import ShapeError

# Elements of a sketch that are worked on at a time where nothing is kept: on a CPU they stay in the second level cache,
# a GPU wants much at a time.
_CPU_BLOCK, _GPU_BLOCK = 1 << 18, 1 << 25


@torch.library.custom_op("twostream::compact_bilinear", mutates_args=())
def fuse(inputs: Sequence[Tensor], hashes: Tensor, signs: Tensor, d: int, sum_pool: bool, keep: bool) -> list[Tensor]:
    """The fused features, and with ``keep`` the inputs' spectra, to spare the derivative as many sketches.

    Of vectors they are one tensor (m, B, 1, d // 2 + 1), of maps m tensors (1, B, L, d // 2 + 1). Those of a pair are
    not kept: to make them again takes no longer than to fetch memory for them. Differentiable in ``inputs``, as often
    as wanted; the spectra are not.
    """
    like = inputs[0]
    sketches = _sketches(hashes, signs, inputs)
    inputs = [_locations(x) for x in inputs]
    if by_outer_product(inputs, d, sum_pool):
        with without_autocast(like.device):
            return [_shaped(_outer_forward(inputs, sketches, d), like, sum_pool)]
    if keep and len(inputs) != 2:
        spectra = _spectra(inputs, sketches, d)
        return [_shaped(_convolve(spectra, d, sum_pool, spare=True), like, sum_pool), *spectra]
    B, L, _ = inputs[0].shape
    out = like.new_empty(B, 1 if sum_pool else L, d)
    for rows in _blocks(inputs[0], L * d):
        out[rows] = _convolve(_spectra([x[rows] for x in inputs], sketches, d), d, sum_pool)
    return [_shaped(out, like, sum_pool)]


@torch.library.custom_op("twostream::compact_bilinear_grad", mutates_args=())
def fuse_grad(
    g: Tensor,
    inputs: Sequence[Tensor],
    spectra: Sequence[Tensor],
    hashes: Tensor,
    signs: Tensor,
    d: int,
    sum_pool: bool,
) -> list[Tensor]:
    """The gradients of :func:`fuse`, shaped as its inputs, for the cotangent ``g`` of its output.

    ``spectra`` are what the forward pass kept; where it kept none they are computed again.
    """
    like = inputs[0]
    sketches = _sketches(hashes, signs, inputs)
    g, *inputs = (_locations(x) for x in (g, *inputs))
    grads = [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in inputs]
    if by_outer_product(inputs, d, sum_pool):
        with without_autocast(like.device):
            _outer_backward(g, inputs, sketches, grads)
        return [_shaped(grad, like) for grad in grads]
    L = inputs[0].shape[1]
    # Correlation is the product with a conjugate spectrum. Conjugating g's instead gives the result back to front:
    # one pass instead of m - 1, and the reversal is free in the index that gathers.
    backwards = [(-sketch.hashes) % d for sketch in sketches]
    for rows in _blocks(inputs[0], L * d):
        factors = _each([x[:, rows] for x in spectra] or _spectra([x[rows] for x in inputs], sketches, d))
        cotangent = torch.fft.rfft(g[rows]).conj_physical_().expand(-1, L, -1)
        correlations = torch.fft.irfft(_leaving_one_out(factors, cotangent), n=d).flatten(1, 2)
        for correlation, index, sketch, grad in zip(correlations, backwards, sketches, grads, strict=True):
            # index_select on a matrix is six times as fast as on the last of three axes.
            torch.mul(correlation.index_select(1, index), sketch.signs, out=grad[rows].flatten(0, 1))
    return [_shaped(grad, like) for grad in grads]


def by_outer_product(inputs: Sequence[Tensor], d: int, sum_pool: bool) -> bool:
    """Whether a summed pair (B, L, C_i) is cheaper as one matrix product over L and one sketch of C_1 C_2 entries.

    Both sides count nanoseconds on one AVX-512 core; a GPU favours the matrix product more.
    """
    if not sum_pool or len(inputs) != 2:
        return False
    (_, L, first), (_, _, second) = inputs[0].shape, inputs[1].shape
    return bool(first * second * (1.5 + 0.03 * L) < L * (first + second + 2.0 * d))


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """A stretch in the inputs' own type; on devices without autocast nothing."""
    return torch.autocast(device.type, enabled=False) if torch.amp.is_autocast_available(device.type) else nullcontext()


class _Sketch(NamedTuple):
    hashes: Tensor
    signs: Tensor


def _sketches(hashes: Tensor, signs: Tensor, inputs: Sequence[Tensor]) -> list[_Sketch]:
    channels = [x.shape[1] for x in inputs]
    # Products of mixed types are several times as slow as those of one.
    signs = signs.to(inputs[0].dtype)
    return [
        _Sketch(h, s) for h, s in zip(hashes.split_with_sizes(channels), signs.split_with_sizes(channels), strict=True)
    ]


def _locations(x: Tensor) -> Tensor:
    """(B, C) or (B, C, H, W) -> (B, L, C), a view for maps with channels first or last in memory."""
    return x[:, None] if x.ndim == 2 else x.flatten(2).mT


def _shaped(x: Tensor, like: Tensor, sum_pool: bool = False) -> Tensor:
    """The inverse: (B, L, C) -> (B, C), or (B, C, H, W) with the sizes of ``like``."""
    return x[:, 0] if sum_pool or like.ndim == 2 else torch.unflatten(x.mT, 2, like.shape[2:])


def _spectra(inputs: Sequence[Tensor], sketches: Sequence[_Sketch], d: int) -> list[Tensor]:
    # Vectors are transformed together, because every call costs 10 us of planning; maps one by one, because a buffer
    # for all of them has to be fetched from the system anew each time.
    together = len(inputs) if inputs[0].shape[1] == 1 else 1
    spectra = []
    for first in range(0, len(inputs), together):
        part = inputs[first : first + together]
        out = part[0].new_zeros(len(part), *part[0].shape[:2], d)
        for x, (h, s), sketch in zip(part, sketches[first:], out, strict=False):
            # An expanded index costs nothing, and scatter_add_ has a deterministic form on every device.
            sketch.scatter_add_(2, h.expand(x.shape), x.contiguous() * s)
        spectra.append(torch.fft.rfft(out))
    return spectra


def _each(spectra: Sequence[Tensor]) -> list[Tensor]:
    return [spectrum for part in spectra for spectrum in part]


def _convolve(spectra: Sequence[Tensor], d: int, sum_pool: bool, *, spare: bool = False) -> Tensor:
    product, *others = _each(spectra)
    for number, factor in enumerate(others):
        product = product * factor if spare and not number else product.mul_(factor)
    # The transform is linear: summed in front of it, there is one per sample instead of one per location.
    out: Tensor = torch.fft.irfft(product.sum(1, keepdim=True) if sum_pool else product, n=d)
    return out


def _leaving_one_out(factors: Sequence[Tensor], start: Tensor) -> Tensor:
    """At place i ``start`` times all factors but the i-th, in 3 m - 4 products."""
    if len(factors) == 1:
        return start[None]
    out = factors[0].new_empty(len(factors), *factors[0].shape)
    before = start
    for place, factor in zip(out[1:], factors, strict=False):
        before = torch.mul(before, factor, out=place)
    after = factors[-1]
    for i in range(len(factors) - 2, 0, -1):
        out[i].mul_(after)
        after = after * factors[i]
    torch.mul(start, after, out=out[0])
    return out


def _outer_forward(inputs: Sequence[Tensor], sketches: Sequence[_Sketch], d: int) -> Tensor:
    (x, y), (of_x, of_y) = inputs, sketches
    index = _pair_index(sketches, d)
    out = x.new_zeros(len(x), 1, d)
    for rows in _blocks(x, len(index)):
        pairs = ((x[rows] * of_x.signs).mT @ (y[rows] * of_y.signs)).flatten(1)  # (b, C_1 C_2), the locations summed
        out[rows, 0].scatter_add_(1, index.expand(pairs.shape), pairs)
    return out


def _outer_backward(g: Tensor, inputs: Sequence[Tensor], sketches: Sequence[_Sketch], grads: Sequence[Tensor]) -> None:
    (x, y), (of_x, of_y) = inputs, sketches
    index = _pair_index(sketches, g.shape[2])
    for rows in _blocks(x, len(index)):
        pairs = g[rows, 0].index_select(1, index).view(-1, x.shape[2], y.shape[2])  # (b, C_1, C_2)
        torch.mul((y[rows] * of_y.signs) @ pairs.mT, of_x.signs, out=grads[0][rows])
        torch.mul((x[rows] * of_x.signs) @ pairs, of_y.signs, out=grads[1][rows])


def _pair_index(sketches: Sequence[_Sketch], d: int) -> Tensor:
    of_x, of_y = sketches
    return ((of_x.hashes[:, None] + of_y.hashes) % d).flatten()


def _blocks(x: Tensor, elements: int) -> Iterator[slice]:
    block = _CPU_BLOCK * torch.get_num_threads() if x.device.type == "cpu" else _GPU_BLOCK
    step = max(1, block // elements)
    return (slice(start, start + step) for start in range(0, len(x), step))


@fuse.register_fake
def _(inputs: Sequence[Tensor], hashes: Tensor, signs: Tensor, d: int, sum_pool: bool, keep: bool) -> list[Tensor]:
    del hashes, signs
    like = inputs[0]
    inputs = [_locations(x) for x in inputs]
    B, L, _ = inputs[0].shape
    out = _shaped(like.new_empty(B, 1 if sum_pool else L, d), like, sum_pool)
    if not keep or len(inputs) == 2:
        return [out]
    parts = [len(inputs)] if L == 1 else [1] * len(inputs)
    return [out, *(like.new_empty(part, B, L, d // 2 + 1, dtype=like.dtype.to_complex()) for part in parts)]


@fuse_grad.register_fake
def _(
    g: Tensor,
    inputs: Sequence[Tensor],
    spectra: Sequence[Tensor],
    hashes: Tensor,
    signs: Tensor,
    d: int,
    sum_pool: bool,
) -> list[Tensor]:
    del g, spectra, hashes, signs, d, sum_pool
    shapes = [_locations(x).shape for x in inputs]
    return [_shaped(x.new_empty(shape), x) for x, shape in zip(inputs, shapes, strict=True)]


def _save_for_derivative(ctx: Any, inputs: tuple[Any, ...], output: Sequence[Tensor]) -> None:
    xs, hashes, signs, ctx.d, ctx.sum_pool, _ = inputs
    _, *spectra = output
    ctx.m = len(xs)
    ctx.mark_non_differentiable(*spectra)
    ctx.set_materialize_grads(False)  # or gradients of zeros would be made for the spectra
    ctx.save_for_backward(hashes, signs, *xs, *spectra)


def _derivative(ctx: Any, cotangents: Sequence[Tensor | None]) -> tuple[Any, ...]:
    hashes, signs, *rest = ctx.saved_tensors
    xs, spectra = rest[: ctx.m], rest[ctx.m :]
    g = cotangents[0]
    grads = [None] * ctx.m if g is None else fuse_grad(g, xs, spectra, hashes, signs, ctx.d, ctx.sum_pool)
    return grads, None, None, None, None, None


def _save_for_second_derivative(ctx: Any, inputs: tuple[Any, ...], output: Sequence[Tensor]) -> None:
    del output
    g, xs, spectra, hashes, signs, ctx.d, ctx.sum_pool = inputs
    ctx.parts = len(spectra)
    ctx.save_for_backward(g, hashes, signs, *xs)


def _second_derivative(ctx: Any, cotangents: Sequence[Tensor]) -> tuple[Any, ...]:
    """Both operators are derivatives of the form <g, fuse(x)>: each cotangent takes its input's place in it."""
    g, hashes, signs, *xs = ctx.saved_tensors
    for_g = torch.zeros_like(g)
    for_xs = [torch.zeros_like(x) for x in xs]
    for i, cotangent in enumerate(cotangents):
        replaced = [*xs[:i], cotangent, *xs[i + 1 :]]
        grads = fuse_grad(g, replaced, [], hashes, signs, ctx.d, ctx.sum_pool)
        for_g = for_g + fuse(replaced, hashes, signs, ctx.d, ctx.sum_pool, False)[0]
        for_xs = [total if k == i else total + grads[k] for k, total in enumerate(for_xs)]
    return for_g, for_xs, [None] * ctx.parts, None, None, None, None


fuse.register_autograd(_derivative, setup_context=_save_for_derivative)
fuse_grad.register_autograd(_second_derivative, setup_context=_save_for_second_derivative)


class _Eager(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hashes: Tensor, signs: Tensor, d: int, sum_pool: bool, keep: bool, *xs: Tensor) -> Any:
        output = fuse(xs, hashes, signs, d, sum_pool, keep)
        _save_for_derivative(ctx, (xs, hashes, signs, d, sum_pool, keep), output)
        return tuple(output)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        grads, *nothing = _derivative(ctx, cotangents)
        return (*nothing, *grads)


def compact_bilinear(
    inputs: Sequence[Tensor], hashes: Tensor, signs: Tensor, d: int, *, sum_pool: bool = False, keep: bool = True
) -> Tensor:
    """The fused features of :func:`fuse` alone, float32 or float64.

    Args:
        inputs, hashes, signs, d: see the module's head.
        sum_pool: whether the locations of maps are summed.
        keep: whether the spectra are kept for the derivative (speed) or nothing but the inputs (memory).

    Raises:
        ShapeError: inputs of another type; FFTs in half precision overflow, and a CPU has none.

    In eager mode the derivative hangs on a function of autograd's own: the wrapper that torch puts around a custom
    operator's takes 0.15 ms a call, a fourteenth of STPN's last fusion.
    """
    if wrong := [str(x.dtype) for x in inputs if x.dtype not in (torch.float32, torch.float64)]:
        raise ShapeError(
            f"compact bilinear fusion is computed in float32 or float64, got {', '.join(wrong)}; cast the inputs, or "
            "use the layer CompactBilinear, which does"
        )
    if not (torch.is_grad_enabled() and any(x.requires_grad for x in inputs)):
        keep = False
    elif not torch.compiler.is_compiling():
        out: Tensor = _Eager.apply(hashes, signs, d, sum_pool, keep, *inputs)[0]  # type: ignore[no-untyped-call]
        return out
    fused: list[Tensor] = fuse(inputs, hashes, signs, d, sum_pool, keep)
    return fused[0]


__all__ = ["by_outer_product", "compact_bilinear", "fuse", "fuse_grad", "without_autocast"]
