"""Forward and backward of compact bilinear fusion beside the other ways to compute it: time, saved memory, peak memory.

    python benchmarks/compact_bilinear.py [--device cuda] [--rounds 7] [--site CBP] [--batch 32] [--cbp-batch 8]
        [--compile]

At the three sites of STPN on BN-Inception, and summed over the locations at the two classic sizes of compact bilinear
pooling (CBP). The contenders take turns within every round, in one process, each after an untimed run of its own, on
channels-last maps as the networks here hand them over. Beside this package's two modes:

    dense    sketches by a dense matrix of -1, 0 and 1, full complex FFT of them, summed after the inverse, all under
             autograd: how the commonly used PyTorch packages are built
    scatter  scatter_add and real FFT under autograd, summed before the inverse
    exact    the outer product itself, C_1 C_2 numbers (two inputs, summed)

"x" columns are a contender's time over this package's in the same round: median (lowest to highest). "saved" is what
autograd keeps beside the inputs; "peak" is the process's high-water mark above its state before, gradients included.
Ends with exit status 1 if a ratio is below its target (CPU only).
"""

import argparse
import ctypes
import gc
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from twostream.layers import CompactBilinear

MEBI = 1 << 20


@dataclass(frozen=True)
class Site:
    name: str
    channels: tuple[int, ...]
    side: int
    d: int
    sum_pool: bool

    @property
    def cbp(self) -> bool:
        return self.sum_pool


SITES = (
    Site("STPN 1: 3 x 1024x7x7", (1024, 1024, 1024), 7, 1024, False),
    Site("STPN 2: 2 x 1024x7x7", (1024, 1024), 7, 2048, False),
    Site("STPN 3: 3 x 1024", (1024, 1024, 1024), 0, 4096, False),
    Site("CBP: 512x14x14", (512, 512), 14, 8192, True),
    Site("CBP: 1024x7x7", (1024, 1024), 7, 8192, True),
)

# contender -> lowest ratio at a site, lowest geometric mean
SPEED_TARGETS = {("fast", "dense"): (5.0, 8.0), ("fast", "scatter"): (1.15, 1.4), ("lean", "scatter"): (0.9, 0.9)}
SAVED_TARGET = 0.5


def last(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H, W, C); vectors as they are."""
    return x.movedim(1, -1)


class Dense(nn.Module):
    """Sketch matrices and complex transforms; all that torch offers without a second look."""

    def __init__(self, operator: CompactBilinear) -> None:
        super().__init__()
        self.sum_pool = operator.sum_pool
        sizes = list(operator.in_channels)
        for i, (h, s) in enumerate(zip(operator.hashes.split(sizes), operator.signs.split(sizes), strict=True)):
            matrix = torch.zeros(len(h), operator.out_channels)
            matrix[torch.arange(len(h)), h] = s.float()
            self.register_buffer(f"matrix{i}", matrix)

    def forward(self, *inputs: Tensor) -> Tensor:
        product = None
        for i, x in enumerate(inputs):
            spectrum = torch.fft.fft(last(x) @ self.get_buffer(f"matrix{i}"))
            product = spectrum if product is None else product * spectrum
        out = torch.fft.ifft(product).real
        return out.sum((1, 2)) if self.sum_pool else out.movedim(-1, 1)


class Scatter(nn.Module):
    """scatter_add and the real transform, the derivative left to autograd."""

    def __init__(self, operator: CompactBilinear) -> None:
        super().__init__()
        self.sum_pool, self.d = operator.sum_pool, operator.out_channels
        sizes = list(operator.in_channels)
        for i, (h, s) in enumerate(zip(operator.hashes.split(sizes), operator.signs.split(sizes), strict=True)):
            self.register_buffer(f"h{i}", h)
            self.register_buffer(f"s{i}", s.float())

    def forward(self, *inputs: Tensor) -> Tensor:
        product = None
        for i, x in enumerate(inputs):
            x = last(x) * self.get_buffer(f"s{i}")
            index = self.get_buffer(f"h{i}").expand(x.shape)
            spectrum = torch.fft.rfft(x.new_zeros(*x.shape[:-1], self.d).scatter_add_(-1, index, x))
            product = spectrum if product is None else product * spectrum
        product = product.sum((1, 2)) if self.sum_pool else product
        out = torch.fft.irfft(product, n=self.d)
        return out if self.sum_pool else out.movedim(-1, 1)


class Exact(nn.Module):
    """All products of a pair, summed over the locations: what the others estimate the inner products of."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (x.flatten(2) @ y.flatten(2).mT).flatten(1)


def contenders(site: Site, device: str, compiled: bool) -> dict[str, nn.Module]:
    fast = CompactBilinear(site.channels, site.d, sum_pool=site.sum_pool)
    lean = CompactBilinear(site.channels, site.d, sum_pool=site.sum_pool, lean=True)
    found: dict[str, nn.Module] = {"fast": fast, "lean": lean, "dense": Dense(fast), "scatter": Scatter(fast)}
    if site.sum_pool:
        found["exact"] = Exact()
    found = {name: module.to(device) for name, module in found.items()}
    if compiled:
        for name in ("fast", "scatter"):
            found[f"{name}, compiled"] = torch.compile(found[name], fullgraph=True)
    return found


def make_inputs(site: Site, B: int, device: str) -> list[Tensor]:
    g = torch.Generator().manual_seed(0)
    space = (site.side, site.side) if site.side else ()
    xs = [torch.rand(B, c, *space, generator=g).to(device) for c in site.channels]
    if space:
        xs = [x.contiguous(memory_format=torch.channels_last) for x in xs]
    return [x.requires_grad_() for x in xs]


def step(module: nn.Module, xs: Sequence[Tensor], g: Tensor) -> None:
    torch.autograd.grad(module(*xs), xs, g)


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(run: Callable[[], None], device: str) -> float:
    synchronise(device)
    began = time.perf_counter()
    run()
    synchronise(device)
    return time.perf_counter() - began


def saved_bytes(module: nn.Module, xs: Sequence[Tensor]) -> int:
    known = {t.untyped_storage().data_ptr() for t in (*xs, *module.buffers())}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = module(*xs)
    del kept
    return sum(saved.values())


def peak_bytes(run: Callable[[], None], device: str) -> int | None:
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    if sys.platform != "linux":
        return None
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = status("VmRSS")
    run()
    return status("VmHWM") - before


def status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


def measure(site: Site, B: int, args: argparse.Namespace) -> dict[tuple[str, str], float]:
    """Print a site's table; returns the ratios that have a target."""
    modules = contenders(site, args.device, args.compile)
    xs = make_inputs(site, B, args.device)
    with torch.no_grad():
        outs = {name: module(*xs) for name, module in modules.items()}
        worst = max(
            ((out - outs["fast"]).abs().max() / outs["fast"].abs().max()).item()
            for name, out in outs.items()
            if name != "exact"
        )
    gs = {name: torch.ones_like(out) for name, out in outs.items()}
    del outs
    saved = {name: saved_bytes(module, xs) for name, module in modules.items() if "compiled" not in name}
    peaks = {
        name: peak_bytes(lambda module=module, g=gs[name]: step(module, xs, g), args.device)  # type: ignore[misc]
        for name, module in modules.items()
    }
    # A site's rounds take long enough to be told apart by the clock.
    inner = max(1, round(0.02 / seconds(lambda: step(modules["fast"], xs, gs["fast"]), args.device)))
    times: dict[str, list[float]] = {name: [] for name in modules}
    for number in range(args.rounds):
        order = list(modules)
        for name in order[number % len(order) :] + order[: number % len(order)]:

            def run(name: str = name) -> None:
                for _ in range(inner):
                    step(modules[name], xs, gs[name])

            # Once beforehand, as within a training: what ran before leaves other memory in the caches and the heap.
            run()
            times[name].append(seconds(run, args.device) / inner)

    def ratio(name: str, over: str) -> tuple[float, str]:
        values = [a / b for a, b in zip(times[name], times[over], strict=True)]
        middle = statistics.median(values)
        return middle, f"{middle:.2f} ({min(values):.2f} to {max(values):.2f})"

    print(f"\n{site.name}, d = {site.d}, batch {B}; outputs agree to {worst:.0e} of the largest\n")
    print("| | ms | x fast | x lean | saved MiB | peak MiB |")
    print("|---|---|---|---|---|---|")
    for name in modules:
        columns = [f"{statistics.median(times[name]) * 1e3:.2f}", ratio(name, "fast")[1], ratio(name, "lean")[1]]
        columns.append(f"{saved[name] / MEBI:.1f}" if name in saved else "")
        peak = peaks[name]
        columns.append("" if peak is None else f"{peak / MEBI:.0f}")
        print(f"| {name} | " + " | ".join(columns) + " |", flush=True)
    found = {(ours, other): ratio(other, ours)[0] for ours, other in SPEED_TARGETS}
    found["fast", "saved"] = saved["fast"] / saved["scatter"]
    found["lean", "saved"] = float(saved["lean"])
    return found


def verdict(found: Sequence[dict[tuple[str, str], float]]) -> bool:
    print("\n| | lowest | target | geometric mean | target |")
    print("|---|---|---|---|---|")
    good = True
    for key, (lowest, mean) in SPEED_TARGETS.items():
        values = [row[key] for row in found]
        average = math.exp(statistics.fmean(map(math.log, values)))
        good &= min(values) >= lowest and average >= mean
        print(f"| {key[0]} over {key[1]} | {min(values):.2f} | {lowest} | {average:.2f} | {mean} |")
    shares = [row["fast", "saved"] for row in found]
    good &= max(shares) <= SAVED_TARGET and not any(row["lean", "saved"] for row in found)
    print(
        f"\nsaved by fast over scatter: at most {max(shares):.2f} (target {SAVED_TARGET}); by lean beside the inputs:"
    )
    print(f"{sum(row['lean', 'saved'] for row in found):.0f} bytes (target 0)")
    return good


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--site", default="", help="only the sites whose name begins so")
    parser.add_argument("--batch", type=int, default=32, help="at STPN's sites")
    parser.add_argument("--cbp-batch", type=int, default=8, help="at CBP's sites")
    parser.add_argument("--compile", action="store_true", help="compiled forms as well")
    args = parser.parse_args(argv)
    sites = [site for site in SITES if site.name.startswith(args.site)]
    if not sites:
        parser.error(f"--site: no name begins with {args.site!r}; there are {', '.join(site.name for site in SITES)}")
    print(f"torch {torch.__version__}, {args.device}, {torch.get_num_threads()} threads, {args.rounds} rounds")
    found = [measure(site, args.cbp_batch if site.cbp else args.batch, args) for site in sites]
    good = verdict(found)
    return 0 if good or args.device != "cpu" else 1


if __name__ == "__main__":
    sys.exit(main())
