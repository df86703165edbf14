"""What a network is shown of a video in order to explain it: some clips, spread evenly, and when and where they lie."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from twostream.attention.tracks import Box, FloatArray
from twostream.checkpoint import LoadedModel
from twostream.clip import Stream
from twostream.data.dataset import ViewDataset
from twostream.data.items import DataError, VideoItem
from twostream.data.preparation import prepare
from twostream.data.sampling import ClipIndices, ShortClips, frame_range, sample_views, shortest
from twostream.data.transforms import ClipTransform, Space, covering_crops
from twostream.errors import UsageError
from twostream.evaluation.protocols import get_protocol
from twostream.flow.store import FlowSettings, FlowStore
from twostream.prediction.clip_reader import read_clips
from twostream.runs import Progress, RunFolder
from twostream.video import Video, grid_size

MOMENTS = 4
"""Moments of a video, spread evenly."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """Clips of one video.

    Attributes:
        rgb, flow: (R, T, 3, H, W) and (R, S, 2L, H, W), as the network takes them.
        seconds: of each stream the times of all steps of all clips, (R T,) and (R S,): of a frame its own, of a stack
            that of its middle.
        seen: the part of the frame that is shown, as shares of width and height.
        flips: whether every second clip is the mirror image of the one before.
    """

    rgb: Tensor
    flow: Tensor
    seconds: Mapping[Stream, FloatArray]
    seen: Box
    flips: bool = False

    def __len__(self) -> int:
        return len(self.rgb)


@dataclass(frozen=True)
class RunViews:
    """The videos of a run that are explained, ready to be shown.

    Attributes:
        loaded: the model.
        views: clips by video.
        unreadable: what was left out, with the reason.
    """

    loaded: LoadedModel
    views: ViewDataset
    unreadable: Mapping[str, str]
    store: FlowStore

    @property
    def items(self) -> tuple[VideoItem, ...]:
        """The videos."""
        return self.views.items

    def shown(self, n: int) -> Shown:
        """What the network is shown of ``items[n]``."""
        item, spec = self.items[n], self.views.spec
        with self.store.open(item.video) as stored:
            span = frame_range(item.start, item.end, stored.fps, stored.frame_count)
            fps, grid = stored.fps, (stored.width, stored.height)
        clips = sample_views(spec, len(span), self.views.steps, short_clips=self.views.short_clips)
        (crop,) = covering_crops(self.views.space, *grid, share=spec.size / spec.resize)
        clip = self.views[n]
        times = (np.arange(span.stop + 1)) / fps
        return Shown(
            rgb=clip.rgb,
            flow=clip.flow,
            seconds=_seconds([c.shifted(span.start) for c in clips], times),
            seen=_box(crop),
            flips=any(view.flip for view in self.views.views),
        )


def run_views(
    run: RunFolder,
    *,
    part: str,
    protocol: str,
    moments: int,
    videos: int | None,
    names: Collection[str] | None,
    mirrored: bool,
    flow_workers: int,
    say: Callable[[str], None],
    progress: Progress | None,
    needs: Callable[[LoadedModel], object] = lambda _: None,
) -> RunViews:
    """Open the videos of a run's part; flow that is not stored yet is computed.

    Args:
        run: a finished run.
        part: train, val or test.
        protocol: says whether the whole frame is shown or its centre, and whether mirror images are.
        moments: of each video.
        videos: at most so many, spread evenly over the list; None: all.
        names: these alone; None: all.
        mirrored: whether mirror images are shown where the protocol has them.
        flow_workers: processes that compute flow.
        say, progress: take what is told to the user.
        needs: called with the model before anything is computed; raises where it will not do.

    Raises:
        UsageError: the part has no (such) videos, or numbers are out of range.
        RunError: the run has not finished.
    """
    for name, value in (("moments", moments), ("videos", 1 if videos is None else videos)):
        if value < 1:
            raise UsageError(f"{name} is at least 1, got {value}")
    chosen = get_protocol(protocol)
    loaded, config = run.model(), run.config()
    needs(loaded)
    items = run.annotations().parts[part]
    if not items:
        raise UsageError(f"{run.path}: its data has no {part} videos")
    if names is not None:
        items = tuple(item for item in items if item.name in names)
        if not items:
            raise UsageError(f"{run.path}: none of the videos asked about are {part} videos of this run")
    if videos is not None and videos < len(items):
        items = tuple(items[n * len(items) // videos] for n in range(videos))
    store = run.store()
    spec = loaded.model.spec
    readable = prepare(
        items,
        spec,
        store,
        workers=flow_workers,
        short_clips=config["short_clips"],
        unreadable_share=1.0,
        say=say,
        progress=progress,
    )
    space: Space = "whole" if chosen.space == "whole" else "centre"
    views = ViewDataset(
        readable.items,
        store,
        spec,
        steps=moments,
        space=space,
        flips=mirrored and chosen.flips and not config["no_flip"],
        short_clips=config["short_clips"],
    )
    return RunViews(loaded, views, readable.unreadable, store)


def shown_of_file(path: Path | str, loaded: LoadedModel, *, protocol: str, moments: int, mirrored: bool) -> Shown:
    """Clips of a new video: frames and flow are computed as they were for training, and only where they are shown.

    Raises:
        VideoError: it cannot be read.
        DataError: it is too short for one flow stack.
        FlowError: its frames are too small for flow.
        UsageError: no such protocol.
    """
    chosen, spec = get_protocol(protocol), loaded.model.spec
    provenance = loaded.config["provenance"]
    given = provenance.get("flow")
    settings = FlowSettings.from_dict(given) if given else FlowSettings(short_side=spec.resize, fps=spec.fps)
    short_clips: ShortClips = provenance.get("short_clips", "refuse")
    video = Video(path)
    rate = settings.fps
    times: FloatArray = video.times if rate is None else np.arange(video.count(rate)) / rate
    if len(times) < (least := shortest(spec)) and short_clips == "refuse":
        raise DataError(f"{path}: {len(times)} frames, but this model needs {least} for one stack of flow")
    clips = sample_views(spec, len(times), moments, short_clips=short_clips)
    grid = grid_size(video.width, video.height, settings.short_side)
    space: Space = "whole" if chosen.space == "whole" else "centre"
    (crop,) = covering_crops(space, *grid, share=spec.size / spec.resize)
    size = grid_size(*grid, spec.resize) if space == "whole" else (spec.size, spec.size)
    flips = mirrored and chosen.flips and not provenance.get("no_flip")
    looks = (crop, replace(crop, flip=True)) if flips else (crop,)
    found: dict[int, list[tuple[Tensor, Tensor]]] = {}
    for n, frames, fields in read_clips(video, clips, spec, settings):
        shape = len(fields) // spec.flow_length, spec.flow_channels, size[1], size[0]
        found[n] = [(look.frames(frames, size), look.fields(fields, size).reshape(shape)) for look in looks]
    seen = [pair for n in sorted(found) for pair in found[n]]
    return Shown(
        rgb=torch.stack([rgb for rgb, _ in seen]),
        flow=torch.stack([flow for _, flow in seen]),
        seconds=_seconds(clips, times),
        seen=_box(crop),
        flips=flips,
    )


def _seconds(clips: Sequence[ClipIndices], times: npt.NDArray[np.float64]) -> dict[Stream, FloatArray]:
    frames = np.concatenate([clip.frames for clip in clips])
    fields = np.concatenate([clip.fields for clip in clips])
    found: dict[Stream, FloatArray] = {"appearance": times[frames]}
    if len(fields):
        # A field leads from its frame to the next; the frame in the middle of a stack is the one that it surrounds.
        middles = np.clip((fields[:, 0] + fields[:, -1] + 1) // 2, 0, len(times) - 1)
        found["motion"] = times[middles]
    return found


def _box(crop: ClipTransform) -> Box:
    return crop.left, crop.top, crop.left + crop.width, crop.top + crop.height


__all__ = ["MOMENTS", "RunViews", "Shown", "run_views", "shown_of_file"]
