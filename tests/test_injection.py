"""What each connection hands to the next units, case by case."""

import pytest
import torch
from torch import Tensor

from twostream.layers.injection import UNCONNECTED, Connection, Direction, Operation, Place


def sums() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    a, m = (torch.randn(2, 3, 4, 4, generator=g, dtype=torch.float64).requires_grad_() for _ in range(2))
    return a, m


# (place, operation) -> what the receiver's shortcut and branch read, from its own sum s and the other's m.
READ = {
    ("residual", "add"): lambda s, m: (s.clamp_min(0), s + m.clamp_min(0)),
    ("residual", "multiply"): lambda s, m: (s.clamp_min(0), s * m.clamp_min(0)),
    ("direct", "add"): lambda s, m: (s.clamp_min(0) + m.clamp_min(0),) * 2,
    ("direct", "multiply"): lambda s, m: (s.clamp_min(0) * m.clamp_min(0),) * 2,
}


@pytest.mark.parametrize(("place", "operation"), READ)
@pytest.mark.parametrize("direction", ["motion_to_appearance", "appearance_to_motion", "both", "none"])
def test_every_connection(direction: Direction, place: Place, operation: Operation) -> None:
    a, m = sums()
    before = a.detach().clone(), m.detach().clone()
    into_a, into_m = Connection(direction, place, operation)(a, m)
    joined = READ[place, operation]
    alone_a, alone_m = (a.clamp_min(0),) * 2, (m.clamp_min(0),) * 2
    wanted_a = joined(a, m) if direction in ("motion_to_appearance", "both") else alone_a
    wanted_m = joined(m, a) if direction in ("appearance_to_motion", "both") else alone_m
    for got, wanted in ((into_a, wanted_a), (into_m, wanted_m)):
        assert torch.equal(got.skip, wanted[0])
        assert torch.equal(got.residual, wanted[1])
    assert torch.equal(a, before[0]), "the sums are needed as they were"
    assert torch.equal(m, before[1])


@pytest.mark.parametrize(("place", "operation"), READ)
def test_gradients_reach_both_streams(place: Place, operation: Operation) -> None:
    a, m = sums()
    into_a, into_m = Connection("motion_to_appearance", place, operation)(a, m)
    by_a, by_m = torch.autograd.grad(into_a.residual.square().sum(), (a, m), retain_graph=True)
    assert by_a.abs().sum() > 0
    assert by_m.abs().sum() > 0
    back, _ = torch.autograd.grad(into_m.residual.sum(), (a, m), allow_unused=True)
    assert back is None


def test_unconnected_is_late_fusion() -> None:
    assert Connection("none") == UNCONNECTED
    assert Connection() == Connection("motion_to_appearance", "residual", "add"), "the paper's is the default"
