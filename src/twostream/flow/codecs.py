"""Fields and frames to bytes and back. The store's files say which of these they were made with.

========  ======================================================================================================
fast      differences to the row above, in blocks with a one-byte code, see ``flow/codec_kernels.py``
compact   the same, through zstd: about seven tenths of the size, and half again the time of reading
zstd      the plain bytes through zstd; read, and no longer written
========  ======================================================================================================

Fields of 16-bit floats are px as they are: their lower bytes, then their upper ones, through zstd.
"""

import struct
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import zstandard

Image = npt.NDArray[np.uint8]
Half = npt.NDArray[np.float16]
Field = Image | Half
Bytes = bytes | memoryview

# What a writer is given a field of, (2, H, W), and makes bytes of; what a reader makes a field of these bytes with, in
# the array that it is given. Both are made anew for every file or call, so that they may hold buffers. A decoder raises
# an exception where the bytes are not a field of this size.
Encoder = Callable[[Any], bytes]
Decoder = Callable[[Bytes, Any], None]

JPEG_QUALITY = 95

# Of codes; the lengths of the other parts follow from the field's size and the length of all.
_COUNT = struct.Struct("<I")
# Measured on TV-L1 and DIS of real clips: higher levels take three to ten times as long, and give no smaller files.
_LEVEL = 3


class _Blocks:
    """Buffers for the kernels, made for the first field; fields of a file are of one size."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        # Numba takes a second to import, which commands without flow should not.
        from twostream.flow import codec_kernels as kernels

        self.kernels = kernels
        self.shape = shape
        _, H, W = shape
        self.row_groups = -(-W // kernels.GROUP)
        self.groups = 2 * H * self.row_groups
        self.limit = _COUNT.size + self.groups * (1 + kernels.LONGEST_GROUP)
        self.rows = np.zeros((2 * self.row_groups + 1) * kernels.GROUP, np.uint8)

    def encode(self, field: Image) -> tuple[bytes, ...]:
        """The number of codes and the masks; the codes; their escapes."""
        kernels = self.kernels
        masks, codes, escapes = (np.empty(self.groups * n, np.uint8) for n in (1, kernels.BLOCKS, 4 * kernels.BLOCKS))
        ends = np.empty(2, np.int64)
        kernels.encode(np.ascontiguousarray(field), self.rows, masks, codes, escapes, ends)
        return _COUNT.pack(ends[0]) + masks.tobytes(), codes[: ends[0]].tobytes(), escapes[: ends[1]].tobytes()

    def decode(self, data: Bytes, into: Image) -> None:
        """The field of these bytes."""
        kernels = self.kernels
        length = len(data)
        if length > self.limit:
            raise ValueError("more bytes than a field of this size has")
        (codes,) = _COUNT.unpack_from(data)
        code = _COUNT.size + self.groups
        escape = code + codes
        if escape > length:
            raise ValueError("its parts are longer than the whole")
        # The kernel looks at its place once a row.
        room = np.zeros(length + self.row_groups * kernels.LONGEST_GROUP + 8, np.uint8)
        room[:length] = np.frombuffer(data, np.uint8)
        places = _COUNT.size, code, escape, length
        if not kernels.decode(room, *places, into, self.rows, kernels.PATTERNS, kernels.PLACES):
            raise ValueError("its parts do not add up")


def _made_for_first(make: Callable[["_Blocks"], Callable[..., Any]]) -> Callable[[], Callable[..., Any]]:
    def begin() -> Callable[..., Any]:
        made: list[tuple[tuple[int, ...], Callable[..., Any]]] = []

        def call(*args: Any) -> Any:
            shape = args[-1].shape
            if not made or made[0][0] != shape:
                made[:] = [(shape, make(_Blocks(shape)))]
            return made[0][1](*args)

        return call

    return begin


def _fast_encoder(blocks: _Blocks) -> Encoder:
    return lambda field: b"".join(blocks.encode(field))


def _fast_decoder(blocks: _Blocks) -> Decoder:
    return blocks.decode


def _compact_encoder(blocks: _Blocks) -> Encoder:
    compressor = zstandard.ZstdCompressor(level=_LEVEL)

    def encode(field: Image) -> bytes:
        parts = blocks.encode(field)
        stream = compressor.compressobj(size=sum(map(len, parts)))
        # Blocks of their own: the parts have nothing in common.
        pieces = [stream.compress(part) + stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK) for part in parts]
        return b"".join(pieces) + bytes(stream.flush())

    return encode


def _compact_decoder(blocks: _Blocks) -> Decoder:
    decompressor = zstandard.ZstdDecompressor()

    def decode(data: Bytes, into: Image) -> None:
        blocks.decode(_decompressed(decompressor, data, most=blocks.limit), into)

    return decode


def _decompressed(decompressor: Any, data: Bytes, *, least: int = 0, most: int) -> bytes:
    # Otherwise the library would allocate whatever the data claims.
    if not least <= zstandard.frame_content_size(data) <= most:
        raise ValueError("a field of another size")
    content: bytes = decompressor.decompress(data, max_output_size=most, allow_extra_data=False)
    return content


def _zstd_decoder() -> Decoder:
    decompressor = zstandard.ZstdDecompressor()

    def decode(data: Bytes, into: Image) -> None:
        raw = _decompressed(decompressor, data, least=into.nbytes, most=into.nbytes)
        into[...] = np.frombuffer(raw, np.uint8).reshape(into.shape)

    return decode


def _half_encoder(level: int) -> Callable[[], Encoder]:
    def begin() -> Encoder:
        compressor = zstandard.ZstdCompressor(level=level)

        def encode(field: Half) -> bytes:
            pairs = np.ascontiguousarray(field, "<f2").view(np.uint8).reshape(-1, 2)
            data: bytes = compressor.compress(np.ascontiguousarray(pairs.T).tobytes())
            return data

        return encode

    return begin


def _half_decoder() -> Decoder:
    decompressor = zstandard.ZstdDecompressor()

    def decode(data: Bytes, into: Half) -> None:
        raw = _decompressed(decompressor, data, least=into.nbytes, most=into.nbytes)
        pairs = np.ascontiguousarray(np.frombuffer(raw, np.uint8).reshape(2, -1).T)
        into[...] = pairs.view("<f2").reshape(into.shape)

    return decode


# By what a field is kept as, and the codec's name; both are in every file's header, so that more can be added.
ENCODERS: dict[tuple[str, str], Callable[[], Encoder]] = {
    ("uint8", "fast"): _made_for_first(_fast_encoder),
    ("uint8", "compact"): _made_for_first(_compact_encoder),
    ("float16", "fast"): _half_encoder(1),
    ("float16", "compact"): _half_encoder(9),
}
DECODERS: dict[tuple[str, str], Callable[[], Decoder]] = {
    ("uint8", "fast"): _made_for_first(_fast_decoder),
    ("uint8", "compact"): _made_for_first(_compact_decoder),
    ("uint8", "zstd"): _zstd_decoder,
    ("float16", "fast"): _half_decoder,
    ("float16", "compact"): _half_decoder,
}


def encode_frame(frame: Image) -> bytes:
    """(H, W, 3) uint8 R, G, B as JPEG."""
    bgr = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()


def decode_frame(data: Bytes, into: Image) -> None:
    """The inverse of :func:`encode_frame`.

    Raises:
        ValueError: no JPEG, or one of another size.
    """
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise ValueError(str(error)) from error
    if bgr is None or bgr.shape != into.shape:
        raise ValueError("no picture of this size")
    cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB, dst=into)


__all__ = ["DECODERS", "ENCODERS", "JPEG_QUALITY", "Decoder", "Encoder", "decode_frame", "encode_frame"]
