import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from twostream.data.check import check
from twostream.data.items import DataError
from twostream.video import VideoInfo, write_video

DATA = os.environ.get("TWOSTREAM_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="TWOSTREAM_DATA does not name the folder of real videos")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve videos of 12 frames, all different, and one of 5 frames."""
    folder = tmp_path_factory.mktemp("clips")
    for n in range(13):
        write_video(folder / f"{n}.mp4", _frames(n, 5 if n == 12 else 12), 25)
    return folder


def _frames(seed: int, count: int) -> Iterator[np.ndarray]:
    random = np.random.default_rng(seed)
    for _ in range(count):
        yield random.integers(0, 255, (16, 32, 3), np.uint8)


def put(clips: Path, root: Path, *places: tuple[int, str]) -> Path:
    for n, name in places:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(clips / f"{n}.mp4", root / name)
    return root


def test_a_good_data_set(clips: Path, tmp_path: Path) -> None:
    put(clips, tmp_path, *((n, f"{'ab'[n % 2]}/x{n}.mp4") for n in range(8)))
    seen: list[tuple[int, int, str]] = []
    report = check(tmp_path, progress=lambda *step: seen.append(step))
    assert report.ok
    document = json.loads(json.dumps(report.to_dict()))
    assert document["problems"] == []
    assert len(document["videos"]) == 8
    first = report.annotations.items()[0] if report.annotations else None
    assert first is not None
    assert document["videos"][0] == {"video": str(first.path), "frames": 12, "fps": 25.0, "width": 32, "height": 16}
    assert [step[:2] for step in seen] == [(n, 8) for n in range(1, 9)]
    assert seen[0][2] == first.path.name
    lines = report.lines()
    assert lines[0] == f"folder per class, split 1: {tmp_path}"
    assert "a/x0.mp4      12 frames       25 fps  32x16" in lines
    assert lines[-5:] == [
        "8 videos: 8 readable, 0 not",
        "frames: 12 to 12, median 12",
        "sizes: 32x16 (8)",
        "frame rates: 25 (8)",
        "nothing wrong",
    ]


def test_damaged_and_foreign_files_are_errors_with_reasons(clips: Path, tmp_path: Path) -> None:
    put(clips, tmp_path, *((n, f"{'ab'[n % 2]}/x{n}.mp4") for n in range(8)))
    (tmp_path / "a/x0.mp4").write_bytes(b"not a video")
    (tmp_path / "a/gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    report = check(tmp_path)
    assert not report.ok
    assert not report.problems
    assert {error.path.name: error.reason for error in report.errors}.keys() == {"x0.mp4", "gone.mp4"}
    entry = next(video for video in report.to_dict()["videos"] if video["video"].endswith("gone.mp4"))
    assert entry == {"video": str(tmp_path / "a/gone.mp4"), "error": "no such file"}
    assert any(line.startswith("a/gone.mp4 cannot be read: no such file") for line in report.lines())
    assert report.lines()[-1] == "to look at: 2"


def test_short_clips_are_named(clips: Path, tmp_path: Path) -> None:
    put(clips, tmp_path, *((n, f"{'ab'[n % 2]}/x{n}.mp4") for n in range(5, 13)))
    assert check(tmp_path).problems == ("shorter than the 11 frames that are needed: 1 clip: a/x12.mp4 (5 frames)",)
    assert check(tmp_path, shortest=5).ok
    assert "8 clips: " in check(tmp_path, shortest=13).problems[0]


def test_segments_are_held_against_their_video(clips: Path, tmp_path: Path) -> None:
    put(clips, tmp_path, (0, "0.mp4"), (1, "1.mp4"), (2, "2.mp4"))
    sheet = tmp_path / "l.csv"
    # 12 frames at 25 per second end at 0.48 s; sheets round.
    sheet.write_text(
        "path,label,start,end,split\n0.mp4,a,0,0.5,train\n0.mp4,b,0.02,,train\n1.mp4,a,0.2,0.28,test\n"
        "1.mp4,b,9,,test\n2.mp4,a,0,60,test\n"
    )
    report = check(sheet)
    assert report.problems == (
        "shorter than the 11 frames that are needed: 1 clip: 1.mp4@0.2-0.28 (2 frames)",
        "beyond the end of the video: 2 segments: 1.mp4@9- (the video has 0.48 s), 2.mp4@0-60 (the video has 0.48 s)",
    )
    assert [Path(video["video"]).name for video in report.to_dict()["videos"]] == ["0.mp4", "1.mp4", "2.mp4"]


def test_duplicate_files_are_named_with_their_seats(clips: Path, tmp_path: Path) -> None:
    put(clips, tmp_path, (0, "train/a/0.mp4"), (1, "train/b/1.mp4"), (2, "test/a/2.mp4"), (3, "test/b/3.mp4"))
    put(clips, tmp_path, (0, "train/b/copy.mp4"), (1, "test/b/copy.mp4"), (2, "test/a/copy.mp4"))
    assert check(tmp_path).problems == (
        "the same file under different labels: train/a/0.mp4 (train a) = train/b/copy.mp4 (train b)",
        "the same file in different parts of the split: train/b/1.mp4 (train b) = test/b/copy.mp4 (test b)",
        "the same file more than once: test/a/2.mp4 (test a) = test/a/copy.mp4 (test a)",
    )


def test_problems_of_the_lists_are_reported_with_those_of_the_videos(clips: Path, tmp_path: Path) -> None:
    put(clips, tmp_path, (0, "train/a/v_g01_c01.mp4"), (1, "test/b/v_g01_c02.mp4"), (12, "train/b/v_g02_c01.mp4"))
    (tmp_path / "train/c").mkdir()
    assert check(tmp_path).problems == (
        "class c has no videos",
        "no test videos of class a",
        "on both sides of the split: 1 group: g01 (1 in train, 1 in test)",
        "shorter than the 11 frames that are needed: 1 clip: train/b/v_g02_c01.mp4 (5 frames)",
    )


def test_missing_videos_are_a_problem_unless_accepted(clips: Path, tmp_path: Path) -> None:
    put(clips, tmp_path, *((n, f"{n}.mp4") for n in range(8)))
    sheet = tmp_path / "l.csv"
    sheet.write_text("path,label\n" + "".join(f"{n}.mp4,{'ab'[n % 2]}\n" for n in range(8)) + "gone.mp4,a\n")
    (problem,) = check(sheet).problems
    assert problem.startswith(f"not under {tmp_path}: 1 listed video: gone.mp4; name the folder")
    assert check(sheet, allow_missing=True).ok
    elsewhere = put(clips, tmp_path / "else", *((n, f"{n}.mp4") for n in range(9)))
    (elsewhere / "8.mp4").rename(elsewhere / "gone.mp4")
    assert check(sheet, videos=elsewhere).ok


def test_videos_are_read_even_when_the_lists_do_not_fit(clips: Path, tmp_path: Path) -> None:
    put(clips, tmp_path, (0, "0.mp4"), (1, "1.mp4"))
    (tmp_path / "l.csv").write_text("path,label\n0.mp4,0\n1.mp4,2\n")
    report = check(tmp_path)
    assert len(report.found) == 2
    assert report.annotations is None
    assert "nothing has the label 1" in report.problems[0]
    with pytest.raises(DataError, match="nothing has the label 1"):
        check(tmp_path / "l.csv")


def test_loose_videos_and_single_files(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(clips, tmp_path, (0, "0.mp4"), (1, "-1.mp4"), (0, "deep/er/2.mp4"), (3, "no_ending"))
    flat = put(clips, tmp_path / "flat", (4, "4.mp4"), (5, "5.mp4"))
    assert check(flat).ok
    assert [path.name for path in check(flat).found] == ["4.mp4", "5.mp4"]
    monkeypatch.chdir(tmp_path)
    assert list(check("-1.mp4").found) == [Path("-1.mp4")]
    assert check("no_ending").ok
    report = check(["0.mp4", "flat", tmp_path / "deep", "gone.mp4"])
    assert [path.name for path in report.found] == ["0.mp4", "4.mp4", "5.mp4", "2.mp4", "gone.mp4"]
    assert report.problems == (f"the same file more than once: 0.mp4 = {tmp_path / 'deep/er/2.mp4'}",)
    assert [error.reason for error in report.errors] == ["no such file"]
    assert any(line.startswith("gone.mp4 ") for line in check("gone.mp4").lines())


@pytest.mark.parametrize(
    ("name", "said"),
    [("nowhere", "nowhere: no such file or folder"), ("l.csv", "no such file"), ("void", "there are no videos")],
)
def test_nothing_to_be_read(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "void").mkdir()
    with pytest.raises(DataError, match=said):
        check(tmp_path / name)


def test_names_that_are_not_text_can_be_reported(clips: Path, tmp_path: Path) -> None:
    flat = put(clips, tmp_path, (0, "0.mp4"), (0, os.fsdecode(b"caf\xe9.mp4")))
    (flat / os.fsdecode(b"b\xe9.mp4")).touch()
    report = check(flat)
    text = json.dumps(report.to_dict(), ensure_ascii=False) + "\n".join(report.lines())
    assert text.encode()
    assert f"the same file more than once: {flat}/0.mp4 = {flat}/caf?.mp4" in report.problems


def test_long_reports_leave_the_good_videos_out(clips: Path, tmp_path: Path) -> None:
    flat = put(clips, tmp_path, *((n % 12, f"{n}.mp4") for n in range(60)))
    (flat / "broken.mp4").touch()
    lines = check(flat).lines()
    assert lines[0] == f"cannot be read: {flat / 'broken.mp4'}: the file is empty (0 bytes)"
    assert lines[1].startswith("problem: the same file more than once: ")
    assert lines[2] == "61 videos: 60 readable, 1 not"


def test_many_sizes_are_counted(tmp_path: Path) -> None:
    for n in range(8):
        write_video(tmp_path / f"{n}.mp4", (np.full((16, 16 + 2 * n, 3), 9, np.uint8) for _ in range(11)), 25)
    sizes = next(line for line in check(tmp_path).lines() if line.startswith("sizes: "))
    assert sizes.startswith("sizes: 16x16 (1), ")
    assert sizes.endswith(" and 2 others")


@pytest.mark.data
@needs_data
def test_every_odd_video_is_read_or_named() -> None:
    folder = Path(str(DATA)) / "odd_videos"
    report = check(folder)
    entries = {Path(video["video"]).name: video for video in report.to_dict()["videos"]}
    assert len(entries) == 54
    assert {name for name, entry in entries.items() if "error" in entry} == {
        "FlashVideo.flv",
        "WindowsMediaVideo.wmv",
        "corrupted.mp4",
        "gif.gif",
        "mp4-with-audio.mp4",
    }
    assert "damaged after 28 whole frames" in entries["corrupted.mp4"]["error"]
    assert all(entry["frames"] > 0 for entry in entries.values() if "error" not in entry)
    assert any("mmaction2/part_0.mp4 (" in problem for problem in report.problems)


@pytest.mark.data
@needs_data
def test_the_real_ucf101_clips_have_one_frame_more_than_their_list_counts() -> None:
    folder = Path(str(DATA)) / "ucf101_clips"
    lines = (folder / "ucf101_frame_counts.csv").read_text().splitlines()
    counted = {name: int(count) for name, count in (line.split(",") for line in lines)}
    videos = [video for video in sorted((folder / "videos").rglob("*.avi")) if counted[video.name] < 120]
    report = check(videos)
    assert len(report.found) == 8
    assert {path.name: info.frames - 1 for path, info in report.found.items() if isinstance(info, VideoInfo)} == {
        path.name: counted[path.name] for path in videos
    }
