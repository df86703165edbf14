"""Asking a network where it looks, and where on its picture the cells of its map lie."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from twostream.attention.tracks import AttentionTrack, Box, FloatArray
from twostream.errors import UsageError

# Pictures of noise that show where cells look, and their side in px: 14 steps of 32.
_PROBES, _PROBE_SIDE = 4, 448


class Watcher:
    """A network that has attention, ready to be asked where it looks.

    Args:
        model: has ``attention_maps(rgb, flow)``, whose first entry is (B, h, w) and sums to 1, and ``appearance``, the
            network whose map it weights. It is put into evaluation mode and moved.
        device: where to.

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
        xs, ys = self.middles(w, width, along="x"), self.middles(h, height, along="y")
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

    def middles(self, count: int, side: int, *, along: Literal["x", "y"]) -> FloatArray:
        """Where ``count`` cells in a row (x) or column (y) look, as shares of a picture's ``side`` in px; rising.

        These are the middles of the fields that the cells see, and no equal tiles: padding puts the first cell of a
        ResNet upon the picture's edge, and the last one as far from the other edge as the size leaves.
        """
        first, step = self._grid
        places: FloatArray = (first[along == "y"] + step * np.arange(count)) / side
        return np.clip(places, 0, 1)

    @cached_property
    def _grid(self) -> tuple[tuple[float, float], float]:
        """The middle of the first cell, across and down, and the step from one to the next, in px.

        Measured in the middle of a picture so large that no edge is near: of one cell the mean place of the pixels that
        change it, weighted by the square of how much they do.
        """
        generator = torch.Generator().manual_seed(0)
        shape = (_PROBES, 1, 3, _PROBE_SIDE, _PROBE_SIDE)
        noise = torch.randint(0, 256, shape, generator=generator).float().to(self._device).requires_grad_()
        with torch.enable_grad():
            cells: Tensor = self._model.appearance(noise)  # (B, C, n, n)
            n = cells.shape[-1]
            signs = torch.randint(0, 2, cells.shape[:2], generator=generator).to(cells) * 2 - 1
            (change,) = torch.autograd.grad((cells[..., n // 2, n // 2] * signs).sum(), noise)
        # A trace of everything, so that a cell that nothing changes lies in the middle.
        weight = change.double().square().sum((0, 1, 2)) + 1e-30  # (H, W)
        places = torch.arange(_PROBE_SIDE, dtype=weight.dtype, device=weight.device) + 0.5
        step = _PROBE_SIDE / n
        x, y = (float((weight.sum(d) * places).sum() / weight.sum()) - n // 2 * step for d in (0, 1))
        return (x, y), step


__all__ = ["Watcher"]
