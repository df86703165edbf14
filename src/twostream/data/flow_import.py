"""Folders of flow images of a data set's videos into a store: which is whose, and whether the counts fit."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

from twostream.data.items import first_few
from twostream.data.video_files import without_suffix
from twostream.errors import TwostreamError
from twostream.files import OutputError
from twostream.flow.jobs import Source, fingerprint
from twostream.flow.layouts import TransferSummary, find_videos, import_folder
from twostream.flow.store import FlowStore
from twostream.video import Video

Progress = Callable[[int, int, str], None]


def import_flow(
    folder: Path | str,
    sources: Sequence[Source],
    store: FlowStore,
    *,
    fps: float | None = None,
    drop_last: bool = False,
    progress: Progress | None = None,
) -> TransferSummary:
    """Put the flow images of these videos into a store; the same call goes on where an earlier one was stopped.

    A video's folder has its name without the ending, with the folders that the video stands in or, where no two are
    called the same, without. Each is checked against the number of frames that the video has when it is decoded.

    Args:
        folder: of the videos' folders, in one of the layouts of :mod:`twostream.flow.layouts`.
        sources: the videos.
        store: with :func:`~twostream.flow.layouts.imported_settings`.
        fps: common frame rate that frames were chosen by before their flow was computed; None if each video kept its
            own.
        drop_last: see :func:`~twostream.flow.layouts.import_folder`.
        progress: called with (videos finished, videos in all, what is going on).

    Returns:
        What became of each; one that does not fit, or has no folder, is in ``failed``, the rest go on.

    Raises:
        LayoutError: there are no flow images below ``folder``.
        OutputError: the store cannot be written.
    """
    found = find_videos(folder)
    by_last_part = defaultdict(list)
    for name in found:
        by_last_part[PurePosixPath(name).name].append(name)
    store.prepare()
    done: list[str] = []
    skipped: list[str] = []
    failed: dict[str, str] = {}
    fields = 0
    for number, source in enumerate(sources):
        if progress:
            progress(number, len(sources), source.name)
        if store.has(source.name):
            skipped.append(source.name)
            continue
        stem = without_suffix(source.name)
        named_so = [stem] if stem in found else by_last_part[PurePosixPath(stem).name]
        try:
            if len(named_so) != 1:
                failed[source.name] = _not_one(folder, stem, named_so, found)
                continue
            video = Video(source.path)
            fields += import_folder(
                found[named_so[0]],
                store,
                source.name,
                fps=fps or video.fps,
                frame_count=video.count(fps),
                drop_last=drop_last,
                source=fingerprint(source.path),
            )
            done.append(source.name)
        except OutputError:
            # A full disk would meet all that follow.
            raise
        except TwostreamError as error:
            failed[source.name] = str(error)
    if progress:
        progress(len(sources), len(sources), "")
    return TransferSummary(done=tuple(done), skipped=tuple(skipped), failed=failed, fields=fields)


def _not_one(folder: Path | str, stem: str, named_so: Sequence[str], found: Iterable[str]) -> str:
    """Why a video has no folder: there is none of its name, or several."""
    if named_so:
        return f"{len(named_so)} folders below {folder} are called {stem} ({first_few(sorted(named_so))}); keep one"
    return (
        f"{folder}: no folder with flow images is called {stem}; those there are {first_few(sorted(found), 3)}. Rename "
        "it after its video, or give it the path that the video has in DATA"
    )


__all__ = ["import_flow"]
