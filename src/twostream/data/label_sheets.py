"""Label sheets: CSV files with a header, and the text lists of mmaction2 (``video.mp4 label`` on a line)."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from twostream.data.items import PARTS, DataError, first_few
from twostream.data.listing import Listing, Row, clean_name, part_of, part_words, read_lines, read_text
from twostream.data.video_files import VIDEO_SUFFIXES

_NEEDED = ("path", "label")
_OPTIONAL = ("start", "end", "group", "split")
_COLUMNS = "path,label and optionally start,end,group,split"
_SUFFIX = "|".join(re.escape(suffix) for suffix in sorted(VIDEO_SUFFIXES, key=len, reverse=True))
_VIDEO_LINE = re.compile(rf"(.*(?:{_SUFFIX}))[\s,]+(.+)", re.IGNORECASE)
_FRAMES_LINE = re.compile(r"(.+?)((?:\s+\d+)+)")
_WANTED_LINE = "wanted 'video.mp4 label' on each line"


def csv_columns(path: Path) -> tuple[str, ...]:
    """The column names of a CSV file in lower case; empty for an empty file."""
    return tuple(_header(read_text(path)[0])[0])


def is_sheet(columns: Sequence[str]) -> bool:
    """Whether columns are those of a label sheet."""
    return all(name in columns for name in _NEEDED)


def read_csv(path: Path, base: Path, part: str = "") -> Listing:
    """Read a CSV file with the columns ``path,label`` and optionally ``start,end,group,split``.

    ``start`` and ``end`` are in seconds, ``mm:ss`` or ``hh:mm:ss``; an empty one is the beginning or the end of the
    recording. ``split`` says train, val or test. Semicolons and tabs between the cells are taken as well.

    Args:
        path: the file.
        base: folder that paths are meant from.
        part: what all rows belong to where the file's name says so.

    Raises:
        DataError: a column is missing, or a cell cannot be read; the message names the line.
    """
    text, note = read_text(path)
    columns, delimiter = _header(text)
    if not is_sheet(columns):
        got = ",".join(columns) if columns else "an empty file"
        raise DataError(f"{path}: wanted a header with the columns {_COLUMNS}; got {got}")
    if repeated := sorted({name for name in columns if name and columns.count(name) > 1}):
        raise DataError(f"{path}: the header has {first_few(repeated)} more than once")
    notes = [note] if note else []
    if ignored := [name for name in columns if name and name not in _NEEDED + _OPTIONAL]:
        notes.append(f"columns of {path.name} that are not used: {first_few(ignored)}")
    rows: list[Row] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells) or (not rows and _names(cells) == columns):
                continue
            rows.append(_csv_row(cells, columns, f"{path}:{reader.line_num}", part))
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: not CSV ({error})") from error
    if not rows:
        raise DataError(f"{path}: has a header but no rows")
    return Listing("CSV", base, tuple(rows), notes=tuple(notes), names_from=path.parent)


def _names(cells: Sequence[str]) -> list[str]:
    return [cell.strip().casefold() for cell in cells]


def _header(text: str) -> tuple[list[str], str]:
    first = next((line for line in text.splitlines() if line.strip()), "")
    for delimiter in (",", ";", "\t"):
        names = _names(next(csv.reader([first], delimiter=delimiter), []))
        if is_sheet(names):
            return names, delimiter
    return _names(next(csv.reader([first]), [])), ","


def _csv_row(cells: Sequence[str], columns: Sequence[str], where: str, part: str) -> Row:
    if len(cells) > len(columns) and any(cell.strip() for cell in cells[len(columns) :]):
        raise DataError(
            f"{where}: {len(cells)} cells under {len(columns)} columns; put names that hold the separator in quotes"
        )
    row = dict(zip(columns, (cell.strip() for cell in cells), strict=False))
    if empty := [name for name in _NEEDED if not row.get(name)]:
        raise DataError(f"{where}: the {empty[0]} is empty")
    if "split" in columns and not part:
        part = part_of(row.get("split", ""))
        if not part:
            raise DataError(f"{where}: the split is {row.get('split', '')!r}; wanted one of: {part_words()}")
    start, end = (_seconds(row.get(name, ""), name, where) for name in ("start", "end"))
    if end is not None and end <= (start or 0.0):
        raise DataError(f"{where}: the end ({end:g} s) does not come after the start ({start or 0.0:g} s)")
    return Row(clean_name(row["path"]), row["label"], part, where, row.get("group", ""), start, end)


def _seconds(text: str, column: str, where: str) -> float | None:
    """Seconds of ``7.5``, ``1:07.5`` and ``0:01:07.5``; None for an empty cell."""
    if not text:
        return None
    if not re.fullmatch(r"(\d+:){0,2}\d+([.,]\d*)?", text):
        raise DataError(f"{where}: the {column} is {text!r}; wanted seconds (7.5), mm:ss (1:07.5) or hh:mm:ss")
    seconds = 0.0
    for piece in text.replace(",", ".").split(":"):
        seconds = seconds * 60 + float(piece)
    return seconds


def read_text_list(path: Path, base: Path, part: str = "") -> Listing:
    """Read a text list of mmaction2: ``video.mp4 label`` on a line, the label a whole number or a name.

    A list of frame folders (``folder total_frames label``) is read too: its rows are marked, so that videos of the
    same names can take the folders' place.

    Raises:
        DataError: a line that cannot be read, several labels for a video, frame folders with an offset.
    """
    lines, note = read_lines(path)
    if not lines:
        raise DataError(f"{path}: is empty; {_WANTED_LINE}")
    rows: list[Row] = []
    kinds: dict[bool, str] = {}
    for number, line in lines:
        row, frames = _text_row(line, f"{path}:{number}", part)
        rows.append(row)
        kinds.setdefault(frames, f"{path}:{number}: {line!r}")
    if len(kinds) == 2:
        raise DataError(f"a list names videos or folders of frames, not both; {kinds[False]} and {kinds[True]}")
    notes = (note,) if note else ()
    return Listing("text list", base, tuple(rows), notes=notes, names_from=path.parent, frame_folders=True in kinds)


def _text_row(line: str, where: str, part: str) -> tuple[Row, bool]:
    if match := _VIDEO_LINE.fullmatch(line):
        video, label = match[1], match[2].strip()
        if len(label.split()) > 1 and all(word.isdecimal() for word in label.split()):
            raise DataError(f"{where}: {line!r} gives several labels to one video; only one label a video is supported")
        return Row(clean_name(video), label, part, where), False
    match = _FRAMES_LINE.fullmatch(line)
    numbers = match[2].split() if match else []
    if match is None:
        raise DataError(f"{where}: {_WANTED_LINE}, got {line!r}")
    if len(numbers) == 1:
        return Row(clean_name(match[1]), numbers[0], part, where), False
    if len(numbers) == 2:
        return Row(clean_name(match[1]), numbers[1], part, where), True
    raise DataError(
        f"{where}: {line!r} is a folder of frames with an offset, or several labels for one video; neither can be "
        f"used here, {_WANTED_LINE}"
    )


def merge(listings: Sequence[Listing], kind: str, split: str = "") -> Listing:
    """One listing of the rows of several files, one for each part."""
    notes = [note for listing in listings for note in listing.notes]
    frames = {listing.frame_folders for listing in listings}
    if len(frames) == 2:
        raise DataError("some of the lists name videos and others folders of frames; use lists of videos for all parts")
    rows = [row for part in PARTS for listing in listings for row in listing.rows if row.part == part]
    return replace(
        listings[0], kind=kind, rows=tuple(rows), notes=tuple(notes), frame_folders=frames.pop(), split=split
    )
