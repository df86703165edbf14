"""The codecs: lossless for every field of every size, and no bytes make them read or write beyond their arrays."""

import struct
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twostream.flow.codecs import DECODERS, ENCODERS

CODECS = ["fast", "compact"]


def contours(H: int, W: int, seed: int) -> np.ndarray:
    """Smooth flow as it is kept: level lines, some steps, some noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:H, :W]
    field = np.stack([128 + 9 * np.sin(x / 37 + y / 49 + seed), 120 + 7 * np.cos(x / 51 - y / 43)])
    field[:, H // 3 : H // 2, W // 4 :] += 40
    field[1, : H // 8] += rng.normal(0, 3, (H // 8, W))
    return np.clip(field, 0, 255).astype(np.uint8)


def there_and_back(codec: str, field: np.ndarray) -> int:
    data = ENCODERS["uint8", codec]()(field)
    read = np.full_like(field, 77)
    DECODERS["uint8", codec]()(data, read)
    assert np.array_equal(read, field)
    return len(data)


@pytest.mark.parametrize("codec", CODECS)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    H=st.integers(1, 9),
    W=st.integers(1, 100),
    seed=st.integers(0, 99),
    spread=st.sampled_from([0, 1, 3, 6, 7, 8, 9, 128]),
)
def test_every_field_comes_back(codec: str, H: int, W: int, seed: int, spread: int) -> None:
    # A spread of 6 is coded in one byte, of 8 in nibbles, of more as it is; 128 wraps around.
    rng = np.random.default_rng(seed)
    there_and_back(codec, (128 + rng.integers(-spread, spread + 1, (2, H, W)).cumsum(1)).astype(np.uint8))


@pytest.mark.parametrize("codec", CODECS)
def test_flow_becomes_small(codec: str) -> None:
    field = contours(256, 340, 0)
    size = there_and_back(codec, field)
    assert size < field.size / {"fast": 5, "compact": 7}[codec]
    assert there_and_back(codec, np.full_like(field, 128)) < field.size / 30
    # Noise may grow, by its codes.
    noise = np.random.default_rng(0).integers(0, 256, field.shape).astype(np.uint8)
    assert there_and_back(codec, noise) < 1.3 * noise.size


def test_one_coder_serves_fields_that_are_no_neighbours_in_memory() -> None:
    video = np.stack([contours(40, 70, k) for k in range(3)])
    crops = [video[2, :, 3:37, 5:69], video[0], video[1][:, :, ::-1]]
    for codec in CODECS:
        encode, decode = ENCODERS["uint8", codec](), DECODERS["uint8", codec]()
        for field in crops:
            read = np.empty(field.shape, np.uint8)
            decode(encode(field), read)
            assert np.array_equal(read, field)
        first = encode(crops[1])
        encode(crops[0])
        assert encode(crops[1]) == first


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data())
def test_no_bytes_make_the_reader_leave_its_arrays(data: st.DataObject) -> None:
    field = contours(12, data.draw(st.sampled_from([5, 32, 50])), 1)
    whole = bytearray(ENCODERS["uint8", "fast"]()(field))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    damaged = bytes(whole[:cut] if data.draw(st.booleans()) else whole) + data.draw(st.binary(max_size=9))
    # Neighbours that must stay as they are.
    room = np.full((3, *field.shape), 77, np.uint8)
    with suppress(ValueError, struct.error):
        DECODERS["uint8", "fast"]()(damaged, room[1])
    assert (room[[0, 2]] == 77).all()


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        (b"\0", "unpack_from requires"),
        (bytes(10_000), "more bytes than a field of this size has"),
        (b"\xff" * 60, "its parts are longer than the whole"),
        (bytes(4) + b"\x01" + bytes(15), "its parts do not add up"),
        (bytes(21), "its parts do not add up"),
    ],
)
def test_damage_is_told(damaged: bytes, message: str) -> None:
    with pytest.raises(Exception, match=message):
        DECODERS["uint8", "fast"]()(damaged, np.empty((2, 8, 20), np.uint8))


@pytest.mark.parametrize("codec", CODECS)
def test_halves_come_back(codec: str) -> None:
    field = np.random.default_rng(0).normal(0, 9, (2, 5, 7)).astype(np.float16)
    read = np.empty_like(field)
    DECODERS["float16", codec]()(ENCODERS["float16", codec]()(field), read)
    assert np.array_equal(read, field)
