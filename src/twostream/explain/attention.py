"""What a trained network with attention looked at, on the videos of its run: weights as a file, and how well they lie.

The figures tell how concentrated the attention is: the smallest share of the cells that holds half of it, which is 0.5
for the plain average. Where the data are generated (:mod:`twostream.data.motion_shapes`), the truth tells where the
moving objects are, and there are three shares, averaged over the moments of a video and then over videos: of the
attention that lies inside their boxes (``mass``), of what even attention would have there (``even``), and of the frame
that the boxes cover (``area``).
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from twostream.attention.tracks import AttentionFile, AttentionTrack, Box
from twostream.attention.watch import Watcher
from twostream.data.motion_shapes import TRUTH
from twostream.errors import UsageError
from twostream.evaluation.evaluate import resolve_device
from twostream.explain.shown import MOMENTS, Shown, run_views
from twostream.runs import RunFolder
from twostream.version import __version__

Say = Callable[[str], None]
Progress = Callable[[int, int, str], None]


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


def explain_attention(
    run: RunFolder,
    *,
    part: str = "test",
    protocol: str = "25-step",
    moments: int = MOMENTS,
    videos: int | None = None,
    names: Collection[str] | None = None,
    out: Path | None = None,
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
        names: of the videos; None: all.
        out: folder; None: the run's ``explain``.
        device: ``"auto"`` or a torch device.
        flow_workers: processes that compute flow.
        say: takes a line for the user.
        progress: called with (videos done, videos, name).

    Raises:
        UsageError: the network has no attention, or the part no such videos, or numbers are out of range.
        RunError: the run has not finished.
    """
    shown = run_views(
        run,
        part=part,
        protocol=protocol,
        moments=moments,
        videos=videos,
        names=names,
        mirrored=True,
        flow_workers=flow_workers,
        say=say,
        progress=progress,
        needs=lambda loaded: Watcher(loaded.model, resolve_device(device)),
    )
    watcher = Watcher(shown.loaded.model, resolve_device(device))
    config = run.config()
    truth = read_truth(Path(config["data"]) / TRUTH)
    tracks = {}
    for n, item in enumerate(shown.items):
        track = track_of(watcher, shown.shown(n))
        if item.video in truth:
            track = replace(track, inside=track.inside_boxes(truth[item.video].boxes_at(track.seconds.tolist())))
        tracks[item.name] = track
        if progress:
            progress(n + 1, len(shown.items), item.name)
    meta = {
        "part": part,
        "split": str(config["split"]),
        "protocol": protocol,
        "moments": moments,
        "model": shown.loaded.model.name,
        "weights": shown.loaded.config["weights"]["sha256"],
        "run": str(run.path),
        "twostream": __version__,
    }
    file = (out or run.path / "explain") / f"attention-{part}.npz"
    attention = AttentionFile(tracks=tracks, meta=meta)
    attention.save(file)
    return Explanation(attention, file, shown.unreadable)


def track_of(watcher: Watcher, shown: Shown) -> AttentionTrack:
    """Where a network looks in the clips of a video; of a clip and its mirror image the mean."""
    weights = watcher.weights(shown.rgb, shown.flow)  # (R, h, w)
    views = 2 if shown.flips else 1
    height, width = shown.rgb.shape[-2:]
    return watcher.track(
        weights.reshape(-1, views, *weights.shape[1:]),
        seconds=shown.seconds["appearance"].tolist(),
        seen=shown.seen,
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


__all__ = ["Explanation", "Movers", "explain_attention", "read_truth", "track_of"]
