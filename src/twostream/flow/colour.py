"""Flow as the standard colour wheel: direction by hue, speed by saturation.

Reference: Baker et al., *A Database and Evaluation Methodology for Optical Flow*, IJCV 2011 (the Middlebury code).
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from twostream.flow.estimators import FlowError

Image = npt.NDArray[np.uint8]


def _wheel() -> npt.NDArray[np.float64]:
    """(55, 3): from red through yellow, green, cyan, blue and magenta, as many steps each as the eye tells apart."""
    segments = ((15, 0, 1, 1), (6, 1, 0, -1), (4, 1, 2, 1), (11, 2, 1, -1), (13, 2, 0, 1), (6, 0, 2, -1))
    rows = []
    for count, full, moving, sign in segments:
        part = np.zeros((count, 3))
        ramp = np.floor(255 * np.arange(count) / count)
        part[:, full] = 255
        part[:, moving] = ramp if sign > 0 else 255 - ramp
        rows.append(part)
    return np.concatenate(rows) / 255


_WHEEL = _wheel()


def flow_to_colour(flow: npt.NDArray[np.floating[Any]], max_magnitude: float | None = None) -> Image:
    """(2, H, W) flow in px to (H, W, 3) uint8 R, G, B.

    White is no motion; to the right is red, down yellow, to the left cyan, up violet.

    Args:
        flow: u and v; pixels where either is not finite come out black.
        max_magnitude: speed in px that has full colour; faster ones are darkened. By default the highest speed in the
            field, but at least 1 px, so that the noise of a still scene does not look like motion.
    """
    if flow.ndim != 3 or flow.shape[0] != 2:
        raise FlowError(f"a flow field is (2, H, W), got {flow.shape}")
    if max_magnitude is not None and not (math.isfinite(max_magnitude) and max_magnitude > 0):
        raise FlowError(f"the speed of full colour must be a number of px above 0, got {max_magnitude}")
    known = np.isfinite(flow).all(axis=0)
    u, v = np.where(known, flow, 0).astype(np.float64)
    speed = np.hypot(u, v)
    full = max(1.0, float(speed.max(initial=0.0))) if max_magnitude is None else max_magnitude
    radius = (speed / full)[..., None]
    # Adding 0 makes every zero a positive one; the sign of a zero would put straight right at either end of the wheel.
    place = (np.arctan2(-(v + 0.0), -u) / np.pi + 1) / 2 * (len(_WHEEL) - 1)
    below = np.floor(place).astype(np.int64)
    share = (place - below)[..., None]
    hue = (1 - share) * _WHEEL[below] + share * _WHEEL[(below + 1) % len(_WHEEL)]
    colour = np.where(radius <= 1, 1 - radius * (1 - hue), 0.75 * hue)
    return np.where(known[..., None], np.floor(255 * colour), 0).astype(np.uint8)


__all__ = ["flow_to_colour"]
