"""From weights of an image network to those of a network with other inputs; dict to dict."""

from collections.abc import Mapping

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


__all__ = ["first_layer"]
