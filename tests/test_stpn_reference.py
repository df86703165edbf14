"""The NumPy pyramid on cases worked out by hand, then the package's against it."""

from typing import Any

import numpy as np
import pytest
import torch

from stpn_reference import Fusion, Pyramid, Sketch, compact_bilinear, fuse, fuse_maps, rooted, shortened
from twostream.layers.compact_bilinear import CompactBilinear
from twostream.models.registry import create_model
from twostream.models.st_pyramid import SpatiotemporalPyramid


def sketch(channels: tuple[int, ...], size: int, seed: int = 0) -> Sketch:
    g = np.random.default_rng(seed)
    return Sketch([g.integers(0, size, c) for c in channels], [g.choice([-1, 1], c) for c in channels], size)


def test_one_entry_each_meets_in_the_cell_that_their_hashes_name() -> None:
    s = Sketch([np.array([4, 1]), np.array([3, 0, 2])], [np.array([1, -1]), np.array([-1, 1, 1])], 5)
    out = compact_bilinear([np.array([2.0, 0.0]), np.array([0.0, 0.0, 7.0])], s)
    assert out.tolist() == [0, 14, 0, 0, 0]  # 4 + 2 = 6, one round further than 1
    out = compact_bilinear([np.array([2.0, 3.0]), np.array([5.0, 0.0, 0.0])], s)
    assert out.tolist() == [0, 0, -10, 0, 15]


def test_the_published_example_of_a_circular_convolution() -> None:
    """x = (2 3 4 1 1), y = (2 2 2 1 1) laid on their own cells: (15 17 20 19 17)."""
    s = Sketch([np.arange(5)] * 2, [np.ones(5, np.int64)] * 2, 5)
    out = compact_bilinear([np.array([2.0, 3, 4, 1, 1]), np.array([2.0, 2, 2, 1, 1])], s)
    assert out.tolist() == [15, 17, 20, 19, 17]


@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_the_sum_of_all_cells_is_the_product_of_the_signed_sums(m: int) -> None:
    g = np.random.default_rng(m)
    channels = (3, 4, 2, 3)[:m]
    s, vectors = sketch(channels, 7), [g.normal(size=c) for c in channels]
    expected = np.prod([np.sum(sign * v) for sign, v in zip(s.signs, vectors, strict=True)])
    assert abs(compact_bilinear(vectors, s).sum() - expected) < 1e-12


def test_normalisations_by_hand() -> None:
    x = np.array([4.0, -9.0, 0.0])
    assert rooted(x, "none", 2).tolist() == shortened(x, "signed_sqrt").tolist() == [4, -9, 0]
    assert rooted(x, "signed_sqrt", 3, eps=0).tolist() == rooted(x, "signed_sqrt_l2", 3, eps=0).tolist() == [2, -3, 0]
    np.testing.assert_allclose(rooted(np.array([8.0, -27.0]), "signed_root", 3, eps=0), [2, -3], rtol=1e-15)
    np.testing.assert_allclose(rooted(x, "signed_sqrt", 2, eps=5.0)[0], 3 - np.sqrt(5), rtol=1e-15)
    np.testing.assert_allclose(shortened(x, "signed_sqrt_l2", eps=0), x / np.sqrt(97), rtol=1e-15)
    assert shortened(np.zeros(3), "signed_sqrt_l2").tolist() == [0, 0, 0]


def test_simple_fusions_by_hand() -> None:
    a, b = np.array([1.0, -2.0]), np.array([3.0, 5.0])
    found = {how: fuse([a, b], Fusion(how)).tolist() for how in ("sum", "product", "max", "concatenation")}
    assert found == {"sum": [4, 3], "product": [3, -10], "max": [3, 5], "concatenation": [1, -2, 3, 5]}
    assert fuse([a, b], Fusion("product", gain=2.0)).tolist() == [6, -20]
    assert fuse([a, b], Fusion("bilinear", projections=[np.eye(2)] * 2)).tolist() == [3, 5, -6, -10]
    swapped = [np.array([[0.0, 1], [1, 1]]), np.eye(2)]
    assert fuse([a, b], Fusion("bilinear", projections=swapped)).tolist() == [-6, -10, -3, -5]
    maps = [np.arange(12.0).reshape(2, 2, 3), np.ones((2, 2, 3))]
    assert fuse_maps(maps, Fusion("sum"))[1, 1, 2] == 12
    one = fuse_maps(maps, Fusion("product", normalization="signed_sqrt_l2", gain=3.0))
    np.testing.assert_allclose((one**2).sum(0), 9, rtol=1e-5)
    whole = fuse_maps(maps, Fusion("product", normalization="signed_sqrt_l2", gain=3.0, whole=True))
    np.testing.assert_allclose((whole**2).sum(), 9, rtol=1e-5)


def test_an_attention_of_zeros_is_the_average_and_a_strong_one_looks_at_one_place() -> None:
    g = np.random.default_rng(0)
    appearance, motion = g.random((3, 2, 2)), g.random((1, 3, 2, 2))
    join, classifier = Fusion("concatenation"), [(np.eye(9), np.zeros(9))]
    zeros = [(np.zeros((4, 3, 1, 1)), np.zeros(4)), (np.zeros((1, 4, 1, 1)), np.zeros(1))]
    found = Pyramid(None, "appearance", zeros, join, classifier)(appearance, motion)
    np.testing.assert_allclose(found["attended"], appearance.mean((1, 2)), rtol=1e-14)
    assert np.allclose(found["weights"], 1 / 4)
    np.testing.assert_allclose(found["logits"][6:], motion[0].mean((1, 2)), rtol=1e-14)
    first, sharp = np.zeros((4, 3, 1, 1)), np.zeros((1, 4, 1, 1))
    first[0, 0], sharp[0, 0] = 1, 1e4
    strong = [(first, np.zeros(4)), (sharp, np.zeros(1))]
    found = Pyramid(None, "appearance", strong, join, classifier)(appearance, motion)
    y, x = np.unravel_index(appearance[0].argmax(), (2, 2))
    np.testing.assert_allclose(found["attended"], appearance[:, y, x], rtol=1e-12)


def sketch_of(state: dict[str, torch.Tensor], prefix: str, channels: tuple[int, ...]) -> Sketch:
    """What a fusion of the package has drawn, from its state dict."""
    hashes, signs = (state[f"{prefix}{name}"].numpy().astype(np.int64) for name in ("hashes", "signs"))
    ends = np.cumsum(channels)[:-1]
    return Sketch(np.split(hashes, ends), np.split(signs, ends), int(state[f"{prefix}size"]))


@pytest.mark.parametrize("normalization", ["none", "signed_sqrt", "signed_root", "signed_sqrt_l2"])
@pytest.mark.parametrize("channels", [(5,), (4, 6), (3, 5, 4)])
@pytest.mark.parametrize("size", [8, 11])
def test_the_packages_operator_at_every_location(channels: tuple[int, ...], size: int, normalization: str) -> None:
    operator = CompactBilinear(channels, size, seed=3, normalization=normalization)  # type: ignore[arg-type]
    fusion = Fusion("stcb", sketch_of(operator.state_dict(), "", channels), normalization=normalization)
    g = np.random.default_rng(1)
    maps = [g.normal(size=(2, c, 2, 3)) for c in channels]
    ours = operator(*map(torch.from_numpy, maps)).numpy()
    for video in range(2):
        expected = fuse_maps([m[video] for m in maps], fusion)
        assert np.abs(ours[video] - expected).max() <= 1e-10 * np.abs(expected).max()
    vectors = operator(*(torch.from_numpy(m[:, :, 0, 1]) for m in maps)).numpy()
    np.testing.assert_allclose(vectors, ours[:, :, 0, 1], rtol=1e-12, atol=1e-14)


def reference_of(model: SpatiotemporalPyramid) -> Pyramid:
    """The same pyramid in NumPy, from the model's numbers and its state dict."""
    state, numbers = model.state_dict(), model.numbers
    C = model.appearance.channels

    def fusion(how: str, prefix: str, channels: tuple[int, ...]) -> Fusion:
        return Fusion(
            "concatenation" if how == "concat" else how,
            sketch_of(state, f"{prefix}stcb.", channels) if how == "stcb" else None,
            [state[f"{prefix}projections.{i}.weight"].numpy() for i in range(len(channels))]
            if how == "bilinear"
            else [],
            float(state.get(f"{prefix}gain", 1.0)),
            numbers["normalization"],
            numbers["l2_scope"] == "sample",
        )

    S, how = numbers["snippets"], numbers["temporal_fusion"]
    temporal = fusion(how, "temporal_fusion.", (C,) * S) if S > 1 else None
    M = C  # channels of the motion map
    if temporal is not None:
        M = temporal.sketch.size if temporal.sketch else S * C if how == "concat" else C
    attention, convolutions = numbers["attention"], []
    if attention in ("stcb", "concat"):
        attention = fusion(attention, "attention.fusion.", (C, M))
    if "attention.reduce.weight" in state:
        last = state["attention.score.weight"].numpy()
        convolutions = [
            (state["attention.reduce.weight"].numpy(), state["attention.reduce.bias"].numpy()),
            (last, np.zeros(len(last))),  # the softmax would cancel a bias
        ]
    pooled = (C, M) if attention == "none" else (C, C, M)
    layers = [name.removesuffix(".weight") for name in state if name.startswith("classifier.") and "weight" in name]
    classifier = [(state[f"{layer}.weight"].numpy(), state[f"{layer}.bias"].numpy()) for layer in layers]
    return Pyramid(temporal, attention, convolutions, fusion(numbers["top"], "top.", pooled), classifier)


CASES: list[dict[str, Any]] = [
    {},
    *({"normalization": rule} for rule in ("none", "signed_sqrt", "signed_root")),
    {"l2_scope": "sample"},
    {"snippets": 1},
    {"snippets": 5},
    {"snippets": 7},
    {"snippets": 5, "normalization": "signed_root"},
    *({"temporal_fusion": how} for how in ("sum", "max", "concat")),
    {"temporal_fusion": "sum", "normalization": "none", "snippets": 5},
    {"temporal_d": 13},
    *({"attention": how} for how in ("concat", "appearance", "average", "max", "none")),
    {"attention": "concat", "temporal_d": 5},
    *({"top": how} for how in ("concat", "sum", "product", "bilinear")),
    *({"top": how, "normalization": "none"} for how in ("product", "bilinear")),
    {"top": "bilinear", "normalization": "signed_root", "temporal_d": 6},
    {"top": "sum", "attention": "none", "snippets": 1},
    {"temporal_fusion": "concat", "attention": "concat", "top": "concat"},
    {"hidden": 7},
    {"hash_seed": 5, "lean": True, "attention_d": 33, "top_d": 31},
]


@pytest.mark.parametrize("numbers", CASES, ids=lambda case: ",".join(f"{k}={v}" for k, v in case.items()) or "default")
def test_the_packages_pyramid_above_its_backbones(numbers: dict[str, Any]) -> None:
    torch.manual_seed(0)
    sizes = {"width": 1, "size": 64, "attention_d": 32, "top_d": 64, "attention_hidden": 6, "bilinear_size": 3}
    model = create_model("stpn_resnet18", num_classes=5, **{**sizes, **numbers}).double().eval()
    assert isinstance(model, SpatiotemporalPyramid)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "backbone" not in name:
                parameter.add_(torch.rand_like(parameter) - 0.3, alpha=0.5)
    rgb = torch.randint(0, 256, (2, 1, 3, 64, 96), dtype=torch.uint8)
    flow = torch.randint(64, 192, (2, model.spec.snippets, 20, 64, 96), dtype=torch.uint8)
    pyramid = reference_of(model)
    with torch.no_grad():
        logits = model(rgb, flow).numpy()
        frames = model.appearance(rgb).numpy()
        snippets = model.motion(flow).unflatten(0, (2, -1)).numpy()
        motion = model.maps(rgb, flow)[1].numpy()
        looks = {name: weights.numpy() for name, weights in model.attention_maps(rgb, flow).items()}
    assert frames.shape[2:] == (2, 3)
    for video in range(2):
        expected = pyramid(frames[video], snippets[video])
        assert np.abs(motion[video] - expected["motion"]).max() <= 1e-10 * np.abs(expected["motion"]).max()
        if pyramid.convolutions:
            assert np.abs(looks["attention"][video] - expected["weights"]).max() <= 1e-10
        assert np.abs(logits[video, 0] - expected["logits"]).max() <= 1e-10 * np.abs(expected["logits"]).max()
    assert np.abs(logits[0] - logits[1]).max() > 1e-6, "two videos must differ for this to show anything"
    if pyramid.convolutions:
        assert np.ptp(looks["attention"]) > 1e-4, "weights that are all equal would show nothing"
