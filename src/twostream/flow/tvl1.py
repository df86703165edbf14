"""TV-L1 on the CPU: pyramid, warps and presets. Its loops are in ``flow/tvl1_kernels.py``.

The algorithm is the one of the reference, as OpenCV has it, with three additions that presets may use. In order:

- **Images.** Luma as float32 in 0 to 255. With ``texture``, that share of the image's structure is subtracted first:
  the structure is I + c div(q) with c = 255/16 after 20 iterations of FISTA on the dual of the ROF model, step 1/8.
- **Pyramid.** ``"linear"``: a level is the one below it, sampled bilinearly at ``round(side * scale_step)`` px (pixels'
  centres at halves, no smoothing). ``"gaussian"``: OpenCV's ``pyrDown``, halves only. It ends after ``nscales`` levels
  or where a side would have less than 16 px.
- **Start.** The coarsest level starts at zero, each other one at the coarser field, sampled bilinearly and divided by
  ``scale_step``. The dual variables start at zero at every level and live on from warp to warp.
- **Warp.** The second image and its central differences (3 or 5 points, ``derivative``) are sampled at x + u by Keys's
  bicubic kernel with a = -3/4. Beyond the border the border repeats; but where x + u lies outside the frame there is
  no data term. ``blend`` is the share of the first image's own gradient in the gradient that is used.
- **Rounds.** Up to ``outer_iterations`` times: the median filter of u and of v, then up to ``inner_iterations``
  iterations: the thresholding step from u to v, u = v + theta div p, and the dual step p = (p + tau/theta grad u) /
  (1 + tau/theta |grad u|). Differences are forward for gradients, backward for divergences, zero beyond the border.
- **Stop.** After every fifth iteration (:data:`CHECK_EVERY`; OpenCV: after each) the change of the last one is looked
  at: the next warp begins when its mean square is at most epsilon squared. ``epsilon=0`` never looks, so the time is
  the same for all frames of a size. OpenCV's ``gamma``, a term for changes of illumination, is left out: it is 0 in
  every extractor of the field, and ``texture`` does more.

Reference: Zach, Pock, Bischof, *A Duality Based Approach for Realtime TV-L1 Optical Flow*, DAGM 2007; for ``texture``,
``derivative``, ``blend`` and the median: Wedel, Pock, Zach, Bischof, Cremers, *An Improved Algorithm for TV-L1 Optical
Flow*, 2009, and Sun, Roth, Black, *Secrets of Optical Flow Estimation and Their Principles*, CVPR 2010.
"""

import math
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from twostream.flow.contract import MINIMUM_SIDE, Flow, FlowError, Luma, Value, check_pair, check_range

Plane = npt.NDArray[np.float32]
Size = tuple[int, int]

CHECK_EVERY = 5
TEXTURE_ITERATIONS = 20
TEXTURE_COUPLING = 255 / 16

# Rows that one sweep has in use stay within this many bytes, half of a large core's second cache.
_SWEEP_BYTES = 700_000

_REFERENCE: dict[str, Value] = {
    "tau": 0.25,
    "lambda_": 0.15,
    "theta": 0.3,
    "nscales": 5,
    "warps": 5,
    "epsilon": 0.01,
    "inner_iterations": 30,
    "outer_iterations": 10,
    "scale_step": 0.8,
    "median_filtering": 5,
    "pyramid": "linear",
    "texture": 0.0,
    "derivative": 3,
    "blend": 0.0,
}
_PAPERS: dict[str, Value] = {
    "scale_step": 0.5,
    "pyramid": "gaussian",
    "inner_iterations": 300,
    "outer_iterations": 1,
    "median_filtering": 1,
}
_BALANCED: dict[str, Value] = {
    "lambda_": 0.4,
    "nscales": 12,
    "warps": 3,
    "epsilon": 0.0,
    "inner_iterations": 10,
    "outer_iterations": 1,
    "scale_step": 0.7,
    "texture": 0.7,
    "derivative": 5,
    "blend": 0.5,
}
PRESETS: dict[str, dict[str, Value]] = {
    "reference": _REFERENCE,
    "papers": _REFERENCE | _PAPERS,
    "balanced": _REFERENCE | _BALANCED,
    "fast": _REFERENCE | _BALANCED | {"warps": 2, "median_filtering": 3},
}


@dataclass(frozen=True, kw_only=True)
class Tvl1:
    """TV-L1, the project's own: OpenCV's fields in a twentieth of its time, or better ones in an eightieth.

    A quality names all numbers; each can be given on its own as well. ``reference`` has the parameters and defaults of
    OpenCV's TV-L1 and gives its fields, ``papers`` those of the extractor of the papers, OpenCV 2.4's for the GPU.
    ``balanced`` and ``fast`` are points on the measured curve of error against time (``benchmarks/flow.py``).

    Attributes:
        quality: ``"reference"``, ``"papers"``, ``"balanced"`` or ``"fast"``.
        tau: time step of the dual scheme.
        lambda_: weight of the data term; smaller is smoother.
        theta: tightness of the coupling.
        nscales: levels of the pyramid, fewer where a level would have less than 16 px.
        warps: warps per level.
        epsilon: change in px at which a warp ends; 0 makes all iterations.
        inner_iterations, outer_iterations: per warp; a median filter runs before each of the outer ones.
        scale_step: ratio of sizes between levels.
        median_filtering: size of the median filter: 1 (none), 3 or 5.
        pyramid: ``"linear"`` or ``"gaussian"``, see the module.
        texture: share of the image's structure that is subtracted from it, 0 to 1. Shadows and changes of exposure go
            with it; so does what motion there is to see in large smooth areas.
        derivative: points of the central difference, 3 or 5.
        blend: share of the first image's gradient, 0 to 1.
        warm_start: in a sequence, each field starts from the one before, but for every ``warm_start``-th; 0 for none.
    """

    name: ClassVar[str] = "tvl1"

    quality: str = "balanced"
    tau: float | None = None
    lambda_: float | None = None
    theta: float | None = None
    nscales: int | None = None
    warps: int | None = None
    epsilon: float | None = None
    inner_iterations: int | None = None
    outer_iterations: int | None = None
    scale_step: float | None = None
    median_filtering: int | None = None
    pyramid: str | None = None
    texture: float | None = None
    derivative: int | None = None
    blend: float | None = None
    warm_start: int = 0

    def __post_init__(self) -> None:
        if self.quality not in PRESETS:
            raise FlowError(f"the qualities of {self.name} are {', '.join(PRESETS)}; got {self.quality!r}")
        for name, value in PRESETS[self.quality].items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        numbers = self._numbers
        for name in ("tau", "lambda_", "theta"):
            check_range(self.name, name, numbers[name], 1e-6, 1e6)
        for name in ("nscales", "warps", "inner_iterations", "outer_iterations"):
            check_range(self.name, name, numbers[name], 1, 10_000)
        check_range(self.name, "epsilon", numbers["epsilon"], 0, 1e6)
        check_range(self.name, "scale_step", numbers["scale_step"], 0.1, 0.95)
        check_range(self.name, "texture", numbers["texture"], 0, 1)
        check_range(self.name, "blend", numbers["blend"], 0, 1)
        check_range(self.name, "warm_start", self.warm_start, 0, 1_000_000)
        if self.median_filtering not in (1, 3, 5):
            raise FlowError(f"median_filtering of {self.name} is 1, 3 or 5, got {self.median_filtering}")
        if self.derivative not in (3, 5):
            raise FlowError(f"derivative of {self.name} is 3 or 5, got {self.derivative}")
        if self.pyramid not in ("linear", "gaussian"):
            raise FlowError(f"pyramid of {self.name} is linear or gaussian, got {self.pyramid!r}")
        if self.pyramid == "gaussian" and self.scale_step != 0.5:
            raise FlowError(f"pyramid gaussian of {self.name} goes with scale_step 0.5, got {self.scale_step:g}")

    @property
    def _numbers(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def parameters(self) -> dict[str, Value]:
        """See :class:`FlowEstimator`."""
        return self._numbers

    def __call__(self, previous: Luma, following: Luma) -> Flow:
        """See :class:`FlowEstimator`."""
        H, W = check_pair(self.name, previous, following, MINIMUM_SIDE)
        room = _room(self.level_sizes(W, H))
        for frame, luma in zip(room.frames, (previous, following), strict=True):
            self._prepare(frame, luma, room)
        return self._solve(*room.frames, room, None)

    def sequence(self, first: int = 0) -> "Tvl1Sequence":
        """One frame after the other, so that each is prepared once; ``first`` is the first field's number.

        Raises:
            FlowError: ``first`` is not the first of a block of ``warm_start`` fields, so its field would be another.
        """
        if self.warm_start and first % self.warm_start:
            raise FlowError(
                f"with warm_start={self.warm_start}, a sequence can begin at fields 0, {self.warm_start}, "
                f"{2 * self.warm_start}, ..., not at {first}"
            )
        return Tvl1Sequence(self, first)

    def make_ready(self) -> None:
        """Compile the loops, or load them from the cache of compiled code, which the first field would wait for."""
        from twostream.flow import tvl1_kernels  # noqa: F401

    def level_sizes(self, width: int, height: int) -> tuple[Size, ...]:
        """(width, height) of the pyramid's levels, the finest first."""
        numbers = self._numbers
        sizes = [(width, height)]
        while len(sizes) < numbers["nscales"]:
            W, H = sizes[-1]
            if self.pyramid == "gaussian":
                size = (W + 1) // 2, (H + 1) // 2
            else:
                size = round(W * numbers["scale_step"]), round(H * numbers["scale_step"])
            if min(size) < MINIMUM_SIDE:
                break
            sizes.append(size)
        return tuple(sizes)

    def _prepare(self, frame: "_Frame", luma: Luma, room: "_Room") -> None:
        """Fill the frame's pyramid and gradients."""
        from twostream.flow import tvl1_kernels as kernels

        numbers = self._numbers
        finest = frame.images[0]
        np.copyto(finest, luma)
        if numbers["texture"]:
            a = room.zeroed(*room.sizes[0])
            W, H = room.sizes[0]
            kernels.remove_structure(a, finest.reshape(-1), W, H, numbers["texture"], TEXTURE_COUPLING, _MOMENTA)
        for image, coarser in zip(frame.images, frame.images[1:], strict=False):
            if self.pyramid == "gaussian":
                cv2.pyrDown(image, coarser)
            else:
                cv2.resize(image, coarser.shape[::-1], dst=coarser, interpolation=cv2.INTER_LINEAR)
        for image, plane, packed in zip(frame.images, frame.planes, frame.packed, strict=True):
            H, W = image.shape
            kernels.pack(image.reshape(-1), plane, packed, room.buffer, W, H, numbers["derivative"])

    def _solve(self, first: "_Frame", second: "_Frame", room: "_Room", start: Flow | None) -> Flow:
        """The field from one prepared frame to the other, begun at ``start`` or at zero."""
        from twostream.flow import tvl1_kernels as kernels

        n = self._numbers
        enough = n["epsilon"] ** 2 if n["epsilon"] else -1.0
        coarse = None
        for level in range(len(room.sizes) - 1, -1, -1):
            W, H = room.sizes[level]
            a = room.zeroed(W, H)
            field = kernels.field_of(a, W, H)
            if coarse is not None:
                for k in (0, 1):
                    field[k] = cv2.resize(coarse[k], (W, H), interpolation=cv2.INTER_LINEAR)
                field /= np.float32(n["scale_step"])
            elif start is not None:
                full = room.sizes[0]
                for k in (0, 1):
                    field[k] = cv2.resize(start[k], (W, H), interpolation=cv2.INTER_AREA)
                    field[k] *= np.float32((W, H)[k] / full[k])
            row_bytes = 4 * kernels.PLANES * kernels.row_stride(W)
            at_once = CHECK_EVERY if n["epsilon"] else max(CHECK_EVERY, _SWEEP_BYTES // row_bytes)
            kernels.solve(
                a,
                first.planes[level],
                first.packed[level],
                second.packed[level],
                room.buffer,
                n["blend"],
                W,
                H,
                n["warps"],
                n["outer_iterations"],
                n["inner_iterations"],
                at_once,
                n["median_filtering"],
                n["lambda_"] * n["theta"],
                n["theta"],
                n["tau"] / n["theta"],
                enough * H * W,
            )
            coarse = np.ascontiguousarray(field)
        assert coarse is not None
        return coarse


class Tvl1Sequence:
    """The fields of neighbouring frames, bit by bit those of pairs; made by :meth:`Tvl1.sequence`.

    For one thread at a time.
    """

    def __init__(self, estimator: Tvl1, first: int) -> None:
        self._estimator = estimator
        self._number = first
        self._size: Size | None = None
        self._frames: list[_Frame] = []
        self._previous: Luma | None = None
        self._field: Flow | None = None

    def __call__(self, luma: Luma, *, wanted: bool = True) -> Flow | None:
        """See :class:`FlowSequence`."""
        estimator = self._estimator
        H, W = check_pair(estimator.name, luma if self._previous is None else self._previous, luma, MINIMUM_SIDE)
        room = _room(estimator.level_sizes(W, H))
        if not self._frames:
            self._frames = [_Frame(room.sizes) for _ in range(2)]
        self._frames.reverse()
        estimator._prepare(self._frames[1], luma, room)
        is_first, self._previous = self._previous is None, luma
        if is_first:
            return None
        warm = estimator.warm_start
        start = self._field if warm and self._number % warm else None
        self._field = None
        # Within a block a field is the start of the next one, wanted or not.
        if wanted or (warm and (self._number + 1) % warm):
            self._field = estimator._solve(self._frames[0], self._frames[1], room, start)
        self._number += 1
        return self._field if wanted else None


class _Frame:
    """A frame's pyramid: images, the same in rows of whole vectors, and the same with gradients."""

    def __init__(self, sizes: Sequence[Size]) -> None:
        from twostream.flow import tvl1_kernels as kernels

        self.images: list[Plane] = [np.empty((H, W), np.float32) for W, H in sizes]
        self.planes: list[Plane] = [np.zeros(H * kernels.row_stride(W), np.float32) for W, H in sizes]
        self.packed: list[Plane] = [np.empty((H + 3) * (W + 3) * 4, np.float32) for W, H in sizes]


class _Room:
    """A thread's memory for frames of one size."""

    def __init__(self, sizes: tuple[Size, ...]) -> None:
        from twostream.flow import tvl1_kernels as kernels

        self.sizes = sizes
        self.frames = (_Frame(sizes), _Frame(sizes))
        self.buffer: Plane = np.zeros(kernels.buffer_size(sizes[0][0]), np.float32)
        self._level: Plane = np.empty(kernels.level_size(*sizes[0]), np.float32)

    def zeroed(self, width: int, height: int) -> Plane:
        """A level of zeros; all levels take the same memory, one after the other."""
        from twostream.flow import tvl1_kernels as kernels

        level = self._level[: kernels.level_size(width, height)]
        level.fill(0)
        return level


_LOCAL = threading.local()


def _room(sizes: tuple[Size, ...]) -> _Room:
    """This thread's memory; the last two sizes are kept, so that two streams can take turns."""
    rooms: dict[tuple[Size, ...], _Room] = _LOCAL.__dict__.setdefault("rooms", {})
    room = rooms.pop(sizes, None) or _Room(sizes)
    if len(rooms) > 1:
        del rooms[next(iter(rooms))]
    rooms[sizes] = room
    return room


def _momenta(count: int) -> Plane:
    """FISTA's factors."""
    momenta = np.empty(count, np.float32)
    s = 1.0
    for k in range(count):
        following = (1 + math.sqrt(1 + 4 * s * s)) / 2
        momenta[k] = (s - 1) / following
        s = following
    return momenta


_MOMENTA = _momenta(TEXTURE_ITERATIONS)
