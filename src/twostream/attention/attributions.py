"""Attributions as numbers: what in the frames and in the flow spoke for a class, and what against it; their file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from twostream.attention.archive import load_arrays, save_arrays
from twostream.attention.tracks import Box, FloatArray
from twostream.errors import TwostreamError

FORMAT = "twostream-attribution-1"

Method = Literal["gradcam", "integrated_gradients"]
METHODS: tuple[Method, ...] = get_args(Method)
TITLES: Mapping[Method, str] = {"gradcam": "Grad-CAM", "integrated_gradients": "Integrated gradients"}

SHOWN = "as shown"
"""The key of the logits of a clip as it is; the others are ``without`` and a stream, or both."""


class AttributionError(TwostreamError):
    """A file of attributions that is missing, damaged or foreign."""


def without(*streams: str) -> str:
    """The key of the logits where these streams were silenced."""
    return f"without {' and '.join(streams)}"


@dataclass(frozen=True, kw_only=True, eq=False)
class StreamMaps:
    """What one stream of a video held for and against a class, at M steps, in h x w places.

    Attributes:
        maps: (M, h, w) float32, in logits of the class: above zero for it, below against it.
        seconds: (M,) times: of the frames, or of the middles of the stacks of flow.
        xs, ys: (w,) and (h,), the places as shares of the frame's width and height, rising.
    """

    maps: npt.NDArray[np.float32]
    seconds: FloatArray
    xs: FloatArray
    ys: FloatArray

    def __post_init__(self) -> None:
        M, h, w = self.maps.shape if self.maps.ndim == 3 else (0, 0, 0)
        shapes = self.seconds.shape, self.ys.shape, self.xs.shape
        if shapes != ((M,), (h,), (w,)) or not self.maps.size:
            raise AttributionError(
                f"attributions are (steps, rows, columns) with a time for each step and a place for each row and "
                f"column, got {self.maps.shape} with {shapes}"
            )
        if not np.isfinite(self.maps).all():
            raise AttributionError("attributions are finite numbers")

    def __len__(self) -> int:
        return len(self.maps)

    @property
    def total(self) -> float:
        """The sum over steps and places."""
        return float(self.maps.sum(dtype=np.float64))

    def levels(self) -> npt.NDArray[np.float32]:
        """(M, h, w) from -1 to 1, which the strongest hundredth of the places of all steps reach."""
        most = np.quantile(np.abs(self.maps), 0.99)
        found: npt.NDArray[np.float32] = np.clip(self.maps / most, -1, 1) if most > 0 else np.sign(self.maps)
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Attribution:
    """What spoke for and against one class in a video.

    Attributes:
        streams: the maps of each stream that the network reads.
        label: index of the class that is asked about.
        logits: (K,) by how it was shown: :data:`SHOWN`, and with streams silenced (:func:`without`): frames all of the
            mean colour, flow without motion.
        complete: whether the maps add up to the difference that the streams make to the class's logit.
        seen: the part of the frame that the network was shown, as shares of width and height.
    """

    streams: Mapping[str, StreamMaps]
    label: int
    logits: Mapping[str, FloatArray]
    complete: bool = False
    seen: Box = (0.0, 0.0, 1.0, 1.0)

    @property
    def difference(self) -> float:
        """The class's logit as shown less that with all streams silenced."""
        return self.logit(SHOWN) - self.logit(without(*self.streams))

    @property
    def total(self) -> float:
        """The sum of all maps; where they are complete, it is nearly the :attr:`difference`."""
        return sum(maps.total for maps in self.streams.values())

    def logit(self, shown: str) -> float:
        """The class's own."""
        return float(self.logits[shown][self.label])

    def probability(self, shown: str, label: int) -> float:
        """Of a class, by the softmax of these logits."""
        values = self.logits[shown] - self.logits[shown].max()
        return float(np.exp(values[label]) / np.exp(values).sum())


@dataclass(frozen=True, kw_only=True, eq=False)
class AttributionFile:
    """Attributions of a network on some videos, as ``RUN/explain/<method>-<part>.npz`` holds them.

    Attributes:
        videos: by the videos' names.
        classes: the K names.
        meta: method, model, ``weights`` (their SHA-256), part and whatever else says where this is from; JSON values.
    """

    videos: Mapping[str, Attribution]
    classes: tuple[str, ...]
    meta: Mapping[str, Any] = field(default_factory=dict)

    def save(self, path: Path | str) -> None:
        """Write one ``.npz`` file, whole or not at all, with a checksum of the arrays inside.

        Raises:
            OutputError: it cannot be written.
        """
        arrays: dict[str, npt.NDArray[Any]] = {}
        listed = []
        for n, (name, found) in enumerate(self.videos.items()):
            arrays[f"seen/{n}"] = np.array(found.seen)
            arrays[f"logits/{n}"] = np.stack(list(found.logits.values()))
            for stream, maps in found.streams.items():
                for part in ("maps", "seconds", "xs", "ys"):
                    arrays[f"{stream}/{part}/{n}"] = getattr(maps, part)
            entry = {
                "video": name,
                "label": found.label,
                "class": self.classes[found.label],
                "complete": found.complete,
            }
            listed.append(entry | {"streams": list(found.streams), "logits": list(found.logits)})
        header = {"videos": listed, "classes": list(self.classes), "meta": dict(self.meta)}
        save_arrays(path, FORMAT, arrays, header)

    @classmethod
    def load(cls, path: Path | str) -> "AttributionFile":
        """Read what :meth:`save` wrote.

        Raises:
            AttributionError: no such file, not one of attributions, or its checksum does not match.
        """
        try:
            arrays, header = load_arrays(path, FORMAT, AttributionError, what="attributions")
        except FileNotFoundError as error:
            raise AttributionError(f"{path}: no such file; make it with: twostream explain RUN") from error
        try:
            videos = {str(entry["video"]): _attribution(arrays, n, entry) for n, entry in enumerate(header["videos"])}
            return cls(videos=videos, classes=tuple(map(str, header["classes"])), meta=dict(header["meta"]))
        except (AttributionError, LookupError, TypeError, ValueError) as error:
            raise AttributionError(f"{path}: not a file of attributions ({error})") from error


def _attribution(arrays: Mapping[str, npt.NDArray[Any]], n: int, entry: Mapping[str, Any]) -> Attribution:
    left, top, right, bottom = arrays[f"seen/{n}"].tolist()
    return Attribution(
        streams={
            str(stream): StreamMaps(
                **{part: arrays[f"{stream}/{part}/{n}"] for part in ("maps", "seconds", "xs", "ys")}
            )
            for stream in entry["streams"]
        },
        label=int(entry["label"]),
        logits=dict(zip(map(str, entry["logits"]), arrays[f"logits/{n}"], strict=True)),
        complete=bool(entry["complete"]),
        seen=(left, top, right, bottom),
    )


__all__ = [
    "FORMAT",
    "METHODS",
    "SHOWN",
    "TITLES",
    "Attribution",
    "AttributionError",
    "AttributionFile",
    "Method",
    "StreamMaps",
    "without",
]
