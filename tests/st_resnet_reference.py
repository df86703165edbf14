"""ST-ResNet and ST-MulNet a second time: plain functions over a dict of arrays, sharing nothing with the package.

Written from the published description (papers' sheet, sections 1 to 4 and 9): the arrays bear MatConvNet's names and
have MatConvNet's layouts, ``H x W x Cin x Cout`` for filters, ``1 x 3 x Cin x Cout`` for filters over time, ``C x 2``
(mean, sigma) for moments. Batch norm, the filters over time and all pooling are spelled out; only the 2-D convolution
is a library's. Everything is computed in float64.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

Array = npt.NDArray[np.floating]
Arrays = Mapping[str, Array]

UNITS = {2: "abc", 3: "abcd", 4: "abcdef", 5: "abc"}
RGB_MEAN = (123.15163084, 115.90288257, 103.0626238)
FLOW_MEAN = 128.0
STREAMS = ("spatial", "temporal")


def st_resnet(
    arrays: Arrays, rgb: Tensor, flow: Tensor, *, pool: tuple[int, int] | None = None, multiply: bool = False
) -> Tensor:
    """Logits (B, 2 T', K), appearance first: those of the T' steps averaged over space.

    ``rgb`` (B, T, 3, H, W) and ``flow`` (B, T, 20, H, W) lie on the 0..255 scale. ``pool`` is (length, stride) of the
    maximum over time before the spatial pooling; ``multiply`` makes it ST-MulNet.
    """
    T = rgb.shape[1]
    a = _stem(arrays, _frames(rgb) - _column(np.array(RGB_MEAN)), "spatial")
    m = _stem(arrays, _frames(flow) - FLOW_MEAN, "temporal")
    for k, letters in UNITS.items():
        injected: Tensor | None = None
        for u in letters:
            # Sums before the ReLU: only these of unit a are looked at from outside.
            a_sum = _shortcut(arrays, a, k, u, "spatial") + _branch2(
                arrays, a if injected is None else injected, k, u, "spatial", T
            )
            m_sum = _shortcut(arrays, m, k, u, "temporal") + _branch2(arrays, m, k, u, "temporal", T)
            a, m = _relu(a_sum), _relu(m_sum)
            injected = None
            if u == "a":
                injected = a_sum * m if multiply else a_sum + m
    votes = []
    for x, stream in ((a, "spatial"), (m, "temporal")):
        if pool is not None:
            x = max_over_time(x, T, *pool)
        logits = _classifier(arrays, x, stream)
        votes.append(logits.reshape(rgb.shape[0], -1, logits.shape[1]))
    return torch.cat(votes, dim=1)


def base_stream(arrays: Arrays, x: Tensor, mean: float | tuple[float, ...], stream: str = "") -> Tensor:
    """Logits (N, K) of one stream's ResNet alone, averaged over space; ``x`` (N, C, H, W) on the 0..255 scale."""
    x = _stem(arrays, x.double() - _column(np.atleast_1d(np.array(mean))), stream)
    for k, letters in UNITS.items():
        for u in letters:
            x = _relu(_shortcut(arrays, x, k, u, stream) + _branch2(arrays, x, k, u, stream, 1))
    return _classifier(arrays, x, stream)


def conv(x: Tensor, value: Array, bias: Array | None = None, *, stride: int = 1, padding: int = 0) -> Tensor:
    """A filter of ``H x W x Cin x Cout`` over (N, Cin, H, W)."""
    weight = torch.from_numpy(np.ascontiguousarray(value.astype(np.float64).transpose(3, 2, 0, 1)))
    offset = None if bias is None else torch.from_numpy(bias.astype(np.float64).reshape(-1))
    return F.conv2d(x, weight, offset, stride=stride, padding=padding)


def conv_over_time(x: Tensor, value: Array, T: int, bias: Array | None = None) -> Tensor:
    """A filter of ``1 x 3 x Cin x Cout``: step t sees t-1, t and t+1, zeros beyond the ends; (B T, Cin, H, W)."""
    steps = x.reshape(-1, T, *x.shape[1:])
    weight = torch.from_numpy(value.astype(np.float64))[0]  # (3, Cin, Cout)
    out = []
    for t in range(T):
        total = torch.zeros(steps.shape[0], weight.shape[2], *x.shape[2:], dtype=torch.float64)
        for tap in (0, 1, 2):
            if 0 <= t + tap - 1 < T:
                total = total + torch.einsum("bchw,cd->bdhw", steps[:, t + tap - 1], weight[tap])
        out.append(total)
    y = torch.stack(out, dim=1).flatten(0, 1)
    return y if bias is None else y + _column(bias)


def batch_norm(x: Tensor, mult: Array, bias: Array, moments: Array) -> Tensor:
    """At test time: mult (x - mean) / sigma + bias, with sigma the root of variance and epsilon already."""
    return _column(mult) * (x - _column(moments[:, 0])) / _column(moments[:, 1]) + _column(bias)


def max_over_time(x: Tensor, T: int, length: int, stride: int) -> Tensor:
    """(B T, C, H, W) -> (B T', C, H, W), the windows that lie within the T steps."""
    steps = x.reshape(-1, T, *x.shape[1:])
    starts = range(0, T - length + 1, stride)
    return torch.stack([steps[:, s : s + length].amax(1) for s in starts], dim=1).flatten(0, 1)


def pool1(x: Tensor) -> Tensor:
    """The largest of 3x3 every 2 px; one row and column below and to the right of the map count as minus infinity."""
    N, C, H, W = x.shape
    padded = torch.full((N, C, H + 1, W + 1), -torch.inf, dtype=x.dtype)
    padded[:, :, :H, :W] = x
    return padded.unfold(2, 3, 2).unfold(3, 3, 2).amax((4, 5))


def pool5(x: Tensor) -> Tensor:
    """The mean of 7x7 at every place where it fits; of all there is where the map is smaller."""
    height, width = min(7, x.shape[2]), min(7, x.shape[3])
    return x.unfold(2, height, 1).unfold(3, width, 1).mean((4, 5))


def _stem(arrays: Arrays, x: Tensor, stream: str) -> Tensor:
    x = conv(x, _get(arrays, "conv1_filter", stream), _get(arrays, "conv1_bias", stream), stride=2, padding=3)
    return pool1(_relu(_norm(arrays, x, "bn_conv1", stream)))


def _shortcut(arrays: Arrays, x: Tensor, k: int, u: str, stream: str) -> Tensor:
    if u != "a":
        return x
    x = conv(x, _get(arrays, f"res{k}a_branch1_filter", stream), stride=1 if k == 2 else 2)
    return _norm(arrays, x, f"bn{k}a_branch1", stream)


def _branch2(arrays: Arrays, x: Tensor, k: int, u: str, stream: str, T: int) -> Tensor:
    """Three convolutions; the stride is in the first. A filter of 1x3 is one over time."""
    for part in "abc":
        value = _get(arrays, f"res{k}{u}_branch2{part}_filter", stream)
        if value.shape[:2] == (1, 3):
            x = conv_over_time(x, value, T)
        else:
            stride = 2 if (k > 2 and u == "a" and part == "a") else 1
            x = conv(x, value, stride=stride, padding=value.shape[0] // 2)
        x = _norm(arrays, x, f"bn{k}{u}_branch2{part}", stream)
        if part != "c":
            x = _relu(x)
        extra = f"res{k}{u}_branch2b_relu_{stream}_Time"
        if part == "b" and f"{extra}_f" in arrays:
            x = conv_over_time(x, arrays[f"{extra}_f"], T, arrays[f"{extra}_b"])
    return x


def _classifier(arrays: Arrays, x: Tensor, stream: str) -> Tensor:
    x = conv(pool5(x), _get(arrays, "fc1000_filter", stream), _get(arrays, "fc1000_bias", stream))
    return x.mean((2, 3))


def _norm(arrays: Arrays, x: Tensor, name: str, stream: str) -> Tensor:
    mult, bias, moments = (_get(arrays, f"{name}_{kind}", stream) for kind in ("mult", "bias", "moments"))
    return batch_norm(x, mult, bias, moments)


def _get(arrays: Arrays, name: str, stream: str) -> Array:
    return arrays[f"{name}_{stream}" if stream else name]


def _relu(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, torch.zeros_like(x))


def _column(values: Array) -> Tensor:
    return torch.from_numpy(np.asarray(values, np.float64).reshape(1, -1, 1, 1))


def _frames(x: Tensor) -> Tensor:
    return x.double().flatten(0, 1)


def random_arrays(
    *,
    seed: int,
    width: int = 64,
    classes: int = 101,
    streams: Mapping[str, int] | None = None,
    temporal: bool = True,
    extra: bool = False,
) -> dict[str, npt.NDArray[np.float32]]:
    """Random parameters, single precision as in the files, of a size that keeps signals near 1 through all layers.

    ``streams`` maps suffixes to input channels. ``temporal``: the two outer filters of every unit b are 1x3.
    ``extra``: ST-MulNet's own filters over time, with bias, are there.
    """
    random = np.random.default_rng(seed)
    arrays: dict[str, npt.NDArray[np.float32]] = {}

    def put(name: str, stream: str, value: npt.NDArray[np.float64]) -> None:
        arrays[f"{name}_{stream}" if stream else name] = value.astype(np.float32)

    def filters(name: str, stream: str, h: int, w: int, cin: int, cout: int) -> None:
        put(name, stream, random.normal(0, (2 / (h * w * cin)) ** 0.5, (h, w, cin, cout)))

    def norm(name: str, stream: str, channels: int, gain: float = 1.0, sigma: float = 1.0) -> None:
        put(f"{name}_mult", stream, gain * random.uniform(0.5, 1.5, (channels, 1)))
        put(f"{name}_bias", stream, random.normal(0, 0.2, (channels, 1)))
        mean, deviation = random.normal(0, 0.2, channels), sigma * random.uniform(0.5, 1.5, channels)
        put(f"{name}_moments", stream, np.stack([mean, deviation], axis=1))

    for stream, channels in ({"spatial": 3, "temporal": 20} if streams is None else streams).items():
        filters("conv1_filter", stream, 7, 7, channels, width)
        put("conv1_bias", stream, random.normal(0, 0.2, (width, 1)))
        norm("bn_conv1", stream, width, sigma=100.0)
        cin = width
        for k, letters in UNITS.items():
            inner = width << (k - 2)
            for u in letters:
                if u == "a":
                    filters(f"res{k}a_branch1_filter", stream, 1, 1, cin, 4 * inner)
                    norm(f"bn{k}a_branch1", stream, 4 * inner, gain=0.45)
                time = 3 if temporal and u == "b" else 1
                filters(f"res{k}{u}_branch2a_filter", stream, 1, time, cin, inner)
                norm(f"bn{k}{u}_branch2a", stream, inner)
                filters(f"res{k}{u}_branch2b_filter", stream, 3, 3, inner, inner)
                norm(f"bn{k}{u}_branch2b", stream, inner)
                filters(f"res{k}{u}_branch2c_filter", stream, 1, time, inner, 4 * inner)
                norm(f"bn{k}{u}_branch2c", stream, 4 * inner, gain=0.15)
                if extra and u == "b":
                    name = f"res{k}b_branch2b_relu_{stream}_Time"
                    filters(f"{name}_f", "", 1, 3, inner, inner)
                    put(f"{name}_b", "", random.normal(0, 0.2, (inner, 1)))
                cin = 4 * inner
        put("fc1000_filter", stream, random.normal(0, 0.5 * cin**-0.5, (1, 1, cin, classes)))
        put("fc1000_bias", stream, random.normal(0, 0.2, (1, classes)))
    return arrays
