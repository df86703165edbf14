"""VGG-16 against a second implementation in functions, over torchvision's names."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from twostream.errors import UsageError
from twostream.models.registry import create_model
from twostream.models.vgg import VGG16
from twostream.weights.convert import to_backbone

# Where torchvision's vgg16 and vgg16_bn have their convolutions; None: a pooling.
PLAIN = (0, 2, None, 5, 7, None, 10, 12, 14, None, 17, 19, 21, None, 24, 26, 28, None)
NORMED = (0, 3, None, 7, 10, None, 14, 17, 20, None, 24, 27, 30, None, 34, 37, 40, None)


def reference(s: dict[str, Tensor], x: Tensor, *, batch_norm: bool) -> list[Tensor]:
    """What every pooling gives in test mode."""
    taps = []
    for place in NORMED if batch_norm else PLAIN:
        if place is None:
            H, W = (n // 2 for n in x.shape[-2:])
            x = x[..., : 2 * H, : 2 * W].reshape(*x.shape[:2], H, 2, W, 2).amax((3, 5))
            taps.append(x)
            continue
        x = F.conv2d(x, s[f"features.{place}.weight"], s[f"features.{place}.bias"], padding=1)
        if batch_norm:
            weight, bias, mean, var = (
                s[f"features.{place + 1}.{part}"].view(-1, 1, 1)
                for part in ("weight", "bias", "running_mean", "running_var")
            )
            x = (x - mean) / (var + 1e-5).sqrt() * weight + bias
        x = x.clamp_min(0)
    return taps


@pytest.mark.parametrize("batch_norm", [False, True])
def test_agrees_with_a_second_implementation_at_every_tap(batch_norm: bool) -> None:
    torch.manual_seed(0)
    network = VGG16(width=16, batch_norm=batch_norm).double().eval()
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.ndim == 1:
                tensor.uniform_(0.5, 1.5) if name.endswith(("var", "weight")) else tensor.normal_(0, 0.2)
        x = torch.randn(2, 3, 45, 62, dtype=torch.float64)
        y = network.stem(x)
        ours = [y, *(y := stage(y) for stage in network.stages)]
        for got, expected, tap in zip(
            ours, reference(network.state_dict(), x, batch_norm=batch_norm), network.taps, strict=True
        ):
            assert got.shape == expected.shape
            assert got.shape[1] == tap.channels
            assert (got - expected).abs().max() <= 1e-10 * expected.abs().max()
        assert torch.equal(network(x), y)


def test_taps_at_224_and_parameter_counts() -> None:
    """torchvision's vgg16 has 138,357,544 parameters, 123,642,856 of them in its classifier."""
    with torch.device("meta"):
        network, normed, motion = VGG16(), VGG16(batch_norm=True), VGG16(in_channels=20)
        y = network.stem(torch.empty(1, 3, 224, 224))
        maps = [y, *(y := stage(y) for stage in network.stages)]
    assert [tuple(m.shape[1:]) for m in maps] == [
        (64, 112, 112), (128, 56, 56), (256, 28, 28), (512, 14, 14), (512, 7, 7)
    ]  # fmt: skip
    assert [(t.name, t.channels, t.stride) for t in network.taps] == [
        ("stem", 64, 2), ("pool2", 128, 4), ("pool3", 256, 8), ("pool4", 512, 16), ("pool5", 512, 32)
    ]  # fmt: skip
    count = sum(p.numel() for p in network.parameters())
    assert count == 138_357_544 - 123_642_856 == 14_714_688
    assert sum(p.numel() for p in normed.parameters()) == 138_365_992 - 123_642_856
    assert sum(p.numel() for p in motion.parameters()) == count + 17 * 64 * 9


def test_both_streams_start_from_a_published_file() -> None:
    donor = VGG16(width=4).state_dict()
    model = create_model("two_stream_vgg16", num_classes=5, width=4)
    said = model.load_backbones(to_backbone({**donor, "classifier.0.bias": torch.zeros(9)}, "vgg16"), source="made")
    assert said.endswith("repeated 20 times")
    state = model.state_dict()
    assert torch.equal(state["appearance.backbone.features.0.weight"], donor["features.0.weight"])
    torch.testing.assert_close(state["motion.backbone.features.0.weight"][:, 3], donor["features.0.weight"].mean(1))


def test_identity_says_which_published_weights_fit() -> None:
    with torch.device("meta"):
        assert VGG16().identity == "vgg16"
        assert VGG16(batch_norm=True).identity == "vgg16_bn"
        assert VGG16(batch_norm=True, width=8, in_channels=20).identity == "vgg16_bn-width8"
        model = create_model("tsn_vgg16", num_classes=5, batch_norm=True)
    assert model.backbone_identity == "vgg16_bn"
    with pytest.raises(UsageError, match=r"width .* at least 1, got 0"):
        VGG16(width=0)
    with pytest.raises(UsageError, match="batch_norm must be true or false, got 1"):
        create_model("tsn_vgg16", num_classes=5, batch_norm=1)


def test_maps_stay_channels_last() -> None:
    network = VGG16(width=4)
    assert network(torch.randn(2, 3, 64, 64)).is_contiguous(memory_format=torch.channels_last)
