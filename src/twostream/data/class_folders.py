"""A folder per class, with or without ``train/ val/ test/`` above the classes."""

import os
from collections import Counter
from pathlib import Path, PurePosixPath

from twostream.data.items import PARTS, DataError, NoClassesError, counted, first_few
from twostream.data.listing import Listing, Row, part_of
from twostream.data.video_files import VIDEO_SUFFIXES, list_videos, natural_key

# A folder with nothing but these is beside the data (splits/, annotations/), not a class that lost its videos.
_ENDINGS = ".csv .doc .docx .html .json .md .pdf .rst .tsv .txt .xls .xlsx .xml .yaml .yml"
_DOCUMENTS = frozenset(_ENDINGS.split())


def read_class_folders(folder: Path) -> Listing:
    """Read the videos below each class folder; the classes are in natural order of their names.

    ``train``, ``val`` and ``test`` (and the usual other words for them) above the classes are the parts. Where
    the folder holds one folder that holds all classes (``videos/``), that one is read. A class folder without videos
    is a class all the same, so that it can be reported.

    Raises:
        DataError: no videos, or none in class folders; parts beside classes.
    """
    files = list_videos(folder)
    folders = _folders(folder)
    holding = [name for name in folders if any(file.startswith(f"{name}/") for file in files)]
    loose = [file for file in files if "/" not in file]
    if not holding:
        if loose:
            raise NoClassesError(
                f"{folder}: {counted(len(loose), 'video')} in no class folder (first {loose[0]}); wanted "
                "CLASS/video.mp4, or a CSV file with the columns path,label"
            )
        raise DataError(_nothing(folder))
    parts = [name for name in holding if part_of(name)]
    nested = [name for name in parts if any(file.startswith(f"{name}/") and file.count("/") > 1 for file in files)]
    if len(holding) == len(parts) and not nested and len(parts) > 1:
        raise DataError(
            f"{folder}: {first_few(parts)} hold videos but no class folders; wanted {parts[0]}/CLASS/video.mp4, or a "
            "CSV file with the columns path,label,split"
        )
    if len(holding) == len(nested):
        return _in_parts(folder, files, nested, loose)
    if nested:
        others = [name for name in holding if name not in nested]
        raise DataError(
            f"{folder}: {first_few(nested)} would be the parts of a split, but there are videos in "
            f"{first_few(others)} as well; move one or the other away, or name the videos in a CSV file"
        )
    classes, passed_over = _classes(folder, folders, files)
    if len(classes) == 1 and not loose:
        (inner,) = classes
        below = [file.removeprefix(f"{inner}/") for file in files]
        if all("/" in file for file in below) and len({file.split("/")[0] for file in below}) > 1:
            return read_class_folders(folder / inner)
    label = {name: position for position, name in enumerate(classes)}
    rows = [Row(f, label[f.split("/")[0]], "", str(folder / f)) for f in files if "/" in f]
    return Listing("folder per class", folder, tuple(rows), classes, _notes(loose, passed_over), on_disk=True)


def _in_parts(folder: Path, files: list[str], parts: list[str], loose: list[str]) -> Listing:
    meant = {name: part_of(name) for name in parts}
    for part, count in Counter(meant.values()).items():
        if count > 1:
            same = [name for name in parts if meant[name] == part]
            raise DataError(f"{folder}: {first_few(same)} both mean the {part} part; put their videos into one of them")
    found: set[str] = set()
    passed_over: list[str] = []
    for name in parts:
        below = [file.removeprefix(f"{name}/") for file in files if file.startswith(f"{name}/")]
        classes, documents = _classes(folder / name, _folders(folder / name), below)
        found.update(classes)
        passed_over += [f"{name}/{document}" for document in documents]
        loose = [*loose, *(f"{name}/{file}" for file in below if "/" not in file)]
    classes = tuple(sorted(found, key=natural_key))
    label = {name: position for position, name in enumerate(classes)}
    order = sorted(parts, key=lambda name: PARTS.index(meant[name]))
    rows = [
        Row(file, label[file.split("/")[1]], meant[name], str(folder / file))
        for name in order
        for file in files
        if file.startswith(f"{name}/") and file.count("/") > 1
    ]
    notes = (f"parts by folder: {', '.join(f'{name}/ is {meant[name]}' for name in order)}",)
    kind = "folder per class in parts"
    return Listing(kind, folder, tuple(rows), classes, notes + _notes(loose, passed_over), on_disk=True)


def _folders(folder: Path) -> list[str]:
    names = [entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(".")]
    return sorted(names, key=natural_key)


def _classes(folder: Path, folders: list[str], files: list[str]) -> tuple[tuple[str, ...], list[str]]:
    holding = {file.split("/")[0] for file in files if "/" in file}
    passed_over = [name for name in folders if name not in holding and _only_documents(folder / name)]
    return tuple(name for name in folders if name not in passed_over), passed_over


def _only_documents(folder: Path) -> bool:
    suffixes = _suffixes(folder)
    return bool(suffixes) and suffixes.keys() <= _DOCUMENTS


def _suffixes(folder: Path) -> Counter[str]:
    names = (name for _, _, files in os.walk(folder) for name in files if not name.startswith("."))
    return Counter(PurePosixPath(name).suffix.lower() for name in names)


def _nothing(folder: Path) -> str:
    suffixes = _suffixes(folder)
    if suffixes.keys() & {".jpg", ".jpeg", ".png", ".bmp"}:
        return (
            f"{folder}: there are pictures but no videos; frame folders are not read, make a video of each, as in: "
            "ffmpeg -framerate 25 -i img_%05d.jpg video.mp4"
        )
    others = ", ".join(f"{count} {suffix or 'without ending'}" for suffix, count in suffixes.most_common(5))
    return (
        f"{folder}: there are no videos ({'its files: ' + others if others else 'it holds no files'}); "
        f"wanted files ending in {' '.join(sorted(VIDEO_SUFFIXES))}"
    )


def _notes(loose: list[str], passed_over: list[str]) -> tuple[str, ...]:
    notes = []
    if loose:
        notes.append(f"left out, being in no class folder: {counted(len(loose), 'video')}: {first_few(loose)}")
    if passed_over:
        notes.append(f"folders without videos passed over: {first_few(passed_over)}")
    return tuple(notes)
