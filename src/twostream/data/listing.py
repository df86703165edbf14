"""What every reader of annotations returns, and how their text files are read."""

import codecs
from dataclasses import dataclass
from pathlib import Path

from twostream.data.items import PARTS, DataError

_PART_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class Row:
    """One line of annotation, before anybody has looked for its video.

    Attributes:
        video: the name as written, with ``/`` between folders.
        label: a class index where the reader knows the classes, else the text of the label.
        part: ``train``, ``val``, ``test``, or "" where the annotation says nothing.
        where: file and line, for messages.
    """

    video: str
    label: int | str
    part: str
    where: str
    group: str = ""
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class Listing:
    """What a reader found.

    Attributes:
        kind: the format, as people call it.
        base: the folder that names are meant from.
        classes: class names in the order of the indices; None where rows carry the labels' text.
        on_disk: the names are those of files that were seen, and need no looking for.
        official: published lists, taken as they are: groups on both sides are reported and not refused.
        names_from: folder in which a file with names for whole-number labels may lie.
        frame_folders: the names are those of folders of frames, not of videos.
        split: which of the numbered splits this is; "" where the annotation has no number.
    """

    kind: str
    base: Path
    rows: tuple[Row, ...]
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    on_disk: bool = False
    official: bool = False
    names_from: Path | None = None
    frame_folders: bool = False
    split: str = ""


def part_of(name: str) -> str:
    """``train``, ``val`` or ``test`` for what people call these parts, "" for any other word."""
    return _PART_NAMES.get(name.strip().casefold(), "")


def part_words() -> str:
    """The words that :func:`part_of` knows, for messages."""
    return "; ".join(" = ".join(word for word, meant in _PART_NAMES.items() if meant == part) for part in PARTS)


def read_text(path: Path) -> tuple[str, str]:
    """The text of a list and, where it is not UTF-8, a note on how it was read.

    Byte-order marks are dropped and UTF-16 (what spreadsheets call Unicode text) is recognised by its mark. What is
    not UTF-8 is read as Latin-1, which never fails.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", errors="replace"), f"{path.name} was read as UTF-16"
    try:
        return content.decode("utf-8-sig"), ""
    except UnicodeDecodeError:
        return content.decode("latin-1"), f"{path.name} is not UTF-8 and was read as Latin-1"


def read_lines(path: Path) -> tuple[list[tuple[int, str]], str]:
    """The non-blank lines of a list, stripped, with their numbers; and the note of :func:`read_text`."""
    text, note = read_text(path)
    # Not splitlines(): names may hold characters that Unicode counts as line ends.
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()], note


def clean_name(name: str) -> str:
    """A listed name with ``/`` between folders and no ``./`` in front, wherever the list was written."""
    name = name.strip().replace("\\", "/")
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    return name
