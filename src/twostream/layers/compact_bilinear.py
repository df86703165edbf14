"""Spatiotemporal compact bilinear fusion (STCB): the outer product of m features, in d numbers."""

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from twostream.clip import ShapeError
from twostream.errors import UsageError
from twostream.layers.compact_bilinear_ops import compact_bilinear, without_autocast

Normalization = Literal["none", "signed_sqrt", "signed_root", "signed_sqrt_l2"]
L2Scope = Literal["location", "sample"]

ROOT_EPS = 1e-3
"""Rounds the root's corner at zero: the slope there is 16, about that of Caffe's signed square root layer."""
L2_EPS = 1e-6
"""Added to the sum of squares, so that the length of nothing has a slope."""


class CompactBilinear(nn.Module):
    """Fuses m inputs into d features whose inner products estimate the product of the inputs' inner products.

    Entry k is the sum over all index tuples with (h_1(j_1) + ... + h_m(j_m)) mod d = k of the product of s_i(j_i)
    x_i[j_i]. Nothing is learned; the hashes h and signs s are drawn once, from ``seed`` alone, and are part of the
    state dict. Computed in float32 at least, also under autocast.

    Shapes: m tensors (B, c_i) -> (B, d); m maps (B, c_i, H, W) -> (B, d, H, W), fused per location, or (B, d) summed
    over the locations with ``sum_pool``. The result is float32 under autocast, else of the inputs' type.

    Args:
        in_channels: c_1 ... c_m, m at least 1.
        out_channels: d. The estimate's deviation falls with its square root; powers of two transform fastest.
        seed: of hashes and signs. Operators whose estimates shall be independent need different seeds.
        normalization: ``none`` is the paper's algorithm as printed. ``signed_sqrt`` takes the root of the magnitude,
            ``signed_root`` the m-th root (back to the scale of one input), ``signed_sqrt_l2`` then divides by the
            Euclidean length, as compact bilinear pooling does.
        l2_scope: what ``signed_sqrt_l2`` takes the length of: each ``location``, or the whole ``sample`` as Caffe's
            layer, which makes a map of 49 locations 7 times smaller.
        sum_pool: sum maps over their locations.
        lean: save nothing but the inputs for the backward pass and compute the rest again there.

    Raises:
        UsageError: a size, normalisation or scope that does not exist.

    Reference: Wang et al., Spatiotemporal Pyramid Network, CVPR 2017, algorithm 1; Gao et al., Compact Bilinear
    Pooling, CVPR 2016, section 3; papers' sheet of STPN, sections 2 and 10, open points G1 and G2.
    """

    hashes: Tensor
    signs: Tensor
    size: Tensor

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int,
        *,
        seed: int = 0,
        normalization: Normalization = "none",
        l2_scope: L2Scope = "location",
        sum_pool: bool = False,
        lean: bool = False,
    ) -> None:
        super().__init__()
        if not in_channels or min(in_channels) < 1:
            raise UsageError(f"in_channels are the channels of one or more inputs, each at least 1, got {in_channels}")
        if not isinstance(out_channels, int) or out_channels < 1:
            raise UsageError(
                f"out_channels is the number of fused features d, whole and at least 1, got {out_channels}"
            )
        for name, value, known in (
            ("normalization", normalization, get_args(Normalization)),
            ("l2_scope", l2_scope, get_args(L2Scope)),
        ):
            if value not in known:
                raise UsageError(f"{name} is one of {', '.join(known)}, got {value!r}")
        self.in_channels = tuple(in_channels)
        self.out_channels = out_channels
        self.seed = seed
        self.normalization: Normalization = normalization
        self.l2_scope: L2Scope = l2_scope
        self.sum_pool = sum_pool
        self.lean = lean
        C = sum(self.in_channels)
        self.register_buffer("hashes", torch.empty(C, dtype=torch.int64))
        self.register_buffer("signs", torch.empty(C, dtype=torch.int8))
        # Hashes do not tell d; with it in the state dict, those of another d are noticed.
        self.register_buffer("size", torch.empty((), dtype=torch.int64))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw hashes and signs from the seed, for example after a start on the meta device.

        torch's global random state is neither read nor changed.
        """
        generator = torch.Generator().manual_seed(self.seed)
        C = sum(self.in_channels)
        self.hashes.copy_(torch.randint(self.out_channels, (C,), generator=generator, device="cpu"))
        self.signs.copy_(torch.randint(2, (C,), generator=generator, device="cpu") * 2 - 1)
        self.size.fill_(self.out_channels)

    def forward(self, *inputs: Tensor) -> Tensor:
        """The fused and normalised features."""
        self._check(inputs)
        return in_full_precision(self._recomputed if self.lean else self._fused, inputs)

    def extra_repr(self) -> str:
        """The numbers it was built with."""
        return (
            f"{self.in_channels} -> {self.out_channels}, seed={self.seed}, normalization={self.normalization}, "
            f"l2_scope={self.l2_scope}, sum_pool={self.sum_pool}, lean={self.lean}"
        )

    def _recomputed(self, *inputs: Tensor) -> Tensor:
        """The same, with nothing but the inputs kept for the backward pass of the normalisation either."""
        if self.normalization == "none" or not torch.is_grad_enabled():
            return self._fused(*inputs)
        out: Tensor = checkpoint(self._fused, *inputs, use_reentrant=False, preserve_rng_state=False)
        return out

    def _fused(self, *inputs: Tensor) -> Tensor:
        return normalised(self._convolved(inputs), self.normalization, len(self.in_channels), l2_scope=self.l2_scope)

    def _convolved(self, inputs: Sequence[Tensor]) -> Tensor:
        return compact_bilinear(
            inputs, self.hashes, self.signs, self.out_channels, sum_pool=self.sum_pool, keep=not self.lean
        )

    def _check(self, inputs: Sequence[Tensor]) -> None:
        shapes = [tuple(x.shape) for x in inputs]
        got = ", ".join(map(str, shapes))
        built_for = f"this fusion was built for {len(self.in_channels)} inputs of {self.in_channels} channels"
        if len(inputs) != len(self.in_channels):
            raise ShapeError(f"{built_for}, got {len(inputs)}: {got}")
        if any(len(s) not in (2, 4) or s[1] != C for s, C in zip(shapes, self.in_channels, strict=True)):
            raise ShapeError(f"{built_for}, each (B, c) or (B, c, H, W), got {got}")
        if any(s[:1] + s[2:] != shapes[0][:1] + shapes[0][2:] for s in shapes):
            raise ShapeError(f"inputs that are fused must agree in batch and size, got {got}")
        if wrong := [str(x.dtype) for x in inputs if not x.is_floating_point()]:
            raise ShapeError(f"inputs that are fused must be floating point, got {', '.join(wrong)}")

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        made_for = state_dict.get(f"{prefix}size")
        if made_for is not None and int(made_for) != self.out_channels:
            raise ShapeError(
                f"{prefix}hashes were drawn for d={int(made_for)}, this fusion has d={self.out_channels}; build it "
                "with the same out_channels, or leave its hashes out of what is loaded"
            )
        super()._load_from_state_dict(state_dict, prefix, *rest)


def in_full_precision(fused: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Tensor:
    """``fused(*inputs)`` in float32 or float64, outside autocast: in half precision products of features fall to zero.

    Under autocast the result is float32, elsewhere of the inputs' type.
    """
    wanted = functools.reduce(torch.promote_types, (x.dtype for x in inputs))
    working = wanted if wanted == torch.float64 else torch.float32
    device = inputs[0].device
    if torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type):
        wanted = working
    with without_autocast(device):
        out = fused(*(x.to(working) for x in inputs))
    return out.to(wanted)


class MatrixCompactBilinear(CompactBilinear):
    """The same function from matrix products alone, for exporters and devices that lack the Fourier transform.

    Sketch and transform of each input are two real matrices of c_i x (d // 2 + 1), the inverse another two; STPN's
    three fusions hold 170 MB of them, in float32. They are made of the hashes whenever these are drawn or loaded, and
    are not in the state dict. See :func:`without_fft`.
    """

    inverse_cosine: Tensor
    inverse_sine: Tensor

    def __init__(self, operator: CompactBilinear) -> None:
        super().__init__(
            operator.in_channels,
            operator.out_channels,
            seed=operator.seed,
            normalization=operator.normalization,
            l2_scope=operator.l2_scope,
            sum_pool=operator.sum_pool,
            lean=operator.lean,
        )
        self.load_state_dict(operator.state_dict())
        self.to(operator.hashes.device)

    def reset_parameters(self) -> None:
        """Draw hashes and signs from the seed, and make the matrices of them."""
        super().reset_parameters()
        self._make_matrices()

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self._make_matrices()

    def _make_matrices(self) -> None:
        d = self.out_channels
        k = torch.arange(d // 2 + 1, device=self.hashes.device)
        for i, (h, s) in enumerate(zip(self._by_input(self.hashes), self._by_input(self.signs), strict=True)):
            # Reduced in whole numbers: k h is too large for a float to keep its place on the circle.
            angle = (h[:, None] * k % d).double() * (2 * torch.pi / d)
            self._keep(f"cosine{i}", s[:, None] * angle.cos())
            self._keep(f"sine{i}", s[:, None] * -angle.sin())
        angle = (k[:, None] * torch.arange(d, device=k.device) % d).double() * (2 * torch.pi / d)
        # All frequencies but 0 and d / 2 stand for two.
        weight = torch.where((k == 0) | (2 * k == d), 1.0, 2.0).double()[:, None] / d
        self._keep("inverse_cosine", weight * angle.cos())
        self._keep("inverse_sine", weight * -angle.sin())

    def _keep(self, name: str, matrix: Tensor) -> None:
        self.register_buffer(name, matrix.float(), persistent=False)

    def _by_input(self, x: Tensor) -> tuple[Tensor, ...]:
        return x.split_with_sizes(list(self.in_channels))

    def _convolved(self, inputs: Sequence[Tensor]) -> Tensor:
        real = imaginary = None
        for i, x in enumerate(inputs):
            rows = x.flatten(2).mT if x.ndim == 4 else x[:, None]  # (B, L, c)
            re = rows @ self.get_buffer(f"cosine{i}").to(x.dtype)
            im = rows @ self.get_buffer(f"sine{i}").to(x.dtype)
            if real is None or imaginary is None:
                real, imaginary = re, im
            else:
                real, imaginary = real * re - imaginary * im, real * im + imaginary * re
        assert real is not None
        assert imaginary is not None
        if self.sum_pool:
            real, imaginary = real.sum(1, keepdim=True), imaginary.sum(1, keepdim=True)
        out = real @ self.inverse_cosine.to(real.dtype)
        out = out + imaginary @ self.inverse_sine.to(real.dtype)
        return out[:, 0] if self.sum_pool or inputs[0].ndim == 2 else torch.unflatten(out.mT, 2, inputs[0].shape[2:])


def without_fft(module: nn.Module) -> nn.Module:
    """A copy of a network in which every :class:`CompactBilinear` is computed by matrix products, for export."""
    if isinstance(module, CompactBilinear):
        return MatrixCompactBilinear(module)
    module = copy.deepcopy(module)
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, CompactBilinear):
                setattr(parent, name, MatrixCompactBilinear(child))
    return module


def normalised(x: Tensor, how: Normalization, inputs: int, *, l2_scope: L2Scope = "location") -> Tensor:
    """What follows a product of ``inputs`` features: see ``normalization`` of :class:`CompactBilinear`."""
    match how:
        case "none":
            return x
        case "signed_sqrt":
            return signed_root(x, 2)
        case "signed_root":
            return signed_root(x, inputs)
        case "signed_sqrt_l2":
            return l2_normalised(signed_root(x, 2), l2_scope)


def signed_root(x: Tensor, order: int, *, eps: float = ROOT_EPS) -> Tensor:
    """sign(x) ((|x| + eps)^(1/order) - eps^(1/order)): the root of the magnitude, with a finite slope at zero.

    Written as x over a sum, which is the same number, cancels nothing near zero and has the right slope there.
    """
    root, corner = (x.abs() + eps) ** (1 / order), eps ** (1 / order)
    total = torch.zeros_like(x)
    for power in range(order):
        total = total + root ** (order - 1 - power) * corner**power
    return x / total


def l2_normalised(x: Tensor, scope: L2Scope = "location", *, eps: float = L2_EPS) -> Tensor:
    """x / sqrt(sum of squares + eps), summed over the channels or over the whole sample."""
    dims = tuple(range(1, x.ndim)) if scope == "sample" else (1,)
    return x * (x.square().sum(dims, keepdim=True) + eps).rsqrt()


__all__ = [
    "CompactBilinear",
    "L2Scope",
    "MatrixCompactBilinear",
    "Normalization",
    "l2_normalised",
    "normalised",
    "signed_root",
    "without_fft",
]
