"""Where in the frame something moves: crops are then taken from there, so that a distant person fills the picture.

A region is found from stored flow alone, by the same rule in training, testing and prediction, and never from labels.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from twostream.flow.quantize import dequantize

Uint8Array = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

# Fields of a clip that are looked at, evenly spread: enough to see what moves anywhere in it, and soon read.
FIELDS = 32
# Side in cells that fields are brought to: a person six metres away still covers some, and noise averages out.
_CELLS = 48
# What a cell must move beside the camera and beside its surroundings to count, and where more counts no more, because a
# fast arm must not hide the slow one: px on a grid whose short side is _GRID.
_STILL, _ENOUGH, _GRID = 0.5, 3.0, 256
# Deviation in cells of the Gaussian that makes the surroundings, a sixteenth of the frame's longer side. Things have
# edges; the flow that is found where light flickers on a wall, with no texture to hold it, is smooth and wide.
_SURROUNDINGS = 3.0
# Cells below this share of the strongest do not count, nor patches of cells with less than this share of the strongest
# patch; and of the rest this share lies outside on either side. What flickers behind must not widen the region.
_WEAK, _PATCH, _OUTSIDE = 0.3, 0.3, 0.02
# Room around what moves as a share of its size, and the region's least side as a share of the frame's short one.
_ROOM, _LEAST = 0.3, 0.35


@dataclass(frozen=True, kw_only=True)
class Region:
    """A part of the frame, in shares of its width and height; the default is all of it."""

    left: float = 0.0
    top: float = 0.0
    width: float = 1.0
    height: float = 1.0

    def px(self, width: int, height: int) -> tuple[float, float]:
        """Its width and height on a grid of ``width`` x ``height`` px."""
        return self.width * width, self.height * height


WHOLE = Region()


def region_fields(first: int, stop: int) -> IntArray:
    """The fields that the region of a clip of frames ``first`` ... ``stop`` - 1 is found from; none for one frame."""
    count = min(FIELDS, stop - 1 - first)
    if count < 1:
        return np.empty(0, np.int64)
    return first + np.round(np.linspace(0, stop - 2 - first, count)).astype(np.int64)


def moving_region(fields: Uint8Array, bound: float = 20.0) -> Region:
    """The square around what moves beside the camera; the whole frame where nothing moves, or hardly anything.

    Half of what a thing moves is in its surroundings too, so it counts from about 1 px a field on, of a short side of
    256 px.

    What the camera does is an affine motion of the whole frame, fitted to each field. Of the rest only what differs
    from its surroundings counts as things. The square is cut to the frame where it is larger.

    Args:
        fields: 8-bit flow (n, 2, H, W).
        bound: in px, that it was clipped to.
    """
    n, _, H, W = fields.shape
    if not n:
        return WHOLE
    short = min(H, W)
    scale = _CELLS / max(H, W)
    size = max(2, round(W * scale)), max(2, round(H * scale))
    heat = np.zeros((size[1], size[0]))
    for field in fields:
        flow = np.stack([cv2.resize(plane, size, interpolation=cv2.INTER_AREA) for plane in dequantize(field, bound)])
        beside = flow.astype(np.float64) - _camera(flow)
        # The least of both, as what is still beside something fast differs from its surroundings too.
        length = np.sqrt(np.minimum((beside**2).sum(0), ((beside - _surroundings(beside)) ** 2).sum(0)))
        heat += np.clip(length * (_GRID / short) - _STILL, 0, _ENOUGH)
    heat = _together(np.asarray(cv2.blur(heat, (3, 3)), np.float64))
    if not heat.any():
        return WHOLE
    left, right = _extent(heat.sum(0))
    top, bottom = _extent(heat.sum(1))
    # In px from here on: a square is one on the picture.
    side = max((1 + 2 * _ROOM) * max((right - left) * W, (bottom - top) * H), _LEAST * short)
    w, h = min(side, W), min(side, H)
    x = min(max((left + right) / 2 * W - w / 2, 0), W - w)
    y = min(max((top + bottom) / 2 * H - h / 2, 0), H - h)
    return Region(left=x / W, top=y / H, width=w / W, height=h / H)


def _camera(flow: npt.NDArray[np.float32]) -> FloatArray:
    """The affine motion (2, h, w) that most of a field (2, h, w) agrees on: least squares, outliers weighted down."""
    _, h, w = flow.shape
    y, x = np.mgrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j].reshape(2, -1)
    terms = np.stack([np.ones_like(x), x, y], axis=1)  # (h w, 3)
    target = flow.reshape(2, -1).T.astype(np.float64)  # (h w, 2)
    fitted = np.broadcast_to(np.median(target, axis=0), target.shape)
    for _ in range(3):
        # Geman and McClure's weights: what moves otherwise loses its say.
        weight = 1 / (1 + ((target - fitted) ** 2).sum(1) / 0.25) ** 2
        weighted = terms * weight[:, None]
        fitted = terms @ np.linalg.lstsq(weighted.T @ terms, weighted.T @ target, rcond=None)[0]
    return np.asarray(fitted.T.reshape(2, h, w), np.float64)


def _surroundings(flow: FloatArray) -> FloatArray:
    """What a field (2, h, w) is around each cell, (2, h, w)."""
    around = [cv2.GaussianBlur(plane, (0, 0), _SURROUNDINGS, borderType=cv2.BORDER_REPLICATE) for plane in flow]
    return np.asarray(around, np.float64)


def _together(heat: FloatArray) -> FloatArray:
    """The heat (h, w) of the patches in which much moves; the rest is set to zero."""
    hot = heat >= _WEAK * heat.max() if heat.any() else np.zeros(heat.shape, bool)
    count, patches = cv2.connectedComponents(hot.astype(np.uint8))
    totals = np.bincount(patches.ravel(), weights=np.where(hot, heat, 0).ravel(), minlength=count)
    kept = totals >= _PATCH * totals.max()
    return np.where(hot & kept[patches], heat, 0)


def _extent(heat: FloatArray) -> tuple[float, float]:
    """From where to where along an axis, in shares of it, all but a little of the heat lies."""
    edges = np.linspace(0, 1, len(heat) + 1)
    below = np.concatenate([[0.0], np.cumsum(heat)]) / heat.sum()
    low, high = np.interp([_OUTSIDE, 1 - _OUTSIDE], below, edges)
    return float(low), float(high)


__all__ = ["WHOLE", "Region", "moving_region", "region_fields"]
