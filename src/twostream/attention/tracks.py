"""Attention along videos as numbers: how much of it each part of the frame gets, how concentrated it is; its file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from twostream.attention.archive import load_arrays, save_arrays
from twostream.errors import TwostreamError

FORMAT = "twostream-attention-1"

FloatArray = npt.NDArray[np.float64]
# left, top, right, bottom
Box = tuple[float, float, float, float]


class AttentionError(TwostreamError):
    """A file of attention that is missing, damaged or foreign."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Inside:
    """Attention inside given boxes, for each of M moments; NaN where there is no box.

    Attributes:
        mass: (M,) share of the attention that lies inside.
        even: (M,) share that would, if every cell had the same.
        area: (M,) the boxes' share of what the network saw.
    """

    mass: FloatArray
    even: FloatArray
    area: FloatArray


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionTrack:
    """Where a network looked in one video, at M moments; its map has h x w cells.

    Attributes:
        weights: (M, h, w) float32, each summing to 1.
        seconds: (M,) times of the frames it was shown.
        xs, ys: (w,) and (h,), the middles of the cells as shares of the frame's width and height, rising.
        seen: the part of the frame that it was shown, as shares of width and height.
        inside: how much lay on what moves, where the truth is known.
    """

    weights: npt.NDArray[np.float32]
    seconds: FloatArray
    xs: FloatArray
    ys: FloatArray
    seen: Box = (0.0, 0.0, 1.0, 1.0)
    inside: Inside | None = None

    def __post_init__(self) -> None:
        M, h, w = self.weights.shape if self.weights.ndim == 3 else (0, 0, 0)
        shapes = self.seconds.shape, self.ys.shape, self.xs.shape
        if shapes != ((M,), (h,), (w,)) or not self.weights.size:
            raise AttentionError(
                f"attention is (moments, rows, columns) with a time for each moment and a place for each row and "
                f"column, got {self.weights.shape} with {shapes}"
            )
        if not np.allclose(self.weights.sum((1, 2)), 1, atol=1e-3) or self.weights.min() < 0:
            raise AttentionError("attention is shares of one: at least 0, and 1 in all at every moment")

    def __len__(self) -> int:
        return len(self.weights)

    def nearest(self, second: float) -> int:
        """The moment that lies nearest to a time."""
        return int(np.abs(self.seconds - second).argmin())

    def ratios(self) -> npt.NDArray[np.float32]:
        """(M, h, w): how many times as much as if every cell had the same."""
        _, h, w = self.weights.shape
        return self.weights * np.float32(h * w)

    def borders(self) -> tuple[FloatArray, FloatArray]:
        """The borders of the tiles around the cells: across (w + 1,) and down (h + 1,), as shares of the frame."""
        left, top, right, bottom = self.seen
        return _borders(self.xs, left, right), _borders(self.ys, top, bottom)

    def concentration(self) -> FloatArray:
        """(M,): the smallest share of the cells that holds half of the attention; 0.5 where it is even."""
        weights = -np.sort(-self.weights.reshape(len(self), -1).astype(np.float64), axis=1)
        held = np.concatenate([np.zeros((len(self), 1)), weights.cumsum(axis=1)], axis=1)
        cells = np.linspace(0, 1, held.shape[1])
        return np.array([np.interp(of_moment[-1] / 2, of_moment, cells) for of_moment in held])

    def inside_boxes(self, boxes: list[list[Box]]) -> Inside:
        """How much of the attention lies in boxes, given for each moment as shares of the frame; they may overlap.

        The weight of a cell is spread evenly over its tile. What lies outside of what was seen does not count.
        """
        across, down = self.borders()
        columns, rows = _fine(across), _fine(down)
        # Of every fine cell the tile it lies in, and its share of that tile.
        c = np.searchsorted(across, (columns[:-1] + columns[1:]) / 2) - 1
        r = np.searchsorted(down, (rows[:-1] + rows[1:]) / 2) - 1
        part = np.outer(np.diff(rows) / np.diff(down)[r], np.diff(columns) / np.diff(across)[c])
        area = np.outer(np.diff(rows), np.diff(columns))
        area /= area.sum()
        even = part / self.weights[0].size
        found = np.full((3, len(self)), np.nan)
        for m, of_moment in enumerate(boxes):
            if not of_moment:
                continue
            outside = np.ones_like(part)
            for left, top, right, bottom in of_moment:
                outside *= 1 - np.outer(_covered(rows, top, bottom), _covered(columns, left, right))
            density = part * self.weights[m].astype(np.float64)[np.ix_(r, c)]
            found[:, m] = [float((shares * (1 - outside)).sum()) for shares in (density, even, area)]
        return Inside(mass=found[0], even=found[1], area=found[2])


def _borders(middles: FloatArray, first: float, last: float) -> FloatArray:
    return np.concatenate([[first], (middles[:-1] + middles[1:]) / 2, [last]])


def _fine(borders: FloatArray) -> FloatArray:
    """The borders with 32 steps in each tile, so that overlapping boxes may be counted cell by cell."""
    steps = np.arange(32) / 32
    inner = borders[:-1, None] + steps * np.diff(borders)[:, None]
    return np.append(inner.ravel(), borders[-1])


def _covered(borders: FloatArray, first: float, last: float) -> FloatArray:
    """Of each stretch between borders the share that lies between ``first`` and ``last``."""
    overlap = np.minimum(borders[1:], last) - np.maximum(borders[:-1], first)
    covered: FloatArray = np.clip(overlap / np.diff(borders), 0, 1)
    return covered


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionFile:
    """Attention of a network on some videos, as ``RUN/explain/attention-<part>.npz`` holds it.

    Attributes:
        tracks: by the videos' names.
        meta: part, split, model, ``weights`` (their SHA-256) and whatever else says where this came from; JSON values.
    """

    tracks: Mapping[str, AttentionTrack]
    meta: Mapping[str, Any] = field(default_factory=dict)

    def save(self, path: Path | str) -> None:
        """Write one ``.npz`` file, whole or not at all, with a checksum of the arrays inside.

        Raises:
            OutputError: it cannot be written.
        """
        arrays: dict[str, npt.NDArray[Any]] = {}
        for n, track in enumerate(self.tracks.values()):
            for name in ("weights", "seconds", "xs", "ys"):
                arrays[f"{name}/{n}"] = getattr(track, name)
            arrays[f"seen/{n}"] = np.array(track.seen)
            if track.inside is not None:
                arrays[f"inside/{n}"] = np.stack([track.inside.mass, track.inside.even, track.inside.area])
        save_arrays(path, FORMAT, arrays, {"videos": list(self.tracks), "meta": dict(self.meta)})

    @classmethod
    def load(cls, path: Path | str) -> "AttentionFile":
        """Read what :meth:`save` wrote.

        Raises:
            AttentionError: no such file, not one of attention, or its checksum does not match.
        """
        try:
            arrays, header = load_arrays(path, FORMAT, AttentionError, what="attention")
        except FileNotFoundError as error:
            command = "twostream explain RUN --method attention"
            raise AttentionError(f"{path}: no such file; make it with: {command}") from error
        try:
            tracks = {str(video): _track(arrays, n) for n, video in enumerate(header["videos"])}
            return cls(tracks=tracks, meta=dict(header["meta"]))
        except AttentionError as error:
            raise AttentionError(f"{path}: {error}") from error
        except (LookupError, TypeError, ValueError) as error:
            raise AttentionError(f"{path}: not a file of attention ({error})") from error


def _track(arrays: Mapping[str, npt.NDArray[Any]], n: int) -> AttentionTrack:
    left, top, right, bottom = arrays[f"seen/{n}"].tolist()
    inside = arrays.get(f"inside/{n}")
    return AttentionTrack(
        weights=arrays[f"weights/{n}"],
        seconds=arrays[f"seconds/{n}"],
        xs=arrays[f"xs/{n}"],
        ys=arrays[f"ys/{n}"],
        seen=(left, top, right, bottom),
        inside=None if inside is None else Inside(mass=inside[0], even=inside[1], area=inside[2]),
    )


__all__ = ["FORMAT", "AttentionError", "AttentionFile", "AttentionTrack", "Box", "Inside"]
