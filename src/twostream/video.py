"""Video files: frames by index, exact and in the order of presentation, and a writer for H.264.

What a file says of itself is not believed. Frame counts in headers are wrong in every second data set, time stamps go
backwards or are missing, and seeking by them lands on another frame; so frame i is the i-th frame that decodes, counted
from the start of the file, and the number of frames is the number that decodes. Decoding without a colour conversion
costs little beside everything that is done with a frame afterwards.

Pixels are delivered as they are stored: interlaced frames are not de-interlaced, non-square pixels are not stretched,
high dynamic range is not tone-mapped. Rotation and mirroring that the file asks for are applied.
"""

import math
import os
import re
import struct
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, NamedTuple

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.codec.codec import UnknownCodecError
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.sidedata.sidedata import Type
from av.stream import Disposition
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream

from twostream.errors import TwostreamError, UsageError
from twostream.files import atomic_write

Image = npt.NDArray[np.uint8]
Size = tuple[int, int]
OnError = Literal["raise", "truncate"]


class VideoError(TwostreamError):
    """A video that cannot be read or written as asked.

    Attributes:
        path: the file.
        reason: why; the message is ``"PATH: reason"``.
    """

    def __init__(self, path: Path | str, reason: str) -> None:
        # Both go to Exception.args, so that the error survives the pickling on its way out of a worker process.
        super().__init__(path, reason)
        self.path = Path(path)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What is known of a video.

    Attributes:
        path: the file.
        width, height: in px as frames are delivered, so after rotation.
        fps: mean frame rate in 1/s.
        frames: number of frames that decode; from :func:`probe` a guess.
        seconds: time from the first frame to the end of the last.
        rotation: degrees clockwise that stored pictures are turned by: 0, 90, 180 or 270.
        codec: FFmpeg's name of the decoder, such as ``"h264"``.
        truncated: why reading stopped early, where ``on_error="truncate"`` allowed it; else None.
        exact: False from :func:`probe`, whose ``frames``, ``fps`` and ``seconds`` are the word of the header.
    """

    path: Path
    width: int
    height: int
    fps: float
    frames: int
    seconds: float
    rotation: int
    codec: str
    truncated: str | None = None
    exact: bool = True


def grid_size(width: int, height: int, short_side: int | None) -> Size:
    """(width, height) in px of the grid whose shorter side is ``short_side``; None keeps the size.

    The aspect is kept but for rounding the longer side to an even number.
    """
    if short_side is None:
        return width, height
    if short_side < 1:
        raise UsageError(f"the short side of the grid must be at least 1 px, got {short_side}")
    if width == height:
        return short_side, short_side
    long_side = 2 * round(max(width, height) * short_side / min(width, height) / 2)
    long_side = max(long_side, short_side + short_side % 2)
    return (long_side, short_side) if width > height else (short_side, long_side)


def resize_frame(frame: Image, size: Size) -> Image:
    """(H, W) or (H, W, 3) to ``size`` = (width, height): mean of areas when shrinking, cubic when enlarging."""
    H, W = frame.shape[:2]
    if size == (W, H):
        return frame
    shrinking = size[0] * size[1] < W * H
    interpolation = cv2.INTER_AREA if shrinking else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(np.ascontiguousarray(frame), size, interpolation=interpolation), np.uint8)


class Orientation(NamedTuple):
    """How stored pictures are turned for display: transposed first, then flipped left-right and upside down."""

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False

    @property
    def rotation(self) -> int:
        """Degrees clockwise; of a mirrored picture those that follow a left-right flip."""
        if self.transpose:
            return 90 if self.flip_x else 270
        return 180 if self.flip_y else 0

    def size(self, width: int, height: int) -> Size:
        """The size after turning; its own inverse."""
        return (height, width) if self.transpose else (width, height)

    def apply(self, frame: Image) -> Image:
        """The turned picture, contiguous."""
        if self.transpose:
            frame = frame.swapaxes(0, 1)
        return np.ascontiguousarray(frame[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1])


def _orientation(frame: av.VideoFrame) -> Orientation:
    """What the frame's display matrix asks for, rounded to right angles."""
    side_data: Iterable[Any] = frame.side_data  # PyAV's stub calls it a dictionary; iterating it gives the entries
    matrix = next((bytes(entry) for entry in side_data if entry.type == Type.DISPLAYMATRIX), None)
    if matrix is None:
        return Orientation()
    # Rows (a b u), (c d v), (x y w) of 16.16 numbers: the pixel (p, q) is shown at (a p + c q + x, b p + d q + y).
    a, b, _, c, d = struct.unpack_from("=5i", matrix)
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Orientation(transpose=True, flip_x=c < 0, flip_y=b < 0)
    return Orientation(transpose=False, flip_x=a < 0, flip_y=d < 0)


class Frame:
    """One decoded picture; pixels are converted when asked for.

    Holds the decoder's picture in memory for as long as it lives, so keep arrays rather than many frames.

    Attributes:
        index: 0-based place in the stream it came from.
    """

    __slots__ = ("_picture", "_time", "_video", "index")

    def __init__(self, video: "Video", picture: av.VideoFrame, index: int, time: float | None = None) -> None:
        self.index = index
        self._video = video
        self._picture = picture
        self._time = time

    @property
    def time(self) -> float:
        """Seconds from the first frame; in a stream of common ``fps``, k / fps.

        Whether time stamps can be trusted shows only after a whole pass (see :attr:`Video.times`), which the first
        use of this makes where none was made before.
        """
        return float(self._video.times[self.index]) if self._time is None else self._time

    def rgb(self, size: Size | None = None) -> Image:
        """(H, W, 3) uint8 R, G, B, at ``size`` = (width, height) if given.

        YUV is converted by the matrix and range that the file names; where it names none, by ITU-R BT.601 and limited
        range, as FFmpeg and OpenCV do. Transparency is ignored.
        """
        return self._deliver(self._rgb(), size)

    def luma(self, size: Size | None = None) -> Image:
        """(H, W) uint8 brightness 0..255, at ``size`` = (width, height) if given.

        The Y plane as it is stored, without a colour conversion: limited range is expanded, more than 8 bits are
        rounded to 8. Formats without a plane of Y (RGB, palettes, packed YUV) give 0.299 R + 0.587 G + 0.114 B.
        """
        plane = _luma_plane(self._picture)
        if plane is None:
            plane = np.asarray(cv2.cvtColor(self._rgb(), cv2.COLOR_RGB2GRAY), np.uint8)
        return self._deliver(plane, size)

    def _deliver(self, pixels: Image, size: Size | None) -> Image:
        turn = self._video.orientation
        # Resized before it is turned: there are mostly fewer pixels to turn afterwards.
        return turn.apply(pixels if size is None else resize_frame(pixels, turn.size(*size)))

    def _rgb(self) -> Image:
        picture = self._picture
        try:
            rgb = picture.reformat(format="rgb24", dst_color_range=ColorRange.JPEG, threads=1).to_ndarray()
        except FFmpegError as error:
            raise VideoError(
                self._video.path,
                f"frame {self.index} ({picture.format.name}, colour space {picture.colorspace}) cannot be converted "
                f"to RGB ({_says(error)}); its luma can still be read",
            ) from error
        return rgb.astype(np.uint8, copy=False)


# Formats whose first plane is Y alone, one sample a byte or, above 8 bits, in the low bits of two bytes.
_LUMA_FIRST = re.compile(r"(?:yuvj?4\d\dp|yuva4\d\dp|gray)(?:\d+[lb]e)?|nv(?:12|16|21|24|42)")


def _luma_plane(picture: av.VideoFrame) -> Image | None:
    """Y at full range in 8 bits, or None where the format has no such plane."""
    name = picture.format.name
    plane = picture.planes[0]
    # A negative stride marks a picture stored bottom up, which swscale knows how to walk and a buffer does not.
    if not _LUMA_FIRST.fullmatch(name) or plane.line_size < 0:
        return None
    bits = picture.format.components[0].bits
    dtype = np.dtype(np.uint8) if bits == 8 else np.dtype(np.uint16).newbyteorder(">" if name.endswith("be") else "<")
    samples: npt.NDArray[Any] = np.frombuffer(memoryview(plane), dtype).reshape(-1, plane.line_size // dtype.itemsize)
    samples = samples[: picture.height, : picture.width]
    # Like FFmpeg, take grey for full range unless the file says otherwise, and colour the other way about.
    full = name.startswith("yuvj") or picture.color_range == ColorRange.JPEG
    full |= name.startswith("gray") and picture.color_range == ColorRange.UNSPECIFIED
    if bits > 8:
        return np.asarray(_expansion(bits, full)[samples], np.uint8)
    # A copy, lest the array given out be a read-only window on the decoder's memory.
    return samples.copy() if full else np.asarray(cv2.LUT(samples, _expansion(bits, full)), np.uint8)


@lru_cache(maxsize=16)
def _expansion(bits: int, full: bool) -> Image:
    """(2^bits,) table from stored luma to 0..255."""
    unit = 2 ** (bits - 8)
    black, white = (0, 256 * unit - 1) if full else (16 * unit, 235 * unit)
    levels = (np.arange(256 * unit) - black) * (255 / (white - black))
    return np.asarray(np.clip(np.floor(levels + 0.5), 0, 255), np.uint8)


class _DamageError(VideoError):
    """Where decoding stopped: after ``frames`` whole frames, because of ``cause``."""

    def __init__(self, path: Path | str, frames: int, cause: str) -> None:
        advice = "to use the frames before the damage, ask for on_error='truncate' (twostream flow --on-error truncate)"
        super().__init__(
            path,
            f"damaged after {frames} whole frames: {cause}; {advice}" if frames else f"not one whole frame: {cause}",
        )
        self.args = (path, frames, cause)
        self.frames = frames
        self.cause = cause


class Video:
    """A video file, read by frame index.

    Every read opens the file anew and decodes from its start, so one object serves any number of interleaved reads and
    can be sent to other processes. Decoding takes one thread: work is spread over processes, and a damaged file then
    gives the same frames on every machine.

    Damage is an error of the container or the decoder, a packet or picture that FFmpeg marks as incomplete or filled in
    from its neighbours, a file that ends before its header says it does, and a picture of another size than the first.
    It is raised where reading meets it; with ``on_error="truncate"`` reading ends there instead, as if the file did,
    and ``truncated`` says why. What leaves no trace cannot be seen: GIF and transport streams cut between two frames,
    and changed bytes that HEVC or AV1 decoders paint over in silence.

    Attributes:
        path: the file.
        width, height: in px as frames are delivered, so after rotation.
        orientation: how stored pictures are turned; that of the first frame holds for all.
        codec: FFmpeg's name of the decoder.
        truncated: the reason, once a read in truncate mode has met damage; None before and otherwise.

    Raises:
        VideoError: no such file, not a video, no video stream, or not one frame that decodes.
    """

    def __init__(self, path: Path | str, *, on_error: OnError = "raise") -> None:
        if on_error not in ("raise", "truncate"):
            raise UsageError(f"on_error is 'raise' or 'truncate', got {on_error!r}")
        self.path = Path(path)
        self.on_error = on_error
        self.truncated: str | None = None
        self._timeline: _Timeline | None = None
        with _opened(self.path) as (container, stream):
            self.codec = stream.codec_context.name
            self._header_rate = _header_rate(stream)
            first = next(_decode(self.path, container, stream), None)
        if first is None:
            raise VideoError(self.path, "it has a video stream, but not one frame in it decodes")
        self.orientation = _orientation(first)
        self._stored_size = (first.width, first.height)
        self.width, self.height = self.orientation.size(first.width, first.height)

    def __repr__(self) -> str:
        return f"Video({str(self.path)!r}, {self.width}x{self.height}, {self.codec})"

    @property
    def rotation(self) -> int:
        """Degrees clockwise that stored pictures are turned by: 0, 90, 180 or 270."""
        return self.orientation.rotation

    def __len__(self) -> int:
        """The number of frames that decode; the first use takes one pass over the file without conversion."""
        return len(self.times)

    @property
    def fps(self) -> float:
        """Mean frame rate in 1/s: the header's where the time stamps bear it out within 1 %, else theirs.

        As costly as :meth:`__len__`; free after it, and after a stream that was read to its end.
        """
        return self._measured().fps

    @property
    def seconds(self) -> float:
        """Time from the first frame to the end of the last; as costly as :meth:`__len__`."""
        return self._measured().seconds

    @property
    def times(self) -> npt.NDArray[np.float64]:
        """(N,) seconds from the first frame; as costly as :meth:`__len__`.

        Time stamps are used if every frame has one, each is later than the one before and none by more than ten
        minutes. Otherwise (packed B-frames in AVI, streams glued together, clocks that wrap) none of them is, and
        frame i stands at i / header's rate.
        """
        return self._measured().times

    def info(self) -> VideoInfo:
        """All of it; as costly as :meth:`__len__`."""
        measured = self._measured()
        return VideoInfo(
            path=self.path,
            width=self.width,
            height=self.height,
            fps=measured.fps,
            frames=len(measured.times),
            seconds=measured.seconds,
            rotation=self.rotation,
            codec=self.codec,
            truncated=self.truncated,
        )

    def count(self, fps: float | None = None) -> int:
        """The number of frames that ``stream(fps=fps)`` yields; as costly as :meth:`__len__`, and free after it."""
        return len(self) if fps is None else len(self._chosen(fps))

    def stream(self, *, fps: float | None = None, start: int = 0, stop: int | None = None) -> Iterator[Frame]:
        """Frames ``start`` ... ``stop`` - 1 in order, in one forward pass that holds one frame at a time.

        With ``fps``, frames are chosen by time: frame k is the last one whose time is not after k / fps (1 ms is
        allowed for containers that round to whole milliseconds), for as long as k / fps lies within the video.
        ``start``, ``stop`` and :attr:`Frame.index` then count the chosen frames, of which neighbours may be the same
        picture. Choosing needs the times of all frames, and so a pass like that of :meth:`__len__` beforehand.
        """
        if start < 0 or (stop is not None and stop < 0):
            raise VideoError(self.path, f"frames are counted from 0; frames {start} to {stop} were asked for")
        if fps is None:
            return self._by_index(start, stop)
        if not (math.isfinite(fps) and fps > 0):
            raise UsageError(f"the common frame rate must be a number above 0, got {fps}")
        return self._by_time(fps, start, stop)

    def frames(
        self,
        indices: Sequence[int] | npt.NDArray[np.integer],
        *,
        luma: bool = False,
        short_side: int | None = None,
        fps: float | None = None,
    ) -> Image:
        """Frames by index, in any order and with repetitions: (n, H, W, 3) RGB, or (n, H, W) luma, uint8.

        Decodes from the start of the file up to the highest index and converts only what was asked for, at the grid
        of :func:`grid_size`. With ``fps``, indices count the frames chosen by time, as in :meth:`stream`.

        Raises:
            VideoError: an index outside the video, or damage before the highest index.
        """
        wanted = np.asarray(indices)
        if wanted.ndim != 1 or (wanted.size and not np.issubdtype(wanted.dtype, np.integer)):
            raise UsageError(f"frame indices are a list of whole numbers, got {indices!r}")
        if wanted.size and wanted.min() < 0:
            raise VideoError(self.path, f"frames are counted from 0; frame {wanted.min()} was asked for")
        W, H = size = grid_size(self.width, self.height, short_side)
        images = np.empty((len(wanted), H, W) if luma else (len(wanted), H, W, 3), np.uint8)
        places: dict[int, list[int]] = {}
        for place, index in enumerate(wanted.tolist()):
            places.setdefault(index, []).append(place)
        last = max(places, default=-1)
        found = -1
        for frame in self.stream(fps=fps, start=min(places, default=0), stop=last + 1):
            found = frame.index
            if found in places:
                images[places[found]] = frame.luma(size) if luma else frame.rgb(size)
        if found < last:
            count = self.count(fps)
            cut = f"; reading stopped early: {self.truncated}" if self.truncated else ""
            raise VideoError(self.path, f"frame {last} was asked for, but it has frames 0 to {count - 1}{cut}")
        return images

    def _by_index(self, start: int, stop: int | None) -> Iterator[Frame]:
        if stop is not None and stop <= start:
            return
        with closing(self._pictures()) as pictures:
            for i, picture in enumerate(pictures):
                if i >= start:
                    yield Frame(self, picture, i)
                if i + 1 == stop:
                    return

    def _by_time(self, fps: float, start: int, stop: int | None) -> Iterator[Frame]:
        chosen = self._chosen(fps)[start:stop].tolist()
        k = 0
        with closing(self._pictures()) as pictures:
            for i, picture in enumerate(pictures):
                while k < len(chosen) and chosen[k] == i:
                    yield Frame(self, picture, start + k, (start + k) / fps)
                    k += 1
                if k == len(chosen):
                    return

    def _chosen(self, fps: float) -> npt.NDArray[np.int64]:
        """For each frame of the common clock, the index of the frame to show."""
        measured = self._measured()
        # Matroska and Flash round both ends of each span to whole milliseconds.
        slack = min(0.001001, 0.25 / fps)
        count = max(1, math.ceil((measured.seconds - slack) * fps))
        return np.searchsorted(measured.times, np.arange(count) / fps + slack, side="right") - 1

    def _measured(self) -> "_Timeline":
        if self._timeline is None:
            for _ in self._pictures():
                pass
        assert self._timeline is not None
        return self._timeline

    def _pictures(self) -> Generator[av.VideoFrame]:
        """All frames; a pass that gets to the end leaves the timeline behind."""
        stamps: list[float | None] = []
        try:
            with _opened(self.path) as (container, stream):
                for picture in _decode(self.path, container, stream):
                    if (picture.width, picture.height) != self._stored_size:
                        now, first = f"{picture.width}x{picture.height}", "{}x{}".format(*self._stored_size)
                        raise _DamageError(
                            self.path, len(stamps), f"frame {len(stamps)} is {now} where those before are {first}"
                        )
                    stamps.append(picture.time)
                    yield picture
        except _DamageError as damage:
            if self.on_error == "raise" or damage.frames == 0:
                raise
            self.truncated = damage.cause
        if self._timeline is None:
            self._timeline = _Timeline.of(stamps, self._header_rate)


@dataclass(frozen=True)
class _Timeline:
    """When frames are shown."""

    times: npt.NDArray[np.float64]
    seconds: float
    fps: float

    @classmethod
    def of(cls, stamps: Sequence[float | None], rate: float) -> "_Timeline":
        """From the time stamps of all frames in s and the header's frame rate."""
        N = len(stamps)
        times = np.arange(N) / rate
        seconds = N / rate
        if N > 1 and None not in stamps:
            stamped = np.array(stamps, np.float64) - float(stamps[0] or 0)
            gaps = np.diff(stamped)
            # Ten minutes: longer than any still picture is held, shorter than the leaps of a broken clock.
            if gaps.min() > 0 and gaps.max() <= 600:
                times = stamped
                # Durations of last frames are often nonsense; that of most frames is not.
                seconds = float(stamped[-1] + np.median(gaps))
        mean = N / seconds
        return cls(times, seconds, rate if abs(mean / rate - 1) <= 0.01 else mean)


def probe(path: Path | str) -> VideoInfo:
    """A quick look, for estimates of time and space: size and rotation from the first frame, the rest a guess.

    Raises:
        VideoError: as :class:`Video`.
    """
    video = Video(path)
    rate = video._header_rate
    with _opened(video.path) as (container, stream):
        frames = stream.frames
        if stream.duration and stream.time_base:
            seconds = float(stream.duration * stream.time_base)
        else:
            seconds = (container.duration or 0) / av.time_base
        # A count may be absent, of another stream, or garbage; then the duration is the better witness.
        if not 0 < frames <= video.path.stat().st_size or (seconds and not 0.25 < frames / (seconds * rate) < 4):
            frames = round(seconds * rate)
        if frames < 1:
            frames = sum(1 for packet in container.demux(stream) if packet.size)
    return VideoInfo(
        path=video.path,
        width=video.width,
        height=video.height,
        fps=rate,
        frames=frames,
        seconds=frames / rate,
        rotation=video.rotation,
        codec=video.codec,
        exact=False,
    )


def _header_rate(stream: VideoStream) -> float:
    """The frame rate in 1/s that the header gives, or 25 where it gives none that can be one."""
    for rate in (stream.average_rate, stream.guessed_rate):
        # Containers without a frame rate report the tick of their clock: 1000, 90000.
        if rate is not None and 0 < rate < 1000:
            return float(rate)
    return 25.0


def _says(error: FFmpegError | OSError) -> str:
    return error.strerror or str(error)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its video stream, from this file alone.

    FFmpeg is handed an open file, not a name: names such as ``http:a.mp4``, ``concat:a|b`` or ``img%03d.jpg`` would
    otherwise be taken for protocols and patterns. No protocol is allowed, so that playlists open nothing else.
    """
    with ExitStack() as stack:
        file = stack.enter_context(_open_file(path))
        try:
            container = stack.enter_context(
                # Tags are in whatever encoding a camera liked; they are not read.
                av.open(file, "r", options={"protocol_whitelist": "none"}, metadata_errors="replace")
            )
        except (FFmpegError, OSError) as error:
            raise VideoError(
                path, f"not a video file, or its header is damaged or incomplete (FFmpeg: {_says(error)})"
            ) from error
        if container.format.name == "tty":
            raise VideoError(path, "a text file, not a video")
        stream = next((s for s in container.streams.video if not s.disposition & Disposition.attached_pic), None)
        if stream is None:
            kinds = sorted({"a cover picture" if s.type == "video" else s.type for s in container.streams})
            raise VideoError(path, f"no video stream in it, only {' and '.join(kinds)}" if kinds else "no stream in it")
        if stream.codec_context is None:
            raise VideoError(path, "FFmpeg has no decoder for the codec of its video stream")
        stream.thread_count = 1
        yield container, stream


def _open_file(path: Path) -> BinaryIO:
    try:
        if not path.exists():
            raise VideoError(path, "no such file")
        if path.is_dir():
            raise VideoError(path, "a folder, not a video file")
        if not path.is_file():
            raise VideoError(path, "not a regular file but a pipe or a device, which cannot be read twice")
        file = path.open("rb", buffering=0)
    except OSError as error:
        raise VideoError(path, f"cannot be opened ({error.strerror or error})") from error
    if os.fstat(file.fileno()).st_size == 0:
        file.close()
        raise VideoError(path, "the file is empty (0 bytes)")
    return file


def _decode(path: Path, container: InputContainer, stream: VideoStream) -> Generator[av.VideoFrame]:
    """Whole frames in the order of presentation.

    Frames that the decoder still holds back for ordering are dropped where damage is met: behind a lost frame their
    places would be a guess.

    Raises:
        _DamageError: something in the file is broken.
    """
    frames = 0
    # Transport streams mark packets behind any jump of their counter, and so where whole recordings were joined.
    joints = container.format.name == "mpegts"
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                break
            cut = packet.is_corrupt and not joints
            pictures = [] if cut else packet.decode()
        except (FFmpegError, OSError) as error:
            raise _DamageError(path, frames, f"FFmpeg says {_says(error)!r}") from error
        if cut:
            raise _DamageError(path, frames, "the data of the next frame is incomplete")
        for picture in pictures:
            if picture.is_corrupt:
                raise _DamageError(path, frames, f"frame {frames} decodes only in part")
            frames += 1
            yield picture
    if missing := _missing_bytes(path):
        raise _DamageError(path, frames, f"the file ends {missing} bytes before its header says it does")


def _missing_bytes(path: Path) -> int:
    """How many bytes the container promises beyond the end of the file.

    Demuxers take the end of a file for the end of the video, wherever it comes, so a copy cut short between two frames
    would go unnoticed. 0 where nothing is missing or the container (GIF, MPEG streams, live Matroska) gives no length.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(4096)
        if head[:4] == b"RIFF":
            end = _riff_end(file, size)
        elif head[:4] == b"\x1a\x45\xdf\xa3":
            end = _matroska_end(head)
        elif head[4:8] in (b"ftyp", b"wide", b"free", b"skip", b"moov", b"mdat"):
            end = _iso_end(file, size)
        else:
            end = 0
    return max(0, end - size)


def _riff_end(file: BinaryIO, size: int) -> int:
    """Where an AVI file ends; large ones are several RIFF chunks in a row."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        kind, length = file.read(4), int.from_bytes(file.read(4), "little")
        # Unfinished files say 0 or all ones.
        if kind != b"RIFF" or length in (0, 0xFFFFFFFF):
            return 0
        # Some writers count these 8 bytes as well.
        if at + length > size:
            return at + 8 + length
        at += 8 + length + length % 2
    return 0


def _matroska_end(head: bytes) -> int:
    """Where the segment ends, which is all of the file behind its short header; 0 where its length is left open."""
    length, at = _ebml_number(head, 4)
    at += length
    if head[at : at + 4] != b"\x18\x53\x80\x67":
        return 0
    length, at = _ebml_number(head, at + 4)
    return at + length if length else 0


def _ebml_number(data: bytes, at: int) -> tuple[int, int]:
    """The variable-length number at ``at`` and the place behind it; all ones, which means unknown, counts as 0."""
    width = 9 - data[at].bit_length()
    mask = 2 ** (7 * width) - 1
    number = int.from_bytes(data[at : at + width], "big") & mask
    return (0 if number == mask else number), at + width


def _iso_end(file: BinaryIO, size: int) -> int:
    """Where the last box of an MP4 or QuickTime file ends, if it is one of media; other trailing bytes do no harm."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        length, kind = int.from_bytes(file.read(4), "big"), file.read(4)
        if length == 1:
            length = int.from_bytes(file.read(8), "big")
        if length < 8:
            return 0
        at += length
        if at > size:
            return at if kind in (b"mdat", b"moof", b"moov") else 0
    return 0


class VideoWriter:
    """Writes H.264 in MP4, frame by frame with bounded memory; the file appears when all of it is written.

    >>> with VideoWriter("out.mp4", 25) as writer:
    ...     writer.write(frame)

    Pictures are (H, W, 3) uint8 R, G, B, all of one size; the first sets it. Players want even sizes, so an odd width
    or height grows by one: the last column or row is repeated. Colours are stored as 4:2:0 in limited range by ITU-R
    BT.601 and marked so. The same frames give the same bytes.

    Args:
        path: ends in ``.mp4``.
        fps: frames a second.
        crf: constant rate factor of x264: 0 loses nothing, 18 is hard to tell from the original, 51 is worst.

    Raises:
        VideoError: no frame was written, or one that does not fit, or the file or its codec cannot be opened.
        OutputError: the file cannot be written (read-only folder, full disk).
    """

    def __init__(self, path: Path | str, fps: float, *, crf: int = 18) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() != ".mp4":
            raise VideoError(self.path, "videos are written as H.264 in MP4; the name must end in .mp4")
        if not (math.isfinite(fps) and 0 < fps <= 1000):
            raise VideoError(self.path, f"the frame rate to write must lie above 0 and up to 1000, got {fps}")
        if not 0 <= crf <= 51:
            raise VideoError(self.path, f"crf must lie in 0 (lossless) to 51 (worst), got {crf}")
        self.frames = 0
        self._crf = crf
        self._rate = Fraction(fps).limit_denominator(1001)
        self._size: Size | None = None

    def __enter__(self) -> "VideoWriter":
        self._output = self._open()
        self._container, self._stream = self._output.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self._output.__exit__(kind, error, trace)

    @contextmanager
    def _open(self) -> Iterator[tuple[OutputContainer, VideoStream]]:
        with atomic_write(self.path) as file:
            container = av.open(file, "w", format="mp4")
            try:
                stream = container.add_stream("libx264", rate=self._rate)
                yield container, stream
                if self.frames == 0:
                    raise VideoError(self.path, "a video needs at least one frame, none was written")
                container.mux(stream.encode(None))
                container.close()
            except UnknownCodecError as error:
                raise VideoError(
                    self.path, "this build of PyAV has no libx264 to write H.264 with; the wheels on PyPI have"
                ) from error
            except FFmpegError as error:
                raise VideoError(self.path, f"cannot be encoded (FFmpeg: {_says(error)})") from error
            finally:
                # Closing twice does nothing; closing what failed may fail again, which adds nothing.
                with suppress(Exception):
                    container.close()

    def write(self, frame: Image) -> None:
        """Append one (H, W, 3) uint8 picture."""
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
            raise VideoError(self.path, f"frame {self.frames} must be (H, W, 3) uint8, got {frame.shape} {frame.dtype}")
        H, W = frame.shape[:2]
        if self._size is None:
            self._size = W, H
            self._stream.width, self._stream.height = W + W % 2, H + H % 2
            self._stream.pix_fmt = "yuv420p"
            context = self._stream.codec_context
            # More threads would write other bytes, and work is spread over processes anyway. So does x264's look-ahead
            # by macroblock tree: the same pictures were seen to give six different files in ten runs.
            context.thread_count = 1
            context.options = {"crf": str(self._crf), "preset": "veryfast", "mbtree": "0"}
            context.color_range = ColorRange.MPEG
            context.colorspace = 6  # SMPTE 170M, which is BT.601
        elif self._size != (W, H):
            now, first = f"{W}x{H}", "{}x{}".format(*self._size)
            raise VideoError(self.path, f"frame {self.frames} is {now} where those before are {first}")
        even = np.pad(frame, ((0, H % 2), (0, W % 2), (0, 0)), mode="edge")
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24").reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU601, dst_color_range=ColorRange.MPEG, threads=1
        )
        picture.pts = self.frames
        picture.time_base = 1 / self._rate
        self._container.mux(self._stream.encode(picture))
        self.frames += 1


def write_video(path: Path | str, frames: Iterable[Image], fps: float, *, crf: int = 18) -> int:
    """Write (H, W, 3) uint8 R, G, B pictures with :class:`VideoWriter`; returns how many."""
    with VideoWriter(path, fps, crf=crf) as writer:
        for frame in frames:
            writer.write(frame)
    return writer.frames


__all__ = [
    "Frame",
    "Image",
    "OnError",
    "Orientation",
    "Size",
    "Video",
    "VideoError",
    "VideoInfo",
    "VideoWriter",
    "grid_size",
    "probe",
    "resize_frame",
    "write_video",
]
