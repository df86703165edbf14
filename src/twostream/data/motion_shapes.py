"""Diagnostic videos: real files, in sets of classes each of which isolates one thing that a network must be able to do.

=============  ===================================================================================
same_look      only motion tells; in the test part the grounds mislead a network that trusts looks
same_motion    only appearance tells
long_term      the order of two motions, further apart than a flow stack is long
conjunction    texture and motion together; no weighted sum of two streams' scores can solve it
binding        two things at once: which texture has which motion
where          several things, one moves; motion must say where appearance should look
=============  ===================================================================================

``python -m twostream.data.motion_shapes SET OUT`` writes a folder per class below ``OUT/train``, ``OUT/val`` and
``OUT/test``, and the truth about every video in ``OUT/truth.json``. How the pictures are drawn, and why neither a
single frame tells the motion nor the flow the texture, stands in :mod:`twostream.data.shape_rendering`.
"""

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from twostream.data.items import PARTS, DataError, first_few
from twostream.data.shape_rendering import Scene, boxes, compose, film
from twostream.data.shape_sets import SETS, Lot, Settings, ShapeSet, late_fusion_ceiling, settings_for
from twostream.errors import TwostreamError, UsageError
from twostream.files import remove_leftovers, write_text
from twostream.units import seconds_text
from twostream.video import write_video

FPS = 25
TRUTH = "truth.json"
_FORMAT = "twostream-motion-shapes-1"
"""Changes whenever the same settings no longer give the same pictures."""

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class _Video:
    """One video of a set, before it is drawn."""

    settings: Settings
    part: str
    index: int

    @property
    def lot(self) -> Lot:
        turn, label = divmod(self.index, self.settings.classes)
        return Lot(label, turn, self.settings.classes, self.part, self.settings.frames)

    @property
    def name(self) -> str:
        # No separator before the number: "train-000001" would read as the first clip cut from a recording "train".
        return f"{self.part}/{self.settings.class_names[self.lot.label]}/{self.part}{self.index:06d}.mp4"

    def generator(self, purpose: int) -> np.random.Generator:
        """Of its own for each video and purpose, so that more videos or other labels change nothing else."""
        place = [list(SETS).index(self.settings.set), PARTS.index(self.part), self.index, purpose]
        return np.random.default_rng([self.settings.seed, *place])

    def draw(self) -> tuple[Scene, dict[str, Any]]:
        """The scene, without pixels, and the truth about it."""
        cast = self.settings.shapes.cast(self.lot, self.generator(0))
        scene = compose(
            cast.roles,
            cast.ground,
            self.generator(1),
            size=self.settings.picture,
            frames=self.settings.frames,
            difficulty=self.settings.difficulty,
        )
        truth = {
            "video": self.name,
            "part": self.part,
            "class": self.settings.class_names[self.lot.label],
            "label": self.lot.label,
            **cast.facts,
            "ground": cast.ground,
            "objects": [
                {
                    "texture": thing.role.texture,
                    "moves": [asdict(run) for run in thing.role.runs],
                    "boxes": np.round(boxes(scene, thing), 1).tolist(),
                }
                for thing in scene.things
            ],
        }
        return scene, truth


def render(
    set_name: str,
    part: str,
    index: int,
    *,
    seed: int = 0,
    size: int = 128,
    frames: int | None = None,
    difficulty: float = 0.5,
    classes: int | None = None,
) -> tuple[npt.NDArray[np.uint8], dict[str, Any]]:
    """Draw one video of a set.

    Args:
        set_name: one of :data:`SETS`.
        part: ``"train"``, ``"val"`` or ``"test"``.
        index: 0, 1, ...; the label is ``index % classes``.
        seed: with the set, the part and the index it determines every pixel.
        size: short side in px; the width is 9/8 of it.
        frames: T; None is the set's own number.
        difficulty: 0..1, noise, shake, contrast, clutter and the range of speeds and sizes.
        classes: their number; None is the set's own.

    Returns:
        Frames (T, H, W, 3) RGB, and the truth as it stands in ``truth.json``: the class and its parts, and for each
        object its texture, when it moves how (``start`` and ``stop`` in fields; field k leads from frame k to k + 1)
        and its box in every frame (left, top, right, bottom in px).

    Raises:
        UsageError: an argument that the set does not have.
    """
    settings = settings_for(set_name, seed=seed, size=size, frames=frames, difficulty=difficulty, classes=classes)
    if part not in PARTS:
        raise UsageError(f"the part is one of {', '.join(PARTS)}, got {part!r}")
    if index < 0:
        raise UsageError(f"the index of a video is a whole number from 0, got {index}")
    scene, truth = _Video(settings, part, index).draw()
    return film(scene), truth


def generate(
    out: Path | str,
    set_name: str,
    *,
    train: int = 200,
    val: int = 0,
    test: int = 100,
    seed: int = 0,
    size: int = 128,
    frames: int | None = None,
    difficulty: float = 0.5,
    classes: int | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> Path:
    """Write a set as ``OUT/<part>/<class>/<part>NNNNNN.mp4`` and ``OUT/truth.json``.

    The truth is written first, then the videos, each whole or not at all; a second call makes only what is missing.
    Asking for more videos later extends the set by videos that a larger number would have made at once.

    Args:
        out: folder; made where it is missing.
        set_name: one of :data:`SETS`.
        train, val, test: videos in each part, dealt to the classes in turn.
        seed, size, frames, difficulty, classes: as in :func:`render`.
        workers: processes that draw and encode.
        progress: called with (videos done, videos in all, the last one's name).

    Returns:
        ``out``.

    Raises:
        UsageError: an argument that the set does not have.
        DataError: ``out`` holds something else, or the same with other settings.
        OutputError: a file cannot be written.
    """
    settings = settings_for(set_name, seed=seed, size=size, frames=frames, difficulty=difficulty, classes=classes)
    counts = dict(zip(PARTS, (train, val, test), strict=True))
    for part, count in counts.items():
        if count < 0 or 0 < count < settings.classes:
            raise UsageError(
                f"{part} can have 0 videos or at least one for each of the {settings.classes} classes, got {count}"
            )
    if not any(counts.values()):
        raise UsageError("no videos are asked for: train, val and test are all 0")
    if workers < 1:
        raise UsageError(f"at least one worker is needed, got {workers}")
    out = Path(out)
    present = _counts_in(out, settings)
    for part, count in counts.items():
        if count < present.get(part, 0):
            raise DataError(
                f"{out} already has {present[part]} {part} videos and {count} are asked for; ask for at least as many, "
                "or write into another folder"
            )
    videos = [_Video(settings, part, index) for part, count in counts.items() for index in range(count)]
    if counts != present:
        write_text(out / TRUTH, _truth_text(settings, counts, videos))
    remove_leftovers(out)
    missing = [video for video in videos if not (out / video.name).exists()]
    done = len(videos) - len(missing)
    for name in _write_all(out, missing, workers):
        done += 1
        if progress:
            progress(done, len(videos), name)
    return out


def _counts_in(out: Path, settings: Settings) -> dict[str, int]:
    """Videos by part that the truth file in ``out`` speaks of; none where there is nothing yet."""
    file = out / TRUTH
    if not file.exists():
        if out.is_dir() and (others := sorted(p.name for p in out.iterdir() if not p.name.startswith("."))):
            raise DataError(
                f"{out} holds {first_few(others, 2)} but no {TRUTH}, so it is not a set of these videos; write into "
                "another folder"
            )
        return {}
    try:
        head = json.loads(file.read_text(encoding="utf-8"))
        form, found = head["format"], head["settings"]
        counts = {str(part): int(count) for part, count in head["counts"].items()}
        wanted = asdict(settings)
        different = [
            f"{key} is {found.get(key)} and not {wanted[key]}" for key in wanted if found.get(key) != wanted[key]
        ]
    except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise DataError(f"{file}: not the truth of a set of these videos ({error})") from error
    if form != _FORMAT:
        raise DataError(
            f"{out} holds videos of another version ({form}, this one makes {_FORMAT}); write into another folder"
        )
    if different:
        raise DataError(
            f"{out} holds videos of other settings ({'; '.join(different)}); ask for the same or write into another "
            "folder"
        )
    return counts


def _truth_text(settings: Settings, counts: Mapping[str, int], videos: Sequence[_Video]) -> str:
    head = {
        "format": _FORMAT,
        "settings": asdict(settings),
        "counts": dict(counts),
        "isolates": settings.shapes.isolates,
        "ceilings": settings.shapes.ceilings(settings.classes),
        "classes": list(settings.class_names),
        "fps": FPS,
        "width": settings.picture[0],
        "height": settings.picture[1],
    }
    # A line a video: the file stays readable and can be searched.
    lines = ",\n".join(json.dumps(video.draw()[1], separators=(",", ":")) for video in videos)
    return f'{json.dumps(head, indent=1)[:-2]},\n "videos": [\n{lines}\n]}}\n'


def _write_all(out: Path, videos: Sequence[_Video], workers: int) -> Iterator[str]:
    """Draw and encode, and yield each name when its file is there."""
    if workers == 1 or len(videos) < 2:
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)  # pictures this small only lose by being shared out
        try:
            for video in videos:
                yield _write(out, video)
        finally:
            cv2.setNumThreads(threads)
        return
    pool = ProcessPoolExecutor(
        min(workers, len(videos)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=cv2.setNumThreads,
        initargs=(1,),
    )
    try:
        yield from pool.map(_write, [out] * len(videos), videos, chunksize=4)
    finally:
        pool.shutdown(cancel_futures=True)


def _write(out: Path, video: _Video) -> str:
    write_video(out / video.name, film(video.draw()[0]), FPS)
    return video.name


def _parser() -> argparse.ArgumentParser:
    known = "\n".join(f"  {name:12} {shapes.isolates}" for name, shapes in SETS.items())
    parser = argparse.ArgumentParser(
        prog="python -m twostream.data.motion_shapes",
        description="Write diagnostic videos and the truth about them.",
        epilog=f"sets:\n{known}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("set", metavar="SET", help="which set (below)")
    parser.add_argument(
        "out", metavar="OUT", type=Path, help="folder to write into; the same command again makes what is missing"
    )
    parser.add_argument("--train", type=int, default=200, help="training videos in all (default 200)")
    parser.add_argument("--val", type=int, default=0, help="validation videos (default 0)")
    parser.add_argument("--test", type=int, default=100, help="test videos (default 100)")
    parser.add_argument("--classes", type=int, help="number of classes (default: the set's own)")
    parser.add_argument("--frames", type=int, help="frames of each video (default: the set's own)")
    parser.add_argument("--size", type=int, default=128, help="short side in px (default 128)")
    parser.add_argument("--difficulty", type=float, default=0.5, help="0 (clean) to 1 (default 0.5)")
    parser.add_argument("--seed", type=int, default=0, help="other seeds give other videos (default 0)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit status: 0 all written, 1 not, 2 a wrong call, 130 stopped by Ctrl-C."""
    options = vars(_parser().parse_args(arguments))
    began = time.monotonic()
    first = 0

    def progress(done: int, total: int, what: str) -> None:
        nonlocal first
        first = first or done
        if done == total or done % max(1, total // 10) == 0:
            left = (time.monotonic() - began) / (done - first + 1) * (total - done)
            print(f"{done}/{total} {what}, about {seconds_text(left)} left", file=sys.stderr)

    set_name, out = options.pop("set"), options.pop("out")
    try:
        generate(out, set_name, progress=progress, **options)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except TwostreamError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; what is finished is kept, and the same command makes the rest", file=sys.stderr)
        return 130
    print(f"{out}: {set_name}, {', '.join(f'{options[p]} {p}' for p in PARTS if options[p])}; the truth is in {TRUTH}")
    return 0


__all__ = [
    "FPS",
    "SETS",
    "TRUTH",
    "Settings",
    "ShapeSet",
    "generate",
    "late_fusion_ceiling",
    "render",
    "settings_for",
]


if __name__ == "__main__":
    sys.exit(main())
