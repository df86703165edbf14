"""Which test videos a row got right: small enough to be kept in its file, enough to compare it with any other row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from twostream.clip import Scores
from twostream.evaluation.metrics import one_stream, right

# The whole answer, beside the names of streams.
MERGED = "merged"


@dataclass(frozen=True, kw_only=True)
class Hits:
    """A row's answers on the N test videos whose class is known.

    Attributes:
        videos: their names.
        groups: of each video, the group (a person, a recording), or "" where it is one by itself.
        right: for ``"merged"``, the whole answer, and for each stream where there are several, its votes alone: a text
            of N characters, ``1`` for a video that was recognised.
    """

    videos: tuple[str, ...]
    groups: tuple[str, ...]
    right: Mapping[str, str]

    def __post_init__(self) -> None:
        N = len(self.videos)
        if len(self.groups) != N or any(len(of) != N or set(of) - {"0", "1"} for of in self.right.values()):
            raise ValueError(f"groups and answers are not those of {N} videos")
        if MERGED not in self.right:
            raise ValueError(f"{MERGED!r} is missing among the answers")

    @classmethod
    def of(cls, scores: Scores) -> "Hits":
        """From all that a network said."""
        known = np.flatnonzero(scores.labels >= 0)
        answers = {MERGED: right(scores)}
        if len(scores.streams) > 1:
            answers |= {stream: right(one_stream(scores, stream)) for stream in scores.streams}
        return cls(
            videos=tuple(scores.videos[n] for n in known),
            # Data without groups name each video as its own.
            groups=tuple("" if scores.groups[n] == scores.videos[n] else scores.groups[n] for n in known),
            right={name: "".join("01"[int(of[n])] for n in known) for name, of in answers.items()},
        )

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> "Hits":
        """From a file.

        Raises:
            ValueError, LookupError, TypeError: it says something else.
        """
        return cls(videos=tuple(document["videos"]), groups=tuple(document["groups"]), right=dict(document["right"]))

    def to_dict(self) -> dict[str, Any]:
        """For a file."""
        return {"videos": list(self.videos), "groups": list(self.groups), "right": dict(self.right)}

    def values(self, stream: str | None) -> npt.NDArray[np.float64]:
        """1 for each video that ``stream`` alone (None: the whole answer) recognised, else 0; (N,).

        Raises:
            LookupError: no such stream.
        """
        return np.array([float(hit) for hit in self.right[stream or MERGED]])


def unit_names(parts: Sequence[Hits]) -> tuple[list[tuple[str, ...]], str]:
    """What each video of each part is resampled with, and what these units are called.

    A group, or a video that has none, keeps its name: in however many seeds and splits it stands, it is drawn as one.
    One group says nothing about how groups differ; videos are then the best that can be had.
    """
    if len({group for hits in parts for group in hits.groups if group}) < 2:
        return [hits.videos for hits in parts], "videos"
    # A group and a video of one name are two units.
    return [
        tuple(f"group {g}" if g else f"video {v}" for g, v in zip(hits.groups, hits.videos, strict=True))
        for hits in parts
    ], "groups"
