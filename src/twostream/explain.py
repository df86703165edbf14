"""What a trained network with attention looked at, on the videos of its run: weights as a file, and how well they lie.

``python -m twostream.explain RUN`` shows the network some moments of every test video, as the protocol does, and writes
``RUN/explain/attention-test.npz``; ``twostream report RUN`` then has a section with pictures of it, and needs no model.
It prints how concentrated the attention is: the smallest share of the cells that holds half of it, which is 0.5 for the
plain average. Where the data are generated (:mod:`twostream.data.motion_shapes`), the truth tells where the moving
objects are, and it prints three shares, averaged over the moments of a video and then over videos: of the attention
that lies inside their boxes (``mass``), of what even attention would have there (``even``), and of the frame that the
boxes cover (``area``). ``--json`` prints the same as one document, video by video.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from twostream.attention.tracks import AttentionFile, AttentionTrack, Box
from twostream.attention.watch import Watcher
from twostream.data.dataset import ViewDataset
from twostream.data.items import PARTS
from twostream.data.motion_shapes import TRUTH
from twostream.data.preparation import prepare
from twostream.data.sampling import frame_range, sample_views
from twostream.data.transforms import Space, covering_crops
from twostream.errors import TwostreamError, UsageError
from twostream.evaluation.evaluate import resolve_device
from twostream.evaluation.protocols import get_protocol
from twostream.flow.store import FlowStore
from twostream.runs import RunFolder
from twostream.version import __version__
from twostream.video import grid_size

Say = Callable[[str], None]
Progress = Callable[[int, int, str], None]

MOMENTS = 4
"""Moments of a video, spread evenly."""


@dataclass(frozen=True)
class Explanation:
    """Attention on the videos of a run's part, where it was written, and what could not be looked at."""

    attention: AttentionFile
    file: Path
    unreadable: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """The document of ``--json``."""
        videos = {name: _figures(track) for name, track in self.attention.tracks.items()}
        return {
            "file": str(self.file),
            **self.attention.meta,
            **{key: _mean([figures.get(key) for figures in videos.values()]) for key in _KEYS},
            "videos": videos,
            "unreadable": dict(self.unreadable),
        }

    def lines(self) -> list[str]:
        """The figures for the terminal."""
        told = self.to_dict()
        lines = [
            f"attention of {told['model']} on {len(told['videos'])} {told['part']} videos, {told['moments']} moments "
            f"each: half of it lies on {told['concentration']:.2f} of the cells (0.50 if it were even)"
        ]
        if told["mass"] is not None:
            lines.append(
                f"  inside the boxes of what moves: {told['mass']:.3f} of it; even attention would have "
                f"{told['even']:.3f} there, and they cover {told['area']:.3f} of the frame"
            )
        lines.append(f"attention: {self.file}")
        lines += [f"could not be read: {reason}" for reason in self.unreadable.values()]
        return lines


_KEYS = ("concentration", "mass", "even", "area")


def _figures(track: AttentionTrack) -> dict[str, float | None]:
    """A video's figures: means over its moments, of those with a box where boxes are asked about."""
    inside = track.inside
    found = {"concentration": track.concentration()}
    if inside is not None:
        found |= {"mass": inside.mass, "even": inside.even, "area": inside.area}
    return {key: _mean(values.tolist()) for key, values in found.items()}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None and not np.isnan(value)]
    return float(np.mean(known)) if known else None


def explain_run(
    run: RunFolder,
    *,
    part: str = "test",
    protocol: str = "25-step",
    moments: int = MOMENTS,
    videos: int | None = None,
    device: str = "auto",
    flow_workers: int = 1,
    say: Say = print,
    progress: Progress | None = None,
) -> Explanation:
    """Ask a run's network where it looks in the videos of a part, and keep the answer in the run folder.

    Flow that is not stored yet is computed on the way.

    Args:
        run: a finished run.
        part: train, val or test.
        protocol: a name of ``evaluation.protocols.PROTOCOLS``: it says whether the whole frame is seen or its centre,
            and whether mirror images are too; the attention is then the mean of both.
        moments: of each video, spread evenly over it.
        videos: at most so many, spread evenly over the list; None: all.
        device: ``"auto"`` or a torch device.
        flow_workers: processes that compute flow.
        say: takes a line for the user.
        progress: called with (videos done, videos, name).

    Raises:
        UsageError: the network has no attention, or the part no videos, or numbers are out of range.
        RunError: the run has not finished.
    """
    for name, value in (("moments", moments), ("videos", 1 if videos is None else videos)):
        if value < 1:
            raise UsageError(f"{name} is at least 1, got {value}")
    loaded, config = run.model(), run.config()
    spec = loaded.model.spec
    watcher = Watcher(loaded.model, resolve_device(device))
    items = run.annotations().parts[part]
    if not items:
        raise UsageError(f"{run.path}: its data has no {part} videos")
    if videos is not None and videos < len(items):
        items = tuple(items[n * len(items) // videos] for n in range(videos))
    store = run.store()
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
    chosen = get_protocol(protocol)
    space: Space = "whole" if chosen.space == "whole" else "centre"
    views = ViewDataset(
        readable.items,
        store,
        spec,
        steps=moments,
        space=space,
        flips=chosen.flips and not config["no_flip"],
        short_clips=config["short_clips"],
    )
    truth = read_truth(Path(config["data"]) / TRUTH)
    tracks = {}
    for n, item in enumerate(views.items):
        track = _track(watcher, views, n, store)
        if item.video in truth:
            track = replace(track, inside=track.inside_boxes(truth[item.video].boxes_at(track.seconds.tolist())))
        tracks[item.name] = track
        if progress:
            progress(n + 1, len(views), item.name)
    meta = {
        "part": part,
        "split": str(config["split"]),
        "protocol": protocol,
        "moments": moments,
        "model": loaded.model.name,
        "weights": loaded.config["weights"]["sha256"],
        "run": str(run.path),
        "twostream": __version__,
    }
    file = run.path / "explain" / f"attention-{part}.npz"
    attention = AttentionFile(tracks=tracks, meta=meta)
    attention.save(file)
    return Explanation(attention, file, readable.unreadable)


def _track(watcher: Watcher, views: ViewDataset, n: int, store: FlowStore) -> AttentionTrack:
    item, spec = views.items[n], views.spec
    with store.open(item.video) as stored:
        span = frame_range(item.start, item.end, stored.fps, stored.frame_count)
        fps, grid = stored.fps, (stored.width, stored.height)
    clips = sample_views(spec, len(span), views.steps, short_clips=views.short_clips)
    (crop,) = covering_crops(views.space, *grid, share=spec.size / spec.resize)
    width, height = grid_size(*grid, spec.resize) if views.space == "whole" else (spec.size, spec.size)
    shown = views[n]
    weights = watcher.weights(shown.rgb, shown.flow)  # (M V, h, w): each moment plain and then mirrored
    return watcher.track(
        weights.reshape(len(clips), -1, *weights.shape[1:]),
        seconds=[(span.start + int(clip.frames[0])) / fps for clip in clips],
        seen=(crop.left, crop.top, crop.left + crop.width, crop.top + crop.height),
        width=width,
        height=height,
    )


@dataclass(frozen=True)
class Movers:
    """The things that move in a generated video.

    Attributes:
        fps: frames per second.
        boxes: a list for each thing that moves at any time: its box in every frame, as shares of the frame.
    """

    fps: float
    boxes: tuple[tuple[Box, ...], ...]

    def boxes_at(self, seconds: Sequence[float]) -> list[list[Box]]:
        """For each time the boxes of all that move."""
        return [[of_thing[min(round(t * self.fps), len(of_thing) - 1)] for of_thing in self.boxes] for t in seconds]


def read_truth(path: Path) -> dict[str, Movers]:
    """What moves where in the videos of a generated set, by the videos' names; nothing where there is no such file.

    Raises:
        UsageError: the file is of another kind.
    """
    if not path.exists():
        return {}
    try:
        truth = json.loads(path.read_text(encoding="utf-8"))
        W, H, fps = truth["width"], truth["height"], float(truth["fps"])
        return {
            entry["video"]: Movers(
                fps,
                tuple(
                    tuple((left / W, top / H, right / W, bottom / H) for left, top, right, bottom in thing["boxes"])
                    for thing in entry["objects"]
                    if thing["moves"]
                ),
            )
            for entry in truth["videos"]
        }
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UsageError(f"{path}: not the truth of generated videos ({error}); move it away") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m twostream.explain",
        description="Ask a network with attention where it looks; twostream report RUN then shows it.",
    )
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument("--part", choices=PARTS, default="test", help="whose videos (default test)")
    parser.add_argument("--protocol", default="25-step", help="what of the frame is seen (default 25-step)")
    parser.add_argument("--moments", type=int, default=MOMENTS, help=f"moments of each video (default {MOMENTS})")
    parser.add_argument("--videos", type=int, help="at most so many videos (default: all)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda ...")
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit status: 0 all was looked at, 1 not, 2 a wrong call, 130 stopped by Ctrl-C."""
    options = vars(_parser().parse_args(arguments))
    run, as_json = options.pop("run"), options.pop("json")

    def say(line: str) -> None:
        print(line, file=sys.stderr)

    try:
        found = explain_run(RunFolder.open(run), say=say, **options)
    except UsageError as error:
        say(f"error: {error}")
        return 2
    except TwostreamError as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("stopped; nothing was written")
        return 130
    if as_json:
        print(json.dumps(found.to_dict(), indent=1, ensure_ascii=False))
    else:
        print("\n".join(found.lines()))
    return 1 if found.unreadable else 0


__all__ = ["Explanation", "Movers", "explain_run", "main", "read_truth"]


if __name__ == "__main__":
    sys.exit(main())
