"""VGG-16 as a backbone, up to its last pooling."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from twostream.errors import UsageError
from twostream.models.backbone import TORCHVISION_SCALE, Backbone, Tap

# Blocks of (channels over width, convolutions), each ended by a pooling.
BLOCKS: tuple[tuple[int, int], ...] = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))


class VGG16(Backbone):
    """VGG-16's thirteen convolutions, ``pool5`` included: 512x7x7 at 224.

    Its three fully connected layers (nine tenths of its 138 M parameters, and bound to 224 px) are left out; the
    models here take the mean over space, so any size will do. Parameters are named as in torchvision
    (``features.0.weight``), so that published files load as they are.

    Args:
        in_channels: 3 for frames, 2 L for flow.
        width: channels of the first block; 64 as published. The others have 2, 4, 8 and 8 times as many.
        batch_norm: a batch norm after every convolution (torchvision's vgg16_bn). From scratch the plain network is
            hard to train.

    Raises:
        UsageError: a width below 1.

    Reference: Simonyan and Zisserman, Very Deep Convolutional Networks, ICLR 2015, table 1, configuration D.
    """

    first_layer: ClassVar[str] = "features.0.weight"

    def __init__(self, *, in_channels: int = 3, width: int = 64, batch_norm: bool = False) -> None:
        super().__init__()
        if width < 1:
            raise UsageError(f"width is the number of channels of the first block, at least 1, got {width}")
        self.identity = ("vgg16_bn" if batch_norm else "vgg16") + ("" if width == 64 else f"-width{width}")
        self.in_channels = in_channels
        self.scale = TORCHVISION_SCALE
        layers: list[nn.Module] = []
        taps: list[Tap] = []
        ends = [0]
        channels = in_channels
        for index, (factor, count) in enumerate(BLOCKS, 1):
            for _ in range(count):
                layers.append(nn.Conv2d(channels, factor * width, 3, padding=1))
                channels = factor * width
                if batch_norm:
                    layers.append(nn.BatchNorm2d(channels))
                layers.append(nn.ReLU(inplace=True))
            layers.append(nn.MaxPool2d(2, 2))
            ends.append(len(layers))
            taps.append(Tap("stem" if index == 1 else f"pool{index}", channels, 1 << index))
        self.features = nn.Sequential(*layers)
        self.taps = tuple(taps)
        self._ends = tuple(ends)
        self.start_fresh()

    def stem(self, x: Tensor) -> Tensor:
        """The first block: half the size."""
        x = x.contiguous(memory_format=torch.channels_last)
        out: Tensor = self._block(0)(x)
        return out

    @property
    def stages(self) -> tuple[nn.Sequential, ...]:
        """The blocks up to pool2, pool3, pool4 and pool5."""
        return tuple(self._block(index) for index in range(1, len(BLOCKS)))

    def _block(self, index: int) -> nn.Sequential:
        return nn.Sequential(*list(self.features)[self._ends[index] : self._ends[index + 1]])


__all__ = ["BLOCKS", "VGG16"]
