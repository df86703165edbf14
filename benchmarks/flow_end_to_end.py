"""Videos to flow store: seconds, fields a second and peak memory of each worker, with one worker and with two.

    python benchmarks/flow_end_to_end.py FOLDER... [--workers 1 2] [--repeats 3] [--videos N]
    python benchmarks/flow_end_to_end.py --minutes 60 [--workers 2]

The first form takes every video below each folder, the numbers of workers in turn, as often as asked for, each time
into a new store. The ratio is that of the fewest and the most workers, round by round. The second takes one video of so
many minutes, which is made first; with more than one worker, its fields are shared between threads of one process.

Exit status 1 if the ratio for two workers is below 1.8, or a worker's memory above the limit.
"""

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from predict_memory import write_long_video
from twostream.data.video_files import list_videos
from twostream.flow.estimators import compute
from twostream.flow.extract import ExtractionSummary, extract
from twostream.flow.jobs import Source
from twostream.flow.store import FlowSettings, FlowStore

TARGET_RATIO = 1.8


@dataclass(frozen=True)
class Measured:
    summary: ExtractionSummary
    peaks: tuple[float, ...]
    """MiB, of each worker."""


class PeakOfWorkers(threading.Thread):
    """Looks at the kernel's high-water mark of every worker until it is stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peaks: dict[int, float] = {}
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.05):
            for worker in multiprocessing.active_children():
                # It may have ended just now.
                with suppress(OSError, StopIteration, TypeError):
                    status = Path(f"/proc/{worker.pid}/status").read_text().splitlines()
                    mark = next(line for line in status if line.startswith("VmHWM")).split()[1]
                    self.peaks[worker.pid or 0] = int(mark) / 2**10

    def stop(self) -> tuple[float, ...]:
        self._over.set()
        self.join()
        return tuple(self.peaks.values())


def measure(sources: Sequence[Source], settings: FlowSettings, workers: int) -> Measured:
    with tempfile.TemporaryDirectory() as folder:
        watch = PeakOfWorkers()
        watch.start()
        summary = extract(sources, FlowStore(Path(folder) / "store", settings), workers=workers)
        measured = Measured(summary, watch.stop())
    for reason in summary.failed.values():
        print("failed:", reason)
    return measured


def row(name: str, workers: int, measured: Measured) -> float:
    """Print it; returns the highest peak in MiB."""
    summary, peak = measured.summary, max(measured.peaks, default=float("nan"))
    print(
        f"| {name} | {workers} | {len(summary.done)} | {summary.fields} | {summary.seconds:.1f} | "
        f"{summary.fields / summary.seconds:.1f} | {summary.bytes / max(1, summary.fields):.0f} | {peak:.0f} |",
        flush=True,
    )
    return peak


def sources_below(folder: Path, most: int | None) -> list[Source]:
    sources = [Source(name, folder / name) for name in list_videos(folder)]
    # A part of the whole is spread over it.
    return sources if most is None else sources[:: max(1, len(sources) // most)][:most]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="*", metavar="FOLDER", help="folders of videos")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--videos", type=int, default=None, metavar="N", help="no more than N of each folder")
    parser.add_argument("--minutes", type=float, default=None, help="measure one made video of this length")
    parser.add_argument("--estimator", default="tvl1")
    parser.add_argument("--quality", default=None, help="of tvl1")
    parser.add_argument("--short-side", type=int, default=256)
    parser.add_argument("--limit-mib", type=float, default=1024, help="peak memory above which the status is 1")
    args = parser.parse_args(argv)
    if not args.folders and args.minutes is None:
        parser.error("name folders of videos, or --minutes of a long one")
    settings = FlowSettings(
        estimator=args.estimator,
        parameters={"quality": args.quality} if args.quality else {},
        short_side=args.short_side,
    )
    # Compiled once and kept on the disk, which is measured elsewhere.
    compute(np.zeros((2, 128, 128), np.uint8), estimator=args.estimator, **settings.parameters)
    print(settings.describe(), "\n")
    print("| videos | workers | videos done | fields | s | fields/s | bytes/field | peak of a worker MiB |")
    print("|---|---|---|---|---|---|---|---|")
    peaks: list[float] = []
    ratios: dict[str, list[float]] = {}
    fewest, most = min(args.workers), max(args.workers)
    for folder in args.folders:
        sources = sources_below(folder, args.videos)
        for _ in range(args.repeats):
            seconds: dict[int, float] = {}
            for workers in args.workers:
                measured = measure(sources, settings, workers)
                peaks.append(row(folder.name, workers, measured))
                seconds[workers] = measured.summary.seconds
            if fewest != most:
                ratios.setdefault(folder.name, []).append(seconds[fewest] / seconds[most])
    if args.minutes is not None:
        with tempfile.TemporaryDirectory() as place:
            video = Path(place) / "long.mp4"
            write_long_video(video, args.minutes, 340, 256)
            for workers in args.workers:
                name = f"one video of {args.minutes:g} min"
                peaks.append(row(name, workers, measure([Source("long", video)], settings, workers)))
    print()
    missed = max(peaks) > args.limit_mib
    print(f"peak of a worker: {max(peaks):.0f} MiB, limit {args.limit_mib:g} MiB")
    for name, found in ratios.items():
        middle = statistics.median(found)
        print(f"{name}: {fewest} to {most} workers {middle:.2f} times as fast ({min(found):.2f} to {max(found):.2f})")
        missed |= (fewest, most) == (1, 2) and middle < TARGET_RATIO
    return 1 if missed else 0


if __name__ == "__main__":
    began = time.monotonic()
    status = main()
    print(f"{time.monotonic() - began:.0f} s in all")
    sys.exit(status)
