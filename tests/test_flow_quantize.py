"""The 8-bit rule to the letter, its inverse and its bound."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twostream.flow.estimators import FlowError
from twostream.flow.quantize import dequantize, flip_horizontal, half_step, quantize

LEVELS = np.arange(256, dtype=np.uint8)


def test_landmarks_of_the_papers_rule() -> None:
    px = np.array([-20, -25, 0, 20, 1e9, -1e9, 1, -1, 40 / 255], np.float32)
    assert quantize(px).tolist() == [0, 0, 128, 255, 255, 0, 134, 121, 129]


@given(st.floats(-30, 30, width=32))
def test_the_rule_to_the_letter(px: float) -> None:
    clipped = min(20.0, max(-20.0, px))
    assert int(quantize(np.array([px], np.float32))[0]) == math.floor(255 * (clipped + 20) / 40 + 0.5)


@given(st.floats(0.01, 1000), st.floats(-1, 1, width=32))
def test_a_round_trip_is_within_half_a_step(bound: float, share: float) -> None:
    px = np.array([bound * share], np.float32)
    back = dequantize(quantize(px, bound), bound)
    assert abs(float(back[0]) - float(px[0])) <= half_step(bound) * (1 + 1e-4)


@pytest.mark.parametrize("bound", [20.0, 1.0, 15, 0.3, 127.5])
def test_every_level_comes_back_as_itself(bound: float) -> None:
    px = dequantize(LEVELS, bound)
    assert px.dtype == np.float32
    assert np.array_equal(quantize(px, bound), LEVELS)
    assert np.array_equal(quantize(px.astype(np.float64), bound), LEVELS)


def test_the_bound_that_is_stated() -> None:
    assert half_step() == pytest.approx(20 / 255)
    assert dequantize(np.array([128], np.uint8))[0] == pytest.approx(half_step())


def test_opposite_levels_are_opposite_motion() -> None:
    assert np.allclose(dequantize(LEVELS), -dequantize(255 - LEVELS), atol=1e-5)


def test_any_shape() -> None:
    flow = np.random.default_rng(0).normal(0, 9, (3, 2, 5, 7)).astype(np.float32)
    assert quantize(flow).shape == flow.shape
    assert dequantize(quantize(flow)).shape == flow.shape


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    flow = np.zeros((2, 4, 4), np.float32)
    flow[1, 2, 3] = bad
    with pytest.raises(FlowError, match="1 of 32 flow values are not finite"):
        quantize(flow)


def test_other_types_are_refused() -> None:
    with pytest.raises(FlowError, match="floating point, got int64"):
        quantize(np.zeros((2, 4, 4), np.int64))
    with pytest.raises(FlowError, match="stored flow is uint8, got float32"):
        dequantize(np.zeros((2, 4, 4), np.float32))


@pytest.mark.parametrize("bound", [0, -20.0, math.inf, math.nan])
def test_a_bound_must_be_above_zero(bound: float) -> None:
    with pytest.raises(FlowError, match="bound of stored flow must be a number of px above 0"):
        quantize(np.zeros(2, np.float32), bound)
    with pytest.raises(FlowError, match="bound of stored flow must be a number of px above 0"):
        dequantize(LEVELS, bound)


def test_a_flip_mirrors_and_turns_u_around() -> None:
    fields = np.random.default_rng(1).integers(0, 256, (3, 2, 4, 5), dtype=np.uint8)
    flipped = flip_horizontal(fields)
    assert np.array_equal(flipped[:, 0], 255 - fields[:, 0, :, ::-1])
    assert np.array_equal(flipped[:, 1], fields[:, 1, :, ::-1])
    assert np.array_equal(flip_horizontal(flipped), fields)
    px = dequantize(fields)
    assert np.allclose(dequantize(flipped)[:, 0], -px[:, 0, :, ::-1], atol=1e-5)
