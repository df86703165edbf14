"""The flow store: a folder with one file per video, read at random, written whole or not at all.

A file is laid out as follows; whole numbers are little-endian.

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

The folder's ``store.json`` holds the settings that all its files share.
"""

import json
import math
import os
import struct
import threading
import zlib
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, NamedTuple, NoReturn

import cv2
import numpy as np
import numpy.typing as npt
import zstandard

from twostream.files import OutputError, atomic_write, write_text
from twostream.flow.estimators import MINIMUM_SIDE, FlowError, create_estimator
from twostream.flow.quantize import RULE

Image = npt.NDArray[np.uint8]
Indices = Sequence[int] | npt.NDArray[np.integer[Any]]

SUFFIX = ".flow"

_FORMAT = "twostream-flow-1"
_STORE_FORMAT = "twostream-flow-store-1"
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
_JPEG_QUALITY = 95


class FlowStoreError(FlowError):
    """A store or a file in it that is missing, damaged, foreign, or made with other settings than asked for."""


@dataclass(frozen=True, kw_only=True)
class FlowSettings:
    """What the flow of a store is computed with; all its files share them.

    Attributes:
        estimator: a key of :data:`twostream.flow.estimators.ESTIMATORS`.
        parameters: of the estimator; those left out are filled in with their defaults.
        short_side: of the grid that flow is computed and kept on, in px; None keeps each video's own size.
        fps: common frame rate that frames are chosen by before flow is computed; None keeps each video's own.
        bound: largest motion that can be kept, in px on the grid.
        frames: whether the frames are kept beside the fields, as JPEG on the grid, so that training decodes no video.

    Raises:
        FlowError: an unknown estimator or parameter, or a number out of range.
    """

    estimator: str = "dis"
    parameters: dict[str, Any] = field(default_factory=dict)
    short_side: int | None = 256
    fps: float | None = None
    bound: float = 20.0
    frames: bool = False

    def __post_init__(self) -> None:
        effective = create_estimator(self.estimator, **self.parameters).parameters
        object.__setattr__(self, "parameters", effective)
        if self.short_side is not None and not (_is_whole(self.short_side) and self.short_side >= MINIMUM_SIDE):
            raise FlowError(
                f"the short side of the grid must be a whole number of px, {MINIMUM_SIDE} or more (or none, which "
                f"keeps each video's size), got {self.short_side}"
            )
        if self.fps is not None and not (_is_number(self.fps) and 0 < self.fps <= 1000):
            raise FlowError(f"the common frame rate must lie above 0 and up to 1000 (or be none), got {self.fps}")
        if not (_is_number(self.bound) and self.bound > 0):
            raise FlowError(f"the bound of stored flow must be a number of px above 0, got {self.bound}")
        if not isinstance(self.frames, bool):
            raise FlowError(f"frames is true or false, got {self.frames!r}")
        # 10 and 10.0 must give the same bytes.
        object.__setattr__(self, "bound", float(self.bound))
        if self.fps is not None:
            object.__setattr__(self, "fps", float(self.fps))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON and YAML."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "FlowSettings":
        """The inverse of :meth:`to_dict`; an unknown entry is a :class:`FlowError`."""
        if unknown := sorted(set(values) - {f.name for f in fields(cls)}):
            raise FlowError(f"unknown flow settings {', '.join(unknown)}; perhaps made by a newer version")
        return cls(**values)

    def describe(self) -> str:
        """One line for people."""
        numbers = ", ".join(f"{k}={v}" for k, v in self.parameters.items())
        side = "each video's own size" if self.short_side is None else f"short side {self.short_side}"
        rate = "own frame rate" if self.fps is None else f"{self.fps:g} frames/s"
        kept = "with frames" if self.frames else "without frames"
        return f"{self.estimator} ({numbers}), {side}, {rate}, bound {self.bound:g} px, {kept}"

    def serves(self, asked: "FlowSettings") -> bool:
        """Whether a store of these settings gives what is asked for: all the same, or frames kept unasked."""
        return {**self.to_dict(), "frames": self.frames or not asked.frames} == {**asked.to_dict(), "frames": True}


class FlowStore:
    """A folder of flow files, ``root/<name>.flow`` for the video called ``name``, all of the same settings.

    Opening one touches nothing; :meth:`prepare` makes the folder. It can be sent to other processes.

    Args:
        root: the folder.
        settings: what is asked for; None adopts what the store was made with.

    Attributes:
        root: the folder.
        settings: what its files are made with.

    Raises:
        FlowStoreError: the store was made with other settings (both are named), or none are asked for and there is
            no store.
    """

    def __init__(self, root: Path | str, settings: FlowSettings | None = None) -> None:
        self.root = Path(root)
        found = stored_settings(self.root)
        if found is not None and settings is not None and not found.serves(settings):
            raise FlowStoreError(
                f"{self.root}: this flow store was made with other settings than asked for "
                f"({_difference(found, settings)}).\n"
                f"  made with: {found.describe()}\n  asked for: {settings.describe()}\n"
                "Ask for the settings that it was made with, or name another folder"
            )
        if found is None and settings is None:
            raise FlowStoreError(
                f"{self.root}: no flow store there; make one with: twostream flow DATA --out {self.root}"
            )
        chosen = found or settings
        assert chosen is not None
        self.settings = chosen
        self._plain = chosen.to_dict()

    def __repr__(self) -> str:
        return f"FlowStore({str(self.root)!r}, {self.settings.describe()})"

    def path_for(self, name: str) -> Path:
        """The file of the video called ``name``, a relative path with ``/`` between its parts.

        Raises:
            FlowStoreError: a name that is empty, absolute or leads out of the store.
        """
        parts = PurePosixPath(name).parts
        path = self.root.joinpath(*parts[:-1], f"{parts[-1]}{SUFFIX}") if parts else self.root
        # On Windows a name may have a drive, or backslashes, of its own.
        inside = path.is_relative_to(self.root) and ".." not in path.parts[len(self.root.parts) :]
        if not parts or not inside or name.startswith("/") or ".." in parts or "\0" in name:
            raise FlowStoreError(
                f"{name!r} cannot be the name of a video in a flow store: names are relative paths without '..', "
                "such as Class/video.avi"
            )
        return path

    def has(self, name: str) -> bool:
        """Whether the video's file is there, its header is sound, and it was made with the store's settings."""
        try:
            self.open(name).close()
        except FlowStoreError:
            return False
        return True

    def open(self, name: str) -> "StoredFlow":
        """The flow of one video; close it, or use it in a ``with`` block.

        Raises:
            FlowStoreError: there is none, it is damaged, or it was made with other settings than the store.
        """
        stored = StoredFlow(self.path_for(name))
        try:
            # Equal in nearly every case; the longer comparison fills in what older files did not know of.
            if stored.header["settings"] != self._plain and stored.settings != self.settings:
                raise FlowStoreError(
                    f"{stored.path}: made with other settings than its store "
                    f"({_difference(stored.settings, self.settings)}).\n"
                    f"  made with: {stored.settings.describe()}\n  the store: {self.settings.describe()}\n{_REMEDY}"
                )
        except FlowError:
            stored.close()
            raise
        return stored

    def prepare(self) -> None:
        """Make the folder and write its settings down; where both are there, try whether it can be written to.

        Raises:
            OutputError: it cannot.
            FlowStoreError: another process has made it with other settings in the meantime.
        """
        file = self.root / _STORE_FILE
        if stored_settings(self.root) is None:
            write_text(
                file, json.dumps({"format": _STORE_FORMAT, "settings": self._plain}, indent=1, sort_keys=True) + "\n"
            )
        else:
            FlowStore(self.root, self.settings)
            with suppress(_Tried), atomic_write(file):
                raise _Tried


_STORE_FILE = "store.json"
_REMEDY = "Delete it and run the same command again, or: twostream flow DATA --out STORE"


class _Tried(Exception):  # noqa: N818 - ends a write that was only a trial
    pass


def stored_settings(root: Path | str) -> FlowSettings | None:
    """What the store in this folder was made with; None where there is no store.

    Raises:
        FlowStoreError: ``root`` is a file, or its ``store.json`` cannot be read.
    """
    file = Path(root) / _STORE_FILE
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        if values["format"] != _STORE_FORMAT:
            raise FlowStoreError(f"{file}: a store of another format ({values['format']}); this reads {_STORE_FORMAT}")
        return FlowSettings.from_dict(values["settings"])
    except FileNotFoundError:
        return None
    except NotADirectoryError as error:
        raise FlowStoreError(f"{root}: a file stands where the folder of a flow store must be") from error
    except FlowStoreError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RecursionError, FlowError) as error:
        raise FlowStoreError(
            f"{file}: cannot be read as the settings of a flow store ({error}). Delete it and run the same command "
            "again; finished videos are kept if their settings are the same"
        ) from error


class Codec(NamedTuple):
    """A pair of inverse functions, each made anew for every writer or call, so that they may hold buffers.

    ``encoder()`` gives a function from a field, (2, H, W) uint8, to bytes; ``decoder()`` one that writes the field of
    these bytes into the array that it is given, and raises an exception where they are not of its size.
    """

    encoder: Callable[[], Callable[[Image], bytes]]
    decoder: Callable[[], Callable[[bytes, Image], None]]


def _zstd_encoder() -> Callable[[Image], bytes]:
    # Measured on DIS fields at short side 256: level 6 takes 1.6 ms a field for 13.7 kB, level 3 0.3 ms for 16.4 kB,
    # level 12 17 ms for 12.8 kB. Predicting from the row above instead (level 3: 13.4 kB) doubles the time of reading.
    compressor = zstandard.ZstdCompressor(level=6)
    return lambda image: compressor.compress(image.tobytes())


def _zstd_decoder() -> Callable[[bytes, Image], None]:
    decompressor = zstandard.ZstdDecompressor()

    def decode(data: bytes, into: Image) -> None:
        # Otherwise the library would allocate whatever the data claims.
        if zstandard.frame_content_size(data) != into.nbytes:
            raise ValueError("a field of another size")
        raw = decompressor.decompress(data, max_output_size=into.nbytes, allow_extra_data=False)
        into[...] = np.frombuffer(raw, np.uint8).reshape(into.shape)

    return decode


# The name is in every file's header, so that more can be added.
CODECS: dict[str, Codec] = {"zstd": Codec(_zstd_encoder, _zstd_decoder)}
_CODEC = "zstd"


def _jpeg(frame: Image) -> bytes:
    bgr = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()


def stored_size(field: Image, frame: Image | None) -> int:
    """How many bytes a field, and a frame if there is one, take in a store."""
    return len(CODECS[_CODEC].encoder()(field)) + (0 if frame is None else len(_jpeg(frame))) + _ENTRY.itemsize


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
        if not (min(width, height) >= 1 and max(width, height) <= _MAX_SIDE and width * height <= _MAX_PIXELS):
            raise FlowError(
                f"a grid of {width}x{height} px is beyond what a flow store keeps ({_MAX_PIXELS:,} px, "
                f"{_MAX_SIDE:,} a side); ask for a smaller short side"
            )
        self.path = Path(path)
        self.settings = settings
        self.width = width
        self.height = height
        self.field_count = 0
        self.frame_count = 0
        self.bytes = 0
        self._index = array("I")
        self._encode = CODECS[_CODEC].encoder()
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

    def add_field(self, field: Image) -> None:
        """Append the motion from the latest frame to the one that follows: (2, H, W) uint8."""
        if field.dtype != np.uint8 or field.shape != (2, self.height, self.width):
            raise FlowError(
                f"{self.path}: a field must be (2, {self.height}, {self.width}) uint8, got {field.shape} {field.dtype}"
            )
        if self.settings.frames and self.frame_count != self.field_count + 1:
            raise FlowError(f"{self.path}: field {self.field_count} comes after frame {self.field_count}")
        self._append(self._encode(field))
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
        self._append(_jpeg(frame))
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
            "fields": {"type": "uint8", "codec": _CODEC, "rule": RULE},
            "frames": {"codec": "jpeg", "quality": _JPEG_QUALITY} if self.settings.frames else None,
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
            size = os.fstat(self._file.fileno()).st_size
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
        if header["fields"]["type"] != "uint8" or header["fields"]["codec"] not in CODECS:
            self._fault(f"its fields are kept as {header['fields']}, and this version knows {', '.join(CODECS)}")
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
        """(n, 2, H, W) uint8: fields by index, in any order and with repetitions.

        Raises:
            FlowStoreError: an index that the video does not have, or a damaged field.
        """
        places = self._places(indices, self.field_count, "field")
        stored = np.empty((sum(map(len, places.values())), 2, self.height, self.width), np.uint8)
        decode = CODECS[self.header["fields"]["codec"]].decoder()
        step, first = (2, 1) if self.has_frames else (1, 0)
        for index, data in zip(places, self._chunks([step * i + first for i in places]), strict=True):
            at, *others = places[index]
            try:
                decode(data, stored[at])
            except Exception as error:
                self._fault(f"field {index} cannot be decoded: {error}", error)
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
            try:
                bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            except cv2.error as error:
                self._fault(f"frame {index} cannot be decoded: {error}", error)
            if bgr is None or bgr.shape != stored.shape[1:]:
                self._fault(f"frame {index} cannot be decoded")
            stored[places[index]] = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
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

    def _chunks(self, numbers: Sequence[int]) -> Iterator[bytes]:
        """The chunks of these rising numbers; neighbours are read at one go."""
        at = 0
        while at < len(numbers):
            end = at + 1
            while end < len(numbers) and numbers[end] == numbers[end - 1] + 1 and end - at < 64:
                end += 1
            first, last = numbers[at], numbers[end - 1]
            start = int(self._offsets[first])
            data = self._read(start, int(self._offsets[last]) + int(self._lengths[last]) - start)
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
        raise FlowStoreError(f"{self.path}: a damaged or foreign flow file: {reason}. {_REMEDY}") from cause


def _difference(found: FlowSettings, asked: FlowSettings) -> str:
    """The entries that differ, as "name: found, not asked"."""
    one, other = ({**s.to_dict(), **s.parameters} for s in (found, asked))
    names = [name for name in {**one, **other} if name != "parameters" and one.get(name) != other.get(name)]
    return ", ".join(f"{name}: {one.get(name)}, not {other.get(name)}" for name in names)


def _whole(value: Any) -> int:
    if not _is_whole(value) or value < 1:
        raise ValueError(f"{value!r} where a count is expected")
    return int(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


__all__ = [
    "CODECS",
    "SUFFIX",
    "Codec",
    "FlowSettings",
    "FlowStore",
    "FlowStoreError",
    "StoredFlow",
    "StoredFlowWriter",
    "stored_settings",
    "stored_size",
]
