"""Leave-one-group-out: ``leave-03-of-01-10`` tests on group 3 and trains on the others of groups 1 to 10.

The folds of a range test every video of it once, so a mean over them counts videos, not folds. UT-Interaction's
literature leaves out one sequence of ten in this way, in each of its two sets by itself.

Reference: Ryoo, Aggarwal, UT-Interaction Dataset, ICPR contest on Semantic Description of Human Activities, 2010.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from twostream.data.items import DataError, counted, first_few
from twostream.data.listing import Listing, Row
from twostream.data.splits import numbered_group

_FOLD = re.compile(r"leave-(\d+)-of-(\d+)-(\d+)", re.IGNORECASE)
_GROUP_CELL = re.compile(r"[^\W\d_]*[ _-]?(\d+)")
_FORMS = "split is a number from 1 on, or leave-03-of-01-10 (test on group 3, train on the others of 1 to 10)"


class _Group(NamedTuple):
    number: int
    name: str


@dataclass(frozen=True, order=True)
class Fold:
    """One group held out of a range of groups, which are known by their numbers.

    Attributes:
        test: the group that is tested on.
        first, last: the range, both ends included.
    """

    test: int
    first: int
    last: int

    def __post_init__(self) -> None:
        if not self.first <= self.test <= self.last:
            raise DataError(
                f"{self}: group {self.test} is not in the range from {self.first} to {self.last}, of which it is to "
                "be left out"
            )
        if self.first == self.last:
            raise DataError(f"{self}: with one group left out of one, none is left to train on; name a wider range")

    def __str__(self) -> str:
        return f"leave-{self.test:02d}-of-{self.first:02d}-{self.last:02d}"

    @classmethod
    def parse(cls, split: str | int) -> "Fold | None":
        """The fold that a split's name speaks of; None where it has not this form.

        Raises:
            DataError: the form is right and the numbers are not.
        """
        match = _FOLD.fullmatch(str(split).strip())
        return cls(*map(int, match.groups())) if match else None

    def apply(self, listing: Listing) -> Listing:
        """The rows of all parts and splits together, those of the range in the parts ``train`` and ``test`` anew.

        A group's number is that of the column ``group`` (``3``, ``s03``) where there is one, else of ``_gNN_`` in the
        video's name.

        Raises:
            DataError: the data know no numbered groups, or not those that are asked for.
        """
        rows = list({(row.video, row.start, row.end, row.label): row for row in listing.rows}.values())
        groups = [_group_of(row) for row in rows]
        self._check(listing, rows, groups)
        kept = [
            replace(row, part="test" if group.number == self.test else "train")
            for row, group in zip(rows, groups, strict=True)
            if group and self.first <= group.number <= self.last
        ]
        note = (
            f"parts by group: {self.test} is the test part, the others from {self.first} to {self.last} are trained on"
        )
        if left := len(rows) - len(kept):
            note += f"; {counted(left, 'listed video')} of groups outside this range left out"
        # Made here, so a group on both sides would be no published accident but a mistake.
        return replace(listing, rows=tuple(kept), notes=(*listing.notes, note), official=False, split=str(self))

    def _check(self, listing: Listing, rows: Sequence[Row], groups: Sequence[_Group | None]) -> None:
        lacking = [row.video for row, group in zip(rows, groups, strict=True) if group is None]
        if lacking:
            who = "the videos name none" if len(lacking) == len(rows) else "some videos name none"
            raise DataError(
                f"split {self} needs groups with numbers, as _g03_ in names or 3 in a column group; of {listing.base} "
                f"{who}: {first_few(lacking, 3)}. Name them so, or take a split by number"
            )
        names: dict[int, set[str]] = {}
        for group in groups:
            assert group
            names.setdefault(group.number, set()).add(group.name)
        if double := [first_few(sorted(of_number)) for _, of_number in sorted(names.items()) if len(of_number) > 1]:
            raise DataError(
                f"split {self}: several groups have the same number ({first_few(double, 3)}); number them apart in the "
                "column group"
            )
        there = f"the data have {_ranges(names)}"
        if not any(self.first <= number <= self.last for number in names):
            raise DataError(f"split {self}: there is no group from {self.first} to {self.last}; {there}")
        if self.test not in names:
            raise DataError(f"split {self}: there is no group {self.test}; {there}")


def split_name(split: str | int) -> str:
    """A split's one name: ``2`` for ``02``, ``leave-03-of-01-10`` for ``leave-3-of-1-10``.

    Raises:
        DataError: it is neither a number nor a fold.
    """
    fold = Fold.parse(split)
    return str(fold) if fold else str(split_number(split))


def split_number(split: str | int) -> int:
    """The number of a numbered split.

    Raises:
        DataError: it is none.
    """
    text = str(split).strip()
    if not (text.isdecimal() and int(text) > 0):
        raise DataError(f"{_FORMS}, got {split!r}")
    return int(text)


def split_label(split: str | int) -> str:
    """A split in names of files: ``split2``, and a fold by its own name."""
    name = split_name(split)
    return f"split{name}" if name.isdecimal() else name


def folds_of(first: int, last: int) -> tuple[Fold, ...]:
    """A fold for each number of a range.

    Raises:
        DataError: the range is empty, or of one group.
    """
    if first > last:
        raise DataError(f"leave_one_out is a range of group numbers from low to high, got {first} to {last}")
    return tuple(Fold(test, first, last) for test in range(first, last + 1))


def _group_of(row: Row) -> _Group | None:
    if row.group:
        match = _GROUP_CELL.fullmatch(row.group.strip())
        return _Group(int(match[1]), row.group) if match else None
    number = numbered_group(row.video)
    return None if number is None else _Group(number, f"g{number:02d}")


def _ranges(numbers: Iterable[int]) -> str:
    """``groups 1 to 10, 12``."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return "groups " + first_few([str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs], 6)
