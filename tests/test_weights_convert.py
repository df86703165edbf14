"""Name tables, first layers and strict loading: dict to dict."""

import pytest
import torch
from torch import nn

from twostream.models.bn_inception import BNInception
from twostream.models.resnet import ResNet
from twostream.models.vgg import VGG16
from twostream.weights.convert import from_bn_inception, from_torchvision, to_backbone
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


@pytest.mark.parametrize("batch_norm", [False, True])
def test_torchvisions_vgg_loads_as_it_is(batch_norm: bool) -> None:
    ours = VGG16(width=2, batch_norm=batch_norm).state_dict()
    published = {**ours, "classifier.0.weight": torch.zeros(8, 784), "classifier.6.bias": torch.zeros(1000)}
    published = {name: value for name, value in published.items() if "num_batches" not in name}
    assert mismatches(ours, to_backbone(published, "vgg16_bn" if batch_norm else "vgg16")) == []
    with pytest.raises(
        WeightsError, match=r"not a VGG with torchvision's names: 1 tensors are foreign, e\.g\. fc\.bias"
    ):
        to_backbone({"features.0.bias": torch.zeros(1), "fc.bias": torch.zeros(1)}, "vgg16-width2")


def as_published(state: dict[str, torch.Tensor], slash: str) -> dict[str, torch.Tensor]:
    """Our BN-Inception's state under the published names, in its shapes and its order of colours."""
    published = {}
    for name, value in state.items():
        *place, kind, part = name.split(".")
        if place[0].startswith("inception"):
            place = [place[0] + place[1], place[2]]
        elif slash == "/":
            place = place[0].split("_", 1)
        layer = slash.join(place) + ("_bn" if kind == "bn" else "")
        if part != "num_batches_tracked":
            value = value.reshape(1, -1) if kind == "bn" else value
            published[f"{layer}.{part}"] = value.flip(1) if layer.endswith("7x7_s2") and part == "weight" else value
    return published


@pytest.mark.parametrize(
    ("slash", "classifier"), [("_", "last_linear"), ("_", "fc_action"), ("_", "fc"), ("/", "fc-action")]
)
def test_bn_inception_in_the_names_of_caffe_and_its_ports(slash: str, classifier: str) -> None:
    ours = dict(BNInception(width=2).state_dict())
    for value in ours.values():
        if value.ndim:
            value.copy_(torch.randn(value.shape))
    published = as_published(ours, slash)
    names = {"conv1_7x7_s2.weight", "conv2_3x3_reduce_bn.running_mean", "inception_4e_double_3x3_2_bn.bias"}
    assert slash == "/" or names | {"inception_5b_pool_proj_bn.weight", "inception_3a_1x1.bias"} <= set(published)
    assert slash == "_" or {"conv1/7x7_s2_bn.running_var", "inception_3c/3x3_reduce.weight"} <= set(published)
    converted = to_backbone({**published, f"{classifier}.weight": torch.zeros(1000, 32)}, "bn_inception")
    assert mismatches(ours, converted) == []
    assert all(torch.equal(converted[name], value) for name, value in ours.items())
    assert to_backbone(ours_counted(published), "bn_inception").keys() == ours.keys()


def ours_counted(published: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As a newer torch saves it: with the counters of seen batches."""
    counters = {n.replace("running_mean", "num_batches_tracked"): torch.tensor(7) for n in published if "mean" in n}
    return {**published, **counters}


def test_foreign_names_in_a_bn_inception() -> None:
    with pytest.raises(
        WeightsError, match=r"not a BN-Inception with the published names: 2 .* inception_6a_1x1\.weight"
    ):
        from_bn_inception({"inception_6a_1x1.weight": torch.zeros(1), "conv1.weight": torch.zeros(1)})


def test_a_flow_networks_first_layer_has_no_colours_to_turn_round() -> None:
    weight = torch.randn(4, 10, 7, 7)
    converted = from_bn_inception({"conv1_7x7_s2.weight": weight})
    assert torch.equal(converted["conv1_7x7_s2.conv.weight"], weight)
