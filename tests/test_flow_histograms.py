import numpy as np
import numpy.typing as npt
import pytest

from twostream.data.region import Region
from twostream.experiments.flow_histograms import CELLS, DIRECTIONS, TIMES, histograms
from twostream.flow.quantize import quantize


def moving(u: float, v: float, *, n: int = 1, height: int = 48, width: int = 64) -> npt.NDArray[np.float32]:
    field = np.zeros((n, 2, height, width), np.float32)
    field[:, 0], field[:, 1] = u, v
    return field


def counted(fields: npt.NDArray[np.float32], region: Region | None = None) -> npt.NDArray[np.float64]:
    """What was counted, before the roots."""
    found = histograms(quantize(fields, 20.0), bound=20.0, **({} if region is None else {"region": region}))
    assert found.shape == (TIMES * CELLS * CELLS * (DIRECTIONS + 1),)
    return found.reshape(TIMES, CELLS, CELLS, DIRECTIONS + 1) ** 2


@pytest.mark.parametrize(
    ("u", "v", "shares"),
    [
        (4.0, 0.0, {0: 4.0}),
        (0.0, 4.0, {2: 4.0}),
        (-4.0, 0.0, {4: 4.0}),
        (3.0, -3.0, {7: 18**0.5}),
        (4.0, 4.0 * np.tan(np.pi / 8), {0: 2.165, 1: 2.165}),
        (0.0, 0.0, {DIRECTIONS: 1.0}),
    ],
)
def test_directions_are_counted_by_how_far(u: float, v: float, shares: dict[int, float]) -> None:
    wanted = np.zeros(DIRECTIONS + 1)
    wanted[list(shares)] = list(shares.values())
    # 8 bits to 40 px: a step is a sixth of a px.
    np.testing.assert_allclose(counted(moving(u, v)), np.broadcast_to(wanted, (TIMES, CELLS, CELLS, 9)), atol=0.15)


def test_every_cell_and_quarter_counts_its_own() -> None:
    fields = moving(0, 0, n=8)
    fields[2:4, 0, :12, 48:] = 8.0  # the second quarter's top right cell
    found = counted(fields)
    assert found[1, 0, 3, 0] == pytest.approx(8, abs=0.1)
    assert found[1, 0, 3, DIRECTIONS] == 0
    found[1, 0, 3] = found[0, 0, 0]
    np.testing.assert_allclose(found[..., :DIRECTIONS], 0, atol=0.15)
    np.testing.assert_allclose(found[..., DIRECTIONS], 1, atol=1e-6)


def test_cells_are_those_of_the_region() -> None:
    fields = moving(0, 0, n=2)
    fields[:, 1, 24:, 32:] = 6.0
    found = counted(fields, Region(left=0.5, top=0.5, width=0.5, height=0.5))
    np.testing.assert_allclose(found[..., 2], 6, atol=0.1)


def test_short_clips() -> None:
    fields = moving(0, 0, n=2)
    fields[1, 0] = 5.0
    still_then_moving = counted(fields)[:, 0, 0, 0]
    np.testing.assert_allclose(still_then_moving, [0, 0, 5, 5], atol=0.2)
    assert not histograms(np.zeros((0, 2, 8, 8), np.uint8), bound=20.0).any()
