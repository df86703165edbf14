"""Clips of a video before a network that has attention: where it looks, as places on the frame."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from twostream.attention.tracks import AttentionTrack
from twostream.attention.watch import Watcher
from twostream.clip import InputSpec
from twostream.data.transforms import Uint8Array
from twostream.prediction.judge import Looks

# Clips that pass the network at once.
_AT_ONCE = 8


class Onlooker:
    """Shows clips of one video to a network through one crop, plain or mirrored too, and keeps where it looks."""

    def __init__(self, watcher: Watcher, spec: InputSpec, looks: Looks) -> None:
        self._watcher, self._spec, self._looks = watcher, spec, looks
        self._waiting: list[tuple[int, Tensor, Tensor]] = []
        self._seen: dict[int, list[npt.NDArray[np.float32]]] = defaultdict(list)

    def add(self, n: int, frames: Uint8Array, fields: Uint8Array) -> None:
        """Take clip ``n``: frames (T, H, W, 3) and fields (S * L, 2, H, W), as :func:`read_clips` gives them."""
        W, H = size = self._looks.size
        L = self._spec.flow_length
        for crop in self._looks.crops:
            flow = crop.fields(fields, size).reshape(len(fields) // L, 2 * L, H, W)
            self._waiting.append((n, crop.frames(frames, size), flow))
        if len(self._waiting) >= _AT_ONCE:
            self._ask()

    def track(self, seconds: Sequence[float]) -> AttentionTrack:
        """The attention of all clips in order of their numbers; ``seconds`` are the times of their frames."""
        self._ask()
        crop = self._looks.crops[0]
        width, height = self._looks.size
        return self._watcher.track(
            np.stack([np.stack(self._seen[n]) for n in sorted(self._seen)]),
            seconds=seconds,
            seen=(crop.left, crop.top, crop.left + crop.width, crop.top + crop.height),
            width=width,
            height=height,
        )

    def _ask(self) -> None:
        if self._waiting:
            numbers, rgb, flow = zip(*self._waiting, strict=True)
            for n, weights in zip(numbers, self._watcher.weights(torch.stack(rgb), torch.stack(flow)), strict=True):
                self._seen[n].append(weights)
            self._waiting.clear()
