"""The NumPy pyramid on cases worked out by hand, then the package's against it."""

import numpy as np
import pytest
import torch

from stpn_reference import Choices, Layers, Sketch, compact_bilinear, fuse, fuse_maps, normalised, pyramid
from twostream.layers.compact_bilinear import CompactBilinear


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
    x, exact = np.array([4.0, -9.0, 0.0]), {"root_eps": 0.0, "length_eps": 0.0}
    assert normalised(x, "none", 2).tolist() == [4, -9, 0]
    assert normalised(x, "signed_sqrt", 3, **exact).tolist() == [2, -3, 0]
    np.testing.assert_allclose(normalised(np.array([8.0, -27.0]), "signed_root", 3, **exact), [2, -3], rtol=1e-15)
    np.testing.assert_allclose(
        normalised(x, "signed_sqrt_l2", 2, **exact), np.array([2, -3, 0]) / np.sqrt(13), rtol=1e-15
    )
    np.testing.assert_allclose(normalised(x, "signed_sqrt", 2, root_eps=5.0)[:1], 3 - np.sqrt(5), rtol=1e-15)
    assert normalised(np.zeros(3), "signed_sqrt_l2", 2).tolist() == [0, 0, 0]


def test_simple_fusions_by_hand() -> None:
    a, b = np.array([1.0, -2.0]), np.array([3.0, 5.0])
    found = {how: fuse([a, b], how, None, "none").tolist() for how in ("sum", "product", "max", "concatenation")}
    assert found == {"sum": [4, 3], "product": [3, -10], "max": [3, 5], "concatenation": [1, -2, 3, 5]}
    assert fuse([a, b], "bilinear", None, "none").tolist() == [3, 5, -6, -10]
    maps = [np.arange(12.0).reshape(2, 2, 3), np.ones((2, 2, 3))]
    assert fuse_maps(maps, "sum", None, "none")[1, 1, 2] == 12


def test_an_attention_of_zeros_is_the_average_and_a_strong_one_looks_at_one_place() -> None:
    g = np.random.default_rng(0)
    appearance, motion = g.random((3, 2, 2)), g.random((1, 3, 2, 2))
    zeros = np.zeros((4, 3, 1, 1)), np.zeros(4)
    classifier = [(np.eye(9), np.zeros(9))]
    choices = Choices(attention="appearance", top="concatenation")
    found = pyramid(appearance, motion, Layers({}, [zeros, (np.zeros((1, 4, 1, 1)), np.zeros(1))], classifier), choices)
    np.testing.assert_allclose(found["vectors"]["attended"], appearance.mean((1, 2)), rtol=1e-14)
    assert np.allclose(found["weights"], 1 / 4)
    np.testing.assert_allclose(found["logits"][6:], motion[0].mean((1, 2)), rtol=1e-14)
    strong = np.zeros((4, 3, 1, 1))
    strong[0, 0] = 1
    sharp = np.zeros((1, 4, 1, 1))
    sharp[0, 0] = 1e4
    found = pyramid(appearance, motion, Layers({}, [(strong, np.zeros(4)), (sharp, np.zeros(1))], classifier), choices)
    y, x = np.unravel_index(appearance[0].argmax(), (2, 2))
    np.testing.assert_allclose(found["vectors"]["attended"], appearance[:, y, x], rtol=1e-12)


@pytest.mark.parametrize("normalization", ["none", "signed_sqrt", "signed_root", "signed_sqrt_l2"])
@pytest.mark.parametrize("channels", [(5,), (4, 6), (3, 5, 4)])
@pytest.mark.parametrize("size", [8, 11])
def test_the_packages_fusion_agrees_at_every_location(channels: tuple[int, ...], size: int, normalization: str) -> None:
    operator = CompactBilinear(channels, size, seed=3, normalization=normalization)  # type: ignore[arg-type]
    hashes, signs = (operator.state_dict()[name].numpy().astype(np.int64) for name in ("hashes", "signs"))
    ends = np.cumsum(channels)[:-1]
    drawn = Sketch(np.split(hashes, ends), np.split(signs, ends), size)
    g = np.random.default_rng(1)
    maps = [g.normal(size=(2, c, 2, 3)) for c in channels]
    ours = operator(*map(torch.from_numpy, maps)).numpy()
    for video in range(2):
        expected = fuse_maps([m[video] for m in maps], "stcb", drawn, normalization)
        assert np.abs(ours[video] - expected).max() <= 1e-10 * np.abs(expected).max()
    vectors = operator(*(torch.from_numpy(m[:, :, 0, 1]) for m in maps)).numpy()
    np.testing.assert_allclose(vectors, ours[:, :, 0, 1], rtol=1e-12, atol=1e-14)
