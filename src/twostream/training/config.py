"""The schema of a training run: these dataclasses are the command line's options and the YAML's keys alike.

``None`` stands for "chosen for this machine and this data"; :func:`resolve` chooses. The resolved configuration is what
a run folder keeps.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import yaml

from twostream.data.transforms import Augment
from twostream.errors import UsageError

# Below this many training clips batches are small and epochs many.
SMALL_DATA = 1000


@dataclass(frozen=True, kw_only=True)
class FlowConfig:
    """Where the optical flow is kept and how it is computed when it is missing.

    Attributes:
        store: folder of the flow store; None makes one beside the run folder, shared by runs on the same data.
        estimator: tvl1, dis, tvl1-opencv or farneback; None: that of the store if there is one, else tvl1.
        quality: of tvl1: reference, papers, balanced or fast; None: that of the store if there is one, else balanced.
        parameters: further numbers of the estimator, e.g. {"texture": 1.0} of tvl1 where light flickers; all others,
            and None for all: those of the store if there is one, or of the quality.
        resize: short side in px at which flow is computed and kept; None: that of the store if there is one, else a
            seventh more than the crops (128 on a CPU, 256 on a GPU), or 256 for a network that looks at where something
            moves (``model_args: {region: motion}``), which sees parts of it enlarged.
        fps: common frame rate, by which frames are chosen before flow is computed; None: that of the store if there
            is one, else each video's own.
        workers: processes that compute flow; None: one per core.
    """

    store: str | None = None
    estimator: str | None = None
    quality: str | None = None
    parameters: dict[str, Any] | None = None
    resize: int | None = None
    fps: float | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        if not self.parameters:
            object.__setattr__(self, "parameters", None)
        elif "quality" in self.parameters:
            raise UsageError("flow.parameters: the quality is an option of its own, flow.quality")

    @property
    def method(self) -> str:
        """The estimator and what was asked of it, as a part of a folder's name: stores of two methods cannot be one."""
        numbers = [
            f"{name}{value:g}" if isinstance(value, int | float) else f"{name}{value}"
            for name, value in sorted((self.parameters or {}).items())
        ]
        return "-".join([part for part in (self.estimator, self.quality) if part] + numbers)


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Loss and optimiser.

    Attributes:
        optimizer: sgd (the papers') or adamw; None: adamw from scratch, sgd from image weights.
        lr: learning rate at the top of the schedule; None: 1e-3 for adamw, 1e-2 for sgd.
        momentum: of sgd.
        weight_decay: None: 5e-4 for sgd (the papers'), 0.05 for adamw.
        decay_all: decay biases and batch norms too; by default only filters are decayed, as in the papers.
        schedule: step (divide by 10 at the milestones), cosine, constant.
        milestones: where the step schedule drops, as shares of the run.
        warmup: share of the run over which the rate climbs from zero.
        lr_multipliers: factor on the rate for parameters whose name matches a pattern, e.g. {"classifiers.*": 10}.
        frozen: patterns for the names of parameters that do not learn, e.g. ["*.backbone.*"]; modules of which nothing
            learns are kept in inference mode.
        batch_size: clips per optimiser step on each device before accumulation.
        accumulate: micro-batches per optimiser step.
        clip_norm: upper bound of the gradient's norm; None: no bound.
        label_smoothing: share of the target spread over all classes.
        frozen_batch_norm: none; partial freezes all batch norms but the first of each stream (TSN); all.
        batch_norm_momentum: share of a micro-batch's mean and variance in the running ones; None: torch's 0.1. Where an
            optimiser step is made of many micro-batches, few clips would otherwise decide: 1 - 0.95 ** (1 / 32) gives a
            step of 32 the share 0.05.
    """

    optimizer: Literal["sgd", "adamw"] | None = None
    lr: float | None = None
    momentum: float = 0.9
    weight_decay: float | None = None
    decay_all: bool = False
    schedule: Literal["step", "cosine", "constant"] = "cosine"
    milestones: tuple[float, ...] = (0.5, 0.8)
    warmup: float = 0.05
    lr_multipliers: dict[str, float] = field(default_factory=dict)
    frozen: tuple[str, ...] = ()
    batch_size: int | None = None
    accumulate: int = 1
    clip_norm: float | None = 20.0
    label_smoothing: float = 0.0
    frozen_batch_norm: Literal["none", "partial", "all"] = "none"
    batch_norm_momentum: float | None = None


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """The run itself; handed to Lightning where Lightning has the same notion.

    Attributes:
        epochs: passes over the training list; None: by the size of the data.
        repeats: clips drawn from every video per epoch; None: as many as make 400 clips of the training list.
        precision: 32-true, bf16-mixed or 16-mixed; None: the fastest that trains well on this device.
        accelerator, devices, strategy, num_nodes: as in Lightning; torchrun works too.
        loader_workers: processes that read clips; None: by the device.
        early_stopping: epochs without a better validation loss after which training stops; None: never.
        keep: last or best (by validation loss) weights make the model; None: best when validation is large enough to
            be trusted (100 clips), last otherwise.
        average: decay of an exponential moving average over the steps, e.g. 0.99, whose weights are validated and make
            the model; None: the weights themselves.
        checkpoint_seconds: least time between two checkpoints, which are made at ends of epochs; 0: every epoch.
        tensorboard: write TensorBoard logs beside metrics.csv.
    """

    epochs: int | None = None
    repeats: int | None = None
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] | None = None
    accelerator: str = "auto"
    devices: int | str = "auto"
    strategy: str = "auto"
    num_nodes: int = 1
    loader_workers: int | None = None
    early_stopping: int | None = None
    keep: Literal["last", "best"] | None = None
    average: float | None = None
    checkpoint_seconds: float = 60.0
    tensorboard: bool = True


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides a training run.

    Attributes:
        data: a data set: folder per class, official lists with their videos, a CSV sheet, or a text list.
        out: the run folder; the same command continues an interrupted run there.
        split: number of the official split; or leave-03-of-01-10, which tests on group 3 and trains on the others of 1
            to 10.
        videos: folder of the videos, where it is not beside the lists.
        allow_missing: go on without videos that the lists name but the disk lacks.
        allow_leak: accept a split with the same group on both sides.
        no_flip: names of classes that a mirror image would change (left, right); they are never mirrored in training,
            and nothing is mirrored in testing.
        short_clips: refuse clips shorter than a flow stack, or repeat their edge.
        unreadable: share of unreadable videos above which training is refused.
        val_fraction: share of the training groups held out for validation where the data names none.
        model: a name from `twostream models`.
        model_args: numbers of the model, e.g. {"dropout": 0.5}.
        size: side in px of the crops; None: 112 on a CPU, 224 on a GPU.
        weights: auto takes ImageNet weights where they are cached or reachable; imagenet; none; a file or folder; or a
            run, whose network on frames is then what the networks of both streams start from.
        init: a run whose weights are carried over, of the same or other classes; or several, one after the other: a run
            for each stream.
        sampling: per_clip draws everything for each clip alone; released_code draws the stride of the steps once for a
            micro-batch, as ST-ResNet's released code does.
        seed: of everything that is drawn.
    """

    data: str
    out: str
    split: int | str = 1
    videos: str | None = None
    allow_missing: bool = False
    allow_leak: bool = False
    no_flip: tuple[str, ...] = ()
    short_clips: Literal["refuse", "repeat"] = "refuse"
    unreadable: float = 0.05
    val_fraction: float = 0.1
    model: str = "two_stream_resnet18"
    model_args: dict[str, Any] = field(default_factory=dict)
    size: int | None = None
    weights: str = "auto"
    init: str | tuple[str, ...] | None = None
    sampling: Literal["per_clip", "released_code"] = "per_clip"
    seed: int = 0
    flow: FlowConfig = field(default_factory=FlowConfig)
    augment: Augment = field(default_factory=Augment)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)

    def __post_init__(self) -> None:
        checks: tuple[tuple[bool, str, object, str], ...] = (
            (0 <= self.val_fraction < 1, "val_fraction", self.val_fraction, "at least 0 and below 1"),
            (0 <= self.unreadable <= 1, "unreadable", self.unreadable, "a share from 0 to 1"),
            (self.size is None or self.size >= 32, "size", self.size, "at least 32 px"),
            (
                self.trainer.epochs is None or self.trainer.epochs >= 1,
                "trainer.epochs",
                self.trainer.epochs,
                "at least 1",
            ),
            (
                self.trainer.repeats is None or self.trainer.repeats >= 1,
                "trainer.repeats",
                self.trainer.repeats,
                "at least 1",
            ),
            (
                self.trainer.early_stopping is None or self.trainer.early_stopping >= 1,
                "trainer.early_stopping",
                self.trainer.early_stopping,
                "at least 1 epoch",
            ),
            (
                self.trainer.average is None or 0 < self.trainer.average < 1,
                "trainer.average",
                self.trainer.average,
                "a decay above 0 and below 1",
            ),
            (self.optim.accumulate >= 1, "optim.accumulate", self.optim.accumulate, "at least 1"),
            (
                self.optim.batch_size is None or self.optim.batch_size >= 1,
                "optim.batch_size",
                self.optim.batch_size,
                "at least 1",
            ),
            (self.optim.lr is None or self.optim.lr > 0, "optim.lr", self.optim.lr, "above 0"),
            (
                0 <= self.optim.warmup < 1,
                "optim.warmup",
                self.optim.warmup,
                "a share of the run, at least 0 and below 1",
            ),
            (
                all(0 < m < 1 for m in self.optim.milestones)
                and list(self.optim.milestones) == sorted(self.optim.milestones),
                "optim.milestones",
                self.optim.milestones,
                "rising shares of the run between 0 and 1",
            ),
            (
                self.optim.batch_norm_momentum is None or 0 < self.optim.batch_norm_momentum <= 1,
                "optim.batch_norm_momentum",
                self.optim.batch_norm_momentum,
                "a share above 0 and at most 1",
            ),
            (
                0 <= self.optim.label_smoothing < 1,
                "optim.label_smoothing",
                self.optim.label_smoothing,
                "at least 0 and below 1",
            ),
        )
        for ok, name, got, wanted in checks:
            if not ok:
                raise UsageError(f"--{name} must be {wanted}, got {got}")

    def to_yaml(self) -> str:
        """The configuration as YAML; `twostream train --config` reads it back."""
        return yaml.safe_dump(_plain(asdict(self)), sort_keys=False, allow_unicode=True)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The facts of a machine that the automatic choices depend on."""

    accelerator: Literal["cpu", "cuda", "mps"]
    cores: int
    fast_bf16: bool

    @classmethod
    def detect(cls, accelerator: str = "auto") -> "Machine":
        """Look at the machine; ``accelerator`` other than "auto" is believed."""
        import os

        import torch

        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        if accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available()):
            return cls(accelerator="cuda", cores=cores, fast_bf16=torch.cuda.is_bf16_supported())
        if accelerator == "mps" or (accelerator == "auto" and torch.backends.mps.is_available()):
            return cls(accelerator="mps", cores=cores, fast_bf16=False)
        return cls(accelerator="cpu", cores=cores, fast_bf16=_cpu_multiplies_bf16())


def _cpu_multiplies_bf16() -> bool:
    # Where there is neither a matrix unit (AMX) nor a product of bf16 pairs (AVX-512 BF16), it is emulated and slower.
    import torch

    probes = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return any(probe is not None and probe() for probe in probes)


def resolve(config: TrainConfig, *, machine: Machine, clips: int, validation: int, pretrained: bool) -> TrainConfig:
    """Fill in everything left at None.

    Args:
        machine: what it runs on.
        clips: number of training clips.
        validation: number of validation clips.
        pretrained: whether the network starts from trained weights.
    """
    on_cpu = machine.accelerator == "cpu"
    optimizer = config.optim.optimizer or ("sgd" if pretrained else "adamw")
    size = config.size or (112 if on_cpu else 224)
    precision = config.trainer.precision
    if precision is None:
        precision = "bf16-mixed" if machine.fast_bf16 else "16-mixed" if machine.accelerator == "cuda" else "32-true"
    return replace(
        config,
        size=size,
        flow=replace(
            config.flow,
            estimator=config.flow.estimator or "tvl1",
            # As the papers: 256 for 224.
            resize=config.flow.resize
            or (256 if config.model_args.get("region") == "motion" else round(size * 256 / 224)),
            workers=machine.cores if config.flow.workers is None else config.flow.workers,
        ),
        optim=replace(
            config.optim,
            optimizer=optimizer,
            lr=config.optim.lr or {"sgd": 1e-2, "adamw": 1e-3}[optimizer],
            weight_decay={"sgd": 5e-4, "adamw": 0.05}[optimizer]
            if config.optim.weight_decay is None
            else config.optim.weight_decay,
            batch_size=config.optim.batch_size or max(1, min(16 if clips < SMALL_DATA else 32, clips)),
        ),
        trainer=replace(
            config.trainer,
            epochs=config.trainer.epochs or _epochs(clips),
            # A clip shows a third of a second: a short list must be drawn from often before the networks have seen it.
            repeats=config.trainer.repeats or max(1, round(400 / max(1, clips))),
            precision=precision,
            loader_workers=(0 if on_cpu and machine.cores <= 2 else min(8, machine.cores - 1))
            if config.trainer.loader_workers is None
            else config.trainer.loader_workers,
            keep=config.trainer.keep or ("best" if validation >= 100 else "last"),
        ),
    )


def _epochs(clips: int) -> int:
    if clips < SMALL_DATA:
        return 60
    return 30 if clips < 20_000 else 15
