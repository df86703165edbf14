"""The colour wheel against known directions and against the published algorithm, pixel by pixel."""

import math

import numpy as np
import pytest

from twostream.flow.colour import flow_to_colour
from twostream.flow.estimators import FlowError


def colour_of(u: float, v: float, full: float = 1.0) -> tuple[int, ...]:
    return tuple(flow_to_colour(np.array([u, v], np.float32).reshape(2, 1, 1), full)[0, 0].tolist())


def middlebury(u: float, v: float) -> tuple[int, ...]:
    """The scalar loop of the published code, for a field of full speed 1."""
    wheel = [(255, 255 * i // 15, 0) for i in range(15)]
    wheel += [(255 - 255 * i // 6, 255, 0) for i in range(6)]
    wheel += [(0, 255, 255 * i // 4) for i in range(4)]
    wheel += [(0, 255 - 255 * i // 11, 255) for i in range(11)]
    wheel += [(255 * i // 13, 0, 255) for i in range(13)]
    wheel += [(255, 0, 255 - 255 * i // 6) for i in range(6)]
    speed = math.hypot(u, v)
    place = (math.atan2(-v, -u) / math.pi + 1) / 2 * 54
    below = int(place)
    share = place - below
    pixel = []
    for channel in range(3):
        hue = (1 - share) * wheel[below][channel] / 255 + share * wheel[(below + 1) % 55][channel] / 255
        pixel.append(int(255 * (1 - speed * (1 - hue) if speed <= 1 else 0.75 * hue)))
    return tuple(pixel)


def test_known_directions() -> None:
    assert colour_of(0, 0) == (255, 255, 255)
    assert colour_of(1, 0) == (255, 0, 0)
    assert colour_of(1, -0.0) == (255, 0, 0)
    red, green, blue = colour_of(0, 1)
    assert red == 255
    assert green > 200
    assert blue == 0
    assert colour_of(-1, 0)[0] == 0
    assert min(colour_of(-1, 0)[1:]) > 200
    red, green, blue = colour_of(0, -1)
    assert (green, blue) == (0, 255)
    assert 50 < red < 150


def test_the_published_algorithm_pixel_by_pixel() -> None:
    rng = np.random.default_rng(0)
    flow = rng.uniform(-1.1, 1.1, (2, 12, 20))
    ours = flow_to_colour(flow, max_magnitude=1.0)
    assert ours.shape == (12, 20, 3)
    assert ours.dtype == np.uint8
    theirs = np.array([[middlebury(*flow[:, y, x]) for x in range(20)] for y in range(12)])
    assert np.abs(ours.astype(int) - theirs).max() <= 1  # rounding, where 255 times a colour is a whole number


def test_full_colour_is_the_fastest_pixel_but_at_least_one_px() -> None:
    flow = np.zeros((2, 1, 2))
    flow[0] = [[4.0, 2.0]]
    assert flow_to_colour(flow)[0].tolist() == [[255, 0, 0], [255, 127, 127]]
    assert flow_to_colour(flow / 100)[0, 0].min() > 240


def test_unknown_pixels_are_black() -> None:
    flow = np.full((2, 1, 3), 0.5)
    flow[0, 0, 0] = np.nan
    flow[1, 0, 1] = np.inf
    colours = flow_to_colour(flow)[0]
    assert colours[:2].tolist() == [[0, 0, 0], [0, 0, 0]]
    assert colours[2].max() == 255


def test_an_empty_field_is_an_empty_picture() -> None:
    assert flow_to_colour(np.zeros((2, 0, 5))).shape == (0, 5, 3)


def test_wrong_shapes_and_speeds_are_refused() -> None:
    with pytest.raises(FlowError, match=r"a flow field is \(2, H, W\), got \(4, 4, 2\)"):
        flow_to_colour(np.zeros((4, 4, 2)))
    for speed in (0, -1, math.nan, math.inf):
        with pytest.raises(FlowError, match="the speed of full colour must be a number of px above 0"):
            flow_to_colour(np.zeros((2, 4, 4)), max_magnitude=speed)
