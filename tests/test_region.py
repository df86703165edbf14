"""Where something moves: found beside the camera's own motion, on any grid, the whole frame where nothing does."""

import numpy as np
import pytest

from twostream.clip import InputSpec, ShapeError
from twostream.data.region import FIELDS, WHOLE, Region, moving_region, region_fields
from twostream.flow.quantize import quantize

H, W = 128, 192
# The thing: rows 40 to 70, columns 120 to 144.
THING = (slice(40, 70), slice(120, 144))


def fields(
    *,
    camera: bool = False,
    noise: float = 0.0,
    scale: float = 1.0,
    flicker: bool = False,
    thing: bool = True,
    slow: float = 0.0,
) -> np.ndarray:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1 : 1 : H * 1j, -1 : 1 : W * 1j]
    found = []
    for k in range(12):
        flow = noise * rng.standard_normal((2, H, W))
        if camera:
            # It moves, turns and comes closer.
            flow += np.stack([2.0 + 1.5 * x - 0.8 * y, -1.0 + 0.8 * x + 1.5 * y]) * np.sin(k + 1)
        if thing:
            flow[(0, *THING)] += 3.0 * (-1) ** k
        flow[(0, *THING)] += slow
        if flicker:
            flow[1, 5:8, 5:8] += 2.0
        found.append(flow * scale)
    return quantize(np.stack(found).astype(np.float32))


def centre(region: Region) -> tuple[float, float]:
    return (region.left + region.width / 2) * W, (region.top + region.height / 2) * H


@pytest.mark.parametrize(
    "options",
    [{}, {"camera": True}, {"noise": 0.1}, {"camera": True, "noise": 0.1}, {"flicker": True}],
    ids=lambda options: " ".join(options) or "still",
)
def test_the_region_holds_the_thing_that_moves_and_little_else(options: dict[str, bool]) -> None:
    region = moving_region(fields(**options))
    x, y = centre(region)
    assert abs(x - 132) < 8
    assert abs(y - 55) < 8
    width, height = region.px(W, H)
    assert width == pytest.approx(height), "a square"
    # 30 rows and a third of that on both sides; cells are 4 px.
    assert 30 < width < 70
    assert region.left * W <= 120
    assert (region.left + region.width) * W >= 144


def test_the_same_on_a_finer_grid() -> None:
    coarse = moving_region(fields())
    fine = moving_region(fields(scale=2.0).repeat(2, axis=2).repeat(2, axis=3))
    for name in ("left", "top", "width", "height"):
        assert getattr(fine, name) == pytest.approx(getattr(coarse, name), abs=0.03)


def test_what_moves_little_or_not_at_all_leaves_the_whole_frame() -> None:
    assert moving_region(fields(thing=False)) == WHOLE
    assert moving_region(fields(thing=False, camera=True)) == WHOLE
    assert moving_region(np.empty((0, 2, H, W), np.uint8)) == WHOLE


def test_what_moves_slowly_is_found_from_a_pixel_on() -> None:
    # 128 px high: half a pixel is one of 256.
    assert moving_region(fields(thing=False, slow=0.5)) != WHOLE
    assert moving_region(fields(thing=False, slow=0.1)) == WHOLE


def test_flow_of_a_flickering_wall_does_not_make_it_the_whole_frame() -> None:
    y, x = np.mgrid[0:H, 0:W]
    # Smooth, wide, three times as fast as the thing, at two borders and always there.
    wall = 9 * np.exp(-(((x - 10) / 60) ** 2) - ((y - 90) / 60) ** 2) + 9 * np.exp(
        -(((x - 70) / 60) ** 2) - (y / 40) ** 2
    )
    flow = np.zeros((12, 2, H, W), np.float32)
    flow[:, 1] = wall * np.where(np.arange(12) % 3, 1, -1)[:, None, None]
    flow[(slice(None), 0, *THING)] += 3.0
    region = moving_region(quantize(flow))
    x_centre, y_centre = centre(region)
    assert abs(x_centre - 132) < 8
    assert abs(y_centre - 55) < 8
    assert region.px(W, H)[0] < 70


def test_a_region_never_leaves_the_frame_nor_is_it_a_speck() -> None:
    flow = np.full((4, 2, H, W), 128, np.uint8)
    flow[:, 0, :6, :6] = 200
    region = moving_region(flow)
    assert region.left >= 0
    assert region.top >= 0
    assert min(region.px(W, H)) >= 0.3 * H
    # What spans all of the long side is cut to the short one.
    flow[:, 0] = 128
    flow[::2, 0, 60:68, 8:48] = flow[1::2, 0, 60:68, 140:184] = 220
    wide = moving_region(flow)
    assert wide.height == pytest.approx(1)
    assert 0 <= wide.left <= wide.left + wide.width <= 1 + 1e-9


def test_the_bound_is_the_stores() -> None:
    flow = np.full((4, 2, H, W), 128, np.uint8)
    flow[(slice(None), 0, *THING)] = 129  # 0.16 px beside the rest at a bound of 20, ten times that at 200
    assert moving_region(flow) == WHOLE
    assert moving_region(flow, 200.0) != WHOLE


def test_fields_are_spread_over_the_clip() -> None:
    assert region_fields(5, 9).tolist() == [5, 6, 7]
    many = region_fields(10, 200)
    assert (many[0], many[-1], len(many)) == (10, 198, FIELDS)
    assert (np.diff(many) > 0).all()
    assert not len(region_fields(3, 4))


def test_an_unknown_region_is_refused() -> None:
    with pytest.raises(ShapeError, match="region is one of"):
        InputSpec(region="left")  # type: ignore[arg-type]
