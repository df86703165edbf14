"""Crops, mirror images and colour changes: drawn once per clip, applied to its frames and its flow alike.

A crop is kept in fractions of the grid that frames and flow are stored at, so both streams see the same region,
whatever that grid's size. Flow values stay pixels of the stored grid: resizing a crop does not rescale them, as in the
papers.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from twostream.data.region import Region
from twostream.errors import UsageError
from twostream.flow.quantize import flip_horizontal

Uint8Array = npt.NDArray[np.uint8]
Crop = Literal["multi_scale_square", "multi_scale", "random_sides", "released_code", "random_area", "centre", "none"]
Space = Literal["centre", "ten", "three", "whole"]

CROPS: dict[Space, tuple[str, ...]] = {
    "centre": ("centre",),
    "ten": ("top left", "top right", "bottom left", "bottom right", "centre"),
    "three": ("start", "middle", "end"),
    "whole": ("whole",),
}
"""The crops of every way to cover a frame at test time, in order; ``ten`` is ten with their mirror images."""


@dataclass(frozen=True, kw_only=True)
class ClipTransform:
    """A crop, a mirror image and a change of colour, the same for every frame and field of a clip.

    Attributes:
        left, top, width, height: the crop in fractions of the grid.
        flip: mirrored from left to right; the flow's u changes its sign.
        brightness: factor on the RGB values.
        contrast: factor on their distance from middle grey.
        speed: factor on the flow, as if everything moved so much faster.
        erased: left, top, right and bottom, in fractions of the crop, of a rectangle that shows nothing: middle grey
            and no motion; None: there is none.
    """

    left: float = 0.0
    top: float = 0.0
    width: float = 1.0
    height: float = 1.0
    flip: bool = False
    brightness: float = 1.0
    contrast: float = 1.0
    speed: float = 1.0
    erased: tuple[float, float, float, float] | None = None

    def within(self, region: Region) -> "ClipTransform":
        """The same crop of a region of the grid instead of the whole of it."""
        return replace(
            self,
            left=region.left + self.left * region.width,
            top=region.top + self.top * region.height,
            width=self.width * region.width,
            height=self.height * region.height,
        )

    def box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """The crop on a grid of ``width`` x ``height`` px: left, top, right, bottom; never empty."""
        w, h = max(1, round(self.width * width)), max(1, round(self.height * height))
        x, y = min(round(self.left * width), width - w), min(round(self.top * height), height - h)
        return x, y, x + w, y + h

    def frames(self, frames: Uint8Array, size: tuple[int, int]) -> Tensor:
        """Frames (n, H, W, 3) to a uint8 tensor (n, 3, height, width), ``size`` being (width, height)."""
        images = self._resized(frames, size)
        if self.flip:
            images = images[:, :, ::-1]
        if self.brightness != 1.0 or self.contrast != 1.0:
            grey = (np.arange(256) * self.brightness - 128) * self.contrast + 128
            images = np.clip(np.rint(grey), 0, 255).astype(np.uint8)[images]
        return torch.from_numpy(self._without_erased(np.ascontiguousarray(images.transpose(0, 3, 1, 2))))

    def fields(self, fields: Uint8Array, size: tuple[int, int]) -> Tensor:
        """Flow fields (n, 2, H, W) to a uint8 tensor (n, 2, height, width), ``size`` being (width, height)."""
        n = len(fields)
        planes = self._resized(fields.reshape(2 * n, *fields.shape[2:]), size).reshape(n, 2, size[1], size[0])
        if self.speed != 1.0:
            # Before the mirror image, whose zero is 127.
            planes = np.clip(np.rint((np.arange(256) - 128) * self.speed + 128), 0, 255).astype(np.uint8)[planes]
        planes = flip_horizontal(planes) if self.flip else np.ascontiguousarray(planes)
        return torch.from_numpy(self._without_erased(planes))

    def _without_erased(self, planes: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The planes (n, C, H, W) with nothing in the erased rectangle; what is not the caller's own is copied."""
        if self.erased is None:
            return planes
        H, W = planes.shape[-2:]
        left, top, right, bottom = self.erased
        planes = planes.copy()
        planes[..., round(top * H) : round(bottom * H), round(left * W) : round(right * W)] = 128
        return planes

    def _resized(self, images: Uint8Array, size: tuple[int, int]) -> npt.NDArray[Any]:
        x0, y0, x1, y1 = self.box(images.shape[2], images.shape[1])
        cut = images[:, y0:y1, x0:x1]
        if (x1 - x0, y1 - y0) == size:
            return cut
        # Below half the size, linear interpolation skips pixels, and texture would flicker. Above, it skips none and is
        # three to five times as fast as averaging over areas.
        skips = x1 - x0 > 2 * size[0] or y1 - y0 > 2 * size[1]
        out = np.empty((len(images), size[1], size[0], *images.shape[3:]), np.uint8)
        for image, resized in zip(cut, out, strict=True):
            cv2.resize(image, size, dst=resized, interpolation=cv2.INTER_AREA if skips else cv2.INTER_LINEAR)
        return out


@dataclass(frozen=True, kw_only=True)
class Augment:
    """What is drawn for a training clip.

    Sides are relative to the short side of the frame; every crop is resized to the network's square.

    Attributes:
        crop: how the crop's sides are drawn.
            ``multi_scale_square``: one of ``scales`` for both, so that nothing is squashed and the shape of the frame
            does not show in the clip.
            ``multi_scale``: one of ``scales`` for each, at most ``distort`` places apart in the list (TSN's with 1;
            the flow stream of ST-ResNet with as many as there are scales).
            ``random_sides``: each drawn from ``sides``, cut to the frame (ST-ResNet).
            ``released_code``: sides as ``random_sides``, but only ever near the top left or the bottom right corner
            (ST-ResNet's released code; an accident of how its table of places is built).
            ``random_area``: a share of the frame's area drawn from ``area`` and width / height drawn from ``aspect``.
            ``centre``: the middle square that the test protocols look at.
            ``none``: the whole frame, squashed into the square.
        scales: sides that ``multi_scale_square`` and ``multi_scale`` choose from.
        distort: how far apart in ``scales`` width and height of ``multi_scale`` may be.
        sides: lowest and highest of ``random_sides`` and ``released_code``; the default is 0.75 to 1.25 of the 224 px
            that are cut from 256.
        area: lowest and highest share of the frame's area, for ``random_area``.
        aspect: lowest and highest width / height, for ``random_area``.
        corners: where the crop lies: at a corner or in the centre, with more places along the long side of wide frames
            so that all of it is covered; or else anywhere.
        flip: probability of a mirror image.
        colour: brightness and contrast of the frames are each multiplied by a factor from 1 - colour to 1 + colour.
        speed: the flow is multiplied by a factor from 1 / (1 + speed) to 1 + speed: people move at different speeds.
        erase: probability that a rectangle of a twentieth to a third of the crop shows nothing, in both streams.

    Reference:
        Zhong et al., Random Erasing Data Augmentation, AAAI 2020 (``erase``);
        Wang et al., Temporal Segment Networks, ECCV 2016, section 3.2 (corner cropping, scale jittering);
        Feichtenhofer et al., NIPS 2016, released code (sides drawn apart).
    """

    crop: Crop = "multi_scale_square"
    scales: tuple[float, ...] = (1.0, 0.875, 0.75, 0.66)
    distort: int = 1
    sides: tuple[float, float] = (0.65625, 1.09375)
    area: tuple[float, float] = (0.25, 1.0)
    aspect: tuple[float, float] = (0.75, 4 / 3)
    corners: bool = True
    flip: float = 0.5
    colour: float = 0.0
    speed: float = 0.0
    erase: float = 0.0

    def __post_init__(self) -> None:
        checks: tuple[tuple[bool, str, object, str], ...] = (
            (self.crop in get_args(Crop), "crop", self.crop, f"one of {', '.join(get_args(Crop))}"),
            (
                bool(self.scales) and all(0 < s <= 1 for s in self.scales),
                "scales",
                self.scales,
                "one or more shares of the short side, above 0 and at most 1",
            ),
            (self.distort >= 0, "distort", self.distort, "at least 0"),
            (0 < self.sides[0] <= self.sides[1], "sides", self.sides, "(lowest, highest), above 0"),
            (0 < self.area[0] <= self.area[1] <= 1, "area", self.area, "(lowest, highest), above 0 and at most 1"),
            (0 < self.aspect[0] <= self.aspect[1], "aspect", self.aspect, "(lowest, highest), above 0"),
            (0 <= self.flip <= 1, "flip", self.flip, "a probability from 0 to 1"),
            (0 <= self.colour <= 1, "colour", self.colour, "a strength from 0 to 1"),
            (0 <= self.speed <= 3, "speed", self.speed, "a strength from 0 to 3"),
            (0 <= self.erase <= 1, "erase", self.erase, "a probability from 0 to 1"),
        )
        for ok, name, got, wanted in checks:
            if not ok:
                raise UsageError(f"augmentation: {name} must be {wanted}, got {got!r}")

    def draw(
        self, rng: np.random.Generator, width: float, height: float, *, share: float, mirror: bool = True
    ) -> ClipTransform:
        """Draw what is done to one clip of frames of ``width`` x ``height`` px.

        Args:
            rng: always asked for the sides, the place, the mirror image, the colour, the speed and the rectangle, in
                this order.
            width, height: of the stored grid, or of the region of it that crops are taken from.
            share: side of the network's square over the short side (224 / 256); the side of a ``centre`` crop.
            mirror: False for a clip whose class a mirror image would change, such as "swipe left".
        """
        w, h = self._sides(rng, width, height, share)
        x, y = self._place(rng, width / height)
        flip = bool(rng.random() < self.flip)
        brightness, contrast = 1 + self.colour * rng.uniform(-1, 1, 2)
        speed = (1 + self.speed) ** rng.uniform(-1, 1)
        erased = _rectangle(rng) if self.erase and rng.random() < self.erase else None
        return ClipTransform(
            left=x * (width - w) / width,
            top=y * (height - h) / height,
            width=w / width,
            height=h / height,
            flip=flip and mirror,
            brightness=float(brightness),
            contrast=float(contrast),
            speed=float(speed),
            erased=erased,
        )

    def _sides(self, rng: np.random.Generator, width: float, height: float, share: float) -> tuple[float, float]:
        short = min(width, height)
        if self.crop == "none":
            return width, height
        if self.crop == "centre":
            return share * short, share * short
        if self.crop == "multi_scale_square":
            side = short * self.scales[int(rng.integers(len(self.scales)))]
            return side, side
        if self.crop == "multi_scale":
            n = len(self.scales)
            pairs = [(i, j) for i in range(n) for j in range(n) if abs(i - j) <= self.distort]
            i, j = pairs[int(rng.integers(len(pairs)))]
            return short * self.scales[i], short * self.scales[j]
        if self.crop in ("random_sides", "released_code"):
            w, h = short * rng.uniform(*self.sides, 2)
        else:
            area = width * height * rng.uniform(*self.area)
            # Uniform in the logarithm, so that tall crops are drawn as often as wide ones.
            ratio = np.exp(rng.uniform(*np.log(self.aspect)))
            w, h = np.sqrt(area * ratio), np.sqrt(area / ratio)
        return min(float(w), width), min(float(h), height)

    def _place(self, rng: np.random.Generator, aspect: float) -> tuple[float, float]:
        # 0 is the left or top end of the free room, 1 the right or bottom end.
        if self.crop in ("centre", "none"):
            return 0.5, 0.5
        if self.crop == "released_code":
            # Two tables of 20 x 20 places: from 0 to 0.25 of the free room, and from 0.75 to 1.
            end = 0.75 * int(rng.integers(2))
            x, y = end + 0.25 * rng.integers(20, size=2) / 19
            return float(x), float(y)
        if not self.corners:
            x, y = rng.random(2)
            return float(x), float(y)
        # Two rows of ends and a row of centres between them: four corners and the centre, until the frame is more than
        # twice as long as it is short.
        k = max(2, math.ceil(max(aspect, 1 / aspect) - 1e-9))
        ends = [(i / (k - 1), side) for i in range(k) for side in (0.0, 1.0)]
        places = ends + [((i + 0.5) / (k - 1), 0.5) for i in range(k - 1)]
        along, aside = places[int(rng.integers(len(places)))]
        return (along, aside) if aspect >= 1 else (aside, along)


def _rectangle(rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a twentieth to a third of the unit square, up to three times as long as wide."""
    area, ratio = rng.uniform(1 / 20, 1 / 3), math.exp(rng.uniform(-1, 1) * math.log(3))
    w, h = min(1.0, math.sqrt(area * ratio)), min(1.0, math.sqrt(area / ratio))
    left, top = rng.random() * (1 - w), rng.random() * (1 - h)
    return left, top, left + w, top + h


def covering_crops(space: Space, width: float, height: float, *, share: float) -> tuple[ClipTransform, ...]:
    """The crops that cover a frame of ``width`` x ``height`` px at test time, in the order of :data:`CROPS`.

    Args:
        space: ``centre`` and ``ten`` cut squares of side ``share`` x short side; ``three`` cuts squares of the whole
            short side at the two ends and the middle of the long one; ``whole`` cuts nothing.
        width, height: of the stored grid, or of the region of it that crops are taken from.
        share: side of the network's square over the short side (224 / 256).
    """
    if space == "whole":
        return (ClipTransform(),)
    side = min(width, height) * (1.0 if space == "three" else share)
    if space == "three":
        places = [(p, 0.5) if width >= height else (0.5, p) for p in (0.0, 0.5, 1.0)]
    else:
        corners = [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)]
        places = [*(corners if space == "ten" else []), (0.5, 0.5)]
    return tuple(
        ClipTransform(
            left=x * (width - side) / width,
            top=y * (height - side) / height,
            width=side / width,
            height=side / height,
        )
        for x, y in places
    )
