"""BN-Inception as a backbone: GoogLeNet with batch norm, as TSN and the spatiotemporal pyramid build on it."""

from collections import OrderedDict
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from twostream.errors import UsageError
from twostream.models.backbone import Backbone, InputScale, Tap


class Row(NamedTuple):
    """One inception unit: the channels of each layer (0: there is none), what its fourth branch pools by, its stride.

    The branches, in the order of their channels in the output: 1x1; 1x1 then 3x3; 1x1 then twice 3x3; pooling then
    1x1. A unit of stride 2 has the stride in the last 3x3 of each branch and in the pooling.
    """

    name: str
    one: int
    three_reduce: int
    three: int
    double_reduce: int
    double: int
    pool: Literal["average", "max"]
    project: int
    stride: int

    def scaled(self, width: int) -> "Row":
        """The same unit with ``width`` channels for each 64."""
        channels = ("one", "three_reduce", "three", "double_reduce", "double", "project")
        return self._replace(**{name: getattr(self, name) * width // 64 for name in channels})


# fmt: off
UNITS: tuple[Row, ...] = (
    #        1x1  |   3x3   | double 3x3 |   pooling    | stride
    Row("3a",  64,   64,  64,    64,  96, "average",  32, 1),
    Row("3b",  64,   64,  96,    64,  96, "average",  64, 1),
    Row("3c",   0,  128, 160,    64,  96, "max",       0, 2),
    Row("4a", 224,   64,  96,    96, 128, "average", 128, 1),
    Row("4b", 192,   96, 128,    96, 128, "average", 128, 1),
    Row("4c", 160,  128, 160,   128, 160, "average", 128, 1),
    Row("4d",  96,  128, 192,   160, 192, "average", 128, 1),
    Row("4e",   0,  128, 192,   192, 256, "max",       0, 2),
    Row("5a", 352,  192, 320,   160, 224, "average", 128, 1),
    Row("5b", 352,  192, 320,   192, 224, "max",     128, 1),
)
# fmt: on

# Caffe's: the channel means of ImageNet, rounded; neither colours nor flow are divided.
SCALE = InputScale((123.0, 117.0, 104.0), (1.0, 1.0, 1.0), 128.0, 1.0)


class ConvUnit(nn.Module):
    """Convolution, batch norm, ReLU; with the bias that the published one has, though the norm undoes it."""

    def __init__(self, in_channels: int, channels: int, kernel: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """The activated map."""
        return F.relu(self.bn(self.conv(x)), inplace=True)


class HalvingPool(nn.Module):
    """3x3 maximum of stride 2 beside 3x3 convolutions of stride 2 and padding 1.

    At an even size this is Caffe's, whose last window may hang over the edge. At an odd size Caffe's gives one row
    less than the convolutions, and the branches could not be joined; here the last row gets a window of its own.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> half the size, rounded up."""
        H, W = x.shape[-2:]
        x = F.pad(x, (0, W % 2, 0, H % 2), value=float("-inf"))
        return F.max_pool2d(x, 3, 2, ceil_mode=True)


class InceptionUnit(nn.ModuleDict):
    """Four branches side by side, three where a row has no 1x1; its layers are called as in the published file."""

    def __init__(self, in_channels: int, row: Row) -> None:
        super().__init__()
        if row.one:
            self["1x1"] = ConvUnit(in_channels, row.one, 1)
        self["3x3_reduce"] = ConvUnit(in_channels, row.three_reduce, 1)
        self["3x3"] = ConvUnit(row.three_reduce, row.three, 3, stride=row.stride)
        self["double_3x3_reduce"] = ConvUnit(in_channels, row.double_reduce, 1)
        self["double_3x3_1"] = ConvUnit(row.double_reduce, row.double, 3)
        self["double_3x3_2"] = ConvUnit(row.double, row.double, 3, stride=row.stride)
        if row.stride == 2:
            self["pool"] = HalvingPool()
        else:
            self["pool"] = nn.AvgPool2d(3, 1, 1) if row.pool == "average" else nn.MaxPool2d(3, 1, 1)
        if row.project:
            self["pool_proj"] = ConvUnit(in_channels, row.project, 1)
        self.out_channels = row.one + row.three + row.double + (row.project or in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """The branches' maps, joined along the channels."""
        maps = [self["1x1"](x)] if "1x1" in self else []
        maps.append(self["3x3"](self["3x3_reduce"](x)))
        maps.append(self["double_3x3_2"](self["double_3x3_1"](self["double_3x3_reduce"](x))))
        pooled = self["pool"](x)
        maps.append(self["pool_proj"](pooled) if "pool_proj" in self else pooled)
        return torch.cat(maps, 1)


class BNInception(Backbone):
    """BN-Inception up to ``inception_5b``, 1024x7x7 at 224; the classifier is left to the model.

    Args:
        in_channels: 3 for frames, 2 L for flow.
        width: channels of the stem's first convolution; 64 as published. All others follow in proportion.

    Raises:
        UsageError: a width that is odd or below 2.

    Reference: Ioffe and Szegedy, Batch Normalization, ICML 2015, figure 5; the channels of 3a to 5b as in the models
    published with Temporal Segment Networks (Wang et al., ECCV 2016), which STPN's figure shows.
    """

    first_layer: ClassVar[str] = "conv1_7x7_s2.conv.weight"

    def __init__(self, *, in_channels: int = 3, width: int = 64) -> None:
        super().__init__()
        if width < 2 or width % 2:
            raise UsageError(
                f"width is the number of channels of BN-Inception's stem, an even number of at least 2 (all channels "
                f"are multiples of half of it), got {width}"
            )
        self.identity = "bn_inception" + ("" if width == 64 else f"-width{width}")
        self.in_channels = in_channels
        self.scale = SCALE
        self.conv1_7x7_s2 = ConvUnit(in_channels, width, 7, stride=2)
        self.conv2_3x3_reduce = ConvUnit(width, width, 1)
        self.conv2_3x3 = ConvUnit(width, 3 * width, 3)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)

        taps = [Tap("stem", 3 * width, 8)]
        stages = []
        for number, stride in (("3", 16), ("4", 32), ("5", 32)):
            units: OrderedDict[str, nn.Module] = OrderedDict()
            channels = taps[-1].channels
            for row in UNITS:
                if row.name.startswith(number):
                    unit = InceptionUnit(channels, row.scaled(width))
                    units[row.name[1]], channels = unit, unit.out_channels
            stages.append(nn.Sequential(units))
            taps.append(Tap(f"inception_{number}{next(reversed(units))}", channels, stride))
        self.inception_3, self.inception_4, self.inception_5 = stages
        self.taps = tuple(taps)
        self.start_fresh()

    def stem(self, x: Tensor) -> Tensor:
        """Two rounds of convolution and pooling: an eighth of the size."""
        x = x.contiguous(memory_format=torch.channels_last)
        x = self.pool(self.conv1_7x7_s2(x))
        out: Tensor = self.pool(self.conv2_3x3(self.conv2_3x3_reduce(x)))
        return out

    @property
    def stages(self) -> tuple[nn.Sequential, ...]:
        """3a to 3c, 4a to 4e, 5a and 5b, sequences of :class:`InceptionUnit`; 3c and 4e halve the size."""
        return self.inception_3, self.inception_4, self.inception_5


__all__ = ["SCALE", "UNITS", "BNInception", "ConvUnit", "InceptionUnit", "Row"]
