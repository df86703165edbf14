"""Before anything is learned or judged, every video is read once and its flow stored; failures are named."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from twostream.clip import InputSpec
from twostream.data.annotations import load_annotations
from twostream.data.items import DataError, NoClassesError, VideoItem, first_few
from twostream.data.sampling import ShortClips, frame_range, shortest
from twostream.data.video_files import is_video_name, list_videos
from twostream.flow.extract import extract
from twostream.flow.forecast import estimate
from twostream.flow.jobs import Source
from twostream.flow.settings import IMPORTED
from twostream.flow.store import FlowStore, stored_settings
from twostream.units import bytes_text, seconds_text

Progress = Callable[[int, int, str], None]

# Seconds from which on a faster estimator is worth a thought.
_LONG = 3600.0
_FASTEST = "dis"


@dataclass(frozen=True)
class Readable:
    """What can be used of a list of items: the items, in their order, and the reason for each one left out."""

    items: tuple[VideoItem, ...]
    unreadable: dict[str, str]


def default_store(data: Path | str, beside: Path, *, estimator: str, short_side: int, fps: float | None) -> Path:
    """A store folder that runs on the same data and flow settings share; ``beside`` is where runs are kept."""
    place = Path(data).resolve()
    rate = f"-{fps:g}fps" if fps else ""
    # Two data sets of the same name must not share a store.
    mark = hashlib.sha256(str(place).encode()).hexdigest()[:6]
    return beside / "flow" / f"{place.stem}-{estimator}-{short_side}{rate}-{mark}"


def sources_of(items: Iterable[VideoItem]) -> list[Source]:
    """The distinct videos behind items; several items can be cut from one."""
    return list({item.video: Source(name=item.video, path=item.path) for item in items}.values())


def sources_in(
    data: Path | str, *, split: str = "1", videos: Path | str | None = None, allow_missing: bool = False
) -> tuple[list[Source], tuple[str, ...]]:
    """Every video of a data set, of a folder of loose videos, or a single file; and what the lists name in vain.

    Raises:
        DataError: nothing of the kind is there.
    """
    place = Path(data)
    if place.is_file() and is_video_name(place.name):
        return [Source(name=place.name, path=place)], ()
    try:
        annotations = load_annotations(place, split=split, videos=videos, allow_missing=allow_missing, allow_leak=True)
    except NoClassesError:
        return [Source(name=name, path=place / name) for name in list_videos(place)], ()
    return sources_of(annotations.items()), annotations.missing


def announce(sources: Sequence[Source], store: FlowStore, *, workers: int | None, say: Callable[[str], None]) -> None:
    """Say how many videos wait for their flow, for about how long and how much disk.

    Where a new store would take hours, the time of the fastest estimator is told too.

    Args:
        sources: the videos.
        store: where to.
        workers: cores; None if it is not known how many there will be.
        say: takes a line for the user.
    """
    waiting = [source for source in sources if not store.has(source.name)]
    if not sources:
        say("flow: no video falls to this call")
        return
    if not waiting:
        say(f"flow: all {len(sources)} videos are in {store.root}")
        return
    settings = store.settings
    if settings.estimator == IMPORTED:
        say(f"flow: {len(waiting)} of {len(sources)} videos are not in {store.root}, whose flow is imported")
        return
    guess = estimate(waiting, settings, workers=workers or 1)
    cores = "of one core's work" if workers is None else f"with {workers} process{'es' * (workers != 1)}"
    grid = "each video's own size" if settings.short_side is None else f"short side {settings.short_side}"
    rate = "" if settings.fps is None else f" and {settings.fps:g} frames/s"
    say(
        f"flow: {len(waiting)} of {len(sources)} videos to go with {settings.estimator} at {grid}{rate}, about "
        f"{seconds_text(guess.seconds)} {cores} and {bytes_text(guess.bytes)} in {store.root}"
    )
    if guess.seconds > _LONG and settings.estimator != _FASTEST and stored_settings(store.root) is None:
        other = estimate(waiting, replace(settings, estimator=_FASTEST, parameters={}), workers=workers or 1)
        say(
            f"flow: with the estimator {_FASTEST}, less exact, it would be about {seconds_text(other.seconds)} and "
            f"{bytes_text(other.bytes)}; a store cannot change its estimator later"
        )


def prepare(
    items: Sequence[VideoItem],
    spec: InputSpec,
    store: FlowStore,
    *,
    workers: int,
    short_clips: ShortClips,
    unreadable_share: float,
    say: Callable[[str], None],
    progress: Progress | None = None,
) -> Readable:
    """Store the flow of every item's video, and drop what cannot be read.

    Args:
        items: all that will be trained or tested on.
        spec: decides how short a clip may be.
        store: where flow is kept.
        workers: processes.
        short_clips: "refuse" makes a clip too short for one flow stack an error, "repeat" lets it pass.
        unreadable_share: share of unreadable videos above which this is an error.
        say: takes a line for the user.
        progress: called with (done, total, what).

    Raises:
        DataError: too many videos cannot be read, or clips are too short; names them.
    """
    sources = sources_of(items)
    announce(sources, store, workers=workers, say=say)
    failed = dict(extract(sources, store, workers=workers, progress=progress).failed)
    lengths: dict[str, tuple[float, int]] = {}
    for source in sources:
        if source.name not in failed:
            with store.open(source.name) as stored:
                lengths[source.name] = (stored.fps, stored.frame_count)
    if failed:
        reasons = "\n".join(f"  {reason}" for reason in list(failed.values())[:10])
        reasons += f"\n  and {len(failed) - 10} more" if len(failed) > 10 else ""
        if len(failed) > unreadable_share * len(sources):
            raise DataError(
                f"{len(failed)} of {len(sources)} videos cannot be read, more than the accepted share of "
                f"{unreadable_share:g}:\n{reasons}"
            )
        say(f"left out: {len(failed)} of {len(sources)} videos, which cannot be read:\n{reasons}")
    kept = tuple(item for item in items if item.video not in failed)
    outside = [item.name for item in kept if not frame_range(item.start, item.end, *lengths[item.video])]
    if outside:
        raise DataError(
            f"{len(outside)} of {len(kept)} clips lie outside their videos: {first_few(outside)}. Correct start and "
            "end in the sheet; twostream check tells how long each video is"
        )
    least = shortest(spec)
    short = [item.name for item in kept if len(frame_range(item.start, item.end, *lengths[item.video])) < least]
    if short and short_clips == "refuse":
        raise DataError(
            f"{len(short)} of {len(kept)} clips have fewer than the {least} frames that one flow stack needs: "
            f"{first_few(short)}. Take them out, or let their edges be repeated with --short_clips repeat"
        )
    return Readable(items=kept, unreadable=failed)
