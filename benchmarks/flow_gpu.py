"""TV-L1 on tensors: pairs a second against batch size, what bounds it, and how far it is from the CPU kernel.

    python benchmarks/flow_gpu.py [--device cuda] [--batches 1 8 32 128] [--compile] [--video VIDEO]
    python benchmarks/flow_gpu.py --device cpu --batches 1 4 --seconds 1       # tries the command without a GPU

Pairs are neighbouring frames of a generated 340 x 256 px video, or of --video. Bytes and operations are counted from
the code. "apart" is what must be moved if every operation of torch reads and writes its tensors in memory; "fused" if
each loop reads and writes its own once, which no cache can avoid. So the share of the bandwidth lies between the two
columns, and above 100 % in the first one means that a cache helps. Peaks are the makers' figures for the devices named
in PEAKS; for another one give --bandwidth and --arithmetic.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from twostream.flow.tvl1 import PRESETS, TEXTURE_ITERATIONS, Tvl1
from twostream.flow.tvl1_torch import Tvl1Torch, tvl1_sequence
from twostream.video import Video

# GB/s and TFLOP/s of 32-bit floats outside tensor cores. NVIDIA's data sheets: H200 and H100 SXM (2023, 2024), A100
# 80 GB SXM (2021), L4 and L40S (2023), RTX 4090 (Ada architecture whitepaper, 2022).
PEAKS = {
    "H200": (4800, 67),
    "H100": (3350, 67),
    "A100": (2039, 19.5),
    "L40S": (864, 91.6),
    "L4": (300, 30.3),
    "RTX 4090": (1008, 82.6),
}


@dataclass(frozen=True)
class Cost:
    """Of one pass over one pixel: 32-bit numbers moved, operation by operation and fused, and arithmetic operations."""

    apart: int
    fused: int
    operations: int


# _step, per pixel. Apart: addcmul 4, addcmul_ 4, mul_ 3, clamp_ 2, addcmul 7, four add_/sub_ 6 each, two sub 4 each,
# hypot 6, mul_ and add_ 4 each, four updates 6 each. Fused: field 2, dual 4 and data term 4 read, field 2 and dual 4
# written, and the new field and dual read once more by the second half.
ITERATION = Cost(apart=90, fused=22, operations=4 + 1 + 2 + 4 + 8 + 4 + 8 + 4 + 16)
# _median, both components: comparisons of three numbers moved each. Columns and ranks are sorted with 9 comparisons of
# two operations, each rank of 5 (or 3 with 3) columns; 13 (3) candidates remain, which are forgotten two by two.
MEDIAN = {
    1: Cost(0, 0, 0),
    3: Cost(apart=2 * 3 * 2 * (3 + 9 + 3), fused=4, operations=2 * 2 * (3 + 9 + 3)),
    5: Cost(apart=2 * 3 * 2 * (9 + 45 + 48), fused=4, operations=2 * 2 * (9 + 45 + 48)),
}
# _data_term: positions, their range and scaling, three samples of 16 weighted numbers each, the linear form.
WARP = Cost(apart=76, fused=12, operations=20 + 3 * 40 + 15)
# One of the iterations of _structure, on full frames only.
TEXTURE = Cost(apart=68, fused=10, operations=30)


def counted(method: Tvl1, height: int, width: int) -> Cost:
    """Of one pair, all iterations done (an upper bound where an epsilon stops them)."""
    numbers = method.parameters
    pixels = sum(W * H for W, H in method.level_sizes(width, height))
    warps, outer, inner = (int(numbers[name]) for name in ("warps", "outer_iterations", "inner_iterations"))
    median = MEDIAN[int(numbers["median_filtering"])]

    def total(kind: str) -> int:
        texture = TEXTURE_ITERATIONS * getattr(TEXTURE, kind) if numbers["texture"] else 0
        per_warp = getattr(WARP, kind) + outer * (getattr(median, kind) + inner * getattr(ITERATION, kind))
        return int(pixels * warps * per_warp + height * width * texture)

    return Cost(total("apart"), total("fused"), total("operations"))


def generated(count: int, height: int, width: int) -> npt.NDArray[np.uint8]:
    """A texture that drifts to and fro, with a square that goes against it."""
    import cv2

    rng = np.random.default_rng(0)

    def layer() -> npt.NDArray[np.float32]:
        image = np.zeros((height + 80, width + 80), np.float32)
        for cell in (24, 8, 3):
            coarse = rng.uniform(0, 85, ((height + 80) // cell + 2, (width + 80) // cell + 2)).astype(np.float32)
            image += cv2.resize(coarse, image.shape[::-1], interpolation=cv2.INTER_CUBIC)
        return image

    ground, square = layer(), layer()
    frames = np.empty((count, height, width), np.uint8)
    side = height // 3
    for k in range(count):
        x, y = 40 + 30 * np.sin(k / 12), 40 + 20 * np.cos(k / 17)
        views = [
            cv2.warpAffine(
                image, np.array([[1, 0, at[0]], [0, 1, at[1]]], np.float32), (width, height),
                flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
            )
            for image, at in ((ground, (x, y)), (square, (80 - x, 80 - y)))
        ]  # fmt: skip
        top, left = height // 3, (width // 4 + 3 * k) % (width - side)
        views[0][top : top + side, left : left + side] = views[1][top : top + side, left : left + side]
        frames[k] = np.clip(views[0] + rng.normal(0, 2, views[0].shape) + 0.5, 0, 255)
    return frames


def read(video: Path, count: int, height: int, width: int) -> npt.NDArray[np.uint8]:
    """The first frames of a video, squeezed to the size; repeated there and back if it has too few."""
    frames = [frame.luma((width, height)) for frame in Video(video).stream(stop=count)]
    there_and_back = [*range(len(frames)), *range(len(frames) - 2, 0, -1)]
    return np.stack([frames[there_and_back[k % len(there_and_back)]] for k in range(count)])


def wait_for(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def pairs_per_second(
    frames: torch.Tensor, method: Tvl1, *, batch: int, compiled: bool, seconds: float
) -> tuple[float, float]:
    """Median and spread (highest over lowest) of runs over one batch; frames and fields stay on the device."""
    device = str(frames.device)
    tvl1_sequence(frames[: batch + 1], method, compiled=compiled)
    wait_for(device)
    rates = []
    began = time.perf_counter()
    while len(rates) < 3 or (time.perf_counter() - began < seconds and len(rates) < 200):
        before = time.perf_counter()
        tvl1_sequence(frames[: batch + 1], method, compiled=compiled)
        wait_for(device)
        rates.append(batch / (time.perf_counter() - before))
    return float(np.median(rates)), max(rates) / min(rates)


def end_to_end(frames: npt.NDArray[np.uint8], method: Tvl1, device: str, batch: int, *, compiled: bool) -> float:
    """Pairs a second from frames to fields in the host's memory, as extraction has it."""
    estimator = Tvl1Torch(method, device, batch=batch, compiled=compiled)
    before = time.perf_counter()
    estimator.fields(list(frames))
    return (len(frames) - 1) / (time.perf_counter() - before)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quality", default="balanced", choices=sorted(PRESETS))
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64, 128])
    parser.add_argument("--size", type=int, nargs=2, default=(340, 256), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--video", type=Path, help="frames of this video instead of generated ones")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each batch size is measured")
    parser.add_argument("--compile", action="store_true", help="with the loops compiled by torch.compile as well")
    parser.add_argument("--agreement-pairs", type=int, default=16, help="pairs that the CPU kernel computes too")
    parser.add_argument("--bandwidth", type=float, help="the device's peak in GB/s")
    parser.add_argument("--arithmetic", type=float, help="the device's peak in TFLOP/s of 32-bit floats")
    args = parser.parse_args(argv)
    if torch.device(args.device).type == "cuda" and not torch.cuda.is_available():
        print("no CUDA device is at hand here; --device cpu tries the command")
        return 2
    is_cuda = torch.device(args.device).type == "cuda"
    name = torch.cuda.get_device_name(args.device) if is_cuda else f"CPU, {torch.get_num_threads()} threads"
    known = next((peaks for key, peaks in PEAKS.items() if key in name), (None, None))
    bandwidth, arithmetic = args.bandwidth or known[0], args.arithmetic or known[1]
    W, H = args.size
    method = Tvl1(quality=args.quality)
    count = max(*args.batches, args.agreement_pairs) + 1
    frames = read(args.video, count, H, W) if args.video else generated(count, H, W)
    cost = counted(method, H, W)
    print(f"{name}; torch {torch.__version__}; tvl1 {args.quality} at {W}x{H} px: {method.parameters}")
    print(
        f"counted for a pair: {4e-9 * cost.apart:.2f} GB apart, {4e-9 * cost.fused:.2f} GB fused, "
        f"{1e-9 * cost.operations:.2f} GFLOP; peaks: "
        f"{bandwidth or 'unknown'} GB/s, {arithmetic or 'unknown'} TFLOP/s"
    )
    print(
        f"{'loops':<10}{'batch':>6}{'pairs/s':>10}{'spread':>8}{'apart':>8}{'fused':>8}{'arithm.':>9}{'MiB/pair':>10}"
    )
    on_device = torch.from_numpy(frames).to(args.device)
    best: dict[bool, tuple[float, int]] = {}
    for compiled in (False, True) if args.compile else (False,):
        for batch in args.batches:
            if is_cuda:
                torch.cuda.reset_peak_memory_stats(args.device)
            try:
                rate, spread = pairs_per_second(on_device, method, batch=batch, compiled=compiled, seconds=args.seconds)
            except RuntimeError as error:  # FlowError of too little memory among them
                print(f"{'compiled' if compiled else 'plain':<10}{batch:>6}  {error}")
                continue
            best[compiled] = max(best.get(compiled, (0.0, 0)), (rate, batch))
            shares = [
                f"{amount * rate / (peak * unit):.1%}" if peak else "-"
                for amount, peak, unit in (
                    (4 * cost.apart, bandwidth, 1e9),
                    (4 * cost.fused, bandwidth, 1e9),
                    (cost.operations, arithmetic, 1e12),
                )
            ]
            memory = f"{torch.cuda.max_memory_allocated(args.device) / batch / 2**20:.0f}" if is_cuda else "-"
            print(
                f"{'compiled' if compiled else 'plain':<10}{batch:>6}{rate:>10.1f}{spread:>8.2f}"
                f"{shares[0]:>8}{shares[1]:>8}{shares[2]:>9}{memory:>10}",
                flush=True,
            )
    for compiled, (rate, batch) in best.items():
        there_and_back = end_to_end(frames, method, args.device, batch, compiled=compiled)
        print(
            f"{'compiled' if compiled else 'plain'}: best {rate:.1f} pairs/s at batch {batch}; "
            f"{there_and_back:.1f} with frames and fields copied from and to the host's memory"
        )
    pairs = frames[: args.agreement_pairs + 1]
    kernel = np.stack([method(*pair) for pair in pairwise(pairs)])
    for compiled in best:
        apart = np.abs(tvl1_sequence(on_device[: len(pairs)], method, compiled=compiled).cpu().numpy() - kernel)
        print(
            f"{'compiled' if compiled else 'plain'} against the CPU kernel over {len(kernel)} pairs (mean motion "
            f"{np.abs(kernel).mean():.2f} px): mean {apart.mean():.2g} px, 99 % below {np.quantile(apart, 0.99):.2g}, "
            f"99.9 % below {np.quantile(apart, 0.999):.2g}, largest {apart.max():.2g}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
