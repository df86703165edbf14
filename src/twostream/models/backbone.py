"""The contract of an image network inside a video network: a stem, stages, and what comes out of each of them."""

from typing import NamedTuple

from torch import Tensor, nn


class Tap(NamedTuple):
    """A place in a backbone where a feature map can be taken: its name, channels, and px of the input per cell."""

    name: str
    channels: int
    stride: int


class Backbone(nn.Module):
    """An image network without its classifier, open between its parts.

    ``backbone(x)`` is ``stem``, then every stage. A video network that connects streams walks the parts itself::

        x = backbone.stem(x)
        for stage in backbone.stages:
            for unit in stage:
                x = unit(x)

    Shapes: (B, in_channels, H, W) of any H and W -> (B, channels, H / stride, W / stride) of the last tap, rounded up
    (the Caffe layout's first pooling rounds an odd size down).

    Attributes:
        identity: what published weights must be made for to fit, e.g. ``"resnet18"`` or ``"resnet50-caffe"``.
        in_channels: 3 for frames, 2 L for a stack of flow fields.
        taps: one for the stem and one for each stage, in the order of the forward pass.
    """

    identity: str
    in_channels: int
    taps: tuple[Tap, ...]

    def stem(self, x: Tensor) -> Tensor:
        """Everything before the first stage."""
        raise NotImplementedError

    @property
    def stages(self) -> tuple[nn.Sequential, ...]:
        """The stages in order, each a sequence of units."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """The map of the last tap."""
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return x


__all__ = ["Backbone", "Tap"]
