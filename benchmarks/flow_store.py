"""The flow store's codecs beside folders of JPEG at quality 95: bytes a field, and the time of reading ten of them.

    python benchmarks/flow_store.py --data FOLDER [FOLDER ...] [--estimator tvl1] [--clips 8] [--json]

Computes the flow of some videos of each folder, spread over all that are below it, and keeps it once as two grey JPEGs
a field and once with each codec. Then reads ten neighbouring fields from a random place of a random clip, all ways in
turn: 20 times ``cv2.imread``; a store file that is open; one that is opened for it and closed. One thread, page cache
warm. The ratio of each read to JPEG's on the same fields is given by its median and quartiles.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from twostream.flow.estimators import create_estimator
from twostream.flow.quantize import quantize
from twostream.flow.settings import CODECS, FlowSettings
from twostream.flow.store import StoredFlow, StoredFlowWriter
from twostream.video import Video, grid_size

STACK = 10
ENDINGS = {".avi", ".mp4", ".mkv", ".mov", ".webm"}

Fields = npt.NDArray[np.uint8]


def chosen(folder: Path, count: int) -> list[Path]:
    """Videos below the folder, equally spread over their sorted names."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)
    if not paths:
        raise SystemExit(f"{folder}: no videos there")
    step = max(1, len(paths) // count)
    return paths[::step][:count]


def fields_of(path: Path, settings: FlowSettings, most: int) -> Iterator[Fields]:
    """The first fields of a video as a store keeps them."""
    video = Video(path)
    size = grid_size(video.width, video.height, settings.short_side)
    estimate = create_estimator(settings.estimator, **settings.parameters)
    lumas = (frame.luma(size) for _, frame in zip(range(most + 1), video.stream(), strict=False))
    for before, after in pairwise(lumas):
        yield quantize(estimate(before, after), settings.bound)


class Clip:
    """One clip's flow, kept in all ways."""

    def __init__(self, folder: Path, fields: Sequence[Fields], settings: FlowSettings) -> None:
        self.count = len(fields)
        self.folder = folder
        folder.mkdir()
        for k, field in enumerate(fields):
            for axis, plane in zip("xy", field, strict=True):
                cv2.imwrite(self._jpeg(axis, k), plane, [cv2.IMWRITE_JPEG_QUALITY, 95])
        self.bytes = {"jpeg": sum(path.stat().st_size for path in folder.glob("*.jpg"))}
        self.files: dict[str, Path] = {}
        self.opened: dict[str, StoredFlow] = {}
        self.writing: dict[str, float] = {}
        for codec in CODECS:
            self.files[codec] = folder / f"{codec}.flow"
            H, W = fields[0].shape[1:]
            with StoredFlowWriter(self.files[codec], replace(settings, codec=codec), width=W, height=H) as writer:
                began = time.perf_counter()
                for field in fields:
                    writer.add_field(field)
                self.writing[codec] = (time.perf_counter() - began) / self.count
                writer.finish(fps=25, source_width=W, source_height=H, provenance={})
            self.opened[codec] = StoredFlow(self.files[codec])
            if not np.array_equal(self.opened[codec].fields(range(self.count)), np.stack(fields)):
                raise SystemExit(f"{codec} is not lossless")
            self.bytes[codec] = self.files[codec].stat().st_size

    def _jpeg(self, axis: str, k: int) -> str:
        return str(self.folder / f"flow_{axis}_{k + 1:05d}.jpg")

    def ways(self, first: int) -> dict[str, Callable[[], object]]:
        """Ways to read ten fields from ``first`` on."""
        run = range(first, first + STACK)

        def reopened(codec: str) -> Fields:
            with StoredFlow(self.files[codec]) as stored:
                return stored.fields(run)

        return {
            "jpeg": lambda: [cv2.imread(self._jpeg(axis, k), cv2.IMREAD_GRAYSCALE) for k in run for axis in "xy"],
            **{codec: lambda codec=codec: self.opened[codec].fields(run) for codec in CODECS},  # type: ignore[misc]
            **{f"{codec}, opened": lambda codec=codec: reopened(codec) for codec in CODECS},  # type: ignore[misc]
        }


def timed(clips: Sequence[Clip], reads: int) -> dict[str, list[float]]:
    """Seconds of each way for each of the reads."""
    rng = random.Random(0)
    seconds: dict[str, list[float]] = {}
    for read in range(reads + 10):
        clip = rng.choice(clips)
        ways = clip.ways(rng.randrange(clip.count - STACK + 1))
        order = list(ways)
        rng.shuffle(order)
        for name in order:
            began = time.perf_counter()
            ways[name]()
            if read >= 10:
                seconds.setdefault(name, []).append(time.perf_counter() - began)
    return seconds


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of videos")
    parser.add_argument("--estimator", default="tvl1")
    parser.add_argument("--clips", type=int, default=8, help="videos of each folder")
    parser.add_argument("--fields", type=int, default=40, help="of each video, the first ones")
    parser.add_argument("--reads", type=int, default=400)
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    args = parser.parse_args(argv)
    cv2.setNumThreads(1)
    settings = FlowSettings(estimator=args.estimator)
    with tempfile.TemporaryDirectory() as folder:
        clips: list[Clip] = []
        for path in (path for data in args.data for path in chosen(data, args.clips)):
            fields = list(fields_of(path, settings, args.fields))
            if len(fields) >= STACK:
                clips.append(Clip(Path(folder, str(len(clips))), fields, settings))
        seconds = timed(clips, args.reads)
        count = sum(clip.count for clip in clips)
        size = {name: sum(clip.bytes[name] for clip in clips) / count for name in ("jpeg", *CODECS)}
        result = {
            "settings": settings.to_dict(),
            "clips": len(clips),
            "fields": count,
            "ways": {
                name: {
                    "bytes_per_field": size[name.split(",")[0]],
                    "of_jpeg": size[name.split(",")[0]] / size["jpeg"],
                    "write_ms_per_field": 1000 * float(np.mean([c.writing[name] for c in clips]))
                    if name in CODECS
                    else None,
                    "read_ms": 1000 * float(np.median(taken)),
                    "times_faster": np.percentile(np.divide(seconds["jpeg"], taken), [50, 25, 75]).tolist(),
                }
                for name, taken in sorted(seconds.items(), key=lambda item: list(clips[0].ways(0)).index(item[0]))
            },
        }
        for clip in clips:
            for stored in clip.opened.values():
                stored.close()
    if args.json:
        print(json.dumps(result))
        return 0
    print(f"{args.estimator}, {len(clips)} clips, {count} fields; {args.reads} reads of {STACK} fields, one thread")
    print(f"{'':16} {'bytes/field':>11} {'of JPEG':>8} {'write':>9} {'read':>9}  times faster than JPEG")
    for name, row in result["ways"].items():  # type: ignore[attr-defined]
        write = f"{row['write_ms_per_field']:6.2f} ms" if row["write_ms_per_field"] else ""
        median, low, high = row["times_faster"]
        print(
            f"{name:16} {row['bytes_per_field']:11,.0f} {row['of_jpeg']:8.3f} {write:>9} {row['read_ms']:6.2f} ms"
            f"  {median:.2f} (quartiles {low:.2f} to {high:.2f})"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
