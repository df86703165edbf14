"""Clips of a video before a network: cropped as a protocol says, shown a few at a time, the logits kept."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from twostream.clip import InputSpec, Scores
from twostream.data.region import WHOLE, Region
from twostream.data.transforms import ClipTransform, Space, Uint8Array, covering_crops
from twostream.evaluation.evaluate import Precision, evaluate
from twostream.evaluation.protocols import Protocol
from twostream.video import Size, grid_size

# Steps that pass the network at once. More make a CPU no faster and cost memory: 8 frames of 340 x 256 px and their
# flow take some 250 MB in a ResNet.
_STEPS_CPU, _STEPS_GPU = 8, 64


@dataclass(frozen=True)
class Looks:
    """The crops of the grid through which a clip is seen, and the (width, height) that each is resized to."""

    crops: tuple[ClipTransform, ...]
    size: Size


def all_looks(protocol: Protocol, spec: InputSpec, grid: Size, region: Region = WHOLE) -> Looks:
    """What the protocol shows of a region at one position in time: crop by crop, each plain and then mirrored."""
    return _looks(protocol, spec, grid, region, protocol.space, (False, True) if protocol.flips else (False,))


def one_look(
    protocol: Protocol, spec: InputSpec, grid: Size, region: Region = WHOLE, *, mirrored: bool = False
) -> Looks:
    """All of a region where the protocol shows it, else its centre; with ``mirrored`` its mirror image as well."""
    space: Space = "whole" if protocol.space == "whole" else "centre"
    return _looks(protocol, spec, grid, region, space, (False, True) if mirrored else (False,))


def _looks(
    protocol: Protocol, spec: InputSpec, grid: Size, region: Region, space: Space, flips: tuple[bool, ...]
) -> Looks:
    width, height = region.px(*grid)
    crops = covering_crops(space, width, height, share=spec.size / spec.resize)
    whole = protocol.space == "whole"
    return Looks(
        tuple(replace(crop, flip=flip).within(region) for crop in crops for flip in flips),
        grid_size(round(width), round(height), spec.resize) if whole else (spec.size, spec.size),
    )


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
    """Shows clips of one video to a network, a few at a time, and keeps the logits.

    Args:
        model, spec, classes, device, precision: as the predictor has them.
        looks: the crops through which a clip of a region is seen.
    """

    def __init__(
        self,
        model: nn.Module,
        spec: InputSpec,
        classes: Sequence[str],
        device: torch.device,
        precision: Precision,
        looks: Callable[[Region], Looks],
    ) -> None:
        self._precision = precision
        self._model, self._spec, self._classes, self._device, self._looks = model, spec, classes, device, looks
        self._at_once = _STEPS_CPU if device.type == "cpu" else _STEPS_GPU
        self._clips: list[int] = []
        self._waiting: list[tuple[Tensor, Tensor]] = []
        self._answers: list[Scores] = []

    def add(self, n: int, frames: Uint8Array, fields: Uint8Array, region: Region = WHOLE) -> None:
        """Take clip ``n``: frames (T, H, W, 3) and fields (S * L, 2, H, W), as :func:`read_clips` gives them.

        Args:
            n: its number; answers are in the order of these.
            frames, fields: of the whole grid.
            region: what of it is looked at.
        """
        looks = self._looks(region)
        size, L = looks.size, self._spec.flow_length
        S = len(fields) // L
        if self._waiting and self._waiting[0][1].shape[-2:] != (size[1], size[0]):
            self._ask()  # pictures of two sizes are no batch
        for crop in looks.crops:
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
            # All that waits, in one go.
            batch_steps=len(rgb) * max(rgb.shape[1], flow.shape[1]),
            precision=self._precision,
        )
        self._answers.append(answer)
        self._waiting.clear()
