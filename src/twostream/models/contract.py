"""What every network here promises: a spec it normalises by, votes it names, weights it can start from."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from twostream.clip import InputSpec, ShapeError, Stream, Votes, check_batch
from twostream.models.backbone import Backbone


class VideoModel(nn.Module):
    """A network from clips to votes: ``model(rgb, flow) -> logits (B, V, K)``.

    Shapes: ``rgb`` (B, T, 3, H, W), ``flow`` (B, S, 2L, H, W), uint8 or float, both on the 0..255 scale as the data
    set gives them; a stream that ``spec.streams`` does not name is not looked at. Any H and W.

    A subclass checks its input with :meth:`check`, normalises it with :class:`Normalise`, averages over space and
    segments itself, and says in :meth:`load_backbones` how image weights enter it. What it keeps of a stream that it
    reads is called ``appearance`` or ``motion`` and has a ``backbone``.

    Attributes:
        name, numbers: what :func:`twostream.models.create_model` was asked for, defaults included; with
            ``num_classes`` they rebuild the same network.
        spec: what it wants to be shown.
        votes: the V votes in order, e.g. ``(("appearance", 1), ("motion", 1))``.
        vote_weights: of the votes in the training loss; None: all 1. Where there are more than V, the network answers
            so many in training, and the others are for the loss alone.
        num_classes: K.
        backbone_identity: which published image weights fit it (a key of ``weights.catalog.CATALOG``, or none).
    """

    name: str = ""
    numbers: Mapping[str, Any] = {}
    vote_weights: tuple[float, ...] | None = None

    def __init__(self, *, spec: InputSpec, votes: Votes, num_classes: int, backbone_identity: str) -> None:
        super().__init__()
        self.spec = spec
        self.votes = votes
        self.num_classes = num_classes
        self.backbone_identity = backbone_identity

    def check(self, rgb: Tensor, flow: Tensor) -> None:
        """Raise :class:`ShapeError` unless the batch has the shapes and types that ``spec`` asks for."""
        check_batch(rgb, flow, self.spec)
        for name, x in (("rgb", rgb), ("flow", flow)):
            stream = "appearance" if name == "rgb" else "motion"
            if stream in self.spec.streams and not (x.dtype == torch.uint8 or x.is_floating_point()):
                raise ShapeError(f"{name} must be uint8 or floating point on the 0..255 scale, got {x.dtype}")

    def backbones(self) -> dict[Stream, Backbone]:
        """The image network of each stream that is read, from the input to its last map.

        A forward pass calls the :attr:`Backbone.last_unit` of each once, with all steps of all clips: (B T, C, h, w).
        """
        return {stream: getattr(self, stream).backbone for stream in self.spec.streams}

    def load_backbones(self, state: Mapping[str, Tensor], *, source: str) -> str:
        """Start from the weights of an image network with three input channels; returns how they entered.

        Raises:
            WeightsError: tensors missing, unexpected or of another shape; ``source`` names them.
        """
        raise NotImplementedError

    def adapt(self, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """The tensors of another trained network as this one would take them, and for each that was changed how.

        Names stay; shapes that this network does not have are left as they are, for the caller to refuse.
        """
        return dict(state), {}


class Normalise(nn.Module):
    """(x - mean) / std from the 0..255 scale, in the type of the network's parameters.

    Shapes: (N, C, H, W) -> the same. ``mean`` and ``std`` are one number or one per channel. They belong to the
    InputSpec, not to the weights, and are not in the state dict.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: float | tuple[float, ...], std: float | tuple[float, ...]) -> None:
        super().__init__()
        self._values = mean, std
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(1, -1, 1, 1), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Normalise":
        """Set the numbers anew after a change of type or device: ``double()`` must not keep float32's rounding."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, value in zip(("mean", "std"), self._values, strict=True):
            old = getattr(self, name)
            setattr(self, name, torch.tensor(value, dtype=old.dtype, device=old.device).reshape(old.shape))
        return self

    def forward(self, x: Tensor) -> Tensor:
        """The normalised images, channels last in memory."""
        x = x.to(self.mean.dtype, memory_format=torch.channels_last)
        return (x - self.mean).div_(self.std)


__all__ = ["Normalise", "VideoModel"]
