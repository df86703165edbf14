"""OpenCV's three estimators behind the contract of ``flow/contract.py``, and the registry that names all of them."""

import inspect
import math
import types
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Union, get_args, get_origin, get_type_hints

import cv2
import numpy as np

from twostream.flow.contract import (
    MINIMUM_SIDE,
    BatchEstimator,
    Flow,
    FlowError,
    FlowEstimator,
    FlowSequence,
    Luma,
    Value,
    check_pair,
    check_range,
    what,
)
from twostream.flow.tvl1 import Tvl1

# OpenCV's presets, spelled out so that another version of OpenCV with other defaults computes the same.
_DIS_SHARED: dict[str, Value] = {
    "patch_size": 8,
    "variational_refinement_alpha": 20.0,
    "variational_refinement_gamma": 10.0,
    "variational_refinement_delta": 5.0,
    "use_mean_normalization": True,
    "use_spatial_propagation": True,
}
_DIS_OWN: dict[str, tuple[int, int, int, int]] = {
    # finest_scale, patch_stride, gradient_descent_iterations, variational_refinement_iterations
    "ultrafast": (2, 4, 12, 0),
    "fast": (2, 4, 16, 5),
    "medium": (1, 3, 25, 5),
}


@dataclass(frozen=True, kw_only=True)
class Dis:
    """Dense inverse search, OpenCV's implementation: by far the fastest of the three, and good at small motion.

    A preset names all numbers; each can be given on its own as well.

    Attributes:
        preset: ``"ultrafast"``, ``"fast"`` or ``"medium"``.
        finest_scale: level of the pyramid where the search ends, 0 is full size. Frames so small that their coarsest
            level is below that end at their coarsest level (OpenCV would instead change its settings for good, which
            makes it depend on what it saw before, or crash).
        patch_size: side of a patch in px; frames need twice that on either side.
        patch_stride: px between patches, at most ``patch_size``.
        gradient_descent_iterations: per patch.
        variational_refinement_iterations: fixed-point iterations per level; 0 turns the refinement off.
        variational_refinement_alpha, variational_refinement_gamma, variational_refinement_delta: weights of its
            smoothness, gradient constancy and colour constancy.
        use_mean_normalization: patches are compared without their mean, which makes them robust to lighting.
        use_spatial_propagation: patches take over better candidates from their neighbours.

    Reference: Kroeger, Timofte, Dai, Van Gool, *Fast Optical Flow using Dense Inverse Search*, ECCV 2016.
    """

    name: ClassVar[str] = "dis"

    preset: str = "medium"
    finest_scale: int | None = None
    patch_size: int | None = None
    patch_stride: int | None = None
    gradient_descent_iterations: int | None = None
    variational_refinement_iterations: int | None = None
    variational_refinement_alpha: float | None = None
    variational_refinement_gamma: float | None = None
    variational_refinement_delta: float | None = None
    use_mean_normalization: bool | None = None
    use_spatial_propagation: bool | None = None

    def __post_init__(self) -> None:
        if self.preset not in _DIS_OWN:
            raise FlowError(f"the presets of dis are {', '.join(_DIS_OWN)}; got {self.preset!r}")
        finest, stride, descent, refinement = _DIS_OWN[self.preset]
        defaults = _DIS_SHARED | {
            "finest_scale": finest,
            "patch_stride": stride,
            "gradient_descent_iterations": descent,
            "variational_refinement_iterations": refinement,
        }
        for name, value in defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        numbers = self._numbers
        check_range(self.name, "finest_scale", numbers["finest_scale"], 0, 10)
        check_range(self.name, "patch_size", numbers["patch_size"], 4, 64)
        # A wider stride leaves gaps between patches, and OpenCV reads beyond its arrays.
        check_range(self.name, "patch_stride", numbers["patch_stride"], 1, numbers["patch_size"])
        check_range(self.name, "gradient_descent_iterations", numbers["gradient_descent_iterations"], 1, 10_000)
        for name in ("iterations", "alpha", "gamma", "delta"):
            name = f"variational_refinement_{name}"
            check_range(self.name, name, numbers[name], 0, 10_000)

    @property
    def _numbers(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def parameters(self) -> dict[str, Value]:
        """See :class:`FlowEstimator`."""
        return self._numbers

    def __call__(self, previous: Luma, following: Luma) -> Flow:
        """See :class:`FlowEstimator`."""
        numbers = self._numbers
        patch = numbers["patch_size"]
        H, W = check_pair(self.name, previous, following, max(MINIMUM_SIDE, 2 * patch))
        # As OpenCV computes it.
        coarsest = min(int(math.log2(max(H, W) / (4 * patch)) + 0.5), int(math.log2(min(H, W) / patch)))
        # With an array in place of None, OpenCV would start from what is in it.
        search: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        search.setFinestScale(min(numbers["finest_scale"], coarsest))
        search.setPatchSize(patch)
        search.setPatchStride(numbers["patch_stride"])
        search.setGradientDescentIterations(numbers["gradient_descent_iterations"])
        search.setVariationalRefinementIterations(numbers["variational_refinement_iterations"])
        search.setVariationalRefinementAlpha(numbers["variational_refinement_alpha"])
        search.setVariationalRefinementGamma(numbers["variational_refinement_gamma"])
        search.setVariationalRefinementDelta(numbers["variational_refinement_delta"])
        search.setUseMeanNormalization(numbers["use_mean_normalization"])
        search.setUseSpatialPropagation(numbers["use_spatial_propagation"])
        return _planes(search.calc(previous, following, None))


@dataclass(frozen=True, kw_only=True)
class OpenCvTvl1:
    """TV-L1, OpenCV's implementation with its parameters and defaults: what the papers' flow was made with, and slow.

    Attributes:
        tau: time step of the dual scheme.
        lambda_: weight of the data term; smaller is smoother.
        theta: tightness of the coupling.
        nscales: levels of the pyramid, fewer where a level would have less than 16 px.
        warps: warps per level.
        epsilon: change at which the iterations stop.
        inner_iterations, outer_iterations: per warp; a median filter runs between the outer ones.
        scale_step: ratio of sizes between levels.
        gamma: weight of a term for changes of illumination; 0 leaves it out.
        median_filtering: size of the median filter: 1 (none), 3 or 5.

    Reference: Zach, Pock, Bischof, *A Duality Based Approach for Realtime TV-L1 Optical Flow*, DAGM 2007.
    """

    name: ClassVar[str] = "tvl1-opencv"

    tau: float = 0.25
    lambda_: float = 0.15
    theta: float = 0.3
    nscales: int = 5
    warps: int = 5
    epsilon: float = 0.01
    inner_iterations: int = 30
    outer_iterations: int = 10
    scale_step: float = 0.8
    gamma: float = 0.0
    median_filtering: int = 5

    def __post_init__(self) -> None:
        for name in ("tau", "lambda_", "theta"):
            check_range(self.name, name, getattr(self, name), 1e-6, 1e6)
        for name in ("nscales", "warps", "inner_iterations", "outer_iterations"):
            check_range(self.name, name, getattr(self, name), 1, 10_000)
        for name in ("epsilon", "gamma"):
            check_range(self.name, name, getattr(self, name), 0, 1e6)
        check_range(self.name, "scale_step", self.scale_step, 0.1, 0.95)
        if self.median_filtering not in (1, 3, 5):
            raise FlowError(f"median_filtering of {self.name} is 1, 3 or 5, got {self.median_filtering}")

    @property
    def parameters(self) -> dict[str, Value]:
        """See :class:`FlowEstimator`."""
        return asdict(self)

    def __call__(self, previous: Luma, following: Luma) -> Flow:
        """See :class:`FlowEstimator`."""
        check_pair(self.name, previous, following, MINIMUM_SIDE)
        # Made anew for each pair: one that met a small frame keeps the smaller number of levels from then on.
        method: Any = cv2.optflow.DualTVL1OpticalFlow.create(
            self.tau,
            self.lambda_,
            self.theta,
            self.nscales,
            self.warps,
            self.epsilon,
            self.inner_iterations,
            self.outer_iterations,
            self.scale_step,
            self.gamma,
            self.median_filtering,
            False,
        )
        return _planes(method.calc(previous, following, None))


@dataclass(frozen=True, kw_only=True)
class Farneback:
    """Polynomial expansion, OpenCV's implementation; the defaults are those of OpenCV's own examples.

    Attributes:
        pyr_scale: ratio of sizes between levels of the pyramid.
        levels: number of levels above the full size, fewer where a level would have less than 32 px.
        winsize: side of the averaging window in px.
        iterations: per level.
        poly_n: size of the neighbourhood of the expansion: 5 or 7.
        poly_sigma: its Gaussian's standard deviation.

    Reference: Farnebäck, *Two-Frame Motion Estimation Based on Polynomial Expansion*, SCIA 2003.
    """

    name: ClassVar[str] = "farneback"

    pyr_scale: float = 0.5
    levels: int = 3
    winsize: int = 15
    iterations: int = 3
    poly_n: int = 5
    poly_sigma: float = 1.2

    def __post_init__(self) -> None:
        check_range(self.name, "pyr_scale", self.pyr_scale, 0.1, 0.95)
        check_range(self.name, "levels", self.levels, 0, 20)
        check_range(self.name, "winsize", self.winsize, 1, 1000)
        check_range(self.name, "iterations", self.iterations, 1, 10_000)
        check_range(self.name, "poly_sigma", self.poly_sigma, 0.1, 100)
        if self.poly_n not in (5, 7):
            raise FlowError(f"poly_n of {self.name} is 5 or 7, got {self.poly_n}")

    @property
    def parameters(self) -> dict[str, Value]:
        """See :class:`FlowEstimator`."""
        return asdict(self)

    def __call__(self, previous: Luma, following: Luma) -> Flow:
        """See :class:`FlowEstimator`."""
        H, W = check_pair(self.name, previous, following, MINIMUM_SIDE)
        flow = cv2.calcOpticalFlowFarneback(
            previous,
            following,
            np.empty((H, W, 2), np.float32),
            self.pyr_scale,
            self.levels,
            self.winsize,
            self.iterations,
            self.poly_n,
            self.poly_sigma,
            0,
        )
        return _planes(flow)


ESTIMATORS: dict[str, Callable[..., FlowEstimator]] = {
    "tvl1": Tvl1,
    "dis": Dis,
    "tvl1-opencv": OpenCvTvl1,
    "farneback": Farneback,
}


def create_estimator(name: str, *, device: str = "cpu", **parameters: Any) -> FlowEstimator:
    """The estimator of that name, with some of its parameters changed.

    Args:
        name: a key of :data:`ESTIMATORS`.
        device: ``"cpu"``, or for ``"tvl1"`` a device of torch such as ``"cuda"``: then it is a
            :class:`~twostream.flow.contract.BatchEstimator` whose fields differ from the CPU's by rounding, and whose
            parameters do not.
        parameters: of the estimator.

    Raises:
        FlowError: an unknown name or parameter (the known ones are listed), a value of another type or range, or a
            device that is not there or that the estimator cannot use.
    """
    if name not in ESTIMATORS:
        raise FlowError(f"no flow estimator is called {name!r}; there are: {', '.join(ESTIMATORS)}")
    factory = ESTIMATORS[name]
    known = list(inspect.signature(factory).parameters)
    if unknown := sorted(set(parameters) - set(known)):
        raise FlowError(f"{name} has no parameter {', '.join(unknown)}; it has: {', '.join(known)}")
    hints = get_type_hints(factory)
    estimator = factory(**{key: _converted(name, key, value, hints[key]) for key, value in parameters.items()})
    if device == "cpu":
        return estimator
    if not isinstance(estimator, Tvl1):
        raise FlowError(f"{name} is computed by the CPU, not on {device!r}; {Tvl1.name} can be")
    # Torch takes a second to import, which flow on the CPU need not wait for.
    from twostream.flow.tvl1_torch import Tvl1Torch

    return Tvl1Torch(estimator, device)


def flow_sequence(estimator: FlowEstimator, *, first: int = 0) -> FlowSequence:
    """The way from the frames of a video to its fields that each estimator is fastest in.

    Args:
        estimator: any.
        first: number of the first field, for estimators whose fields depend on their place in the video.

    Raises:
        FlowError: such an estimator cannot begin at ``first``.
    """
    if make := getattr(estimator, "sequence", None):
        sequence: FlowSequence = make(first)
        return sequence
    return _Pairs(estimator)


def make_ready(estimator: FlowEstimator) -> None:
    """Do what the first field would wait for: seconds of compiling, where there is no compiled code yet.

    To be called before time is measured, and before several processes start that would each do it.

    Raises:
        FlowError: it cannot be done.
    """
    if prepare := getattr(estimator, "make_ready", None):
        prepare()


class _Pairs:
    """A sequence for estimators that have none."""

    def __init__(self, estimator: FlowEstimator) -> None:
        self._estimator = estimator
        self._previous: Luma | None = None

    def __call__(self, luma: Luma, *, wanted: bool = True) -> Flow | None:
        previous, self._previous = self._previous, luma
        return self._estimator(previous, luma) if wanted and previous is not None else None


def compute(frames: Luma, *, estimator: str = "tvl1", device: str = "cpu", **parameters: Any) -> Flow:
    """The flow between neighbouring frames: (T, H, W) uint8 luma to (T-1, 2, H, W) float32, u and v in px.

    ``quality`` is the first parameter of ``"tvl1"`` to try: ``"reference"``, ``"papers"``, ``"balanced"``, ``"fast"``.

    ``device`` is where: see :func:`create_estimator`.

    Raises:
        FlowError: see :func:`create_estimator` and :class:`FlowEstimator`.
    """
    estimate = create_estimator(estimator, device=device, **parameters)
    if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8 or frames.ndim != 3 or len(frames) < 1:
        raise FlowError(f"frames must be (T, H, W) uint8 luma with T >= 1, got {what(frames)}")
    if isinstance(estimate, BatchEstimator):
        return estimate.fields(list(frames))
    T, H, W = frames.shape
    fields = np.empty((T - 1, 2, H, W), np.float32)
    step = flow_sequence(estimate)
    for k in range(T):
        field = step(frames[k])
        if field is not None:
            fields[k - 1] = field
    return fields


def _converted(name: str, key: str, value: Any, hint: Any) -> Value:
    """``value`` as the type that the parameter has; files and command lines write 1 for 1.0."""
    kinds = set(get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)) - {types.NoneType}
    if bool in kinds and isinstance(value, bool):
        return value
    if str in kinds and isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        if int in kinds and value == int(value):
            return int(value)
        if float in kinds:
            return float(value)
    wanted = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}
    raise FlowError(f"{key} of {name} is {wanted[kinds.pop()]}, got {value!r}")


def _planes(flow: Any) -> Flow:
    """(H, W, 2) as OpenCV gives it to (2, H, W)."""
    return np.ascontiguousarray(np.moveaxis(np.asarray(flow, np.float32), 2, 0))


__all__ = [
    "ESTIMATORS",
    "MINIMUM_SIDE",
    "Dis",
    "Farneback",
    "FlowError",
    "FlowEstimator",
    "FlowSequence",
    "OpenCvTvl1",
    "Tvl1",
    "compute",
    "create_estimator",
    "flow_sequence",
    "make_ready",
]
