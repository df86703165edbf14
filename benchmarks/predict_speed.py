"""Wall time of ``twostream predict`` on a video of ten seconds, cold start included, and the share that flow takes.

    python benchmarks/predict_speed.py [--flow tvl1:balanced dis] [--repeats 3] [--cores 2] [--video VIDEO]

Writes a 340 x 256 px video of moving shapes and an untrained two-stream ResNet-18 into a temporary folder, and runs the
command as a user does, a new process each time; estimators take turns. Where the time goes is told by runs of the same
command with clocks in it: processor seconds of the threads that compute flow against those of the whole process. What
flow costs in wall time is told by runs in which every field is zero and costs nothing. Exit status 1 if a median wall
time is above the video's length.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

FPS = 25
# What the console script `twostream` is.
COMMAND = [sys.executable, "-c", "import sys; from twostream.cli import main; sys.exit(main())"]


def pictures(count: int, width: int, height: int) -> Iterator[npt.NDArray[np.uint8]]:
    """Textured discs that go their ways in front of a ground that drifts, under the noise of a camera."""
    import cv2

    rng = np.random.default_rng(0)

    def texture(h: int, w: int) -> npt.NDArray[np.uint8]:
        coarse = rng.integers(0, 256, (h // 6 + 2, w // 6 + 2, 3)).astype(np.uint8)
        return np.asarray(cv2.resize(coarse, (w, h), interpolation=cv2.INTER_CUBIC), np.uint8)

    ground = texture(height + 80, width + 80)
    discs = [(texture(height, width), rng.uniform(20, height / 4), rng.uniform(0, 6.28, 4)) for _ in range(4)]
    y, x = np.mgrid[:height, :width]
    for i in range(count):
        left, top = int(40 + 38 * np.sin(i / 30)), int(40 + 38 * np.cos(i / 41))
        picture = ground[top : top + height, left : left + width].copy()
        for n, (skin, radius, phase) in enumerate(discs):
            cx = int(width / 2 * (1 + 0.8 * np.sin(i / (20 + 5 * n) + phase[0])))
            cy = int(height / 2 * (1 + 0.8 * np.sin(i / (17 + 4 * n) + phase[1])))
            inside = (x - cx) ** 2 + (y - cy) ** 2 < radius**2
            picture[inside] = np.roll(skin, (cy, cx), axis=(0, 1))[inside]
        noise = rng.normal(0, 3, picture.shape)
        yield np.clip(picture + noise, 0, 255).astype(np.uint8)


def save_untrained_model(folder: Path, name: str, flow: str) -> None:
    """``flow`` is an estimator, and behind a colon its quality or preset."""
    from twostream.checkpoint import save_model
    from twostream.flow.store import FlowSettings
    from twostream.models import create_model

    estimator, _, preset = flow.partition(":")
    parameters = {"preset" if estimator == "dis" else "quality": preset} if preset else {}
    settings = FlowSettings(estimator=estimator, parameters=parameters, short_side=256)
    model = create_model(name, num_classes=101)
    classes = [f"class {k:03d}" for k in range(101)]
    save_model(folder, model, classes=classes, provenance={"flow": settings.to_dict()})


def with_clocks(command: Sequence[str], *, flow: bool) -> int:
    """In this process: the command, then a line of JSON about it; without ``flow`` fields are zero and cost nothing."""
    began = time.perf_counter()
    from twostream import cli
    from twostream.prediction import clip_reader, judge, predictor

    spent = {"import": time.perf_counter() - began, "flow": 0.0, "network": 0.0, "load": 0.0, "count": 0.0}

    def clocked(what: str, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        # Of one thread for flow; of all, the network's own among them, for what runs while flow does not.
        clock = time.thread_time if what == "flow" else time.perf_counter
        before = clock()
        try:
            return function(*arguments, **options)
        finally:
            spent[what] += clock() - before

    def sequence(estimator: Any, **options: Any) -> Any:
        step = original(estimator, **options)
        seen = 0

        def nothing(luma: npt.NDArray[np.uint8], *, wanted: bool = True) -> Any:
            nonlocal seen
            seen += 1
            return np.zeros((2, *luma.shape), np.float32) if wanted and seen > 1 else None

        return partial(clocked, "flow", step) if flow else nothing

    original = clip_reader.flow_sequence
    patches: Any = clip_reader, judge.Judge, predictor
    patches[0].flow_sequence = sequence
    patches[1]._ask = (lambda ask: lambda self: clocked("network", ask, self))(judge.Judge._ask)
    patches[2].load_model = partial(clocked, "load", predictor.load_model)
    patches[2]._count = partial(clocked, "count", predictor._count)
    status = cli.main(list(command))
    print(json.dumps({**spent, "processor": time.process_time()}))
    return status


def run(command: Sequence[str], cores: int) -> tuple[float, str]:
    """Seconds and standard output of a process on that many cores."""
    limit = partial(os.sched_setaffinity, 0, range(cores)) if hasattr(os, "sched_setaffinity") and cores else None
    before = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit)
    seconds = time.perf_counter() - before
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stderr}")
    return seconds, done.stdout


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="two_stream_resnet18", help="a name of `twostream models`")
    parser.add_argument(
        "--flow", nargs="+", default=["tvl1:balanced", "tvl1:fast", "dis:medium"], metavar="ESTIMATOR[:PRESET]"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the video that is made")
    parser.add_argument("--video", type=Path, help="a video of your own instead")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cores", type=int, default=2, help="cores that predict may use; 0: all")
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="all that follows goes to predict")
    parser.add_argument("--with-clocks", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    parser.add_argument("--no-flow", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.with_clocks:
        return with_clocks(args.with_clocks, flow=not args.no_flow)
    from twostream.video import Video, write_video

    with tempfile.TemporaryDirectory() as folder:
        video = args.video or Path(folder) / "shapes.mp4"
        if not args.video:
            write_video(video, pictures(round(args.seconds * FPS), 340, 256), FPS)
        info = Video(video).info()
        for flow in args.flow:
            save_untrained_model(Path(folder) / flow, args.model, flow)
        load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
        print(
            f"{args.model} on {info.seconds:.1f} s of {info.width}x{info.height} px ({info.frames} frames), "
            f"{args.cores or 'all'} cores{load}"
        )
        walls: dict[str, list[float]] = {flow: [] for flow in args.flow}
        bare: dict[str, list[float]] = {flow: [] for flow in args.flow}
        clocks: dict[str, list[dict[str, float]]] = {flow: [] for flow in args.flow}
        here = [sys.executable, __file__]
        # The first run of all fills the caches of compiled loops and of the disk, and is not counted.
        for repeat in range(args.repeats + 1):
            for flow in args.flow:
                command = ["predict", str(Path(folder) / flow), str(video), "--json", *args.options]
                wall, _ = run([*COMMAND, *command], args.cores)
                if repeat == 0:
                    continue
                walls[flow].append(wall)
                _, told = run([*here, "--with-clocks", *command], args.cores)
                clocks[flow].append(json.loads(told.splitlines()[-1]))
                bare[flow].append(run([*here, "--no-flow", "--with-clocks", *command], args.cores)[0])
    print(
        f"{'flow':<18}{'wall s':>8}{'spread':>8}{'x real time':>13}{'no flow s':>11}"
        f"{'CPU s':>8}{'of it flow':>12}{'import s':>10}{'load s':>8}{'network s':>11}"
    )
    slow = False
    for flow in args.flow:
        wall = median(walls[flow])
        told = {key: median(clock[key] for clock in clocks[flow]) for key in clocks[flow][0]}
        slow |= wall > info.seconds
        print(
            f"{flow:<18}{wall:>8.2f}{max(walls[flow]) / min(walls[flow]):>8.2f}{info.seconds / wall:>13.2f}"
            f"{median(bare[flow]):>11.2f}{told['processor']:>8.1f}{told['flow'] / told['processor']:>12.0%}"
            f"{told['import']:>10.2f}{told['load']:>8.2f}{told['network']:>11.2f}"
        )
    print("slower than real time" if slow else "faster than real time")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
