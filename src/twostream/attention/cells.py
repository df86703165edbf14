"""Where on a picture the cells of a network's map lie."""

from collections.abc import Callable
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from twostream.attention.tracks import FloatArray

# Pictures of noise that show where cells look, and their side in px: 14 steps of 32.
_PROBES, _PROBE_SIDE = 4, 448


class CellGrid:
    """The grid of places that the cells of a map look at, measured once.

    Args:
        network: pictures (B, channels, H, W) on the 0..255 scale to maps (B, C, h, w).
        channels: of its input.
        device: where it is.
    """

    def __init__(self, network: Callable[[Tensor], Tensor], channels: int, device: torch.device) -> None:
        self._network, self._channels, self._device = network, channels, device

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
        change it, weighted by the square of how much they do. In a very deep network that place is blurred, but the
        first cell looks at no place before the picture and at none that the second one should.
        """
        generator = torch.Generator().manual_seed(0)
        shape = (_PROBES, self._channels, _PROBE_SIDE, _PROBE_SIDE)
        noise = torch.randint(0, 256, shape, generator=generator).float().to(self._device).requires_grad_()
        with torch.enable_grad():
            cells = self._network(noise)  # (B, C, n, n)
            n = cells.shape[-1]
            signs = torch.randint(0, 2, cells.shape[:2], generator=generator).to(cells) * 2 - 1
            (change,) = torch.autograd.grad((cells[..., n // 2, n // 2] * signs).sum(), noise)
        # A trace of everything, so that a cell that nothing changes lies in the middle.
        weight = change.double().square().sum((0, 1)) + 1e-30  # (H, W)
        places = torch.arange(_PROBE_SIDE, dtype=weight.dtype, device=weight.device) + 0.5
        step = _PROBE_SIDE / n
        x, y = (float((weight.sum(d) * places).sum() / weight.sum()) - n // 2 * step for d in (0, 1))
        return (min(max(x, 0.0), step), min(max(y, 0.0), step)), step


__all__ = ["CellGrid"]
