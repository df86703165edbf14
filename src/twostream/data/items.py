"""What a data set is made of: one labelled stretch of video, and the error that tells what is wrong with the rest."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from twostream.errors import TwostreamError

PARTS = ("train", "val", "test")


class DataError(TwostreamError):
    """A data set that cannot be used as it is: names what was found, what was wanted and what would do."""


class NoClassesError(DataError):
    """A folder of videos that lie in no class folder and that no list names."""


@dataclass(frozen=True)
class VideoItem:
    """One labelled video, or one labelled stretch of a longer recording.

    Attributes:
        path: the file.
        video: its name below the videos' root, with ``/`` between folders: the key in flow stores.
        label: class index; -1 where it is unknown.
        group: what must never stand on both sides of a split: a person, a recording; "" where nobody has asked yet.
        start, end: seconds from the beginning of the recording; None is its beginning or its end.
    """

    path: Path
    video: str
    label: int
    group: str = ""
    start: float | None = None
    end: float | None = None

    @property
    def name(self) -> str:
        """Unique in a data set: the video, with its stretch where there is one: ``day1.mp4@12.5-14``."""
        if self.start is None and self.end is None:
            return self.video
        return f"{self.video}@{_seconds(self.start)}-{_seconds(self.end)}"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}".rstrip("0").rstrip(".")


def counted(count: int, noun: str) -> str:
    """``1 video``, ``1,200 videos``."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def first_few(names: Sequence[str], limit: int = 5) -> str:
    """``a, b, c and 12 more``: enough of a list to find the rest by."""
    if len(names) <= limit:
        return ", ".join(names)
    return f"{', '.join(names[:limit])} and {len(names) - limit:,} more"
