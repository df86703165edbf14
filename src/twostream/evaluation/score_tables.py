"""Scores as other people keep them, one number a video and class: CSV and plain NPZ, read and written.

=====  ================================================================================================
CSV    ``video,<class 1>,<class 2>,...`` in any order, perhaps with a column ``label``; commas, semicolons or tabs
NPZ    arrays ``scores`` (N, K), ``videos`` (N,) and ``classes`` (K,), perhaps ``labels`` (N,)
=====  ================================================================================================
"""

import csv
import io
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from twostream.clip import Scores, ScoresError
from twostream.data.items import DataError, first_few
from twostream.data.listing import read_text
from twostream.errors import UsageError
from twostream.evaluation.metrics import FloatArray, IntArray, probabilities
from twostream.evaluation.video_names import AmbiguousNameError, match_videos
from twostream.files import write_text

Kind = Literal["logits", "probabilities", "margins"]

_VIDEO, _LABEL = "video", "label"
_WANTED_CSV = "a header video,<class 1>,<class 2>,... and perhaps label"
_WANTED_NPZ = "arrays scores (N, K), videos (N,), classes (K,) and perhaps labels (N,)"

# Rows of a hundred probabilities that were printed with four digits sum to 1 within this.
_SUM = 0.01
# A probability printed as 0 was a small one; what float32 can add to 1.
_SMALLEST = float(np.finfo(np.float32).eps)


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoreTable:
    """One number for each of N videos and K classes, whatever the numbers are.

    Attributes:
        path: the file.
        values: (N, K).
        labels: (N,) class indices, -1 where the file does not know.
    """

    path: Path
    values: FloatArray
    labels: IntArray
    videos: tuple[str, ...]
    classes: tuple[str, ...]


def read_scores(path: Path | str) -> Scores | ScoreTable:
    """A scores file of ours, or a table of somebody else.

    Raises:
        ScoresError: neither; names the place and what was wanted.
    """
    path = Path(path)
    if not zipfile.is_zipfile(path):
        # What is called .npz and is none is damaged or absent, and told as such.
        return Scores.load(path) if path.suffix.lower() == ".npz" or not path.exists() else _read_csv(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = set(archive.files)
            if "header" not in names and {"scores", "videos", "classes"} <= names:
                return _from_arrays(path, {name: archive[name] for name in names})
    except ScoresError:
        raise
    # What foreign or damaged bytes make the archive reader raise has no common ancestor.
    except Exception as error:
        if "allow_pickle" in str(error):
            raise ScoresError(
                f"{path}: holds Python objects, which are not opened; keep names as text, np.array(names, dtype=str)"
            ) from error
        raise ScoresError(f"{path}: a damaged archive ({error})") from error
    if "header" not in names:
        raise ScoresError(f"{path}: wanted scores of twostream, or {_WANTED_NPZ}; got {first_few(sorted(names))}")
    return Scores.load(path)


def _from_arrays(path: Path, arrays: dict[str, npt.NDArray[Any]]) -> ScoreTable:
    values = arrays["scores"]
    if values.ndim != 2 or values.dtype.kind not in "fiu":
        raise ScoresError(f"{path}: scores must be numbers (N, K), got {values.dtype} {values.shape}")
    names = {}
    for key, count in (("videos", values.shape[0]), ("classes", values.shape[1])):
        names[key] = _texts(path, key, arrays[key])
        if len(names[key]) != count:
            raise ScoresError(f"{path}: scores {values.shape} need {count} {key}, got {len(names[key])}")
    labels: list[str] | IntArray = [""] * len(values)
    if "labels" in arrays:
        given = arrays["labels"]
        if given.ndim == 1 and given.dtype.kind in "iu":
            labels = given.astype(np.int64)
        else:
            labels = _texts(path, "labels", given)
        if len(labels) != len(values):
            raise ScoresError(f"{path}: scores {values.shape} need {len(values)} labels, got {len(labels)}")
    return _table(path, values.astype(np.float64), names["videos"], names["classes"], labels)


def _texts(path: Path, key: str, given: npt.NDArray[Any]) -> list[str]:
    if given.ndim != 1 or given.dtype.kind not in "US":
        raise ScoresError(f"{path}: {key} must be a row of texts, got {given.dtype} {given.shape}")
    return [name.decode("utf-8") if isinstance(name, bytes) else str(name) for name in given.tolist()]


def _read_csv(path: Path) -> ScoreTable:
    try:
        text, _ = read_text(path)
    except DataError as error:
        raise ScoresError(str(error)) from error
    first = next((line for line in text.splitlines() if line.strip()), "")
    for delimiter in (",", ";", "\t"):
        columns = [cell.strip() for cell in next(csv.reader([first], delimiter=delimiter), [])]
        if _VIDEO in (folded := [column.casefold() for column in columns]):
            break
    else:
        raise ScoresError(f"{path}: wanted {_WANTED_CSV}; got {first[:80]!r}")
    special = {name: folded.index(name) for name in (_VIDEO, _LABEL) if name in folded}
    if twice := [name for name in special if folded.count(name) > 1]:
        raise ScoresError(f"{path}: the header has {first_few(twice)} more than once")
    numbers = [place for place in range(len(columns)) if place not in special.values()]
    videos: list[str] = []
    labels: list[str] = []
    values: list[list[float]] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            where = f"{path}:{reader.line_num}"
            if not videos and [cell.strip() for cell in cells] == columns:
                continue
            if len(cells) != len(columns):
                raise ScoresError(f"{where}: {len(cells)} cells under {len(columns)} columns")
            videos.append(cells[special[_VIDEO]].strip())
            labels.append(cells[special[_LABEL]].strip() if _LABEL in special else "")
            values.append([_number(cells[place], columns[place], where, delimiter) for place in numbers])
    except csv.Error as error:
        raise ScoresError(f"{path}:{reader.line_num}: not CSV ({error})") from error
    if not videos or not numbers:
        raise ScoresError(f"{path}: has no {'classes' if videos else 'rows'}; wanted {_WANTED_CSV}")
    return _table(path, np.array(values, dtype=np.float64), videos, [columns[place] for place in numbers], labels)


def _number(cell: str, column: str, where: str, delimiter: str) -> float:
    try:
        # Where commas do not part the cells they part the decimals, as spreadsheets of many countries write.
        return float(cell if delimiter == "," else cell.replace(",", "."))
    except ValueError:
        raise ScoresError(f"{where}: the score of {column} is {cell.strip()!r}; wanted a number") from None


def _table(
    path: Path, values: FloatArray, videos: Sequence[str], classes: Sequence[str], labels: Sequence[str] | IntArray
) -> ScoreTable:
    for what, names in (("video", videos), ("class", classes)):
        if "" in names:
            raise ScoresError(f"{path}: {what} number {list(names).index('') + 1} has no name")
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise ScoresError(f"{path}: names the {what} {twice[0]!r} more than once")
    # Scores are kept as 32-bit floats, which must hold them too.
    finite = np.abs(values) <= np.finfo(np.float32).max
    if not finite.all():
        n, k = (int(place) for place in np.argwhere(~finite)[0])
        raise ScoresError(
            f"{path}: the score of {classes[k]} for {videos[n]} is {values[n, k]:g}; wanted a finite number"
        )
    if isinstance(labels, np.ndarray):
        wrong = np.flatnonzero((labels < -1) | (labels >= len(classes)))
        if len(wrong):
            n = int(wrong[0])
            raise ScoresError(f"{path}: the label of {videos[n]} is {labels[n]}; wanted -1 to {len(classes) - 1}")
    else:
        places = _match_classes([*dict.fromkeys(filter(None, labels))], classes)
        for video, label in zip(videos, labels, strict=True):
            if label and places[label] is None:
                raise ScoresError(f"{path}: the label of {video} is {label!r}, which is no class of the file")
        labels = np.array([-1 if not label else places[label] for label in labels], dtype=np.int64)
    return ScoreTable(path=path, values=values, labels=labels, videos=tuple(videos), classes=tuple(classes))


def matched(table: ScoreTable, videos: Sequence[str], classes: Sequence[str], *, where: str) -> ScoreTable:
    """The table in the order, and under the names, of ``videos`` and ``classes``, which are those of ``where``.

    Videos are matched as :func:`match_videos` says, classes by name, where need be without regard to case.

    Raises:
        ScoresError: a name that fits several videos or two that fit one, videos or classes that one has and the other
            lacks; the first few are named.
    """
    try:
        places = match_videos(table.videos, videos)
    except AmbiguousNameError as error:
        raise ScoresError(f"{table.path}: {error}") from error
    rows = _inverse(table, "videos", table.videos, places, videos, where)
    by_name = _match_classes(table.classes, classes)
    columns = _inverse(table, "classes", table.classes, [by_name[name] for name in table.classes], classes, where)
    labels = table.labels[rows]
    place = np.argsort(columns)
    return ScoreTable(
        path=table.path,
        values=table.values[rows][:, columns],
        labels=np.where(labels >= 0, place[np.maximum(labels, 0)], -1).astype(np.int64),
        videos=tuple(videos),
        classes=tuple(classes),
    )


def _match_classes(names: Sequence[str], wanted: Sequence[str]) -> dict[str, int | None]:
    exact = {name: place for place, name in enumerate(wanted)}
    count = Counter(name.casefold() for name in wanted)
    folded = {name.casefold(): place for place, name in enumerate(wanted) if count[name.casefold()] == 1}
    return {name: exact.get(name, folded.get(name.casefold())) for name in names}


def _inverse(
    table: ScoreTable, what: str, names: Sequence[str], places: Sequence[int | None], wanted: Sequence[str], where: str
) -> IntArray:
    """For each of ``wanted`` the place among ``names``."""
    found: dict[int, int] = {}
    for own, place in enumerate(places):
        if place is not None and found.setdefault(place, own) != own:
            raise ScoresError(
                f"{table.path}: {names[found[place]]} and {names[own]} both mean {wanted[place]} of {where}"
            )
    lacking = [name for place, name in enumerate(wanted) if place not in found]
    extra = [name for name, place in zip(names, places, strict=True) if place is None]
    if lacking or extra:
        said = [f"it lacks {len(lacking)} ({first_few(lacking, 3)})"] if lacking else []
        said += [f"it has {len(extra)} more ({first_few(extra, 3)})"] if extra else []
        raise ScoresError(f"{table.path}: speaks of other {what} than {where}: {' and '.join(said)}")
    return np.array([found[place] for place in range(len(wanted))], dtype=np.int64)


def looks_like(table: ScoreTable) -> Kind:
    """``"probabilities"`` where every row lies in 0..1 and sums to 1, else ``"logits"``."""
    return "logits" if _no_distribution(table) else "probabilities"


def _no_distribution(table: ScoreTable) -> str:
    """Why the first row that is no distribution is none; "" where all are."""
    for video, row in zip(table.videos, table.values, strict=True):
        if row.min() < 0 or row.max() > 1 or abs(row.sum() - 1) > _SUM:
            return f"those of {video} go from {row.min():g} to {row.max():g} and sum to {row.sum():g}"
    return ""


def logits_of(table: ScoreTable, kind: Kind) -> npt.NDArray[np.float32]:
    """(N, K) whose softmax is the table's distribution: logits and margins as they are, probabilities as logarithms.

    A probability below 1.2e-7 counts as that, because zeros in a file were rounded.

    Raises:
        ScoresError: rows that are called probabilities and are none.
    """
    if kind != "probabilities":
        return table.values.astype(np.float32)
    if why := _no_distribution(table):
        raise ScoresError(f"{table.path}: not probabilities, {why}; say --outside logits or margins")
    return np.log(np.maximum(table.values, _SMALLEST)).astype(np.float32)


def write_table(path: Path | str, scores: Scores) -> None:
    """Write ``video,label,<classes>`` with the merged probabilities, a row a video, for other people's programs.

    Raises:
        UsageError: a class is called like one of the two columns.
        OutputError: the file cannot be written.
    """
    if taken := [name for name in scores.classes if name.strip().casefold() in (_VIDEO, _LABEL)]:
        raise UsageError(f"{path}: a class is called {taken[0]!r}, which is the name of a column of its own")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((_VIDEO, _LABEL, *scores.classes))
    for video, label, row in zip(scores.videos, scores.labels.tolist(), probabilities(scores).tolist(), strict=True):
        writer.writerow((video, scores.classes[label] if label >= 0 else "", *(f"{value:.9g}" for value in row)))
    write_text(path, text.getvalue())


__all__ = ["Kind", "ScoreTable", "logits_of", "looks_like", "matched", "read_scores", "write_table"]
