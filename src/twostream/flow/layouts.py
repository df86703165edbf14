"""The folder layouts that others keep flow in, read into a store and written from one.

=============  =======================================  =====  ========================================================
layout         flow                                     first  from
=============  =======================================  =====  ========================================================
tsn            VIDEO/flow_x_00001.jpg, flow_y_...       1      temporal segment networks' tools
denseflow      VIDEO/flow_x_00000.jpg, flow_y_...       0      denseflow
mmaction2      VIDEO/x_00001.jpg, y_...                 1      mmaction2's rawframes
feichtenhofer  u/VIDEO/frame000001.jpg, v/VIDEO/...     1      Feichtenhofer's two-stream and ST-ResNet flow
=============  =======================================  =====  ========================================================

The first three have frames beside the flow, ``img_00001.jpg``, with the same first number. What is found is believed
over what is usual: names say which layout it is, the smallest number where it begins. Flow images are grey; their
values are taken as they are, JPEG's loss and all, so a bound of other software than ours has to be stated.
"""

import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from twostream.errors import TwostreamError
from twostream.files import OutputError
from twostream.flow.contract import FlowError
from twostream.flow.settings import IMPORTED, FlowSettings
from twostream.flow.store import FlowStore, StoredFlow, StoredFlowWriter
from twostream.version import __version__

Image = npt.NDArray[np.uint8]
Progress = Callable[[int, int, str], None]

# Fields that are read at one go.
_RUN = 16
_SUFFIXES = {".avi", ".mp4", ".mkv", ".mov", ".webm", ".mpg", ".mpeg", ".m4v", ".wmv", ".flv", ".gif"}


class LayoutError(FlowError):
    """A folder of flow images that is not one of the known layouts, or has something missing."""


@dataclass(frozen=True)
class Layout:
    """How images are called, below a root folder.

    Attributes:
        name: its key in :data:`LAYOUTS`.
        u, v: horizontal and vertical flow, for ``str.format`` with ``video`` and ``index``.
        frame: frames; None where the layout has none.
        first: number of the first image.
    """

    name: str
    u: str
    v: str
    frame: str | None
    first: int


LAYOUTS: dict[str, Layout] = {
    "tsn": Layout(
        "tsn", "{video}/flow_x_{index:05d}.jpg", "{video}/flow_y_{index:05d}.jpg", "{video}/img_{index:05d}.jpg", 1
    ),
    "denseflow": Layout(
        "denseflow",
        "{video}/flow_x_{index:05d}.jpg",
        "{video}/flow_y_{index:05d}.jpg",
        "{video}/img_{index:05d}.jpg",
        0,
    ),
    "mmaction2": Layout(
        "mmaction2", "{video}/x_{index:05d}.jpg", "{video}/y_{index:05d}.jpg", "{video}/img_{index:05d}.jpg", 1
    ),
    "feichtenhofer": Layout(
        "feichtenhofer", "u/{video}/frame{index:06d}.jpg", "v/{video}/frame{index:06d}.jpg", None, 1
    ),
}

_FLOW_NAME = re.compile(r"(flow_x_|flow_y_|x_|y_|img_|frame)(\d{1,9})\.jpg", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class FoundFlow:
    """The flow images of one video.

    Attributes:
        folder: of the video; that of ``u`` in Feichtenhofer's layout.
        layout: key of :data:`LAYOUTS`.
        first: number of the first flow image.
        u, v: their files in order of time.
        frames: the frames' files, none where there are none.
    """

    folder: Path
    layout: str
    first: int
    u: tuple[Path, ...]
    v: tuple[Path, ...]
    frames: tuple[Path, ...]

    def describe(self) -> str:
        """One line for people."""
        beside = f" and {len(self.frames)} frames" if self.frames else ""
        return f"{self.folder}: {self.layout}, {len(self.u)} fields numbered from {self.first}{beside}"


def detect_layout(folder: Path | str) -> FoundFlow:
    """Which layout a video's folder has, and what is in it; of Feichtenhofer's, its folder below ``u``.

    Raises:
        LayoutError: no flow images, horizontal ones without their vertical ones, or a gap in their numbers.
    """
    folder = Path(folder)
    named = _numbered(folder)
    if "frame" in named and not ({"flow_x_", "x_"} & set(named)):
        return _detect_halves(folder, named["frame"])
    kinds = [kind for kind in ("flow_", "") if f"{kind}x_" in named or f"{kind}y_" in named]
    if len(kinds) != 1:
        what = "flow images of two layouts, flow_x_... and x_..." if kinds else "no flow images"
        raise LayoutError(
            f"{folder}: {what}; a video's folder has flow_x_00001.jpg and flow_y_00001.jpg, or x_00001.jpg and "
            "y_00001.jpg, or stands below u and v with frame000001.jpg"
        )
    (kind,) = kinds
    first, u, v = _paired(folder, named.get(f"{kind}x_", {}), named.get(f"{kind}y_", {}))
    frames = _in_order(folder, named.get("img_", {}), "frames")[1]
    layout = "mmaction2" if not kind else ("denseflow" if first == 0 else "tsn")
    return FoundFlow(folder=folder, layout=layout, first=first, u=u, v=v, frames=frames)


def _detect_halves(folder: Path, u_files: Mapping[int, Path]) -> FoundFlow:
    places = [k for k, part in enumerate(folder.parts) if part == "u"]
    if not places:
        raise LayoutError(
            f"{folder}: has frame000001.jpg and so on, which are flow only below folders u and v; frames by themselves "
            "have no flow"
        )
    parts = list(folder.parts)
    parts[places[-1]] = "v"
    other = Path(*parts)
    if not other.is_dir():
        raise LayoutError(f"{folder}: horizontal flow without the vertical one, which would be in {other}")
    first, u, v = _paired(folder, u_files, _numbered(other).get("frame", {}))
    return FoundFlow(folder=folder, layout="feichtenhofer", first=first, u=u, v=v, frames=())


def _numbered(folder: Path) -> dict[str, dict[int, Path]]:
    """Images by what their names begin with, and by their numbers."""
    named: dict[str, dict[int, Path]] = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if match := _FLOW_NAME.fullmatch(entry.name):
                    files = named.setdefault(match[1].lower(), {})
                    number = int(match[2])
                    if number in files:
                        raise LayoutError(
                            f"{folder}: two images have the number {number}, {files[number].name} and {entry.name}"
                        )
                    files[number] = Path(entry.path)
    except OSError as error:
        raise LayoutError(f"{folder}: cannot be read ({error.strerror or error})") from error
    return named


def _paired(
    folder: Path, u: Mapping[int, Path], v: Mapping[int, Path]
) -> tuple[int, tuple[Path, ...], tuple[Path, ...]]:
    for one, other, names in ((u, v, ("horizontal", "vertical")), (v, u, ("vertical", "horizontal"))):
        if alone := sorted(set(one) - set(other)):
            raise LayoutError(
                f"{folder}: {names[0]} flow without the {names[1]} one for {len(alone)} of {len(one)} images, the "
                f"first {one[alone[0]].name}; extract this video again"
            )
    first, u_files = _in_order(folder, u, "flow images")
    return first, u_files, _in_order(folder, v, "flow images")[1]


def _in_order(folder: Path, files: Mapping[int, Path], what: str) -> tuple[int, tuple[Path, ...]]:
    numbers = sorted(files)
    first = numbers[0] if numbers else 0
    if first > 1:
        raise LayoutError(f"{folder}: the {what} begin with {files[first].name}; numbers begin at 0 or 1")
    if numbers and numbers[-1] - first + 1 != len(numbers):
        missing = next(k for k in range(first, numbers[-1]) if k not in files)
        raise LayoutError(
            f"{folder}: the {what} are numbered from {first} to {numbers[-1]}, but there are {len(numbers)} of them; "
            f"number {missing} is the first that is missing; extract this video again"
        )
    return first, tuple(files[k] for k in numbers)


def find_videos(root: Path | str) -> dict[str, Path]:
    """Folders below ``root`` that have flow images, by the videos' names: their path from ``root``, or from ``root/u``.

    Raises:
        LayoutError: there is no such folder, or none in it has any.
    """
    root = Path(root)
    if not root.is_dir():
        raise LayoutError(f"{root}: no such folder")
    halves = (root / "u").is_dir() and (root / "v").is_dir()
    top = root / "u" if halves else root
    kinds = {"frame"} if halves else {"flow_x_", "flow_y_", "x_", "y_"}
    found = {}
    for place, folders, names in os.walk(top):
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
        if any((match := _FLOW_NAME.fullmatch(name)) and match[1].lower() in kinds for name in names):
            found[Path(place).relative_to(top).as_posix()] = Path(place)
    if not found:
        raise LayoutError(
            f"{root}: no flow images in it or below; known are {', '.join(LAYOUTS)}: flow_x_00001.jpg, x_00001.jpg, or "
            "folders u and v with frame000001.jpg"
        )
    return {name if name != "." else root.resolve().name: found[name] for name in sorted(found)}


# Reading


def imported_settings(
    *, fps: float | None = None, bound: float = 20.0, frames: bool = False, codec: str = "compact"
) -> FlowSettings:
    """Of a store that flow is imported into: the estimator is not known, the grid is that of the images.

    Args:
        fps: common frame rate that frames were chosen by before their flow was computed; None if there was none.
        bound: motion in px that 0 and 255 stand for, as whoever made the images says; nearly all have 20 (15 in a few).
        frames: whether the frames beside the flow are kept too.
        codec: see :class:`FlowSettings`.
    """
    return FlowSettings(estimator=IMPORTED, short_side=None, fps=fps, bound=bound, frames=frames, codec=codec)


def import_folder(
    found: FoundFlow | Path | str,
    store: FlowStore,
    name: str,
    *,
    fps: float,
    frame_count: int | None = None,
    drop_last: bool = False,
    source: Mapping[str, Any] | None = None,
) -> int:
    """Put one video's flow images into a store, grey value by grey value.

    Args:
        found: what :func:`detect_layout` gave, or the folder.
        store: with :func:`imported_settings`.
        name: of the video in the store.
        fps: frame rate of the video in 1/s.
        frame_count: N, the frames that the video has; there must be N - 1 fields. None takes the number of frames
            beside the flow, and where there are none, one more than there are fields.
        drop_last: of N fields to N frames, leave the last away, which some extractors add so that the numbers match.
        source: what is known of the video, for the provenance.

    Returns:
        The number of fields.

    Raises:
        LayoutError: fields that do not fit the video, images of several sizes, or that cannot be read.
        FlowError: see :class:`StoredFlowWriter`.
        OutputError: the store cannot be written.
    """
    if not isinstance(found, FoundFlow):
        found = detect_layout(found)
    settings = store.settings
    if settings.estimator != IMPORTED or settings.precision != "uint8":
        raise LayoutError(
            f"{store.root}: holds flow that was computed ({settings.describe()}); import into a store of its own"
        )
    if not 0 < fps <= 1000:
        raise LayoutError(f"the frame rate of the video must lie above 0 and up to 1000, got {fps}")
    checked_by = "nothing" if frame_count is None else "the video's frames"
    if frame_count is None and found.frames:
        frame_count, checked_by = len(found.frames), "the frames beside the flow"
    count = _checked_count(found, frame_count, checked_by, drop_last=drop_last)
    if settings.frames and len(found.frames) < count + 1:
        raise LayoutError(
            f"{found.folder}: the store keeps frames, and there are {len(found.frames)} of them beside {count} fields; "
            f"{count + 1} are needed"
        )
    size = _read(found.u[0], None).shape
    with StoredFlowWriter(store.path_for(name), settings, width=size[1], height=size[0]) as writer:
        for k in range(count + 1):
            if settings.frames:
                writer.add_frame(_read(found.frames[k], size, colour=True))
            if k < count:
                writer.add_field(np.stack([_read(found.u[k], size), _read(found.v[k], size)]))
        writer.finish(
            fps=fps,
            source_width=size[1],
            source_height=size[0],
            provenance={
                "source": {"name": name, **(source or {})},
                "truncated": None,
                "imported": {
                    "layout": found.layout,
                    "first": found.first,
                    "fields": len(found.u),
                    "estimator": "unknown",
                    "bound": "as stated by the user",
                    "images": "JPEG, decoded grey values",
                    "checked_by": checked_by,
                },
                "made_by": {"twostream": __version__, "opencv": cv2.__version__},
            },
        )
    return count


def _checked_count(found: FoundFlow, frame_count: int | None, checked_by: str, *, drop_last: bool) -> int:
    """How many fields are to be taken."""
    fields = len(found.u)
    if frame_count is None:
        return fields - 1 if drop_last else fields
    if fields == frame_count - 1:
        return fields
    if fields == frame_count and drop_last:
        return fields - 1
    if fields == frame_count:
        why = (
            "some extractors repeat the last field or add an empty one; if yours does, leave it away with --drop-last "
            "(drop_last=True)"
        )
    elif fields == frame_count - 2:
        why = "extractors that compare frames two apart, or lose the last pair, make one too few; extract it again"
    else:
        why = "they are not of this video, or were not all written; extract it again"
    raise LayoutError(
        f"{found.folder}: {fields} fields to {frame_count} frames (counted by {checked_by}), where {frame_count - 1} "
        f"are expected: {why}"
    )


def _read(path: Path, size: tuple[int, ...] | None, *, colour: bool = False) -> Image:
    try:
        data = np.fromfile(path, np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR if colour else cv2.IMREAD_UNCHANGED) if data.size else None
    except (OSError, cv2.error) as error:
        raise LayoutError(f"{path}: cannot be read ({error})") from error
    if image is None:
        raise LayoutError(f"{path}: cannot be decoded as an image; extract this video again")
    if not colour and image.ndim != 2:
        raise LayoutError(f"{path}: a flow image is grey, and this one has colours")
    if size is not None and image.shape[:2] != size:
        raise LayoutError(
            f"{path}: {image.shape[1]}x{image.shape[0]} px, where the first flow image of the video has "
            f"{size[1]}x{size[0]}; all of a video's images are of one size"
        )
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if colour else image, np.uint8)


@dataclass(frozen=True, kw_only=True)
class TransferSummary:
    """What became of each video.

    Attributes:
        done: names of those that were written now.
        skipped: names of those that were there already.
        failed: name -> reason.
        fields: of the done ones.
    """

    done: tuple[str, ...]
    skipped: tuple[str, ...]
    failed: dict[str, str]
    fields: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "done": list(self.done), "skipped": list(self.skipped)}

    def lines(self) -> list[str]:
        """For people: one line, and one more for each video that failed."""
        return [
            f"{len(self.done)} videos done ({self.fields} fields), {len(self.skipped)} were there already, "
            f"{len(self.failed)} failed",
            *(f"failed: {name}: {reason}" for name, reason in self.failed.items()),
        ]


def import_dataset(
    root: Path | str,
    store: FlowStore,
    *,
    fps: float,
    frame_counts: Mapping[str, int] | None = None,
    names: Mapping[str, str] | None = None,
    sources: Mapping[str, Mapping[str, Any]] | None = None,
    drop_last: bool = False,
    progress: Progress | None = None,
) -> TransferSummary:
    """Import every video below ``root``; the same call goes on where an earlier one was stopped.

    Args:
        root: folder of the videos' folders.
        store: with :func:`imported_settings`.
        fps: frame rate of the videos in 1/s.
        frame_counts: folder's name -> N; those not in it are checked by the frames beside them.
        names: folder's name -> name in the store, where that is another one (``Class/v.avi`` for ``v``).
        sources: folder's name -> what is known of the video, for the provenance.
        drop_last: see :func:`import_folder`.
        progress: called with (videos finished, videos in all, what is going on).

    Returns:
        What became of each; one that does not fit is in ``failed``, the rest go on.

    Raises:
        LayoutError: ``root`` has no flow images, or two folders would be one video.
        OutputError: the store cannot be written.
    """
    found = find_videos(root)
    targets = {folder: (names or {}).get(folder, folder) for folder in found}
    _distinct(targets, "the store")
    store.prepare()

    def one(folder: str) -> int | None:
        if store.has(targets[folder]):
            return None
        return import_folder(
            found[folder],
            store,
            targets[folder],
            fps=fps,
            frame_count=(frame_counts or {}).get(folder),
            drop_last=drop_last,
            source=(sources or {}).get(folder),
        )

    return _each(list(found), one, progress)


# Writing


def export_folder(stored: StoredFlow, root: Path | str, video: str, layout: str, *, quality: int = 95) -> int:
    """Write one video's flow as images, and its frames where both the file and the layout have them.

    A video's folder appears when all of it is written; of Feichtenhofer's two, the one below ``u`` comes last, so a
    video whose ``u`` is there is whole. What a killed process leaves behind begins with a dot.

    Args:
        stored: the flow; float16 is quantized.
        root: folder of the videos' folders.
        video: name of its folder, a relative path with ``/`` between its parts.
        layout: key of :data:`LAYOUTS`.
        quality: of the JPEG, 1 to 100.

    Returns:
        The number of fields.

    Raises:
        LayoutError: an unknown layout, a quality out of range, a folder that is there already.
        FlowStoreError: the file is damaged.
        OutputError: the folder cannot be written.
    """
    if layout not in LAYOUTS:
        raise LayoutError(f"no layout is called {layout!r}; there are: {', '.join(LAYOUTS)}")
    if not 1 <= quality <= 100:
        raise LayoutError(f"the quality of JPEG is 1 to 100, got {quality}")
    names = LAYOUTS[layout]
    targets = _targets(Path(root), video, names)
    if targets[-1].exists():
        raise LayoutError(f"{targets[-1]}: is there already; remove it, or name another folder")
    with _appearing_together(targets) as folders:
        to = dict(zip(targets, folders, strict=True))

        def write(pattern: str, index: int, image: Image) -> None:
            path = Path(root, pattern.format(video=video, index=index + names.first))
            _write(to[path.parent] / path.name, image, quality)

        for first in range(0, stored.field_count, _RUN):
            run = range(first, min(first + _RUN, stored.field_count))
            for k, field in zip(run, stored.fields(run), strict=True):
                write(names.u, k, field[0])
                write(names.v, k, field[1])
        if names.frame and stored.has_frames:
            for k in range(stored.frame_count):
                write(names.frame, k, np.asarray(cv2.cvtColor(stored.frames([k])[0], cv2.COLOR_RGB2BGR), np.uint8))
    return stored.field_count


def export_dataset(
    store: FlowStore,
    root: Path | str,
    layout: str,
    videos: Sequence[str],
    *,
    quality: int = 95,
    progress: Progress | None = None,
) -> TransferSummary:
    """Export the named videos of a store, each into a folder of its name without the ending of a video file.

    The same call goes on where an earlier one was stopped.

    Args:
        store: where the flow is.
        root: folder of the videos' folders.
        layout: key of :data:`LAYOUTS`.
        videos: names in the store.
        quality: of the JPEG, 1 to 100.
        progress: called with (videos finished, videos in all, what is going on).

    Returns:
        What became of each; one whose file is missing or damaged is in ``failed``, the rest go on.

    Raises:
        LayoutError: an unknown layout, or two videos that would be one folder.
        OutputError: the folder cannot be written.
    """
    if layout not in LAYOUTS:
        raise LayoutError(f"no layout is called {layout!r}; there are: {', '.join(LAYOUTS)}")
    folders = {video: _folder_name(video) for video in videos}
    _distinct(folders, str(root))

    def one(video: str) -> int | None:
        if _targets(Path(root), folders[video], LAYOUTS[layout])[-1].exists():
            return None
        with store.open(video) as stored:
            return export_folder(stored, root, folders[video], layout, quality=quality)

    return _each(list(videos), one, progress)


def _each(names: Sequence[str], one: Callable[[str], int | None], progress: Progress | None) -> TransferSummary:
    done: list[str] = []
    skipped: list[str] = []
    failed: dict[str, str] = {}
    fields = 0
    for number, name in enumerate(names):
        if progress is not None:
            progress(number, len(names), name)
        try:
            count = one(name)
        except OutputError:
            # A full disk would meet all that follow.
            raise
        except TwostreamError as error:
            failed[name] = str(error)
            continue
        if count is None:
            skipped.append(name)
        else:
            done.append(name)
            fields += count
    if progress is not None:
        progress(len(names), len(names), "")
    return TransferSummary(done=tuple(done), skipped=tuple(skipped), failed=failed, fields=fields)


def _distinct(targets: Mapping[str, str], where: str) -> None:
    seen: dict[str, str] = {}
    for name, target in targets.items():
        if seen.setdefault(target, name) != name:
            raise LayoutError(f"{seen[target]} and {name} would both be {target} in {where}; give one another name")


def _folder_name(video: str) -> str:
    path = PurePosixPath(video)
    return str(path.with_suffix("")) if path.suffix.lower() in _SUFFIXES else video


def _targets(root: Path, video: str, names: Layout) -> list[Path]:
    """The folders that a video is written into, in the order in which they appear."""
    parts = PurePosixPath(video).parts
    if not parts or video.startswith("/") or ".." in parts or "\0" in video:
        raise LayoutError(f"{video!r} cannot be the name of a folder below {root}")
    return sorted({Path(root, pattern.format(video=video, index=0)).parent for pattern in (names.v, names.u)})[::-1]


@contextmanager
def _appearing_together(targets: Sequence[Path]) -> Iterator[list[Path]]:
    """Temporary folders beside the targets, renamed in this order when the block ends without an error."""
    temporary = [path.with_name(f".{path.name[:50]}.{secrets.token_hex(4)}.partial") for path in targets]
    try:
        for folder in temporary:
            folder.mkdir(parents=True)
        yield temporary
        for folder, target in zip(temporary, targets, strict=True):
            if target.exists():
                # The other half of a video whose process was killed between the two.
                shutil.rmtree(target)
            folder.rename(target)
    except OSError as error:
        raise OutputError(f"{targets[-1]}: cannot be written ({error.strerror or error}); nothing was left") from error
    finally:
        for folder in temporary:
            shutil.rmtree(folder, ignore_errors=True)


def _write(path: Path, image: Image, quality: int) -> None:
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    path.write_bytes(data.tobytes())


__all__ = [
    "LAYOUTS",
    "FoundFlow",
    "Layout",
    "LayoutError",
    "TransferSummary",
    "detect_layout",
    "export_dataset",
    "export_folder",
    "find_videos",
    "import_dataset",
    "import_folder",
    "imported_settings",
]
