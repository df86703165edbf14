"""The ResNets against a second implementation that shares nothing with the package but the names of tensors."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from twostream.errors import UsageError
from twostream.models.resnet import DEPTHS, ResidualUnit, ResNet

UNITS = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3], 50: [3, 4, 6, 3], 101: [3, 4, 23, 3], 152: [3, 8, 36, 3]}


def bn(s: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    scale = s[f"{name}.weight"] / torch.sqrt(s[f"{name}.running_var"] + 1e-5)
    shift = s[f"{name}.bias"] - s[f"{name}.running_mean"] * scale
    return x * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)


def ceil_pool(x: Tensor) -> Tensor:
    """Caffe's: windows start at 0, 2, 4 ... as long as they start inside; what lies outside counts as -inf."""
    H, W = x.shape[-2:]
    rows, columns = -(-(H - 3) // 2) + 1, -(-(W - 3) // 2) + 1
    out = x.new_empty(*x.shape[:2], rows, columns)
    for i in range(rows):
        for j in range(columns):
            out[:, :, i, j] = x[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].amax((2, 3))
    return out


def reference(s: dict[str, Tensor], x: Tensor, depth: int, layout: str) -> list[Tensor]:
    """Every tap of a ResNet in test mode, written from the papers over the dict of weights."""
    caffe = layout == "caffe"
    x = F.conv2d(x, s["conv1.weight"], s["conv1.bias"] if caffe else None, stride=2, padding=3)
    x = bn(s, "bn1", x).clamp_min(0)
    taps = [ceil_pool(x) if caffe else F.max_pool2d(x, 3, 2, 1)]
    for stage, count in enumerate(UNITS[depth], 1):
        x = taps[-1]
        for unit in range(count):
            p = f"layer{stage}.{unit}."
            stride = 2 if stage > 1 and unit == 0 else 1
            if depth < 50:
                y = F.conv2d(x, s[p + "conv1.weight"], stride=stride, padding=1)
                y = F.conv2d(bn(s, p + "bn1", y).clamp_min(0), s[p + "conv2.weight"], padding=1)
                y = bn(s, p + "bn2", y)
            else:
                first, second = (stride, 1) if caffe else (1, stride)
                y = F.conv2d(x, s[p + "conv1.weight"], stride=first)
                y = F.conv2d(bn(s, p + "bn1", y).clamp_min(0), s[p + "conv2.weight"], stride=second, padding=1)
                y = F.conv2d(bn(s, p + "bn2", y).clamp_min(0), s[p + "conv3.weight"])
                y = bn(s, p + "bn3", y)
            if p + "downsample.0.weight" in s:
                x = bn(s, p + "downsample.1", F.conv2d(x, s[p + "downsample.0.weight"], stride=stride))
            x = (x + y).clamp_min(0)
        taps.append(x)
    return taps


def randomised(network: ResNet) -> ResNet:
    """Weights, biases and running moments all away from their fresh values; float64, test mode."""
    network = network.double().eval()
    g = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
                tensor.uniform_(0.5, 1.5, generator=g)
            elif tensor.ndim == 1:
                tensor.normal_(0, 0.2, generator=g)
    return network


def taps_of(network: ResNet, x: Tensor) -> list[Tensor]:
    out = [network.stem(x)]
    for stage in network.stages:
        out.append(stage(out[-1]))
    return out


@pytest.mark.parametrize("layout", ["torchvision", "caffe"])
@pytest.mark.parametrize(("depth", "width"), [(18, 64), (34, 8), (50, 64), (101, 8), (152, 8)])
def test_agrees_with_a_second_implementation_at_every_tap(depth: int, width: int, layout: str) -> None:
    torch.manual_seed(0)
    network = randomised(ResNet(depth, layout=layout, width=width))  # type: ignore[arg-type]
    x = torch.randn(2, 3, 45, 62, dtype=torch.float64)  # odd and even: the poolings differ
    with torch.no_grad():
        expected = reference(network.state_dict(), x, depth, layout)
        for ours, theirs, tap in zip(taps_of(network, x), expected, network.taps, strict=True):
            assert ours.shape == theirs.shape
            assert ours.shape[1] == tap.channels
            assert (ours - theirs).abs().max() <= 1e-10 * theirs.abs().max().clamp_min(1)
        assert torch.equal(network(x), taps_of(network, x)[-1])


def test_the_layouts_compute_different_things_from_the_same_weights() -> None:
    torchvision, caffe = (randomised(ResNet(50, layout=name, width=8)) for name in ("torchvision", "caffe"))
    caffe.load_state_dict({**torchvision.state_dict(), "conv1.bias": torch.zeros(8)})
    caffe.maxpool = torchvision.maxpool  # so that only the place of the stride is left
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        assert not torch.allclose(torchvision(x), caffe(x), rtol=0.1)


@pytest.mark.parametrize(
    ("depth", "layout", "in_channels", "classes", "parameters"),
    [
        (18, "torchvision", 3, 1000, 11_689_512),
        (34, "torchvision", 3, 1000, 21_797_672),
        (50, "torchvision", 3, 1000, 25_557_032),
        (101, "torchvision", 3, 1000, 44_549_160),
        (152, "torchvision", 3, 1000, 60_192_808),
        (50, "caffe", 3, 101, 23_715_045),
        (50, "caffe", 20, 101, 23_768_357),
    ],
)
def test_published_parameter_counts(depth: int, layout: str, in_channels: int, classes: int, parameters: int) -> None:
    with torch.device("meta"):
        network = ResNet(depth, layout=layout, in_channels=in_channels)  # type: ignore[arg-type]
    classifier = (network.taps[-1].channels + 1) * classes
    assert sum(p.numel() for p in network.parameters()) + classifier == parameters


def test_names_and_shapes_of_torchvisions_resnet50() -> None:
    """What a published file holds, written out from its listing; fc is dropped on the way in."""
    expected = {"conv1.weight": (64, 3, 7, 7)}
    norms = {"bn1": 64}
    channels = 64
    for stage, count in enumerate((3, 4, 6, 3), 1):
        width = 64 * 2 ** (stage - 1)
        for unit in range(count):
            p = f"layer{stage}.{unit}"
            expected |= {
                f"{p}.conv1.weight": (width, channels, 1, 1),
                f"{p}.conv2.weight": (width, width, 3, 3),
                f"{p}.conv3.weight": (4 * width, width, 1, 1),
            }
            norms |= {f"{p}.bn1": width, f"{p}.bn2": width, f"{p}.bn3": 4 * width}
            if unit == 0:
                expected[f"{p}.downsample.0.weight"] = (4 * width, channels, 1, 1)
                norms[f"{p}.downsample.1"] = 4 * width
            channels = 4 * width
    for name, size in norms.items():
        expected |= {f"{name}.{part}": (size,) for part in ("weight", "bias", "running_mean", "running_var")}
        expected[f"{name}.num_batches_tracked"] = ()
    with torch.device("meta"):
        state = ResNet(50).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == expected


def test_shapes_of_the_sheet_at_a_whole_frame_of_256_by_340() -> None:
    with torch.device("meta"):
        network = ResNet(50, layout="caffe")
        maps = taps_of(network, torch.empty(1, 3, 256, 340))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (64, 64, 85), (256, 64, 85), (512, 32, 43), (1024, 16, 22), (2048, 8, 11)
    ]  # fmt: skip
    assert [(t.name, t.channels, t.stride) for t in network.taps] == [
        ("stem", 64, 4), ("stage1", 256, 4), ("stage2", 512, 8), ("stage3", 1024, 16), ("stage4", 2048, 32)
    ]  # fmt: skip


@pytest.mark.parametrize("depth", [18, 50])
def test_a_connection_enters_the_branch_and_leaves_the_shortcut_alone(depth: int) -> None:
    network = randomised(ResNet(depth, width=8))
    first, second = list(network.stages[1])[:2]
    assert isinstance(second, ResidualUnit)
    x = torch.randn(2, network.taps[1].channels, 14, 14, dtype=torch.float64)
    with torch.no_grad():
        s = first.add(x)
        kept = s.clone()
        activated = first(x)
        assert torch.equal(activated, s.clamp_min(0))
        assert torch.equal(s, kept), "the pre-ReLU sum must survive"
        assert (s < 0).any()
        injected = s + torch.randn_like(s)
        out = second(activated, residual_input=injected)
        assert torch.equal(out, (activated + second.residual(injected)).clamp_min(0))
        assert not torch.allclose(out, second(activated))
        assert torch.equal(second(activated, residual_input=activated), second(activated))
        # where the size changes, the shortcut projects x and only the branch sees the connection
        other = torch.randn_like(x)
        assert torch.equal(first.add(x, other), first.shortcut(x) + first.residual(other))


def test_gradients_flow_through_a_connection_and_its_source() -> None:
    network = randomised(ResNet(18, width=8)).train()
    first, second = network.stages[0]
    x = torch.randn(2, 8, 10, 10, dtype=torch.float64, requires_grad=True)
    motion = torch.randn(2, 8, 10, 10, dtype=torch.float64, requires_grad=True)
    s = first.add(x)
    second(torch.relu(s), residual_input=s + motion).sum().backward()
    assert motion.grad is not None
    assert motion.grad.abs().sum() > 0
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_training_mode_uses_the_batch_and_moves_the_moments() -> None:
    network = ResNet(18, width=8)
    before = network.bn1.running_mean.clone()  # type: ignore[union-attr]
    network.train()(torch.randn(4, 3, 32, 32))
    assert not torch.equal(before, network.bn1.running_mean)  # type: ignore[arg-type]


def test_identity_says_which_published_weights_fit() -> None:
    with torch.device("meta"):
        assert ResNet(18).identity == "resnet18"
        assert ResNet(50, layout="caffe").identity == "resnet50-caffe"
        assert ResNet(34, width=32).identity == "resnet34-width32"
        assert ResNet(50, in_channels=20).identity == "resnet50"


def test_wrong_numbers_are_refused() -> None:
    assert list(DEPTHS) == [18, 34, 50, 101, 152]
    with pytest.raises(UsageError, match="no ResNet-20; known depths: 18, 34, 50, 101, 152"):
        ResNet(20)
    with pytest.raises(UsageError, match="layout is one of torchvision, caffe, got 'keras'"):
        ResNet(18, layout="keras")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"width .* at least 1, got 0"):
        ResNet(18, width=0)


def test_maps_stay_channels_last() -> None:
    network = ResNet(18, width=8)
    assert network.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert network(torch.randn(2, 3, 64, 64)).is_contiguous(memory_format=torch.channels_last)
