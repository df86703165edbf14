"""Asking networks where they look, and where their cells lie."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from twostream.attention.watch import Watcher
from twostream.errors import UsageError
from twostream.models.registry import create_model

CPU = torch.device("cpu")


class Bright(nn.Module):
    """Looks at what is bright, cell by cell of 8 px."""

    attention = "a level of its own"

    def appearance(self, rgb: Tensor) -> Tensor:
        return F.avg_pool2d(rgb.flatten(0, 1), 8)

    def attention_maps(self, rgb: Tensor, flow: Tensor) -> dict[str, Tensor]:
        del flow
        maps = self.appearance(rgb.float()).mean(1)
        return {"attention": maps / maps.sum((1, 2), keepdim=True)}


def first_and_step(name: str, **numbers: Any) -> tuple[float, float]:
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, size=64, **numbers)
    places = Watcher(model, CPU).cells.middles(3, 1000, along="x") * 1000
    assert np.diff(places, 2) == pytest.approx(0, abs=1e-6)
    return float(places[0]), float(places[1] - places[0])


def test_cells_lie_where_their_fields_do() -> None:
    # A ResNet's cell k has its middle in pixel 32 k; untrained filters weigh the sides of a field by chance.
    first, step = first_and_step("stpn_resnet18", width=8)
    assert step == 32
    assert first == pytest.approx(0.5, abs=3)
    watcher = Watcher(Bright(), CPU)
    assert watcher.cells.middles(4, 32, along="y") == pytest.approx([4 / 32, 12 / 32, 20 / 32, 28 / 32], abs=1e-3)
    # Beyond the picture there is nothing to point at.
    assert watcher.cells.middles(3, 16, along="x").tolist() == pytest.approx([0.25, 0.75, 1.0], abs=1e-3)


def test_a_network_that_nothing_changes_is_asked_without_harm() -> None:
    model = Bright()
    model.appearance = lambda rgb: F.avg_pool2d(rgb.flatten(0, 1), 8) * 0  # type: ignore[method-assign]
    assert np.isfinite(Watcher(model, CPU).cells.middles(4, 32, along="x")).all()


def test_attention_lies_where_the_network_looks_and_mirror_images_are_turned_back() -> None:
    plain = torch.zeros(2, 1, 3, 16, 32)
    plain[0, ..., 8:, :8] = 200  # below, left
    plain[1, ..., :8, 8:16] = 200
    views = torch.stack([plain, plain.flip(-1)], dim=1).flatten(0, 1)
    watcher = Watcher(Bright(), CPU)
    weights = watcher.weights(views, torch.zeros(4, 1, 20, 16, 32)).reshape(2, 2, 2, 4)
    seen = (0.5, 0.0, 1.0, 1.0)
    track = watcher.track(weights, seconds=[0.1, 0.3], seen=seen, width=32, height=16)
    assert track.weights[0].tolist() == [[0, 0, 0, 0], [1, 0, 0, 0]]
    assert track.weights[1].tolist() == [[0, 1, 0, 0], [0, 0, 0, 0]]
    assert track.xs == pytest.approx([0.5625, 0.6875, 0.8125, 0.9375], abs=1e-3)
    assert track.ys == pytest.approx([0.25, 0.75], abs=1e-3)
    assert (track.seconds.tolist(), track.seen) == ([0.1, 0.3], seen)
    alone = watcher.track(weights[:, :1], seconds=[0, 1], seen=(0.0, 0.0, 1.0, 1.0), width=32, height=16)
    assert np.array_equal(alone.weights, track.weights)


@pytest.mark.parametrize(
    ("name", "numbers", "said"),
    [
        (
            "two_stream_resnet18",
            {},
            "two_stream_resnet18 has no attention to show; the networks that have are those of",
        ),
        ("stpn_resnet18", {"attention": "none"}, 'stpn_resnet18 built with attention "none" has no attention to show'),
    ],
)
def test_networks_without_attention_are_refused(name: str, numbers: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Watcher(create_model(name, num_classes=3, width=4, **numbers), CPU)
    with pytest.raises(UsageError, match=r"Linear has no attention to show.*stpn_resnet18"):
        Watcher(nn.Linear(1, 1), CPU)
