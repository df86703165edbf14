"""What the flow of a store is computed with and kept as."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from twostream.flow.contract import MINIMUM_SIDE, FlowError
from twostream.flow.estimators import create_estimator

CODECS = ("compact", "fast")
PRECISIONS = ("uint8", "float16")
# In place of an estimator, of flow that others computed: nobody knows how.
IMPORTED = "imported"
# The side of the largest square that a store keeps.
MAXIMUM_SIDE = 8192


@dataclass(frozen=True, kw_only=True)
class FlowSettings:
    """What the flow of a store is computed with; all its files share them.

    Attributes:
        estimator: a key of :data:`twostream.flow.estimators.ESTIMATORS`, or ``"imported"``.
        parameters: of the estimator; those left out are filled in with their defaults.
        short_side: of the grid that flow is computed and kept on, in px; None keeps each video's own size.
        fps: common frame rate that frames are chosen by before flow is computed; None keeps each video's own.
        bound: largest motion that can be kept, in px on the grid.
        frames: whether the frames are kept beside the fields, as JPEG on the grid, so that training decodes no video.
        precision: ``"uint8"``, by the rule of :mod:`twostream.flow.quantize`, or ``"float16"``, in px and unclipped,
            more than ten times as large; whoever needs 8 bit gets them from those by the same rule.
        codec: of the fields, lossless either way: ``"compact"``, or ``"fast"``, half again as large and read in two
            thirds of the time. It is a matter of storage, not of content: a store's own codec is used whichever is
            asked for, and files of another codec in it are read like its own.

    Raises:
        FlowError: an unknown estimator or parameter, or a number out of range.
    """

    estimator: str = "tvl1"
    parameters: dict[str, Any] = field(default_factory=dict)
    short_side: int | None = 256
    fps: float | None = None
    bound: float = 20.0
    frames: bool = False
    precision: str = "uint8"
    codec: str = "compact"

    def __post_init__(self) -> None:
        if self.estimator == IMPORTED and self.parameters:
            raise FlowError(f"flow that was imported has no parameters, got {', '.join(self.parameters)}")
        if self.estimator != IMPORTED:
            effective = create_estimator(self.estimator, **self.parameters).parameters
            object.__setattr__(self, "parameters", effective)
        if self.short_side is not None and not (
            _is_whole(self.short_side) and MINIMUM_SIDE <= self.short_side <= MAXIMUM_SIDE
        ):
            raise FlowError(
                f"the short side of the grid must be a whole number of px, {MINIMUM_SIDE} to {MAXIMUM_SIDE} (or none, "
                f"which keeps each video's size), got {self.short_side}"
            )
        if self.fps is not None and not (_is_number(self.fps) and 0 < self.fps <= 1000):
            raise FlowError(f"the common frame rate must lie above 0 and up to 1000 (or be none), got {self.fps}")
        if not (_is_number(self.bound) and self.bound > 0):
            raise FlowError(f"the bound of stored flow must be a number of px above 0, got {self.bound}")
        if not isinstance(self.frames, bool):
            raise FlowError(f"frames is true or false, got {self.frames!r}")
        for name, value, known in (("precision", self.precision, PRECISIONS), ("codec", self.codec, CODECS)):
            if value not in known:
                raise FlowError(f"the {name} of stored flow is {' or '.join(known)}, got {value!r}")
        # 10 and 10.0 must give the same bytes.
        object.__setattr__(self, "bound", float(self.bound))
        if self.fps is not None:
            object.__setattr__(self, "fps", float(self.fps))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON and YAML."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "FlowSettings":
        """The inverse of :meth:`to_dict`; an unknown entry is a :class:`FlowError`."""
        if unknown := sorted(set(values) - {f.name for f in fields(cls)}):
            raise FlowError(f"unknown flow settings {', '.join(unknown)}; perhaps made by a newer version")
        return cls(**values)

    def describe(self) -> str:
        """One line for people."""
        numbers = ", ".join(f"{k}={v}" for k, v in self.parameters.items())
        side = "each video's own size" if self.short_side is None else f"short side {self.short_side}"
        rate = "own frame rate" if self.fps is None else f"{self.fps:g} frames/s"
        kept = "with frames" if self.frames else "without frames"
        kind = "float16, " if self.precision == "float16" else ""
        how = f"{self.estimator} ({numbers})" if numbers else self.estimator
        return f"{how}, {side}, {rate}, bound {self.bound:g} px, {kind}{kept}"

    def content(self) -> dict[str, Any]:
        """All that decides what is read: without the codec."""
        values = self.to_dict()
        del values["codec"]
        return values

    def serves(self, asked: "FlowSettings") -> bool:
        """Whether a store of these settings gives what is asked for: the same content, or frames or float16 unasked."""
        mine, wanted = self.content(), asked.content()
        if self.frames:
            wanted["frames"] = True
        if asked.precision == "uint8":
            wanted["precision"] = self.precision
        return mine == wanted

    def difference(self, asked: "FlowSettings") -> str:
        """The entries whose content differs, as "name: found, not asked"; of one estimator, its parameters too."""
        one, other = self.content(), asked.content()
        # Those of two estimators have nothing to do with each other.
        if self.estimator == asked.estimator:
            one, other = {**one, **self.parameters}, {**other, **asked.parameters}
        names = [name for name in {**one, **other} if name != "parameters" and one.get(name) != other.get(name)]
        return ", ".join(f"{name}: {one.get(name)}, not {other.get(name)}" for name in names)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


__all__ = ["CODECS", "IMPORTED", "MAXIMUM_SIDE", "PRECISIONS", "FlowSettings"]
