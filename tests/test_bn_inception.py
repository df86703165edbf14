"""BN-Inception against a second implementation, over tensors with the published names, from the published layers."""

import math
import re
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from twostream.errors import UsageError
from twostream.models.bn_inception import BNInception
from twostream.models.registry import create_model
from twostream.weights.convert import to_backbone
from twostream.weights.strict import load_strict

# The layers of models/ucf101/tsn_bn_inception_rgb_deploy.prototxt (yjxiong/temporal-segment-networks), as
# bn_inception.yaml of the PyTorch port calls them; "/2" is a stride.
LAYERS = """
3a: 1x1 64, 3x3_reduce 64, 3x3 64, double_3x3_reduce 64, double_3x3_1 96, double_3x3_2 96, pool ave, pool_proj 32
3b: 1x1 64, 3x3_reduce 64, 3x3 96, double_3x3_reduce 64, double_3x3_1 96, double_3x3_2 96, pool ave, pool_proj 64
3c: 3x3_reduce 128, 3x3 160/2, double_3x3_reduce 64, double_3x3_1 96, double_3x3_2 96/2, pool max/2
4a: 1x1 224, 3x3_reduce 64, 3x3 96, double_3x3_reduce 96, double_3x3_1 128, double_3x3_2 128, pool ave, pool_proj 128
4b: 1x1 192, 3x3_reduce 96, 3x3 128, double_3x3_reduce 96, double_3x3_1 128, double_3x3_2 128, pool ave, pool_proj 128
4c: 1x1 160, 3x3_reduce 128, 3x3 160, double_3x3_reduce 128, double_3x3_1 160, double_3x3_2 160, pool ave, pool_proj 128
4d: 1x1 96, 3x3_reduce 128, 3x3 192, double_3x3_reduce 160, double_3x3_1 192, double_3x3_2 192, pool ave, pool_proj 128
4e: 3x3_reduce 128, 3x3 192/2, double_3x3_reduce 192, double_3x3_1 256, double_3x3_2 256/2, pool max/2
5a: 1x1 352, 3x3_reduce 192, 3x3 320, double_3x3_reduce 160, double_3x3_1 224, double_3x3_2 224, pool ave, pool_proj 128
5b: 1x1 352, 3x3_reduce 192, 3x3 320, double_3x3_reduce 192, double_3x3_1 224, double_3x3_2 224, pool max, pool_proj 128
"""
STEM = {"conv1_7x7_s2": (3, 64, 7), "conv2_3x3_reduce": (64, 64, 1), "conv2_3x3": (64, 192, 3)}
# What each layer of a unit reads where that is not the unit's input.
READS = {"3x3": "3x3_reduce", "double_3x3_1": "double_3x3_reduce", "double_3x3_2": "double_3x3_1", "pool_proj": "pool"}
JOINED = ("1x1", "3x3", "double_3x3_2", "pool_proj")


def units() -> Iterator[tuple[str, dict[str, tuple[str, int]]]]:
    """(name, {layer: (channels or kind of pooling, stride)})."""
    for line in LAYERS.strip().splitlines():
        name, layers = line.split(": ")
        entries = [re.fullmatch(r"(\S+) (\w+)(?:/(\d))?", layer) for layer in layers.split(", ")]
        yield name, {m[1]: (m[2], int(m[3] or 1)) for m in entries if m}


def filters() -> dict[str, tuple[int, int, int]]:
    """Every convolution by its published name: (channels in, channels out, kernel)."""
    found = dict(STEM)
    channels = 192
    for name, layers in units():
        sizes = {layer: int(what) for layer, (what, _) in layers.items() if layer != "pool"}
        for layer, size in sizes.items():
            source = sizes.get(READS.get(layer, ""), channels)
            found[f"inception_{name}_{layer}"] = (source, size, 3 if re.search("3x3(_[12])?$", layer) else 1)
        channels = sum(sizes.get(layer, channels if layer == "pool_proj" else 0) for layer in JOINED)
    return found


def published(in_channels: int = 3, share: int = 1) -> dict[str, Tensor]:
    """Random weights of about unit gain under the published names; with 1/share of the channels."""
    g = torch.Generator().manual_seed(4)
    state: dict[str, Tensor] = {}
    for name, (source, channels, kernel) in filters().items():
        source = in_channels if name == "conv1_7x7_s2" else source // share
        channels //= share
        filter_ = torch.randn(channels, source, kernel, kernel, dtype=torch.float64, generator=g)
        state[f"{name}.weight"] = filter_ * (2 / (source * kernel**2)) ** 0.5
        state[f"{name}.bias"] = torch.randn(channels, dtype=torch.float64, generator=g) * 0.3
        for part, low in (("weight", 0.5), ("bias", -0.5), ("running_mean", -0.5), ("running_var", 0.5)):
            state[f"{name}_bn.{part}"] = low + torch.rand(1, channels, dtype=torch.float64, generator=g)
    return state


def layer(s: dict[str, Tensor], name: str, x: Tensor, stride: int = 1) -> Tensor:
    """Convolution, batch norm with 1e-5, ReLU."""
    kernel = s[f"{name}.weight"].shape[-1]
    x = F.conv2d(x, s[f"{name}.weight"], s[f"{name}.bias"], stride, kernel // 2)
    weight, bias, mean, var = (
        s[f"{name}_bn.{part}"].reshape(-1, 1, 1) for part in ("weight", "bias", "running_mean", "running_var")
    )
    return ((x - mean) / (var + 1e-5).sqrt() * weight + bias).clamp_min(0)


def halved(x: Tensor, *, caffe: bool) -> Tensor:
    """3x3 maxima at 0, 2, 4 ...: Caffe's windows stop when one reaches the edge, the others go on to the last row."""
    rows, columns = (-(-(n - 3) // 2) + 1 if caffe else -(-n // 2) for n in x.shape[-2:])
    out = x.new_empty(*x.shape[:2], rows, columns)
    for i in range(rows):
        for j in range(columns):
            out[:, :, i, j] = x[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].amax((2, 3))
    return out


def pooled(x: Tensor, kind: str, stride: int) -> Tensor:
    if stride == 2:
        if not any(n % 2 for n in x.shape[-2:]):
            assert torch.equal(halved(x, caffe=True), halved(x, caffe=False))
        return halved(x, caffe=False)
    H, W = x.shape[-2:]
    edge = F.pad(x, (1, 1, 1, 1), value=0.0 if kind == "ave" else -torch.inf)
    windows = torch.stack([edge[..., i : i + H, j : j + W] for i in range(3) for j in range(3)])
    return windows.sum(0) / 9 if kind == "ave" else windows.amax(0)  # Caffe counts the padding


def reference(s: dict[str, Tensor], x: Tensor) -> dict[str, Tensor]:
    """The output of the stem and of every unit in test mode."""
    x = halved(layer(s, "conv1_7x7_s2", x, 2), caffe=True)
    x = halved(layer(s, "conv2_3x3", layer(s, "conv2_3x3_reduce", x)), caffe=True)
    out = {"stem": x}
    for name, layers in units():
        maps: dict[str, Tensor] = {}
        for which, (what, stride) in layers.items():
            source = maps.get(READS.get(which, ""), x)
            if which == "pool":
                maps[which] = pooled(source, what, stride)
            else:
                maps[which] = layer(s, f"inception_{name}_{which}", source, stride)
        maps.setdefault("pool_proj", maps["pool"])
        x = torch.cat([maps[which] for which in JOINED if which in maps], 1)
        out[f"inception_{name}"] = x
    return out


def loaded(state: dict[str, Tensor], **numbers: int) -> BNInception:
    network = BNInception(**numbers).double().eval()
    load_strict(network, to_backbone(state, network.identity), source="published")
    return network


@pytest.mark.parametrize(
    ("share", "size"),
    [(1, (64, 96)), (2, (112, 75)), (2, (53, 97))],  # even maps all the way; 7 and 5, 9 and 5 ... rows to halve
)
def test_agrees_with_a_second_implementation_at_every_unit(share: int, size: tuple[int, int]) -> None:
    state = published(share=share)
    network = loaded(state, width=64 // share)
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        theirs = reference(state, x.flip(1))  # theirs is shown blue, green, red
        y = network.stem(x)
        ours = {"stem": y}
        for number, stage in zip("345", network.stages, strict=True):
            for letter, unit in stage.named_children():
                y = unit(y)
                ours[f"inception_{number}{letter}"] = y
        assert list(ours) == list(theirs)
        for name, expected in theirs.items():
            assert ours[name].shape == expected.shape, name
            assert (ours[name] - expected).abs().max() <= 1e-10 * expected.abs().max(), name
            assert (expected > 0).any()
        assert torch.equal(network(x), y)
        for tap in network.taps:
            assert tap.channels == ours[tap.name].shape[1]


def test_the_flow_network_has_twenty_channels_and_no_colours_to_turn_round() -> None:
    state = published(in_channels=20, share=4)
    network = loaded(state, in_channels=20, width=16)
    x = torch.randn(2, 20, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        theirs = reference(state, x)["inception_5b"]
        assert (network(x) - theirs).abs().max() <= 1e-10 * theirs.abs().max()


def test_parameter_counts() -> None:
    """From the table, and as imgclsmob (osmr) lists BN-Inception with its 1000 classes: 11,295,240."""
    from_table = sum(source * out * kernel**2 + 3 * out for source, out, kernel in filters().values())
    with torch.device("meta"):
        network, motion = BNInception(), BNInception(in_channels=20)
        half = BNInception(width=32)
    counted = sum(p.numel() for p in network.parameters())
    assert counted == from_table == 11_295_240 - 1025 * 1000 == 10_270_240
    assert sum(p.numel() for p in motion.parameters()) == counted + 17 * 64 * 49
    assert counted / 4 < sum(p.numel() for p in half.parameters()) < counted / 3.9
    assert len(filters()) == sum(isinstance(m, torch.nn.Conv2d) for m in network.modules()) == 69


def test_every_tap_at_224() -> None:
    with torch.device("meta"):
        network = BNInception()
        y = network.stem(torch.empty(1, 3, 224, 224))
        maps = [y := stage(y) for stage in network.stages]
    assert tuple(network.stem(torch.empty(1, 3, 224, 224, device="meta")).shape) == (1, 192, 28, 28)
    assert [tuple(m.shape[1:]) for m in maps] == [(576, 14, 14), (1056, 7, 7), (1024, 7, 7)]
    assert [(t.name, t.channels, t.stride) for t in network.taps] == [
        ("stem", 192, 8), ("inception_3c", 576, 16), ("inception_4e", 1056, 32), ("inception_5b", 1024, 32)
    ]  # fmt: skip
    assert [list(dict(stage.named_children())) for stage in network.stages] == [list("abc"), list("abcde"), list("ab")]


def test_any_size() -> None:
    network = BNInception(width=2).eval()
    with torch.no_grad():
        for size in ((33, 47), (16, 112), (90, 61)):
            y = network(torch.randn(1, 3, *size))
            assert list(y.shape[-2:]) == [math.ceil(((n + 1) // 2) // 2 // 2 / 4) for n in size]


def test_gradients_pass_the_halving_pool_at_an_odd_size() -> None:
    network = BNInception(width=4).double().eval()
    x = torch.randn(1, 3, 40, 56, dtype=torch.float64, requires_grad=True)  # 5x7 before 3c's pooling
    network(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_what_published_weights_expect_reaches_the_models_spec() -> None:
    with torch.device("meta"):
        model = create_model("two_stream_bn_inception", num_classes=5)
    assert (model.spec.rgb_mean, model.spec.rgb_std) == ((123.0, 117.0, 104.0), (1.0, 1.0, 1.0))
    assert (model.spec.flow_mean, model.spec.flow_std) == (128.0, 1.0)


def test_both_streams_start_from_a_published_file() -> None:
    model = create_model("two_stream_bn_inception", num_classes=5, width=32)
    state = published(share=2)
    said = model.load_backbones(to_backbone(state, model.backbone_identity), source="published")
    assert said == "appearance as it is, motion with the first layer averaged over colour and repeated 20 times"
    found, filter_ = model.state_dict(), state["conv1_7x7_s2.weight"].float()
    assert torch.equal(found["appearance.backbone.conv1_7x7_s2.conv.weight"], filter_.flip(1))
    torch.testing.assert_close(found["motion.backbone.conv1_7x7_s2.conv.weight"][:, 9], filter_.mean(1))
    for stream in ("appearance", "motion"):
        assert torch.equal(
            found[f"{stream}.backbone.inception_5.b.pool_proj.bn.running_var"],
            state["inception_5b_pool_proj_bn.running_var"].float()[0],
        )


def test_identity_and_wrong_widths() -> None:
    with torch.device("meta"):
        assert BNInception(in_channels=20).identity == "bn_inception"
        assert BNInception(width=32).identity == "bn_inception-width32"
    for width in (0, -2, 33):
        with pytest.raises(UsageError, match=rf"an even number of at least 2 .* got {width}"):
            BNInception(width=width)


def test_maps_stay_channels_last() -> None:
    assert BNInception(width=8)(torch.randn(2, 3, 64, 64)).is_contiguous(memory_format=torch.channels_last)
