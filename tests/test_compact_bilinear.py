"""STCB against its definition, its statistics over many hashes, and everything torch asks of an operator."""

import itertools
from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor, nn

from twostream.clip import ShapeError
from twostream.errors import UsageError
from twostream.layers import CompactBilinear, without_fft
from twostream.layers.compact_bilinear import MatrixCompactBilinear, l2_normalised, signed_root
from twostream.layers.compact_bilinear_ops import by_outer_product, compact_bilinear, fuse, fuse_grad

CHANNELS = (5, 4, 3, 2)


def inputs_of(channels: Sequence[int], *space: int, B: int = 2, seed: int = 5, grad: bool = False) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(B, c, *space, generator=g, dtype=torch.float64).requires_grad_(grad) for c in channels]


def sketches(operator: CompactBilinear) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    sizes = list(operator.in_channels)
    return torch.split(operator.hashes, sizes), torch.split(operator.signs, sizes)


def by_definition(operator: CompactBilinear, xs: Sequence[Tensor]) -> Tensor:
    """Every index tuple for itself, as in the sum of the sheet's section 2.1."""
    hashes, signs = sketches(operator)
    d = operator.out_channels
    out = torch.zeros(len(xs[0]), d, *xs[0].shape[2:], dtype=xs[0].dtype)
    for places in itertools.product(*map(range, operator.in_channels)):
        k = sum(int(h[j]) for h, j in zip(hashes, places, strict=True)) % d
        product = torch.ones_like(out[:, 0])
        for x, s, j in zip(xs, signs, places, strict=True):
            product = product * s[j] * x[:, j]
        out[:, k] += product
    return out.sum((2, 3)) if operator.sum_pool and out.ndim == 4 else out


@pytest.mark.parametrize("m", [1, 2, 3, 4])
@pytest.mark.parametrize("d", [1, 2, 7, 8])
@pytest.mark.parametrize("sum_pool", [False, True])
def test_is_its_definition(m: int, d: int, sum_pool: bool) -> None:
    for lean, space in itertools.product((False, True), ((), (2, 3))):
        operator = CompactBilinear(CHANNELS[:m], d, seed=m, sum_pool=sum_pool, lean=lean)
        xs = inputs_of(CHANNELS[:m], *space)
        wanted = by_definition(operator, xs)
        torch.testing.assert_close(operator(*xs), wanted, rtol=0, atol=1e-12)
        torch.testing.assert_close(operator(*(x.requires_grad_() for x in xs)), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("channels", [(1,), (5, 4), (4, 3, 2), (2, 3, 1, 2)])
@pytest.mark.parametrize("sum_pool", [False, True])
@pytest.mark.parametrize("lean", [False, True])
def test_first_and_second_derivatives(channels: tuple[int, ...], sum_pool: bool, lean: bool) -> None:
    for d, space in ((6, ()), (5, (1, 2))):
        operator = CompactBilinear(channels, d, sum_pool=sum_pool, lean=lean)
        xs = inputs_of(channels, *space, grad=True)
        assert torch.autograd.gradcheck(operator, xs)
        assert torch.autograd.gradgradcheck(operator, xs)


@pytest.mark.parametrize("sum_pool", [False, True])
def test_operators_keep_torchs_rules(sum_pool: bool) -> None:
    """Schema, fake kernels (strides too), autograd registration, and both under AOT tracing with dynamic sizes."""
    operator = CompactBilinear((3, 2, 2), 4)
    for space in ((), (2, 2)):
        xs = inputs_of((3, 2, 2), *space, grad=True)
        for keep in (False, True):
            torch.library.opcheck(fuse, (xs, operator.hashes, operator.signs, 4, sum_pool, keep))
        out = operator(*xs)
        g = torch.randn_like(out.sum((2, 3)) if sum_pool and space else out).requires_grad_()
        torch.library.opcheck(fuse_grad, (g, xs, [], operator.hashes, operator.signs, 4, sum_pool))


def test_the_two_ways_of_a_summed_pair_agree() -> None:
    """Few channels and many locations go over the outer product, many channels over the transform."""
    for channels, d, space in (((6, 5), 64, (4, 5)), ((60, 50), 8, (1, 2))):
        xs = inputs_of(channels, *space, grad=True)
        rows = [x.flatten(2).mT for x in xs]
        assert by_outer_product(rows, d, True) == (channels == (6, 5))
        assert not by_outer_product(rows, d, False)
        pooled = CompactBilinear(channels, d, sum_pool=True)
        mapped = CompactBilinear(channels, d)
        torch.testing.assert_close(pooled(*xs), mapped(*xs).sum((2, 3)), rtol=0, atol=1e-12)
        one = torch.autograd.grad(pooled(*xs).sin().sum(), xs)
        other = torch.autograd.grad(mapped(*xs).sum((2, 3)).sin().sum(), xs)
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


@pytest.mark.parametrize("lean", [True, False])
def test_large_batches_are_worked_off_in_blocks(lean: bool) -> None:
    operator = CompactBilinear((3, 3, 2), 1 << 14, lean=lean)
    xs = inputs_of((3, 3, 2), 2, 2, B=9, grad=True)
    out = operator(*xs)
    grads = torch.autograd.grad(out.square().sum(), xs)
    for i in range(9):
        alone = [x[i : i + 1].detach().requires_grad_() for x in xs]
        one = operator(*alone)
        assert torch.equal(one, out[i : i + 1]), "a sample's result depends on its batch"
        expected = torch.autograd.grad(one.square().sum(), alone)
        torch.testing.assert_close([g[i : i + 1] for g in grads], list(expected), rtol=0, atol=1e-12)


def test_single_entries_land_where_the_hashes_say() -> None:
    operator = CompactBilinear((5, 4), 7, seed=3)
    (h1, h2), (s1, s2) = sketches(operator)
    for a, b in itertools.product(range(5), range(4)):
        x, y = torch.eye(5, dtype=torch.float64)[a : a + 1], torch.eye(4, dtype=torch.float64)[b : b + 1]
        wanted = torch.zeros(1, 7, dtype=torch.float64)
        wanted[0, (h1[a] + h2[b]) % 7] = s1[a] * s2[b]
        torch.testing.assert_close(operator(x, y), wanted, rtol=0, atol=1e-12)


def test_sum_of_the_output_is_the_product_of_signed_sums() -> None:
    operator = CompactBilinear(CHANNELS, 9)
    xs = inputs_of(CHANNELS)
    sums = [(x * s).sum(1) for x, s in zip(xs, sketches(operator)[1], strict=True)]
    torch.testing.assert_close(operator(*xs).sum(1), torch.stack(sums).prod(0), rtol=0, atol=1e-12)


def test_is_linear_in_every_input() -> None:
    operator = CompactBilinear((5, 4, 3), 8)
    xs, others = inputs_of((5, 4, 3)), inputs_of((5, 4, 3), seed=6)
    for i in range(3):
        both, second = list(xs), list(xs)
        both[i], second[i] = 2 * xs[i] - 3 * others[i], others[i]
        torch.testing.assert_close(operator(*both), 2 * operator(*xs) - 3 * operator(*second), rtol=0, atol=1e-11)


def test_order_matters_unless_the_hashes_move_along() -> None:
    operator, swapped = CompactBilinear((4, 4), 8), CompactBilinear((4, 4), 8)
    x, y = inputs_of((4, 4))
    assert not torch.allclose(operator(x, y), operator(y, x)), "every input has hashes of its own"
    with torch.no_grad():
        swapped.hashes.copy_(operator.hashes.roll(4))
        swapped.signs.copy_(operator.signs.roll(4))
    torch.testing.assert_close(swapped(y, x), operator(x, y), rtol=0, atol=1e-12)


@pytest.mark.parametrize("normalization", ["none", "signed_sqrt", "signed_root", "signed_sqrt_l2"])
def test_a_map_is_its_locations(normalization: str) -> None:
    operator = CompactBilinear((5, 4), 8, normalization=normalization)
    xs = inputs_of((5, 4), 3, 2)
    out = operator(*xs)
    assert out.shape == (2, 8, 3, 2)
    for i, j in itertools.product(range(3), range(2)):
        torch.testing.assert_close(out[:, :, i, j], operator(*(x[:, :, i, j] for x in xs)), rtol=0, atol=1e-12)
    last = operator(*(x.contiguous(memory_format=torch.channels_last) for x in xs))
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, out, rtol=0, atol=1e-12)


def draws(B: int, d: int, hashes: Tensor, signs: Tensor, xs: Sequence[Tensor]) -> Tensor:
    """The operator under B draws at once: (B, C) hashes for each of the m inputs, by the definition's transform."""
    product = torch.ones(B, d // 2 + 1, dtype=torch.complex128)
    for i, x in enumerate(xs):
        sketch = torch.zeros(B, d, dtype=torch.float64).scatter_add_(1, hashes[:, i], signs[:, i] * x)
        product = product * torch.fft.rfft(sketch)
    return torch.fft.irfft(product, n=d)


@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_draws_are_the_layers(m: int) -> None:
    operator = CompactBilinear((6,) * m, 16, seed=m)
    hashes, signs = (torch.stack(list(x))[None] for x in sketches(operator))
    xs = inputs_of((6,) * m, B=1)
    drawn = draws(1, 16, hashes, signs.double(), [x[0] for x in xs])
    torch.testing.assert_close(operator(*xs), drawn, rtol=0, atol=1e-12)


@pytest.mark.parametrize("m", [1, 2, 3])
@pytest.mark.parametrize("d", [64, 256])
def test_length_is_kept_but_for_a_noise_that_falls_with_the_root_of_d(m: int, d: int) -> None:
    """E|out|^2 is the product of the squared lengths; its relative deviation that of sums over equal index pairs."""
    N, C = 2_000, 64
    g = torch.Generator().manual_seed(10 * m + d)
    xs = torch.rand(m, C, generator=g, dtype=torch.float64) * 2 - 1
    hashes = torch.randint(d, (N, m, C), generator=g)
    signs = torch.randint(2, (N, m, C), generator=g).double() * 2 - 1
    ratio = draws(N, d, hashes, signs, list(xs)).square().sum(1) / xs.square().sum(1).prod()
    assert (ratio.mean() - 1).abs() < 4.5 * ratio.std() / N**0.5
    assert ratio.std() == pytest.approx(((2 ** (m + 1) - 2) / d) ** 0.5, rel=0.15)


@pytest.mark.parametrize("m", [1, 2, 3])
def test_inner_products_are_unbiased_with_the_stated_variance(m: int) -> None:
    """Over many hash draws, against Pham and Pagh's mean and bound of the variance."""
    N, C, d = 20_000, 32, 64
    g = torch.Generator().manual_seed(m)
    xs, ys = (torch.rand(m, C, generator=g, dtype=torch.float64) + 0.2 for _ in range(2))
    hashes = torch.randint(d, (N, m, C), generator=g)
    signs = torch.randint(2, (N, m, C), generator=g).double() * 2 - 1
    estimates = (draws(N, d, hashes, signs, list(xs)) * draws(N, d, hashes, signs, list(ys))).sum(1)
    truth = (xs * ys).sum(1).prod()
    assert (estimates.mean() - truth).abs() < 4.5 * estimates.std() / N**0.5
    assert estimates.var() < (3**m - 1) / d * (xs.square().sum(1) * ys.square().sum(1)).prod()


def test_seeds_of_the_layer_are_such_draws() -> None:
    """The layer itself over its seeds: unbiased; one hash shared by both inputs would give 1.45 times the truth."""
    C, d, N = 64, 256, 400
    x, y = torch.rand(2, 1, C, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    own, shared = [], []
    for seed in range(N):
        operator = CompactBilinear((C, C), d, seed=seed)
        own.append((operator(x, x) * operator(y, y)).sum())
        operator.hashes[C:], operator.signs[C:] = operator.hashes[:C], operator.signs[:C]
        shared.append((operator(x, x) * operator(y, y)).sum())
    ratio = torch.stack(own) / (x * y).sum() ** 2
    assert (ratio.mean() - 1).abs() < 4.5 * ratio.std() / N**0.5
    assert torch.stack(shared).mean() / (x * y).sum() ** 2 > 1.25


def test_hashes_are_uniform_and_independent() -> None:
    operator = CompactBilinear((50_000, 50_000), 4)
    (h1, h2), (s1, s2) = sketches(operator)
    joint = torch.bincount(h1 * 16 + h2 * 4 + (s1 + 1) + (s2 + 1) // 2, minlength=64).double()
    expected = 50_000 / 64
    assert ((joint - expected).square() / expected).sum() < 63 + 5 * (2 * 63) ** 0.5


def test_seeds_decide_and_global_random_state_is_left_alone() -> None:
    state = torch.random.get_rng_state()
    one, same, other = (CompactBilinear((40, 30), 16, seed=seed) for seed in (7, 7, 8))
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(one.hashes, same.hashes)
    assert torch.equal(one.signs, same.signs)
    assert not torch.equal(one.hashes, other.hashes)
    assert not torch.equal(one.signs, other.signs)
    assert not torch.equal(one.hashes[:30], one.hashes[40:])
    assert not list(one.parameters())


def test_state_dict_carries_the_hashes() -> None:
    one, other = CompactBilinear((5, 4), 8, seed=1), CompactBilinear((5, 4), 8, seed=2)
    xs = inputs_of((5, 4))
    assert not torch.allclose(one(*xs), other(*xs))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(*xs), other(*xs))
    assert one.half().double().signs.dtype == torch.int8
    assert torch.equal(one(*xs), other(*xs))


def test_hashes_of_another_size_are_refused() -> None:
    with pytest.raises(
        ShapeError, match=r"top\.hashes were drawn for d=8, this fusion has d=4; build it with the same"
    ):
        nn.ModuleDict({"top": CompactBilinear((5, 4), 4)}).load_state_dict(
            nn.ModuleDict({"top": CompactBilinear((5, 4), 8)}).state_dict()
        )
    with pytest.raises(RuntimeError, match="size mismatch for hashes"):
        CompactBilinear((5, 4), 8).load_state_dict(CompactBilinear((5, 5), 8).state_dict())


def test_starts_on_the_meta_device() -> None:
    with torch.device("meta"):
        operator = CompactBilinear((5, 4), 8, seed=4)
    assert operator.hashes.is_meta
    operator = operator.to_empty(device="cpu")
    operator.reset_parameters()
    assert torch.equal(operator.hashes, CompactBilinear((5, 4), 8, seed=4).hashes)


@pytest.mark.parametrize("sum_pool", [False, True])
@pytest.mark.parametrize("normalization", ["none", "signed_sqrt_l2"])
def test_float32_island_under_autocast(sum_pool: bool, normalization: str) -> None:
    operator = CompactBilinear((5, 4), 64, sum_pool=sum_pool, normalization=normalization)
    xs = [x.detach().float().requires_grad_() for x in inputs_of((5, 4), 3, 3)]
    plain = operator(*xs)
    wanted = torch.autograd.grad(plain.square().sum(), xs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = operator(*xs)
        assert inside.dtype == torch.float32
        assert torch.equal(inside, plain)
        got = torch.autograd.grad(inside.square().sum(), xs)
        assert operator(*(x.bfloat16() for x in xs)).dtype == torch.float32
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_goes_through_float32(dtype: torch.dtype) -> None:
    """A CPU has no transform in half precision, and its range would not do: 300 times 300 is beyond it."""
    operator = CompactBilinear((5, 4), 8, normalization="signed_sqrt")
    xs = [(300 * x).to(dtype).requires_grad_() for x in inputs_of((5, 4))]
    out = operator(*xs)
    assert out.dtype == dtype
    wanted = operator(*(x.detach().double() for x in xs))
    torch.testing.assert_close(out.double(), wanted, rtol=1e-2, atol=1e-2)
    out.float().sum().backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in xs)
    assert operator(xs[0], xs[1].detach().double()).dtype == torch.float64
    with pytest.raises(ShapeError, match=r"float32 or float64, got torch\.\w*float16, .* cast the inputs"):
        compact_bilinear(xs, operator.hashes, operator.signs, 8)


def test_signed_root_is_the_root_of_the_magnitude() -> None:
    x = torch.tensor([-2.0, -1e-5, 0.0, 3e-4, 0.5, 700.0], dtype=torch.float64)
    for order in (1, 2, 3, 4):
        wanted = x.sign() * ((x.abs() + 1e-3) ** (1 / order) - 1e-3 ** (1 / order))
        torch.testing.assert_close(signed_root(x, order), wanted, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(signed_root(x[-1:], 2), x[-1:].sqrt(), rtol=2e-3, atol=0)


def test_normalisations() -> None:
    xs = inputs_of((5, 4, 3), 2, 2)
    raw = CompactBilinear((5, 4, 3), 8)(*xs)
    root = signed_root(raw, 2)

    def normalised(name: str, **more: str) -> Tensor:
        out: Tensor = CompactBilinear((5, 4, 3), 8, normalization=name, **more)(*xs)  # type: ignore[arg-type]
        return out

    assert torch.equal(normalised("signed_sqrt"), root)
    assert torch.equal(normalised("signed_root"), signed_root(raw, 3))
    unit = normalised("signed_sqrt_l2")
    torch.testing.assert_close(unit, root / root.norm(dim=1, keepdim=True), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(2, 2, 2, dtype=torch.float64), rtol=1e-5, atol=0)
    whole = normalised("signed_sqrt_l2", l2_scope="sample")
    torch.testing.assert_close(whole.flatten(1).norm(dim=1), torch.ones(2, dtype=torch.float64), rtol=1e-5, atol=0)
    torch.testing.assert_close(l2_normalised(root[:, :, 0, 0]), unit[:, :, 0, 0], rtol=0, atol=1e-15)


@pytest.mark.parametrize("normalization", ["none", "signed_sqrt", "signed_root", "signed_sqrt_l2"])
@pytest.mark.parametrize("lean", [False, True])
def test_gradients_are_finite_at_zero(normalization: str, lean: bool) -> None:
    operator = CompactBilinear((5, 4), 8, normalization=normalization, lean=lean)
    for scale in (0.0, 1e-30, 1e-12):
        xs = [(scale * x).detach().float().requires_grad_() for x in inputs_of((5, 4), 2, 2)]
        xs[1] = inputs_of((5, 4), 2, 2)[1].float().requires_grad_()
        operator(*xs).sum().backward()
        assert all(x.grad is not None and x.grad.isfinite().all() for x in xs)


@pytest.mark.parametrize("normalization", ["signed_sqrt", "signed_root", "signed_sqrt_l2"])
def test_lean_and_fast_agree_under_every_normalisation(normalization: str) -> None:
    xs = inputs_of((5, 4), 2, 2, grad=True)
    fast, lean = (CompactBilinear((5, 4), 8, normalization=normalization, lean=lean) for lean in (False, True))
    assert torch.equal(fast(*xs), lean(*xs))
    one, other = (torch.autograd.grad(operator(*xs).sin().sum(), xs) for operator in (fast, lean))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    assert torch.autograd.gradcheck(lean, xs)
    assert torch.autograd.gradgradcheck(fast, xs)
    assert torch.autograd.gradgradcheck(lean, xs)


def saved_bytes(operator: nn.Module, xs: Sequence[Tensor]) -> int:
    """What is kept for the backward pass beside the inputs and the layer's own state."""
    known = {t.untyped_storage().data_ptr() for t in (*xs, *operator.buffers())}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = operator(*xs)
    del kept
    return sum(saved.values())


def test_memory_for_the_backward_pass() -> None:
    xs = [x.float().requires_grad_() for x in inputs_of((16, 16), 3, 3)]
    rows, spectrum = 2 * 9, 33 * 8
    assert saved_bytes(CompactBilinear((16, 16), 64), xs) == 0
    assert saved_bytes(CompactBilinear((16, 16, 16), 64), [*xs, xs[0]]) == 3 * rows * spectrum
    assert saved_bytes(CompactBilinear((16, 16), 64, lean=True), xs) == 0
    assert saved_bytes(CompactBilinear((16, 16), 64, sum_pool=True), xs) == 0
    assert saved_bytes(CompactBilinear((16, 16), 64, lean=True, normalization="signed_sqrt_l2"), xs) == 0
    with torch.no_grad():
        assert saved_bytes(CompactBilinear((16, 16), 64), xs) == 0


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("lean", [False, True])
def test_compiles_without_a_break(lean: bool) -> None:
    operator = CompactBilinear((5, 4), 8, normalization="signed_sqrt_l2", lean=lean)
    xs = [x.float().requires_grad_() for x in inputs_of((5, 4), 2, 2)]
    compiled = torch.compile(operator, fullgraph=True, backend="aot_eager")
    wanted = torch.autograd.grad(operator(*xs).sin().sum(), xs)
    got = torch.autograd.grad(compiled(*xs).sin().sum(), xs)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sum_pool", [False, True])
def test_exports_with_a_free_batch(sum_pool: bool) -> None:
    operator = CompactBilinear((5, 4), 8, normalization="signed_sqrt_l2", sum_pool=sum_pool)
    xs = tuple(x.float() for x in inputs_of((5, 4), 2, 2, B=3))
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(operator, xs, dynamic_shapes=(({0: batch}, {0: batch}),))
    more = [x.float() for x in inputs_of((5, 4), 2, 2, B=5)]
    torch.testing.assert_close(program.module()(*more), operator(*more))


@pytest.mark.parametrize("d", [1, 2, 9, 16])
@pytest.mark.parametrize("sum_pool", [False, True])
def test_form_without_fft(d: int, sum_pool: bool) -> None:
    operator = CompactBilinear((5, 4, 3), d, seed=3, sum_pool=sum_pool, normalization="signed_sqrt_l2")
    operator.load_state_dict(CompactBilinear((5, 4, 3), d, seed=9).state_dict())
    network = nn.Sequential(nn.Identity(), nn.ModuleDict({"fusion": operator}))
    copied = without_fft(network)
    assert list(copied.state_dict()) == list(network.state_dict())
    assert isinstance(network[1]["fusion"], CompactBilinear)
    matrices = copied[1]["fusion"]  # type: ignore[index]
    assert type(matrices) is MatrixCompactBilinear
    assert type(without_fft(operator)) is MatrixCompactBilinear
    for space in ((), (2, 2)):
        xs = [x.float() for x in inputs_of((5, 4, 3), *space)]
        torch.testing.assert_close(matrices(*xs), operator(*xs), rtol=1e-4, atol=1e-5)
    matrices.load_state_dict(CompactBilinear((5, 4, 3), d, seed=11).state_dict())
    operator.load_state_dict(matrices.state_dict())
    torch.testing.assert_close(matrices(*xs), operator(*xs), rtol=1e-4, atol=1e-5)
    program = torch.export.export(matrices, tuple(xs))
    targets = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert not any("fft" in target or "twostream" in target or "complex" in target for target in targets)


def test_deterministic_mode_is_honoured() -> None:
    operator = CompactBilinear((50, 40), 8)
    xs = [x.float() for x in inputs_of((50, 40), 3, 3)]
    plain = operator(*xs)
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.equal(operator(*xs), plain)
    finally:
        torch.use_deterministic_algorithms(False)


def test_bad_inputs_are_refused() -> None:
    operator = CompactBilinear((5, 4), 8)
    x, y = inputs_of((5, 4), 3, 3)
    with pytest.raises(ShapeError, match=r"built for 2 inputs of \(5, 4\) channels, got 3: \(2, 5, 3, 3\)"):
        operator(x, y, y)
    for wrong in ((y, x), (x[:, :, 0], y[:, :, 0])):
        with pytest.raises(ShapeError, match=r"built for 2 inputs of \(5, 4\) channels, each \(B, c\) or"):
            operator(*wrong)
    for first, second in ((x[:1], y), (x, y[:, :, :2]), (x, y[:, :, 0, 0])):
        with pytest.raises(ShapeError, match="must agree in batch and size, got"):
            operator(first, second)
    with pytest.raises(ShapeError, match=r"must be floating point, got torch\.int64"):
        operator(x.long(), y)
    with pytest.raises(UsageError, match=r"each at least 1, got \(\)"):
        CompactBilinear((), 8)
    with pytest.raises(UsageError, match=r"each at least 1, got \(5, 0\)"):
        CompactBilinear((5, 0), 8)
    for d in (0, 8.5):
        with pytest.raises(UsageError, match=f"fused features d, whole and at least 1, got {d}"):
            CompactBilinear((5, 4), d)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"normalization is one of none, .*, got 'l2'"):
        CompactBilinear((5, 4), 8, normalization="l2")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="l2_scope is one of location, sample, got 'map'"):
        CompactBilinear((5, 4), 8, l2_scope="map")  # type: ignore[arg-type]
    assert "(5, 4) -> 8, seed=0, normalization=none" in repr(operator)
