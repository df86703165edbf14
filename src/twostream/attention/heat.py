"""Maps over a frame: orange for more attention than an even share or for a class, blue for less or against it."""

import cv2
import numpy as np
import numpy.typing as npt

from twostream.attention.tracks import AttentionTrack, Box, FloatArray

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

FULL = 4.0
"""So many times the even share has the full colour, and so has one part in so many. Fixed, so that pictures compare."""

# Told apart by every kind of colour blindness, and the same as those of the page.
_MORE, _LESS = (255, 132, 12), (20, 90, 190)
# How far the full colours hide the frame: what is looked at must be seen through its colour.
_HIDES_MORE, _HIDES_LESS = 0.45, 0.35
_UNSEEN = 0.35


class Tint:
    """Lays levels over frames: orange above zero, blue below.

    Args:
        levels: (M, h, w) from -1 to 1, for each of M moments.
        xs, ys: (w,) and (h,), the middles of the cells as shares of the frame's width and height, rising.
        seen: the part of the frame that the network was shown, as shares of width and height.
        width, height: of the frames in px.
    """

    def __init__(self, levels: Floats, xs: FloatArray, ys: FloatArray, seen: Box, *, width: int, height: int) -> None:
        self._levels = levels
        # Where each pixel lies between the cells' middles, eased so that no edges show at them.
        across = _between(xs, (np.arange(width) + 0.5) / width)
        down = _between(ys, (np.arange(height) + 0.5) / height)
        self._places = np.meshgrid(across, down)
        left, top, right, bottom = seen
        x = slice(round(left * width), round(right * width))
        y = slice(round(top * height), round(bottom * height))
        self._seen = np.zeros((height, width, 1), np.bool_)
        self._seen[y, x] = True
        self._layers: tuple[int, Floats, Floats] | None = None

    def over(self, frame: Image, moment: int) -> Image:
        """``frame`` (H, W, 3) under the levels of that moment; what the network did not see is dimmed."""
        if self._layers is None or self._layers[0] != moment:
            # Neighbouring frames share their moment.
            self._layers = (moment, *self._tint(self._levels[moment]))
        _, colour, keep = self._layers
        blended: Floats = frame * keep + colour
        return _bytes(blended)

    def _tint(self, levels: Floats) -> tuple[Floats, Floats]:
        level = cv2.remap(levels, *self._places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        colour, strength = _colours(level.astype(np.float32))
        keep = np.where(self._seen, 1 - strength, np.float32(_UNSEEN))
        return np.where(self._seen, colour * strength, np.float32(0)), keep


class Heat(Tint):
    """Lays the attention of one video over its frames.

    Args:
        track: where the network looked.
        width, height: of the frames in px.
    """

    def __init__(self, track: AttentionTrack, width: int, height: int) -> None:
        super().__init__(levels(track.ratios()), track.xs, track.ys, track.seen, width=width, height=height)


def levels(ratios: npt.ArrayLike) -> Floats:
    """From -1 (a part in :data:`FULL` of the even share, or less) over 0 (even) to 1 (:data:`FULL` times, or more)."""
    ratios = np.maximum(np.asarray(ratios, np.float32), np.float32(1 / FULL))
    found: Floats = np.clip(np.log(ratios) / np.log(FULL), -1, 1).astype(np.float32)
    return found


def key(width: int = 192, height: int = 24) -> Image:
    """The colours over a grey ground, from least on the left over even in the middle to most on the right."""
    level: Floats = np.tile(np.linspace(-1, 1, width).astype(np.float32), (height, 1))
    colour, strength = _colours(level)
    return _bytes(128 * (1 - strength) + colour * strength)


def _bytes(image: Floats) -> Image:
    whole: Image = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return whole


def _colours(level: Floats) -> tuple[Floats, Floats]:
    """(H, W, 3) of colour and (H, W, 1) of its strength from 0 to 1."""
    more = level[..., None] > 0
    colour = np.where(more, np.array(_MORE, np.float32), np.array(_LESS, np.float32))
    hides = np.where(more, np.float32(_HIDES_MORE), np.float32(_HIDES_LESS))
    return colour, np.abs(level)[..., None] * hides


def _between(middles: FloatArray, places: FloatArray) -> Floats:
    at = np.interp(places, middles, np.arange(len(middles)))
    whole = np.floor(at)
    part = at - whole
    eased: Floats = (whole + part * part * (3 - 2 * part)).astype(np.float32)
    return eased


__all__ = ["FULL", "Heat", "Tint", "key", "levels"]
