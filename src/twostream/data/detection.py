"""Which format a data set is in, seen from what is there, and its reading by the reader of that format."""

import itertools
import os
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from twostream.data.class_folders import read_class_folders
from twostream.data.items import DataError, first_few
from twostream.data.label_sheets import csv_columns, is_sheet, merge, read_csv, read_text_list
from twostream.data.listing import Listing, part_of
from twostream.data.official_lists import is_hmdb51_list, is_ucf101_list, read_hmdb51, read_ucf101
from twostream.data.video_files import VIDEO_SUFFIXES, is_video_name, natural_key


def read_listing(data: Path, split: int | None, videos: Path | None) -> Listing:
    """What the data set names, in whatever format.

    Args:
        data: a folder, a CSV file or a text list.
        split: number of the split, for formats that have several; None: the rows of all of them, one after the other.
        videos: folder that listed names are meant from, where that is not where the lists are.

    Raises:
        DataError: nothing known is there, or more than one thing that could be meant.
    """
    if data.is_dir():
        return _read_folder(data, split, videos)
    if not data.exists():
        raise DataError(f"{data}: no such file or folder")
    base = videos or data.parent
    if is_ucf101_list(data.name) or is_hmdb51_list(data.name) or data.name.casefold() == "classind.txt":
        raise DataError(f"{data}: is one of several lists that go together; give the folder that holds them")
    if is_video_name(data.name):
        raise DataError(
            f"{data}: is a video; a data set is a folder of videos or a list that names them (twostream check and "
            "twostream predict take single videos)"
        )
    suffix = data.suffix.lower()
    if suffix == ".txt" and not is_sheet(csv_columns(data)):
        return read_text_list(data, base)
    if suffix in {".csv", ".tsv", ".txt"}:
        return read_csv(data, base)
    raise DataError(
        f"{data}: is neither a folder nor a .csv or .txt list, nor a video (these end in "
        f"{' '.join(sorted(VIDEO_SUFFIXES))})"
    )


def _read_folder(data: Path, split: int | None, videos: Path | None) -> Listing:
    for folders in ([data], [data / name for name in _entries(data, folders=True)]):
        found = [(folder, kind) for folder in folders for kind in _kinds(folder)]
        if len(found) > 1:
            names = [f"{kind} in {folder}" for folder, kind in found]
            raise DataError(
                f"{data}: there is more than one set of lists: {first_few(names)}; give the folder or the file that is "
                "meant, and the folder of the videos with --videos"
            )
        if found:
            ((folder, kind),) = found
            return _read_lists(folder, videos or data, kind, split)
    if videos is not None:
        raise DataError(f"{data}: has no lists or label sheet, so --videos {videos} has no use; leave it out")
    foreign = [name for name in _entries(data, folders=False) if name.lower().endswith(".csv")]
    said = [f"{name} (its columns: {','.join(csv_columns(data / name))})" for name in foreign]
    note = f"not read, because a label sheet has the columns path and label: {first_few(said)}"
    try:
        listing = read_class_folders(data)
    except DataError as error:
        if foreign:
            raise DataError(f"{error}; {note}") from error
        raise
    return replace(listing, notes=(*listing.notes, note)) if foreign else listing


def _entries(folder: Path, *, folders: bool) -> list[str]:
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from error
    names = [entry.name for entry in entries if entry.is_dir() == folders and not entry.name.startswith(".")]
    return sorted(names, key=natural_key)


def _kinds(folder: Path) -> list[str]:
    """The sets of lists in a folder: ``"UCF101 lists"``, ``"HMDB51 lists"``, ``"text lists"``, or a CSV's name."""
    names = _entries(folder, folders=False)
    official = []
    if any(is_ucf101_list(name) for name in names):
        official.append("UCF101 lists")
    if any(is_hmdb51_list(name) for name in names):
        official.append("HMDB51 lists")
    if official:
        return official
    if _by_part(names, ".txt", folder):
        return ["text lists"]
    sheets = [name for name in names if name.lower().endswith(".csv") and is_sheet(csv_columns(folder / name))]
    if len(sheets) > 1 and all(_part_in(name) for name in sheets):
        return ["CSV files"]
    return sheets


def _read_lists(folder: Path, base: Path, kind: str, split: int | None) -> Listing:
    if kind == "UCF101 lists":
        return read_ucf101(folder, base, split)
    if kind == "HMDB51 lists":
        return read_hmdb51(folder, base, split)
    if kind not in {"text lists", "CSV files"}:
        return read_csv(folder / kind, base)
    suffix, read = (".txt", read_text_list) if kind == "text lists" else (".csv", read_csv)
    by_part = _by_part(_entries(folder, folders=False), suffix, folder)
    numbers = {_split_in(path.name) for paths in by_part.values() for path in paths}
    wanted = numbers if split is None or numbers == {None} else {split}
    listings = []
    for (part, paths), number in itertools.product(by_part.items(), sorted(wanted, key=str)):
        of_split = [path for path in paths if _split_in(path.name) == number]
        # Lists of frame folders lie beside those of videos in mmaction2's data sets and say the same.
        chosen = [path for path in of_split if "rawframes" not in path.name.lower()] or of_split
        if len(chosen) > 1:
            raise DataError(
                f"{folder}: {first_few([path.name for path in chosen])} could all be the {part} list; give one file, "
                "or move the others away"
            )
        listings += [read(path, base, part) for path in chosen]
    if not listings:
        known = sorted(str(number) for number in numbers if number is not None)
        raise DataError(f"{folder}: there is no split {split}; the lists are for split {', '.join(known)}")
    return merge(listings, kind, "" if split is None or wanted == {None} else str(split))


def _words(name: str) -> list[str]:
    return re.split(r"[-_. ]+", posixpath.splitext(name)[0].casefold())


def _part_in(name: str) -> str:
    """The part that a list's name speaks of (``ucf101_train_split_1_videos.txt``), "" for none or several."""
    parts = {part for word in _words(name) if (part := part_of(word))}
    return parts.pop() if len(parts) == 1 else ""


def _split_in(name: str) -> int | None:
    match = re.search(r"(?:^|_)split_?(\d+)(?:_|$)", "_".join(_words(name)))
    return int(match[1]) if match else None


def _by_part(names: Iterable[str], suffix: str, folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = defaultdict(list)
    for name in names:
        if name.lower().endswith(suffix) and (part := _part_in(name)):
            found[part].append(folder / name)
    return found
