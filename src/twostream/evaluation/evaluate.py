"""From a model and the views of some videos to Scores: a plain function that serves every model.

It knows no data set and no network: the views come from anything that has a length and items (see :class:`Views`;
``protocols`` makes such from a list of videos), the model is any module with ``votes``.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, get_args

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from twostream.clip import Scores, ShapeError, Votes, vote_count
from twostream.errors import TwostreamError, UsageError

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
Progress = Callable[[int, int, str], None]

_TYPES = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


class EvaluationError(TwostreamError):
    """The videos cannot be judged: none are there, or the device's memory does not hold a batch of views."""


class Video(Protocol):
    """What must be known about a video: its name, class index (-1 unknown) and group ("" none)."""

    @property
    def name(self) -> str:
        """Unique within the list."""

    @property
    def label(self) -> int:
        """Class index, -1 where unknown."""

    @property
    def group(self) -> str:
        """The person or recording it belongs to; "" for none."""


class VideoViews(Protocol):
    """All views of one video: ``rgb`` (R, T, 3, H, W) and ``flow`` (R, S, 2L, H, W), uint8."""

    @property
    def rgb(self) -> Tensor:
        """(R, T, 3, H, W); T is 0 where the model does not read it."""

    @property
    def flow(self) -> Tensor:
        """(R, S, 2L, H, W); S is 0 where the model does not read it."""


class Views(Protocol):
    """The videos to judge: ``views[n]`` holds the views of ``views.items[n]``."""

    @property
    def items(self) -> Sequence[Video]:
        """The videos in order."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> VideoViews: ...


def evaluate(
    model: nn.Module,
    views: Views,
    *,
    classes: Sequence[str],
    device: str = "auto",
    batch_steps: int = 32,
    workers: int = 0,
    precision: Precision = "32-true",
    meta: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Show a model all views of all videos, and keep every logit.

    The model is moved to ``device`` and stays there; its training or evaluation mode is put back.

    Args:
        model: ``model(rgb, flow) -> (B, V, K)`` with ``model.votes``.
        views: the videos; every one must have as many views as the others, of any size.
        classes: the K class names.
        device: ``"auto"`` (the GPU if there is one) or a torch device.
        batch_steps: how many frames, or stacks of flow where these are more, pass through the model at once: views
            times steps of each, for that is what takes memory; one view at least. Small videos share a batch, the
            views of one video are spread over several; the scores are the same up to rounding.
        workers: processes that read videos ahead; 0 reads in this one.
        precision: arithmetic of the network, as a training run names it; logits are kept as 32-bit floats.
        meta: what the Scores shall say about where they come from (protocol, split, part, model ...).
        progress: called with (videos done, videos, name of the last one).

    Raises:
        EvaluationError: no videos, or a batch does not fit into the device's memory.
        ShapeError: views or logits of another shape than the contract asks for.
        UsageError: an unknown device or precision, or numbers out of range.
    """
    check_precision(precision)
    if batch_steps < 1 or workers < 0:
        raise UsageError(f"batch_steps is at least 1 and workers at least 0, got {batch_steps} and {workers}")
    if not len(views):
        raise EvaluationError("there are no videos to evaluate; look at the split with: twostream check DATA")
    target = resolve_device(device)
    loader: Iterable[VideoViews] = DataLoader(
        views,  # type: ignore[arg-type]  # DataLoader asks for its own class but uses len() and [] only
        batch_size=None,
        num_workers=workers,
        worker_init_fn=_start_worker,
        multiprocessing_context="spawn" if workers else None,
        prefetch_factor=2 if workers else None,
        # Its own, or every evaluation would move torch's global generator on and change the training around it.
        generator=torch.Generator(),
    )
    total = len(views)
    answers: list[list[Tensor]] = [[] for _ in range(total)]
    counts = [0] * total
    modes = [(module, module.training) for module in model.modules()]
    model.to(target).eval()
    try:
        for batch in _batches(loader, batch_steps, counts):
            logits = _forward(model, batch, target, precision)
            start = 0
            for number, rgb, _ in batch:
                answers[number].append(logits[start : start + len(rgb)])
                start += len(rgb)
            if progress:
                last = batch[-1][0]
                scored = sum(len(answer) for answer in answers[last])
                progress(last + (scored == counts[last]), total, views.items[last].name)
    finally:
        for module, training in modes:
            module.training = training
    whole = [torch.cat(answer) for answer in answers]
    if len(shapes := {tuple(answer.shape) for answer in whole}) > 1:
        raise ShapeError(f"every video must give the same (views, votes, classes), got {sorted(shapes)}")
    items = list(views.items)
    return Scores(
        logits=torch.stack(whole).numpy(),
        labels=np.array([item.label for item in items], dtype=np.int64),
        videos=tuple(item.name for item in items),
        groups=tuple(item.group for item in items),
        classes=tuple(classes),
        votes=given_votes(model, whole[0].shape[1]),
        meta={**(meta or {}), "precision": precision},
    )


def check_precision(precision: str) -> None:
    """Refuse a precision that there is not, before the work is done rather than after it.

    Raises:
        UsageError: names those there are.
    """
    if precision not in _TYPES:
        raise UsageError(f"precision is one of {list(get_args(Precision))}, got {precision!r}")


def resolve_device(name: str) -> torch.device:
    """``"auto"`` to the GPU if there is one, else the CPU; other names as torch knows them.

    Raises:
        UsageError: no such device on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device {name!r} cannot be used here ({reason}); try auto, cpu or cuda") from error
    return device


_Piece = tuple[int, Tensor, Tensor]


def _batches(loader: Iterable[VideoViews], batch_steps: int, counts: list[int]) -> Iterator[list[_Piece]]:
    """Views of one size in order, one or of ``batch_steps`` steps at once; ``counts`` learns each video's views."""
    pending: list[_Piece] = []
    for number, video in enumerate(loader):
        rgb, flow = video.rgb, video.flow
        if rgb.ndim != 5 or flow.ndim != 5 or len(rgb) != len(flow) or not len(rgb):
            raise ShapeError(
                f"the views of a video are rgb (R, T, 3, H, W) and flow (R, S, 2L, H, W) with the same R >= 1, "
                f"got {tuple(rgb.shape)} and {tuple(flow.shape)}"
            )
        counts[number] = len(rgb)
        at_once = max(1, batch_steps // _steps(rgb, flow))
        for start in range(0, len(rgb), at_once):
            piece = (number, rgb[start : start + at_once], flow[start : start + at_once])
            if pending and (
                pending[0][1].shape[1:] != piece[1].shape[1:]
                or pending[0][2].shape[1:] != piece[2].shape[1:]
                or sum(len(p[1]) for p in pending) + len(piece[1]) > at_once
            ):
                yield pending
                pending = []
            pending.append(piece)
    yield pending


_LEAST = "one is the least that passes at once: take a protocol of fewer steps, or the CPU"


def _steps(rgb: Tensor, flow: Tensor) -> int:
    return max(rgb.shape[1], flow.shape[1])


def _forward(model: nn.Module, batch: list[_Piece], device: torch.device, precision: Precision) -> Tensor:
    rgb = torch.cat([piece[1] for piece in batch])
    flow = torch.cat([piece[2] for piece in batch])
    kind = _TYPES[precision]
    try:
        with torch.inference_mode(), torch.autocast(device.type, dtype=kind, enabled=kind is not None):
            logits: Tensor = model(rgb.to(device), flow.to(device))
        logits = logits.float().cpu()
    except torch.OutOfMemoryError as error:
        least = _steps(rgb, flow)
        way = f"take fewer at once (batch_steps below {len(rgb) * least})" if len(rgb) > 1 else _LEAST
        raise EvaluationError(
            f"{len(rgb)} views of rgb {tuple(rgb.shape[1:])} and flow {tuple(flow.shape[1:])} do not fit into the "
            f"memory of {device}; {way}"
        ) from error
    if logits.ndim != 3 or len(logits) != len(rgb):
        raise ShapeError(f"a model answers (B, V, K) for B={len(rgb)} views, got {tuple(logits.shape)}")
    return logits


def given_votes(model: nn.Module, given: int) -> Votes:
    """The names of ``given`` votes: a model shown more steps than in training gives more of each, in proportion."""
    declared: Votes = tuple((str(name), int(count)) for name, count in model.votes)  # type: ignore[union-attr]
    expected = vote_count(declared)
    if any(given * count % expected for _, count in declared):
        raise ShapeError(f"the model declares the votes {declared} but gave {given}, which is no such proportion")
    return tuple((name, given * count // expected) for name, count in declared)


def _start_worker(_: int) -> None:
    # OpenCV would start a thread per core in every worker.
    cv2.setNumThreads(1)
