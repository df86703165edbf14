"""The contract of an image network inside a video network: a stem, stages, and what comes out of each of them."""

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn


class Tap(NamedTuple):
    """A place in a backbone where a feature map can be taken: its name, channels, and px of the input per cell."""

    name: str
    channels: int
    stride: int


class InputScale(NamedTuple):
    """How published weights want their input, on the 0..255 scale; ``InputSpec(**scale._asdict(), ...)`` takes it."""

    rgb_mean: tuple[float, float, float]
    rgb_std: tuple[float, float, float]
    flow_mean: float
    flow_std: float


# Flow is divided by the mean deviation of the three colours (TSN's choice), so that a first layer made from RGB
# weights meets inputs of about the known scale.
TORCHVISION_SCALE = InputScale((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), 128.0, 57.63)


class Backbone(nn.Module):
    """An image network without its classifier, open between its parts.

    ``backbone(x)`` is ``stem``, then every stage. A video network that connects streams walks the parts itself::

        x = backbone.stem(x)
        for stage in backbone.stages:
            for unit in stage:
                x = unit(x)

    Shapes: (B, in_channels, H, W) of any H and W -> (B, channels, H / stride, W / stride) of the last tap. A layer of
    stride 2 rounds an odd size up, but poolings without padding round it down (the first of the Caffe layout and of
    BN-Inception, all of VGG).

    Attributes:
        identity: what published weights must be made for to fit, e.g. ``"resnet18"`` or ``"resnet50-caffe"``.
        in_channels: 3 for frames, 2 L for a stack of flow fields.
        taps: one for the stem and one for each stage, in the order of the forward pass.
        scale: of the input that published weights expect.
        first_layer: name of the weights that meet the input.
    """

    first_layer: ClassVar[str] = "conv1.weight"

    identity: str
    in_channels: int
    taps: tuple[Tap, ...]
    scale: InputScale

    def stem(self, x: Tensor) -> Tensor:
        """Everything before the first stage."""
        raise NotImplementedError

    @property
    def stages(self) -> tuple[nn.Sequential, ...]:
        """The stages in order, each a sequence of units."""
        raise NotImplementedError

    @property
    def last_unit(self) -> nn.Module:
        """The unit that gives the map of the last tap, also where a video network walks the units itself."""
        return self.stages[-1][-1]

    def forward(self, x: Tensor) -> Tensor:
        """The map of the last tap."""
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return x

    def start_fresh(self) -> None:
        """Draw the convolutions anew (He's normal initialisation), set their biases to zero, lay all out for speed."""
        for module in self.modules():
            if not isinstance(module, nn.Conv2d):
                continue
            # Drawing numbers that are nowhere kept is what counting parameters would spend its time on.
            if not module.weight.is_meta:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            # Channels last, weights and input: in training on a CPU 1.0 to 1.4 times as fast in float32 and 1.3 to 1.6
            # times in bfloat16, at test time up to twice; and what a GPU's tensor cores want. torch's stub omits the
            # argument.
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


__all__ = ["TORCHVISION_SCALE", "Backbone", "InputScale", "Tap"]
