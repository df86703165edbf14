"""ST-ResNet as published: its integers, what each layer sees, what reaches what; its options; what it starts from."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from twostream.checkpoint import CheckpointError, LoadedModel, load_model, save_model, transfer
from twostream.clip import ShapeError
from twostream.errors import UsageError
from twostream.evaluation.evaluate import evaluate
from twostream.layers.temporal_conv import TemporalConv
from twostream.models.registry import create_model
from twostream.models.resnet import DEPTHS, ResNet
from twostream.models.st_resnet import STResNet
from twostream.weights.strict import WeightsError

K = 4
CLASSES = ("jump", "run", "turn", "wave")


def network(name: str = "st_resnet50", *, seed: int = 0, **numbers: Any) -> STResNet:
    """Small; every weight, bias and running moment away from its fresh value, filters over time as they begin."""
    torch.manual_seed(seed)
    model = create_model(name, num_classes=K, **{"width": 4, "layout": "caffe", **numbers}).double().eval()
    assert isinstance(model, STResNet)
    for module in model.modules():
        if isinstance(module, TemporalConv) and module.identity and module.init == "average":
            module.weight.data.mul_(3).round_().div_(3)  # float32's third is not float64's
    g = torch.Generator().manual_seed(seed + 1)
    for tensor_name, tensor in model.state_dict().items():
        if tensor_name.endswith("running_var") or (tensor.ndim == 1 and tensor_name.endswith("weight")):
            tensor.uniform_(0.5, 1.5, generator=g)
        elif tensor.ndim == 1 and "temporal" not in tensor_name:
            tensor.normal_(0, 0.2, generator=g)
        elif tensor_name.endswith("classifier.weight"):
            tensor.normal_(generator=g)
    return model


def clips(T: int = 5, *, B: int = 1, height: int = 64, width: int = 64, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    rgb, flow = (torch.rand(B, T, c, height, width, generator=g, dtype=torch.float64) * 255 for c in (3, 20))
    return rgb, flow


def streams(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Votes (B, T', K) of appearance and of motion."""
    appearance, motion = logits.chunk(2, dim=1)
    return appearance, motion


def stages_of(model: STResNet, rgb: Tensor, flow: Tensor) -> list[tuple[Tensor, Tensor]]:
    """What leaves each stage, (B T, C, h, w) of appearance and motion."""
    out = []
    a, m = model.appearance.stem(rgb), model.motion.stem(flow)
    for number in range(4):
        a, m = model.stage(number, a, m, rgb.shape[1])
        out.append((a, m))
    return out


def grown_from(model: STResNet, **numbers: Any) -> STResNet:
    """The network of other numbers that takes over ``model``'s weights as --init would."""
    grown = network(model.name, **{**model.numbers, **numbers})
    state, _ = grown.adapt(model.state_dict())
    grown.load_state_dict(grown.state_dict() | state, strict=True)
    return grown


# The paper's integers


@pytest.mark.parametrize(
    ("classes", "rgb", "flow"), [(101, 29_285_605, 29_338_917), (51, 29_183_155, 29_236_467)], ids=["UCF101", "HMDB51"]
)
def test_parameters(classes: int, rgb: int, flow: int) -> None:
    def count(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    with torch.device("meta"):
        model = create_model("st_resnet50", num_classes=classes, layout="caffe")
        base = create_model("two_stream_resnet50", num_classes=classes, layout="caffe")
    assert isinstance(model, STResNet)
    assert (count(model.appearance), count(model.motion), count(model)) == (rgb, flow, rgb + flow)
    assert rgb + flow == {101: 58_624_522, 51: 58_419_622}[classes]
    assert count(model) - count(base) == 2 * 5_570_560
    filters = [n for n, module in model.named_modules() if isinstance(module, TemporalConv)]
    assert sorted(filters) == sorted(
        f"{stream}.backbone.layer{stage}.1.conv{conv}"
        for stream in ("appearance", "motion")
        for stage in (1, 2, 3, 4)
        for conv in (1, 3)
    )


@pytest.mark.parametrize(
    ("T", "pool", "left", "size", "places"),
    [
        (5, None, 5, (224, 224), (1, 1)),
        (11, 5, 4, (224, 224), (1, 1)),
        (25, 5, 11, (224, 224), (1, 1)),
        (25, 5, 11, (256, 340), (2, 5)),
    ],
)
def test_shapes_layer_by_layer(
    T: int, pool: int | None, left: int, size: tuple[int, int], places: tuple[int, int]
) -> None:
    """Section 8 of the facts' table; on a device without memory."""
    square = size == (224, 224)
    maps = {
        "bn1": (64, 112, 112) if square else (64, 128, 170),
        "maxpool": (64, 56, 56) if square else (64, 64, 85),
        "layer1": (256, 56, 56) if square else (256, 64, 85),
        "layer2": (512, 28, 28) if square else (512, 32, 43),
        "layer3": (1024, 14, 14) if square else (1024, 16, 22),
        "layer4": (2048, 7, 7) if square else (2048, 8, 11),
    }
    units = {"layer1": (64, 256), "layer2": (128, 512), "layer3": (256, 1024), "layer4": (512, 2048)}
    seen: dict[str, tuple[int, ...]] = {}

    def note(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(module: nn.Module, given: object, out: Tensor) -> None:
            del module, given
            seen[name] = tuple(out.shape)

        return hook

    with torch.device("meta"):
        model = create_model("st_resnet50", num_classes=101, layout="caffe", temporal_pool=pool).eval()
        assert isinstance(model, STResNet)
        for name, module in model.named_modules():
            module.register_forward_hook(note(name))
        pooled: list[tuple[int, ...]] = []
        with pytest.MonkeyPatch.context() as patch:
            average = F.avg_pool2d
            patch.setattr(F, "avg_pool2d", lambda *a, **k: pooled.append(tuple((y := average(*a, **k)).shape)) or y)
            out = model(torch.zeros(1, T, 3, *size), torch.zeros(1, T, 20, *size))
    for stream in ("appearance", "motion"):
        for name, (C, h, w) in maps.items():
            last = name if not name.startswith("layer") else f"{name}.{DEPTHS[50][int(name[-1]) - 1] - 1}"
            assert seen[f"{stream}.backbone.{last}"] == (T, C, h, w), (stream, name)
        for name, (inner, outer) in units.items():
            _, h, w = maps[name]
            # What leaves the first unit is what is injected.
            assert seen[f"{stream}.backbone.{name}.0.bn3"] == (T, outer, h, w)
            assert seen[f"{stream}.backbone.{name}.1.conv1"] == (T, inner, h, w)
            assert seen[f"{stream}.backbone.{name}.1.conv2"] == (T, inner, h, w)
            assert seen[f"{stream}.backbone.{name}.1.conv3"] == (T, outer, h, w)
        assert seen[f"{stream}.classifier"] == (left, 101)
    assert pooled == [(left, 2048, *places)] * 2
    assert out.shape == (1, 2 * left, 101)
    if model.spec.steps == T:
        assert model.votes == (("appearance", left), ("motion", left))


# What each layer sees


@pytest.fixture(scope="module")
def full() -> STResNet:
    """The network of the paper, unabridged, in float64."""
    return network(width=64)


def test_windows_of_5_9_13_and_17_steps(full: STResNet) -> None:
    rgb, flow = clips(19, height=32, width=32)
    other_rgb, other_flow = rgb.clone(), flow.clone()
    other_rgb[:, 9] = 255 - rgb[:, 9]
    other_flow[:, 9] = 255 - flow[:, 9]
    with torch.no_grad():
        plain = stages_of(full, rgb, flow)
        for stage, ((a, m), (_, by_flow), (by_rgb, m_again)) in enumerate(
            zip(plain, stages_of(full, rgb, other_flow), stages_of(full, other_rgb, flow), strict=True)
        ):
            reach = 2 * (stage + 1)
            for before, after in ((m, by_flow), (a, by_rgb)):
                changed = (before - after).abs().amax((1, 2, 3)).nonzero().flatten().tolist()
                assert changed == list(range(9 - reach, 9 + reach + 1)), (
                    f"{2 * reach + 1} steps after stage {stage + 1}"
                )
            assert torch.equal(m, m_again), "frames never reach motion"


def test_motion_adds_no_reach(full: STResNet) -> None:
    rgb, flow = clips(19, height=32, width=32)
    other = flow.clone()
    other[:, 9] = 255 - flow[:, 9]
    with torch.no_grad():
        a, a_other = stages_of(full, rgb, flow)[-1][0], stages_of(full, rgb, other)[-1][0]
    changed = (a - a_other).abs().amax((1, 2, 3)).nonzero().flatten().tolist()
    assert changed == list(range(1, 18))


@pytest.mark.parametrize(
    ("name", "width", "size"),
    [("st_resnet50", 64, 32), ("st_resnet50", 4, 64), ("st_resnet18", 4, 64), ("st_resnet34", 4, 64)],
)
def test_a_still_clip_is_judged_as_by_the_2d_network(name: str, width: int, size: int) -> None:
    flat = network(name, temporal_units="none", width=width)
    grown = grown_from(flat, temporal_units="second")
    rgb, flow = (x.expand(-1, 19, -1, -1, -1) for x in clips(1, height=size, width=size))
    with torch.no_grad():
        for wanted, got in zip(streams(flat(rgb, flow)), streams(grown(rgb, flow)), strict=True):
            close = (wanted - got).abs().amax((0, 2)) / wanted.abs().max()
            assert close[8:11].max() < 1e-12
            # Zeros stand beyond the ends, and 17 steps are seen.
            assert close[:7].min() > 1e-13
            assert close[12:].min() > 1e-13
            assert close[[0, -1]].min() > 1e-3


@pytest.mark.parametrize("name", ["st_resnet18", "st_resnet34"])
def test_windows_of_basic_units(name: str) -> None:
    model = network(name)
    rgb, flow = clips(19)
    other = flow.clone()
    other[:, 9] = 255 - flow[:, 9]
    with torch.no_grad():
        pairs = zip(stages_of(model, rgb, flow), stages_of(model, rgb, other), strict=True)
        for stage, (before, after) in enumerate(pairs):
            for x, y in zip(before, after, strict=True):
                changed = (x - y).abs().amax((1, 2, 3)).nonzero().flatten().tolist()
                reach = 2 * (stage + 1)
                assert changed == list(range(9 - reach, 9 + reach + 1))


def test_a_basic_unit_begins_as_its_3x3_filters_spread_over_three_steps() -> None:
    model = network("st_resnet18")
    unit = model.appearance.backbone.units(1)[1]
    x = torch.rand(2 * 5, 8, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def inflated(y: Tensor, conv: nn.Module) -> Tensor:
        weight = (conv.weight / 3).unsqueeze(2).repeat(1, 1, 3, 1, 1)  # type: ignore[union-attr, operator]
        y = F.conv3d(y.unflatten(0, (2, 5)).transpose(1, 2), weight, padding=1)
        return y.transpose(1, 2).flatten(0, 1)

    with torch.no_grad():
        y = F.relu(unit.bn1(inflated(x, unit.conv1)))  # type: ignore[operator]
        wanted = unit.bn2(inflated(y, unit.conv2))  # type: ignore[operator]
        torch.testing.assert_close(unit.residual(x, 5), wanted, rtol=1e-12, atol=1e-12)


# What reaches what


@pytest.mark.parametrize(("width", "size"), [(64, 32), (4, 64)])
def test_the_branch_reads_the_sum_before_the_relu(width: int, size: int) -> None:
    model = network(width=width)
    with torch.no_grad():
        for number in range(4):  # motion's first units answer zero
            first = model.motion.backbone.units(number)[0]
            for norm in (first.bn3, first.downsample[1]):  # type: ignore[index, union-attr]
                norm.weight.zero_()  # type: ignore[union-attr]
                norm.bias.zero_()  # type: ignore[union-attr]
        rgb, flow = clips(height=size, width=size)
        got, _ = streams(model(rgb, flow))
        x = standard = model.appearance.stem(rgb)
        for number in range(4):
            first, second, *rest = model.appearance.backbone.units(number)
            total = first.add(x)
            x = second(total.clamp_min(0), total, steps=5)
            for unit in rest:
                x = unit(x)
            standard = first(standard)
            for unit in (second, *rest):
                standard = unit(standard, steps=5)
        torch.testing.assert_close(got, model.appearance.classify(x, 5), rtol=1e-10, atol=1e-10)
        assert not torch.allclose(got, model.appearance.classify(standard, 5))


@pytest.mark.parametrize(
    ("direction", "flow_moves_appearance", "rgb_moves_motion"),
    [
        ("motion_to_appearance", True, False),
        ("appearance_to_motion", False, True),
        ("both", True, True),
        ("none", False, False),
    ],
)
@pytest.mark.parametrize(("place", "operation"), [("residual", "add"), ("direct", "multiply")])
def test_directions_of_values_and_gradients(
    direction: str, flow_moves_appearance: bool, rgb_moves_motion: bool, place: str, operation: str
) -> None:
    model = network(direction=direction, place=place, operation=operation)
    check_directions(model, clips(), flow_moves_appearance, rgb_moves_motion)


def test_the_papers_network_leads_motion_into_appearance_and_its_gradients_back(full: STResNet) -> None:
    check_directions(full, clips(height=32, width=32), True, False)


def check_directions(
    model: STResNet, given: tuple[Tensor, Tensor], flow_moves_appearance: bool, rgb_moves_motion: bool
) -> None:
    rgb, flow = (x.requires_grad_() for x in given)
    a, m = streams(model(rgb, flow))
    with torch.no_grad():
        other_flow, other_rgb = streams(model(rgb, 255 - flow)), streams(model(255 - rgb, flow))
    assert torch.equal(a, other_flow[0]) is not flow_moves_appearance
    assert torch.equal(m, other_rgb[1]) is not rgb_moves_motion
    assert not torch.equal(m, other_flow[1])
    assert not torch.equal(a, other_rgb[0])
    for loss, leaf, moves in (
        (a.square().sum(), flow, flow_moves_appearance),
        (m.square().sum(), rgb, rgb_moves_motion),
    ):
        (grad,) = torch.autograd.grad(loss, leaf, retain_graph=True, allow_unused=True)
        assert (grad is not None and bool(grad.abs().sum() > 0)) is moves


def test_stages_that_are_connected() -> None:
    rgb, flow = clips()
    names = ("conv2", "conv3", "conv4", "conv5")
    with torch.no_grad():
        plain = stages_of(network(direction="none"), rgb, flow)
        for connected in ("conv2", "conv4", "conv3,conv5"):
            first = names.index(connected.split(",")[0])
            joined = stages_of(network(connected_stages=connected), rgb, flow)
            same = [torch.equal(a, b) for (a, _), (b, _) in zip(plain, joined, strict=True)]
            assert same == [stage < first for stage in range(4)]
    with pytest.raises(UsageError, match=r"drawn from 'conv2 conv3 conv4 conv5', got 'conv1'"):
        network(connected_stages="conv1 conv2")


@pytest.mark.parametrize("place", ["residual", "direct"])
@pytest.mark.parametrize("operation", ["add", "multiply"])
def test_each_connection_is_another_network(place: str, operation: str) -> None:
    rgb, flow = clips()
    with torch.no_grad():
        out = network(place=place, operation=operation)(rgb, flow)
        default = network()(rgb, flow)
    assert out.isfinite().all()
    assert torch.equal(out, default) is ((place, operation) == ("residual", "add"))


# Filters over time


@pytest.mark.parametrize(
    ("numbers", "units", "of"),
    [
        ({"temporal_units": "second"}, (1, 1, 1, 1), ("appearance", "motion")),
        ({"temporal_units": "last"}, (2, 3, 5, 2), ("appearance", "motion")),
        ({"temporal_units": "none"}, (), ()),
        ({"temporal_streams": "motion"}, (1, 1, 1, 1), ("motion",)),
        ({"temporal_streams": "appearance"}, (1, 1, 1, 1), ("appearance",)),
    ],
)
def test_which_units_look_over_time(numbers: dict[str, str], units: Sequence[int], of: Sequence[str]) -> None:
    model = network(**numbers)
    found = {n.rpartition(".")[0] for n, module in model.named_modules() if isinstance(module, TemporalConv)}
    assert found == {f"{stream}.backbone.layer{i}.{unit}" for stream in of for i, unit in enumerate(units, 1)}
    rgb, flow = clips()
    with torch.no_grad():
        last = model(rgb, flow)
        first = model(rgb[:, :1], flow[:, :1])
    for whole, alone, stream in zip(streams(last), streams(first), ("appearance", "motion"), strict=True):
        # Appearance hears of the other steps through motion as well.
        sees = stream in of or (stream == "appearance" and bool(of))
        assert torch.allclose(whole[:, 0], alone[:, 0], rtol=1e-9, atol=1e-9) is not sees


def test_all_units_but_the_first() -> None:
    model = network(temporal_units="all")
    filters = [n for n, module in model.named_modules() if isinstance(module, TemporalConv)]
    assert len(filters) == 2 * 2 * (16 - 4)
    assert not [n for n in filters if ".0." in n]
    with torch.no_grad():
        assert model(*clips()).isfinite().all()


def test_how_filters_over_time_begin() -> None:
    taps = {}
    for init in ("average", "centre", "random"):
        for name, module in network(temporal_init=init).named_modules():
            if isinstance(module, TemporalConv):
                taps[init] = module.weight.detach()
                assert module.init == init, name
    assert torch.equal(taps["average"][:, :, 0], taps["average"][:, :, 1])
    assert taps["centre"][:, :, 0].abs().max() == 0
    assert taps["centre"][:, :, 1].abs().max() > 0
    assert (taps["random"][:, :, 0] - taps["random"][:, :, 1]).abs().max() > 0
    flat = network(temporal_units="none")
    with torch.no_grad():
        centred = grown_from(flat, temporal_units="second", temporal_init="centre")
        torch.testing.assert_close(centred(*clips()), flat(*clips()), rtol=1e-10, atol=1e-10)


# Time and space


@pytest.mark.parametrize(("T", "left"), [(5, 1), (11, 4), (12, 4), (25, 11)])
def test_votes_after_temporal_pooling(T: int, left: int) -> None:
    model = network("st_resnet18", temporal_pool=5)
    assert (model.spec.steps, model.spec.stride, model.votes) == (11, (1, 15), (("appearance", 4), ("motion", 4)))
    rgb, flow = clips(T)
    with torch.no_grad():
        out = model(rgb, flow)
        assert out.shape == (1, 2 * left, K)
        last = stages_of(model, rgb, flow)[-1]
        for got, x, stream in zip(streams(out), last, (model.appearance, model.motion), strict=True):
            windows = torch.stack([x[2 * t : 2 * t + 5].amax(0) for t in range(left)])  # before the spatial mean
            wanted = F.linear(windows.mean((2, 3)), stream.classifier.weight, stream.classifier.bias)
            torch.testing.assert_close(got[0], wanted, rtol=1e-10, atol=1e-10)


def test_pool5_moves_over_larger_maps() -> None:
    model = network("st_resnet18", size=64, steps=1)  # a training crop's last map measures 2
    rgb, flow = clips(1, height=96, width=160)
    with torch.no_grad():
        x = stages_of(model, rgb, flow)[-1][0][0]  # (C, 3, 5)
        assert x.shape[1:] == (3, 5)
        windows = [x[:, i : i + 2, j : j + 2].mean((1, 2)) for i in range(2) for j in range(4)]
        wanted = torch.stack([model.appearance.classifier(w) for w in windows]).mean(0)
        torch.testing.assert_close(streams(model(rgb, flow))[0][0, 0], wanted, rtol=1e-10, atol=1e-10)


def test_the_first_poolings_of_the_layouts_differ() -> None:
    caffe, other = ResNet(18, layout="caffe", width=4), ResNet(18, layout="torchvision", width=4)
    state = caffe.state_dict()
    state["conv1.bias"].zero_()
    other.load_state_dict({name: value for name, value in state.items() if name != "conv1.bias"})
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        a, b = caffe.double().eval().stem(x), other.double().eval().stem(x)
    assert a.shape == b.shape
    assert not torch.allclose(a, b)


def test_the_evaluator_names_the_votes_of_any_number_of_steps() -> None:
    class Video:
        name, label, group = "v", 0, ""

    class Views:
        items = (Video(),)

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> Any:
            rgb, flow = clips(25, B=2)

            class Both:
                pass

            both = Both()
            both.rgb, both.flow = rgb.to(torch.uint8), flow.to(torch.uint8)  # type: ignore[attr-defined]
            return both

    scores = evaluate(network("st_resnet18", temporal_pool=5).float(), Views(), classes=CLASSES, device="cpu")
    assert scores.votes == (("appearance", 11), ("motion", 11))
    assert scores.logits.shape == (1, 2, 22, K)


def test_the_spec_follows_the_numbers() -> None:
    spec = network().spec
    assert (spec.sampling, spec.steps, spec.snippets, spec.stride) == ("strided", 5, 5, (5, 15))
    assert (spec.size, spec.resize, spec.flow_length, spec.flow_offset) == (224, 256, 10, -5)
    assert (spec.rgb_mean, spec.rgb_std) == ((123.15163084, 115.90288257, 103.0626238), (1.0, 1.0, 1.0))
    given = {
        "steps": 7,
        "min_stride": 2,
        "max_stride": 4,
        "size": 112,
        "resize": 120,
        "flow_length": 5,
        "flow_offset": 0,
        "fps": 12.5,
    }
    spec = network(**given).spec
    assert (spec.steps, spec.stride, spec.size, spec.resize) == (7, (2, 4), 112, 120)
    assert (spec.flow_channels, spec.flow_offset, spec.fps) == (10, 0, 12.5)


# ST-MulNet


def test_st_mulnet_is_as_its_released_code() -> None:
    model = network("st_mulnet50")
    assert {c.operation for c in model.connections} == {"multiply"}
    assert model.votes == (("appearance", 1), ("motion", 1))
    assert (model.spec.steps, model.spec.stride) == (5, (5, 35))
    assert (model.appearance.dropout.p, model.motion.dropout.p) == (0.0, 0.8)
    filters = {n: module for n, module in model.named_modules() if isinstance(module, TemporalConv)}
    assert sorted(filters) == sorted(
        f"{s}.backbone.layer{i}.1.temporal" for s in ("appearance", "motion") for i in (1, 2, 3, 4)
    )
    for module in filters.values():
        C = module.weight.shape[0]
        assert torch.equal(module.weight[:, :, 1, 0, 0], torch.eye(C, dtype=torch.float64))
        assert module.weight[:, :, [0, 2]].abs().max() == 0
        assert module.bias is not None
    rgb, flow = clips(9)
    with torch.no_grad():
        assert model(rgb, flow).shape == (1, 2 * 5, K)


@pytest.mark.parametrize("name", ["st_mulnet18", "st_mulnet50"])
def test_st_mulnet_begins_without_a_view_over_time_and_gains_one(name: str) -> None:
    flat = network(name, temporal_units="none", temporal_pool=None)
    model = grown_from(flat, temporal_units="second")
    rgb, flow = clips()
    with torch.no_grad():
        torch.testing.assert_close(model(rgb, flow), flat(rgb, flow), rtol=1e-10, atol=1e-10)
        for module in model.modules():
            if isinstance(module, TemporalConv):
                module.weight.add_(0.1)
        other = flow.clone()
        other[:, 0] = 255 - flow[:, 0]
        a, m = streams(model(rgb, flow) - model(rgb, other))
    assert [bool(step.abs().max() > 0) for step in m[0]] == [True] * 5
    assert [bool(step.abs().max() > 0) for step in a[0]] == [True] * 5


# Training


@pytest.mark.parametrize("name", ["st_resnet18", "st_mulnet50"])
def test_activation_checkpointing_computes_the_same(name: str) -> None:
    numbers = {"dropout": 0.0, "motion_dropout": 0.0}
    models = [network(name, activation_checkpointing=flag, **numbers).train() for flag in (False, True)]
    inputs = clips(B=2)
    losses = []
    for model in models:
        loss = model(*inputs).square().sum()
        loss.backward()
        losses.append(loss)
    assert torch.equal(*losses)
    for (tensor_name, a), (_, b) in zip(models[0].named_parameters(), models[1].named_parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-12, msg=tensor_name)
    for (tensor_name, a), (_, b) in zip(models[0].named_buffers(), models[1].named_buffers(), strict=True):
        assert torch.equal(a, b), f"{tensor_name}: a batch is counted once"
    with torch.no_grad():
        assert models[1](*inputs).isfinite().all()


def test_activation_checkpointing_keeps_less() -> None:
    kept = {}
    for flag in (False, True):
        model = network("st_resnet50", activation_checkpointing=flag).train()
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor, sizes: dict[int, int] = sizes) -> Tensor:
            sizes[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(*clips(2, height=96, width=96))
        kept[flag] = sum(sizes.values())
    assert kept[True] < 0.5 * kept[False]


def test_dropout_can_differ_by_stream() -> None:
    model = network(dropout=0.1, motion_dropout=0.8)
    assert (model.appearance.dropout.p, model.motion.dropout.p) == (0.1, 0.8)
    assert network(dropout=0.3).motion.dropout.p == 0.3
    with pytest.raises(UsageError, match=r"dropout is the share .* got 1.0"):
        network(dropout=1.0)


def test_maps_stay_channels_last() -> None:
    model = network("st_resnet50").float()
    with torch.no_grad():
        for a, m in stages_of(model, *(x.float() for x in clips())):
            assert a.is_contiguous(memory_format=torch.channels_last)
            assert m.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", ["st_resnet50", "st_mulnet18"])
def test_exports(name: str) -> None:
    model = network(name, temporal_pool=3, steps=5)
    inputs = clips()
    program = torch.export.export(model, inputs)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(*inputs), model(*inputs), rtol=1e-10, atol=1e-10)


# What it starts from


def saved(folder: Path, name: str, *, seed: int = 5, classes: Sequence[str] = CLASSES, **numbers: Any) -> LoadedModel:
    torch.manual_seed(seed)
    numbers = {"width": 4, "layout": "caffe", **numbers}
    save_model(folder, create_model(name, num_classes=len(classes), **numbers), classes=classes)
    return load_model(folder)


def test_base_streams_then_stage_1_then_stage_2(tmp_path: Path) -> None:
    base = saved(tmp_path / "base", "two_stream_resnet50")
    first = network()
    report = transfer(first, base, classes=CLASSES)
    assert (report.skipped, report.initialised, len(report.changed)) == ({}, (), 16)
    theirs = base.model.state_dict()
    for name, tensor in first.state_dict().items():
        given = theirs[name].double()
        if tensor.ndim == 5:
            for tap in (0, 1, 2):
                torch.testing.assert_close(tensor[:, :, tap], given / 3, rtol=1e-6, atol=1e-9)
        else:
            assert torch.equal(tensor, given), name
    assert report.describe() == (
        f"init: {len(theirs)} tensors from {tmp_path / 'base'} (two_stream_resnet50)\n"
        "  appearance.backbone: 319 of 319\n"
        "    of these 8 1x1 filters spread over three steps (average)\n"
        "  appearance.classifier: 2 of 2\n"
        "  motion.backbone: 319 of 319\n"
        "    of these 8 1x1 filters spread over three steps (average)\n"
        "  motion.classifier: 2 of 2"
    )
    save_model(tmp_path / "first", first.float(), classes=CLASSES)
    second = network(temporal_pool=5).float()
    report = transfer(second, load_model(tmp_path / "first"), classes=CLASSES)
    assert (report.skipped, report.initialised, report.changed) == ({}, (), {})
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_each_stream_from_a_run_of_its_own(tmp_path: Path) -> None:
    model = network()
    spatial, temporal = (
        saved(tmp_path / kind, f"{kind}_resnet50", seed=i) for i, kind in enumerate(("spatial", "temporal"))
    )
    assert len(transfer(model, spatial, classes=CLASSES).changed) == 8
    assert len(transfer(model, temporal, classes=CLASSES).changed) == 8
    for source in (spatial, temporal):
        for name, tensor in source.model.state_dict().items():
            got = model.state_dict()[name]
            assert torch.allclose(got.sum(2) if got.ndim == 5 else got, tensor.to(got.dtype), rtol=1e-6, atol=1e-8)


def test_filters_that_have_no_forerunner_are_said_to_be_fresh(tmp_path: Path) -> None:
    base = saved(tmp_path / "18", "two_stream_resnet18")
    report = transfer(network("st_resnet18"), base, classes=CLASSES)
    assert len(report.initialised) == 16
    assert all(".temporal" in name for name in report.initialised)
    assert "appearance.backbone: 121 of 129, the rest fresh" in report.describe()
    base = saved(tmp_path / "50", "two_stream_resnet50")
    report = transfer(network(temporal_init="random"), base, classes=CLASSES)
    assert len(report.initialised) == len(report.skipped) == 16
    assert "(4, 16, 1, 1) there, (4, 16, 3, 1, 1) here" in report.describe()


def test_other_classes_are_not_taken_over(tmp_path: Path) -> None:
    base = saved(tmp_path / "m", "st_resnet18", classes=("a", "b", "c"))
    report = transfer(network("st_resnet18"), base, classes=CLASSES)
    assert set(report.skipped) == {f"{s}.classifier.{p}" for s in ("appearance", "motion") for p in ("weight", "bias")}
    config = tmp_path / "m" / "config.json"
    told = json.loads(config.read_text())
    config.write_text(json.dumps({**told, "num_classes": 4, "classes": list(CLASSES)}))
    with pytest.raises(CheckpointError, match=r"not those of st_resnet18 with 4 classes.*\(3, 32\), wanted \(4, 32\)"):
        load_model(tmp_path / "m")


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("st_resnet50", {}),
        ("st_resnet50", {"temporal_init": "random"}),
        ("st_resnet50", {"temporal_init": "centre", "temporal_units": "all"}),
        ("st_resnet18", {}),
        ("st_mulnet50", {}),
    ],
)
def test_starts_from_an_image_network(name: str, numbers: dict[str, Any]) -> None:
    image = ResNet(int(name[-2:]), layout="caffe", width=4)
    state = image.state_dict()
    model = network(name, **numbers)
    drawn = {n: t.clone() for n, t in model.state_dict().items() if t.ndim == 5}
    said = model.load_backbones(state, source="the file")
    assert said == (
        "appearance as it is, motion with the first layer averaged over colour and repeated 20 times, "
        f"{len(drawn)} filters over time begun by their rule"
    )
    assert model.backbone_identity == image.identity
    for stream in (model.appearance, model.motion):
        got = stream.backbone.state_dict()
        for key, tensor in state.items():
            if key == "conv1.weight" and stream is model.motion:
                wanted = tensor.mean(1, keepdim=True).expand(-1, 20, -1, -1)
            elif got[key].ndim == 5 and numbers.get("temporal_init") == "random":
                continue
            else:
                wanted = tensor
            mine = got[key].sum(2) if got[key].ndim == 5 else got[key]
            torch.testing.assert_close(mine.float(), wanted.float(), rtol=1e-6, atol=1e-7)
    if name != "st_resnet50" or numbers.get("temporal_init") == "random":
        assert all(torch.equal(model.state_dict()[n], t) for n, t in drawn.items())
    with pytest.raises(
        WeightsError, match=r"the file does not fit the network. Tensors 1 missing: layer2.1.conv1.weight"
    ):
        model.load_backbones({n: t for n, t in state.items() if n != "layer2.1.conv1.weight"}, source="the file")


# What cannot be


def test_clips_that_do_not_fit() -> None:
    model = network("st_resnet18", temporal_pool=5)
    rgb, flow = clips(6)
    with pytest.raises(ShapeError, match=r"T=4 steps, but the temporal pooling needs at least 5; show longer clips"):
        model(rgb[:, :4], flow[:, :4])
    with pytest.raises(ShapeError, match=r"rgb has T=6 steps but flow has 5 stacks"):
        model(rgb, flow[:, :5])
    with pytest.raises(ShapeError, match=r"flow must be \(B, S, 20, H, W\).*\(1, 6, 18, 64, 64\)"):
        model(rgb, flow[:, :, :18])


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"temporal_pool": 0}, "temporal_pool is a number of steps, at least 1, got 0"),
        ({"temporal_pool": 5, "temporal_pool_stride": 0}, "temporal_pool_stride is a number of steps, at least 1"),
        ({"temporal_pool": 5, "steps": 4}, "steps=4 are fewer than temporal_pool=5 needs"),
        ({"direction": "sideways"}, "direction must be 'motion_to_appearance' or"),
    ],
)
def test_numbers_that_do_not_fit(numbers: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        network("st_resnet18", **numbers)
