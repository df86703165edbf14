"""Every video read, every list compared with what is there: what is wrong is found before training begins."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from twostream.data.annotations import Annotations, load_annotations
from twostream.data.items import DataError, NoClassesError, VideoItem, counted, first_few
from twostream.data.reading import Progress, read_videos
from twostream.data.sampling import frame_range
from twostream.data.video_files import is_video_name, list_videos, natural_key
from twostream.files import sha256_of
from twostream.video import VideoError, VideoInfo

_LISTS = {".csv", ".tsv", ".txt"}


@dataclass(frozen=True)
class CheckReport:
    """What :func:`check` found.

    Attributes:
        found: what each video showed, or its error, in the order of the data set.
        problems: what is wrong, in sentences; errors of single videos are not repeated.
        annotations: the data set, where the videos are one.
    """

    found: Mapping[Path, VideoInfo | VideoError]
    problems: tuple[str, ...]
    annotations: Annotations | None = None

    @property
    def errors(self) -> tuple[VideoError, ...]:
        """The errors of videos that cannot be read."""
        return tuple(result for result in self.found.values() if isinstance(result, VideoError))

    @property
    def ok(self) -> bool:
        """Whether every video was read and nothing is wrong."""
        return not self.errors and not self.problems

    def to_dict(self) -> dict[str, Any]:
        """``{"videos": [{"video", "frames", "fps", "width", "height"} or {"video", "error"}], "problems": [...]}``."""
        videos: list[dict[str, Any]] = []
        for path, result in self.found.items():
            if isinstance(result, VideoError):
                videos.append({"video": _text(path), "error": result.reason})
            else:
                videos.append(
                    {
                        "video": _text(path),
                        "frames": result.frames,
                        "fps": result.fps,
                        "width": result.width,
                        "height": result.height,
                    }
                )
        return {"videos": videos, "problems": list(self.problems)}

    def lines(self) -> list[str]:
        """The report for the terminal: the data set, unreadable videos, problems, and what the readable ones are."""
        lines = self.annotations.describe().splitlines() if self.annotations else []
        good = [result for result in self.found.values() if isinstance(result, VideoInfo)]
        if 0 < len(self.found) <= 60:
            lines += _table(self.found)
        else:
            lines += [f"cannot be read: {_text(error.path)}: {error.reason}" for error in self.errors]
        lines += [f"problem: {problem}" for problem in self.problems]
        lines.append(f"{counted(len(self.found), 'video')}: {len(good):,} readable, {len(self.errors):,} not")
        if good:
            frames = [info.frames for info in good]
            lines.append(f"frames: {min(frames):,} to {max(frames):,}, median {median(frames):g}")
            lines.append(f"sizes: {_most_common(f'{info.width}x{info.height}' for info in good)}")
            lines.append(f"frame rates: {_most_common(f'{info.fps:.4g}' for info in good)}")
        lines.append("nothing wrong" if self.ok else f"to look at: {len(self.errors) + len(self.problems)}")
        return lines


def check(
    data: Path | str | Sequence[Path | str],
    *,
    split: str | int = 1,
    videos: Path | str | None = None,
    allow_missing: bool = False,
    workers: int = 1,
    progress: Progress | None = None,
    shortest: int = 11,
) -> CheckReport:
    """Read every video of a data set, of a folder, or of those given, and compare the lists with what is there.

    Args:
        data: a data set, a folder of loose videos, a video file, or several of the last two.
        split: number of the split, where the data set has several; or a fold, as in :func:`load_annotations`.
        videos: folder under which listed videos lie, where that is not in the data set.
        allow_missing: missing listed videos are no problem.
        workers: processes.
        progress: called with (done, total, name) after each video.
        shortest: frames that a clip needs; 11 make the 10 fields of one flow stack.

    Raises:
        DataError: there is nothing to be read: no such path, no videos.
    """
    problems: list[str] = []
    annotations = None
    if isinstance(data, str | Path):
        path = Path(data)
        if path.is_dir() or (path.suffix.lower() in _LISTS):
            annotations, paths, problems = _data_set(path, split, videos, allow_missing)
        else:
            paths = _loose([path])
            if not path.exists() and not is_video_name(path.name):
                raise DataError(f"{path}: no such file or folder")
    else:
        paths = _loose([Path(one) for one in data])
    found = read_videos(paths, workers=workers, progress=progress)
    items = annotations.items() if annotations else tuple(VideoItem(path, _text(path), -1) for path in found)
    problems += _lengths(items, found, shortest)
    problems += _duplicates(found, annotations)
    return CheckReport(found, tuple(problems), annotations)


def _loose(paths: Iterable[Path]) -> list[Path]:
    return [
        file for path in paths for file in ([path / name for name in list_videos(path)] if path.is_dir() else [path])
    ]


def _data_set(
    data: Path, split: str | int, videos: Path | str | None, allow_missing: bool
) -> tuple[Annotations | None, list[Path], list[str]]:
    """The data set, its files and what its names and counts tell; without the first if it is none."""
    try:
        annotations = load_annotations(data, split=split, videos=videos, allow_missing=True, allow_leak=True)
    except DataError as error:
        paths = _loose([data]) if data.is_dir() else []
        if not paths:
            raise
        # A folder of loose videos is a fair thing to check; lists or folders that do not fit are a finding.
        return None, paths, [] if isinstance(error, NoClassesError) else [str(error)]
    accepted = replace(annotations, missing=()) if allow_missing else annotations
    return annotations, [item.path for item in annotations.items()], accepted.problems()


def _lengths(items: Sequence[VideoItem], found: Mapping[Path, VideoInfo | VideoError], shortest: int) -> list[str]:
    short: list[str] = []
    outside: list[str] = []
    for item in items:
        info = found[item.path]
        if isinstance(info, VideoError):
            continue
        frames = len(frame_range(item.start, item.end, info.fps, info.frames))
        # Sheets round their times: a frame beyond the end is no mistake.
        if max(item.start or 0.0, item.end or 0.0) > info.seconds + 1 / info.fps:
            outside.append(f"{item.name} (the video has {info.seconds:.2f} s)")
        elif frames < shortest:
            short.append(f"{item.name} ({frames} frame{'s' * (frames != 1)})")
    problems = []
    if short:
        problems.append(
            f"shorter than the {shortest} frames that are needed: {counted(len(short), 'clip')}: {first_few(short)}"
        )
    if outside:
        problems.append(f"beyond the end of the video: {counted(len(outside), 'segment')}: {first_few(outside)}")
    return problems


def _duplicates(paths: Iterable[Path], annotations: Annotations | None) -> list[str]:
    """Sentences on files of the same bytes; those that stand in two parts or under two labels come first."""
    seats: dict[Path, set[tuple[str, int]]] = defaultdict(set)
    if annotations:
        for part, items in annotations.parts.items():
            for item in items:
                seats[item.path].add((part, item.label))
    across: list[str] = []
    mislabelled: list[str] = []
    plain: list[str] = []
    for same in _same_bytes(paths):
        of_set = [seats[path] for path in same]
        parts = {part for seat in of_set for part, _ in seat}
        text = " = ".join(_seated(path, seat, annotations) for path, seat in zip(same, of_set, strict=True))
        # A recording that a sheet cuts into segments has several labels by itself; its copy has the same ones.
        if len({frozenset(label for _, label in seat) for seat in of_set}) > 1:
            mislabelled.append(text)
        elif len(parts) > 1:
            across.append(text)
        else:
            plain.append(text)
    sentences = (
        (mislabelled, "under different labels"),
        (across, "in different parts of the split"),
        (plain, "more than once"),
    )
    return [f"the same file {where}: {first_few(texts)}" for texts, where in sentences if texts]


def _seated(path: Path, seats: set[tuple[str, int]], annotations: Annotations | None) -> str:
    if annotations is None:
        return _text(path)
    words = sorted(f"{part} {annotations.classes[label]}" for part, label in seats)
    name = path.relative_to(annotations.root).as_posix()
    return f"{name} ({first_few(words, 2)})"


def _same_bytes(paths: Iterable[Path]) -> list[list[Path]]:
    by_size: dict[int, list[Path]] = defaultdict(list)
    for path in paths:
        if path.is_file() and (size := path.stat().st_size):
            by_size[size].append(path)
    by_content: dict[str, list[Path]] = defaultdict(list)
    for same_size in by_size.values():
        if len(same_size) > 1:
            for path in same_size:
                by_content[sha256_of(path)].append(path)
    return [same for same in by_content.values() if len(same) > 1]


def _table(found: Mapping[Path, VideoInfo | VideoError]) -> list[str]:
    folder = Path(os.path.commonpath([path.parent for path in found]))
    rows = []
    for path, result in found.items():
        name = _text(path.relative_to(folder))
        if isinstance(result, VideoError):
            rows.append((1, name, f"cannot be read: {result.reason}"))
        else:
            rows.append((2, name, f"{result.frames:>7} frames {result.fps:>8.4g} fps  {result.width}x{result.height}"))
    width = min(60, max(len(name) for _, name, _ in rows))
    return [f"{name:<{width}} {text}" for _, name, text in sorted(rows, key=lambda row: (row[0], natural_key(row[1])))]


def _text(path: Path) -> str:
    """The name with ``?`` for bytes that are not UTF-8: a report must be printable, and such names exist."""
    return str(path).encode("utf-8", "replace").decode("utf-8")


def _most_common(values: Iterable[str]) -> str:
    counted = Counter(values).most_common()
    shown = ", ".join(f"{value} ({count})" for value, count in counted[:6])
    return f"{shown} and {len(counted) - 6} others" if len(counted) > 6 else shown


__all__ = ["CheckReport", "check"]
