"""Asking a network which parts of its frames and of its flow spoke for a class, by captum."""

import importlib
from collections.abc import Iterator, Mapping
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from twostream.attention.attributions import METHODS, SHOWN, Attribution, Method, StreamMaps, without
from twostream.attention.cells import CellGrid
from twostream.clip import Stream
from twostream.errors import UsageError
from twostream.evaluation.evaluate import given_votes
from twostream.explain.shown import Shown

PATH_STEPS = 32
"""Points between silence and the clip at which integrated gradients takes a gradient."""

# Steps of clips that pass the network, and come back, at once.
_STEPS_CPU, _STEPS_GPU = 8, 64
# Integrated gradients are sums over tiles, so many along the picture's short side: single pixels are noise to an eye.
_TILES = 16


def load_captum() -> Any:
    """``captum.attr``.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return importlib.import_module("captum.attr")
    except ImportError as error:
        raise UsageError(
            f"Grad-CAM and integrated gradients need captum, which cannot be imported ({error}); "
            "pip install 'twostream[explain]'"
        ) from error


class Attributor:
    """A network ready to be asked what in a video spoke for a class.

    The class's logit is that of the answer: the mean over clips and votes, the streams by their weights. Each stream's
    maps are in logits: those of integrated gradients add up to the difference that frames and flow make, against
    frames of the mean colour and flow without motion; those of Grad-CAM are the last map of the stream, weighted by how
    much the logit rises with each of its channels, and both signs are kept.

    Args:
        model: a video network of ``models``, moved to the device and put into evaluation mode.
        device: where to.
        method: ``"gradcam"`` or ``"integrated_gradients"``.
        path_steps: of integrated gradients.
        stream_weights: of the votes; None: equal.

    Raises:
        UsageError: no such method, a number out of range, or captum is not installed.

    Reference: Selvaraju et al., Grad-CAM, ICCV 2017, section 3; Sundararajan et al., Axiomatic Attribution for Deep
    Networks, ICML 2017, section 3.
    """

    def __init__(
        self,
        model: nn.Module,
        device: torch.device,
        *,
        method: Method,
        path_steps: int = PATH_STEPS,
        stream_weights: Mapping[str, float] | None = None,
    ) -> None:
        if method not in METHODS:
            raise UsageError(f"attributions are made by {' or '.join(METHODS)}, got {method!r}")
        if path_steps < 1:
            raise UsageError(f"path_steps is at least 1, got {path_steps}")
        self._captum = load_captum()
        self._model = cast(Any, model.to(device).eval())
        self._device, self._method, self._path_steps = device, method, path_steps
        self._streams: tuple[Stream, ...] = self._model.spec.streams
        self._weights = stream_weights or dict.fromkeys((name for name, _ in self._model.votes), 1.0)
        self._at_once = _STEPS_CPU if device.type == "cpu" else _STEPS_GPU
        self._cells = {stream: _grid(backbone, device) for stream, backbone in self._model.backbones().items()}

    def attribute(self, shown: Shown, label: int | None = None) -> Attribution:
        """What spoke for class ``label`` in the clips of a video; None: the class that they are taken for."""
        logits = {SHOWN: self._logits(shown, silenced=())}
        for stream in self._streams if len(self._streams) > 1 else ():
            logits[without(stream)] = self._logits(shown, silenced=(stream,))
        logits[without(*self._streams)] = self._logits(shown, silenced=self._streams)
        label = int(logits[SHOWN].argmax()) if label is None else label
        ask = self._gradcam if self._method == "gradcam" else self._integrated_gradients
        pieces: dict[Stream, list[npt.NDArray[np.float32]]] = {stream: [] for stream in self._streams}
        for inputs in self._pieces(shown):
            for stream, maps in ask(inputs, label).items():
                pieces[stream].append(maps.detach().float().cpu().numpy())
        return Attribution(
            # The answer is the mean of the clips'.
            streams={
                stream: self._placed(stream, np.concatenate(maps) / np.float32(len(shown)), shown)
                for stream, maps in pieces.items()
            },
            label=label,
            logits=logits,
            complete=self._method == "integrated_gradients",
            seen=shown.seen,
        )

    def _gradcam(self, inputs: tuple[Tensor, Tensor], label: int) -> dict[Stream, Tensor]:
        """(b T, h, w) of each stream for b clips."""
        # Also where all weights are frozen there must be something to derive by.
        inputs = tuple(x.requires_grad_() for x in inputs)  # type: ignore[assignment]
        found = {}
        for stream, backbone in self._model.backbones().items():
            asked = self._captum.LayerGradCam(self._answer, backbone.last_unit)
            maps: Tensor = asked.attribute(inputs, target=label)  # (b T, 1, h, w)
            found[stream] = maps[:, 0]
        return found

    def _integrated_gradients(self, inputs: tuple[Tensor, Tensor], label: int) -> dict[Stream, Tensor]:
        """(b T, H, W) of each stream for b clips."""
        rgb, flow = inputs
        both = {"appearance": rgb, "motion": flow}
        silent = dict(zip(both, self._silence(rgb, flow, self._streams), strict=True))

        def answer(*read: Tensor) -> Tensor:
            # Of a stream that is not read there is nothing to derive by.
            full = {name: x.new_empty(len(read[0]), *x.shape[1:]) for name, x in both.items()}
            full |= dict(zip(self._streams, read, strict=True))
            return self._answer(full["appearance"], full["motion"])

        read = tuple(both[stream] for stream in self._streams)
        steps = max(x.shape[1] for x in read)
        maps: tuple[Tensor, ...] = self._captum.IntegratedGradients(answer).attribute(
            read,
            baselines=tuple(silent[stream] for stream in self._streams),
            target=label,
            n_steps=self._path_steps,
            internal_batch_size=max(len(rgb), self._at_once // steps),
        )
        return {stream: x.sum(2).flatten(0, 1) for stream, x in zip(self._streams, maps, strict=True)}

    def _placed(self, stream: Stream, maps: npt.NDArray[np.float32], shown: Shown) -> StreamMaps:
        """The maps of all steps with where on the frame and when they lie."""
        _, h, w = maps.shape
        H, W = shown.rgb.shape[-2:] if stream == "appearance" else shown.flow.shape[-2:]
        if self._method == "gradcam":
            xs = self._cells[stream].middles(w, W, along="x")
            ys = self._cells[stream].middles(h, H, along="y")
        else:
            tile = max(1, round(min(h, w) / _TILES))
            maps, xs = _tiles(maps, tile, axis=2)
            maps, ys = _tiles(maps, tile, axis=1)
        left, top, right, bottom = shown.seen
        return StreamMaps(
            maps=maps,
            seconds=shown.seconds[stream],
            xs=left + (right - left) * xs,
            ys=top + (bottom - top) * ys,
        )

    def _pieces(self, shown: Shown) -> Iterator[tuple[Tensor, Tensor]]:
        """The clips, so many at once as the memory is sure to hold, as floating point numbers on the device."""
        size = max(1, self._at_once // max(shown.rgb.shape[1], shown.flow.shape[1]))
        for start in range(0, len(shown), size):
            rgb, flow = (x[start : start + size].to(self._device).float() for x in (shown.rgb, shown.flow))
            yield rgb, flow

    def _logits(self, shown: Shown, *, silenced: tuple[Stream, ...]) -> npt.NDArray[np.float64]:
        """(K,) of the answer."""
        with torch.no_grad():
            answers = [self._answer(*self._silence(rgb, flow, silenced)) for rgb, flow in self._pieces(shown)]
        mean: npt.NDArray[np.float64] = torch.cat(answers).double().mean(0).cpu().numpy()
        return mean

    def _silence(self, rgb: Tensor, flow: Tensor, silenced: tuple[Stream, ...]) -> tuple[Tensor, Tensor]:
        spec = self._model.spec
        if "appearance" in silenced:
            rgb = torch.tensor(spec.rgb_mean).to(rgb)[:, None, None].expand_as(rgb)
        if "motion" in silenced:
            flow = torch.full_like(flow, spec.flow_mean)
        return rgb, flow

    def _answer(self, rgb: Tensor, flow: Tensor) -> Tensor:
        """Logits (B, K), votes merged."""
        logits: Tensor = self._model(rgb, flow)  # (B, V, K)
        total = sum(self._weights.values())
        shares = [
            self._weights.get(name, 0.0) / total / count
            for name, count in given_votes(self._model, logits.shape[1])
            for _ in range(count)
        ]
        return (logits * logits.new_tensor(shares)[:, None]).sum(1)


def _grid(backbone: Any, device: torch.device) -> CellGrid:
    # The geometry does not hang on how the input is normalised.
    return CellGrid(lambda x: backbone((x - 128) / 64), backbone.in_channels, device)


def _tiles(maps: npt.NDArray[np.float32], tile: int, *, axis: int) -> tuple[npt.NDArray[np.float32], Any]:
    """Sums over tiles along an axis, and the tiles' middles as shares of it."""
    size = maps.shape[axis]
    count = max(1, size // tile)
    borders = np.arange(count + 1) * size // count
    sums: npt.NDArray[np.float32] = np.add.reduceat(maps, borders[:-1], axis=axis)
    return sums, (borders[:-1] + borders[1:]) / 2 / size


__all__ = ["PATH_STEPS", "Attributor", "load_captum"]
