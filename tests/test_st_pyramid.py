"""STPN: the paper's sizes, what starts where, the ways of the gradients, every option; numbers: test_stpn_reference."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from twostream.checkpoint import load_model, save_model, transfer
from twostream.clip import Clip, ShapeError
from twostream.errors import UsageError
from twostream.layers.compact_bilinear import CompactBilinear, normalised
from twostream.models.registry import create_model
from twostream.models.st_pyramid import Fusion, Join, SpatiotemporalPyramid, outer_product
from twostream.training.config import OptimConfig
from twostream.training.module import Recognizer, vote_loss

TINY: dict[str, Any] = {"width": 2, "size": 64, "temporal_d": 16, "attention_d": 12, "top_d": 20, "attention_hidden": 5}
C = 16  # channels of the last map of a ResNet-18 of width 2


def build(
    name: str = "stpn_resnet18", *, num_classes: int = 3, nudge: bool = True, **numbers: Any
) -> SpatiotemporalPyramid:
    """A tiny network in float64 and test mode, its parameters moved away from zeros."""
    torch.manual_seed(1)
    network = create_model(name, num_classes=num_classes, **{**TINY, **numbers}).double().eval()
    assert isinstance(network, SpatiotemporalPyramid)
    if nudge:
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return network


def clips(B: int = 2, S: int = 3, size: int = 64, seed: int = 4) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    rgb = torch.randint(0, 256, (B, 1, 3, size, size), generator=g, dtype=torch.uint8)
    return rgb, torch.randint(64, 192, (B, S, 20, size, size), generator=g, dtype=torch.uint8)


@pytest.mark.parametrize("B", [1, 2])
def test_sizes_of_the_papers_figure(B: int) -> None:
    """BN-Inception at 224: every tensor of the figure, on a device that knows shapes only."""
    with torch.device("meta"):
        network = create_model("stpn_bn_inception", num_classes=101).eval()
        assert isinstance(network, SpatiotemporalPyramid)
        rgb, flow = torch.empty(B, 1, 3, 224, 224), torch.empty(B, 3, 20, 224, 224)
    seen: dict[str, tuple[int, ...]] = {}
    for name, module in network.named_modules():
        module.register_forward_hook(lambda _module, _args, out, name=name: seen.update({name: tuple(out.shape)}))
    assert network(rgb, flow).shape == (B, 1, 101)
    assert seen["appearance"] == (B, 1024, 7, 7)
    assert seen["motion"] == (3 * B, 1024, 7, 7)
    assert seen["temporal_fusion"] == (B, 1024, 7, 7)
    assert seen["attention.fusion"] == (B, 2048, 7, 7)
    assert seen["attention.score"] == (B, 1, 7, 7)
    assert seen["attention"] == (B, 1024)
    assert seen["top"] == (B, 4096)
    assert network.attention_maps(rgb, flow)["attention"].shape == (B, 7, 7)
    assert network.spec.snippets == 3
    assert network.spec.flow_offset == 0
    assert network.votes == (("fused", 1),)


def test_parameters_are_counted_once() -> None:
    """Two backbones, however many snippets; 2048 -> 64 -> 1 in the attention, 4096 -> 101 on top, two lengths."""
    with torch.device("meta"):
        both = create_model("two_stream_bn_inception", num_classes=101)
        streams = sum(p.numel() for n, p in both.named_parameters() if "backbone" in n)
        for snippets in (3, 7):
            network = create_model("stpn_bn_inception", num_classes=101, snippets=snippets)
            total = sum(p.numel() for p in network.parameters())
            assert total == streams + (2048 * 64 + 64) + 64 + (4096 * 101 + 101) + 2


@pytest.mark.parametrize("name", ["stpn_vgg16", "stpn_resnet18", "stpn_resnet50", "stpn_bn_inception"])
def test_sizes_follow_the_backbone(name: str) -> None:
    with torch.device("meta"):
        network = create_model(name, num_classes=4)
        assert isinstance(network, SpatiotemporalPyramid)
        assert network(torch.empty(1, 1, 3, 224, 224), torch.empty(1, 3, 20, 224, 224)).shape == (1, 1, 4)
    channels = network.appearance.backbone.taps[-1].channels
    assert isinstance(network.temporal_fusion, nn.Module)
    assert network.temporal_fusion.channels == channels
    assert [m.out_channels for m in network.modules() if isinstance(m, CompactBilinear)] == [channels, 2048, 4096]


def test_attention_begins_as_exactly_the_average() -> None:
    network = build(nudge=False)
    frame, motion = network.maps(*clips())
    assert network.attention is not None
    torch.testing.assert_close(network.attention(frame, motion), frame.mean((2, 3)), rtol=0, atol=1e-14)


def test_attention_sums_to_one_over_the_cells() -> None:
    network = build()
    maps = network.attention_maps(*clips(size=96))
    assert list(maps) == ["attention"]
    assert maps["attention"].shape == (2, 3, 3)
    torch.testing.assert_close(maps["attention"].sum((1, 2)), torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-12)
    assert maps["attention"].std() > 0


class Ways:
    """Gradients of the image networks with some of the ways from the maps to the answer cut."""

    def __init__(self, network: SpatiotemporalPyramid) -> None:
        self.network = network

    def gradient(self, stream: str, *, top: set[int], weights: set[int]) -> Tensor:
        """Of the stream's first filters, through these inputs of the top and of the attention's fusion alone."""
        network = self.network
        assert network.attention is not None

        def only(kept: set[int]) -> Any:
            return lambda _, args: tuple(x if i in kept else x.detach() for i, x in enumerate(args))

        hooks = [
            network.top.register_forward_pre_hook(only(top)),
            network.attention.get_submodule("fusion").register_forward_pre_hook(only(weights)),
        ]
        filters = getattr(network, stream).backbone.conv1.weight
        answer = network(*clips()).sin().sum()
        for hook in hooks:
            hook.remove()
        return torch.autograd.grad(answer, filters)[0]


def test_gradients_go_three_ways_to_appearance_and_two_to_motion() -> None:
    ways = Ways(build())
    pooled = ways.gradient("appearance", top={0}, weights=set())
    weighted = ways.gradient("appearance", top={1}, weights=set())
    guided = ways.gradient("appearance", top={1}, weights={0}) - weighted
    assert all(way.abs().max() > 1e-9 for way in (pooled, weighted, guided))
    whole = ways.gradient("appearance", top={0, 1, 2}, weights={0, 1})
    torch.testing.assert_close(pooled + weighted + guided, whole, rtol=1e-8, atol=1e-12)

    pooled = ways.gradient("motion", top={2}, weights=set())
    guided = ways.gradient("motion", top={1}, weights={1})
    assert all(way.abs().max() > 1e-9 for way in (pooled, guided))
    whole = ways.gradient("motion", top={0, 1, 2}, weights={0, 1})
    torch.testing.assert_close(pooled + guided, whole, rtol=1e-8, atol=1e-12)


def test_exact_bilinear_top() -> None:
    network = build(top="bilinear", bilinear_size=4)
    vectors = [torch.randn(2, C, dtype=torch.float64) for _ in range(3)]
    a, b, c = (x @ layer.weight.mT for layer, x in zip(network.top.projections, vectors, strict=True))
    products = torch.einsum("ni,nj,nk->nijk", a, b, c).flatten(1)
    torch.testing.assert_close(outer_product([a, b, c]), products)
    assert network.top.gain is not None
    torch.testing.assert_close(
        network.top(*vectors), normalised(products, "signed_sqrt_l2", 3) * network.top.gain, rtol=0, atol=1e-12
    )


ABLATIONS: list[dict[str, Any]] = [
    *({"snippets": s} for s in (1, 3, 5, 7)),
    *({"temporal_fusion": how} for how in ("stcb", "sum", "max", "concat")),
    *({"attention": how} for how in ("stcb", "concat", "appearance", "average", "max", "none")),
    *({"top": how} for how in ("stcb", "concat", "sum", "product", "bilinear")),
    *({"temporal_d": d, "attention_d": d, "top_d": d} for d in (512, 16384)),
    {"normalization": "signed_sqrt"},
    {"normalization": "signed_root"},
    {"normalization": "none"},
    {"l2_scope": "sample"},
    {"hidden": 7},
    {"auxiliary": 0.5},
    {"lean": True},
]


@pytest.mark.parametrize("numbers", ABLATIONS, ids=str)
def test_every_ablation_trains_all_that_it_has(numbers: dict[str, Any]) -> None:
    network = build(**numbers, dropout=0.0).train()
    logits = network(*clips(S=network.spec.snippets))
    assert logits.shape == (2, 3 if "auxiliary" in numbers else 1, 3)
    vote_loss(logits, torch.tensor([0, 2]), weights=network.vote_weights).backward()
    idle = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not idle
    assert network.eval()(*clips(S=network.spec.snippets)).shape == (2, 1, 3)


def test_a_fused_map_that_meets_plain_features_gets_a_length() -> None:
    """Beside unnormalised features a unit vector would not be seen; to another normalised product it is all one."""
    assert build().temporal_fusion.gain is None
    for numbers in ({"top": "concat"}, {"top": "sum"}, {"attention": "concat"}, {"auxiliary": 1.0}):
        assert build(nudge=False, length=9.0, **numbers).temporal_fusion.gain == 9.0
    assert build(normalization="none").top.gain is None
    assert build(top="concat").top.gain is None


def test_auxiliary_losses_count_in_training_alone() -> None:
    network = build(auxiliary=0.25, dropout=0.0).train()
    assert network.vote_weights == (1.0, 0.25, 0.25)
    assert network.votes == (("fused", 1),)
    logits, label = network(*clips()), torch.tensor([1, 2])
    by_hand = sum(
        weight * nn.functional.cross_entropy(logits[:, v].float(), label, reduction="sum")
        for v, weight in enumerate((1.0, 0.25, 0.25))
    )
    torch.testing.assert_close(vote_loss(logits, label, weights=network.vote_weights), by_hand / 2)
    assert build().vote_weights is None


def test_a_training_step_weighs_all_votes_and_counts_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    network = build(auxiliary=0.25, dropout=0.0).float()
    module = Recognizer(network, OptimConfig(lr=0.01, weight_decay=0.0), seed=0).train()
    logged: dict[str, Tensor] = {}
    monkeypatch.setattr(module, "log", lambda name, value, **_: logged.update({name: value}))
    rgb, flow = clips()
    label = torch.tensor([1, 2])
    loss = module.training_step(Clip(rgb, flow, label, torch.arange(2)), 0)
    logits = network(rgb, flow)
    torch.testing.assert_close(loss, vote_loss(logits, label, weights=(1.0, 0.25, 0.25)))
    assert logged["train_top1"] == (logits[:, 0].argmax(1) == label).float().mean()
    module.eval().validation_step(Clip(rgb, flow, label, torch.arange(2)), 0)
    torch.testing.assert_close(logged["val_loss"], vote_loss(network(rgb, flow), label))


def test_new_layers_train_alone_over_frozen_backbones() -> None:
    network = build(dropout=0.0)
    Recognizer(network, OptimConfig(frozen=("*.backbone.*",)), seed=0).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    vote_loss(network(*clips()), torch.tensor([0, 1])).backward()
    learned = {name for name, p in network.named_parameters() if p.grad is not None}
    assert {name.split(".")[0] for name in learned} == {"attention", "top", "classifier"}
    # Above all the statistics of the batch norms.
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training
    assert network.classifier.training
    assert not any(module.training for module in network.motion.modules())


def test_fusions_have_hashes_of_their_own() -> None:
    numbers = {"temporal_d": 64, "attention_d": 64, "top_d": 64}
    one, same, other = (build(nudge=False, hash_seed=seed, **numbers) for seed in (2, 2, 3))
    hashes = [
        [m.hashes[:C] for m in network.modules() if isinstance(m, CompactBilinear)] for network in (one, same, other)
    ]
    assert all(torch.equal(a, b) for a, b in zip(hashes[0], hashes[1], strict=True))
    six = [*hashes[0], *hashes[2]]
    assert all(not torch.equal(six[i], six[j]) for i in range(6) for j in range(i))


def test_starts_from_a_two_stream_run(tmp_path: Path) -> None:
    torch.manual_seed(0)
    base = create_model("two_stream_resnet18", num_classes=3, width=2, size=64)
    save_model(tmp_path, base, classes=["a", "b", "c"])
    network = build().float()
    done = transfer(network, load_model(tmp_path), classes=["a", "b", "c"])
    for stream in ("appearance", "motion"):
        ours, theirs = getattr(network, stream).backbone.state_dict(), getattr(base, stream).backbone.state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert set(done.skipped) == {
        f"{stream}.classifier.{kind}" for stream in ("appearance", "motion") for kind in ("weight", "bias")
    }


def test_image_weights_enter_both_streams() -> None:
    torch.manual_seed(0)
    network, image = build(), create_model("spatial_resnet18", num_classes=3, width=2)
    state = image.appearance.backbone.double().state_dict()  # type: ignore[union-attr]
    said = network.load_backbones(state, source="image")
    assert said == "appearance as it is, motion with the first layer averaged over colour and repeated 20 times"
    assert torch.equal(network.appearance.backbone.state_dict()["conv1.weight"], state["conv1.weight"])
    mean = state["conv1.weight"].mean(1, keepdim=True).expand(-1, 20, -1, -1)
    torch.testing.assert_close(network.motion.backbone.state_dict()["conv1.weight"], mean)


def test_hashes_of_another_seed_come_with_the_checkpoint(tmp_path: Path) -> None:
    network = build(hash_seed=5).float()
    save_model(tmp_path, network, classes=["a", "b", "c"])
    loaded = load_model(tmp_path).model
    assert loaded.numbers["hash_seed"] == 5
    assert torch.equal(loaded(*clips()), network(*clips()))
    with pytest.raises(ShapeError, match=r"top\.stcb\.hashes were drawn for d=20, this fusion has d=24"):
        transfer(build(top_d=24, hash_seed=5).float(), load_model(tmp_path), classes=["a", "b", "c"])
    with pytest.raises(UsageError, match=r"drawn with another hash_seed than this network's \(4\); give the"):
        transfer(build(hash_seed=4).float(), load_model(tmp_path), classes=["a", "b", "c"])
    transfer(build(hash_seed=5).float(), load_model(tmp_path), classes=["a", "b", "c"])


def test_what_it_is_shown() -> None:
    spec = build(snippets=5, min_stride=2, max_stride=6, test_stride=3, rgb_offset=5, flow_length=8, fps=12.5).spec
    assert (spec.sampling, spec.steps, spec.snippets, spec.stride) == ("snippets", 1, 5, (2, 6))
    assert (spec.test_stride, spec.rgb_offset, spec.flow_offset, spec.flow_length, spec.fps) == (3, 5, 0, 8, 12.5)
    spread = build(min_spread=0.5, max_spread=1.0, resize=70, flow_offset=-2).spec
    assert (spread.spread, spread.resize, spread.flow_offset) == ((0.5, 1.0), 70, -2)


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        ({"snippets": 2}, "their number is odd, 1, 3, 5 ..., got 2"),
        ({"snippets": 0}, "got 0"),
        ({"min_spread": 0.5}, "min_spread and max_spread go together, got 0.5 and None"),
        ({"min_spread": 0.5, "max_spread": 1.0, "test_stride": 3}, r"test_stride \(3\) is .* leave one of them out"),
        ({"dropout": 1.0}, "at least 0 and below 1, got 1.0"),
        ({"attention_hidden": 0}, "attention_hidden is at least 1, got 0"),
        ({"bilinear_size": 0}, "bilinear_size is at least 1, got 0"),
        ({"hidden": 0}, "hidden is at least 1, got 0"),
        ({"auxiliary": -0.1}, "auxiliary is at least 0, got -0.1"),
        ({"length": -1.0}, "length is at least 0, got -1.0"),
        ({"top_d": 0}, "fused features d, whole and at least 1, got 0"),
        (
            {"top": "sum", "temporal_d": 32},
            r"sum joins features entry by entry .* got \(16, 16, 32\); leave temporal_d",
        ),
        ({"top": "max"}, "top must be 'stcb' or"),
    ],
)
def test_numbers_that_cannot_be(numbers: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        build(**numbers)


def test_clips_that_do_not_fit_are_refused() -> None:
    network, (rgb, flow) = build(), clips()
    with pytest.raises(ShapeError, match="stpn_resnet18 takes one frame and 3 snippets of flow, got 1 and 2"):
        network(rgb, flow[:, :2])
    with pytest.raises(ShapeError, match="got 2 and 3"):
        network(rgb.repeat(1, 2, 1, 1, 1), flow)
    assert build(attention="none").attention_maps(rgb, flow) == {}


def losses(seed: int, **numbers: Any) -> list[float]:
    """A few steps on clips that differ in brightness and direction, at an ordinary rate."""
    torch.manual_seed(seed)
    network = create_model("stpn_resnet18", num_classes=4, width=4, size=32, dropout=0.0, hash_seed=seed, **numbers)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    label = torch.arange(8) % 4
    rgb, flow = clips(B=8, size=32, seed=seed)
    rgb, flow = rgb.float() / 2, flow.float()
    rgb[label % 2 == 1] += 60
    flow[label // 2 == 1, :, ::2] += 30
    network.train()
    found = []
    for _ in range(12):
        loss = vote_loss(network(rgb, flow), label)
        found.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return found


@pytest.mark.parametrize("seed", range(5))
def test_learns_at_an_ordinary_rate(seed: int) -> None:
    found = losses(seed)
    assert 1.2 < found[0] < 1.7, "all classes begin nearly equal"
    assert found[-1] < 0.5 * found[0]


def test_the_algorithm_as_printed_does_not() -> None:
    """Without a normalisation the products are so large that the first loss is far from log K."""
    assert losses(0, normalization="none")[0] > 20


@pytest.mark.parametrize("how", ["stcb", "product", "bilinear"])
def test_products_are_taken_in_float32_under_autocast(how: Join) -> None:
    torch.manual_seed(0)
    fusion = Fusion(
        how,
        (8, 8, 8),
        d=16,
        bilinear_size=2,
        length=None,
        seed=0,
        normalization="none",
        l2_scope="location",
        lean=False,
    )
    xs = [torch.randn(4, 8).bfloat16() for _ in range(3)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = fusion(*xs)
        inputs = [layer(x) for layer, x in zip(fusion.projections, xs, strict=True)] if how == "bilinear" else xs
    wide = [x.float() for x in inputs]
    expected = {
        "stcb": lambda: fusion.stcb(*wide),
        "product": lambda: torch.stack(wide).prod(0),
        "bilinear": lambda: outer_product(wide),
    }[how]()
    assert out.dtype == torch.float32
    assert torch.equal(out, expected)
    if how == "product":
        assert fusion(*xs).dtype == torch.bfloat16, "outside autocast what comes out is of the inputs' type"
