"""Histograms of optical flow under a linear model: what the flow tells without a network.

Each field's directions are counted in 4 x 4 cells of the picture (8 directions, weighted by how far, and the share that
stands still), and averaged over each quarter of the clip: 4 x 4 x 4 x 9 numbers a clip, of which the roots are taken.

Reference: Laptev et al., Learning Realistic Human Actions from Movies, CVPR 2008, section 3.1 (histograms of optical
flow); there around points of interest, here over the whole of a clip.
"""

import cv2
import numpy as np
import numpy.typing as npt

from twostream.clip import Looking
from twostream.data.items import VideoItem
from twostream.data.region import WHOLE, Region, moving_region, region_fields
from twostream.data.sampling import frame_range
from twostream.flow.quantize import dequantize
from twostream.flow.store import FlowStore

FloatArray = npt.NDArray[np.float64]

TIMES, CELLS, DIRECTIONS = 4, 4, 8
# Side that a field is brought to, in px, and what stands still on it. Fixed beforehand, so that nothing is chosen.
_GRID, _STILL = 64, 0.25


def describe(item: VideoItem, store: FlowStore, *, region: Looking = "frame") -> FloatArray:
    """A clip's histograms (576,), from its stored flow.

    Args:
        item: whose flow is in the store.
        store: of flow.
        region: all of the frame, or the square around what moves in the clip.

    Raises:
        FlowStoreError: its flow is missing or damaged.
    """
    with store.open(item.video) as stored:
        frames = frame_range(item.start, item.end, stored.fps, stored.frame_count)
        found = WHOLE
        if region == "motion" and len(wanted := region_fields(frames.start, frames.stop)):
            found = moving_region(stored.fields(wanted), stored.bound)
        fields = stored.fields(np.arange(frames.start, max(frames.start, frames.stop - 1)))
        return histograms(fields, bound=stored.bound, region=found)


def histograms(fields: npt.NDArray[np.uint8], *, bound: float, region: Region = WHOLE) -> FloatArray:
    """(576,) of 8-bit fields (n, 2, H, W) that were clipped to ``bound`` px; zeros for none."""
    n = len(fields)
    counts = np.zeros((TIMES, CELLS, CELLS, DIRECTIONS + 1))
    if not n:
        return counts.ravel()
    each = np.array([_cells(dequantize(field, bound), region) for field in fields])  # (n, CELLS, CELLS, DIRECTIONS + 1)
    for part in range(TIMES):
        first = min(part * n // TIMES, n - 1)
        counts[part] = each[first : max(first + 1, (part + 1) * n // TIMES)].mean(0)
    return np.sqrt(counts).ravel()


def _cells(field: npt.NDArray[np.float32], region: Region) -> FloatArray:
    """The histograms of one field (2, H, W) in px."""
    _, H, W = field.shape
    top, left = round(region.top * H), round(region.left * W)
    part = field[:, top : top + max(1, round(region.height * H)), left : left + max(1, round(region.width * W))]
    u, v = (cv2.resize(plane, (_GRID, _GRID), interpolation=cv2.INTER_AREA).astype(np.float64) for plane in part)
    length, place = np.hypot(u, v), (np.arctan2(v, u) / (2 * np.pi) % 1) * DIRECTIONS
    lower = np.floor(place)
    # A direction between two bins counts in both, so that a small turn changes little.
    shares = np.zeros((_GRID, _GRID, DIRECTIONS + 1))
    rows, columns = np.indices((_GRID, _GRID))
    for bin_, share in ((lower, lower + 1 - place), (lower + 1, place - lower)):
        shares[rows, columns, bin_.astype(int) % DIRECTIONS] += share * length
    shares[..., DIRECTIONS] = length < _STILL
    side = _GRID // CELLS
    found: FloatArray = shares.reshape(CELLS, side, CELLS, side, DIRECTIONS + 1).mean((1, 3))
    return found
