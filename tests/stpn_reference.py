"""STPN above its backbones a second time, in NumPy and from the paper's facts alone: outer products, and loops.

Nothing here uses a Fourier transform, torch or the package. A compact bilinear fusion is what it stands for: every
product of one entry of each input, with its signs, added up in the cell that the hashes name together.

Reference: Wang et al., Spatiotemporal Pyramid Network, CVPR 2017, the architecture figure and Algorithm 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sketch:
    """The hashes of one fusion: h_i(j) in 0..d-1 and s_i(j) = -1 or 1 for entry j of input i."""

    cells: Sequence[Whole]
    signs: Sequence[Whole]
    size: int


def compact_bilinear(vectors: Sequence[Array], sketch: Sketch) -> Array:
    """Phi[k]: the sum over all j_1 ... j_m whose hashes add up to k modulo d, of the product of s_i(j_i) v_i(j_i)."""
    products: Array = np.ones(())
    cells: Whole = np.zeros((), np.int64)
    for v, h, s in zip(vectors, sketch.cells, sketch.signs, strict=True):
        products = np.multiply.outer(products, s * v)
        cells = np.add.outer(cells, h)
    out = np.zeros(sketch.size)
    for cell, product in zip(cells.ravel() % sketch.size, products.ravel(), strict=True):
        out[cell] += product
    return out


# What rounds the root's corner and the length of nothing; the paper has neither, the package had to choose.
ROOT_EPS, LENGTH_EPS = 1e-3, 1e-6


def normalised(
    x: Array, rule: str, inputs: int, *, root_eps: float = ROOT_EPS, length_eps: float = LENGTH_EPS
) -> Array:
    """One vector after its fusion: signed square root, signed root of as many inputs as there were, Euclidean norm."""
    if rule != "none":
        order = inputs if rule == "signed_root" else 2
        x = np.sign(x) * ((np.abs(x) + root_eps) ** (1 / order) - root_eps ** (1 / order))
    if rule == "signed_sqrt_l2":
        x = x / np.sqrt(np.sum(x * x) + length_eps)
    return x


def outer(vectors: Sequence[Array]) -> Array:
    """All products of one entry of each, the last input's index running fastest."""
    out: Array = np.ones(1)
    for v in vectors:
        out = np.array([a * b for a in out for b in v])
    return out


def fuse(vectors: Sequence[Array], how: str, sketch: Sketch | None, normalization: str) -> Array:
    """One location's inputs into one vector."""
    if how == "stcb":
        assert sketch is not None
        return normalised(compact_bilinear(vectors, sketch), normalization, len(vectors))
    if how == "bilinear":
        return normalised(outer(vectors), normalization, len(vectors))
    if how == "concatenation":
        return np.concatenate(list(vectors))
    out = np.array(vectors[0])
    for v in vectors[1:]:
        out = {"sum": np.add, "product": np.multiply, "max": np.maximum}[how](out, v)
    return out


def fuse_maps(maps: Sequence[Array], how: str, sketch: Sketch | None, normalization: str) -> Array:
    """Maps (C_i, H, W) -> (D, H, W), each location for itself."""
    _, H, W = maps[0].shape
    rows = [[fuse([m[:, y, x] for m in maps], how, sketch, normalization) for x in range(W)] for y in range(H)]
    return np.array(rows).transpose(2, 0, 1)


def linear(x: Array, weight: Array, bias: Array) -> Array:
    """weight (K, C), bias (K) on (C)."""
    return np.array([bias[k] + sum(weight[k, c] * x[c] for c in range(len(x))) for k in range(len(bias))])


def convolve_1x1(x: Array, weight: Array, bias: Array) -> Array:
    """weight (D, C, 1, 1) on (C, H, W)."""
    _, H, W = x.shape
    rows = [[linear(x[:, i, j], weight[:, :, 0, 0], bias) for j in range(W)] for i in range(H)]
    return np.array(rows).transpose(2, 0, 1)


def softmax_over_places(x: Array) -> Array:
    """(H, W) of energies -> weights that add up to 1."""
    e = np.exp(x - x.max())
    weights: Array = e / e.sum()
    return weights


def weighted_pool(x: Array, weights: Array) -> Array:
    """(C, H, W) and (H, W) -> (C): the weighted sum over places."""
    C, H, W = x.shape
    return np.array([sum(weights[i, j] * x[c, i, j] for i in range(H) for j in range(W)) for c in range(C)])


@dataclass(frozen=True)
class Layers:
    """What was drawn or learnt: the sketches, the two convolutions of the attention, the classifier."""

    sketches: dict[str, Sketch] = field(default_factory=dict)
    convolutions: Sequence[tuple[Array, Array]] = ()
    classifier: Sequence[tuple[Array, Array]] = ()


@dataclass(frozen=True)
class Choices:
    """How each fusion is done; the defaults are the paper's figure.

    Attributes:
        temporal: stcb, sum, max or concatenation of the snippets' maps.
        attention: what the energies are made from (stcb, concatenation or appearance), or average or max instead.
        top: stcb, concatenation, sum, product or bilinear.
        inputs: which vectors the top joins.
        normalization: none, signed_sqrt, signed_root or signed_sqrt_l2, of all fusions by products.
    """

    temporal: str = "stcb"
    attention: str = "stcb"
    top: str = "stcb"
    inputs: tuple[str, ...] = ("appearance", "attended", "motion")
    normalization: str = "signed_sqrt_l2"


def pyramid(appearance: Array, motion: Array, layers: Layers, choices: Choices) -> dict[str, Any]:
    """One video: the frame's map (C, H, W) and the snippets' maps (S, C, H, W) -> logits (K) and all that led there."""
    _, H, W = appearance.shape
    rule = choices.normalization

    # Level 1: the snippets into one motion map; a single one is there already.
    snippets = list(motion)
    fused = snippets[0]
    if len(snippets) > 1:
        fused = fuse_maps(snippets, choices.temporal, layers.sketches.get("temporal"), rule)

    # Level 2: where to look in the frame.
    weights = np.full((H, W), 1 / (H * W))
    if choices.attention in ("stcb", "concatenation", "appearance"):
        joint = appearance
        if choices.attention != "appearance":
            joint = fuse_maps([appearance, fused], choices.attention, layers.sketches.get("attention"), rule)
        (w1, b1), (w2, b2) = layers.convolutions
        hidden = np.maximum(convolve_1x1(joint, w1, b1), 0)
        weights = softmax_over_places(convolve_1x1(hidden, w2, b2)[0])
    attended = weighted_pool(appearance, weights)
    if choices.attention == "max":
        attended = np.array([channel.max() for channel in appearance])

    # Level 3: what the frame shows, what was looked at, how it moves.
    even = np.full((H, W), 1 / (H * W))
    vectors = {
        "appearance": weighted_pool(appearance, even),
        "attended": attended,
        "motion": weighted_pool(fused, even),
    }
    joined = [vectors[name] for name in choices.inputs]
    top = joined[0]
    if len(joined) > 1:
        top = fuse(joined, choices.top, layers.sketches.get("top"), rule)
    logits = top
    for index, (weight, bias) in enumerate(layers.classifier):
        logits = linear(np.maximum(logits, 0) if index else logits, weight, bias)
    return {"motion": fused, "weights": weights, "vectors": vectors, "top": top, "logits": logits}
