"""Pooling a map over its locations by weights that say where to look."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SpatiotemporalAttention(nn.Module):
    """Appearance pooled where appearance and motion together say: fusion, two 1x1 convolutions, softmax, weighted sum.

    Begins as the plain average: the last convolution is zero. It has no bias, which the softmax would cancel.

    Shapes: appearance (B, C, H, W) and motion (B, C', H, W) -> (B, C).

    Args:
        fusion: makes one map (B, channels, H, W) of both.
        channels: of that map.
        hidden: channels between the convolutions.

    Reference: Wang et al., Spatiotemporal Pyramid Network, CVPR 2017, architecture figure; the sizes of the
    convolutions are open (papers' sheet, G6).
    """

    def __init__(self, fusion: nn.Module, channels: int, *, hidden: int) -> None:
        super().__init__()
        self.fusion = fusion
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.score = nn.Conv2d(hidden, 1, 1, bias=False)
        nn.init.kaiming_normal_(self.reduce.weight, nonlinearity="relu")
        assert self.reduce.bias is not None
        nn.init.zeros_(self.reduce.bias)
        nn.init.zeros_(self.score.weight)

    def weights(self, appearance: Tensor, motion: Tensor) -> Tensor:
        """(B, H, W), summing to 1 over H and W."""
        joint = self.fusion(appearance, motion)  # (B, channels, H, W)
        energy = self.score(F.relu(self.reduce(joint)))  # (B, 1, H, W)
        # Under autocast the weights of thousands of places would be rounded away.
        precise = torch.promote_types(energy.dtype, torch.float32)
        weights: Tensor = energy.flatten(1).softmax(1, dtype=precise)
        return weights.reshape(len(joint), *joint.shape[2:])

    def forward(self, appearance: Tensor, motion: Tensor) -> Tensor:
        """The weighted sum of the appearance map."""
        return weighted_sum(appearance, self.weights(appearance, motion))


class AveragePooling(nn.Module):
    """The same everywhere: what attention is measured against. Shapes as :class:`SpatiotemporalAttention`."""

    def weights(self, appearance: Tensor, motion: Tensor) -> Tensor:
        """(B, H, W) of 1 / (H W)."""
        del motion
        B, _, H, W = appearance.shape
        return appearance.new_full((B, H, W), 1 / (H * W))

    def forward(self, appearance: Tensor, motion: Tensor) -> Tensor:
        """The mean over the locations."""
        del motion
        return appearance.mean((2, 3))


class MaxPooling(nn.Module):
    """Every channel where it is largest. Shapes as :class:`SpatiotemporalAttention`."""

    def weights(self, appearance: Tensor, motion: Tensor) -> Tensor:
        """(B, H, W): the share of channels whose maximum lies there."""
        del motion
        B, C, H, W = appearance.shape
        places = appearance.flatten(2).argmax(2)  # (B, C)
        shares = appearance.new_zeros(B, H * W)
        return shares.scatter_add_(1, places, torch.full_like(places, 1 / C, dtype=shares.dtype)).reshape(B, H, W)

    def forward(self, appearance: Tensor, motion: Tensor) -> Tensor:
        """The maximum over the locations."""
        del motion
        return appearance.amax((2, 3))


def weighted_sum(x: Tensor, weights: Tensor) -> Tensor:
    """(B, C, H, W) and (B, H, W) -> (B, C)."""
    return (x * weights[:, None]).sum((2, 3))


__all__ = ["AveragePooling", "MaxPooling", "SpatiotemporalAttention", "weighted_sum"]
