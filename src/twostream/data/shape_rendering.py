"""Draws the diagnostic videos: a textured thing on a textured ground, seen by a shaking, noisy camera.

Two properties carry every claim that is tested on these videos; both hold by construction and are tested:

**A single frame does not tell the motion.** A thing has four coordinates: across, down, size and turn. Each runs to and
fro (the turn runs round) from a random phase, so that it has the same distribution in every frame; a motion only says
*which* coordinate runs while the others stay where their own random phase put them. Position, size and turn at any one
frame are thus distributed alike for all motions, nothing ever leaves the picture, and no motion becomes another one in
a mirror, so that horizontal flips may be used in training.

**The flow does not tell the texture.** Textures and the colours of grounds are drawn in chroma at equal luma: all luma
(grain, rim, outline, shading) is drawn from random numbers that know nothing of them. Estimators of optical flow read
luma alone, so they are given the same picture whichever texture a thing has.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Points = npt.NDArray[np.float64]

REFERENCE = 128
"""Short side in px at which the lengths below are given; at other sizes everything scales."""

MOTIONS = ("sideways", "updown", "spinning", "pulsing")
"""Which coordinate runs: across, down, turn, size."""

TEXTURES = ("stripes", "dots", "wedges", "rings")
"""Patterns in two opposite hues, drawn at random for each thing."""

GROUNDS = ("sand", "water", "grass", "clay")
"""Hues of the ground, as (Cb, Cr) below."""

_GROUND_HUES = ((-27.0, 9.0), (27.0, -13.0), (-15.0, -19.0), (-8.0, 26.0))

# With luma between these bounds and chroma up to these amplitudes every colour lies inside RGB, so nothing is clipped
# and the luma that an estimator reads does not depend on the chroma.
_LUMA = (70.0, 185.0)
_CHROMA = (39.0, 48.0)

# BT.601 at full range; float32 rows R, G, B over Y, Cb, Cr.
_TO_RGB = np.array([[1.0, 0.0, 1.402], [1.0, -0.344136, -0.714136], [1.0, 1.772, 0.0]], np.float32)

_RIM = 2.2  # px of dark edge; it makes a thing of what would be a patch of noise
_PULSE = 0.22  # size runs between 1 - this and 1 + this
_DETAIL = 1.25  # patch px per frame px, so that the largest size is not an enlargement
_MARGIN = 8  # px of ground beyond the picture, more than the camera ever shakes


@dataclass(frozen=True)
class Conditions:
    """What makes a video hard to read; lengths in px at the reference size, grey levels of 255.

    Attributes:
        noise: standard deviation of the camera's noise, new in every frame.
        shake: standard deviation of the camera's position.
        grain: standard deviation of a thing's luma texture, which is what an estimator of flow holds on to.
        colour: 0..1, strength of the hues in which textures are drawn.
        clutter: blobs lying on the ground.
        speed: slowest and fastest motion in px per frame.
        spread: sizes vary by up to this share.
        wobble: how far outlines depart from a circle, as a share of the radius.
        flicker: standard deviation of the light, in grey levels.
    """

    noise: float
    shake: float
    grain: float
    colour: float
    clutter: int
    speed: tuple[float, float]
    spread: float
    wobble: float
    flicker: float

    @classmethod
    def at(cls, difficulty: float) -> "Conditions":
        """From clean and strong (0) to noisy, shaking, pale and crowded (1)."""
        d = difficulty
        return cls(
            noise=1.0 + 7.0 * d,
            shake=1.6 * d,
            grain=22.0 - 7.0 * d,
            colour=1.0 - 0.5 * d,
            clutter=round(8 * d),
            speed=(2.4 - 1.0 * d, 2.6 + 1.0 * d),
            spread=0.2 * d,
            wobble=0.04 + 0.06 * d,
            flicker=4.0 * d,
        )


@dataclass(frozen=True)
class Run:
    """A motion that lasts over fields ``start ... stop - 1`` (field k leads from frame k to k + 1)."""

    motion: str
    start: int
    stop: int


@dataclass(frozen=True)
class Role:
    """What the label says about one thing: its texture and when it moves how. All else is chance."""

    texture: str
    runs: tuple[Run, ...] = ()


@dataclass(frozen=True)
class Thing:
    """One object: how it looks and where it is, before any pixel is drawn.

    Shapes: ``outline`` (P, 2) px around the middle at size 1; ``places`` (T, 2) px in the picture without the camera's
    shake; ``sizes`` and ``turns`` (T,).
    """

    role: Role
    outline: Points
    places: Points
    sizes: Points
    turns: Points
    period: float
    hue: float
    slant: float
    luma: float
    grain_seed: int


@dataclass(frozen=True)
class Scene:
    """Everything that a video shows, as numbers; :func:`film` turns it into frames.

    Shapes: ``camera`` (T, 2) px, ``light`` (T,) grey levels.
    """

    width: int
    height: int
    conditions: Conditions
    ground: str
    things: tuple[Thing, ...]
    camera: Points
    light: Points
    ground_seed: int
    noise_seed: int

    @property
    def frames(self) -> int:
        """T, the number of frames."""
        return len(self.light)

    @property
    def unit(self) -> float:
        """Px of this picture per px of the reference size."""
        return min(self.width, self.height) / REFERENCE


def compose(
    roles: tuple[Role, ...],
    ground: str,
    rng: np.random.Generator,
    *,
    size: tuple[int, int],
    frames: int,
    difficulty: float,
) -> Scene:
    """Draw the chance part of a scene around what the label says.

    The numbers taken from ``rng`` are the same whatever the roles' textures, motions and the ground are: the same
    generator and other roles give the same scene with another label.

    Args:
        roles: one thing stands in the middle of the picture; two to four take places of a two by two grid by lot.
        ground: one of :data:`GROUNDS`.
        rng: the source of everything that is not said.
        size: width and height in px.
        frames: T.
        difficulty: 0..1, see :meth:`Conditions.at`.
    """
    width, height = size
    unit = min(size) / REFERENCE
    conditions = Conditions.at(difficulty)
    ground_seed, noise_seed = (int(s) for s in rng.integers(2**63, size=2))
    camera = _shake(rng, frames) * conditions.shake * unit
    light = _shake(rng, frames)[:, 0] * conditions.flicker
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    cells = rng.permutation(4)[: len(roles)]
    things = []
    for role, cell, own in zip(roles, cells, rng.spawn(len(roles)), strict=True):
        if len(roles) == 1:
            radius, reach, room, place = 24.0, 18.0, 62.0, middle
        else:
            radius, reach, room = 15.5, 8.5, 31.0
            place = middle + np.array([31.0 if cell % 2 else -31.0, 31.0 if cell // 2 else -31.0]) * unit
        things.append(_thing(role, own, frames, conditions, unit, radius, reach, room, place))
    return Scene(
        width=width,
        height=height,
        conditions=conditions,
        ground=ground,
        things=tuple(things),
        camera=camera,
        light=light,
        ground_seed=ground_seed,
        noise_seed=noise_seed,
    )


def _thing(
    role: Role,
    rng: np.random.Generator,
    frames: int,
    conditions: Conditions,
    unit: float,
    radius: float,
    reach: float,
    room: float,
    place: Points,
) -> Thing:
    """Lengths in px of the reference size but for ``place``, which is in px of the picture."""
    period = 0.6 * radius
    radius *= 1 + conditions.spread * rng.uniform(-1, 1)
    room -= 2.5 * conditions.shake
    radius = min(radius, (room - reach) / ((1 + _PULSE) * (1 + conditions.wobble)))  # neighbours never touch
    angles = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    shares = rng.uniform(0.3, 1.0, size=3)
    shares *= conditions.wobble / shares.sum()
    waves = sum(s * np.cos(k * angles + p) for k, s, p in zip((2, 3, 5), shares, rng.uniform(0, 6.3, 3), strict=True))
    outline = (radius * (1 + waves))[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1) * unit

    slack = room - reach - radius * (1 + _PULSE) * (1 + conditions.wobble)
    middle = place + rng.uniform(-slack, slack, size=2) * unit
    phases = rng.uniform(size=4)
    # In the small cells the paths are short; full speed there would be a tremor.
    speed = rng.uniform(*conditions.speed, size=4) * (0.75 if reach < 10 else 1.0)
    way = rng.choice([-1.0, 1.0])
    # Share of a period per field: a to and fro of amplitude a at v px per field takes 4 a / v fields; a turn's speed
    # is measured at the edge, and a pulse is slower because the whole edge moves.
    rates = {
        "sideways": speed[0] / (4 * reach),
        "updown": speed[1] / (4 * reach),
        "pulsing": 0.6 * speed[2] / (4 * _PULSE * radius),
        "spinning": way * 0.9 * speed[3] / (2 * np.pi * radius),
    }
    across, down, pulse, turn = (
        phases[n] + rates[motion] * _fields_run(role.runs, motion, frames)
        for n, motion in enumerate(("sideways", "updown", "pulsing", "spinning"))
    )
    return Thing(
        role=role,
        outline=outline,
        places=middle + reach * unit * np.stack([_to_and_fro(across), _to_and_fro(down)], axis=1),
        sizes=1 + _PULSE * _to_and_fro(pulse),
        turns=2 * np.pi * turn,
        period=period * unit,
        hue=float(rng.uniform(0, 2 * np.pi)),
        slant=float(rng.uniform(0, 2 * np.pi)),
        luma=float(rng.uniform(112, 142)),
        grain_seed=int(rng.integers(2**63)),
    )


def _fields_run(runs: tuple[Run, ...], motion: str, frames: int) -> Points:
    """(T,) how many fields of this motion lie before each frame."""
    moving = np.zeros(frames)
    for run in runs:
        if run.motion == motion:
            moving[run.start + 1 : run.stop + 1] = 1  # field k has happened by frame k + 1
    return np.cumsum(moving)


def _to_and_fro(phase: Points) -> Points:
    """A triangle wave of period 1 in -1..1 with its corners rounded."""
    wave: Points = np.arcsin(0.96 * np.sin(2 * np.pi * phase)) / math.asin(0.96)
    return wave


def _shake(rng: np.random.Generator, frames: int) -> Points:
    """(T, 2) a stationary random walk that is pulled back, of standard deviation 1, kept within 2.5."""
    pull = 0.85
    steps = rng.standard_normal((frames, 2)) * math.sqrt(1 - pull**2)
    steps[0] /= math.sqrt(1 - pull**2)
    for t in range(1, frames):
        steps[t] += pull * steps[t - 1]
    return steps.clip(-2.5, 2.5)


def boxes(scene: Scene, thing: Thing) -> Points:
    """(T, 4) left, top, right, bottom of the thing in px from the picture's corner, shake included."""
    cos, sin = np.cos(thing.turns), np.sin(thing.turns)
    x, y = thing.outline[:, 0], thing.outline[:, 1]
    # The half moves from centres of pixels to their edges.
    middle = thing.places - scene.camera + 0.5
    across = thing.sizes[:, None] * (cos[:, None] * x - sin[:, None] * y) + middle[:, :1]  # (T, P)
    down = thing.sizes[:, None] * (sin[:, None] * x + cos[:, None] * y) + middle[:, 1:]
    return np.stack([across.min(1), down.min(1), across.max(1), down.max(1)], axis=1)


def film(scene: Scene) -> npt.NDArray[np.uint8]:
    """(T, H, W, 3) RGB frames."""
    T, H, W = scene.frames, scene.height, scene.width
    margin = math.ceil(_MARGIN * scene.unit)
    ground = _paint_ground(scene, margin)
    patches = [_paint_thing(thing, scene) for thing in scene.things]
    rng = np.random.default_rng(scene.noise_seed)
    # One bank of noise read at random offsets costs a twentieth of new noise for every frame.
    bank = rng.standard_normal((H + 64, W + 64, 3), np.float32) * np.float32(scene.conditions.noise)
    bank[..., 1:] *= 0.4
    offsets = rng.integers(0, 64, size=(T, 2))
    # Bounds for a whole row: three at a time numpy would clip eight times slower.
    lowest = np.tile(np.array([_LUMA[0], *(-c for c in _CHROMA)], np.float32), W)
    highest = np.tile(np.array([_LUMA[1], *_CHROMA], np.float32), W)
    frames = np.empty((T, H, W, 3), np.uint8)
    for t in range(T):
        x, y = scene.camera[t]
        shift = np.array([[1, 0, margin + x], [0, 1, margin + y]])
        picture: Floats = _warp(ground, shift, (W, H))
        for thing, patch in zip(scene.things, patches, strict=True):
            _lay(picture, patch, thing.places[t] - scene.camera[t], float(thing.sizes[t]), float(thing.turns[t]))
        dy, dx = offsets[t]
        picture += bank[dy : dy + H, dx : dx + W]
        picture[..., 0] += np.float32(scene.light[t])
        rows = picture.reshape(H, W * 3)
        np.clip(rows, lowest, highest, out=rows)
        frames[t] = cv2.transform(picture, _TO_RGB) + np.float32(0.5)
    return frames


def _warp(image: Floats, shift: Points, size: tuple[int, int]) -> Any:
    """``shift`` leads from places in the result to places in ``image``."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, shift, size, flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=0)


def _lay(picture: Floats, patch: Floats, place: Points, size: float, turn: float) -> None:
    """Lay a patch (premultiplied Y, Cb, Cr, cover) over the picture, in place."""
    H, W = picture.shape[:2]
    half = patch.shape[0] / 2 / _DETAIL * size
    left, top = (max(0, math.floor(c - half)) for c in place)
    right, bottom = min(W, math.ceil(place[0] + half) + 1), min(H, math.ceil(place[1] + half) + 1)
    scale = _DETAIL / size
    cos, sin = scale * math.cos(turn), scale * math.sin(turn)
    dx, dy = left - place[0], top - place[1]
    centre = (patch.shape[0] - 1) / 2
    shift = np.array([[cos, sin, centre + cos * dx + sin * dy], [-sin, cos, centre - sin * dx + cos * dy]])
    seen = _warp(patch, shift, (right - left, bottom - top))
    region = picture[top:bottom, left:right]
    region *= 1 - seen[..., 3:]
    region += seen[..., :3]


def _grain(rng: np.random.Generator, height: int, width: int, cells: tuple[float, ...]) -> Floats:
    """(H, W) smooth noise of standard deviation about 1, an octave for each size of cell in px."""
    total = np.zeros((height, width), np.float32)
    for cell in cells:
        # Two more than needed, so that the picture's edge shows no edge of the grid.
        small = rng.standard_normal((math.ceil(height / cell) + 2, math.ceil(width / cell) + 2), np.float32)
        shift = np.array([[1 / cell, 0, 0.5], [0, 1 / cell, 0.5]])
        total += cv2.warpAffine(
            small,
            shift,
            (width, height),
            flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT,
        )
    return total * np.float32(1.45 / math.sqrt(len(cells)))


def _paint_ground(scene: Scene, margin: int) -> Floats:
    """(H + 2 margin, W + 2 margin, 3) Y, Cb, Cr."""
    rng = np.random.default_rng(scene.ground_seed)
    unit = scene.unit
    H, W = scene.height + 2 * margin, scene.width + 2 * margin
    ground = np.empty((H, W, 3), np.float32)
    ground[..., 0] = rng.uniform(105, 150) + 13 * _grain(rng, H, W, (3.5 * unit, 8 * unit, 20 * unit))
    strength = 0.85 + 0.3 * _grain(rng, H, W, (24 * unit,))
    hue = np.array(_GROUND_HUES[GROUNDS.index(scene.ground)], np.float32)
    ground[..., 1:] = strength[..., None] * hue + 4 * np.stack([_grain(rng, H, W, (10 * unit,)) for _ in "br"], axis=2)
    for _ in range(scene.conditions.clutter):
        _paint_blob(ground, rng, unit)
    np.clip(ground[..., 0], *_LUMA, out=ground[..., 0])
    for channel, limit in enumerate(_CHROMA, start=1):
        np.clip(ground[..., channel], -limit, limit, out=ground[..., channel])
    return ground


def _paint_blob(ground: Floats, rng: np.random.Generator, unit: float) -> None:
    """One blob of clutter: darker or lighter than the ground, in a hue of its own."""
    H, W = ground.shape[:2]
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    radii = rng.uniform(4, 13) * unit * (1 + 0.25 * np.cos(2 * angles + rng.uniform(0, 6.3)))
    points = np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1) + rng.uniform([0, 0], [W, H])
    mask = np.zeros((H, W), np.uint8)
    cv2.fillPoly(mask, [np.rint(points * 16).astype(np.int32)], (255,), lineType=cv2.LINE_AA, shift=4)
    cover = mask[..., None].astype(np.float32) / 255
    hue = rng.uniform(0, 2 * np.pi)
    tint = [rng.choice([-1, 1]) * rng.uniform(12, 30), 24 * math.cos(hue), 24 * math.sin(hue)]
    ground += cover * np.array(tint, np.float32)


def _paint_thing(thing: Thing, scene: Scene) -> Floats:
    """(P, P, 4) premultiplied Y, Cb, Cr and cover, ``_DETAIL`` px per px of the frame at size 1."""
    rng = np.random.default_rng(thing.grain_seed)
    unit = scene.unit
    edge = np.hypot(thing.outline[:, 0], thing.outline[:, 1])
    side = 2 * math.ceil((edge.max() + 2) * _DETAIL)
    v, u = (np.mgrid[0:side, 0:side] - (side - 1) / 2) / _DETAIL  # px of the frame from the middle, down and across
    distance = np.hypot(u, v)
    angle = np.arctan2(v, u) % (2 * np.pi)
    angles = np.linspace(0, 2 * np.pi, len(edge) + 1)
    inside = np.interp(angle, angles, np.append(edge, edge[0])) - distance  # px to the outline
    cover = np.clip(inside * _DETAIL + 0.5, 0, 1)
    rim = np.clip(inside / (_RIM * unit), 0, 1)
    luma = thing.luma + scene.conditions.grain * _grain(rng, side, side, (3 * _DETAIL * unit, 7 * _DETAIL * unit))
    luma = _LUMA[0] + rim * (np.clip(luma, *_LUMA) - _LUMA[0])
    cos, sin = math.cos(thing.slant), math.sin(thing.slant)
    pattern = _PATTERNS[thing.role.texture](cos * u + sin * v, cos * v - sin * u, thing.period)
    strength = scene.conditions.colour * rim * np.tanh(2.5 * pattern)
    patch = np.stack(
        [luma, strength * _CHROMA[0] * math.cos(thing.hue), strength * _CHROMA[1] * math.sin(thing.hue), cover], axis=2
    )
    patch[..., :3] *= cover[..., None]
    return patch.astype(np.float32)


Pattern = Callable[[Points, Points, float], Points]


def _stripes(u: Points, v: Points, period: float) -> Points:  # noqa: ARG001 - all patterns are called alike
    return np.sin(2 * np.pi * u / period)


def _dots(u: Points, v: Points, period: float) -> Points:
    wave = 2 * np.pi / (1.05 * period)
    return np.cos(wave * u) + np.cos(wave * v) - 0.55


def _wedges(u: Points, v: Points, period: float) -> Points:  # noqa: ARG001
    sectors: Points = 1.5 * np.sin(3 * np.arctan2(v, u))
    return sectors


def _rings(u: Points, v: Points, period: float) -> Points:
    return np.sin(2 * np.pi * np.hypot(u, v) / (1.15 * period))


_PATTERNS: dict[str, Pattern] = {"stripes": _stripes, "dots": _dots, "wedges": _wedges, "rings": _rings}

__all__ = [
    "GROUNDS",
    "MOTIONS",
    "REFERENCE",
    "TEXTURES",
    "Conditions",
    "Role",
    "Run",
    "Scene",
    "Thing",
    "boxes",
    "compose",
    "film",
]
