"""The baselines: what they compute, what they take, and how they are asked for by name."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import twostream
from twostream.clip import ShapeError
from twostream.errors import UsageError
from twostream.models.contract import Normalise, VideoModel
from twostream.models.registry import MODELS, create_model, describe_models, known_numbers, list_models
from twostream.models.two_stream import TwoStream

K = 5
SMALL = {"width": 8, "size": 64}


def clips(B: int = 2, T: int = 1, size: int = 64, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    rgb = torch.randint(0, 256, (B, T, 3, size, size), dtype=torch.uint8, generator=g)
    flow = torch.randint(90, 166, (B, T, 20, size, size), dtype=torch.uint8, generator=g)
    return rgb, flow


def small(name: str = "two_stream_resnet18", **numbers: object) -> TwoStream:
    torch.manual_seed(1)
    model = create_model(name, num_classes=K, **{**SMALL, **numbers}).double().eval()
    assert isinstance(model, TwoStream)
    return model


def test_every_name_of_the_issue_is_there() -> None:
    names = [
        f"{kind}_resnet{d}" for kind in ("spatial", "temporal", "two_stream", "tsn") for d in (18, 34, 50, 101, 152)
    ]
    assert set(names) <= set(list_models())
    assert list_models() == sorted(MODELS)
    assert twostream.list_models() == list_models()
    assert twostream.create_model is create_model


@pytest.mark.parametrize("layout", ["torchvision", "caffe"])
def test_a_vote_is_the_classifier_on_the_mean_of_the_normalised_map(layout: str) -> None:
    model = small(layout=layout)
    rgb, flow = clips()
    assert model.appearance is not None
    assert model.motion is not None
    if layout == "torchvision":
        mean, std, flow_std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375], 57.63
    else:
        mean, std, flow_std = [123.15163084, 115.90288257, 103.0626238], [1.0, 1.0, 1.0], 1.0
    mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (mean, std))
    x = (rgb[:, 0].double() - mean) / std
    m = (flow[:, 0].double() - 128) / flow_std
    with torch.no_grad():
        out = model(rgb, flow)
        for vote, stream, inputs in ((0, model.appearance, x), (1, model.motion, m)):
            features = stream.backbone(inputs).mean((2, 3))
            expected = F.linear(features, stream.classifier.weight, stream.classifier.bias)
            torch.testing.assert_close(out[:, vote], expected, rtol=1e-10, atol=1e-12)
    assert model.votes == (("appearance", 1), ("motion", 1))


def test_votes_are_independent_until_they_are_averaged() -> None:
    model = small()
    rgb, flow = clips()
    other_rgb, other_flow = clips(seed=9)
    with torch.no_grad():
        a, b, c = model(rgb, flow), model(other_rgb, flow), model(rgb, other_flow)
    assert torch.equal(a[:, 1], b[:, 1])
    assert not torch.allclose(a[:, 0], b[:, 0])
    assert torch.equal(a[:, 0], c[:, 0])
    assert not torch.allclose(a[:, 1], c[:, 1])


def test_single_streams_look_at_their_own_input_only() -> None:
    rgb, flow = clips()
    nothing = torch.empty(2, 0, 20, 64, 64, dtype=torch.uint8), torch.empty(2, 0, 3, 64, 64, dtype=torch.uint8)
    spatial, temporal = small("spatial_resnet18"), small("temporal_resnet18")
    assert (spatial.votes, temporal.votes) == ((("appearance", 1),), (("motion", 1),))
    assert (spatial.spec.streams, temporal.spec.streams) == (("appearance",), ("motion",))
    with torch.no_grad():
        assert torch.equal(spatial(rgb, nothing[0]), spatial(rgb, flow))
        assert torch.equal(temporal(nothing[1], flow), temporal(rgb, flow))
    assert not any(name.startswith("motion") for name in spatial.state_dict())
    assert not any(name.startswith("appearance") for name in temporal.state_dict())


def test_consensus_is_the_mean_of_the_steps_logits() -> None:
    model = small("tsn_resnet18")
    assert (model.spec.steps, model.spec.snippets, model.numbers["segments"]) == (3, 3, 3)
    rgb, flow = clips(T=3)
    with torch.no_grad():
        together = model(rgb, flow)
        alone = torch.stack([model(rgb[:, t : t + 1], flow[:, t : t + 1]) for t in range(3)]).mean(0)
        torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-12)
        shuffled = model(rgb[:, [2, 0, 1]], flow[:, [2, 0, 1]])
        torch.testing.assert_close(together, shuffled, rtol=1e-10, atol=1e-12)


def test_any_size_and_any_float_type() -> None:
    model = small()
    rgb, flow = clips()
    with torch.no_grad():
        assert torch.equal(model(rgb, flow), model(rgb.float(), flow.double()))
        g = torch.Generator().manual_seed(3)
        wide = (torch.rand(1, 1, c, 48, 75, generator=g) * 255 for c in (3, 20))
        assert model(*wide).shape == (1, 2, K)


def test_dropout_acts_in_training_only_and_can_differ_by_stream() -> None:
    model = small(dropout=0.0, motion_dropout=0.8)
    assert model.appearance is not None
    assert model.motion is not None
    assert (model.appearance.dropout.p, model.motion.dropout.p) == (0.0, 0.8)
    same = small(dropout=0.3)
    assert same.motion is not None
    assert same.motion.dropout.p == 0.3
    rgb, flow = clips()
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    with torch.no_grad():
        torch.manual_seed(0)
        a = model(rgb, flow)
        b = model(rgb, flow)
    assert torch.equal(a[:, 0], b[:, 0])
    assert not torch.equal(a[:, 1], b[:, 1])


def test_the_first_loss_is_log_k() -> None:
    torch.manual_seed(0)
    model = create_model("two_stream_resnet18", num_classes=K, **SMALL).eval()
    with torch.no_grad():
        logits = model(*clips(8))
    loss = F.cross_entropy(logits[:, 0], torch.arange(8) % K)
    assert abs(loss.item() - torch.tensor(K).log().item()) < 0.2


def test_the_spec_follows_the_numbers() -> None:
    spec = small(size=112, segments=2, flow_length=5, fps=12.5).spec
    assert (spec.size, spec.resize, spec.steps, spec.snippets) == (112, 128, 2, 2)
    assert (spec.flow_length, spec.flow_channels, spec.flow_offset, spec.fps) == (5, 10, -2, 12.5)
    assert spec.sampling == "segments"
    assert small(size=64, resize=90).spec.resize == 90
    assert small(flow_offset=0).spec.flow_offset == 0
    with torch.device("meta"):
        default = create_model("two_stream_resnet18", num_classes=2).spec
    assert (default.size, default.resize, default.flow_length, default.flow_offset) == (224, 256, 10, -5)


def test_the_same_seed_gives_the_same_network() -> None:
    a, b = small().state_dict(), small().state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_known_numbers_are_what_a_user_may_give() -> None:
    assert known_numbers("tsn_resnet50")["segments"] == 3
    assert known_numbers("two_stream_resnet50")["segments"] == 1
    assert "flow_length" not in known_numbers("spatial_resnet18")
    assert "motion_dropout" not in known_numbers("temporal_resnet18")
    assert "depth" not in known_numbers("temporal_resnet18")
    model = small(dropout=0.25)
    assert set(model.numbers) == set(known_numbers("two_stream_resnet18"))
    assert (model.numbers["dropout"], model.numbers["layout"], model.name) == (
        0.25,
        "torchvision",
        "two_stream_resnet18",
    )


def test_description_of_all_models() -> None:
    rows = {row.name: row for row in describe_models()}
    assert list(rows) == list_models()
    assert rows["spatial_resnet18"].parameters == 11_176_512 + 513 * 101
    assert rows["two_stream_resnet50"].parameters == 2 * (23_508_032 + 2049 * 101) + 64 * 49 * 17
    assert all(row.summary for row in rows.values())
    assert rows["tsn_resnet18"].numbers["segments"] == 3


@pytest.mark.parametrize(
    ("name", "numbers", "message"),
    [
        ("two_stream_resnet19", {}, "no model 'two_stream_resnet19'; did you mean two_stream_resnet18 or"),
        ("zzz", {}, "there is no model 'zzz'; All of them: twostream models"),
        ("spatial_resnet18", {"num_classes": 1}, "at least 2, got 1"),
        ("spatial_resnet18", {"num_classes": True}, "whole number of at least 2, got True"),
        ("spatial_resnet18", {"widht": 8}, "takes no widht. Did you mean width\\? It takes: dropout, fps, layout"),
        ("spatial_resnet18", {"flow_length": 5}, "takes no flow_length. It takes: "),
        ("spatial_resnet18", {"width": "8"}, "width must be a whole number, got '8'"),
        ("spatial_resnet18", {"width": True}, "width must be a whole number, got True"),
        ("spatial_resnet18", {"fps": "x"}, "fps must be a number or none, got 'x'"),
        ("spatial_resnet18", {"layout": "keras"}, "layout must be 'torchvision' or 'caffe', got 'keras'"),
        ("spatial_resnet18", {"dropout": 1.0}, "at least 0 and below 1, got 1.0"),
        ("spatial_resnet18", {"width": 0}, "at least 1, got 0"),
    ],
)
def test_wrong_calls_say_what_would_do(name: str, numbers: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        create_model(name, **{"num_classes": K, **numbers})  # type: ignore[arg-type]


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(ShapeError, match="steps must be at least 1, got 0"):
        small(segments=0)
    with pytest.raises(ShapeError, match="does not fit"):
        small(size=64, resize=32)


@pytest.mark.parametrize(
    ("rgb", "flow", "message"),
    [
        ((2, 3, 64, 64), (2, 1, 20, 64, 64), "rgb must be"),
        ((2, 1, 4, 64, 64), (2, 1, 20, 64, 64), "rgb must be"),
        ((2, 1, 3, 64, 64), (2, 1, 10, 64, 64), r"flow must be \(B, S, 20, H, W\)"),
        ((2, 0, 3, 64, 64), (2, 1, 20, 64, 64), "rgb must be"),
        ((2, 2, 3, 64, 64), (2, 1, 20, 64, 64), "T=2 steps but flow has 1"),
        ((3, 1, 3, 64, 64), (2, 1, 20, 64, 64), "same clips"),
        ((2, 1, 3, 64, 64), (2, 1, 20, 32, 32), "same size"),
    ],
)
def test_misshapen_batches_are_refused(rgb: tuple[int, ...], flow: tuple[int, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        small()(torch.zeros(rgb), torch.zeros(flow))


def test_integers_are_refused() -> None:
    rgb, flow = clips()
    with pytest.raises(
        ShapeError, match=r"rgb must be uint8 or floating point on the 0\.\.255 scale, got torch\.int64"
    ):
        small()(rgb.long(), flow)
    with pytest.raises(ShapeError, match="flow must be uint8"):
        small()(rgb, flow.int())


def test_normalising_follows_the_networks_type_and_stays_out_of_the_state() -> None:
    normalise = Normalise((1.0, 2.0, 3.0), 2.0)
    assert normalise.state_dict() == {}
    x = torch.full((1, 3, 2, 2), 5, dtype=torch.uint8)
    assert normalise(x).dtype == torch.float32
    assert normalise(x)[0, :, 0, 0].tolist() == [2.0, 1.5, 1.0]
    assert normalise.double()(x).dtype == torch.float64
    assert Normalise(123.15163084, 1.0).double().mean.item() == 123.15163084, "no rounding is carried along"
    with torch.device("meta"):
        empty = Normalise(128.0, 57.63)
    assert empty.to_empty(device="cpu").mean.item() == 128
    y = torch.full((1, 3, 2, 2), 5.0, dtype=torch.float64, requires_grad=True)
    normalise(y).sum().backward()
    assert y.grad is not None
    assert y.grad.unique().tolist() == [0.5]
    assert (y == 5).all(), "the caller's clip must not be overwritten"


def test_works_under_bfloat16_autocast() -> None:
    torch.manual_seed(0)
    model = create_model("two_stream_resnet18", num_classes=K, **SMALL)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(*clips())
    logits.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_image_weights_enter_both_streams() -> None:
    model = small()
    assert model.appearance is not None
    assert model.motion is not None
    torch.manual_seed(7)
    donor = small("spatial_resnet18").appearance
    assert donor is not None
    state = donor.backbone.state_dict()
    with torch.no_grad():
        for tensor in state.values():
            tensor.add_(1)
    says = model.load_backbones(state, source="x.pth")
    assert says == "appearance as it is, motion with the first layer averaged over colour and repeated 20 times"
    for name, tensor in model.appearance.backbone.state_dict().items():
        assert torch.equal(tensor, state[name])
    for name, tensor in model.motion.backbone.state_dict().items():
        if name == "conv1.weight":
            for channel in range(20):
                torch.testing.assert_close(tensor[:, channel], state[name].mean(1))
        else:
            assert torch.equal(tensor, state[name])


def test_the_base_class_leaves_the_weights_to_the_model() -> None:
    spec = small().spec
    model = VideoModel(spec=spec, votes=(("fused", 1),), num_classes=2, backbone_identity="resnet18")
    with pytest.raises(NotImplementedError):
        model.load_backbones({}, source="x")
