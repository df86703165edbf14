"""STPN above its backbones a second time, in NumPy and from the paper's facts alone: outer products, and loops.

Nothing here uses a Fourier transform, torch or the package. A compact bilinear fusion is what it stands for: every
product of one entry of each input, with its signs, added up in the cell that the hashes name together.

Reference: Wang et al., Spatiotemporal Pyramid Network, CVPR 2017, the architecture figure and Algorithm 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
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
    np.add.at(out, cells % sketch.size, products)
    return out


# What rounds the root's corner and the length of nothing; the paper has neither, the package had to choose.
ROOT_EPS, LENGTH_EPS = 1e-3, 1e-6


def rooted(x: Array, rule: str, inputs: int, *, eps: float = ROOT_EPS) -> Array:
    """The signed square root, or the signed root of as many inputs as there were."""
    if rule == "none":
        return x
    order = inputs if rule == "signed_root" else 2
    return np.sign(x) * ((np.abs(x) + eps) ** (1 / order) - eps ** (1 / order))


def shortened(x: Array, rule: str, *, eps: float = LENGTH_EPS) -> Array:
    """Euclidean length 1, where the rule says so."""
    return x / np.sqrt(np.sum(x * x) + eps) if rule.endswith("_l2") else x


def outer(vectors: Sequence[Array]) -> Array:
    """All products of one entry of each, the last input's index running fastest."""
    out: Array = np.ones(1)
    for v in vectors:
        out = np.array([a * b for a in out for b in v])
    return out


@dataclass(frozen=True)
class Fusion:
    """One fusion: how, and what was drawn or learnt for it.

    Attributes:
        how: stcb, bilinear (the outer product of each input's projection), product, sum, max or concatenation.
        sketch: of stcb.
        projections: of bilinear, (features, channels) for each input.
        gain: a factor at the end of stcb, bilinear and product.
        normalization: none, signed_sqrt, signed_root or signed_sqrt_l2, of stcb, bilinear and product.
        whole: the length is taken over all locations of a map together.
    """

    how: str
    sketch: Sketch | None = None
    projections: Sequence[Array] = ()
    gain: float = 1.0
    normalization: str = "none"
    whole: bool = False


def joined(vectors: Sequence[Array], fusion: Fusion) -> Array:
    """One location's inputs into one vector, up to the root."""
    if fusion.how == "concatenation":
        return np.concatenate(list(vectors))
    if fusion.how in ("sum", "max"):
        out = np.array(vectors[0])
        for v in vectors[1:]:
            out = out + v if fusion.how == "sum" else np.maximum(out, v)
        return out
    if fusion.how == "stcb":
        assert fusion.sketch is not None
        out = compact_bilinear(vectors, fusion.sketch)
    elif fusion.how == "bilinear":
        projected = [linear(v, w, np.zeros(len(w))) for v, w in zip(vectors, fusion.projections, strict=True)]
        out = outer(projected)
    else:
        out = np.array([np.prod(entries) for entries in zip(*vectors, strict=True)])
    return rooted(out, fusion.normalization, len(vectors))


def fuse(vectors: Sequence[Array], fusion: Fusion) -> Array:
    """Vectors into one."""
    out = joined(vectors, fusion)
    if fusion.how in ("stcb", "bilinear", "product"):
        out = shortened(out, fusion.normalization) * fusion.gain
    return out


def fuse_maps(maps: Sequence[Array], fusion: Fusion) -> Array:
    """Maps (C_i, H, W) -> (D, H, W), each location for itself."""
    _, H, W = maps[0].shape
    one = joined if fusion.whole else fuse
    rows = [[one([m[:, y, x] for m in maps], fusion) for x in range(W)] for y in range(H)]
    out = np.array(rows).transpose(2, 0, 1)
    return shortened(out, fusion.normalization) * fusion.gain if fusion.whole else out


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
class Pyramid:
    """The three levels and the classifier.

    Attributes:
        temporal: of the snippets' maps; None for a single snippet.
        attention: what the energies are made from: a fusion of both maps, or ``"appearance"``; ``"average"`` or
            ``"max"`` pool without weights; ``"none"``: nothing is attended to.
        convolutions: two of the attention, (weight, bias).
        top: of the pooled features.
        classifier: one or more fully connected layers, (weight, bias), a ReLU between them.
    """

    temporal: Fusion | None
    attention: Fusion | str
    convolutions: Sequence[tuple[Array, Array]]
    top: Fusion
    classifier: Sequence[tuple[Array, Array]]

    def __call__(self, appearance: Array, snippets: Array) -> dict[str, Any]:
        """One video: the frame's map (C, H, W), the snippets' (S, C, H, W) -> logits (K) and all that led there."""
        _, H, W = appearance.shape
        even = np.full((H, W), 1 / (H * W))

        # Level 1: the snippets into one motion map.
        motion = snippets[0] if self.temporal is None else fuse_maps(list(snippets), self.temporal)

        # Level 2: where to look in the frame.
        weights = even
        if isinstance(self.attention, Fusion) or self.attention == "appearance":
            both = appearance if self.attention == "appearance" else fuse_maps([appearance, motion], self.attention)
            (w1, b1), (w2, b2) = self.convolutions
            hidden = np.maximum(convolve_1x1(both, w1, b1), 0)
            weights = softmax_over_places(convolve_1x1(hidden, w2, b2)[0])
        attended = weighted_pool(appearance, weights)
        if self.attention == "max":
            attended = np.array([channel.max() for channel in appearance])

        # Level 3: what the frame shows, what was looked at, how it moves.
        looks = [weighted_pool(appearance, even)] + ([] if self.attention == "none" else [attended])
        feature = fuse([*looks, weighted_pool(motion, even)], self.top)
        logits = feature
        for index, (weight, bias) in enumerate(self.classifier):
            logits = linear(np.maximum(logits, 0) if index else logits, weight, bias)
        return {"motion": motion, "weights": weights, "attended": attended, "feature": feature, "logits": logits}
