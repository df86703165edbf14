"""From weights of an image network to those of a network with other inputs; dict to dict."""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor


def first_layer(state: Mapping[str, Tensor], in_channels: int, *, name: str = "conv1.weight") -> dict[str, Tensor]:
    """A copy of ``state`` whose first layer reads ``in_channels`` flow channels: the mean over colour, repeated.

    Shapes: ``state[name]`` (C, 3, h, w) -> (C, in_channels, h, w). The values are not rescaled, as in the published
    models; the first batch norm takes up the difference.

    Reference: Wang et al., Temporal Segment Networks, ECCV 2016, section 3.2 (cross modality pre-training).
    """
    inflated = dict(state)
    inflated[name] = state[name].mean(1, keepdim=True).repeat(1, in_channels, 1, 1)
    return inflated


def over_time(
    state: Mapping[str, Tensor], names: Collection[str], taps: tuple[float, float, float]
) -> dict[str, Tensor]:
    """A copy of ``state`` in which the 1x1 filters called ``names`` look at the steps t-1, t and t+1.

    Shapes: (out, in, 1, 1) -> (out, in, 3, 1, 1): the same filter at every step, times ``taps``. A third at each is the
    paper's: shown a clip that stands still, the network computes what it did before, away from the clip's ends.

    Reference: Feichtenhofer et al., NIPS 2016, section 3.3.
    """
    inflated = dict(state)
    for name in names:
        weight = state[name]
        inflated[name] = weight.unsqueeze(2) * torch.tensor(taps, dtype=weight.dtype).view(3, 1, 1)
    return inflated


__all__ = ["first_layer", "over_time"]
