"""The list files of UCF101 (and all data sets that use its syntax) and of HMDB51."""

import itertools
import re
from collections.abc import Mapping
from pathlib import Path

from twostream.data.items import PARTS, DataError, counted, first_few
from twostream.data.listing import Listing, Row, clean_name, read_lines
from twostream.data.video_files import natural_key

_UCF_LIST = re.compile(r"(train|test|val)list(\d+)\.txt", re.IGNORECASE)
_HMDB_LIST = re.compile(r"(.+)_test_split(\d+)\.txt", re.IGNORECASE)
_HMDB_PARTS = {"0": "", "1": "train", "2": "test"}


def is_ucf101_list(name: str) -> bool:
    """Whether a file is named like one of UCF101's lists."""
    return bool(_UCF_LIST.fullmatch(name))


def is_hmdb51_list(name: str) -> bool:
    """Whether a file is named like one of HMDB51's lists."""
    return bool(_HMDB_LIST.fullmatch(name))


def read_ucf101(folder: Path, base: Path, split: int | None) -> Listing:
    """Read ``classInd.txt``, ``trainlistNN.txt`` and ``testlistNN.txt``, and ``vallistNN.txt`` where there is one.

    A line is ``Class/video.avi 3``, or without the number, which is then that of the folder's class. Class numbers
    are those of ``classInd.txt``; UCF101's begin at 1. Without a number the rows of all splits follow each other.

    Raises:
        DataError: no ``classInd.txt``, no such split, a line or a label that does not fit.

    Reference: Soomro, Zamir, Shah, UCF101, CRCV-TR-12-01, 2012.
    """
    files = {entry.name.casefold(): entry for entry in folder.iterdir() if not entry.name.startswith(".")}
    if "classind.txt" not in files:
        raise DataError(
            f"{folder}: there are UCF101 lists but no classInd.txt beside them; "
            "it names the classes, one 'number name' per line"
        )
    numbers, notes = _class_numbers(files["classind.txt"])
    lists: dict[int, dict[str, Path]] = {}
    for entry in files.values():
        if match := _UCF_LIST.fullmatch(entry.name):
            lists.setdefault(int(match[2]), {})[match[1].lower()] = entry
    ordered = sorted(numbers)
    index = {number: position for position, number in enumerate(ordered)}
    by_name = {name: index[number] for number, name in numbers.items()}
    rows: list[Row] = []
    of_parts = itertools.product(_chosen(folder, lists, split).values(), PARTS)
    for path, part in ((chosen[part], part) for chosen, part in of_parts if part in chosen):
        lines, note = read_lines(path)
        notes += [note] * bool(note)
        for line_number, line in lines:
            where = f"{path.name}:{line_number}"
            video, label = _ucf_line(line, where, index, by_name, path.parent)
            rows.append(Row(video, label, part, where))
    base_number = ordered[0]
    notes.append(f"class numbers begin at {base_number} (classInd.txt)")
    classes = tuple(numbers[number] for number in ordered)
    return Listing("UCF101 lists", base, tuple(rows), classes, tuple(notes), split=str(split or ""))


def _class_numbers(path: Path) -> tuple[dict[int, str], list[str]]:
    lines, note = read_lines(path)
    numbers: dict[int, str] = {}
    for line_number, line in lines:
        match = re.fullmatch(r"(\d+)\s+(.+)", line)
        if match is None:
            raise DataError(f"{path}:{line_number}: wanted 'number name', as in '1 ApplyEyeMakeup', got {line!r}")
        if int(match[1]) in numbers or match[2] in numbers.values():
            raise DataError(f"{path}:{line_number}: {line!r} names a class number or a class for the second time")
        numbers[int(match[1])] = match[2]
    if not numbers:
        raise DataError(f"{path}: is empty; it names the classes, one 'number name' per line")
    if gaps := [str(n) for n in range(min(numbers), max(numbers)) if n not in numbers]:
        raise DataError(
            f"{path}: the class numbers run from {min(numbers)} to {max(numbers)} but {first_few(gaps)} "
            f"{'is' if len(gaps) == 1 else 'are'} missing; number the classes without gaps"
        )
    return numbers, [note] if note else []


def _ucf_line(line: str, where: str, index: dict[int, int], by_name: dict[str, int], folder: Path) -> tuple[str, int]:
    match = re.fullmatch(r"(.+?)\s+(\d+)", line)
    video = clean_name(match[1] if match else line)
    of_folder = next((by_name[name] for name in reversed(video.split("/")[:-1]) if name in by_name), None)
    if match is None:
        if of_folder is None:
            raise DataError(
                f"{folder / where}: {line!r} has no label, and its folder is none of the classes of classInd.txt; "
                "write 'Class/video.avi' or 'video.avi number'"
            )
        return video, of_folder
    number = int(match[2])
    if number not in index:
        raise DataError(
            f"{folder / where}: label {number} is out of range; classInd.txt has {min(index)} to {max(index)}"
        )
    if of_folder is not None and of_folder != index[number]:
        raise DataError(
            f"{folder / where}: {line!r} says class {number}, but its folder is class "
            f"{next(n for n, position in index.items() if position == of_folder)} in classInd.txt"
        )
    return video, index[number]


def read_hmdb51(folder: Path, base: Path, split: int | None) -> Listing:
    """Read ``<class>_test_split<n>.txt``: lines of ``name 0|1|2``, where 1 is train, 2 test and 0 unused.

    Classes are in alphabetical order, which is the order of their files. Videos lie in a folder per class. Without a
    number the rows of all splits follow each other.

    Raises:
        DataError: no such split, a class without a list of this split, a line that does not fit.

    Reference: Kuehne et al., HMDB: a large video database for human motion recognition, ICCV 2011.
    """
    lists: dict[int, dict[str, Path]] = {}
    for entry in folder.iterdir():
        if (match := _HMDB_LIST.fullmatch(entry.name)) and not entry.name.startswith("."):
            lists.setdefault(int(match[2]), {})[match[1]] = entry
    classes = tuple(sorted({name for of_split in lists.values() for name in of_split}, key=natural_key))
    rows: list[Row] = []
    notes: list[str] = []
    unused = 0
    chosen_lists = _chosen(folder, lists, split)
    for number, chosen in chosen_lists.items():
        if absent := [f"{name}_test_split{number}.txt" for name in classes if name not in chosen]:
            raise DataError(f"{folder}: other splits name more classes; missing for this one: {first_few(absent)}")
    for chosen, (label, name) in itertools.product(chosen_lists.values(), enumerate(classes)):
        lines, note = read_lines(chosen[name])
        notes += [note] * bool(note)
        for line_number, line in lines:
            where = f"{chosen[name].name}:{line_number}"
            match = re.fullmatch(r"(.+?)\s+(\d+)", line)
            if match is None or match[2] not in _HMDB_PARTS:
                raise DataError(
                    f"{folder / where}: wanted 'video.avi 1' with 1 for train, 2 for test or 0 for unused, got {line!r}"
                )
            if part := _HMDB_PARTS[match[2]]:
                rows.append(Row(f"{name}/{clean_name(match[1])}", label, part, where))
            else:
                unused += 1
    if split is not None:
        notes.append(f"in neither part of this split: {counted(unused, 'listed video')}")
    return Listing("HMDB51 lists", base, tuple(rows), classes, tuple(notes), official=True, split=str(split or ""))


def _chosen(folder: Path, lists: Mapping[int, dict[str, Path]], split: int | None) -> dict[int, dict[str, Path]]:
    """The lists of the split that is asked for, or of each that there is, by its number."""
    if split is None:
        return {number: lists[number] for number in sorted(lists)}
    if split not in lists:
        raise DataError(f"{folder}: there is no split {split}; the lists are for {_splits(lists)}")
    return {split: lists[split]}


def _splits(lists: Mapping[int, dict[str, Path]]) -> str:
    return f"split {', '.join(str(number) for number in sorted(lists))}" if lists else "no split at all"
