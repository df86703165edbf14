"""From the labels of a sheet, names or whole numbers, to class indices."""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from twostream.data.items import DataError, first_few
from twostream.data.listing import Row, read_lines
from twostream.data.video_files import natural_key

LabelBase = Literal["auto"] | int

_NAME_FILES = ("classInd.txt", "classes.txt", "labels.txt", "label_map.txt")


def resolve_labels(
    rows: Sequence[Row], names_from: Path | None, label_base: LabelBase
) -> tuple[tuple[int, ...], tuple[str, ...], tuple[str, ...]]:
    """Class index of each row, the class names, and notes on how the labels were understood.

    Labels that are all whole numbers count from 0 or from 1, which is seen from the lowest. Their names come from
    ``classInd.txt``, ``classes.txt``, ``labels.txt`` or ``label_map.txt`` beside the list, else from the folders
    where each class has its own, else they are the numbers. Any other labels are the names, in natural order.

    Args:
        rows: the annotation's lines.
        names_from: folder in which to look for a file of class names.
        label_base: what the first class's number is, 0 or 1, or ``"auto"``.

    Raises:
        DataError: labels that begin elsewhere, leave gaps, or lie outside the named classes.
    """
    texts = [str(row.label) for row in rows]
    if not all(re.fullmatch(r"-?\d+", text) for text in texts):
        if label_base != "auto":
            raise DataError(
                f"label_base={label_base} is for labels that are whole numbers; here there are names such as "
                f"{next(text for text in texts if not text.isdecimal())!r}"
            )
        names = tuple(sorted(set(texts), key=natural_key))
        index = {name: position for position, name in enumerate(names)}
        return tuple(index[text] for text in texts), names, ()
    numbers = [int(text) for text in texts]
    names, source = _class_names(names_from) if names_from else ((), "")
    base = _base(numbers, len(names), label_base, source)
    labels = tuple(number - base for number in numbers)
    notes = [f"labels are whole numbers from {base}"]
    count = len(names) or max(labels) + 1
    for row, number, label in zip(rows, numbers, labels, strict=True):
        if not 0 <= label < count:
            raise DataError(
                f"{row.where}: label {number} is out of range; the labels of {count} classes "
                f"run from {base} to {base + count - 1}"
            )
    if names:
        return labels, names, (*notes, f"class names from {source}")
    if gaps := [str(number + base) for number in sorted(set(range(count)) - set(labels))]:
        raise DataError(
            f"the labels run from {base} to {max(numbers)} but nothing has the label{'s' * (len(gaps) > 1)} "
            f"{first_few(gaps)}; number the classes without gaps, or put a classes.txt with a name a line "
            f"for each class beside the list"
        )
    if by_folder := _folder_names(rows, labels, count):
        return labels, by_folder, (*notes, "class names from the videos' folders")
    return labels, tuple(str(n + base) for n in range(count)), (*notes, "class names are the numbers")


def check_class_names(classes: Sequence[str]) -> None:
    """Raise :class:`DataError` for names that could not be a folder's or would break a table."""
    for name in classes:
        if not name.strip() or name in {".", ".."} or re.search(r"[/\\\x00-\x1f\x7f]", name):
            raise DataError(
                f"{name!r} cannot be a class name; it must not be empty, a dot, or hold slashes, tabs or line breaks"
            )
    if len(set(classes)) < len(classes):
        raise DataError(f"class names repeat: {first_few(sorted({n for n in classes if list(classes).count(n) > 1}))}")


def _base(numbers: Sequence[int], named: int, label_base: LabelBase, source: str) -> int:
    if label_base != "auto":
        if label_base not in (0, 1):
            raise DataError(f"label_base is 'auto', 0 or 1, got {label_base!r}")
        return int(label_base)
    low, high = min(numbers), max(numbers)
    if low == 0:
        return 0
    if low < 0 or (not named and low > 1):
        raise DataError(f"the lowest label is {low}; whole-number labels begin at 0 or 1, without gaps")
    if not named or high >= named:
        return 1
    raise DataError(
        f"the labels run from {low} to {high} and {source} names {named} classes, so they could count from 0 or from "
        "1; say which with label_base"
    )


def _class_names(folder: Path) -> tuple[tuple[str, ...], str]:
    for name in _NAME_FILES:
        path = folder / name
        if path.is_file():
            lines = [line for _, line in read_lines(path)[0]]
            pairs = [re.fullmatch(r"(\d+)\s+(\S.*)", line) for line in lines]
            numbers = [int(pair[1]) for pair in pairs if pair]
            # "number name" lines, as in classInd.txt, only where the numbers count the lines: "100 m run" is a name.
            if lines and len(numbers) == len(lines) and numbers == list(range(numbers[0], numbers[0] + len(lines))):
                lines = [pair[2] for pair in pairs if pair]
            return tuple(lines), name
    return (), ""


def _folder_names(rows: Sequence[Row], labels: Sequence[int], count: int) -> tuple[str, ...]:
    folders: dict[int, set[str]] = defaultdict(set)
    for row, label in zip(rows, labels, strict=True):
        parents = row.video.split("/")[:-1]
        folders[label].add(parents[-1] if parents else "")
    names = tuple(min(folders[label]) for label in range(count))
    if all(len(folders[label]) == 1 for label in range(count)) and len(set(names)) == count and all(names):
        return names
    return ()
