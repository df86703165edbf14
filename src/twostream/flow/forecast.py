"""What an extraction will take, before it is begun."""

import itertools
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from twostream.errors import TwostreamError
from twostream.flow.estimators import create_estimator, flow_sequence
from twostream.flow.executors import divided
from twostream.flow.jobs import Source, size_of
from twostream.flow.store import FlowSettings, stored_size
from twostream.flow.store_file import check_grid
from twostream.video import Video, grid_size, probe


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What an extraction will take: an extrapolation from a few pairs of frames of a few videos, good to some 30 %.

    Attributes:
        seconds: wall time; NaN where none of the videos that were tried could be read.
        bytes: disk; likewise.
        pairs: how many pairs of frames were measured.
    """

    seconds: float
    bytes: float
    pairs: int


def estimate(sources: Sequence[Source], settings: FlowSettings, *, workers: int, samples: int = 3) -> Estimate:
    """Measure on a few videos how long the flow of all would take, and how much disk.

    Videos are sorted by file size and cut into ``samples`` equal parts; one of each part is measured, six pairs of
    frames or half a second, and stands for the others by the number of its bytes.

    Args:
        sources: those that are to be computed, without what is in the store already.
        settings: the store's.
        workers: cores that the work is spread over.
        samples: videos to measure.
    """
    ranked = sorted(sources, key=lambda source: (size_of(source.path), source.name))
    seconds = stored = 0.0
    covered = pairs = 0
    for part in np.array_split(range(len(ranked)), min(samples, len(ranked)) or 1):
        bytes_of_part = sum(size_of(ranked[i].path) for i in part)
        # From the middle outwards; unreadable ones stand for nothing.
        for i in sorted(part, key=lambda i: abs(i - part[len(part) // 2]))[:4]:
            try:
                measured = _measure(ranked[i].path, settings)
            except (TwostreamError, OSError):
                continue
            share = bytes_of_part / max(1, size_of(ranked[i].path))
            seconds += share * measured.seconds
            stored += share * measured.bytes
            pairs += measured.pairs
            covered += bytes_of_part
            break
    if not ranked:
        return Estimate(seconds=0.0, bytes=0.0, pairs=0)
    # Parts without a readable sample are taken to be like the others.
    scale = sum(size_of(source.path) for source in ranked) / covered if covered else math.nan
    processes, threads = divided(min(workers, _cores()), len(ranked))
    return Estimate(seconds=seconds * scale / (processes * threads), bytes=stored * scale, pairs=pairs)


def _measure(path: Path, settings: FlowSettings) -> Estimate:
    """One video, by one process."""
    info = probe(path)
    fields = max(0, (info.frames if settings.fps is None else round(info.seconds * settings.fps)) - 1)
    size = grid_size(info.width, info.height, settings.short_side)
    check_grid(*size)
    estimator = create_estimator(settings.estimator, **settings.parameters)
    # First calls may have to compile, of the flow and of the codec. Large enough for every estimator's patches.
    still = np.zeros((128, 128), np.uint8)
    stored_size(estimator(still, still), None, replace(settings, frames=False))
    # Motion comes and goes within a clip, so the pairs are spread.
    step = max(1, min(fields, 120) // 6)
    decoding: list[float] = []
    computing: list[float] = []
    sizes: list[int] = []
    previous = None
    before = time.perf_counter()
    for frame in itertools.islice(Video(path, on_error="truncate").stream(), 6 * step + 1):
        luma = frame.luma(size)
        decoding.append(time.perf_counter() - before)
        if previous is not None and frame.index % step == 0:
            # As in the middle of a video, where the frame before has been prepared for the pair before.
            sequence = flow_sequence(estimator)
            sequence(previous)
            before = time.perf_counter()
            flow = sequence(luma)
            assert flow is not None
            kept = frame.rgb(size) if settings.frames else None
            sizes.append(stored_size(flow, kept, settings))
            computing.append(time.perf_counter() - before)
            # Of one pair alone, its first costs would be taken for all pairs'.
            if sum(computing[1:]) > 0.5:
                break
        previous = luma
        before = time.perf_counter()
    # The first of each bears the costs of starting.
    per_frame = _mean(decoding[1:])
    per_field = _mean(computing[1:] or computing)
    # Choosing frames by time takes a pass over the video beforehand.
    passes = 1 if settings.fps is None else 2
    return Estimate(
        seconds=info.frames * per_frame * passes + fields * per_field,
        bytes=fields * _mean(sizes),
        pairs=len(sizes),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


__all__ = ["Estimate", "estimate"]
