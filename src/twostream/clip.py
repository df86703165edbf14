"""The nouns that every room shares: what a network is fed, what it answers, and the checks of their shapes."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
from torch import Tensor

from twostream.errors import TwostreamError
from twostream.files import atomic_write

Sampling = Literal["segments", "strided", "snippets"]
Stream = Literal["appearance", "motion"]
Looking = Literal["frame", "motion"]
Votes = tuple[tuple[str, int], ...]


class ShapeError(TwostreamError):
    """A tensor or array of another shape, type or range than the contract asks for."""


class ScoresError(TwostreamError):
    """A scores file that is damaged, foreign, or does not fit its own labels."""


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """What a network wants to see; carried by the model, its checkpoint and the data set made for it.

    Attributes:
        streams: which inputs the network reads; the data set leaves the other one empty (zero steps).
        rgb_mean, rgb_std: per channel R, G, B on the 0..255 scale; the model normalises inside.
        flow_mean, flow_std: of the 8-bit flow; zero motion is 128 and 1 px is 6.375 grey levels.
        size: side in px of the square crop that training sees.
        resize: short side in px of the stored grid that crops are taken from.
        steps: T, RGB steps per training clip (1 for single-frame networks).
        snippets: S, flow stacks per training clip. Equal to ``steps`` unless ``sampling`` is ``"snippets"``.
        flow_length: L, flow fields per stack (so 2 L channels).
        flow_offset: o; the stack of a step at frame t holds fields t+o ... t+o+L-1.
        sampling: how training draws a clip, and so what a network may be shown at test time: ``"segments"`` (steps
            are judged alone and averaged), ``"strided"`` (steps must be seen together, in order), ``"snippets"``
            (one frame and several stacks around it).
        stride: lowest and highest number of frames between steps or snippets, for ``strided`` and ``snippets``.
        test_stride: the same at test time, for ``snippets``; None: the middle of ``stride``.
        spread: for ``snippets``, in the place of strides: the lowest and highest share of the clip that lies between
            the first and the last snippet, whatever its length; the middle at test time.
        rgb_offset: for ``snippets``, the frame that is shown, counted from the place where the clip is drawn. The
            middle snippet begins ``flow_offset`` from there, but for a video's ends: they push the snippets aside, all
            by as much, and not the frame.
        fps: common frame rate that frames are chosen by before flow is computed; None keeps each video's own.
        region: what of the frame crops are taken from: all of the ``"frame"``, or the square in which a clip's
            ``"motion"`` is, see :func:`twostream.data.region.moving_region`.
    """

    streams: tuple[Stream, ...] = ("appearance", "motion")
    rgb_mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    rgb_std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    flow_mean: float = 128.0
    flow_std: float = 57.625
    size: int = 224
    resize: int = 256
    steps: int = 1
    snippets: int = 1
    flow_length: int = 10
    flow_offset: int = -5
    sampling: Sampling = "segments"
    stride: tuple[int, int] = (1, 1)
    test_stride: int | None = None
    spread: tuple[float, float] | None = None
    rgb_offset: int = 0
    fps: float | None = None
    region: Looking = "frame"

    def __post_init__(self) -> None:
        if not self.streams or any(s not in get_args(Stream) for s in self.streams):
            raise ShapeError(f"streams are drawn from {get_args(Stream)}, got {self.streams}")
        if self.sampling not in get_args(Sampling):
            raise ShapeError(f"sampling is one of {get_args(Sampling)}, got {self.sampling!r}")
        if self.region not in get_args(Looking):
            raise ShapeError(f"region is one of {get_args(Looking)}, got {self.region!r}")
        for name in ("size", "resize", "steps", "snippets", "flow_length"):
            if getattr(self, name) < 1:
                raise ShapeError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.resize < self.size:
            raise ShapeError(
                f"the crop (size={self.size}) does not fit into the stored short side (resize={self.resize})"
            )
        if not 1 <= self.stride[0] <= self.stride[1]:
            raise ShapeError(f"stride is (lowest, highest) with 1 <= lowest <= highest, got {self.stride}")
        if self.test_stride is not None and self.test_stride < 1:
            raise ShapeError(f"test_stride is a number of frames, at least 1, got {self.test_stride}")
        if self.spread is not None and not 0 < self.spread[0] <= self.spread[1] <= 1:
            raise ShapeError(f"spread is (lowest, highest) with 0 < lowest <= highest <= 1, got {self.spread}")
        if not 0 <= self.rgb_offset <= self.flow_length:
            raise ShapeError(
                f"rgb_offset names a frame of the middle snippet, 0 to {self.flow_length}, got {self.rgb_offset}"
            )
        if self.sampling != "snippets" and (self.test_stride, self.spread, self.rgb_offset) != (None, None, 0):
            raise ShapeError(f"test_stride, spread and rgb_offset are for snippets sampling, not for {self.sampling}")
        if self.sampling == "snippets" and self.steps != 1:
            raise ShapeError(f"snippets sampling takes one frame and the stacks around it: steps={self.steps}")
        if self.sampling != "snippets" and self.snippets != self.steps:
            raise ShapeError(
                f"{self.sampling} sampling takes one flow stack a step: steps={self.steps}, snippets={self.snippets}"
            )

    @property
    def flow_channels(self) -> int:
        """2 L: u1, v1, u2, v2, ..."""
        return 2 * self.flow_length

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON and YAML."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "InputSpec":
        """The inverse of :meth:`to_dict`; an unknown key is a :class:`ShapeError`."""
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ShapeError(f"unknown input spec entries {unknown}; known: {sorted(known)}")
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**plain)

    def with_(self, **changes: Any) -> "InputSpec":
        """A copy with some entries changed."""
        return replace(self, **changes)


class Clip(NamedTuple):
    """One sample, and after collation one batch (a leading B on every entry).

    Shapes: ``rgb`` (T, 3, H, W), ``flow`` (S, 2L, H, W), both uint8 with zero motion at 128; an unread stream has zero
    steps. ``label`` is the class index, ``item`` the video's place in its list.
    """

    rgb: Tensor
    flow: Tensor
    label: int | Tensor
    item: int | Tensor


def check_batch(rgb: Tensor, flow: Tensor, spec: InputSpec) -> None:
    """Raise :class:`ShapeError` unless ``rgb`` (B, T, 3, H, W) and ``flow`` (B, S, 2L, H, W) fit ``spec``'s streams."""
    if "appearance" in spec.streams and (rgb.ndim != 5 or rgb.shape[2] != 3 or rgb.shape[1] < 1):
        raise ShapeError(f"rgb must be (B, T, 3, H, W) with T >= 1, got {tuple(rgb.shape)}")
    if "motion" in spec.streams and (flow.ndim != 5 or flow.shape[2] != spec.flow_channels or flow.shape[1] < 1):
        raise ShapeError(
            f"flow must be (B, S, {spec.flow_channels}, H, W) with S >= 1 (L={spec.flow_length} fields of u and v), "
            f"got {tuple(flow.shape)}"
        )
    if len(spec.streams) == 2:
        if rgb.shape[0] != flow.shape[0] or rgb.shape[-2:] != flow.shape[-2:]:
            raise ShapeError(
                f"rgb and flow must show the same clips at the same size, got {tuple(rgb.shape)} "
                f"and {tuple(flow.shape)}"
            )
        if spec.sampling != "snippets" and rgb.shape[1] != flow.shape[1]:
            raise ShapeError(f"rgb has T={rgb.shape[1]} steps but flow has {flow.shape[1]} stacks; they go together")


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """What a model answered about a set of videos: raw logits, kept apart by view and vote.

    Attributes:
        logits: (N, R, V, K) float32: videos, views, votes, classes. Nothing is averaged but space.
        labels: (N,) int64 class indices; -1 where the truth is unknown.
        videos: N names, as the annotations give them.
        groups: N group names ("" where there is none); statistics resample over them.
        classes: K class names.
        votes: what the V votes are, in order: (("appearance", 1), ("motion", 1)).
        meta: protocol, split, part ("test", "val"), model and whatever else says where this came from; JSON values.
    """

    logits: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    videos: tuple[str, ...]
    classes: tuple[str, ...]
    votes: Votes
    groups: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.logits.ndim != 4:
            raise ScoresError(f"logits must be (videos, views, votes, classes), got shape {self.logits.shape}")
        N, _, V, K = self.logits.shape
        if not self.groups:
            object.__setattr__(self, "groups", ("",) * N)
        for name, got, wanted in (
            ("labels", len(self.labels), N),
            ("videos", len(self.videos), N),
            ("groups", len(self.groups), N),
            ("classes", len(self.classes), K),
            ("votes", sum(count for _, count in self.votes), V),
        ):
            if got != wanted:
                raise ScoresError(f"scores of logits {self.logits.shape} need {wanted} {name}, got {got}")
        if N and (int(self.labels.min()) < -1 or int(self.labels.max()) >= K):
            raise ScoresError(f"labels must lie in -1..{K - 1}, got {self.labels.min()}..{self.labels.max()}")
        if not np.isfinite(self.logits).all():
            bad = [self.videos[n] for n in np.flatnonzero(~np.isfinite(self.logits).all(axis=(1, 2, 3)))]
            raise ScoresError(f"{len(bad)} videos have scores that are not finite, first {bad[0]}")

    def __len__(self) -> int:
        return len(self.videos)

    @property
    def streams(self) -> tuple[str, ...]:
        """The distinct vote names in order."""
        return tuple(dict.fromkeys(name for name, _ in self.votes))

    def vote_slices(self) -> dict[str, list[int]]:
        """Which of the V votes belong to each stream."""
        names = [name for name, count in self.votes for _ in range(count)]
        return {stream: [i for i, name in enumerate(names) if name == stream] for stream in self.streams}

    def save(self, path: Path | str) -> None:
        """Write one ``.npz`` file, whole or not at all, with a checksum of the arrays inside."""
        header = {
            "format": "twostream-scores-1",
            "sha256": _digest(self.logits, self.labels),
            "videos": list(self.videos),
            "groups": list(self.groups),
            "classes": list(self.classes),
            "votes": [list(v) for v in self.votes],
            "meta": dict(self.meta),
        }
        text = np.frombuffer(json.dumps(header, ensure_ascii=False).encode("utf-8"), np.uint8)
        with atomic_write(path) as file:
            np.savez_compressed(file, header=text, logits=self.logits, labels=self.labels)

    @classmethod
    def load(cls, path: Path | str) -> "Scores":
        """Read what :meth:`save` wrote.

        Raises:
            ScoresError: no such file, not a scores file, or its checksum does not match.
        """
        try:
            with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
                header = json.loads(archive["header"].tobytes().decode("utf-8"))
                logits, labels = archive["logits"], archive["labels"]
            stated = header["sha256"]
            if header["format"] != "twostream-scores-1":
                raise ScoresError(f"scores of another format ({header['format']})")
            scores = cls(
                logits=logits,
                labels=labels,
                videos=tuple(header["videos"]),
                groups=tuple(header["groups"]),
                classes=tuple(header["classes"]),
                votes=tuple((str(name), int(count)) for name, count in header["votes"]),
                meta=header["meta"],
            )
        except FileNotFoundError as error:
            raise ScoresError(f"{path}: no such scores file; make one with: twostream evaluate RUN") from error
        except ScoresError as error:
            raise ScoresError(f"{path}: {error}") from error
        # What foreign or damaged bytes make the archive reader raise has no common ancestor.
        except Exception as error:
            # The reader's own words advise loading such files unsafely.
            reason = "it is no archive of arrays" if "allow_pickle" in str(error) else str(error)
            raise ScoresError(f"{path}: not a scores file of twostream ({reason})") from error
        if stated != _digest(logits, labels):
            raise ScoresError(
                f"{path}: damaged, its checksum does not match; write it again with: twostream evaluate RUN"
            )
        return scores


def _digest(*arrays: npt.NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(str((array.dtype.str, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def vote_count(votes: Sequence[tuple[str, int]]) -> int:
    """V, the number of votes."""
    return sum(count for _, count in votes)


__all__ = [
    "Clip",
    "InputSpec",
    "Looking",
    "Sampling",
    "Scores",
    "ScoresError",
    "ShapeError",
    "Stream",
    "Votes",
    "check_batch",
    "vote_count",
]
