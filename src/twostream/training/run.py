"""From a configuration to a trained model folder: data, flow, weights, Lightning; the same command again resumes."""

import json
import logging
import os
import platform
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, WeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public in torch's documentation

from twostream.checkpoint import image_network, is_model, load_model, save_model, transfer
from twostream.data.annotations import Annotations, load_annotations
from twostream.data.items import DataError, VideoItem
from twostream.data.preparation import Progress, default_store, prepare
from twostream.data.splits import split_by_group
from twostream.errors import UsageError
from twostream.files import write_text
from twostream.flow.store import FlowSettings, FlowStore, stored_settings
from twostream.models import create_model
from twostream.models.contract import VideoModel
from twostream.runs import RunFolder
from twostream.training.callbacks import AtomicCheckpointIO, EpochLines, EpochTable, LastCheckpoint
from twostream.training.config import Machine, TrainConfig, resolve
from twostream.training.datamodule import ClipModule
from twostream.training.module import Recognizer, TrainingError
from twostream.units import seconds_text
from twostream.version import __version__
from twostream.weights.catalog import resolve_weights

Say = Callable[[str], None]

# What may differ between the sittings of one run without changing its result.
_FREE_TO_CHANGE = {"out", "flow.workers", "trainer.loader_workers", "trainer.checkpoint_seconds", "trainer.tensorboard"}


@dataclass(frozen=True)
class TrainResult:
    """What a finished training left behind."""

    run: RunFolder
    epochs: int
    seconds: float
    unreadable: dict[str, str]


def train(config: TrainConfig, *, say: Say = print, progress: Progress | None = None) -> TrainResult:
    """Train a model into ``config.out``; called again with the same configuration it goes on where it stopped.

    Args:
        config: what to train; entries left at None are chosen here, and said.
        say: takes a line for the user.
        progress: called with (done, total, what) while videos are read.

    Raises:
        TrainingError: the folder holds another run, or the loss is no longer finite.
        DataError: the data cannot be trained on.
    """
    began = time.monotonic()
    if process_rank():
        say, progress = _silent, None
    run = RunFolder(Path(config.out))
    if run.path.resolve().is_relative_to(Path(config.data).resolve()):
        raise UsageError(
            f"--out {config.out} lies in the data folder {config.data}, where its files would be taken for data; name "
            "a folder beside it"
        )
    annotations = read_data(config)
    for line in annotations.describe().splitlines():
        say(line)
    annotations.require_trainable()
    config = adopt_store(config)
    machine = Machine.detect(config.trainer.accelerator)
    # The weights decide the optimiser, the optimiser is part of the configuration, so the network comes first.
    model = build_model(config, machine, annotations)
    origin = initialise(model, config, annotations, say=say)
    config = absolute(
        resolve(
            config,
            machine=machine,
            clips=len(annotations.parts["train"]),
            validation=len(annotations.parts["val"]),
            pretrained=origin != "random",
        )
    )
    refuse_other_run(run, config)
    if run.finished:
        say(f"{run.path} is finished already; to train anew remove it or name another --out")
        return TrainResult(run, config.trainer.epochs or 0, time.monotonic() - began, {})
    store = open_store(config)
    say(choices_line(config, machine))
    with first_rank_first():
        # Written first: a folder that cannot be written to is found before hours of work.
        write_text(run.config_file, config.to_yaml())
        readable = prepare(
            annotations.items(),
            model.spec,
            store,
            workers=config.flow.workers or 1,
            short_clips=config.short_clips,
            unreadable_share=config.unreadable,
            say=say,
            progress=progress,
        )
        annotations = only(annotations, readable.items)
        annotations.require_trainable()
        write_text(run.data_file, json.dumps(annotations.to_dict(), indent=1, ensure_ascii=False) + "\n")
    trainer = fit(run, config, annotations, model, store, say=say)
    seconds = time.monotonic() - began
    if trainer.is_global_zero:
        provenance = {
            "twostream": __version__,
            "torch": torch.__version__,
            "weights": origin,
            "seed": config.seed,
            "split": str(config.split),
            "short_clips": config.short_clips,
            "no_flip": list(config.no_flip),
            "flow": store.settings.to_dict(),
            "command": f"twostream train --config {run.config_file}",
            "machine": f"{machine.accelerator}, {machine.cores} cores, {platform.machine()}",
            "python": platform.python_version(),
            "seconds": round(seconds, 1),
        }
        save_model(run.model_folder, model, classes=annotations.classes, provenance=provenance)
        say(f"trained {config.model} for {trainer.current_epoch} epochs in {seconds_text(seconds)}: {run.model_folder}")
    return TrainResult(run, trainer.current_epoch, seconds, readable.unreadable)


def process_rank() -> int:
    """The rank of this process before Lightning has started, as torchrun, SLURM or Lightning's launcher tell it."""
    # Set by Lightning when it is imported, from the environment of whichever launcher there is.
    return int(getattr(rank_zero_only, "rank", 0) or 0)


def read_data(config: TrainConfig) -> Annotations:
    """The data set with its held-out part; where the data names none, groups of the training part are held out."""
    annotations = load_annotations(
        config.data,
        split=config.split,
        videos=Path(config.videos) if config.videos else None,
        allow_missing=config.allow_missing,
        allow_leak=config.allow_leak,
        seed=config.seed,
    )
    if annotations.parts["val"] or not annotations.parts["train"] or not config.val_fraction:
        return annotations
    try:
        kept, held_out, how = split_by_group(annotations.parts["train"], config.val_fraction, config.seed)
    except DataError as error:
        return replace(annotations, notes=(*annotations.notes, f"no validation part: {error}"))
    return replace(
        annotations,
        parts={**annotations.parts, "train": kept, "val": held_out},
        notes=(*annotations.notes, f"validation: {how}"),
    )


def only(annotations: Annotations, items: Collection[VideoItem]) -> Annotations:
    """The data set without what is not among ``items``."""
    kept = set(items)
    parts = {part: tuple(item for item in members if item in kept) for part, members in annotations.parts.items()}
    return replace(annotations, parts=parts)


def build_model(config: TrainConfig, machine: Machine, annotations: Annotations) -> VideoModel:
    """The network, sized for the machine where the configuration leaves it open; drawn from the seed."""
    size = config.size or (112 if machine.accelerator == "cpu" else 224)
    numbers = {"size": size, "fps": config.flow.fps, **config.model_args}
    torch.manual_seed(config.seed)
    return create_model(config.model, num_classes=len(annotations.classes), **numbers)


def initialise(model: VideoModel, config: TrainConfig, annotations: Annotations, *, say: Say) -> str:
    """Give the network its first weights and say where they come from; "random" where from nowhere."""
    if config.init:
        for run in sources_of(config):
            say(transfer(model, load_model(run), classes=annotations.classes).describe())
        return f"run {', '.join(sources_of(config))}"
    if config.weights not in ("auto", "imagenet", "none") and is_model(config.weights):
        images = load_model(config.weights)
        how = model.load_backbones(image_network(images, model), source=str(images.folder))
        say(f"weights: the network on frames of {images.folder} ({images.model.name}): {how}")
        return f"frames of run {config.weights}"
    found = resolve_weights(config.weights, model.backbone_identity)
    say(found.says)
    if found.state is None:
        return "random"
    say(model.load_backbones(found.state, source=found.source))
    return found.source


def sources_of(config: TrainConfig) -> tuple[str, ...]:
    """The runs whose weights are carried over, in order."""
    return (config.init,) if isinstance(config.init, str) else config.init or ()


def adopt_store(config: TrainConfig) -> TrainConfig:
    """Where a store that exists is named, take over from it how flow is computed, as far as nothing else was said."""
    found = stored_settings(config.flow.store) if config.flow.store else None
    if found is None:
        return config
    flow = config.flow
    return replace(
        config,
        flow=replace(
            flow,
            estimator=flow.estimator or found.estimator,
            # A store at the videos' own sizes has no short side to take over.
            resize=flow.resize or found.short_side,
            fps=flow.fps or found.fps,
        ),
    )


def absolute(config: TrainConfig) -> TrainConfig:
    """The configuration with full paths, so that the run can be read from any folder."""
    store = config.flow.store or str(
        default_store(
            config.data,
            Path(config.out).parent,
            estimator=config.flow.method,
            short_side=config.flow.resize or 0,
            fps=config.flow.fps,
        )
    )
    return replace(
        config,
        data=str(Path(config.data).resolve()),
        videos=str(Path(config.videos).resolve()) if config.videos else None,
        init=str(Path(config.init).resolve())
        if isinstance(config.init, str)
        else tuple(str(Path(run).resolve()) for run in config.init or ()) or None,
        flow=replace(config.flow, store=str(Path(store).resolve())),
    )


def choices_line(config: TrainConfig, machine: Machine) -> str:
    """What was chosen for this machine and this data, in one line."""
    optim, trainer = config.optim, config.trainer
    return (
        f"on {machine.accelerator} ({machine.cores} cores): {config.model}, {config.size} px crops from short side "
        f"{config.flow.resize}, {trainer.epochs} epochs, batches of {optim.batch_size}"
        + (f" x {optim.accumulate}" if optim.accumulate > 1 else "")
        + f" ({trainer.repeats} clips a video and epoch), {optim.optimizer} at {optim.lr:g} ({optim.schedule}), "
        f"{trainer.precision}, {trainer.keep} weights kept"
    )


def refuse_other_run(run: RunFolder, config: TrainConfig) -> None:
    """Raise :class:`TrainingError` where the folder holds a run of another configuration, naming what differs."""
    if not run.config_file.exists():
        return
    before, now = _flat(run.config()), _flat(asdict(config))
    changed = [
        f"{key}: {before.get(key)} there, {now.get(key)} now"
        for key in sorted(before.keys() | now.keys())
        if key not in _FREE_TO_CHANGE and _as_read(before.get(key)) != _as_read(now.get(key))
    ]
    if changed:
        raise TrainingError(
            f"{run.path} holds a run that was started differently ({'; '.join(changed)}). "
            "Name another --out, or remove that folder"
        )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and key in ("flow", "augment", "optim", "trainer"):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _as_read(value: Any) -> Any:
    """As it comes back from a file; 1 and 1.0 are equal."""
    return json.loads(json.dumps(value))


def open_store(config: TrainConfig) -> FlowStore:
    """The flow store of the run, made later where it is missing.

    Networks that read only frames have one too: their JPEG frames in it are read many times faster than the videos.
    """
    root = Path(str(config.flow.store))
    found = stored_settings(root)
    parameters: dict[str, object] = {}
    if config.flow.quality is not None:
        parameters = {"quality": config.flow.quality}
    elif found is not None and found.estimator == config.flow.estimator:
        parameters = found.parameters
    parameters = {**parameters, **(config.flow.parameters or {})}
    asked = FlowSettings(
        estimator=str(config.flow.estimator),
        parameters=parameters,
        short_side=None if found is not None and found.short_side is None else config.flow.resize,
        fps=config.flow.fps,
        # A store that was made without frames serves too; frames are then decoded from the videos.
        frames=found is None or found.frames,
    )
    return FlowStore(root, asked)


@contextmanager
def first_rank_first() -> Iterator[None]:
    """Under torchrun, let rank 0 prepare alone while the others wait; they find everything done.

    Lightning's own launcher starts the other processes only after the preparation, so there is nothing to wait for.
    """
    environment = os.environ
    if environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or int(environment["WORLD_SIZE"]) == 1:
        yield
        return
    # torchrun's own store, which outlives what Lightning builds on it; a process group cannot be made twice there.
    store = TCPStore(environment["MASTER_ADDR"], int(environment["MASTER_PORT"]), is_master=False)
    key = f"twostream/prepared/{environment.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    first = int(environment["RANK"]) == 0
    if not first:
        # Preparing a large collection can take days.
        store.wait([key], timedelta(days=30))
    yield
    if first:
        store.set(key, "done")


def fit(
    run: RunFolder,
    config: TrainConfig,
    annotations: Annotations,
    model: VideoModel,
    store: FlowStore,
    *,
    say: Say,
) -> L.Trainer:
    """Run Lightning from the last checkpoint, if there is one, and leave the weights to keep in ``model``."""
    clips = ClipModule(
        config,
        model.spec,
        train=annotations.parts["train"],
        val=annotations.parts["val"],
        store=store,
        classes=annotations.classes,
    )
    options = config.trainer
    callbacks = callbacks_for(run, config, validates=bool(annotations.parts["val"]), say=say)
    best = next((callback for callback in callbacks if isinstance(callback, ModelCheckpoint)), None)
    recognizer = Recognizer(model, config.optim, seed=config.seed)
    with _quiet_lightning():
        trainer = L.Trainer(
            accelerator=options.accelerator,
            devices=options.devices,
            strategy=options.strategy,
            num_nodes=options.num_nodes,
            precision=options.precision,
            max_epochs=options.epochs,
            accumulate_grad_batches=config.optim.accumulate,
            gradient_clip_val=config.optim.clip_norm,
            callbacks=callbacks,
            logger=TensorBoardLogger(run.path, name="", version="tensorboard") if options.tensorboard else False,
            plugins=[AtomicCheckpointIO()],
            enable_checkpointing=best is not None,
            enable_progress_bar=False,
            enable_model_summary=False,
            # The sampler deals clips to the ranks itself, so that its draws follow from (seed, epoch, index) alone.
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            limit_val_batches=1.0 if annotations.parts["val"] else 0,
            log_every_n_steps=1,
        )
        resumed = run.checkpoint_file if run.checkpoint_file.exists() else None
        if resumed:
            say(f"going on from {resumed}")
        try:
            trainer.fit(recognizer, clips, ckpt_path=resumed, weights_only=True)
        except SystemExit:
            # Lightning turns Ctrl-C into an exit; the command line has its own words for it.
            if trainer.interrupted:
                raise KeyboardInterrupt from None
            raise
    if options.keep == "best" and best is not None:
        state = torch.load(best.best_model_path, map_location="cpu", weights_only=True)["state_dict"]
        recognizer.load_state_dict(state)
        say(f"keeping the weights of the lowest held-out loss ({float(best.best_model_score or 0):.3f})")
    return trainer


def moving_average(decay: float) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor | int], torch.Tensor]:
    """How :class:`WeightAveraging` takes a step; what is no floating point number, as STCB's hashes, stays as it is."""

    def averaged(mean: torch.Tensor, current: torch.Tensor, _: torch.Tensor | int) -> torch.Tensor:
        return decay * mean + (1 - decay) * current if current.is_floating_point() else current

    return averaged


def callbacks_for(run: RunFolder, config: TrainConfig, *, validates: bool, say: Say) -> list[Callback]:
    """What happens around the epochs, in the order in which Lightning calls it."""
    options = config.trainer
    callbacks: list[Callback] = []
    if options.average is not None:
        callbacks.append(WeightAveraging(avg_fn=moving_average(options.average)))
    if options.early_stopping:
        if not validates:
            raise TrainingError(
                "--trainer.early_stopping needs held-out clips, and there are none: the data names none and "
                "--val_fraction is 0"
            )
        callbacks.append(EarlyStopping("val_loss", patience=options.early_stopping, check_finite=False))
    if validates and options.keep == "best":
        callbacks.append(
            ModelCheckpoint(
                run.checkpoint_file.parent,
                filename="best",
                monitor="val_loss",
                save_weights_only=True,
                enable_version_counter=False,
            )
        )
    # After the others, so that the state it saves knows what they decided in this epoch.
    last = LastCheckpoint(run.checkpoint_file, options.checkpoint_seconds)
    return [*callbacks, EpochTable(run.metrics_file), EpochLines(say), last]


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keep Lightning's hints and banners out of the way; its warnings about real trouble stay."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # Advice on numbers of loader workers and logging intervals, which are chosen here with reasons.
            warnings.simplefilter("ignore", PossibleUserWarning)
            # Lightning 2.6 still uses a name that torch 2.11 is about to drop.
            warnings.filterwarnings("ignore", r".*LeafSpec", FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _silent(_: str) -> None:
    """Ranks other than the first say nothing."""
