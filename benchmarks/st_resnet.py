"""What ST-ResNet costs: beside two independent ResNets of the same depth, and in memory.

    python benchmarks/st_resnet.py cost [--batch 1] [--steps 5] [--size 224] [--bf16] [--compile] [--device cuda]
    python benchmarks/st_resnet.py memory evaluation [--views 2] [--steps 25] [--height 256] [--width 340]
    python benchmarks/st_resnet.py memory training [--batch 4] [--steps 5] [--size 224] [--checkpointing]

``cost`` runs forward passes and whole training steps (forward, loss, backward, SGD) of ``st_resnet50`` and of the
two-stream ResNet-50 in turn, in one process, on the same clips; ratios are taken pass by pass, so that what else runs
on the machine falls on both. Multiplications are counted on a model without memory; the share of the card's peak needs
``--peak-tflops``. ``memory`` measures this process alone: run it anew for each figure. Exit status 1 if a target is
missed: time ratio at most 1.05 times that of the multiplications; 4 GiB in evaluation, 12 GiB in training.
"""

import argparse
import ctypes
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from twostream.models import create_model

K = 101
GIB = 2**30


def clips(batch: int, steps: int, height: int, width: int, device: str) -> tuple[Tensor, Tensor]:
    """uint8, as the data set gives them."""
    g = torch.Generator().manual_seed(0)
    shapes = ((batch, steps, channels, height, width) for channels in (3, 20))
    rgb, flow = (torch.randint(0, 256, shape, dtype=torch.uint8, generator=g).to(device) for shape in shapes)
    return rgb, flow


def resident(device: str) -> float:
    """Bytes held now, after what is free was handed back."""
    if device == "cuda":
        torch.cuda.empty_cache()
        return float(torch.cuda.memory_allocated())
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    return _kilobytes("VmRSS") * 1024


def forget_peak(device: str) -> None:
    """Start the search for the peak anew; without Linux or a GPU it cannot be, and the peak is the process's own."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")


def peak(device: str) -> float:
    """Most bytes held since :func:`forget_peak`."""
    return float(torch.cuda.max_memory_allocated()) if device == "cuda" else _kilobytes("VmHWM") * 1024


def _kilobytes(mark: str) -> float:
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # bytes on macOS
    return float(next(line for line in status.read_text().splitlines() if line.startswith(mark)).split()[1])


class Contender:
    """A network with its own optimiser, and the two things that are timed."""

    def __init__(self, model: nn.Module, args: argparse.Namespace, inputs: tuple[Tensor, Tensor]) -> None:
        self.plain = model.to(args.device)
        self.model = torch.compile(self.plain) if args.compile else self.plain
        self.optimiser = torch.optim.SGD(self.plain.parameters(), lr=1e-3, momentum=0.9)
        self.inputs = inputs
        self.kind = torch.bfloat16 if args.bf16 else torch.float32
        self.device = args.device

    def logits(self) -> Tensor:
        with torch.autocast(self.device, self.kind, enabled=self.kind is torch.bfloat16):
            out: Tensor = self.model(*self.inputs)
        return out

    def forward(self) -> None:
        self.plain.eval()
        with torch.inference_mode():
            self.logits()

    def training(self) -> None:
        self.plain.train()
        self.optimiser.zero_grad(set_to_none=True)
        logits = self.logits().float()
        F.cross_entropy(logits.flatten(0, 1), logits.new_zeros(logits.shape[0] * logits.shape[1]).long()).backward()
        self.optimiser.step()


def multiplications(name: str, args: argparse.Namespace, *, training: bool, **numbers: object) -> float:
    """Counted by torch, two operations each."""
    with torch.device("meta"):
        model = create_model(name, num_classes=K, layout=args.layout, **numbers).train(training)
        inputs = (torch.zeros(args.batch, args.steps, channels, args.size, args.size) for channels in (3, 20))
        with FlopCounterMode(display=False) as counter:
            out = model(*inputs)
            if training:
                out.sum().backward()
    return float(counter.get_total_flops())


def timed(run: Callable[[], None], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def cost(args: argparse.Namespace) -> int:
    torch.manual_seed(0)
    inputs = clips(args.batch, args.steps, args.size, args.size, args.device)
    names = {
        f"two_stream_resnet{args.depth}": {"segments": args.steps},
        f"st_resnet{args.depth}": {"steps": args.steps},
    }
    contenders = [
        Contender(create_model(name, num_classes=K, layout=args.layout, **numbers), args, inputs)
        for name, numbers in names.items()
    ]
    print(
        f"{args.layout} layout, batch {args.batch}, T={args.steps}, {args.size} px, {args.device}, "
        f"{'bfloat16 autocast' if args.bf16 else 'float32'}, {'compiled' if args.compile else 'eager'}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}; weights and maps channels last"
    )
    missed = False
    for phase in ("forward", "training") if args.phase == "both" else (args.phase,):
        counts = [multiplications(n, args, training=phase == "training", **v) for n, v in names.items()]
        runs = [getattr(contender, phase) for contender in contenders]
        for run in runs:  # compilers, caches, the memory of the optimiser
            timed(run, args.device)
            timed(run, args.device)
        peaks = []
        for run in runs:
            before = resident(args.device)
            forget_peak(args.device)
            timed(run, args.device)
            peaks.append(peak(args.device) - before)
        seconds: list[list[float]] = [[], []]
        for repeat in range(args.repeats):
            for i in (0, 1) if repeat % 2 else (1, 0):
                seconds[i].append(timed(runs[i], args.device))
        print(f"\n{phase:<22}{'median s':>10}{'best s':>10}{'GFLOP':>10}{'GFLOP/s':>10}{'peak GiB':>10}", end="")
        print(f"{'of peak':>10}" if args.peak_tflops else "")
        for name, times, count, memory in zip(names, seconds, counts, peaks, strict=True):
            median = statistics.median(times)
            print(
                f"{name:<22}{median:>10.4f}{min(times):>10.4f}{count / 1e9:>10.1f}{count / median / 1e9:>10.0f}"
                f"{memory / GIB:>10.2f}",
                end="",
            )
            print(f"{count / median / 1e12 / args.peak_tflops:>10.1%}" if args.peak_tflops else "")
        ratios = sorted(b / a for a, b in zip(*seconds, strict=True))
        low, high = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
        ratio, of_counts = statistics.median(ratios), counts[1] / counts[0]
        print(
            f"{'ratio':<22}{ratio:>10.3f}   (middle half of {len(ratios)}: {low:.3f} to {high:.3f}; all: "
            f"{ratios[0]:.3f} to {ratios[-1]:.3f}); multiplications {of_counts:.3f}, memory {peaks[1] / peaks[0]:.3f}"
        )
        met = ratio <= 1.05 * of_counts
        missed |= not met
        print(f"{'':<22}{ratio / of_counts:.3f} of the multiplications' ratio: {'met' if met else 'MISSED'} (1.05)")
    return int(missed)


def memory(args: argparse.Namespace) -> int:
    training = args.what == "training"
    limit = args.limit_gib or (12.0 if training else 4.0)
    torch.manual_seed(0)
    model = create_model(
        f"st_resnet{args.depth}",
        num_classes=K,
        layout=args.layout,
        temporal_pool=None if training else 5,
        activation_checkpointing=args.checkpointing,
    )
    steps = args.steps or (5 if training else 25)
    began = time.perf_counter()
    if training:
        inputs = clips(args.batch, steps, args.size, args.size, "cpu")
        args.device, args.compile = "cpu", False
        contender = Contender(model, args, inputs)
        for _ in range(args.passes):
            contender.training()
        what = f"a training step at batch {args.batch}, T={steps}, {args.size} px"
        what += ", activation checkpointing" if args.checkpointing else ""
    else:
        inputs = clips(args.views, steps, args.height, args.width, "cpu")
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            shape = tuple(model.eval()(*inputs).shape)
        what = f"{args.views} views of T={steps} at {args.height}x{args.width} -> {shape}"
    seconds = time.perf_counter() - began
    most = _kilobytes("VmHWM") * 1024 / GIB
    print(f"st_resnet{args.depth}, {what}, {'bfloat16' if args.bf16 else 'float32'}: {seconds:.1f} s")
    print(f"peak of the process: {most:.2f} GiB, {'within' if most <= limit else 'ABOVE'} {limit:g} GiB")
    return int(most > limit)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("cost", help="time, memory and multiplications beside two independent ResNets")
    one.set_defaults(run=cost)
    one.add_argument("--phase", choices=("both", "forward", "training"), default="both")
    one.add_argument("--repeats", type=int, default=9, help="interleaved passes of each")
    one.add_argument("--compile", action="store_true")
    one.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    one.add_argument("--peak-tflops", type=float, help="of the card, for this arithmetic, without sparsity")
    two = commands.add_parser("memory", help="peak of this process")
    two.set_defaults(run=memory)
    two.add_argument("what", choices=("evaluation", "training"))
    two.add_argument("--views", type=int, default=2, help="a video and its flip")
    two.add_argument("--height", type=int, default=256)
    two.add_argument("--width", type=int, default=340)
    two.add_argument(
        "--passes", type=int, default=2, help="training steps; the optimiser's memory comes with the first"
    )
    two.add_argument("--checkpointing", action="store_true")
    two.add_argument("--limit-gib", type=float)
    for sub, batch, steps in ((one, 1, 5), (two, 4, None)):
        sub.add_argument("--depth", type=int, default=50)
        sub.add_argument("--layout", default="caffe")
        sub.add_argument("--batch", type=int, default=batch)
        sub.add_argument("--steps", type=int, default=steps, help="T; for memory 25 in evaluation, 5 in training")
        sub.add_argument("--size", type=int, default=224)
        sub.add_argument("--bf16", action="store_true")
    args = parser.parse_args(argv)
    status: int = args.run(args)
    return status


if __name__ == "__main__":
    sys.exit(main())
