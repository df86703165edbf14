"""TV-L1 on tensors: the algorithm of ``flow/tvl1.py`` for many pairs at once, on any device of torch.

The steps, their order and the treatment of borders are the CPU kernel's, and so are the parameters; what differs is
rounding: fields lie less than 0.001 px apart on average and 99 % of all values less than 0.005 px. The rest are pixels
that nothing in the frames decides about (something is hidden, or leaves the frame), where rounding does.
``benchmarks/flow_gpu.py`` measures it on the device at hand.

Each pair is solved by itself: one that has come to rest leaves the batch, and no field depends on who else was in it.

Reference: Zach, Pock, Bischof, *A Duality Based Approach for Realtime TV-L1 Optical Flow*, DAGM 2007.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from twostream.flow.contract import MINIMUM_SIDE, Flow, FlowError, Luma, Value, check_pair
from twostream.flow.tvl1 import CHECK_EVERY, TEXTURE_COUPLING, TEXTURE_ITERATIONS, Tvl1

# A squared gradient below this one has no direction; as in the CPU kernel.
_FLAT = 1.1920929e-07

PLANES = 150
"""Planes of a frame's size in 32-bit floats that a pair takes while it is solved, at most: two thirds of them are the
sorted copies of the 5 x 5 median."""
# More pairs at once make no device faster.
_MOST_PAIRS = 128
# Where the device does not say how much is free.
_BUDGET = 1 << 29


def tvl1(previous: Tensor, following: Tensor, parameters: Tvl1 | None = None, *, compiled: bool = False) -> Tensor:
    """The flow of B pairs of frames: (B, H, W) and (B, H, W) luma in 0..255 to (B, 2, H, W), u and v in px.

    Computed where the tensors are, all pairs at once, in 32-bit floats (64 bits for frames of 64). Takes ``PLANES`` x
    4 H W bytes a pair: 50 MiB for 340 x 256 px.

    Args:
        previous, following: uint8 or float tensors on one device.
        parameters: quality and numbers; None: the defaults.
        compiled: the iteration and the median filter as fused kernels made by ``torch.compile``. They take half a
            minute at first and need a C++ compiler (for the CPU) or Triton (for CUDA).

    Raises:
        FlowError: tensors of other shapes, types or devices, frames too small, or not enough memory.
    """
    _check(previous, following)
    return _fields(previous, following, parameters or Tvl1(), compiled)


def tvl1_sequence(frames: Tensor, parameters: Tvl1 | None = None, *, compiled: bool = False) -> Tensor:
    """The flow between neighbours of T frames: (T, H, W) luma in 0..255 to (T-1, 2, H, W); see :func:`tvl1`.

    Pyramids and gradients of a frame are computed once, for both of its pairs.
    """
    _check(frames, frames)
    return _fields(frames, None, parameters or Tvl1(), compiled)


@dataclass(frozen=True)
class Tvl1Torch:
    """:class:`Tvl1` on a device of torch: a flow estimator like the others, but quick only in batches.

    Its ``parameters`` are those of :class:`Tvl1`, without the device: a store made on one device goes with a model
    trained on the fields of another.

    Attributes:
        method: quality and numbers.
        device: where it is computed, such as ``"cuda"``.
        batch: pairs at once; None: as many as half of the free memory holds, at most 128.
        compiled: see :func:`tvl1`.

    Raises:
        FlowError: no such device, a ``warm_start``, or a batch below 1.
    """

    name: ClassVar[str] = "tvl1"

    method: Tvl1
    device: str
    batch: int | None = None
    compiled: bool = False

    def __post_init__(self) -> None:
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            reason = str(error).splitlines()[0]
            raise FlowError(f"flow cannot be computed on {self.device!r} ({reason}); take cpu") from error
        if self.method.warm_start:
            raise FlowError(
                f"with warm_start={self.method.warm_start} each field waits for the one before; on {self.device!r} all "
                "fields are computed at once, so take warm_start=0, or the CPU kernel"
            )
        if self.batch is not None and self.batch < 1:
            raise FlowError(f"a batch has at least 1 pair, got {self.batch}")

    @property
    def parameters(self) -> dict[str, Value]:
        """See :class:`FlowEstimator`."""
        return self.method.parameters

    def __call__(self, previous: Luma, following: Luma) -> Flow:
        """See :class:`FlowEstimator`."""
        field: Flow = self.fields([previous, following])[0]
        return field

    def fields(self, frames: Sequence[Luma]) -> Flow:
        """The flow between neighbours of T frames, (T-1, 2, H, W), in batches.

        Raises:
            FlowError: frames of another type, of two sizes or too small, or fewer than one.
        """
        if not len(frames):
            raise FlowError(f"{self.name} takes one frame or more, got none")
        T, (H, W) = len(frames), self._checked(frames)
        fields = np.empty((T - 1, 2, H, W), np.float32)
        pairs = self.pairs(H, W)
        for start in range(0, T - 1, pairs):
            batch = torch.from_numpy(np.stack(frames[start : start + pairs + 1])).to(self.device)
            fields[start : start + pairs] = tvl1_sequence(batch, self.method, compiled=self.compiled).cpu().numpy()
        return fields

    def pairs(self, height: int, width: int) -> int:
        """How many pairs of that size are computed at once."""
        if self.batch is not None:
            return self.batch
        device = torch.device(self.device)
        free = torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else _BUDGET
        return max(1, min(_MOST_PAIRS, free // (4 * PLANES * height * width)))

    def _checked(self, frames: Sequence[Luma]) -> tuple[int, int]:
        for frame in frames:
            H, W = check_pair(self.name, frames[0], frame, MINIMUM_SIDE)
        return H, W


def device_name(device: str) -> dict[str, str]:
    """What a store says about the device that computed its fields."""
    place = torch.device(device)
    name = torch.cuda.get_device_name(place) if place.type == "cuda" else device
    return {"device": name, "torch": str(torch.__version__)}


def _check(previous: Tensor, following: Tensor) -> None:
    for frames in (previous, following):
        if frames.ndim != 3 or frames.dtype not in (torch.uint8, torch.float32, torch.float64):
            raise FlowError(
                f"frames must be (B, H, W) luma, uint8 or float of 32 or 64 bits, got {tuple(frames.shape)} "
                f"{frames.dtype}"
            )
    if previous.shape != following.shape or previous.dtype != following.dtype or previous.device != following.device:
        both = " and ".join(f"{tuple(x.shape)} {x.dtype} on {x.device}" for x in (previous, following))
        raise FlowError(f"both frames of the pairs must be of one shape, type and device, got {both}")
    H, W = previous.shape[1:]
    if min(H, W) < MINIMUM_SIDE:
        raise FlowError(
            f"frames of {W}x{H} px are too small for tvl1, which needs {MINIMUM_SIDE} px on either side; "
            f"resize them first (a short side of {MINIMUM_SIDE} or more)"
        )


def _fields(first: Tensor, second: Tensor | None, parameters: Tvl1, compiled: bool) -> Tensor:
    """``second`` None: the pairs are neighbours in ``first``."""
    numbers: dict[str, Any] = dict(parameters.parameters)
    try:
        with torch.inference_mode():
            return _coarse_to_fine(first, second, numbers, _compiled_loops() if compiled else _Loops(_step, _median))
    except torch.OutOfMemoryError as error:
        H, W = first.shape[1:]
        raise FlowError(
            f"{len(first)} pairs of {W}x{H} px do not fit into the free memory of {first.device}, at about "
            f"{4 * PLANES * H * W >> 20} MiB a pair; give fewer at once"
        ) from error


@dataclass(frozen=True)
class _Loops:
    """Where the time goes: the iteration and the median filter, operation by operation or compiled."""

    step: Callable[..., None]
    median: Callable[[Tensor, int], Tensor]


@cache
def _compiled_loops() -> _Loops:
    return _Loops(
        torch.compile(_plain_step, dynamic=True, fullgraph=True), torch.compile(_median, dynamic=True, fullgraph=True)
    )


def _coarse_to_fine(first: Tensor, second: Tensor | None, numbers: dict[str, Any], loops: _Loops) -> Tensor:
    firsts = _pyramid(first, numbers)
    seconds = firsts if second is None else _pyramid(second, numbers)
    field: Tensor | None = None
    while firsts:
        own = _with_gradient(firsts.pop(), numbers["derivative"])
        if second is None:
            own, other = own[:-1], own[1:]
        else:
            other = _with_gradient(seconds.pop(), numbers["derivative"])
        H, W = own.shape[-2:]
        if field is None:
            field = own.new_zeros((len(own), 2, H, W))
        else:
            field = F.interpolate(field, size=(H, W), mode="bilinear", align_corners=False)
            field /= numbers["scale_step"]
        parts: _Parts = (field, torch.zeros_like(field), torch.zeros_like(field))
        for _ in range(numbers["warps"]):
            parts = _relaxed(parts, _data_term(own, other, parts[0], numbers["blend"]), numbers, loops)
        field = parts[0]
    assert field is not None
    return field


def _pyramid(frames: Tensor, numbers: dict[str, Any]) -> list[Tensor]:
    """(B, H, W) to (B, 1, h, w) of each level, full size first; no level has less than ``MINIMUM_SIDE`` px."""
    finest = frames[:, None] if frames.is_floating_point() else frames[:, None].float()
    if numbers["texture"]:
        finest = finest - numbers["texture"] * _structure(finest)
    levels = [finest]
    for _ in range(1, numbers["nscales"]):
        H, W = levels[-1].shape[-2:]
        if numbers["pyramid"] == "gaussian":
            size = (H + 1) // 2, (W + 1) // 2
        else:
            size = round(H * numbers["scale_step"]), round(W * numbers["scale_step"])
        if min(size) < MINIMUM_SIDE:
            break
        if numbers["pyramid"] == "gaussian":
            levels.append(_half(levels[-1]))
        else:
            levels.append(F.interpolate(levels[-1], size=size, mode="bilinear", align_corners=False))
    return levels


def _half(image: Tensor) -> Tensor:
    """Every second pixel of the image under a binomial filter, the border mirrored, as OpenCV's ``pyrDown``."""
    padded = F.pad(image, (2, 2, 2, 2), mode="reflect")
    h, w = ((side + 1) // 2 for side in image.shape[-2:])
    binomial = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
    rows = sum(share * padded[..., k::2, :][..., :h, :] for k, share in enumerate(binomial))
    assert isinstance(rows, Tensor)
    half = sum(share * rows[..., k::2][..., :w] for k, share in enumerate(binomial))
    assert isinstance(half, Tensor)
    return half


def _structure(image: Tensor) -> Tensor:
    """What total variation denoising leaves of (B, 1, H, W), by FISTA on the dual; see ``flow/tvl1.py``.

    Reference: Beck, Teboulle, *Fast Gradient-Based Algorithms for Constrained Total Variation Image Denoising and
    Deblurring Problems*, TIP 2009.
    """

    def denoised(dual: Tensor) -> Tensor:
        x, y = dual[:, :1], dual[:, 1:]
        divergence = x - F.pad(x[..., :-1], (1, 0)) + y - F.pad(y[..., :-1, :], (0, 0, 1, 0))
        return image + TEXTURE_COUPLING * divergence

    earlier = dual = torch.cat([torch.zeros_like(image)] * 2, dim=1)
    s = 1.0
    for _ in range(TEXTURE_ITERATIONS):
        structure = denoised(dual)
        across = F.pad(structure[..., 1:] - structure[..., :-1], (0, 1))
        down = F.pad(structure[..., 1:, :] - structure[..., :-1, :], (0, 0, 0, 1))
        now = dual + (0.125 / TEXTURE_COUPLING) * torch.cat([across, down], dim=1)
        now = now / torch.hypot(now[:, :1], now[:, 1:]).clamp(min=1)
        following = (1 + math.sqrt(1 + 4 * s * s)) / 2
        dual = now + ((s - 1) / following) * (now - earlier)
        earlier, s = now, following
    return denoised(dual)


def _with_gradient(image: Tensor, points: int) -> Tensor:
    """(B, 1, H, W) to (B, 3, H, W): with its central differences in x and y, the border repeated."""
    H, W = image.shape[-2:]
    padded = F.pad(image, (2, 2, 2, 2), mode="replicate")

    def difference(reach: int) -> tuple[Tensor, Tensor]:
        ahead, behind = 2 + reach, 2 - reach
        rows, columns = padded[..., 2 : H + 2, :], padded[..., 2 : W + 2]
        return (
            rows[..., ahead : ahead + W] - rows[..., behind : behind + W],
            columns[..., ahead : ahead + H, :] - columns[..., behind : behind + H, :],
        )

    if points == 3:
        x, y = (near / 2 for near in difference(1))
    else:
        x, y = ((8 * near - far) / 12 for near, far in zip(difference(1), difference(2), strict=True))
    return torch.cat([image, x, y], dim=1)


@dataclass(frozen=True)
class _DataTerm:
    """The brightness constancy around a field, linearised: residual + gradient · field.

    Attributes:
        gradient: (B, 2, H, W) of the following frame where the field points to; zero outside of it.
        residual: (B, 1, H, W) at zero flow.
        inverse: (B, 1, H, W) of the squared gradient, zero where there is none.
    """

    gradient: Tensor
    residual: Tensor
    inverse: Tensor

    def of(self, pairs: Tensor) -> "_DataTerm":
        """That of some of the pairs."""
        return _DataTerm(self.gradient[pairs], self.residual[pairs], self.inverse[pairs])


def _data_term(own: Tensor, other: Tensor, field: Tensor, blend: float) -> _DataTerm:
    """Samples ``other`` where the field points to, by Keys's cubic with a = -3/4, as OpenCV does.

    Args:
        own, other: (B, 3, H, W), both frames as of :func:`_with_gradient`.
        field: (B, 2, H, W).
        blend: share of the own gradient.
    """
    H, W = own.shape[-2:]
    x = torch.arange(W, device=field.device, dtype=field.dtype) + field[:, 0]  # (B, H, W)
    y = torch.arange(H, device=field.device, dtype=field.dtype)[:, None] + field[:, 1]
    inside = ((x >= 0) & (x <= W - 1) & (y >= 0) & (y <= H - 1))[:, None]
    # grid_sample counts from -1 to 1.
    grid = torch.stack([x.clamp(0, W - 1) * (2 / (W - 1)) - 1, y.clamp(0, H - 1) * (2 / (H - 1)) - 1], dim=-1)
    sampled = F.grid_sample(other, grid, mode="bicubic", padding_mode="border", align_corners=True)
    gradient = torch.lerp(sampled[:, 1:], own[:, 1:], blend) * inside
    square = (gradient * gradient).sum(1, keepdim=True)
    inverse = torch.where(square > _FLAT, 1 / square.clamp(min=_FLAT), 0)
    residual = (sampled[:, :1] - own[:, :1]) * inside - (gradient * field).sum(1, keepdim=True)
    return _DataTerm(gradient, residual, inverse)


_Parts = tuple[Tensor, ...]


def _relaxed(parts: _Parts, term: _DataTerm, numbers: dict[str, Any], loops: _Loops) -> _Parts:
    """The iterations of one warp: field and dual variables in x and y, each (B, 2, H, W), before and after it.

    Where there is an ``epsilon``, a pair's iterations end when its field changes less between two of them.
    """
    outer, inner, epsilon = numbers["outer_iterations"], numbers["inner_iterations"], numbers["epsilon"]
    if not epsilon:
        for _ in range(outer):
            parts = _iterated(_median_filtered(parts, numbers, loops), term, numbers, inner, loops)[:3]
        return parts
    B, _, H, W = parts[0].shape
    enough = epsilon**2 * H * W
    answer = tuple(torch.empty_like(part) for part in parts)
    at_work = torch.arange(B, device=parts[0].device)
    for _ in range(outer):
        parts = _median_filtered(parts, numbers, loops)
        for done in range(0, inner, CHECK_EVERY):
            count = min(CHECK_EVERY, inner - done)
            *after, before = _iterated(parts, term, numbers, count, loops)
            parts = tuple(after)
            moving = _change(before, parts[0]) > enough
            if not bool(moving.all()):
                for whole, part in zip(answer, parts, strict=True):
                    whole[at_work[~moving]] = part[~moving]
                at_work, term = at_work[moving], term.of(moving)
                parts = tuple(part[moving] for part in parts)
            if not len(at_work):
                return answer
    for whole, part in zip(answer, parts, strict=True):
        whole[at_work] = part
    return answer


def _iterated(
    parts: _Parts, term: _DataTerm, numbers: dict[str, Any], count: int, loops: _Loops
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """So many iterations; the fourth tensor is the field before the last of them. What it is given is written over."""
    field, dual_x, dual_y = parts
    theta = numbers["theta"]
    following = torch.empty_like(field)
    across, down = torch.empty_like(field), torch.empty_like(field)
    for _ in range(count):
        loops.step(
            field, following, dual_x, dual_y, term.gradient, term.residual, term.inverse, across, down,
            numbers["lambda_"] * theta, theta, numbers["tau"] / theta,
        )  # fmt: skip
        field, following = following, field
    return field, dual_x, dual_y, following


def _step(
    field: Tensor,
    following: Tensor,
    dual_x: Tensor,
    dual_y: Tensor,
    gradient: Tensor,
    residual: Tensor,
    inverse: Tensor,
    across: Tensor,
    down: Tensor,
    limit: float,
    theta: float,
    rate: float,
) -> None:
    """One iteration: ``following`` becomes the next field, the dual variables are changed in place.

    Reference: section 3, equations 12 to 16 (thresholding, projection).
    """
    distance = torch.addcmul(residual, gradient[:, :1], field[:, :1])
    distance.addcmul_(gradient[:, 1:], field[:, 1:]).mul_(inverse).clamp_(-limit, limit)
    torch.addcmul(field, gradient, distance, value=-1, out=following)
    following.add_(dual_x, alpha=theta).add_(dual_y, alpha=theta)
    # Neighbours in long lines: the dual variables' last column and row are zero, so nothing leaks from one row or plane
    # into the next, if only the differences there are set to zero.
    W = field.shape[3]
    primal = following.view(-1)
    primal[1:].sub_(dual_x.view(-1)[:-1], alpha=theta)
    primal[W:].sub_(dual_y.view(-1)[:-W], alpha=theta)
    torch.sub(primal[1:], primal[:-1], out=across.view(-1)[:-1])
    torch.sub(primal[W:], primal[:-W], out=down.view(-1)[:-W])
    across[..., -1] = 0
    down[..., -1, :] = 0
    length = torch.hypot(across, down).mul_(rate).add_(1)
    dual_x.add_(across, alpha=rate).div_(length)
    dual_y.add_(down, alpha=rate).div_(length)


def _plain_step(
    field: Tensor,
    following: Tensor,
    dual_x: Tensor,
    dual_y: Tensor,
    gradient: Tensor,
    residual: Tensor,
    inverse: Tensor,
    across: Tensor,
    down: Tensor,
    limit: float,
    theta: float,
    rate: float,
) -> None:
    """:func:`_step` as a compiler likes it: without the in-place order of work, and indices that it can follow."""
    del across, down
    distance = (residual + gradient[:, :1] * field[:, :1] + gradient[:, 1:] * field[:, 1:]) * inverse
    left, above = F.pad(dual_x[..., :-1], (1, 0)), F.pad(dual_y[..., :-1, :], (0, 0, 1, 0))
    field = field - gradient * distance.clamp(-limit, limit) + theta * ((dual_x - left) + (dual_y - above))
    following.copy_(field)
    across = F.pad(field[..., 1:] - field[..., :-1], (0, 1))
    down = F.pad(field[..., 1:, :] - field[..., :-1, :], (0, 0, 0, 1))
    length = 1 + rate * torch.sqrt(across * across + down * down)
    dual_x.copy_((dual_x + rate * across) / length)
    dual_y.copy_((dual_y + rate * down) / length)


def _change(before: Tensor, after: Tensor) -> Tensor:
    """(B,) sums of squared differences. Row by row first, so that rounding does not depend on B."""
    squares = (after - before).square_()
    return squares.sum(-1).flatten(1).sum(-1)


def _median_filtered(parts: _Parts, numbers: dict[str, Any], loops: _Loops) -> _Parts:
    size = numbers["median_filtering"]
    return parts if size == 1 else (loops.median(parts[0], size), *parts[1:])


# The comparisons that sort three and five numbers.
_SORTING = {
    3: ((0, 1), (1, 2), (0, 1)),
    5: ((0, 1), (3, 4), (2, 4), (2, 3), (1, 4), (0, 3), (0, 2), (1, 3), (1, 2)),
}


def _median(field: Tensor, size: int) -> Tensor:
    """The median of ``size`` x ``size`` px, 3 or 5, in each plane of (B, 2, H, W), the border repeated.

    Columns are sorted, once for all windows that hold them, and in each window then the rows of equal rank. Where more
    than half of the numbers are known to be smaller, or larger, the median is not.
    """
    H, W = field.shape[-2:]
    reach, half = size // 2, (size * size + 1) // 2
    padded = F.pad(field, (reach, reach, reach, reach), mode="replicate")
    columns = _in_order([padded[..., i : i + H, :] for i in range(size)])
    waiting: list[Tensor] = []
    for i, column in enumerate(columns):
        ranked = _in_order([column[..., j : j + W] for j in range(size)])
        waiting += [ranked[j] for j in range(size) if (i + 1) * (j + 1) <= half and (size - i) * (size - j) <= half]
    # The lowest and the highest of more than half of them cannot be the median.
    at_hand, waiting = waiting[: len(waiting) // 2 + 2], waiting[len(waiting) // 2 + 2 :]
    while len(at_hand) > 1:
        at_hand = _without_ends(at_hand)
        at_hand += waiting[:1]
        waiting = waiting[1:]
    return at_hand[0]


def _in_order(values: list[Tensor]) -> list[Tensor]:
    ordered = list(values)
    for i, j in _SORTING[len(values)]:
        ordered[i], ordered[j] = torch.minimum(ordered[i], ordered[j]), torch.maximum(ordered[i], ordered[j])
    return ordered


def _without_ends(values: list[Tensor]) -> list[Tensor]:
    rest = list(values)
    for k in range(len(rest) - 1):
        rest[k], rest[k + 1] = torch.maximum(rest[k], rest[k + 1]), torch.minimum(rest[k], rest[k + 1])
    for k in range(len(rest) - 2):
        rest[k], rest[k + 1] = torch.minimum(rest[k], rest[k + 1]), torch.maximum(rest[k], rest[k + 1])
    return rest[:-2]


__all__ = ["PLANES", "Tvl1Torch", "device_name", "tvl1", "tvl1_sequence"]
