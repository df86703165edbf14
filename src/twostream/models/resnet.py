"""ResNet-18/34/50/101/152 as a backbone, in torchvision's layout and in the Caffe/MSRA one of the papers."""

from collections.abc import Callable
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from twostream.errors import UsageError
from twostream.models.backbone import TORCHVISION_SCALE, Backbone, InputScale, Tap

Layout = Literal["torchvision", "caffe"]

# Depth -> residual units per stage; 50 and deeper are made of bottlenecks.
DEPTHS: dict[int, tuple[int, int, int, int]] = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


# MSRA's channel means; neither colours nor flow are divided.
CAFFE_SCALE = InputScale((123.15163084, 115.90288257, 103.0626238), (1.0, 1.0, 1.0), 128.0, 1.0)


class ResidualUnit(nn.Module):
    """relu(shortcut(x) + residual(x)), with both the sum and the residual branch's input open to the outside.

    A connection from another stream enters as ``residual_input``: the branch then reads that instead of ``x``, while
    the shortcut keeps ``x``. The value before the last ReLU is :meth:`add`, after it ``unit(x)``::

        s = unit.add(x)                                   # pre-ReLU
        x = relu(s)                                       # what unit(x) returns
        x = next_unit(x, residual_input=s + motion)       # injected into the branch only

    ``steps`` is T for units that look over time: images t of a clip follow each other in the batch (B T, C, H, W). The
    units of this file judge every image alone.

    The sum is never overwritten: an in-place ReLU would corrupt the value that such a connection takes.

    Reference: He et al., Deep Residual Learning, CVPR 2016, section 3; Feichtenhofer et al., NIPS 2016, section 3.2.
    """

    downsample: nn.Sequential | None

    def shortcut(self, x: Tensor) -> Tensor:
        """The identity, or its projection where the size or the channels change."""
        if self.downsample is None:
            return x
        projected: Tensor = self.downsample(x)
        return projected

    def residual(self, x: Tensor, steps: int = 1) -> Tensor:
        """The branch of convolutions, up to its last batch norm."""
        raise NotImplementedError

    def add(self, x: Tensor, residual_input: Tensor | None = None, *, steps: int = 1) -> Tensor:
        """The sum before the last ReLU."""
        return self.shortcut(x) + self.residual(x if residual_input is None else residual_input, steps)

    def forward(self, x: Tensor, residual_input: Tensor | None = None, *, steps: int = 1) -> Tensor:
        """The unit's output after the last ReLU."""
        return F.relu(self.add(x, residual_input, steps=steps))


class BasicUnit(ResidualUnit):
    """Two 3x3 convolutions, the stride in the first; ResNet-18 and 34. The same in both layouts."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, *, stride: int, layout: Layout) -> None:
        del layout  # there is no 1x1 that the stride could move to
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _projection(in_channels, channels, stride)

    def residual(self, x: Tensor, steps: int = 1) -> Tensor:
        """conv-BN-ReLU, conv-BN."""
        del steps
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out: Tensor = self.bn2(self.conv2(x))
        return out


class BottleneckUnit(ResidualUnit):
    """1x1, 3x3, 1x1 with four times the channels at the end; ResNet-50 and deeper.

    The stride sits in the 3x3 (torchvision) or in the first 1x1 (Caffe). The shapes of all weights agree, so weights
    of one layout load into the other without a complaint and compute something else: see ``weights.catalog``.
    """

    expansion = 4

    def __init__(self, in_channels: int, channels: int, *, stride: int, layout: Layout) -> None:
        super().__init__()
        first, second = (stride, 1) if layout == "caffe" else (1, stride)
        self.conv1 = nn.Conv2d(in_channels, channels, 1, first, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, second, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, channels * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels * self.expansion)
        self.downsample = _projection(in_channels, channels * self.expansion, stride)

    def residual(self, x: Tensor, steps: int = 1) -> Tensor:
        """conv-BN-ReLU, conv-BN-ReLU, conv-BN."""
        del steps
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        out: Tensor = self.bn3(self.conv3(x))
        return out


def _projection(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


# A class of units, or what calls one: (in_channels, channels, stride=, layout=) -> unit.
UnitBuilder = Callable[..., ResidualUnit]


class ResNet(Backbone):
    """A ResNet up to its last stage; parameters are named as in torchvision, so that published files load as they are.

    The layouts differ in four ways: the Caffe one of the papers has the stride in the first 1x1 of a bottleneck, a
    bias in conv1, a first pooling in ceil mode without padding, and inputs that are not divided by a deviation (the
    last is its ``scale``, which the model's InputSpec takes over). ResNet-18 and 34 have no 1x1, and MSRA published
    none: for them ``"caffe"`` means the bias, the pooling and the input range, so that small networks can be compared
    with the papers' large ones in the same frame.

    Args:
        depth: 18, 34, 50, 101 or 152.
        in_channels: 3 for frames, 2 L for flow.
        layout: ``"torchvision"`` or ``"caffe"``.
        width: channels of the stem; 64 as published. The stages have 1, 2, 4, 8 times as many, bottlenecks four
            times that at their end. Half of it suits small data on a CPU.

    Raises:
        UsageError: no such depth or layout, or a width below 1.

    Reference: He et al., Deep Residual Learning, CVPR 2016, table 1.
    """

    def __init__(
        self,
        depth: int,
        *,
        in_channels: int = 3,
        layout: Layout = "torchvision",
        width: int = 64,
        unit_at: Callable[[int, int], UnitBuilder | None] = lambda _stage, _unit: None,
    ) -> None:
        super().__init__()
        if depth not in DEPTHS:
            raise UsageError(f"there is no ResNet-{depth}; known depths: {', '.join(map(str, DEPTHS))}")
        if layout not in get_args(Layout):
            raise UsageError(f"layout is one of {', '.join(get_args(Layout))}, got {layout!r}")
        if width < 1:
            raise UsageError(f"width is the number of channels of the stem, at least 1, got {width}")
        self.identity = f"resnet{depth}" + ("-caffe" if layout == "caffe" else "")
        self.identity += "" if width == 64 else f"-width{width}"
        self.in_channels = in_channels
        self.scale = CAFFE_SCALE if layout == "caffe" else TORCHVISION_SCALE
        self.conv1 = nn.Conv2d(in_channels, width, 7, 2, 3, bias=layout == "caffe")
        self.bn1 = nn.BatchNorm2d(width)
        if layout == "caffe":
            self.maxpool = nn.MaxPool2d(3, 2, padding=0, ceil_mode=True)
        else:
            self.maxpool = nn.MaxPool2d(3, 2, padding=1)

        unit = BottleneckUnit if depth >= 50 else BasicUnit
        taps = [Tap("stem", width, 4)]
        stages = []
        for index, count in enumerate(DEPTHS[depth]):
            channels, stride = width << index, 1 if index == 0 else 2
            out = channels * unit.expansion
            units = [
                (unit_at(index, n) or unit)(
                    out if n else taps[-1].channels, channels, stride=1 if n else stride, layout=layout
                )
                for n in range(count)
            ]
            stages.append(nn.Sequential(*units))
            taps.append(Tap(f"stage{index + 1}", out, taps[-1].stride * stride))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.taps = tuple(taps)

        self.start_fresh()

    def stem(self, x: Tensor) -> Tensor:
        """conv1, BN, ReLU, pooling: a quarter of the size."""
        x = x.contiguous(memory_format=torch.channels_last)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out: Tensor = self.maxpool(x)
        return out

    @property
    def stages(self) -> tuple[nn.Sequential, ...]:
        """conv2_x ... conv5_x, sequences of :class:`ResidualUnit`."""
        return self.layer1, self.layer2, self.layer3, self.layer4

    def units(self, stage: int) -> list[ResidualUnit]:
        """The units of a stage, counted from 0, for a network that connects streams between them."""
        return [cast("ResidualUnit", unit) for unit in self.stages[stage]]


__all__ = ["DEPTHS", "BasicUnit", "BottleneckUnit", "Layout", "ResNet", "ResidualUnit", "UnitBuilder"]
