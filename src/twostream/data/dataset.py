"""From items to clips: map-style data sets for training and testing, and the order in which training asks for clips.

What is drawn for a clip follows from (seed, epoch, index) alone, so it is the same whatever the number of worker
processes and wherever a run was interrupted.
"""

import os
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler, get_worker_info

from twostream.clip import Clip, InputSpec
from twostream.data.items import DataError, VideoItem
from twostream.data.region import WHOLE, Region, moving_region, region_fields
from twostream.data.sampling import (
    NO_MOTION,
    ClipIndices,
    IntArray,
    ShortClipError,
    ShortClips,
    Spacing,
    count_views,
    draw_stride,
    frame_range,
    sample_middle,
    sample_training,
    sample_views,
)
from twostream.data.transforms import CROPS, Augment, ClipTransform, Space, Uint8Array, covering_crops
from twostream.errors import UsageError
from twostream.flow.store import FlowStore, FlowStoreError, StoredFlow
from twostream.video import Size, Video, VideoError, grid_size, resize_frame

Key = int | tuple[int, int] | tuple[int, int, int]

# Stored flow keeps a file open. A decoded video keeps none, but knows its length, which costs a pass to find again.
_OPEN_STORED, _KNOWN_VIDEOS = 16, 4096


class VideoDataset(Dataset[Clip]):
    """Training clips: ``dataset[epoch, index]`` (``dataset[index]`` is epoch 0) is a :class:`Clip` of video ``index``.

    ``dataset[epoch, index, batch]`` draws the stride of its steps from (seed, batch), so that clips asked for with one
    ``batch`` have it in common: the released code's rule, see :func:`sampling.sample_training`.

    Shapes: ``rgb`` (T, 3, size, size) and ``flow`` (S, 2L, size, size), contiguous uint8 tensors; the stream that the
    network does not read has zero steps. ``item`` is the index.

    Flow is read from the store, and so are frames where the store keeps them; otherwise they are decoded from the video
    and resized to the store's grid. A network that reads no flow needs no store: frames are then resized to
    ``spec.resize``. A frame rate in the spec holds for all of these.

    Args:
        items: what to draw clips from.
        store: where the flow is; None for networks that read only appearance.
        spec: what the network wants to see.
        seed: of all draws.
        augment: what is drawn beside the indices; None gives held-out clips, always the same: the middle of what
            training can draw, seen through the centre square.
        no_flip: class indices that are never mirrored, because a mirror image is of another class ("swipe left"). Where
            there are any, leave mirror images out of the test protocol too.
        short_clips: what becomes of clips shorter than one flow stack, see :func:`sampling.valid_steps`.

    Raises:
        UsageError: the network reads flow and there is no store.
        DataError: the store holds flow at another frame rate than the network wants; and from ``dataset[...]``, a video
            or its flow is gone, damaged or too short, which is named.
    """

    def __init__(
        self,
        items: Sequence[VideoItem],
        store: FlowStore | None,
        spec: InputSpec,
        *,
        seed: int = 0,
        augment: Augment | None = None,
        no_flip: Collection[int] = (),
        short_clips: ShortClips = "refuse",
    ) -> None:
        self.items = tuple(items)
        self.spec = spec
        self.seed = seed
        self.augment = augment
        self.no_flip = frozenset(no_flip)
        self.short_clips = short_clips
        self._reader = _Reader(store, spec)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: Key) -> Clip:
        epoch, index, *batch = (0, key) if isinstance(key, int) else key
        item, spec = self.items[index], self.spec
        with self._reader.open(item) as video:
            span = video.span(item)
            share = spec.size / spec.resize
            region = self._reader.region(item, video, span)
            width, height = region.px(video.width, video.height)
            if self.augment is None:
                indices = sample_middle(spec, len(span), short_clips=self.short_clips)
                transform = covering_crops("centre", width, height, share=share)[0]
            else:
                rng = np.random.default_rng((self.seed, epoch, index))
                stride = None
                if batch:
                    # Two more than any index: no clip and no order shares the generator.
                    stride = draw_stride(spec, np.random.default_rng((self.seed, batch[0], len(self) + 1)))
                indices = sample_training(spec, len(span), rng, stride=stride, short_clips=self.short_clips)
                mirror = item.label not in self.no_flip
                transform = self.augment.draw(rng, width, height, share=share, mirror=mirror)
            pixels = _Pixels(video, [indices.shifted(span.start)], spec)
        rgb, flow = pixels.through(transform.within(region), (spec.size, spec.size))
        return Clip(rgb[0], flow[0], item.label, index)


@dataclass(frozen=True)
class View:
    """One view of a video at test time: its position in time, its crop (one of :data:`CROPS`), mirrored or not."""

    position: int
    crop: int
    flip: bool


def plan_views(spec: InputSpec, *, steps: int, space: Space, flips: bool) -> tuple[View, ...]:
    """The R views of every video: in order of time, at each time crop by crop, each crop plain and then mirrored."""
    return tuple(
        View(position, crop, flip)
        for position in range(count_views(spec, steps))
        for crop in range(len(CROPS[space]))
        for flip in ((False, True) if flips else (False,))
    )


class ViewDataset(Dataset[Clip]):
    """Test clips: ``dataset[index]`` holds all views of one video, in the order of ``dataset.views``.

    Shapes: ``rgb`` (R, T, 3, H, W) and ``flow`` (R, S, 2L, H, W), contiguous uint8 tensors. H and W are ``spec.size``,
    except where the whole frame is shown: then the short side is ``spec.resize``, and videos of different shapes cannot
    be stacked. Load with ``DataLoader(dataset, batch_size=None)``: the leading R serves as the batch. Where all R views
    at once are too much memory (25x10 at 224 px are 290 MB of two-stream input), :meth:`chunks` hands out a few at a
    time.

    Args:
        items, store, spec, short_clips: see :class:`VideoDataset`.
        steps: positions in time, see :func:`sampling.sample_views`.
        space: the crops at each position, see :func:`transforms.covering_crops`.
        flips: whether each crop is shown mirrored as well.
        spacing: of the positions in time, see :func:`sampling.sample_views`.

    Raises:
        UsageError, DataError: as :class:`VideoDataset`.
    """

    def __init__(
        self,
        items: Sequence[VideoItem],
        store: FlowStore | None,
        spec: InputSpec,
        *,
        steps: int,
        space: Space,
        flips: bool,
        spacing: Spacing = "even",
        short_clips: ShortClips = "refuse",
    ) -> None:
        self.items = tuple(items)
        self.spec = spec
        self.steps = steps
        self.spacing: Spacing = spacing
        self.space: Space = space
        self.short_clips: ShortClips = short_clips
        self.views = plan_views(spec, steps=steps, space=space, flips=flips)
        self._reader = _Reader(store, spec)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Clip:
        return next(self.chunks(index, len(self.views)))

    def chunks(self, index: int, size: int) -> Iterator[Clip]:
        """The views of one video in order, ``size`` at a time and the last time perhaps fewer."""
        for start in range(0, len(self.views), size):
            yield self._clip(index, self.views[start : start + size])

    def _clip(self, index: int, views: Sequence[View]) -> Clip:
        item, spec = self.items[index], self.spec
        with self._reader.open(item) as video:
            span = video.span(item)
            clips = sample_views(spec, len(span), self.steps, spacing=self.spacing, short_clips=self.short_clips)
            first = views[0].position
            clips = [clip.shifted(span.start) for clip in clips[first : views[-1].position + 1]]
            pixels = _Pixels(video, clips, spec)
            region = self._reader.region(item, video, span)
            width, height = region.px(video.width, video.height)
            crops = covering_crops(self.space, width, height, share=spec.size / spec.resize)
            shape = (spec.size, spec.size)
            if self.space == "whole":
                shape = grid_size(round(width), round(height), spec.resize)
        rgb, flow = pixels.empty(len(views), shape)
        for crop, flip in dict.fromkeys((view.crop, view.flip) for view in views):
            r = [place for place, view in enumerate(views) if (view.crop, view.flip) == (crop, flip)]
            t = [views[place].position - first for place in r]
            seen = pixels.through(replace(crops[crop], flip=flip).within(region), shape)
            rgb[r], flow[r] = seen[0][t], seen[1][t]
        return Clip(rgb, flow, item.label, index)


class EpochSampler(Sampler[Key]):
    """The keys (epoch, index) that training asks a :class:`VideoDataset` for, in an order drawn from (seed, epoch).

    All ranks draw the same order and take every ``world_size``-th key of it. Where the keys cannot be dealt out evenly,
    the first ones of the order are dealt again, so that all ranks take equally many steps; nothing is left out.

    With ``repeats`` every video is asked for several times an epoch; each such pass counts as an epoch in the keys, so
    that it draws clips of its own, and is finished before the next begins.

    Args:
        count: number of videos.
        seed: of the order.
        repeats: passes over the videos in one epoch.
        rank, world_size: this process and the number of processes.
        batch_size: of a micro-batch whose clips shall have their stride in common; the keys then are (epoch, index,
            number of the micro-batch). None: every clip for itself.
    """

    def __init__(
        self,
        count: int,
        *,
        seed: int = 0,
        repeats: int = 1,
        rank: int = 0,
        world_size: int = 1,
        batch_size: int | None = None,
    ) -> None:
        if count < 1 or repeats < 1 or not 0 <= rank < world_size:
            raise UsageError(
                "training needs count >= 1 videos, repeats >= 1 and 0 <= rank < world_size, got "
                f"count={count}, repeats={repeats}, rank={rank}, world_size={world_size}"
            )
        self.count = count
        self.seed = seed
        self.repeats = repeats
        self.rank = rank
        self.world_size = world_size
        self.batch_size = batch_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next; the trainer does."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.count * self.repeats // self.world_size)

    def __iter__(self) -> Iterator[Key]:
        keys: list[tuple[int, int]] = []
        for number in range(self.epoch * self.repeats, (self.epoch + 1) * self.repeats):
            # The third number is no index, so that no clip shares the order's generator.
            order = np.random.default_rng((self.seed, number, self.count)).permutation(self.count)
            keys += [(number, int(index)) for index in order]
        dealt = islice(cycle(keys), len(self) * self.world_size)
        mine = islice(dealt, self.rank, None, self.world_size)
        if self.batch_size is None:
            return mine
        batches = -(-len(self) // self.batch_size)
        first = (self.epoch * self.world_size + self.rank) * batches
        size = self.batch_size
        return ((*key, first + place // size) for place, key in enumerate(mine))


class _Pixels:
    """The frames and fields of P clips of one video, each read and resized once however many clips hold it."""

    def __init__(self, video: "_OpenVideo", clips: Sequence[ClipIndices], spec: InputSpec) -> None:
        frames = np.stack([clip.frames if "appearance" in spec.streams else clip.frames[:0] for clip in clips])
        fields = np.stack([clip.fields for clip in clips])
        wanted_frames, places = np.unique(frames, return_inverse=True)
        self._frame_places = torch.from_numpy(places.reshape(frames.shape))
        wanted_fields, places = np.unique(fields, return_inverse=True)
        self._field_places = torch.from_numpy(places.reshape(fields.shape))
        self._frames = video.frames(wanted_frames) if frames.size else None
        self._fields = video.fields(wanted_fields) if fields.size else None

    def empty(self, views: int, size: Size) -> tuple[Tensor, Tensor]:
        """Room for ``views`` clips of ``size`` = (width, height)."""
        T, (S, L) = self._frame_places.shape[1], self._field_places.shape[1:]
        return (
            torch.empty(views, T, 3, size[1], size[0], dtype=torch.uint8),
            torch.empty(views, S, 2 * L, size[1], size[0], dtype=torch.uint8),
        )

    def through(self, transform: ClipTransform, size: Size) -> tuple[Tensor, Tensor]:
        """rgb (P, T, 3, H, W) and flow (P, S, 2L, H, W) after ``transform``; ``size`` is (width, height)."""
        rgb, flow = self.empty(len(self._frame_places), size)
        if self._frames is not None:
            rgb = transform.frames(self._frames, size)[self._frame_places]
        if self._fields is not None:
            flow = transform.fields(self._fields, size)[self._field_places].flatten(2, 3)  # (P, S, L, 2, ...) before
        return rgb, flow


class _OpenVideo:
    """A video as clips are cut from it: its flow from the store, its frames from there or decoded, on one grid."""

    def __init__(self, item: VideoItem, store: FlowStore | None, spec: InputSpec) -> None:
        self._path, self._rate = item.path, spec.fps
        self._video: Video | None = None
        self._stored: StoredFlow | None = None
        if store is not None:
            self._stored = store.open(item.video)
            self.frame_count, self.fps = self._stored.frame_count, self._stored.fps
            self.width, self.height = self._stored.width, self._stored.height
        else:
            self._video = Video(item.path)
            self.frame_count = self._video.count(spec.fps)
            self.fps = spec.fps or self._video.fps
            self.width, self.height = grid_size(self._video.width, self._video.height, spec.resize)

    def span(self, item: VideoItem) -> range:
        """The item's frames within the video."""
        span = frame_range(item.start, item.end, self.fps, self.frame_count)
        if not span:
            raise DataError(
                f"{item.name}: nothing of it lies within the video, which has {self.frame_count} frames at "
                f"{self.fps:g} per second ({self.frame_count / self.fps:.2f} s)"
            )
        return span

    def region(self, span: range) -> Region:
        """Where something moves in these frames, as far as flow is stored."""
        wanted = region_fields(span.start, span.stop)
        if self._stored is None or not len(wanted):
            return WHOLE
        return moving_region(self._stored.fields(wanted), self._stored.bound)

    def frames(self, indices: IntArray) -> Uint8Array:
        """(n, H, W, 3) on the grid."""
        if self._stored is not None and self._stored.has_frames:
            return self._stored.frames(indices)
        if self._video is None:
            # As many frames as the store has can be read; if the flow was cut at damage, no more are asked for.
            self._video = Video(self._path, on_error="truncate")
        short_side = min(self.width, self.height)
        frames = self._video.frames(indices, short_side=short_side, fps=self._rate)
        if frames.shape[1:3] != (self.height, self.width):
            frames = np.stack([resize_frame(frame, (self.width, self.height)) for frame in frames])
        return frames

    def fields(self, indices: IntArray) -> Uint8Array:
        """(n, 2, H, W) on the grid; zero motion for ``NO_MOTION``."""
        if self._stored is None or indices[0] == NO_MOTION:
            return np.full((len(indices), 2, self.height, self.width), 128, np.uint8)
        return self._stored.fields(indices)

    def close(self) -> None:
        if self._stored is not None:
            self._stored.close()


class _Reader:
    """Opens videos when they are asked for and keeps the last few open; crosses to a worker process without them."""

    def __init__(self, store: FlowStore | None, spec: InputSpec) -> None:
        if store is None and "motion" in spec.streams:
            raise UsageError(
                "this network reads flow, so it needs a flow store; make one with: twostream flow DATA --out STORE"
            )
        if store is None and spec.region == "motion":
            raise UsageError(
                "this network looks at where something moves, so it needs a flow store, even if it reads no flow; make "
                "one with: twostream flow DATA --out STORE"
            )
        if store is not None and store.settings.fps != spec.fps:
            raise DataError(
                f"{store.root} holds flow at {_rate(store.settings.fps)}, but the network wants {_rate(spec.fps)}; "
                "make another store with: twostream flow DATA --out STORE --fps F"
            )
        self._store = store
        self._spec = spec
        # Found once: it takes longer than reading a clip.
        self._regions: dict[tuple[str, range], Region] = {}
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        return {"_store": self._store, "_spec": self._spec, "_regions": self._regions}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _forget(self) -> None:
        self._opened: OrderedDict[str, _OpenVideo] = OrderedDict()
        self._process = os.getpid()

    def region(self, item: VideoItem, video: _OpenVideo, span: range) -> Region:
        """What of the frame crops of an item's frames are taken from."""
        if self._spec.region == "frame":
            return WHOLE
        if (item.video, span) not in self._regions:
            self._regions[item.video, span] = video.region(span)
        return self._regions[item.video, span]

    @contextmanager
    def open(self, item: VideoItem) -> Iterator[_OpenVideo]:
        """The item's video; what goes wrong with it is a :class:`DataError` with the item's name."""
        if self._process != os.getpid():
            # A forked child shares its parent's places in the open files.
            self._forget()
        if get_worker_info() is not None:
            cv2.setNumThreads(1)
        try:
            if item.video not in self._opened:
                self._opened[item.video] = _OpenVideo(item, self._store, self._spec)
            self._opened.move_to_end(item.video)
            yield self._opened[item.video]
        except ShortClipError as error:
            raise DataError(f"{item.name}: {error}") from error
        except (VideoError, FlowStoreError, OSError) as error:
            self._opened.pop(item.video, None)
            raise DataError(
                f"{item.name} cannot be read any more: {error}; to find all such videos: twostream check DATA"
            ) from error
        while len(self._opened) > (_KNOWN_VIDEOS if self._store is None else _OPEN_STORED):
            self._opened.popitem(last=False)[1].close()


def _rate(fps: float | None) -> str:
    return "each video's own frame rate" if fps is None else f"{fps:g} frames per second"
