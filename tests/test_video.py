"""Videos made here, each with one peculiarity; their frames carry their own index as a pattern of stripes."""

import os
import pickle
import resource
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest
from av.codec.codec import UnknownCodecError

from twostream import video as video_module
from twostream.errors import UsageError
from twostream.files import OutputError
from twostream.video import (
    Frame,
    Orientation,
    Video,
    VideoError,
    VideoWriter,
    grid_size,
    probe,
    resize_frame,
    write_video,
)

Array = npt.NDArray[Any]
W, H = 64, 48


def striped(index: int, width: int = W, height: int = H) -> Array:
    """A picture whose 8 upright stripes spell its index in black and white."""
    bits = [(index >> b) & 1 for b in range(8)]
    columns = np.array(bits, np.uint8)[np.arange(width) * 8 // width] * 200 + 20
    return np.repeat(np.tile(columns, (height, 1))[:, :, None], 3, axis=2)


def speckled(index: int) -> Array:
    """The same with noise, which keeps frames from being a few bytes each."""
    noise = np.random.default_rng(index).random((H, W, 1)) < 0.2
    return np.where(noise, 128, striped(index)).astype(np.uint8)


def index_of(picture: Array) -> int:
    """The index that :func:`striped` spelt."""
    grey = picture.mean(axis=2) if picture.ndim == 3 else picture
    return sum(int(stripe.mean() > 120) << b for b, stripe in enumerate(np.array_split(grey, 8, axis=1)))


def encode(
    path: Path,
    pictures: Sequence[Array],
    *,
    codec: str = "libx264",
    source: str = "rgb24",
    pix_fmt: str = "yuv420p",
    rate: int = 25,
    pts: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    prepare: Callable[[Any], None] | None = None,
    restamp: Sequence[int] | None = None,
) -> Path:
    """Write with PyAV alone, so that reading is not checked by the project's own writer."""
    first = av.VideoFrame.from_ndarray(pictures[0], format=source)
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = first.width, first.height, pix_fmt
        if prepare is not None:
            prepare(stream)
        packets = []
        for i, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format=source)
            frame = frame if source == pix_fmt else frame.reformat(format=pix_fmt)
            frame.pts, frame.time_base = (i if pts is None else pts[i]), Fraction(1, rate)
            packets += stream.encode(frame)
        packets += stream.encode(None)
        for i, packet in enumerate(packets):
            if restamp is not None:
                packet.pts, packet.dts = restamp[i], i - 1  # a packet is decoded before it is shown
            container.mux(packet)
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 frames of H.264 with B-frames in MP4, index in front."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return encode(
        path,
        [speckled(i) for i in range(40)],
        options={"bf": "3", "g": "12"},
        container_options={"movflags": "+faststart"},
    )


def stored(path: Path, pictures: Sequence[Array], pix_fmt: str, **more: Any) -> Path:
    """Lossless FFV1 in Matroska: what is read back is what was stored."""
    return encode(path, pictures, codec="ffv1", source=pix_fmt, pix_fmt=pix_fmt, **more)


# --- frames by index -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "options"),
    [
        ("b.mp4", "libx264", "yuv420p", {"bf": "3", "g": "12"}),
        ("b.avi", "mpeg4", "yuv420p", {"bf": "2"}),
        ("h264.avi", "libx264", "yuv420p", {"bf": "3"}),
        ("b.mpg", "mpeg2video", "yuv420p", {"bf": "2"}),
        ("b.ts", "libx264", "yuv420p", {"bf": "3"}),
        ("v.webm", "libvpx-vp9", "yuv420p", {"auto-alt-ref": "1", "cpu-used": "8"}),
        ("h.mkv", "libx265", "yuv420p", {"x265-params": "log-level=none", "preset": "ultrafast"}),
        ("a.gif", "gif", "rgb8", {}),
        ("f.flv", "flv1", "yuv420p", {}),
        ("444.mp4", "libx264", "yuv444p", {}),
        ("10bit.mp4", "libx264", "yuv420p10le", {}),
    ],
)
def test_frames_are_exact_in_every_container(
    tmp_path: Path, name: str, codec: str, pix_fmt: str, options: dict[str, str]
) -> None:
    path = encode(tmp_path / name, [striped(i) for i in range(30)], codec=codec, pix_fmt=pix_fmt, options=options)
    video = Video(path)
    wanted = [7, 0, 7, 29, 3, 12]
    rgb, luma = video.frames(wanted), video.frames(wanted, luma=True)
    assert rgb.shape == (6, H, W, 3)
    assert rgb.dtype == np.uint8
    assert luma.shape == (6, H, W)
    assert [index_of(p) for p in rgb] == wanted
    assert [index_of(p) for p in luma] == wanted
    assert len(video) == 30
    assert [index_of(f.luma()) for f in video.stream()] == list(range(30))
    assert video.fps == pytest.approx(25)
    assert video.seconds == pytest.approx(30 / 25, abs=0.02)


def test_stream_goes_from_start_to_stop(clip: Path) -> None:
    video = Video(clip)
    frames = list(video.stream(start=5, stop=9))
    assert [f.index for f in frames] == [5, 6, 7, 8]
    assert [index_of(f.rgb()) for f in frames] == [5, 6, 7, 8]
    assert [f.time for f in frames] == pytest.approx([0.2, 0.24, 0.28, 0.32])
    assert [f.index for f in video.stream(start=38, stop=99)] == [38, 39]
    assert list(video.stream(start=5, stop=5)) == []
    assert list(video.stream(start=40)) == []


def test_reads_do_not_disturb_each_other(clip: Path) -> None:
    video = Video(clip)
    one, other = video.stream(), video.stream(start=10)
    pairs = [(next(one).index, next(other).index) for _ in range(5)]
    assert pairs == [(i, i + 10) for i in range(5)]
    assert index_of(video.frames([39])[0]) == 39
    assert next(one).index == 5


def test_no_indices_give_no_frames(clip: Path) -> None:
    assert Video(clip).frames([]).shape == (0, H, W, 3)
    assert Video(clip).frames([], luma=True, short_side=24).shape == (0, 24, 32)


def test_indices_outside_are_errors(clip: Path) -> None:
    video = Video(clip)
    with pytest.raises(VideoError, match=r"frame 40 was asked for, but it has frames 0 to 39$"):
        video.frames([0, 40])
    with pytest.raises(VideoError, match=r"frame 20 was asked for, but it has frames 0 to 15$"):
        video.frames([20], fps=10)
    with pytest.raises(VideoError, match=r"counted from 0; frame -1 was asked for"):
        video.frames(np.array([3, -1]))
    with pytest.raises(UsageError, match="list of whole numbers"):
        video.frames([0.5])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="list of whole numbers"):
        video.frames(np.zeros((2, 2), int))
    with pytest.raises(VideoError, match="frames -1 to None"):
        video.stream(start=-1)
    with pytest.raises(VideoError, match="frames 0 to -3"):
        video.stream(stop=-3)


def test_wrong_options_are_errors(clip: Path) -> None:
    with pytest.raises(UsageError, match="'raise' or 'truncate', got 'ignore'"):
        Video(clip, on_error="ignore")  # type: ignore[arg-type]
    for fps in (0, -1, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="common frame rate must be a number above 0"):
            Video(clip).stream(fps=fps)
    with pytest.raises(UsageError, match="at least 1 px, got 0"):
        grid_size(10, 10, 0)


def test_only_what_is_needed_is_decoded(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    decode = video_module._decode

    def counted(*arguments: Any) -> Iterator[av.VideoFrame]:
        for picture in decode(*arguments):
            seen.append(picture)
            yield picture

    video = Video(clip)
    monkeypatch.setattr(video_module, "_decode", counted)
    video.frames([4, 2])
    assert len(seen) == 5


def test_info_and_probe(clip: Path) -> None:
    info = Video(clip).info()
    assert (info.width, info.height, info.frames, info.fps, info.codec) == (W, H, 40, 25.0, "h264")
    assert info.seconds == pytest.approx(1.6)
    assert (info.rotation, info.truncated, info.exact, info.path) == (0, None, True, clip)
    guess = probe(clip)
    assert (guess.frames, guess.fps, guess.seconds, guess.exact) == (40, 25.0, 1.6, False)
    assert "64x48, h264" in repr(Video(clip))


def test_a_video_travels_to_another_process(clip: Path) -> None:
    video = Video(clip)
    assert len(video) == 40
    assert index_of(pickle.loads(pickle.dumps(video)).frames([9])[0]) == 9


def test_memory_stays_bounded(tmp_path: Path) -> None:
    pictures = [striped(0, 960, 720)] * 150
    path = encode(tmp_path / "big.mp4", pictures, options={"preset": "ultrafast", "bf": "0"})
    program = """
import resource, sys
from twostream.video import Video
video = Video(sys.argv[1])
for frame in video.stream(stop=20):
    frame.rgb()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for frame in video.stream():
    frame.rgb(), frame.luma()
print(frame.index, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    answer = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    last, grown = map(int, answer.stdout.split())
    assert last == 149
    assert grown < 30  # MB; the frames are 2 MB each as RGB, 1 MB as decoded


# --- time ------------------------------------------------------------------------------------------------------------


def test_frames_are_chosen_by_time_in_variable_rate(tmp_path: Path) -> None:
    ticks = [0, 1, 2, 10, 11, 30]
    path = encode(tmp_path / "vfr.mp4", [striped(i) for i in range(6)], pts=ticks, options={"bf": "2"})
    video = Video(path)
    assert video.times == pytest.approx(np.array(ticks) / 25)
    assert video.seconds == pytest.approx(31 / 25)
    assert video.fps == pytest.approx(6 / (31 / 25))
    shown = [index_of(f.luma()) for f in video.stream(fps=25)]
    assert shown == [0, 1, *[2] * 8, 3, *[4] * 19, 5]
    halved = list(video.stream(fps=12.5))
    assert [index_of(f.luma()) for f in halved] == shown[::2]
    assert [f.index for f in halved] == list(range(16))
    assert [f.time for f in halved] == pytest.approx(np.arange(16) / 12.5)
    assert [index_of(f.luma()) for f in video.stream(fps=12.5, start=4, stop=7)] == shown[8:14:2]
    assert [index_of(f) for f in video.frames([15, 5, 5, 0], fps=12.5)] == [5, 3, 3, 0]


@pytest.mark.parametrize("rate", [24, 30])
def test_whole_milliseconds_lose_no_frame(tmp_path: Path, rate: int) -> None:
    path = encode(tmp_path / "a.mkv", [striped(i) for i in range(60)], rate=rate)
    assert [index_of(f.luma()) for f in Video(path).stream(fps=rate)] == list(range(60))
    assert Video(path).fps == rate


def test_slower_and_faster_clocks(clip: Path) -> None:
    video = Video(clip)
    assert [index_of(f.luma()) for f in video.stream(fps=5)] == [0, 5, 10, 15, 20, 25, 30, 35]
    assert [index_of(f.luma()) for f in video.stream(fps=50)] == [i // 2 for i in range(80)]
    assert [index_of(f.luma()) for f in video.stream(fps=0.1)] == [0]


def test_time_stamps_that_go_backwards_are_not_believed(tmp_path: Path) -> None:
    shuffled = [0, 2, 1, 4, 3, 6, 5, 8, 7, 9]
    path = encode(
        tmp_path / "packed.mkv",
        [striped(i) for i in range(10)],
        codec="mjpeg",
        pix_fmt="yuvj420p",
        restamp=shuffled,
    )
    with av.open(str(path)) as container:
        stamps = [f.pts or 0 for f in container.decode(video=0)]
    assert [stamp - stamps[0] for stamp in stamps] == [40 * i for i in shuffled]
    video = Video(path)
    assert video.times == pytest.approx(np.arange(10) / 25)
    assert (video.fps, video.seconds) == (25, 0.4)
    assert [index_of(f.luma()) for f in video.stream(fps=25)] == list(range(10))
    assert next(iter(video.stream(start=3))).time == pytest.approx(0.12)


def test_streams_glued_together_are_one_video(tmp_path: Path) -> None:
    part = encode(tmp_path / "a.ts", [striped(i) for i in range(10)]).read_bytes()
    (tmp_path / "glued.ts").write_bytes(part + part)
    video = Video(tmp_path / "glued.ts")
    assert [index_of(f.luma()) for f in video.stream()] == [*range(10), *range(10)]
    assert video.times == pytest.approx(np.arange(20) / 25)


def test_missing_and_leaping_time_stamps_are_not_believed() -> None:
    counted = pytest.approx([0, 0.04, 0.08])
    for stamps in ([0.0, None, 0.08], [None, None, None], [0.0, 0.0, 0.1], [5.0, 5.04, 700.0]):
        timeline = video_module._Timeline.of(stamps, 25.0)
        assert timeline.times == counted
        assert (timeline.fps, timeline.seconds) == (25, pytest.approx(0.12))
    kept = video_module._Timeline.of([5.0, 5.04, 600.0], 25.0)
    assert kept.times == pytest.approx([0, 0.04, 595.0])


@pytest.mark.parametrize(
    ("average", "guessed", "rate"),
    [(Fraction(30), None, 30), (None, Fraction(24), 24), (Fraction(90000), Fraction(1000), 25), (None, None, 25)],
)
def test_header_rates_that_cannot_be_are_not_used(
    average: Fraction | None, guessed: Fraction | None, rate: float
) -> None:
    class Stream:
        average_rate, guessed_rate = average, guessed

    assert video_module._header_rate(Stream()) == rate  # type: ignore[arg-type]


def test_absurd_counts_in_the_header_are_not_believed(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.avi", [striped(i) for i in range(12)], codec="mpeg4")
    data = bytearray(path.read_bytes())
    main, stream = data.index(b"avih") + 8, data.index(b"strh") + 8
    data[main + 16 : main + 20] = data[stream + 32 : stream + 36] = struct.pack("<I", 2**31 - 2)
    path.write_bytes(data)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 2**31 - 2
    assert len(Video(path)) == 12
    assert Video(path).seconds == pytest.approx(0.48)


def test_probe_counts_packets_where_the_header_says_nothing(tmp_path: Path) -> None:
    path = encode(tmp_path / "live.mkv", [striped(i) for i in range(12)], container_options={"live": "1"})
    with av.open(str(path)) as container:
        assert container.duration is None
    guess = probe(path)
    assert (guess.frames, guess.exact) == (12, False)


def test_probe_prefers_the_duration_to_a_count_that_contradicts_it(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", [striped(i) for i in range(50)])
    guess = probe(path)
    assert (guess.frames, guess.seconds, guess.fps) == (50, 2.0, 25.0)


# --- pixels ----------------------------------------------------------------------------------------------------------


def store_planes(path: Path, planes: Sequence[Array], pix_fmt: str, color_range: int) -> Path:
    """One lossless frame from its planes, to be read back sample by sample."""
    height, width = planes[0].shape
    picture = av.VideoFrame(width, height, pix_fmt)
    for plane, samples in zip(picture.planes, planes, strict=True):
        rows = np.zeros((plane.height, plane.line_size // samples.itemsize), samples.dtype)
        rows[:, : plane.width] = samples
        plane.update(rows.tobytes())
    with av.open(str(path), "w") as container:
        stream = container.add_stream("rawvideo" if path.suffix == ".nut" else "ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.color_range = color_range
        container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("color_range", [0, 1, 2])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p"])
def test_luma_is_the_stored_plane_at_full_range(tmp_path: Path, pix_fmt: str, color_range: int) -> None:
    levels = np.repeat(np.arange(256, dtype=np.uint8)[None], 16, axis=0)
    chroma = levels[:: 2 if pix_fmt == "yuv420p" else 1, :: 1 if pix_fmt == "yuv444p" else 2]
    path = store_planes(tmp_path / "a.mkv", [levels, chroma, chroma], pix_fmt, color_range)
    luma = Video(path).frames([0], luma=True)[0]
    expanded = np.clip(np.round((np.arange(256) - 16) * 255 / 219), 0, 255)
    assert (luma == (np.arange(256) if color_range == 2 else expanded)[None]).all()


def test_luma_belongs_to_the_caller(tmp_path: Path) -> None:
    levels = np.repeat(np.arange(256, dtype=np.uint8)[None], 16, axis=0)
    path = store_planes(tmp_path / "a.mkv", [levels] * 3, "yuv444p", 2)
    frame = next(iter(Video(path).stream()))
    first = frame.luma()
    first[:] = 0
    assert (frame.luma() == levels).all()
    frame.rgb()[:] = 0


def test_motion_jpeg_has_full_range(tmp_path: Path) -> None:
    pictures = [np.full((H, W, 3), level, np.uint8) for level in (0, 128, 255)]
    path = encode(tmp_path / "a.avi", pictures, codec="mjpeg", pix_fmt="yuvj420p")
    assert [int(p.mean().round()) for p in Video(path).frames(range(3), luma=True)] == [0, 128, 255]
    assert np.abs(Video(path).frames(range(3)) - np.array([0.0, 128, 255])[:, None, None, None]).max() <= 2


@pytest.mark.parametrize(
    ("bits", "suffix", "color_range"),
    [(10, "le", 1), (10, "le", 2), (12, "le", 1), (12, "le", 2), (16, "le", 1), (16, "le", 2), (10, "be", 1)],
)
def test_high_bit_depth_is_rounded_to_eight(tmp_path: Path, bits: int, suffix: str, color_range: int) -> None:
    top = 2**bits - 1
    levels = np.linspace(0, top, 320).round().astype(">u2" if suffix == "be" else "<u2")
    luma = np.repeat(levels[None], 16, axis=0)
    # Matroska cannot carry the other byte order, NUT no range.
    path = tmp_path / ("a.nut" if suffix == "be" else "a.mkv")
    store_planes(path, [luma, luma[::2, ::2], luma[::2, ::2]], f"yuv420p{bits}{suffix}", color_range)
    unit = 2 ** (bits - 8)
    exact = levels * (255 / top) if color_range == 2 else np.clip((levels - 16.0 * unit) * 255 / (219 * unit), 0, 255)
    assert np.abs(Video(path).frames([0], luma=True)[0] - exact[None]).max() <= 0.5 + 1e-9
    assert Video(path).frames([0]).shape == (1, 16, 320, 3)


@pytest.mark.parametrize(("pix_fmt", "color_range", "full"), [("gray", 0, True), ("gray", 1, False)])
def test_grey_video(tmp_path: Path, pix_fmt: str, color_range: int, full: bool) -> None:
    picture = np.repeat(np.arange(16, 236, dtype=np.uint8)[None], 16, axis=0)

    def tag(stream: Any) -> None:
        stream.codec_context.color_range = color_range

    path = stored(tmp_path / "a.mkv", [picture], pix_fmt, prepare=tag)
    luma = Video(path).frames([0], luma=True)[0]
    assert (luma == (picture if full else np.round((picture - 16.0) * 255 / 219))).all()


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"), [("a.mkv", "ffv1", "bgra"), ("bottom_up.avi", "rawvideo", "bgr24")]
)
def test_formats_without_luma_are_weighted(tmp_path: Path, name: str, codec: str, pix_fmt: str) -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (H, W, 3), np.uint8)
    path = encode(tmp_path / name, [picture], codec=codec, pix_fmt=pix_fmt)
    assert (Video(path).frames([0])[0] == picture).all()
    grey = picture @ np.array([0.299, 0.587, 0.114])
    assert np.abs(Video(path).frames([0], luma=True)[0] - grey).max() <= 1


def test_transparency_is_ignored(tmp_path: Path) -> None:
    picture = np.full((H, W, 4), 120, np.uint8)
    picture[:, : W // 2, 3] = 0
    path = stored(tmp_path / "a.mkv", [picture], "bgra")
    assert (Video(path).frames([0]) == 120).all()
    path = encode(tmp_path / "b.mkv", [striped(5)], codec="ffv1", pix_fmt="yuva420p")
    assert index_of(Video(path).frames([0], luma=True)[0]) == 5


@pytest.mark.parametrize(
    ("colorspace", "kr", "kb"), [(1, 0.2126, 0.0722), (6, 0.299, 0.114), (2, 0.299, 0.114), (9, 0.2627, 0.0593)]
)
@pytest.mark.parametrize("color_range", [1, 2])
def test_rgb_follows_the_matrix_and_range_of_the_file(
    tmp_path: Path, colorspace: int, kr: float, kb: float, color_range: int
) -> None:
    def tag(stream: Any) -> None:
        stream.codec_context.colorspace, stream.codec_context.color_range = colorspace, color_range

    yuv = np.empty((3, 16, 16), np.uint8)
    yuv[0], yuv[1], yuv[2] = 110, 100, 170
    path = stored(tmp_path / "a.mkv", [yuv], "yuv444p", prepare=tag)
    y, u, v = (110 / 255, -28 / 255, 42 / 255) if color_range == 2 else (94 / 219, -28 / 224, 42 / 224)
    r, b = y + 2 * (1 - kr) * v, y + 2 * (1 - kb) * u
    g = (y - kr * r - kb * b) / (1 - kr - kb)
    assert np.abs(Video(path).frames([0])[0, 8, 8] - 255 * np.array([r, g, b])).max() <= 2


def test_a_colour_space_that_cannot_be_converted(clip: Path) -> None:
    video = Video(clip)
    picture = av.VideoFrame(16, 16, "yuv420p")
    picture.colorspace = 3  # reserved
    frame = Frame(video, picture, 7)
    with pytest.raises(VideoError, match=r"frame 7 \(yuv420p, colour space 3\) cannot be converted to RGB"):
        frame.rgb()
    assert frame.luma().shape == (16, 16)


@pytest.mark.parametrize("size", [(33, 17), (64, 17), (33, 48), (2, 2), (1, 1)])
def test_odd_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    width, height = size
    pictures = [np.full((height, width, 3), 60 * i, np.uint8) for i in range(4)]
    path = encode(tmp_path / "a.mkv", pictures, codec="ffv1", pix_fmt="yuv444p")
    video = Video(path)
    assert (video.width, video.height) == size
    assert video.frames([3]).shape == (1, height, width, 3)
    assert np.abs(video.frames([3, 1], luma=True) - np.array([180.0, 60.0])[:, None, None]).max() <= 2


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("clockwise", [0, 90, 180, 270, 93])
def test_rotation_and_mirroring_are_applied(tmp_path: Path, clockwise: int, mirrored: bool) -> None:
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[:20, :30] = (200, 40, 40)
    picture[:20, 30:] = (40, 200, 40)
    picture[20:, :30] = (40, 40, 200)
    path = encode(
        tmp_path / "a.mov",
        [picture],
        prepare=lambda stream: stream.set_display_rotation(-clockwise, hflip=mirrored),
    )
    turns = round(clockwise / 90)
    expected = np.rot90(picture, -turns)
    if mirrored:  # after the turn; before it, the turn would go the other way
        expected, clockwise = expected[:, ::-1], -turns % 4 * 90
    else:
        clockwise = turns * 90
    video = Video(path)
    assert video.rotation == clockwise
    assert (video.height, video.width) == expected.shape[:2]
    assert np.abs(video.frames([0])[0].astype(int) - expected).mean() < 8
    grey = cv2.cvtColor(np.ascontiguousarray(expected), cv2.COLOR_RGB2GRAY)
    assert np.abs(video.frames([0], luma=True)[0].astype(int) - grey).mean() < 8
    small = video.frames([0], short_side=20)[0]
    assert small.shape[:2] == ((30, 20) if turns % 2 else (20, 30))
    assert np.abs(small.astype(int) - resize_frame(expected, small.shape[1::-1])).mean() < 8
    assert video.info().rotation == probe(path).rotation == clockwise


def test_orientations_keep_arrays_contiguous() -> None:
    picture = np.arange(6, dtype=np.uint8).reshape(2, 3)
    for turn in (Orientation(), Orientation(True), Orientation(True, True, True), Orientation(False, True)):
        assert turn.apply(picture).flags.c_contiguous
        assert turn.apply(picture).shape[::-1] == turn.size(3, 2)


@pytest.mark.parametrize(
    ("size", "short_side", "grid"),
    [
        ((340, 256), None, (340, 256)),
        ((340, 256), 256, (340, 256)),
        ((1920, 1080), 256, (456, 256)),
        ((1080, 1920), 256, (256, 456)),
        ((320, 240), 112, (150, 112)),
        ((100, 100), 33, (33, 33)),
        ((101, 100), 33, (34, 33)),
        ((1, 1), 2, (2, 2)),
        ((321, 241), None, (321, 241)),
        ((640, 480), 1, (2, 1)),
    ],
)
def test_grid(size: tuple[int, int], short_side: int | None, grid: tuple[int, int]) -> None:
    assert grid_size(*size, short_side) == grid


def test_resizing_means_areas_and_keeps_what_fits() -> None:
    picture = np.zeros((4, 4), np.uint8)
    picture[:2, :2] = [[10, 20], [30, 40]]
    assert resize_frame(picture, (4, 4)) is picture
    assert resize_frame(picture, (2, 2))[0, 0] == 25
    larger = resize_frame(np.repeat(picture[:, :, None], 3, axis=2), (8, 6))
    assert larger.shape == (6, 8, 3)
    assert (
        larger == cv2.resize(np.repeat(picture[:, :, None], 3, axis=2), (8, 6), interpolation=cv2.INTER_CUBIC)
    ).all()


def test_frames_come_at_the_grid(clip: Path) -> None:
    video = Video(clip)
    assert video.frames([0], short_side=24).shape == (1, 24, 32, 3)
    frame = next(iter(video.stream(start=9)))
    assert frame.luma((32, 24)).shape == (24, 32)
    assert index_of(frame.luma((32, 24))) == 9


# --- files that are no videos ----------------------------------------------------------------------------------------


def reason(path: Path) -> str:
    with pytest.raises(VideoError) as caught:
        Video(path)
    assert caught.value.path == path
    assert str(caught.value) == f"{path}: {caught.value.reason}"
    assert isinstance(pickle.loads(pickle.dumps(caught.value)), VideoError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    return caught.value.reason


def test_what_is_no_video_says_why(clip: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert reason(tmp_path / "none.mp4") == "no such file"
    assert reason(tmp_path / "nul\0.mp4") == "no such file"
    assert reason(tmp_path) == "a folder, not a video file"
    assert "cannot be opened (File name too long)" in reason(tmp_path / ("x" * 300 + ".mp4"))
    os.mkfifo(tmp_path / "pipe.mp4")
    assert "a pipe or a device" in reason(tmp_path / "pipe.mp4")
    (tmp_path / "empty.mp4").touch()
    assert reason(tmp_path / "empty.mp4") == "the file is empty (0 bytes)"
    (tmp_path / "words.mp4").write_text("These are words.\n" * 100)
    assert "not a video file, or its header is damaged or incomplete" in reason(tmp_path / "words.mp4")
    (tmp_path / "words.txt").write_text("These are words.\n" * 100)
    assert reason(tmp_path / "words.txt") == "a text file, not a video"
    (tmp_path / "trackless.mp4").write_bytes(clip.read_bytes().replace(b"trak", b"free"))
    assert reason(tmp_path / "trackless.mp4") == "no stream in it"
    (tmp_path / "frameless.gif").write_bytes(b"GIF89a\x01\x00\x01\x00\x00\x00\x00;")
    assert reason(tmp_path / "frameless.gif") == "it has a video stream, but not one frame in it decodes"
    assert capfd.readouterr() == ("", "")


def test_sound_is_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    assert reason(tmp_path / "a.wav") == "no video stream in it, only audio"


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    picture = cv2.imencode(".jpg", striped(1))[1].tobytes()
    with av.open(str(tmp_path / "a.mka"), "w", format="matroska") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        container.add_attachment("cover.jpg", "image/jpeg", picture)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    assert reason(tmp_path / "a.mka") == "no video stream in it, only a cover picture and audio"


def test_an_unknown_codec(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.avi", [striped(1)], codec="mpeg4")
    path.write_bytes(path.read_bytes().replace(b"FMP4", b"Zz9q"))
    assert "no decoder" in reason(path)


def test_a_file_that_fails_under_reading(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        def __init__(self, good: int) -> None:
            self.file, self.good = clip.open("rb", buffering=0), good

        def __enter__(self) -> "Failing":
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def read(self, size: int) -> bytes:
            if self.file.tell() >= self.good:
                raise OSError(5, "Input/output error")
            return self.file.read(min(size, 1024))

        def seek(self, *where: int) -> int:
            return self.file.seek(*where)

        def tell(self) -> int:
            return self.file.tell()

    monkeypatch.setattr(video_module, "_open_file", lambda _: Failing(0))
    assert "Input/output error" in reason(clip)
    monkeypatch.undo()
    video = Video(clip, on_error="truncate")
    monkeypatch.setattr(video_module, "_open_file", lambda _: Failing(clip.stat().st_size // 2))
    assert 0 < len(video) < 40
    assert "Input/output error" in str(video.truncated)


def test_tags_in_another_encoding_do_no_harm(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.avi", [striped(6)], codec="mpeg4")
    data = path.read_bytes()
    assert data.count(b"Lavf") == 1
    path.write_bytes(data.replace(b"Lavf", b"\xe9\xe8\xff\xfe"))
    assert len(Video(path)) == 1


@pytest.mark.parametrize(
    "name",
    [
        "http:x.mp4",
        "concat:a|b.mp4",
        "-dash.mp4",
        "--option=x.mp4",
        "img%03d.mp4",
        "pipe:0",
        "file:x.mp4",
        "subfile,,start,0,end,5,,:a.mp4",
        "data:text,x.mp4",
        "two words \u00e9\u4e2d.mp4",
        "new\nline.mp4",
        "no_suffix",
        "wrong.txt",
        "wrong.jpg",
        os.fsdecode(b"\xff\xfe.mp4"),
    ],
)
def test_names_are_only_names(clip: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).write_bytes(clip.read_bytes())
    assert len(Video(tmp_path / name)) == 40
    monkeypatch.chdir(tmp_path)
    assert index_of(Video(name).frames([8])[0]) == 8
    assert probe(name).frames == 40


def test_a_pattern_is_not_the_files_that_it_matches(tmp_path: Path) -> None:
    for i in range(3):
        cv2.imwrite(str(tmp_path / f"img{i:03d}.png"), striped(i))
    assert reason(tmp_path / "img%03d.png") == "no such file"
    (tmp_path / "img%03d.png").write_bytes((tmp_path / "img002.png").read_bytes())
    video = Video(tmp_path / "img%03d.png")
    assert len(video) == 1
    assert index_of(video.frames([0])[0]) == 2


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.ffconcat", "ffconcat version 1.0\nfile 'clip.mp4'\n"),
        ("list.mp4", "ffconcat version 1.0\nfile 'clip.mp4'\n"),
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.6,\nclip.mp4\n#EXT-X-ENDLIST\n"),
        ("list.mp4", "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.6,\nclip.mp4\n#EXT-X-ENDLIST\n"),
        ("list.sdp", "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"),
    ],
)
def test_lists_of_other_files_open_none_of_them(clip: Path, tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "clip.mp4").write_bytes(clip.read_bytes())
    (tmp_path / name).write_text(text)
    reason(tmp_path / name)


# --- damage ----------------------------------------------------------------------------------------------------------


def check_cut(path: Path, whole: int, cause: str) -> int:
    """A damaged file raises by default, and in truncate mode gives the frames before the damage; how many."""
    video = Video(path)
    got: list[int] = []
    with pytest.raises(VideoError, match=cause) as caught:
        got.extend(index_of(f.luma()) for f in video.stream())
    assert "on_error='truncate'" in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    # A decoder that holds frames back to order them may, at the end of a cut file, lack one of the last few.
    assert got[:-3] == list(range(len(got) - 3))
    assert 0 < len(got) < whole
    for use in (len, Video.info, lambda v: v.frames([whole - 1]), lambda v: list(v.stream(fps=5))):
        with pytest.raises(VideoError, match=f"damaged after {len(got)} whole frames"):
            use(video)
    assert video.truncated is None
    cut = Video(path, on_error="truncate")
    assert cut.truncated is None
    assert [index_of(f.luma()) for f in cut.stream()] == got
    assert cut.truncated is not None
    assert len(cut) == len(got)
    assert cut.info().truncated == cut.truncated
    assert cut.info().frames == len(got)
    with pytest.raises(VideoError, match=f"has frames 0 to {len(got) - 1}; reading stopped early: "):
        cut.frames([whole - 1])
    return len(got)


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_an_mp4_cut_inside_a_frame(clip: Path, tmp_path: Path, share: float) -> None:
    data = clip.read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(data[: int(len(data) * share)])
    check_cut(path, 40, "the data of the next frame is incomplete|the file ends")


def test_an_mp4_with_its_index_behind_and_cut_off(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", [striped(i) for i in range(10)])
    path.write_bytes(path.read_bytes()[:-200])
    assert reason(path) == "not one whole frame: the file ends 200 bytes before its header says it does"


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"movflags": "+faststart"}),
        ("f.mp4", "libx264", {"movflags": "frag_keyframe+empty_moov"}),
        ("a.avi", "mpeg4", {}),
        ("a.mkv", "libx264", {}),
        ("a.webm", "libvpx-vp9", {}),
    ],
)
def test_a_file_cut_between_two_frames(tmp_path: Path, name: str, codec: str, options: dict[str, str]) -> None:
    path = encode(tmp_path / name, [striped(i) for i in range(30)], codec=codec, container_options=options)
    assert len(Video(path)) == 30
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    at, size = packets[20].pos, packets[20].size
    assert at is not None
    path.write_bytes(path.read_bytes()[: at + size])
    with av.open(str(path)) as container:
        silent = sum(1 for _ in container.decode(video=0))
    assert silent < 30  # FFmpeg takes the end of the file for the end of the video
    assert check_cut(path, 30, r"the file ends \d+ bytes before its header says it does") == silent


def test_damage_inside_a_frame(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.avi", [speckled(i) for i in range(30)], codec="mpeg4", options={"g": "10"})
    with av.open(str(path)) as container:
        packet = [p for p in container.demux(video=0) if p.size][17]
    data = bytearray(path.read_bytes())
    assert packet.pos is not None
    middle = packet.pos + 8 + packet.size // 2
    data[middle : middle + 40] = bytes(40)
    path.write_bytes(data)
    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 30  # concealed, but marked
    assert check_cut(path, 30, "decodes only in part") == 17


def test_damage_that_the_decoder_refuses(clip: Path, tmp_path: Path) -> None:
    with av.open(str(clip)) as container:
        packet = [p for p in container.demux(video=0) if p.size][25]
    data = bytearray(clip.read_bytes())
    assert packet.pos is not None
    data[packet.pos : packet.pos + 4] = b"\xff\xff\xff\xff"  # the length of the first unit
    path = tmp_path / "broken.mp4"
    path.write_bytes(data)
    plain: list[av.VideoFrame] = []
    with av.open(str(path)) as container, pytest.raises(av.error.InvalidDataError):
        plain.extend(container.decode(video=0))
    assert check_cut(path, 40, "FFmpeg says 'Invalid data found when processing input'") == len(plain)


def test_damage_in_the_first_frame_is_an_error_in_any_mode(clip: Path, tmp_path: Path) -> None:
    with av.open(str(clip)) as container:
        packet = next(container.demux(video=0))
    data = bytearray(clip.read_bytes())
    assert packet.pos is not None
    data[packet.pos : packet.pos + 4] = b"\xff\xff\xff\xff"
    path = tmp_path / "broken.mp4"
    path.write_bytes(data)
    assert reason(path).startswith("not one whole frame: FFmpeg says")
    with pytest.raises(VideoError, match="not one whole frame"):
        Video(path, on_error="truncate")


def test_frames_before_the_damage_can_be_had_by_index(clip: Path, tmp_path: Path) -> None:
    data = clip.read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(data[: int(len(data) * 0.6)])
    assert [index_of(p) for p in Video(path).frames([3, 0])] == [3, 0]
    assert [index_of(f.luma()) for f in Video(path, on_error="truncate").stream(fps=5, stop=3)] == [0, 5, 10]


def test_a_change_of_size_is_damage(tmp_path: Path) -> None:
    parts = []
    for number, (width, height) in enumerate([(64, 48), (96, 64)]):
        pictures = [striped(10 * number + i, width, height) for i in range(10)]
        parts.append(encode(tmp_path / f"{number}.h264", pictures, options={"bf": "0"}).read_bytes())
    path = tmp_path / "both.h264"
    path.write_bytes(b"".join(parts))
    with av.open(str(path)) as container:
        assert {(f.width, f.height) for f in container.decode(video=0)} == {(64, 48), (96, 64)}
    assert check_cut(path, 20, "frame 10 is 96x64 where those before are 64x48") == 10


@contextmanager
def written(path: Path, data: bytes) -> Iterator[Path]:
    path.write_bytes(data)
    yield path


@pytest.mark.parametrize(
    ("data", "missing"),
    [
        (b"RIFF" + struct.pack("<I", 4) + b"AVI ", 0),
        (b"RIFF" + struct.pack("<I", 12) + b"AVI ", 0),  # counts its own 8 bytes
        (b"RIFF" + struct.pack("<I", 50) + b"AVI ", 46),
        (b"RIFF" + struct.pack("<I", 0) + b"AVI ", 0),
        (b"RIFF" + b"\xff\xff\xff\xff" + b"AVI ", 0),
        (b"RIFF" + struct.pack("<I", 5) + b"AVI x\0" + b"RIFF" + struct.pack("<I", 100) + b"AVIX", 96),
        (b"RIFF" + struct.pack("<I", 4) + b"AVI " + b"junk behind", 0),
        (b"\x1a\x45\xdf\xa3\x82ab\x18\x53\x80\x67\x88" + bytes(8), 0),
        (b"\x1a\x45\xdf\xa3\x82ab\x18\x53\x80\x67\x88" + bytes(5), 3),
        (b"\x1a\x45\xdf\xa3\x40\x02ab\x18\x53\x80\x67\x01\x00\x00\x00\x00\x00\x00\x09" + bytes(2), 7),
        (b"\x1a\x45\xdf\xa3\x82ab\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff" + bytes(2), 0),  # live
        (b"\x1a\x45\xdf\xa3\x82ab\xec\x81\0", 0),
        (b"\0\0\0\x08ftyp" + b"\0\0\0\x10mdat" + bytes(8), 0),
        (b"\0\0\0\x08ftyp" + b"\0\0\0\x10mdat" + bytes(3), 5),
        (b"\0\0\0\x08ftyp" + b"\0\0\0\x01mdat" + struct.pack(">Q", 1000) + bytes(4), 980),
        (b"\0\0\0\x08ftyp" + b"\0\0\0\x00mdat" + bytes(4), 0),  # to the end of the file
        (b"\0\0\0\x08ftyp" + b"\0\0\x10\x00free" + bytes(4), 0),
        (b"\0\0\0\x08wide" + b"\0\0\x10\x00moof", 4088),
        (b"\0\0\0\x08ftyp" + b"junk", 0),
        (b"GIF89a;", 0),
        (b"\x00", 0),
    ],
)
def test_missing_bytes(tmp_path: Path, data: bytes, missing: int) -> None:
    with written(tmp_path / "x", data) as path:
        assert video_module._missing_bytes(path) == missing


# --- writing ---------------------------------------------------------------------------------------------------------


def smooth(index: int, width: int = W, height: int = H) -> Array:
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    channels = [120 + 100 * np.sin(2 * x + index / 9), 40 + 170 * y, 128 + 100 * np.cos(x + y)]
    return np.stack(channels, axis=2).round().astype(np.uint8)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    pictures = [smooth(i) for i in range(30)]
    assert write_video(tmp_path / "deep" / "a.mp4", iter(pictures), 29.97, crf=8) == 30
    video = Video(tmp_path / "deep" / "a.mp4")
    assert (len(video), video.codec, video.width, video.height) == (30, "h264", W, H)
    assert video.fps == pytest.approx(29.97)
    rgb = video.frames(range(30))
    assert np.abs(rgb.astype(int) - np.stack(pictures)).mean() < 2
    assert np.abs(rgb.astype(int) - np.stack(pictures)).max() <= 12
    luma = video.frames(range(30), luma=True).astype(int)
    assert np.abs(luma - np.stack([cv2.cvtColor(p, cv2.COLOR_RGB2GRAY) for p in pictures])).max() <= 2
    with av.open(str(video.path)) as container:
        frame = next(container.decode(video=0))
        assert (frame.format.name, frame.color_range, frame.colorspace) == ("yuv420p", 1, 6)


def test_quality_is_adjustable(tmp_path: Path) -> None:
    pictures = [smooth(i) for i in range(5)]
    sizes = []
    for crf in (0, 18, 51):
        write_video(tmp_path / "a.mp4", pictures, 25, crf=crf)
        sizes.append((tmp_path / "a.mp4").stat().st_size)
    assert sizes == sorted(sizes, reverse=True)


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, [smooth(i) for i in range(30)], 25)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


@pytest.mark.parametrize("size", [(33, 17), (1, 1), (64, 49)])
def test_odd_sizes_grow_by_repeating_the_edge(tmp_path: Path, size: tuple[int, int]) -> None:
    width, height = size
    picture = smooth(0, width, height)
    write_video(tmp_path / "a.mp4", [picture] * 3, 25, crf=4)
    video = Video(tmp_path / "a.mp4")
    assert (video.width, video.height) == (width + width % 2, height + height % 2)
    luma = video.frames([1], luma=True)[0].astype(int)
    grey = np.atleast_2d(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY))
    assert np.abs(luma - np.pad(grey, ((0, height % 2), (0, width % 2)), mode="edge")).max() <= 4


def test_frames_that_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    good = smooth(0)
    for frames, message in [
        ([], "at least one frame, none was written"),
        ([good, smooth(1, 32, 48)], "frame 1 is 32x48 where those before are 64x48"),
        ([good, good.astype(np.float32)], r"frame 1 must be \(H, W, 3\) uint8, got \(48, 64, 3\) float32"),
        ([good[:, :, 0]], r"frame 0 must be \(H, W, 3\) uint8, got \(48, 64\) uint8"),
        ([good[:0]], r"got \(0, 64, 3\)"),
        ([np.zeros((2, 20_000, 3), np.uint8)], r"cannot be encoded \(FFmpeg: "),
    ]:
        with pytest.raises(VideoError, match=message):
            write_video(path, frames, 25)
        assert list(tmp_path.iterdir()) == []


def test_what_a_writer_refuses_at_once(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"must end in \.mp4"):
        VideoWriter(tmp_path / "a.avi", 25)
    for fps in (0, -1, 2000, float("nan")):
        with pytest.raises(VideoError, match="frame rate to write"):
            VideoWriter(tmp_path / "a.mp4", fps)
    for crf in (-1, 52):
        with pytest.raises(VideoError, match="crf must lie in 0"):
            VideoWriter(tmp_path / "a.mp4", 25, crf=crf)


def test_an_interrupted_writer_leaves_the_old_file(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", [smooth(0)], 25)
    before = (tmp_path / "a.mp4").read_bytes()

    def interrupted() -> Iterator[Array]:
        yield smooth(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / "a.mp4", interrupted(), 25)
    assert (tmp_path / "a.mp4").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_a_full_disk(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OutputError, match="cannot be written"):
            write_video(tmp_path / "a.mp4", [noise] * 40, 25, crf=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_a_build_without_x264(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Container:
        def add_stream(self, name: str, **_: object) -> None:
            raise UnknownCodecError(name)

        def close(self) -> None:
            pass

    monkeypatch.setattr(video_module.av, "open", lambda *_, **__: Container())
    with pytest.raises(VideoError, match="has no libx264 to write"):
        write_video(tmp_path / "a.mp4", [smooth(0)], 25)
    assert list(tmp_path.iterdir()) == []
