"""Attention pooling: where it starts, what it sums to, and the poolings it is measured against."""

import pytest
import torch
from torch import Tensor, nn

from twostream.layers.attention import AveragePooling, MaxPooling, SpatiotemporalAttention, weighted_sum


class Beside(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.cat((a, b), 1)


def maps() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(2)
    return torch.rand(2, 5, 3, 4, generator=g), torch.rand(2, 6, 3, 4, generator=g)


def attention() -> SpatiotemporalAttention:
    torch.manual_seed(0)
    return SpatiotemporalAttention(Beside(), 11, hidden=7)


def test_begins_as_the_average() -> None:
    appearance, motion = maps()
    layer = attention()
    assert torch.equal(layer.weights(appearance, motion), torch.full((2, 3, 4), 1 / 12))
    torch.testing.assert_close(layer(appearance, motion), appearance.mean((2, 3)))
    layer(appearance, motion).sum().backward()
    assert layer.score.weight.grad is not None
    assert layer.score.weight.grad.abs().sum() > 0, "or it would never leave the average"


def test_weights_sum_to_one_and_follow_both_maps() -> None:
    layer = attention()
    nn.init.normal_(layer.score.weight)
    for scale in (1.0, 1e4):
        appearance, motion = (scale * x for x in maps())
        weights = layer.weights(appearance, motion)
        assert weights.shape == (2, 3, 4)
        assert (weights >= 0).all()
        torch.testing.assert_close(weights.sum((1, 2)), torch.ones(2))
    appearance, motion = maps()
    weights = layer.weights(appearance, motion)
    assert not torch.allclose(weights, layer.weights(appearance, motion.flip(3)))
    assert not torch.allclose(weights, layer.weights(appearance.flip(3), motion))
    wanted = torch.einsum("bchw,bhw->bc", appearance, weights)
    torch.testing.assert_close(layer(appearance, motion), wanted)
    torch.testing.assert_close(weighted_sum(appearance, weights), wanted)


def test_one_hot_weights_pick_a_place() -> None:
    """A softmax over channels instead of places would give every place the weight 1."""
    appearance, motion = maps()
    layer = attention()
    with torch.no_grad():
        layer.reduce.weight.zero_()
        layer.reduce.weight[0, 5] = 1000.0
        layer.score.weight.fill_(1000.0)
    place = motion[:, 0].flatten(1).argmax(1)
    wanted = torch.stack([appearance[b].flatten(1)[:, place[b]] for b in range(2)])
    torch.testing.assert_close(layer(appearance, motion), wanted)


def test_under_autocast() -> None:
    appearance, motion = maps()
    layer = attention()
    nn.init.normal_(layer.score.weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled = layer(appearance, motion)
    torch.testing.assert_close(pooled.float(), layer(appearance, motion), rtol=0.05, atol=0.05)


@pytest.mark.parametrize(("layer", "pool"), [(AveragePooling(), Tensor.mean), (MaxPooling(), Tensor.amax)])
def test_plain_poolings(layer: nn.Module, pool: object) -> None:
    appearance, motion = maps()
    assert callable(pool)
    assert torch.equal(layer(appearance, motion), pool(appearance, (2, 3)))
    weights = layer.weights(appearance, motion)
    torch.testing.assert_close(weights.sum((1, 2)), torch.ones(2))
    if isinstance(layer, MaxPooling):
        where = appearance[1].flatten(1).argmax(1)
        wanted = torch.bincount(where, minlength=12).reshape(3, 4) / 5
        torch.testing.assert_close(weights[1], wanted)
