"""Asking a network with attention where it looks."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from twostream.attention.cells import CellGrid
from twostream.attention.tracks import AttentionTrack, Box
from twostream.errors import UsageError


class Watcher:
    """A network that has attention, ready to be asked where it looks.

    Args:
        model: has ``attention_maps(rgb, flow)``, whose first entry is (B, h, w) and sums to 1, and ``appearance``, the
            network whose map it weights. It is put into evaluation mode and moved.
        device: where to.

    Attributes:
        cells: where the cells of its map look.

    Raises:
        UsageError: it has none; names those that have.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        # "none" is what a network with the method but without the level calls itself.
        if not hasattr(model, "attention_maps") or getattr(model, "attention", None) is None:
            name = getattr(model, "name", "") or type(model).__name__
            without = ' built with attention "none"' if hasattr(model, "attention_maps") else ""
            raise UsageError(
                f"{name}{without} has no attention to show; the networks that have are those of STPN: stpn_resnet18 "
                "and the others called stpn_... (list them with: twostream models)"
            )
        self._model = cast(Any, model.to(device).eval())
        self._device = device
        self.cells = CellGrid(lambda x: self._model.appearance(x[:, None]), 3, device)

    def weights(self, rgb: Tensor, flow: Tensor) -> npt.NDArray[np.float32]:
        """(B, h, w), each summing to 1, for ``rgb`` (B, 1, 3, H, W) and ``flow`` (B, S, 2L, H, W)."""
        with torch.inference_mode():
            maps: dict[str, Tensor] = self._model.attention_maps(rgb.to(self._device), flow.to(self._device))
        return next(iter(maps.values())).float().cpu().numpy()

    def track(
        self, weights: npt.NDArray[np.float32], *, seconds: Sequence[float], seen: Box, width: int, height: int
    ) -> AttentionTrack:
        """Weights of M clips of one video, put where they belong on the frame.

        Args:
            weights: (M, V, h, w); V is 1, or 2 where each clip was shown plain and then mirrored: their mean is taken.
            seconds: times of the M frames.
            seen: the part of the frame that was shown, as shares of its width and height.
            width, height: of the pictures that were shown, in px.
        """
        h, w = weights.shape[2:]
        xs, ys = self.cells.middles(w, width, along="x"), self.cells.middles(h, height, along="y")
        if weights.shape[1] == 2:
            # A cell, and the one that looks at its place in the mirror image.
            weights = np.stack([weights[:, 0], weights[:, 1, :, ::-1]], axis=1)
            xs = (xs + 1 - xs[::-1]) / 2
        left, top, right, bottom = seen
        return AttentionTrack(
            weights=weights.mean(axis=1),
            seconds=np.array(seconds, np.float64),
            xs=left + (right - left) * xs,
            ys=top + (bottom - top) * ys,
            seen=seen,
        )


__all__ = ["Watcher"]
