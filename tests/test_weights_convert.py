"""Name tables, first layers and strict loading: dict to dict."""

import pytest
import torch
from torch import nn

from twostream.models.resnet import ResNet
from twostream.weights.convert import from_torchvision
from twostream.weights.inflate import first_layer
from twostream.weights.strict import WeightsError, load_strict, mismatches


def test_torchvisions_names_are_ours() -> None:
    ours = ResNet(50, width=4).state_dict()
    published = {**ours, "fc.weight": torch.zeros(1000, 128), "fc.bias": torch.zeros(1000)}
    assert mismatches(ours, from_torchvision(published)) == []
    old = {name: value for name, value in published.items() if "num_batches" not in name}
    converted = from_torchvision(old)
    assert mismatches(ours, converted) == []
    assert converted["layer3.5.bn2.num_batches_tracked"].item() == 0
    assert "layer3.5.bn2.num_batches_tracked" not in old, "the given dict is left alone"


def test_foreign_names_are_listed() -> None:
    with pytest.raises(WeightsError, match=r"2 tensors are foreign, e\.g\. layer5\.0\.conv1\.weight, module\.conv1"):
        from_torchvision({"layer5.0.conv1.weight": torch.zeros(1), "module.conv1.weight": torch.zeros(1)})
    with pytest.raises(WeightsError, match=r"9 tensors are foreign.* \.\.\.$"):
        from_torchvision({f"block{i}": torch.zeros(1) for i in range(9)})


def test_the_first_flow_layer_is_the_mean_over_colour_repeated() -> None:
    state = {"conv1.weight": torch.randn(4, 3, 7, 7), "bn1.weight": torch.ones(4)}
    inflated = first_layer(state, 20)
    assert inflated["conv1.weight"].shape == (4, 20, 7, 7)
    x = torch.randn(2, 1, 30, 30)
    grey = nn.functional.conv2d(x.expand(-1, 3, -1, -1) / 3, state["conv1.weight"])
    flow = nn.functional.conv2d(x.expand(-1, 20, -1, -1) / 20, inflated["conv1.weight"])
    torch.testing.assert_close(grey, flow, rtol=1e-4, atol=1e-4)
    assert inflated["bn1.weight"] is state["bn1.weight"]
    assert state["conv1.weight"].shape == (4, 3, 7, 7)
    other = first_layer({"features.0.weight": torch.ones(2, 3, 3, 3)}, 10, name="features.0.weight")
    assert other["features.0.weight"].shape == (2, 10, 3, 3)


def test_strict_loading_lists_what_does_not_fit() -> None:
    module = nn.Linear(3, 2)
    state = {"weight": torch.ones(2, 3), "bias": torch.ones(2)}
    load_strict(module, state, source="x")
    assert torch.equal(module.weight, state["weight"])
    wrong = {"weight": torch.zeros(2, 4), "scale": torch.zeros(1)}
    with pytest.raises(WeightsError) as caught:
        load_strict(module, wrong, source="some.pth")
    assert str(caught.value) == (
        "some.pth does not fit the network. Tensors 1 missing: bias; 1 unexpected: scale; "
        "1 of another shape: weight is (2, 4), wanted (2, 3)"
    )
    assert torch.equal(module.weight, state["weight"]), "nothing is loaded when something is wrong"
