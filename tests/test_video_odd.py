"""Real videos that break readers, and real data sets whose true frame counts are known."""

import csv
import os
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from av.error import FFmpegError

from twostream.video import Video, VideoError, grid_size, probe

DATA = os.environ.get("TWOSTREAM_DATA")
pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(DATA is None, reason="TWOSTREAM_DATA does not name the folder of real videos"),
]
ROOT = Path(DATA or ".").resolve()
ODD = sorted(p for p in (ROOT / "odd_videos").rglob("*") if p.is_file())

REFUSED = {
    "decord/corrupted.mp4": "damaged after 28 whole frames: FFmpeg says 'Invalid data found when processing input'",
    "small/FlashVideo.flv": "not a video file, or its header is damaged or incomplete",
    "small/WindowsMediaVideo.wmv": "not one frame in it decodes",
    "small/gif.gif": "not one frame in it decodes",
    "small/mp4-with-audio.mp4": "no video stream in it, only audio",
}


def name(path: Path) -> str:
    return path.relative_to(ROOT / "odd_videos").as_posix()


def plain_decode(path: Path) -> tuple[int, bool]:
    """How many frames PyAV gives by itself, and whether it got to the end without an error."""
    count = 0
    try:
        with av.open(f"file:{path}") as container:
            for _ in container.decode(video=0):
                count += 1
    except (FFmpegError, IndexError):
        return count, False
    return count, True


def test_the_files_are_there() -> None:
    assert len(ODD) == 54
    assert set(REFUSED) <= {name(p) for p in ODD}


@pytest.mark.parametrize("path", ODD, ids=name)
def test_every_odd_file_yields_its_frames_or_says_why_not(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    count, whole = plain_decode(path)
    if name(path) in REFUSED:
        assert not (whole and count)
        with pytest.raises(VideoError) as caught:
            len(Video(path))
        assert REFUSED[name(path)] in caught.value.reason
        if count:
            cut = Video(path, on_error="truncate")
            assert sum(1 for _ in cut.stream()) == len(cut) == count
            assert cut.truncated
    else:
        assert whole
        video = Video(path)
        size = grid_size(video.width, video.height, 48)
        kept = {f.index: (f.rgb(size), f.luma(size)) for f in video.stream() if f.index % 7 == 0}
        assert len(video) == count > 0
        assert [rgb.shape for rgb, _ in kept.values()] == [(*size[::-1], 3)] * len(range(0, count, 7))
        early = [i for i in (14, 0, 7) if i < count]
        assert (video.frames(early, luma=True, short_side=48) == np.stack([kept[i][1] for i in early])).all()
        assert video.info().frames == count
        assert video.seconds == pytest.approx(count / video.fps, rel=0.011)
        assert 1 <= probe(path).frames < 2 * count + 2
    assert capfd.readouterr() == ("", "")


def odd(path: str) -> Video:
    return Video(ROOT / "odd_videos" / path)


def test_frames_are_those_of_a_plain_decode() -> None:
    for path in ("mmaction2/test.avi", "torchcodec/nasa_13013_hdr.mp4", "moviepy/pigs_in_a_polka.gif"):
        video = odd(path)
        with av.open(f"file:{video.path}") as container:
            plain = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
        indices = np.random.default_rng(0).permutation(len(plain))[:20]
        assert (video.frames(indices) == np.stack([plain[i] for i in indices])).all()
        assert all((f.rgb() == p).all() for f, p in zip(video.stream(), plain, strict=True))


def test_rotated_phones() -> None:
    upright = odd("decord/video_0.mov")
    assert (upright.width, upright.height, upright.rotation) == (568, 320, 0)
    for degrees in (90, 270):
        video = odd(f"decord/video_{degrees}.mov")
        assert (video.width, video.height, video.rotation) == (320, 568, degrees)
        with av.open(str(video.path)) as container:
            stored = next(container.decode(video=0)).to_ndarray(format="rgb24")
        assert (video.frames([0])[0] == np.rot90(stored, -degrees // 90)).all()


def test_time_stamps() -> None:
    packed = odd("mmaction2/test.avi")  # stamps go backwards 54 times
    assert packed.times == pytest.approx(np.arange(164) / 25)
    assert [f.index for f in packed.stream(fps=25)] == list(range(164))
    gaps = odd("ava/Gt61_Yekkgc_1146.avi")  # every sixth of 90 slots is empty
    assert (len(gaps), gaps.fps, gaps.seconds) == (75, pytest.approx(25), pytest.approx(3))
    assert sum(1 for _ in gaps.stream(fps=30)) == 90
    late = odd("torchcodec/test_non_zero_start.mp4")
    assert late.times == pytest.approx(np.arange(12) / 30)
    edited = odd("ibm_max/basketball.mp4")  # the header's mean counts 51 frames that the edit list hides
    assert (len(edited), edited.fps) == (214, pytest.approx(30000 / 1001))
    assert probe(edited.path).frames == 265


def manifest(folder: str) -> Iterator[tuple[Path, int]]:
    with (ROOT / folder / "manifest.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            yield ROOT / folder / row["video"], int(row["frames"])


@pytest.mark.parametrize(
    ("folder", "videos", "step"), [("ucf101_clips", 42, 1), ("ut_interaction", 120, 1), ("body_gesture", 450, 9)]
)
def test_data_sets_have_the_frames_of_their_manifests(folder: str, videos: int, step: int) -> None:
    listed = list(manifest(folder))
    assert len(listed) == videos
    wrong = {str(path): (len(Video(path)), frames) for path, frames in listed[::step] if len(Video(path)) != frames}
    assert wrong == {}
