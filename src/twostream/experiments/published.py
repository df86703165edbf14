"""What others print, beside the own lines of a suite: with its source, and how sure it is that they do."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from twostream.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Published:
    """A figure that others print.

    Attributes:
        what: of which method.
        top1: mean over the splits, as a share of 1.
        source: where it was read.
        certainty: ``verified`` in the publication itself, ``secondary`` in another one that cites it, or from
            ``memory`` alone.
    """

    what: str
    top1: float
    source: str
    certainty: Literal["verified", "secondary", "memory"]

    def __post_init__(self) -> None:
        if not 0 <= self.top1 <= 1:
            raise UsageError(f"top1 is a share from 0 to 1, as 0.934, got {self.top1:g}")

    @property
    def sureness(self) -> str:
        """The certainty in words."""
        return {
            "verified": "read in the publication",
            "secondary": "as another publication cites it",
            "memory": "from memory, unverified",
        }[self.certainty]

    def note(self) -> str:
        """The figure with all that has to be known about it, in a sentence."""
        return f"published, not made here: {self.what} {self.top1:.3f}, {self.sureness} ({self.source})"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "sureness": self.sureness}
