"""Which files are videos, in which order they are named, and where the videos lie that a list names."""

import os
import posixpath
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from twostream.data.items import DataError, counted, first_few

_ENDINGS = (
    ".3g2 .3gp .asf .avi .divx .dv .f4v .flv .gif .m2ts .m2v .m4v .mkv .mov .mp4 .mpe .mpeg .mpg .mts .mxf .ogv .qt "
    ".rm .rmvb .ts .vob .webm .wmv .y4m"
)
VIDEO_SUFFIXES = frozenset(_ENDINGS.split())
"""A file is taken for a video by these endings, in any case; what is inside is seen when it is opened."""

# Lists are matched to files this many folders down, so that a label sheet in a home folder does not search the disk.
_SEARCH_DEPTH = 5


def is_video_name(name: str) -> bool:
    """Whether the name ends like a video's and does not begin like a hidden file's."""
    return not name.startswith(".") and posixpath.splitext(name)[1].lower() in VIDEO_SUFFIXES


def without_suffix(name: str) -> str:
    """The name without its ending where that is a video's; ``clip 1.5`` stays whole."""
    stem, suffix = posixpath.splitext(name)
    return stem if suffix.lower() in VIDEO_SUFFIXES else name


def natural_key(name: str) -> tuple[list[tuple[int, int | str]], str]:
    """Sort key under which ``clip2`` comes before ``clip10`` and case matters only between equals."""
    pieces = re.split(r"(\d+)", name.casefold())
    # isdecimal and not isdigit: int() reads Arabic-Indic digits but not superscripts.
    return [(0, int(piece)) if piece.isdecimal() else (1, piece) for piece in pieces if piece], name


def list_videos(folder: Path, *, depth: int | None = None) -> list[str]:
    """All videos below ``folder`` as ``/``-separated relative names in natural order.

    Hidden files and folders are passed over. Links are followed, each folder once, so a link to a parent does no
    harm; a dangling link is listed, because whoever reads it must be told.

    Raises:
        DataError: the folder cannot be read.
    """
    return sorted(_walk(folder, "", depth, set()), key=natural_key)


def _walk(folder: Path, prefix: str, depth: int | None, seen: set[tuple[int, int]]) -> Iterator[str]:
    try:
        status = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        # A search for listed videos may meet folders that are none of its business.
        if prefix and depth is not None:
            return
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from error
    if (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if depth is None or depth > 0:
                below = None if depth is None else depth - 1
                yield from _walk(folder / entry.name, f"{prefix}{entry.name}/", below, seen)
        elif is_video_name(entry.name) and (entry.is_file() or entry.is_symlink()):
            yield prefix + entry.name


@dataclass(frozen=True)
class Located:
    """Where the videos of a list lie: ``found`` maps a listed name to its name below ``root``."""

    root: Path
    found: dict[str, str]
    notes: tuple[str, ...]


def locate(names: Sequence[str], base: Path) -> Located:
    """Find the videos that a list names, under ``base`` or one folder in it.

    A list may name videos from its own folder, from ``videos/``, ``UCF-101/`` or any other; the folder under which
    most of the names are found is the root. A video kept under another ending than the list says (``.avi`` turned
    into ``.mp4``, or none in the list) is found too, and that is noted. Names that lead outside the root (absolute,
    or through ``..``) are met with the deepest folder that holds all as the root.

    Raises:
        DataError: the base cannot be read, or a name fits several files.
    """
    unique = list(dict.fromkeys(names))
    direct = {name: path for name in unique if (path := _join(base, name)).is_file()}
    notes: list[str] = []
    if len(direct) == len(unique) or not base.is_dir():
        paths = direct
    else:
        files = list_videos(base, depth=_SEARCH_DEPTH)
        prefix, hits = _best_prefix(unique, files)
        if prefix and hits > len(direct):
            base = base / prefix
            direct = {name: path for name in unique if (path := _join(base, name)).is_file()}
            files = [file.removeprefix(f"{prefix}/") for file in files if file.startswith(f"{prefix}/")]
        renamed = _by_stem([name for name in unique if name not in direct], files)
        paths = direct | {name: _join(base, file) for name, file in renamed.items()}
        if renamed:
            first = next(iter(renamed.items()))
            notes.append(
                f"with another ending than listed: {counted(len(renamed), 'video')} (first {first[0]}: {first[1]})"
            )
    if outside := [path for path in paths.values() if not _inside(path, base)]:
        base = _common_folder([*paths.values(), base / "x"] if len(outside) < len(paths) else list(paths.values()))
    found = {name: Path(os.path.relpath(path, base)).as_posix() for name, path in paths.items()}
    return Located(base, found, tuple(notes))


def _join(base: Path, name: str) -> Path:
    # normpath and not resolve: a link's own name is the video's name.
    return Path(os.path.normpath(base / name)) if ".." in name else base / name


def _inside(path: Path, base: Path) -> bool:
    return _absolute(path).is_relative_to(_absolute(base))


def _absolute(path: Path) -> Path:
    return Path(os.path.normpath(path.absolute()))


def _common_folder(paths: Sequence[Path]) -> Path:
    try:
        return Path(os.path.commonpath([_absolute(path.parent) for path in paths]))
    except ValueError as error:
        raise DataError(
            f"the videos lie on several drives ({first_few([str(path) for path in paths], 3)}); "
            "put them under one folder"
        ) from error


def _stem_parts(name: str) -> tuple[str, ...]:
    # File systems differ in how they compose accents; lists come from other machines than videos.
    return tuple(unicodedata.normalize("NFC", without_suffix(posixpath.normpath(name))).split("/"))


def _best_prefix(names: Sequence[str], files: Sequence[str]) -> tuple[str, int]:
    by_last: dict[str, list[str]] = defaultdict(list)
    for file in files:
        by_last[_stem_parts(file)[-1]].append(file)
    hits: Counter[str] = Counter()
    for name in names:
        parts = _stem_parts(name)
        prefixes = {
            "/".join(file.split("/")[: -len(parts)])
            for file in by_last[parts[-1]]
            if _stem_parts(file)[-len(parts) :] == parts
        }
        hits.update(prefixes)
    if not hits:
        return "", 0
    return min(hits.items(), key=lambda hit: (-hit[1], hit[0].count("/"), natural_key(hit[0])))


def _by_stem(names: Sequence[str], files: Sequence[str]) -> dict[str, str]:
    if not names:
        return {}
    by_stem: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for file in files:
        by_stem[_stem_parts(file)].append(file)
    found: dict[str, str] = {}
    for name in names:
        candidates = by_stem.get(_stem_parts(name), [])
        if len(candidates) > 1:
            raise DataError(
                f"{name} is not there, and {first_few(candidates)} could all be meant; "
                "write the file's whole name into the list or keep one of them"
            )
        if candidates:
            found[name] = candidates[0]
    return found
