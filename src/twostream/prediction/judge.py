"""Clips of a video before a network: cropped as a protocol says, shown a few at a time, the logits kept."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from twostream.clip import InputSpec, Scores
from twostream.data.transforms import ClipTransform, Space, Uint8Array, covering_crops
from twostream.evaluation.evaluate import Precision, evaluate
from twostream.evaluation.protocols import Protocol
from twostream.video import Size, grid_size

# Steps that pass the network at once. More make a CPU no faster and cost memory: 8 frames of 340 x 256 px and their
# flow take some 250 MB in a ResNet.
_STEPS_CPU, _STEPS_GPU = 8, 64


@dataclass(frozen=True)
class Looks:
    """The crops through which a clip is seen, and the (width, height) that each is resized to."""

    crops: tuple[ClipTransform, ...]
    size: Size


def all_looks(protocol: Protocol, spec: InputSpec, grid: Size) -> Looks:
    """What the protocol shows at one position in time: crop by crop, each plain and then mirrored."""
    flips = (False, True) if protocol.flips else (False,)
    crops = covering_crops(protocol.space, *grid, share=spec.size / spec.resize)
    return Looks(tuple(replace(crop, flip=flip) for crop in crops for flip in flips), _size(protocol, spec, grid))


def one_look(protocol: Protocol, spec: InputSpec, grid: Size, *, mirrored: bool = False) -> Looks:
    """The whole frame where the protocol shows it, else the centre; with ``mirrored`` its mirror image as well."""
    space: Space = "whole" if protocol.space == "whole" else "centre"
    (crop,) = covering_crops(space, *grid, share=spec.size / spec.resize)
    crops = (crop, replace(crop, flip=True)) if mirrored else (crop,)
    return Looks(crops, _size(protocol, spec, grid))


def _size(protocol: Protocol, spec: InputSpec, grid: Size) -> Size:
    return grid_size(*grid, spec.resize) if protocol.space == "whole" else (spec.size, spec.size)


@dataclass(frozen=True)
class _Unknown:
    """A video of unknown label, of which :func:`evaluate` is shown some views."""

    rgb: Tensor
    flow: Tensor
    name: str = ""
    label: int = -1
    group: str = ""


class _One(list[_Unknown]):
    """The one video, as :func:`evaluate` takes them."""

    @property
    def items(self) -> Sequence[_Unknown]:
        """Itself."""
        return self


class Judge:
    """Shows clips of one video to a network through the same crops, a few at a time, and keeps the logits."""

    def __init__(
        self,
        model: nn.Module,
        spec: InputSpec,
        classes: Sequence[str],
        device: torch.device,
        precision: Precision,
        looks: Looks,
    ) -> None:
        self._precision = precision
        self._model, self._spec, self._classes, self._device, self._looks = model, spec, classes, device, looks
        self._at_once = _STEPS_CPU if device.type == "cpu" else _STEPS_GPU
        self._clips: list[int] = []
        self._waiting: list[tuple[Tensor, Tensor]] = []
        self._answers: list[Scores] = []

    def add(self, n: int, frames: Uint8Array, fields: Uint8Array) -> None:
        """Take clip ``n``: frames (T, H, W, 3) and fields (S * L, 2, H, W), as :func:`read_clips` gives them."""
        size, L = self._looks.size, self._spec.flow_length
        S = len(fields) // L
        for crop in self._looks.crops:
            rgb = crop.frames(frames, size)
            flow = crop.fields(fields, size).reshape(S, 2 * L, size[1], size[0])
            self._clips.append(n)
            self._waiting.append((rgb, flow))
            if (len(self._waiting) + 1) * max(len(frames), S) > self._at_once:
                self._ask()

    def scores(self, *, as_one: bool) -> Scores:
        """All clips as the views of one video, or each as a video of its own; in order of their numbers."""
        if self._waiting:
            self._ask()
        order = np.argsort(self._clips, kind="stable")
        logits = np.concatenate([scores.logits[0] for scores in self._answers])[order]  # (R, V, K)
        logits = logits[None] if as_one else logits[:, None]
        return Scores(
            logits=logits,
            labels=np.full(len(logits), -1, np.int64),
            videos=tuple(str(n) for n in range(len(logits))),
            classes=tuple(self._classes),
            votes=self._answers[0].votes,
        )

    def _ask(self) -> None:
        rgb, flow = (torch.stack(parts) for parts in zip(*self._waiting, strict=True))
        views = _One([_Unknown(rgb, flow)])
        answer = evaluate(
            self._model,
            views,
            classes=self._classes,
            device=str(self._device),
            batch_views=len(self._waiting),
            precision=self._precision,
        )
        self._answers.append(answer)
        self._waiting.clear()
