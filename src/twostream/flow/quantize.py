"""Float flow to 8 bits and back: the papers' rule, its inverse, and the mirror image of what is stored."""

import math
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from twostream.flow.estimators import FlowError

# Written into every store, so that its bytes can be read without this file.
RULE = "clip(f, -b, b); floor(255 * (f + b) / (2 * b) + 0.5), f in px, b = bound"

Fields = npt.NDArray[np.uint8]


def quantize(flow: npt.NDArray[np.floating[Any]], bound: float = 20.0) -> Fields:
    """Flow in px, of any shape, to 0..255: clipped to ±``bound``, then floor(255 (f + bound) / (2 bound) + 0.5).

    No motion is 128. Within the bound, :func:`dequantize` comes back to within :func:`half_step` px.

    Raises:
        FlowError: a value that is not finite. A stored 128 in its place would pass for a measured standstill.
    """
    _check_bound(bound)
    if not np.issubdtype(flow.dtype, np.floating):
        raise FlowError(f"flow to quantize is in px and floating point, got {flow.dtype}")
    if not np.isfinite(flow).all():
        bad = int(np.size(flow) - np.count_nonzero(np.isfinite(flow)))
        raise FlowError(f"{bad} of {flow.size} flow values are not finite, so the field cannot be stored")
    # In double precision, where each step of the rule is exact enough to fall on the right side of every edge.
    levels = np.clip(flow, -bound, bound).astype(np.float64)
    levels += bound
    levels *= 255
    levels /= 2 * bound
    levels += 0.5
    fields: Fields = levels.astype(np.uint8)  # of what is not negative, the cast is the floor
    return fields


def dequantize(fields: Fields, bound: float = 20.0) -> npt.NDArray[np.float32]:
    """0..255, of any shape, to the middle of each level in px: 2 bound q / 255 - bound.

    The middle halves the largest error and makes q and 255 - q opposites; no motion, 128, comes back as
    :func:`half_step`.
    """
    _check_bound(bound)
    if fields.dtype != np.uint8:
        raise FlowError(f"stored flow is uint8, got {fields.dtype}")
    return _levels(float(bound))[fields]


def half_step(bound: float = 20.0) -> float:
    """The largest error in px of a round trip within the bound: bound / 255, 0.078 px at 20."""
    return bound / 255


def flip_horizontal(fields: Fields) -> Fields:
    """(..., 2, H, W) stored fields as if the video were mirrored from left to right: u becomes 255 - u."""
    flipped = fields[..., ::-1].copy()
    flipped[..., 0, :, :] = 255 - flipped[..., 0, :, :]
    return flipped


@lru_cache(maxsize=16)
def _levels(bound: float) -> npt.NDArray[np.float32]:
    levels = (2 * bound * np.arange(256) / 255 - bound).astype(np.float32)
    levels.flags.writeable = False
    return levels


def _check_bound(bound: float) -> None:
    if not (math.isfinite(bound) and bound > 0):
        raise FlowError(f"the bound of stored flow must be a number of px above 0, got {bound}")


__all__ = ["RULE", "dequantize", "flip_horizontal", "half_step", "quantize"]
