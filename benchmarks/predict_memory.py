"""Peak memory and wall time of ``Predictor.predict`` on a video of an hour, with and without a timeline.

    python benchmarks/predict_memory.py [--minutes 60] [--limit-gib 1.5]

Writes the video and an untrained two-stream ResNet-18 (112 px, six classes) into a temporary folder, and predicts in a
process of its own each time, so that the figure is what a user's process takes, torch and all. Exit status 1 if it is
above the limit.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

FPS = 25
PIECE = 60  # seconds that are encoded; the rest is the same packets again


def pictures(count: int, width: int, height: int) -> Iterator[npt.NDArray[np.uint8]]:
    """A blurred texture that drifts to and fro under a little noise."""
    import cv2

    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (height // 8, width // 4, 3)).astype(np.uint8)
    texture = cv2.resize(coarse, (2 * width, height), interpolation=cv2.INTER_CUBIC)
    for i in range(count):
        x = int(width / 2 * (1 + np.sin(i / 40)))
        noise = rng.integers(0, 8, (height, width, 1)).astype(np.uint8)
        yield cv2.add(texture[:, x : x + width], noise.repeat(3, axis=2))


def write_long_video(path: Path, minutes: float, width: int, height: int) -> None:
    """Encode one minute and repeat its packets: an hour is there in seconds, and decodes like any other."""
    import av

    from twostream.video import write_video

    piece = path.with_name("piece.mp4")
    write_video(piece, pictures(PIECE * FPS, width, height), FPS)
    with av.open(str(piece)) as source, av.open(str(path), "w") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        packets = [packet for packet in source.demux(stream) if packet.size]
        times = [(packet.pts or 0, packet.dts or 0) for packet in packets]
        assert packets[0].time_base is not None
        length = round(PIECE / packets[0].time_base)
        for repeat in range(max(1, round(minutes * 60 / PIECE))):
            for packet, (pts, dts) in zip(packets, times, strict=True):
                packet.pts, packet.dts = pts + repeat * length, dts + repeat * length
                packet.stream = copy
                target.mux(packet)
    piece.unlink()


def predict(model: Path, video: Path, *, timeline: bool) -> dict[str, float]:
    """In this process: predict and measure."""
    began = time.monotonic()
    from twostream.prediction import Predictor

    predictor = Predictor.load(model, device="cpu")
    loaded = time.monotonic()
    answer = predictor.predict(video, timeline=timeline)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "frames": answer.frames,
        "load_seconds": loaded - began,
        "predict_seconds": time.monotonic() - loaded,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_gib": peak_gib(),
    }


def peak_gib() -> float:
    """The most memory that this process has held."""
    status = Path("/proc/self/status")
    if status.exists():
        # Linux hands ru_maxrss of the parent on to its children, so the kernel's own mark is read.
        kilobytes = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()[1]
        return int(kilobytes) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**30  # bytes on macOS


def in_a_process(model: Path, video: Path, *, timeline: bool) -> dict[str, float]:
    command = [sys.executable, __file__, "--model", str(model), "--video", str(video)]
    done = subprocess.run(command + (["--timeline"] if timeline else []), stdout=subprocess.PIPE, check=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def save_untrained_model(folder: Path) -> None:
    from twostream.checkpoint import save_model
    from twostream.models import create_model

    save_model(folder, create_model("two_stream_resnet18", num_classes=6, size=112), classes=list("abcdef"))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="length of the video, in whole minutes")
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--height", type=int, default=240)
    parser.add_argument("--limit-gib", type=float, default=1.5, help="peak memory above which the status is 1")
    parser.add_argument("--model", type=Path, help="a run or model folder; an untrained one is made otherwise")
    parser.add_argument("--video", type=Path, help="predict this video in this process and print its figures as JSON")
    parser.add_argument("--timeline", action="store_true", help="with --video: make a timeline")
    args = parser.parse_args(argv)
    if args.video:
        print(json.dumps(predict(args.model, args.video, timeline=args.timeline)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        video, model = Path(folder) / "long.mp4", args.model or Path(folder) / "model"
        write_long_video(video, args.minutes, args.width, args.height)
        if args.model is None:
            save_untrained_model(model)
        print(f"{args.width}x{args.height} at {FPS} frames/s, {args.minutes:g} min, limit {args.limit_gib:g} GiB")
        print(f"{'':<18}{'frames':>8}{'load s':>8}{'predict s':>11}{'CPU s':>8}{'peak GiB':>10}", flush=True)
        worst = 0.0
        for name, timeline in (("label", False), ("label and timeline", True)):
            got = in_a_process(model, video, timeline=timeline)
            worst = max(worst, got["peak_gib"])
            print(
                f"{name:<18}{got['frames']:>8.0f}{got['load_seconds']:>8.1f}{got['predict_seconds']:>11.1f}"
                f"{got['cpu_seconds']:>8.0f}{got['peak_gib']:>10.2f}",
                flush=True,
            )
    print("within the limit" if worst <= args.limit_gib else f"above the limit: {worst:.2f} GiB")
    return 0 if worst <= args.limit_gib else 1


if __name__ == "__main__":
    sys.exit(main())
