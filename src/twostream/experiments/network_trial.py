"""One network of a suite from a clip to its scores and to the disk and back, without anything being learned."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from twostream.checkpoint import CheckpointError, image_network, load_model, save_model, transfer
from twostream.clip import Scores
from twostream.data.annotations import Annotations
from twostream.data.items import VideoItem
from twostream.data.preparation import prepare
from twostream.errors import TwostreamError
from twostream.evaluation.evaluate import evaluate
from twostream.evaluation.protocols import get_protocol, view_dataset
from twostream.experiments.suite import Row
from twostream.flow.store import FlowStore
from twostream.models.contract import VideoModel
from twostream.training.config import Machine, TrainConfig
from twostream.training.datamodule import ClipModule
from twostream.training.module import Recognizer, TrainingError, vote_loss
from twostream.training.optim import build_optimizer
from twostream.training.run import build_model, initialise
from twostream.units import bytes_text
from twostream.weights.catalog import CATALOG, find_cached

Say = Callable[[str], None]
Progress = Callable[[int, int, str], None]

# Clips in the training batch; batch norms want more than one value of a channel.
_BATCH = 2


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What a network of the suite did.

    Attributes:
        variant, model: whose and which.
        parameters: all that it could learn.
        rgb, flow: shapes of the batch of training clips.
        train_votes: answers to a training clip.
        views, test_votes: views of a test clip, and answers to each of them.
        seconds_a_clip: wall time of the whole protocol for one clip, reading included.
        same_as: an earlier variant with the same network, whose passage stands for this one's; "" for none.
        key: what networks of the same passage have in common.
    """

    variant: str
    model: str
    parameters: int
    rgb: tuple[int, ...]
    flow: tuple[int, ...]
    train_votes: int
    views: int
    test_votes: int
    seconds_a_clip: float
    same_as: str = ""
    key: str = ""


def try_network(
    row: Row,
    config: TrainConfig,
    annotations: Annotations,
    items: Sequence[VideoItem],
    judged: Sequence[VideoItem],
    store: FlowStore,
    *,
    machine: Machine,
    models: Path,
    key: str,
    say: Say,
    progress: Progress | None,
    problem: Say,
) -> tuple[Trial, Scores | None]:
    """Build a row's network, give it its first weights, pass clips, save it and load it.

    Args:
        row: a row of the variant.
        config: its resolved configuration.
        annotations: the data set, for its classes.
        items: clips with stored flow, all of which must be long enough.
        judged: those that go through the whole protocol; none where another variant's passage stands for this one's.
        store: where the flow is.
        machine: what it runs on.
        models: folder of the networks that were tried; this one is added.
        key: of the trial.
        say: takes a line for the user.
        progress: called with (done, total, what).
        problem: takes what does not pass, where the rest can go on.

    Returns:
        What was seen, and the scores of the judged clips.

    Raises:
        TwostreamError: what does not fit, with the place.
    """
    model = build_model(config, machine, annotations)
    _first_weights(model, row, config, annotations, models, say=say, problem=problem)
    recognizer = Recognizer(model, config.optim, seed=config.seed)
    build_optimizer(model, config.optim)
    prepare(
        items, model.spec, store, workers=1, short_clips=config.short_clips, unreadable_share=0.0, say=lambda _: None
    )
    clips = ClipModule(config, model.spec, train=items, val=(), store=store, classes=annotations.classes)
    batch = [clips.train_clips[0, index] for index in range(min(_BATCH, len(items)))]
    rgb, flow = torch.stack([clip.rgb for clip in batch]), torch.stack([clip.flow for clip in batch])
    recognizer.train()
    with torch.no_grad():
        logits = model(rgb, flow)
        labels = torch.tensor([clip.label for clip in batch])
        loss = vote_loss(logits, labels, weights=model.vote_weights)
    if not torch.isfinite(loss):
        raise TrainingError(f"the loss of the first training clips is {loss.item()}")
    trial = Trial(
        variant=row.variant,
        model=config.model,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        rgb=tuple(rgb.shape),
        flow=tuple(flow.shape),
        train_votes=logits.shape[1],
        views=0,
        test_votes=0,
        seconds_a_clip=0.0,
        key=key,
    )
    _there_and_back(model, annotations, models / row.variant)
    if not judged:
        return trial, None
    protocol = get_protocol(row.protocol)
    if config.no_flip:
        protocol = replace(protocol, flips=False)
    began = time.monotonic()
    scores = evaluate(
        model,
        view_dataset(protocol, judged, store, model.spec, short_clips=config.short_clips),
        classes=annotations.classes,
        device="cpu" if config.trainer.accelerator == "cpu" else "auto",
        batch_steps=25,
        meta={"protocol": row.protocol, "merge": protocol.merge, "split": row.split, "part": "test"},
        progress=progress,
    )
    seconds = (time.monotonic() - began) / len(judged)
    _, views, votes, _ = scores.logits.shape
    file = models / row.variant / "scores.npz"
    scores.save(file)
    return replace(trial, views=views, test_votes=votes, seconds_a_clip=seconds), Scores.load(file)


def _first_weights(
    model: VideoModel,
    row: Row,
    config: TrainConfig,
    annotations: Annotations,
    models: Path,
    *,
    say: Say,
    problem: Say,
) -> None:
    """The weights that training would begin with, as far as they are on this machine."""
    for before in row.after:
        if not (models / before.variant).is_dir():
            problem(f"{row.variant}: starts from {before.variant}, which did not pass")
            return
        source = load_model(models / before.variant)
        if row.as_images:
            model.load_backbones(image_network(source, model), source=before.variant)
        else:
            transfer(model, source, classes=annotations.classes)
    if row.after:
        return
    record = CATALOG.get(model.backbone_identity)
    if not config.init and config.weights in ("auto", "imagenet") and record and find_cached(record) is None:
        size = bytes_text(record.size)
        say(f"{row.variant}: weights {record.file} ({size}) are not here; training fetches {record.url}")
        return
    try:
        initialise(model, config, annotations, say=say)
    except TwostreamError as error:
        problem(f"{row.variant}: its first weights: {error}")


def _there_and_back(model: VideoModel, annotations: Annotations, folder: Path) -> None:
    """Save the network, load it, and compare every tensor."""
    save_model(folder, model, classes=annotations.classes)
    back = load_model(folder).model.state_dict()
    if changed := [name for name, tensor in model.state_dict().items() if not torch.equal(tensor.cpu(), back[name])]:
        raise CheckpointError(f"{folder}: {len(changed)} tensors came back changed, first {changed[0]}")
