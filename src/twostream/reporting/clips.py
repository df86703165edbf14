"""Which clips a page shows, and their pictures: a few moments of a clip with the optical flow at them."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from twostream.clip import Scores
from twostream.evaluation.metrics import one_stream, predictions, probabilities, right
from twostream.flow.estimators import FlowError
from twostream.flow.quantize import Fields, dequantize, half_step
from twostream.flow.store import FlowStore, StoredFlow
from twostream.reporting.run_files import Sample, entries
from twostream.video import Image, Video, VideoError

SHORT_SIDE = 128


@dataclass(frozen=True, kw_only=True)
class Footage:
    """Moments of a clip.

    Shapes: ``frames`` (n, H, W, 3) uint8 or None where the video cannot be read; ``flow`` (n, 2, H, W) in px per frame
    from each of them to the next, or None where there is no flow.
    """

    frames: Image | None
    flow: npt.NDArray[np.float32] | None
    seconds: tuple[float, ...]


def footage(sample: Sample, store: FlowStore | None, *, moments: int | Sequence[float]) -> Footage:
    """Frames and flow at so many places spread evenly over a clip, or at given times of its video.

    Frames come from the store where it keeps them, else from the video file.

    Raises:
        TwostreamError: neither frames nor flow can be had; names the file and the reason.
    """

    def chosen(count: int, fps: float) -> npt.NDArray[np.int64]:
        if isinstance(moments, int):
            return _spread(sample, count, fps, moments)
        return np.minimum(np.rint(np.array(moments) * fps).astype(np.int64), count - 1)

    if store is None or not store.has(sample.video):
        video = Video(sample.path, on_error="truncate")
        indices = chosen(len(video), video.fps)
        return Footage(
            frames=video.frames(indices, short_side=min(SHORT_SIDE, video.width, video.height)),
            flow=None,
            seconds=tuple(float(index / video.fps) for index in indices),
        )
    with store.open(sample.video) as stored:
        # The last frame has no motion to a next one.
        indices = chosen(max(1, stored.field_count), stored.fps)
        flow = _pixels(stored.fields(indices), stored.bound) if stored.field_count else None
        frames = stored.frames(indices) if stored.has_frames else _decoded(sample.path, indices, stored)
        return Footage(frames=frames, flow=flow, seconds=tuple(float(index / stored.fps) for index in indices))


def _pixels(fields: Fields, bound: float) -> npt.NDArray[np.float32]:
    flow = dequantize(fields, bound)
    # A still scene is stored as a level whose middle lies beside zero.
    flow[np.abs(flow) <= half_step(bound) * 1.01] = 0
    return flow


def _decoded(path: Path, indices: npt.NDArray[np.int64], stored: StoredFlow) -> Image | None:
    try:
        return Video(path, on_error="truncate").frames(
            indices, short_side=min(stored.width, stored.height), fps=stored.settings.fps
        )
    except VideoError:
        # The flow alone is worth showing.
        return None


def _spread(sample: Sample, count: int, fps: float, moments: int) -> npt.NDArray[np.int64]:
    first = 0 if sample.start is None else round(sample.start * fps)
    last = count if sample.end is None else min(count, round(sample.end * fps))
    first = min(first, count - 1)
    length = max(1, last - first)
    # Not its ends, where little happens.
    return first + ((np.arange(moments) + 1) * length / (moments + 1)).astype(np.int64)


def open_store(run: Path, config: Mapping[str, Any]) -> tuple[FlowStore | None, str]:
    """The flow store that a run's configuration names, and why there is none where there is none."""
    named = entries(config, "flow").get("store")
    if not isinstance(named, str):
        return None, "The configuration names no flow store, so clips are shown without their flow."
    for place in (Path(named), run / named):
        if place.is_dir():
            try:
                return FlowStore(place), ""
            except FlowError as error:
                return None, f"Clips are shown without their flow: {error}"
    return None, f"The flow store is no longer at {named}, so clips are shown without their flow."


def choose(scores: Scores, *, each: int = 4) -> dict[str, list[int]]:
    """The clips that tell most, as places in the scores by heading; at most ``each`` under one, and no clip twice.

    Most confident mistakes and successes are by the probability of the answer given; among the successes every class
    is shown before any is shown again. With two streams there are also the clips that one of them alone would have
    lost: what fusion is for.
    """
    values = probabilities(scores)
    answers, hits = predictions(scores), right(scores)
    known = scores.labels >= 0
    sure = values[np.arange(len(scores)), answers]
    by_sureness = np.argsort(-sure, kind="stable")
    taken: set[int] = set()
    chosen: dict[str, list[int]] = {}

    def take(heading: str, wanted: npt.NDArray[np.bool_], *, spread: bool = False) -> None:
        order = [int(n) for n in by_sureness if wanted[n] and n not in taken]
        if spread:
            order = _turn_about(order, scores.labels)
        picked = order[:each]
        taken.update(picked)
        if picked:
            chosen[heading] = picked

    take("Most confident mistakes", known & ~hits)
    streams = {stream: right(one_stream(scores, stream)) for stream in scores.streams}
    if len(streams) > 1:
        for stream, alone in streams.items():
            others = np.any([hit for name, hit in streams.items() if name != stream], axis=0)
            take(f"Right, and {stream} alone was not", known & hits & ~alone & others, spread=True)
    take("Most confident successes", known & hits, spread=True)
    return chosen


def telling(scores: Scores, among: Container[str] | None = None) -> list[int]:
    """The clips of :func:`choose`, mistakes and successes in turn; those with names in ``among``, or all."""
    groups = [[n for n in picked if among is None or scores.videos[n] in among] for picked in choose(scores).values()]
    most = max(map(len, groups), default=0)
    return [n for place in range(most) for group in groups for n in group[place : place + 1]]


def _turn_about(order: list[int], labels: npt.NDArray[np.int64]) -> list[int]:
    """One of each class first, then the second ones, in the given order otherwise."""
    seen: dict[int, int] = {}
    rounds = []
    for place, n in enumerate(order):
        label = int(labels[n])
        rounds.append((seen.setdefault(label, 0), place, n))
        seen[label] += 1
    return [n for _, _, n in sorted(rounds)]
