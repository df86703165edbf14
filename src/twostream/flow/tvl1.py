"""TV-L1 on the CPU: pyramid, warps and presets; the loops themselves are in ``flow/tvl1_kernels.py``.

Reference: Zach, Pock, Bischof, *A Duality Based Approach for Realtime TV-L1 Optical Flow*, DAGM 2007.
"""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from twostream.flow.contract import MINIMUM_SIDE, Flow, FlowError, Luma, Value, check_pair, check_range

# Iterations between two looks at the change; each look costs a sweep of its own through memory.
CHECK_EVERY = 5

Plane = npt.NDArray[np.float32]

_OPENCV: dict[str, Any] = {
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
}
PRESETS: dict[str, dict[str, Any]] = {
    "reference": _OPENCV,
    "papers": _OPENCV | {"inner_iterations": 300, "outer_iterations": 1, "median_filtering": 1},
    "balanced": _OPENCV
    | {"scale_step": 0.5, "warps": 5, "epsilon": 0.0, "inner_iterations": 10, "outer_iterations": 1},
    "fast": _OPENCV | {"scale_step": 0.5, "warps": 3, "epsilon": 0.0, "inner_iterations": 8, "outer_iterations": 1},
}


@dataclass(frozen=True, kw_only=True)
class Tvl1:
    """TV-L1, the project's own."""

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

    def __post_init__(self) -> None:
        if self.quality not in PRESETS:
            raise FlowError(f"the qualities of tvl1 are {', '.join(PRESETS)}; got {self.quality!r}")
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
        if self.median_filtering not in (1, 3, 5):
            raise FlowError(f"median_filtering of {self.name} is 1, 3 or 5, got {self.median_filtering}")

    @property
    def _numbers(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def parameters(self) -> dict[str, Value]:
        """See :class:`FlowEstimator`."""
        return self._numbers

    def __call__(self, previous: Luma, following: Luma) -> Flow:
        """See :class:`FlowEstimator`."""
        check_pair(self.name, previous, following, MINIMUM_SIDE)
        return self._solve(self._pyramid(previous), self._pyramid(following))

    def _pyramid(self, luma: Luma) -> list[Plane]:
        numbers = self._numbers
        levels = [luma.astype(np.float32)]
        for _ in range(1, numbers["nscales"]):
            H, W = levels[-1].shape
            size = round(W * numbers["scale_step"]), round(H * numbers["scale_step"])
            if min(size) < MINIMUM_SIDE:
                break
            levels.append(cv2.resize(levels[-1], size, interpolation=cv2.INTER_LINEAR))
        return levels

    def _solve(self, first: list[Plane], second: list[Plane]) -> Flow:
        # Numba takes a second to import, which commands without flow should not.
        from twostream.flow import tvl1_kernels as kernels

        n = self._numbers
        u = v = None
        for level in range(len(first) - 1, -1, -1):
            H, W = first[level].shape
            stride = (W + 15) // 16 * 16 + 16
            a = np.zeros((H + 2) * kernels.PLANES * stride, np.float32)
            planes = a.reshape(H + 2, kernels.PLANES, stride)[1 : H + 1, :, 16 : 16 + W]
            packed = np.empty((H + 3) * (W + 3) * 4, np.float32)
            kernels.pack(second[level], packed)
            buffer = np.zeros(16 * (stride + 16), np.float32)
            buffer[13 * stride : 14 * stride] = np.arange(stride)
            if u is not None:
                planes[:, 0] = cv2.resize(u, (W, H), interpolation=cv2.INTER_LINEAR) / n["scale_step"]
                planes[:, 1] = cv2.resize(v, (W, H), interpolation=cv2.INTER_LINEAR) / n["scale_step"]
            enough = n["epsilon"] ** 2 * H * W if n["epsilon"] else -1.0
            kernels.solve(
                a, first[level], packed, buffer, W, H, n["warps"], n["outer_iterations"], n["inner_iterations"], CHECK_EVERY,
                n["median_filtering"], n["lambda_"] * n["theta"], n["theta"], n["tau"] / n["theta"], enough,
            )  # fmt: skip
            u, v = np.ascontiguousarray(planes[:, 0]), np.ascontiguousarray(planes[:, 1])
        return np.stack([u, v])
