"""Parts of a suite that fit some hardware: so many seeds, and not every variant."""

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from twostream.errors import UsageError
from twostream.experiments.schema import SuiteError


@dataclass(frozen=True, kw_only=True)
class Tier:
    """Rows that are run together by one name.

    Attributes:
        hardware: what it is made for, in words.
        seeds: of its rows; empty: all seeds of the suite.
        without: variants that it leaves out.
    """

    hardware: str
    seeds: tuple[int, ...] = ()
    without: tuple[str, ...] = ()

    def has(self, variant: str, seed: int) -> bool:
        """Whether a row of this variant and seed is of it."""
        return variant not in self.without and (not self.seeds or seed in self.seeds)


def check_tiers(
    tiers: Mapping[str, Tier], place: str, *, starts: Mapping[str, Collection[str]], seeds: Collection[int]
) -> None:
    """Whether what tiers speak of exists, and whatever their rows start from is of them too.

    Args:
        tiers: by name.
        place: the suite's file, for messages.
        starts: by variant, those that it starts from or joins.
        seeds: of the suite.

    Raises:
        SuiteError: names the tier.
    """
    for name, tier in tiers.items():
        if unknown := [seed for seed in tier.seeds if seed not in seeds]:
            raise SuiteError(f"{place}: tiers.{name}: no seed {unknown[0]}; there are {', '.join(map(str, seeds))}")
        for variant in tier.without:
            if variant not in starts:
                near = difflib.get_close_matches(variant, starts, n=1)
                hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(starts)}"
                raise SuiteError(f"{place}: tiers.{name}: no variant is called {variant!r}{hint}")
        for variant, needed in starts.items():
            missing = [start for start in needed if start in tier.without]
            if missing and variant not in tier.without:
                raise SuiteError(f"{place}: tiers.{name}: {variant} starts from {missing[0]}, which is left out")


def tier_of(tiers: Mapping[str, Tier], name: str, place: str) -> Tier:
    """The tier of that name.

    Raises:
        UsageError: there is none; names those there are.
    """
    if name not in tiers:
        raise UsageError(f"{place} has no tier {name!r}; there are {', '.join(tiers) or 'none'}")
    return tiers[name]
