"""Attributions against what is known: where a network looks, and what its inputs add up to."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from twostream.attention.attributions import METHODS, SHOWN, Method, without
from twostream.clip import InputSpec
from twostream.errors import UsageError
from twostream.explain.attributor import Attributor
from twostream.explain.shown import Shown
from twostream.models.backbone import TORCHVISION_SCALE, Backbone, Tap
from twostream.models.contract import Normalise, VideoModel
from twostream.models.registry import create_model, known_numbers, list_models

CPU = torch.device("cpu")
SIDE = 64
SMALL = {"width": 4, "size": SIDE, "attention_d": 32, "top_d": 32}


class Cells(Backbone):
    """One convolution over tiles of 8 px, so that a cell of the map sees its own tile and nothing else."""

    identity = "cells"
    scale = TORCHVISION_SCALE

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.taps = (Tap("stem", 4, 8),)
        self.unit = nn.Sequential(nn.Conv2d(in_channels, 4, 8, 8), nn.Softplus())

    def stem(self, x: Tensor) -> Tensor:
        return x

    @property
    def stages(self) -> tuple[nn.Sequential, ...]:
        return (nn.Sequential(self.unit),)


class Part(nn.Module):
    def __init__(self, in_channels: int, mean: Any, std: Any) -> None:
        super().__init__()
        self.normalise = Normalise(mean, std)
        self.backbone = Cells(in_channels)
        self.classifier = nn.Linear(4, 2)


class Quadrants(VideoModel):
    """Class 1 is told by the upper left quarter of the frames and the lower right one of the flow; 0 by nothing."""

    def __init__(self) -> None:
        spec = InputSpec(size=SIDE, resize=SIDE, flow_length=2, flow_offset=-1)
        votes = (("appearance", 1), ("motion", 1))
        super().__init__(spec=spec, votes=votes, num_classes=2, backbone_identity="cells")
        self.appearance = Part(3, spec.rgb_mean, spec.rgb_std)
        self.motion = Part(4, spec.flow_mean, spec.flow_std)
        with torch.no_grad():
            for part in (self.appearance, self.motion):
                part.classifier.weight[0] = 0

    def forward(self, rgb: Tensor, flow: Tensor) -> Tensor:
        self.check(rgb, flow)
        votes = []
        for part, x, quarter in ((self.appearance, rgb, slice(0, 4)), (self.motion, flow, slice(4, 8))):
            B, T = x.shape[:2]
            cells = part.backbone(part.normalise(x.flatten(0, 1)))[..., quarter, quarter]
            votes.append(part.classifier(cells.mean((2, 3))).unflatten(0, (B, T)).mean(1))
        return torch.stack(votes, 1)


def clips(model: VideoModel, *, views: int = 2, height: int = SIDE, width: int = SIDE) -> Shown:
    spec = model.spec
    g = torch.Generator().manual_seed(5)
    T = spec.steps if "appearance" in spec.streams else 0
    S = spec.snippets if "motion" in spec.streams else 0
    return Shown(
        rgb=torch.randint(0, 256, (views, T, 3, height, width), dtype=torch.uint8, generator=g),
        flow=torch.randint(64, 192, (views, S, spec.flow_channels, height, width), dtype=torch.uint8, generator=g),
        seconds={"appearance": np.arange(views * T) / 10, "motion": np.arange(views * S) / 10},
        seen=(0.0, 0.0, 1.0, 1.0),
    )


@pytest.fixture(scope="module")
def quadrants() -> Quadrants:
    torch.manual_seed(1)
    return Quadrants()


@pytest.mark.parametrize("method", METHODS)
def test_the_maps_lie_where_the_answer_comes_from(quadrants: Quadrants, method: Method) -> None:
    shown = clips(quadrants)
    found = Attributor(quadrants, CPU, method=method).attribute(shown, 1)
    assert list(found.streams) == ["appearance", "motion"]
    for stream, upper_left in (("appearance", True), ("motion", False)):
        maps = found.streams[stream]
        assert len(maps) == 2
        assert maps.seconds.tolist() == [0.0, 0.1]
        inside = np.outer(maps.ys < 0.5, maps.xs < 0.5) if upper_left else np.outer(maps.ys > 0.5, maps.xs > 0.5)
        size = np.abs(maps.maps)
        if method == "integrated_gradients":
            # The pixels themselves: outside there is nothing at all.
            assert size[:, inside].sum() > 0
            assert size[:, ~inside].max() == 0
        else:
            # A quarter has the mean slope's channels; what lies elsewhere on the map is only read by the same weights.
            assert maps.xs == pytest.approx((np.arange(8) + 0.5) / 8, abs=0.01)
            assert size[:, inside].sum() > 0
    # Of the class that nothing tells there is nothing to see.
    nothing = Attributor(quadrants, CPU, method=method).attribute(shown, 0)
    assert all(maps.total == pytest.approx(0, abs=1e-6) for maps in nothing.streams.values())


def test_gradcam_of_a_linear_answer_adds_up_to_it() -> None:
    # Mean over space, then a linear classifier: the map's sum is the stream's part of the logit, without the bias.
    torch.manual_seed(0)
    model = create_model("two_stream_resnet18", num_classes=3, width=4, size=SIDE, resize=SIDE).eval()
    shown = clips(model)
    weights = {"appearance": 1.0, "motion": 3.0}
    found = Attributor(model, CPU, method="gradcam", stream_weights=weights).attribute(shown, 2)
    with torch.no_grad():
        votes = model(shown.rgb, shown.flow).mean(0)  # (V, K)
    for place, (stream, share) in enumerate((("appearance", 0.25), ("motion", 0.75))):
        bias = float(getattr(model, stream).classifier.bias[2].detach())
        assert found.streams[stream].total == pytest.approx(share * (float(votes[place, 2]) - bias), abs=1e-5)
    merged = 0.25 * votes[0] + 0.75 * votes[1]
    assert found.logits[SHOWN] == pytest.approx(merged.numpy(), abs=1e-5)
    assert not found.complete


@pytest.mark.parametrize("name", ["two_stream_resnet18", "temporal_resnet18", "spatial_vgg16", "st_resnet18"])
def test_integrated_gradients_add_up_to_the_difference_of_the_logits(name: str) -> None:
    torch.manual_seed(2)
    numbers = {key: value for key, value in SMALL.items() if key in known_numbers(name)}
    model = create_model(name, num_classes=3, **numbers).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    found = Attributor(model.float(), CPU, method="integrated_gradients", path_steps=64).attribute(clips(model), 1)
    assert found.complete
    assert abs(found.difference) > 1e-3
    assert found.total == pytest.approx(found.difference, rel=0.05)
    silent = without(*model.spec.streams)
    assert found.difference == pytest.approx(found.logits[SHOWN][1] - found.logits[silent][1])


def test_silence_is_the_mean_colour_and_no_motion(quadrants: Quadrants) -> None:
    shown = clips(quadrants)
    found = Attributor(quadrants, CPU, method="gradcam").attribute(shown)
    assert list(found.logits) == [SHOWN, "without appearance", "without motion", "without appearance and motion"]
    still = torch.full_like(shown.flow, 128)
    with torch.no_grad():
        wanted = quadrants(shown.rgb, still).mean((0, 1))
    assert found.logits["without motion"] == pytest.approx(wanted.numpy(), abs=1e-5)
    # Normalised, silence is zero: only biases speak.
    alone = []
    with torch.no_grad():
        for part in (quadrants.appearance, quadrants.motion):
            cell = part.backbone.unit(torch.zeros(1, part.backbone.in_channels, 8, 8))[..., 0, 0]
            alone.append(part.classifier(cell)[0].numpy())
    assert found.logits["without appearance and motion"] == pytest.approx(np.mean(alone, axis=0), abs=1e-5)
    # Without a class it is the one that the clips are taken for.
    assert found.label == int(found.logits[SHOWN].argmax())


# The deeper ones are made of the same units.
NETWORKS = [name for name in list_models() if not name.endswith(("34", "101", "152"))]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_is_explained(name: str) -> None:
    torch.manual_seed(3)
    numbers = {key: value for key, value in SMALL.items() if key in known_numbers(name)}
    model = create_model(name, num_classes=3, **numbers)
    # Zeros at the start, of attention for one, would hide a stream.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    for parameter in model.parameters():
        parameter.requires_grad_(False)  # as a user may have frozen it
    shown = clips(model, views=1, width=96)
    for method in METHODS:
        found = Attributor(model, CPU, method=method, path_steps=1).attribute(shown, 1)
        assert tuple(found.streams) == model.spec.streams
        for stream, maps in found.streams.items():
            steps = model.spec.steps if stream == "appearance" else model.spec.snippets
            assert maps.maps.shape == (steps, 2, 3) if method == "gradcam" else (steps, 16, 24)
            assert np.isfinite(maps.maps).all()
            assert np.abs(maps.maps).max() > 0, "no gradient reaches this stream"
            assert (np.diff(maps.xs) > 0).all()
            assert 0 <= maps.xs[0] < maps.xs[-1] <= 1
        assert all(np.isfinite(values).all() for values in found.logits.values())


def test_wrong_numbers_and_methods_are_refused(quadrants: Quadrants) -> None:
    with pytest.raises(UsageError, match="attributions are made by gradcam or integrated_gradients, got 'saliency'"):
        Attributor(quadrants, CPU, method="saliency")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="path_steps is at least 1, got 0"):
        Attributor(quadrants, CPU, method="gradcam", path_steps=0)


def test_without_captum_it_is_said_how_to_get_it(quadrants: Quadrants, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "captum.attr", None)
    with pytest.raises(UsageError, match=r"need captum, which cannot be imported .*pip install 'twostream\[explain\]'"):
        Attributor(quadrants, CPU, method="gradcam")
