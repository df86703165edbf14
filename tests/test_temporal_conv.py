"""Filters and pooling over time, against torch's 3-D convolution and plain loops."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from twostream.clip import ShapeError
from twostream.layers.temporal_conv import (
    TemporalConv,
    TemporalInit,
    pooled_steps,
    temporal_conv,
    temporal_max_pool,
)


def unfolded(x: Tensor, T: int) -> Tensor:
    """(B T, C, H, W) -> (B, C, T, H, W)."""
    return x.unflatten(0, (-1, T)).transpose(1, 2)


def folded(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(0, 1)


def stock(x: Tensor, weight: Tensor, bias: Tensor | None, T: int) -> Tensor:
    return folded(F.conv3d(unfolded(x, T), weight, bias, padding=(1, 0, 0)))


def inputs(B: int, T: int, H: int, W: int, C: int = 4, D: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(B + 10 * T)
    shapes = ((B * T, C, H, W), (D, C, 3, 1, 1), (D,))
    x, weight, bias = (torch.randn(s, generator=g, dtype=torch.float64).requires_grad_() for s in shapes)
    return x, weight, bias


@pytest.mark.parametrize(("B", "T", "H", "W"), [(1, 5, 3, 4), (3, 4, 2, 2), (2, 1, 3, 2), (1, 2, 1, 1), (2, 11, 1, 3)])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("memory", [torch.channels_last, torch.contiguous_format])
def test_agrees_with_conv3d(B: int, T: int, H: int, W: int, biased: bool, memory: torch.memory_format) -> None:
    x, weight, bias = inputs(B, T, H, W)
    offset = bias if biased else None
    ours = temporal_conv(x.contiguous(memory_format=memory), weight, offset, steps=T)
    theirs = stock(x, weight, offset, T)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    leaves = (x, weight, bias) if biased else (x, weight)
    scale = torch.linspace(-1, 1, ours.numel(), dtype=torch.float64).view_as(ours)
    for got, wanted in zip(
        torch.autograd.grad((ours * scale).sum(), leaves),
        torch.autograd.grad((theirs * scale).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


def test_gradients_of_first_and_second_order() -> None:
    leaves = inputs(2, 3, 1, 2, C=2, D=2)
    assert torch.autograd.gradcheck(lambda *v: temporal_conv(*v, steps=3), leaves)
    assert torch.autograd.gradgradcheck(lambda *v: temporal_conv(*v, steps=3), leaves)


@pytest.mark.parametrize(("B", "T", "H", "W"), [(1, 5, 3, 4), (3, 4, 3, 4), (2, 1, 3, 4), (1, 2, 1, 1), (1, 2, 24, 32)])
def test_float32_takes_another_way_to_the_same(B: int, T: int, H: int, W: int) -> None:
    """By the library of the convolutions: values, gradients, and the gradients of these."""
    leaves = inputs(B, T, H, W, C=6, D=7)
    narrow = [x.detach().float().requires_grad_() for x in leaves]
    found = []
    for x, weight, bias in (leaves, narrow):
        y = temporal_conv(x, weight, bias, steps=T)
        first = torch.autograd.grad(y.sin().sum(), (x, weight, bias), create_graph=True)
        second = torch.autograd.grad(sum(g.cos().sum() for g in first), (x, weight, bias))
        found.append([y, *first, *second])
    for wide, got in zip(*found, strict=True):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got.double(), wide, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_only_the_gradients_that_are_wanted(kind: torch.dtype) -> None:
    x, weight, _ = (v.detach().to(kind).requires_grad_() for v in inputs(1, 4, 2, 2))
    temporal_conv(x.detach(), weight, steps=4).sum().backward()
    assert x.grad is None
    assert weight.grad is not None
    weight.grad = None
    temporal_conv(x, weight.detach(), steps=4).sum().backward()
    assert x.grad is not None
    assert weight.grad is None


def test_autocast_computes_in_bfloat16_and_keeps_gradients_in_float32() -> None:
    x, weight, bias = (v.detach().float().requires_grad_() for v in inputs(2, 5, 2, 3, C=16, D=8))
    with torch.autocast("cpu", torch.bfloat16):
        ours = temporal_conv(x, weight, bias, steps=5)
    assert ours.dtype == torch.bfloat16
    ours.float().square().sum().backward()
    assert x.grad is not None
    assert weight.grad is not None
    assert x.grad.dtype == weight.grad.dtype == torch.float32
    wanted = torch.autograd.grad(stock(x, weight, bias, 5).square().sum(), (x, weight))
    for got, grad in zip((x.grad, weight.grad), wanted, strict=True):
        assert (got - grad).norm() < 0.02 * grad.norm()


# torch's compiler makes one itself to look into it
@pytest.mark.filterwarnings("ignore:.*Function.* should not be instantiated:DeprecationWarning")
def test_exported_and_compiled() -> None:
    x = inputs(2, 3, 2, 4)[0].detach()
    layer = _WithSteps(TemporalConv(4, 6, init="random", bias=True).double(), 3)
    program = torch.export.export(layer, (x,))
    assert "conv2d" in str(program.graph), "exporters get an operator that every runtime knows"
    torch.testing.assert_close(program.module()(x), layer(x), rtol=1e-12, atol=1e-12)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x), rtol=1e-12, atol=1e-12)
    grads = [torch.autograd.grad(f(x).square().sum(), list(layer.parameters())) for f in (compiled, layer)]
    for got, wanted in zip(*grads, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-11, atol=1e-11)


class _WithSteps(torch.nn.Module):
    def __init__(self, layer: TemporalConv, steps: int) -> None:
        super().__init__()
        self.layer, self.steps = layer, steps

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x, self.steps)


@pytest.mark.parametrize("init", ["average", "centre"])
def test_starts_from_a_1x1(init: TemporalInit) -> None:
    torch.manual_seed(0)
    layer = TemporalConv(6, 8, init=init)
    centre = layer.weight[:, :, 1].detach()
    still = torch.randn(1, 6, 2, 2).expand(5, -1, -1, -1)
    with torch.no_grad():
        out = layer(still, 5)
        image = F.conv2d(still, centre * (3 if init == "average" else 1))
    torch.testing.assert_close(out[1:4], image[1:4])
    share = 2 / 3 if init == "average" else 1.0  # zeros stand beyond both ends
    for end in (0, 4):
        torch.testing.assert_close(out[end], image[end] * share)
    if init == "average":
        assert torch.equal(layer.weight[:, :, 0], layer.weight[:, :, 2])
    else:
        assert layer.weight[:, :, [0, 2]].abs().max() == 0
    assert 0.5 < centre.std() * (3 if init == "average" else 1) / (2 / 8) ** 0.5 < 1.5, "He's deviation, fan out"


def test_starts_at_random_or_from_the_identity() -> None:
    torch.manual_seed(0)
    drawn = TemporalConv(32, 32, init="random").weight
    assert abs(drawn.std().item() / (2 / 96) ** 0.5 - 1) < 0.1
    for init, taps in (("average", [1 / 3] * 3), ("centre", [0.0, 1.0, 0.0])):
        layer = TemporalConv(5, 5, init=init, identity=True, bias=True)  # type: ignore[arg-type]
        for tap, value in enumerate(taps):
            assert torch.equal(layer.weight[:, :, tap, 0, 0], torch.eye(5) * value)
        assert layer.bias is not None
        assert layer.bias.abs().max() == 0
    assert repr(TemporalConv(2, 3)) == "TemporalConv(2, 3, bias=False)"


@pytest.mark.parametrize(("T", "size", "stride", "left"), [(11, 5, 2, 4), (25, 5, 2, 11), (5, 5, 2, 1), (6, 3, 1, 4)])
def test_pooling_takes_the_largest_of_whole_windows(T: int, size: int, stride: int, left: int) -> None:
    x = torch.randn(2 * T, 3, 2, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    got = temporal_max_pool(x, steps=T, size=size, stride=stride)
    clips = x.unflatten(0, (2, T))
    wanted = torch.stack([clips[:, s * stride : s * stride + size].amax(1) for s in range(left)], 1).flatten(0, 1)
    assert torch.equal(got, wanted)
    assert pooled_steps(T, size=size, stride=stride) == left


def test_what_cannot_be_is_said() -> None:
    x = torch.zeros(6, 2, 1, 1)
    with pytest.raises(ShapeError, match=r"T=3 steps, but the temporal pooling needs at least 5"):
        temporal_max_pool(x, steps=3, size=5, stride=2)
    with pytest.raises(ShapeError, match=r"6 maps are no whole number of clips of 4 steps"):
        temporal_conv(x, torch.zeros(2, 2, 3, 1, 1), steps=4)
