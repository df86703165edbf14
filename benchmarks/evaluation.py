"""Seconds to judge a video: the package's way beside a loop over its views, each read and passed alone.

    python benchmarks/evaluation.py [--protocols 25-step 25x10] [--videos FOLDER] [--count 2] [--repeats 7] [--frames]

An untrained two-stream ResNet-18 at the size that training picks on a CPU judges the same videos in three ways, in one
process, which take turns in an order that is drawn for every repeat:

    package       as ``twostream evaluate``: frames and fields of a video read once, 25 steps pass the network at once
    read once     the same reading, but every view passes the network alone
    view by view  every view is read and passes the network alone

The loops use the package's own readers, which find a frame without decoding those before its key frame and keep videos
open between two views; a loop that opens them anew each time is slower still. Flow is computed beforehand, with DIS,
and not timed; frames are decoded from the videos, or with ``--frames`` read from the store. Every way begins with a
data set that has opened nothing, and files are in the page cache. Ratios are taken repeat by repeat and given by their
median, lowest and highest; those of the processor's seconds, of all threads, say more where others use the cores. Exit
status 1 if the package's way is slower than the view-by-view loop by the median; an error if two ways answer
differently.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from predict_speed import FPS, pictures
from twostream.data.dataset import ViewDataset
from twostream.data.items import VideoItem, counted
from twostream.evaluation.evaluate import evaluate
from twostream.evaluation.protocols import PROTOCOLS, get_protocol, view_dataset
from twostream.flow.extract import Source, extract
from twostream.flow.store import FlowSettings, FlowStore
from twostream.models import create_model
from twostream.video import write_video

ENDINGS = {".avi", ".mp4", ".mkv", ".mov", ".webm"}
K = 101
# What `twostream evaluate` passes at once.
BATCH_STEPS = 25

Logits = npt.NDArray[np.float32]
Way = Callable[[nn.Module, ViewDataset, str], Logits]


def package(model: nn.Module, views: ViewDataset, device: str) -> Logits:
    classes = [str(k) for k in range(K)]
    logits: Logits = evaluate(model, views, classes=classes, device=device, batch_steps=BATCH_STEPS).logits
    return logits


def read_once(model: nn.Module, views: ViewDataset, device: str) -> Logits:
    answers = []
    for n in range(len(views)):
        clip = views[n]
        alone = zip(clip.rgb.split(1), clip.flow.split(1), strict=True)
        answers.append(torch.cat([ask(model, rgb, flow, device) for rgb, flow in alone]))
    return torch.stack(answers).numpy()


def view_by_view(model: nn.Module, views: ViewDataset, device: str) -> Logits:
    answers = []
    for n in range(len(views)):
        alone = views.chunks(n, 1)
        answers.append(torch.cat([ask(model, clip.rgb, clip.flow, device) for clip in alone]))
    return torch.stack(answers).numpy()


def ask(model: nn.Module, rgb: Tensor, flow: Tensor, device: str) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = model(rgb.to(device), flow.to(device))
    return logits.float().cpu()


WAYS: dict[str, Way] = {"package": package, "read once": read_once, "view by view": view_by_view}


def chosen(folder: Path, count: int) -> list[Path]:
    """Videos below the folder, equally spread over their sorted names."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)
    if not paths:
        raise SystemExit(f"{folder}: no videos there ({', '.join(sorted(ENDINGS))})")
    return paths[:: max(1, len(paths) // count)][:count]


def made(folder: Path, count: int, seconds: float) -> list[Path]:
    """Videos of moving shapes, of the size of UCF101's."""
    paths = [folder / f"{n}.mp4" for n in range(count)]
    for path in paths:
        write_video(path, pictures(round(seconds * FPS), 320, 240), FPS)
    return paths


def timed(
    model: nn.Module, fresh: Callable[[], ViewDataset], *, device: str, repeats: int
) -> tuple[dict[str, npt.NDArray[np.float64]], float]:
    """Seconds (2, repeats) of every way for all videos, on the wall and of the processor; how far logits are apart."""
    rng = random.Random(0)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    apart = 0.0
    # The first turn of each warms what is compiled and cached, and is not counted.
    for repeat in range(repeats + 1):
        answers: dict[str, Logits] = {}
        for name in rng.sample(list(WAYS), len(WAYS)):
            views = fresh()
            began, spent = time.perf_counter(), time.process_time()
            answers[name] = WAYS[name](model, views, device)
            if repeat:
                seconds[name].append((time.perf_counter() - began, time.process_time() - spent))
        apart = max(apart, *(float(np.abs(answer - answers["package"]).max()) for answer in answers.values()))
    return {name: np.array(pairs).T for name, pairs in seconds.items()}, apart


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--protocols", nargs="+", default=["25-step", "25x10"], choices=list(PROTOCOLS))
    parser.add_argument("--videos", type=Path, metavar="FOLDER", help="videos of your own instead of generated ones")
    parser.add_argument("--count", type=int, default=2, help="videos")
    parser.add_argument("--seconds", type=float, default=7.0, help="length of the videos that are made")
    parser.add_argument("--frames", action="store_true", help="keep the frames in the store and read them from there")
    parser.add_argument("--size", type=int, default=112, help="of the crops, px; training picks 112 on a CPU")
    parser.add_argument("--width", type=int, default=64, help="channels of the network's first layer")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="of the network; where others use the cores, 1 waits for nobody")
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = create_model("two_stream_resnet18", num_classes=K, size=args.size, width=args.width).eval().to(args.device)
    slower = False
    with tempfile.TemporaryDirectory() as folder:
        paths = chosen(args.videos, args.count) if args.videos else made(Path(folder), args.count, args.seconds)
        settings = FlowSettings(estimator="dis", short_side=model.spec.resize, frames=args.frames)
        store = FlowStore(Path(folder) / "flow", settings)
        summary = extract([Source(str(n), path) for n, path in enumerate(paths)], store, workers=0)
        if summary.failed:
            raise SystemExit("\n".join(summary.failed.values()))
        items = [VideoItem(path=path, video=str(n), label=0) for n, path in enumerate(paths)]
        load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
        print(
            f"two_stream_resnet18, width {args.width}, {args.size} px crops, {counted(len(items), 'video')}, frames "
            f"{'from the store' if args.frames else 'decoded'}, {args.device}, "
            f"{counted(torch.get_num_threads(), 'thread')}, torch {torch.__version__}, {args.repeats} repeats{load}"
        )
        columns = "".join(f"{what:>13}{'x package':>11}  {'(low to high)':<17}" for what in ("s/video", "CPU s/video"))
        print(f"{'protocol':<15}{'way':<14}{columns.rstrip()}")
        for name in args.protocols:
            protocol = get_protocol(name)
            fresh = lambda protocol=protocol: view_dataset(protocol, items, store, model.spec)  # noqa: E731
            seconds, apart = timed(model, fresh, device=args.device, repeats=args.repeats)
            for way, times in seconds.items():
                ratios = times / seconds["package"]
                slower |= way == "view by view" and float(np.median(ratios[0])) < 1
                told = ""
                for own, ratio in zip(times / len(items), ratios, strict=True):
                    spread = "" if way == "package" else f"({ratio.min():.2f} to {ratio.max():.2f})"
                    told += f"{np.median(own):>13.2f}{np.median(ratio):>11.2f}  {spread:<17}"
                print(f"{name:<15}{way:<14}{told.rstrip()}", flush=True)
            print(f"{'':<15}{len(fresh().views)} views; logits of all ways within {apart:.1g}", flush=True)
            if not apart < 1e-3:
                raise SystemExit(f"{name}: the ways answer differently, by up to {apart:.3g} in a logit")
    print("slower than the loop" if slower else "faster than the loop")
    return int(slower)


if __name__ == "__main__":
    sys.exit(main())
