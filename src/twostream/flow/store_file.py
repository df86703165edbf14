"""One file of a flow store: the flow of one video, any field or frame of it read at random.

It is laid out as follows; whole numbers are little-endian.

==========  =================================================================================================
8 bytes     magic
chunks      one per field and one per kept frame, in order of time: frame 0, field 0, frame 1, field 1, ...
index       8 bytes per chunk: its length and its CRC-32; chunks follow one another without gaps
header      JSON: geometry, counts, codecs, settings, provenance
footer      36 bytes: place of the index, number of chunks, length of the header, CRC-32 of index and header,
            CRC-32 of the footer up to here, magic
==========  =================================================================================================

So every byte is under a checksum or a fixed value: a file that was cut, lengthened or altered is noticed when it is
opened, or when the altered chunk is read. There are no time stamps in it; the same video gives the same bytes.
"""

import json
import os
import struct
import threading
import zlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from twostream.files import OutputError, atomic_write
from twostream.flow.codecs import DECODERS, ENCODERS, JPEG_QUALITY, decode_frame, encode_frame
from twostream.flow.contract import FlowError
from twostream.flow.quantize import RULE, dequantize, quantize
from twostream.flow.settings import FlowSettings

Image = npt.NDArray[np.uint8]
Flow = npt.NDArray[np.float32]
Indices = Sequence[int] | npt.NDArray[np.integer[Any]]

_FORMAT = "twostream-flow-1"
_MAGIC = b"\x89TSFLOW\n"
_END = b"\x89TSEND\r\n"
_FOOTER = struct.Struct("<QQII")
_TAIL = struct.Struct("<I8s")
_FOOTER_SIZE = _FOOTER.size + _TAIL.size
_ENTRY = np.dtype([("length", "<u4"), ("crc", "<u4")])
_MAX_HEADER = 1 << 20
# 8K video fits, and what a foreign file may claim stays within the memory of any machine. 65,500 is JPEG's limit.
_MAX_PIXELS = 1 << 26
_MAX_SIDE = 65_500
_HALF_RULE = "float16 px, not clipped"
REMEDY = "Delete it and run the same command again, or leave it there and run: twostream flow DATA --out STORE --verify"


class FlowStoreError(FlowError):
    """A store or a file in it that is missing, damaged, foreign, or made with other settings than asked for."""


def stored_size(field: Image | Flow, frame: Image | None, settings: FlowSettings | None = None) -> int:
    """How many bytes a field, as the writer takes it, and a frame if there is one, take in a store of these settings.

    Without settings, a field of 8 bit by the default codec.
    """
    kept = settings or FlowSettings()
    data = ENCODERS[kept.precision, kept.codec]()(_as_kept(field, kept))
    return len(data) + (0 if frame is None else len(encode_frame(frame))) + _ENTRY.itemsize


def _as_kept(field: npt.NDArray[Any], settings: FlowSettings) -> npt.NDArray[Any]:
    """Flow in px, or 8 bit already, as the settings keep it."""
    if settings.precision == "float16":
        if not np.issubdtype(field.dtype, np.floating):
            raise FlowError(f"a store of float16 keeps flow in px and floating point, got {field.dtype}")
        with np.errstate(over="ignore"):
            half = field.astype(np.float16)
        if not np.isfinite(half).all():
            raise FlowError("flow that is not finite, or beyond what float16 can hold (65,504 px), cannot be stored")
        return half
    return field if field.dtype == np.uint8 else quantize(field, settings.bound)


def check_grid(width: int, height: int) -> None:
    """Refuse what no file of a store can hold.

    Raises:
        FlowError: too many px, or too many on one side.
    """
    if not (min(width, height) >= 1 and max(width, height) <= _MAX_SIDE and width * height <= _MAX_PIXELS):
        raise FlowError(
            f"a grid of {width}x{height} px is beyond what a flow store keeps ({_MAX_PIXELS:,} px, "
            f"{_MAX_SIDE:,} a side); ask for a smaller short side"
        )


class StoredFlowWriter:
    """Writes one file of a store, field by field; it appears when the block ends after :meth:`finish`.

    >>> with StoredFlowWriter(store.path_for(name), store.settings, width=340, height=256) as writer:
    ...     writer.add_field(field)  # N - 1 times; between them frames, N of them, where the settings keep them
    ...     writer.finish(fps=25, source_width=640, source_height=480, provenance={})

    Memory does not grow with the length of the video, but for 8 bytes a field.

    Args:
        path: the file, by :meth:`FlowStore.path_for`.
        settings: the store's.
        width, height: of the grid in px.

    Raises:
        FlowError: something that does not fit the geometry or comes out of turn.
        OutputError: the file cannot be written.
    """

    def __init__(self, path: Path | str, settings: FlowSettings, *, width: int, height: int) -> None:
        check_grid(width, height)
        self.path = Path(path)
        self.settings = settings
        self.width = width
        self.height = height
        self.field_count = 0
        self.frame_count = 0
        self.bytes = 0
        self._index = array("I")
        self._encode = ENCODERS[settings.precision, settings.codec]()
        self._finished = False

    def __enter__(self) -> "StoredFlowWriter":
        self._output = atomic_write(self.path)
        self._file = self._output.__enter__()
        self._write(_MAGIC)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if kind is None and not self._finished:
            kind, error = FlowError, FlowError(f"{self.path}: the writer was left before its finish()")
            self._output.__exit__(kind, error, None)
            raise error
        return self._output.__exit__(kind, error, trace)

    def add_field(self, field: Image | Flow) -> None:
        """Append the motion from the latest frame to the one that follows: (2, H, W).

        In px and floating point, which the settings' precision and bound are applied to, or uint8 by their rule.
        """
        kinds = "uint8, or floating point in px"
        if field.shape != (2, self.height, self.width) or not (
            field.dtype == np.uint8 or np.issubdtype(field.dtype, np.floating)
        ):
            raise FlowError(
                f"{self.path}: a field must be (2, {self.height}, {self.width}) {kinds}, "
                f"got {field.shape} {field.dtype}"
            )
        if self.settings.frames and self.frame_count != self.field_count + 1:
            raise FlowError(f"{self.path}: field {self.field_count} comes after frame {self.field_count}")
        self._append(self._encode(_as_kept(field, self.settings)))
        self.field_count += 1

    def add_frame(self, frame: Image) -> None:
        """Append a frame: (H, W, 3) uint8 R, G, B; frame k stands between fields k - 1 and k."""
        if frame.dtype != np.uint8 or frame.shape != (self.height, self.width, 3):
            raise FlowError(
                f"{self.path}: a frame must be ({self.height}, {self.width}, 3) uint8, got {frame.shape} {frame.dtype}"
            )
        if not self.settings.frames or self.frame_count != self.field_count:
            raise FlowError(
                f"{self.path}: frame {self.frame_count} out of turn; the settings keep "
                f"{'one before each field' if self.settings.frames else 'no frames'}"
            )
        self._append(encode_frame(frame))
        self.frame_count += 1

    def finish(self, *, fps: float, source_width: int, source_height: int, provenance: Mapping[str, Any]) -> None:
        """Write index and header.

        Args:
            fps: frame rate of the frames that the flow was computed from, in 1/s.
            source_width, source_height: of the video in px, after rotation.
            provenance: JSON values that say where this came from; no time stamps, so that bytes can be repeated.
        """
        N = self.field_count + 1
        if self.settings.frames and self.frame_count != N:
            raise FlowError(f"{self.path}: {self.field_count} fields lie between {N} frames, got {self.frame_count}")
        header = {
            "format": _FORMAT,
            "width": self.width,
            "height": self.height,
            "source_width": source_width,
            "source_height": source_height,
            "fps": fps,
            "frame_count": N,
            "fields": {
                "type": self.settings.precision,
                "codec": self.settings.codec,
                "rule": RULE if self.settings.precision == "uint8" else _HALF_RULE,
            },
            "frames": {"codec": "jpeg", "quality": JPEG_QUALITY} if self.settings.frames else None,
            "settings": self.settings.to_dict(),
            "provenance": dict(provenance),
        }
        text = json.dumps(header, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")
        if len(text) > _MAX_HEADER:
            raise FlowError(f"{self.path}: a provenance of {len(text)} bytes; {_MAX_HEADER} is the limit")
        place = self.bytes
        body = np.asarray(self._index, "<u4").tobytes() + text
        self._write(body)
        footer = _FOOTER.pack(place, len(self._index) // 2, len(text), zlib.crc32(body))
        self._write(footer + _TAIL.pack(zlib.crc32(footer), _END))
        self._finished = True

    def _append(self, chunk: bytes) -> None:
        self._index.extend((len(chunk), zlib.crc32(chunk)))
        self._write(chunk)

    def _write(self, data: bytes) -> None:
        # Raised here, so that the disk's errors cannot be mistaken for those of the video that is being read.
        try:
            self._file.write(data)
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror or error})") from error
        self.bytes += len(data)


class StoredFlow:
    """The flow of one video in a store file, any field or frame of it read at random.

    Opening reads index and header only. One object serves several threads; sent to another process it opens the file
    there. Close it, or use it in a ``with`` block.

    Attributes:
        path: the file.
        header: as it was written.
        frame_count: N, the frames that the video had (after resampling to a common frame rate, where there is one).
        field_count: N - 1; field k is the motion from frame k to frame k + 1.
        width, height: of the grid in px.
        source_width, source_height: of the video in px.
        fps: frame rate of those N frames in 1/s.
        bound: largest motion kept, in px on the grid.
        has_frames: whether frames are kept.
        provenance: estimator, source and versions.
        bytes: of the file.

    Raises:
        FlowStoreError: there is no such file, or it is damaged or foreign; says what to do.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        try:
            self._file = self.path.open("rb")
        except FileNotFoundError as error:
            raise FlowStoreError(
                f"{self.path}: the flow of this video is not in the store; compute it with: "
                "twostream flow DATA --out STORE"
            ) from error
        except OSError as error:
            raise FlowStoreError(f"{self.path}: cannot be opened ({error.strerror or error})") from error
        try:
            self._read_header()
        except BaseException:
            self._file.close()
            raise

    def _read_header(self) -> None:
        try:
            self.bytes = size = os.fstat(self._file.fileno()).st_size
            if self._read(0, len(_MAGIC)) != _MAGIC:
                self._fault("it does not begin like a flow file of twostream")
            if size < len(_MAGIC) + _FOOTER_SIZE:
                self._fault("it is cut short")
            tail = self._read(size - _FOOTER_SIZE, _FOOTER_SIZE)
            place, count, length, crc = _FOOTER.unpack_from(tail)
            if _TAIL.unpack_from(tail, _FOOTER.size) != (zlib.crc32(tail[: _FOOTER.size]), _END):
                self._fault("it is cut short, or altered at its end")
            body_size = size - _FOOTER_SIZE - place
            if length > _MAX_HEADER or body_size != count * _ENTRY.itemsize + length or place < len(_MAGIC):
                self._fault("its parts do not add up to its length")
            body = self._read(place, body_size)
            if zlib.crc32(body) != crc:
                self._fault("the checksum of its header does not match")
            index = np.frombuffer(body, _ENTRY, count)
            ends = len(_MAGIC) + np.cumsum(index["length"], dtype=np.int64)
            if (int(ends[-1]) if count else len(_MAGIC)) != place:
                self._fault("its chunks do not add up to its length")
            header = json.loads(body[count * _ENTRY.itemsize :])
            self._take(header, count)
        except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
            self._fault(f"its header cannot be read: {type(error).__name__} {error}", error)
        self._lengths, self._crcs = index["length"], index["crc"]
        self._offsets = ends - self._lengths

    def _take(self, header: Any, count: int) -> None:
        """Believe nothing that does not fit the number of chunks and the limits."""
        if header["format"] != _FORMAT:
            self._fault(f"it is of the format {header['format']!r}, and this version reads {_FORMAT!r}")
        self._kept = header["fields"]["type"], header["fields"]["codec"]
        if self._kept not in DECODERS:
            known = ", ".join(" ".join(kept) for kept in DECODERS)
            self._fault(f"its fields are kept as {header['fields']}, and this version knows {known}")
        if header["frames"] is not None and header["frames"]["codec"] != "jpeg":
            self._fault(f"its frames are kept as {header['frames']}, and this version knows jpeg")
        self.header: dict[str, Any] = header
        self.frame_count = N = _whole(header["frame_count"])
        self.field_count = N - 1
        self.has_frames = header["frames"] is not None
        self.width, self.height = _whole(header["width"]), _whole(header["height"])
        self.source_width, self.source_height = _whole(header["source_width"]), _whole(header["source_height"])
        self.fps = float(header["fps"])
        self.bound = float(header["settings"]["bound"])
        self.provenance: dict[str, Any] = dict(header["provenance"])
        if count != (N - 1) + (N if self.has_frames else 0):
            self._fault(f"it has {count} chunks, which do not fit {N} frames")
        if max(self.width, self.height) > _MAX_SIDE or self.width * self.height > _MAX_PIXELS:
            self._fault(f"it claims a grid of {self.width}x{self.height} px")
        if not (0 < self.fps <= 1e6 and 0 < self.bound <= 1e6):
            self._fault(f"it claims {self.fps} frames/s and a bound of {self.bound} px")

    def __repr__(self) -> str:
        return f"StoredFlow({str(self.path)!r}, {self.frame_count} frames, {self.width}x{self.height})"

    def __enter__(self) -> "StoredFlow":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self.close()

    def __reduce__(self) -> tuple[type["StoredFlow"], tuple[Path]]:
        return StoredFlow, (self.path,)

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        self._file.close()

    @cached_property
    def settings(self) -> FlowSettings:
        """What it was made with."""
        try:
            return FlowSettings.from_dict(self.header["settings"])
        except (TypeError, FlowError) as error:
            self._fault(f"its settings cannot be understood: {error}", error)

    def fields(self, indices: Indices) -> Image:
        """(n, 2, H, W) uint8: fields by index, in any order and with repetitions; float16 is quantized on the way.

        Raises:
            FlowStoreError: an index that the video does not have, or a damaged field.
        """
        stored = self._decoded(indices)
        return stored if stored.dtype == np.uint8 else quantize(stored, self.bound)

    def flow(self, indices: Indices) -> Flow:
        """(n, 2, H, W) float32 in px: the same fields; 8 bit gives the middle of each level.

        Raises:
            FlowStoreError: as in :meth:`fields`.
        """
        stored = self._decoded(indices)
        return dequantize(stored, self.bound) if stored.dtype == np.uint8 else stored.astype(np.float32)

    def _decoded(self, indices: Indices) -> npt.NDArray[Any]:
        places = self._places(indices, self.field_count, "field")
        count = sum(map(len, places.values()))
        stored = np.empty((count, 2, self.height, self.width), self._kept[0])
        decode = DECODERS[self._kept]()
        step, first = (2, 1) if self.has_frames else (1, 0)
        for index, data in zip(places, self._chunks([step * i + first for i in places]), strict=True):
            at, *others = places[index]
            try:
                decode(data, stored[at])
            except Exception as error:
                self._fault(f"field {index} cannot be decoded: {error}", error)
            if stored.dtype != np.uint8 and not np.isfinite(stored[at]).all():
                self._fault(f"field {index} has values that are not finite")
            if others:
                stored[others] = stored[at]
        return stored

    def frames(self, indices: Indices) -> Image:
        """(n, H, W, 3) uint8 R, G, B: kept frames by index, in any order and with repetitions.

        Raises:
            FlowStoreError: no frames are kept, an index that the video does not have, or a damaged frame.
        """
        if not self.has_frames:
            raise FlowStoreError(
                f"{self.path}: this store keeps no frames; read them from the video, or make another store with "
                "twostream flow --frames"
            )
        places = self._places(indices, self.frame_count, "frame")
        stored = np.empty((sum(map(len, places.values())), self.height, self.width, 3), np.uint8)
        for index, data in zip(places, self._chunks([2 * i for i in places]), strict=True):
            at, *others = places[index]
            try:
                decode_frame(data, stored[at])
            except ValueError as error:
                self._fault(f"frame {index} cannot be decoded: {error}", error)
            if others:
                stored[others] = stored[at]
        return stored

    def verify(self) -> None:
        """Read all of it and compare every checksum.

        Raises:
            FlowStoreError: a damaged field or frame.
        """
        for _ in self._chunks(range(len(self._lengths))):
            pass

    def _places(self, indices: Indices, count: int, what: str) -> dict[int, list[int]]:
        """For each distinct index in rising order, where it belongs in the answer."""
        wanted = np.asarray(indices)
        if wanted.ndim != 1 or (wanted.size and not np.issubdtype(wanted.dtype, np.integer)):
            raise FlowError(f"{what} indices are a list of whole numbers, got {indices!r}")
        places: dict[int, list[int]] = {}
        for place in np.argsort(wanted, kind="stable").tolist():
            places.setdefault(int(wanted[place]), []).append(place)
        if places and (min(places) < 0 or max(places) >= count):
            has = f"{what}s 0 to {count - 1}" if count else f"no {what}s"
            wrong = min(places) if min(places) < 0 else max(places)
            raise FlowStoreError(f"{self.path}: {what} {wrong} was asked for, but it has {has}")
        return places

    def _chunks(self, numbers: Sequence[int]) -> Iterator[memoryview]:
        """The chunks of these rising numbers; neighbours are read at one go."""
        at = 0
        while at < len(numbers):
            end = at + 1
            while end < len(numbers) and numbers[end] == numbers[end - 1] + 1 and end - at < 64:
                end += 1
            first, last = numbers[at], numbers[end - 1]
            start = int(self._offsets[first])
            data = memoryview(self._read(start, int(self._offsets[last]) + int(self._lengths[last]) - start))
            for number in range(first, last + 1):
                offset = int(self._offsets[number]) - start
                chunk = data[offset : offset + int(self._lengths[number])]
                if zlib.crc32(chunk) != self._crcs[number]:
                    self._fault(f"the checksum of chunk {number} does not match")
                yield chunk
            at = end

    def _read(self, offset: int, length: int) -> bytes:
        try:
            with self._lock:
                self._file.seek(offset)
                data = self._file.read(length)
        except OSError as error:
            raise FlowStoreError(f"{self.path}: cannot be read ({error.strerror or error})") from error
        if len(data) != length:
            self._fault("it is cut short")
        return data

    def _fault(self, reason: str, cause: BaseException | None = None) -> NoReturn:
        raise FlowStoreError(f"{self.path}: a damaged or foreign flow file: {reason}. {REMEDY}") from cause


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{value!r} where a count is expected")
    return int(value)


__all__ = ["REMEDY", "FlowStoreError", "StoredFlow", "StoredFlowWriter", "check_grid", "stored_size"]
