"""What an optical flow estimator is, and the checks that all of them make.

An estimator answers a pair of frames from the pair alone: no field that it gave before, no frame size that it met
before and no number of threads changes a bit of its answer.
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from twostream.errors import TwostreamError

Luma = npt.NDArray[np.uint8]
Flow = npt.NDArray[np.float32]
Value = bool | int | float | str

# Frames need this many px on either side. It is where OpenCV's TV-L1 ends its pyramid; below it the answers of all
# three are noise, and OpenCV's DIS reads beyond its arrays (segmentation faults from 12 x 40 px downwards).
MINIMUM_SIDE = 16


class FlowError(TwostreamError):
    """Flow that cannot be computed, kept or shown as asked."""


class FlowEstimator(Protocol):
    """A function of two frames, with a name and the numbers it works with.

    Safe to call from several threads at once. Calling it with ``previous`` and ``following``, (H, W) uint8 luma of one
    size, gives (2, H, W) float32: u and v in px, so that the point at (x, y) of ``previous`` is found at (x+u, y+v) of
    ``following``.

    Raises:
        FlowError: frames of another type or shape, of two sizes, or too small.
    """

    @property
    def name(self) -> str:
        """Its key in :data:`twostream.flow.estimators.ESTIMATORS`."""

    @property
    def parameters(self) -> dict[str, Value]:
        """Every number that decides the answer, defaults too; ``create_estimator`` takes them back."""

    def __call__(self, previous: Luma, following: Luma) -> Flow:
        """See the class."""


class FlowSequence(Protocol):
    """The frames of one video in, its fields out; an estimator's ``sequence()`` makes one where it gains by it.

    Fields are bit by bit those of the pairs alone. For one thread at a time; frames must not be changed afterwards.

    Raises:
        FlowError: as :class:`FlowEstimator`; a change of size in mid-stream too.
    """

    def __call__(self, luma: Luma, *, wanted: bool = True) -> Flow | None:
        """The field from the frame before to this one; None for the first frame and where it is not ``wanted``."""


@runtime_checkable
class BatchEstimator(FlowEstimator, Protocol):
    """An estimator that is quick only with many frames at once, as GPUs are.

    Fields are those of the pairs alone, whatever else is in the batch.
    """

    def pairs(self, height: int, width: int) -> int:
        """How many pairs of that size are best computed at once."""

    def fields(self, frames: Sequence[Luma]) -> Flow:
        """The flow between neighbours of T frames of one size: (T-1, 2, H, W)."""


def check_range(name: str, key: str, value: float, lowest: float, highest: float) -> None:
    """Refuse a number outside of its range.

    Raises:
        FlowError: which parameter of which estimator, and the range.
    """
    if not lowest <= value <= highest:
        raise FlowError(f"{key} of {name} must lie in {lowest:g} to {highest:g}, got {value:g}")


def check_pair(name: str, previous: Luma, following: Luma, minimum: int) -> tuple[int, int]:
    """(H, W) of two frames that an estimator can take.

    Raises:
        FlowError: no (H, W) uint8, two sizes, or a side of less than ``minimum`` px.
    """
    for frame in (previous, following):
        if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 2:
            raise FlowError(f"{name} takes luma frames (H, W) uint8, got {what(frame)}")
    H, W = previous.shape
    if following.shape != (H, W):
        raise FlowError(
            f"{name} takes two frames of one size, got {W}x{H} and {following.shape[1]}x{following.shape[0]} px"
        )
    if min(H, W) < minimum:
        raise FlowError(
            f"frames of {W}x{H} px are too small for {name}, which needs {minimum} px on either side; "
            f"resize them first (a short side of {minimum} or more)"
        )
    return H, W


def what(value: Any) -> str:
    """An array by its shape and type, anything else by its class, for messages."""
    return f"{value.shape} {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
