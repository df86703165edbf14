"""Residual units that look over time: those of ST-ResNet, with filters in a 1x1's place, and of ST-MulNet, with more.

All have stride 1 and keep the channels, so none is a stage's first. Parameters that an image network has too bear its
names, so that its weights are carried over by name.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from twostream.layers.temporal_conv import TemporalConv, TemporalInit
from twostream.models.resnet import Layout, ResidualUnit


class TemporalBottleneck(ResidualUnit):
    """1x1x3, 3x3, 1x1x3: the two dimension mappings of a bottleneck see the steps before and after.

    Each adds two steps to what the unit sees of the clip: four a unit, so 5, 9, 13, 17 steps after the four stages.

    Reference: Feichtenhofer et al., NIPS 2016, section 3.3 and table 1.
    """

    downsample = None

    def __init__(self, in_channels: int, channels: int, *, stride: int, layout: Layout, init: TemporalInit) -> None:
        del stride, layout  # stride 1 has no place to differ
        super().__init__()
        self.conv1 = TemporalConv(in_channels, channels, init=init)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = TemporalConv(channels, in_channels, init=init)
        self.bn3 = nn.BatchNorm2d(in_channels)

    def residual(self, x: Tensor, steps: int = 1) -> Tensor:
        """conv over time-BN-ReLU, conv-BN-ReLU, conv over time-BN."""
        x = F.relu(self.bn1(self.conv1(x, steps)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        out: Tensor = self.bn3(self.conv3(x, steps))
        return out


class TemporalBasic(ResidualUnit):
    """1x1x3 then 3x3, twice: the counterpart of :class:`TemporalBottleneck` for ResNet-18 and 34.

    A basic unit has no 1x1 that could grow in time. To make its 3x3 filters 3x3x3 would triple the unit's cost, and
    the second units are half of ResNet-18; here each 3x3x3 is factored into a filter over time that mixes all channels
    (as the paper's do) and the unit's own 3x3, with neither batch norm nor ReLU between. Started from the identity
    over three at every step, the pair computes exactly what a 3x3x3 filter of W/3 would; it sees the same four steps
    more, the branch's input first (which is where motion arrives), and costs a third of the 3x3 more: 1.14 times the
    multiplications of two 2-D networks for ResNet-18 and 1.08 for ResNet-34, against 1.20 for the paper's ResNet-50.
    """

    downsample = None

    def __init__(self, in_channels: int, channels: int, *, stride: int, layout: Layout, init: TemporalInit) -> None:
        del stride, layout, in_channels
        super().__init__()
        self.temporal1 = TemporalConv(channels, channels, init=init, identity=True)
        self.conv1 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.temporal2 = TemporalConv(channels, channels, init=init, identity=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def residual(self, x: Tensor, steps: int = 1) -> Tensor:
        """conv over time, conv-BN-ReLU, conv over time, conv-BN."""
        x = F.relu(self.bn1(self.conv1(self.temporal1(x, steps))), inplace=True)
        out: Tensor = self.bn2(self.conv2(self.temporal2(x, steps)))
        return out


class MultiplierBottleneck(ResidualUnit):
    """A bottleneck with an extra 1x1x3 convolution, bias and all, between its 3x3's ReLU and its last 1x1.

    Reference: Feichtenhofer et al., Spatiotemporal Multiplier Networks, CVPR 2017, section 3.2; released code.
    """

    downsample = None

    def __init__(self, in_channels: int, channels: int, *, stride: int, layout: Layout, init: TemporalInit) -> None:
        del stride, layout
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.temporal = TemporalConv(channels, channels, init=init, identity=True, bias=True)
        self.conv3 = nn.Conv2d(channels, in_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(in_channels)

    def residual(self, x: Tensor, steps: int = 1) -> Tensor:
        """conv-BN-ReLU, conv-BN-ReLU, conv over time, conv-BN."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        out: Tensor = self.bn3(self.conv3(self.temporal(x, steps)))
        return out


class MultiplierBasic(ResidualUnit):
    """A basic unit with an extra 1x1x3 convolution, bias and all, between its first ReLU and its second 3x3."""

    downsample = None

    def __init__(self, in_channels: int, channels: int, *, stride: int, layout: Layout, init: TemporalInit) -> None:
        del stride, layout, in_channels
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.temporal = TemporalConv(channels, channels, init=init, identity=True, bias=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def residual(self, x: Tensor, steps: int = 1) -> Tensor:
        """conv-BN-ReLU, conv over time, conv-BN."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out: Tensor = self.bn2(self.conv2(self.temporal(x, steps)))
        return out


__all__ = ["MultiplierBasic", "MultiplierBottleneck", "TemporalBasic", "TemporalBottleneck"]
