"""What a suite's file claims, before anything is run: that one variant is better than another, or above a figure."""

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from twostream.errors import UsageError
from twostream.experiments.schema import SuiteError

Figure = Literal["ceiling", "chance"]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A statement that rows can speak against.

    Attributes:
        claim: in words.
        better: the variant that is better.
        worse: than this one, on the same videos; or
        above: than a figure: ``ceiling``, the best that late fusion can reach on generated videos; ``chance``, one of
            K classes; or a share of 0..1.
        stream: of ``better``, whose votes alone are meant; None: the whole answer.
        worse_stream: the same of ``worse``.
    """

    claim: str
    better: str
    worse: str | None = None
    above: Figure | float | None = None
    stream: str | None = None
    worse_stream: str | None = None

    def __post_init__(self) -> None:
        if (self.worse is None) == (self.above is None):
            raise UsageError(f"{self.claim!r} needs either worse, a variant, or above, a figure")
        if self.worse_stream is not None and self.worse is None:
            raise UsageError(f"{self.claim!r} has a worse_stream without a variant that is worse")
        if isinstance(self.above, float) and not 0 <= self.above <= 1:
            raise UsageError(f"{self.claim!r}: above is ceiling, chance or a share of 0..1, got {self.above:g}")
        if (self.better, self.stream) == (self.worse, self.worse_stream):
            raise UsageError(f"{self.claim!r} compares {self.better} with itself")

    @property
    def sides(self) -> tuple[tuple[str, str | None], ...]:
        """The variants that it speaks of, each with the stream that is meant."""
        better = (self.better, self.stream)
        return (better,) if self.worse is None else (better, (self.worse, self.worse_stream))


def check_claims(
    claims: Collection[Claim],
    place: str,
    *,
    streams: Mapping[str, Collection[str]],
    data: Mapping[str, str | None],
    generated: Collection[str],
) -> None:
    """Whether the variants, streams and figures that claims speak of exist.

    Args:
        claims: of the suite.
        place: the suite's file, for the messages.
        streams: of each variant, the streams that vote.
        data: of each variant, what its data are called.
        generated: variants whose videos are generated, so that a ceiling is known.

    Raises:
        SuiteError: one of them does not.
    """
    texts = [claim.claim for claim in claims]
    for claim in claims:
        where = f"{place}: claims: {claim.claim!r}"
        if texts.count(claim.claim) > 1:
            raise SuiteError(f"{where} stands twice")
        for variant, stream in claim.sides:
            if variant not in data:
                near = difflib.get_close_matches(variant, data, n=1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(data)}"
                raise SuiteError(f"{where}: no variant is called {variant!r}; {hint}")
            if stream is not None and (stream not in streams[variant] or len(streams[variant]) < 2):
                names = ", ".join(streams[variant])
                has = f"its streams are {names}" if names else "it joins whole answers"
                raise SuiteError(f"{where}: {variant} has no stream {stream!r} beside others; {has}")
        if claim.worse is not None and data[claim.better] != data[claim.worse]:
            raise SuiteError(
                f"{where}: {claim.better} is judged on {data[claim.better]} and {claim.worse} on {data[claim.worse]}; "
                "only answers on the same videos can be compared"
            )
        if claim.above == "ceiling" and claim.better not in generated:
            raise SuiteError(
                f"{where}: a ceiling is known for generated videos only, and {claim.better} is judged on "
                f"{data[claim.better] or 'data that are left open'}"
            )
