"""Filters and pooling over time for maps that are folded as (B T, C, H, W): 1x1x3 convolution, maximum over steps."""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from twostream.clip import ShapeError

TemporalInit = Literal["average", "centre", "random"]

TAPS: dict[str, tuple[float, float, float]] = {"average": (1 / 3, 1 / 3, 1 / 3), "centre": (0.0, 1.0, 0.0)}
"""How a 1x1 filter is spread over the steps t-1, t, t+1 at the start; ``"random"`` starts from none."""


class TemporalConv(nn.Module):
    """A 1x1x3 convolution: 1x1 in space, three steps in time, all channels mixed; zeros stand beyond the clip's ends.

    Shapes: (B T, in, H, W) with ``steps`` = T -> (B T, out, H, W). ``weight`` is (out, in, 3, 1, 1), the taps being
    t-1, t, t+1, as a Conv3d's; it is kept with the input channels last in memory.

    Args:
        in_channels, out_channels: of the maps.
        init: ``"average"``: a 1x1 filter over three at every tap; ``"centre"``: the 1x1 filter at t alone, so that the
            layer starts as that 1x1; ``"random"``: drawn for all taps.
        identity: the 1x1 filter to start from is the identity, not a drawn one: for a layer that is put between others
            instead of in a 1x1's place.
        bias: one per output channel, zero at the start.

    Reference: Feichtenhofer et al., NIPS 2016, section 3.3.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        init: TemporalInit = "average",
        identity: bool = False,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.init, self.identity = init, identity
        weight = torch.empty(out_channels, in_channels, 3, 1, 1).contiguous(memory_format=torch.channels_last_3d)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        # Drawing numbers that are nowhere kept is what counting parameters would spend its time on.
        if not self.weight.is_meta:
            self._start()

    def _start(self) -> None:
        if self.init == "random":
            nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
            return
        image = torch.empty(*self.weight.shape[:2], 1, 1)
        nn.init.dirac_(image) if self.identity else nn.init.kaiming_normal_(image, mode="fan_out", nonlinearity="relu")
        with torch.no_grad():
            self.weight.copy_(image.unsqueeze(2) * torch.tensor(TAPS[self.init]).view(3, 1, 1))

    def forward(self, x: Tensor, steps: int) -> Tensor:
        """Filter clips of ``steps`` maps each."""
        return temporal_conv(x, self.weight, self.bias, steps=steps)

    def extra_repr(self) -> str:
        """Channels, as torch's own convolutions show them."""
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}, bias={self.bias is not None}"


def temporal_conv(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, steps: int) -> Tensor:
    """Three 1x1 products over shifted steps: what ``conv3d`` with padding (1, 0, 0) computes, at three 1x1s' cost.

    The stock 3-D convolution took 2 to 11 times the time of the 1x1 it replaces, forward, and up to 8 in training, on
    the CPU that this was written on. Channels-last memory already is an image of T rows and H W columns, and over that
    it is an ordinary 2-D convolution of 3x1: some 2.6 times a 1x1 in float32. On a CPU the gradient of its weights is
    that of three 1x1s instead, because the stock one takes 3 to 8 times as long. In bfloat16 matrix products on rows
    are the faster way for all of it, those of the neighbours added in place, so that nothing is copied or padded.

    Shapes: ``x`` (B T, in, H, W), ``weight`` (out, in, 3, 1, 1), ``bias`` (out,) -> (B T, out, H, W), channels last.

    Raises:
        ShapeError: the number of maps is no multiple of ``steps``.
    """
    N, _, H, W = x.shape
    rows = _clips(x, steps)  # (B, T, H W, in)
    if x.device.type == "cpu" and not torch.compiler.is_exporting():
        if torch.is_autocast_enabled("cpu"):
            kind = torch.get_autocast_dtype("cpu")
            rows, weight = rows.to(kind), weight.to(kind)
        weight = weight.flatten(2).movedim(2, 1)  # (out, 3, in)
        y: Tensor = _ShiftedProducts.apply(rows.flatten(1, 2), weight, H * W)  # type: ignore[no-untyped-call]
        if bias is not None:
            y = y + bias.to(y.dtype)
    else:
        y = F.conv2d(rows.permute(0, 3, 1, 2), weight.squeeze(-1), bias, padding=(1, 0)).permute(0, 2, 3, 1)
    return y.reshape(N, H, W, -1).permute(0, 3, 1, 2)


def temporal_max_pool(x: Tensor, *, steps: int, size: int, stride: int) -> Tensor:
    """The largest value of every ``size`` steps, every ``stride`` steps, cell by cell; windows stay within the clip.

    Shapes: (B T, C, H, W) with T = ``steps`` -> (B T', C, H, W), T' = :func:`pooled_steps`.

    Raises:
        ShapeError: fewer steps than ``size``, or a number of maps that is no multiple of ``steps``.

    Reference: Feichtenhofer et al., NIPS 2016, section 3.4.
    """
    _, C, H, W = x.shape
    pooled_steps(steps, size=size, stride=stride)
    image = _clips(x, steps).permute(0, 3, 1, 2)  # (B, C, T, H W)
    y = F.max_pool2d(image, (size, 1), (stride, 1)).permute(0, 2, 3, 1)  # (B, T', H W, C)
    return y.reshape(-1, H, W, C).permute(0, 3, 1, 2)


def pooled_steps(steps: int, *, size: int, stride: int) -> int:
    """T', the steps that a pooling without padding leaves: 4 of 11 and 11 of 25 for size 5, stride 2.

    Raises:
        ShapeError: fewer steps than ``size``.
    """
    if steps < size:
        raise ShapeError(
            f"the clip has T={steps} steps, but the temporal pooling needs at least {size}; "
            "show longer clips, or build the network with temporal_pool=None"
        )
    return (steps - size) // stride + 1


def _clips(x: Tensor, steps: int) -> Tensor:
    """(B T, C, H, W) -> (B, T, H W, C); a view where ``x`` is channels last."""
    N, C, H, W = x.shape
    if steps < 1 or N % steps:
        raise ShapeError(f"{N} maps are no whole number of clips of {steps} steps")
    return x.permute(0, 2, 3, 1).reshape(N // steps, steps, H * W, C)


class _ShiftedProducts(torch.autograd.Function):
    """rows (B, R, in), weight (out, 3, in), shift -> (B, R, out): row r takes rows r - shift, r and r + shift."""

    @staticmethod
    def forward(rows: Tensor, weight: Tensor, shift: int) -> Tensor:
        return _products(rows, (weight[:, 0].t(), weight[:, 1].t(), weight[:, 2].t()), shift)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
        del output
        rows, weight, ctx.shift = inputs
        ctx.save_for_backward(rows, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        rows, weight = ctx.saved_tensors
        shift: int = ctx.shift
        by_rows = by_weight = None
        grad = grad.contiguous()
        if ctx.needs_input_grad[0]:
            # What row r gave to its neighbours comes back from them: the taps change places.
            by_rows = _products(grad, (weight[:, 2], weight[:, 1], weight[:, 0]), shift)
        if ctx.needs_input_grad[1]:
            by_weight = torch.zeros_like(weight)
            by_weight[:, 1] += _filter_gradient(grad.flatten(0, 1), rows.flatten(0, 1), weight[:, 1], shift)
            if rows.shape[1] > shift:
                for b in range(len(rows)):
                    by_weight[:, 0] += _filter_gradient(grad[b, shift:], rows[b, :-shift], weight[:, 0], shift)
                    by_weight[:, 2] += _filter_gradient(grad[b, :-shift], rows[b, shift:], weight[:, 2], shift)
        return by_rows, by_weight, None


def _products(rows: Tensor, taps: tuple[Tensor, Tensor, Tensor], shift: int) -> Tensor:
    before, centre, after = taps
    B, R, _ = rows.shape
    if rows.dtype == torch.float32:
        # torch's convolutions and its matrix products come from different libraries: on an AMD EPYC the products took
        # 2.3 times as long, on an Intel Xeon the same.
        image = rows.reshape(B, R // shift, shift, -1).permute(0, 3, 1, 2)  # (B, in, T, H W)
        weight = torch.stack([tap.t() for tap in taps], dim=1).permute(0, 2, 1).unsqueeze(-1)  # (out, in, 3, 1)
        if torch.is_grad_enabled():
            # Within a gradient that is differentiated again. One of the library's ways, taken for few and small maps,
            # then wants filters in torch's own order.
            weight = weight.contiguous()
        return F.conv2d(image, weight, padding=(1, 0)).permute(0, 2, 3, 1).reshape(B, R, -1)
    out = (rows.flatten(0, 1) @ centre).reshape(B, R, -1)
    # Clip by clip: a clip's last step must not meet the next one's first. (baddbmm would take all clips at once, but
    # is slow in bfloat16.)
    for b in range(B):
        out[b, shift:].addmm_(rows[b, :-shift], before)
        out[b, :-shift].addmm_(rows[b, shift:], after)
    return out


def _filter_gradient(grad: Tensor, rows: Tensor, filters: Tensor, shift: int) -> Tensor:
    """What (R, out) and (R, in) give to 1x1 filters (out, in)."""
    if rows.dtype != torch.float32:
        return grad.t() @ rows
    # As the gradient of the 1x1 whose place the filter takes: by the library that serves that.
    by_map, maps = (x.reshape(-1, shift, 1, x.shape[1]).permute(0, 3, 1, 2) for x in (grad, rows))  # (T, C, H W, 1)
    wanted = [False, True, False]
    found: Tensor = torch.ops.aten.convolution_backward(
        by_map, maps, filters[:, :, None, None], None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, wanted
    )[1]
    return found[:, :, 0, 0]


__all__ = ["TAPS", "TemporalConv", "TemporalInit", "pooled_steps", "temporal_conv", "temporal_max_pool"]
