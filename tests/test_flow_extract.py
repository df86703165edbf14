"""Extraction: N - 1 fields of what the video shows, the same bytes whatever happened, failures that stay alone."""

import errno
import fnmatch
import hashlib
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from twostream.errors import UsageError
from twostream.files import OutputError, remove_leftovers
from twostream.flow import executors, forecast, jobs, store_file
from twostream.flow import extract as room
from twostream.flow.contract import FlowError
from twostream.flow.estimators import create_estimator
from twostream.flow.extract import ExtractionSummary, extract, share
from twostream.flow.forecast import estimate
from twostream.flow.jobs import Job, Outcome, Source, run_job
from twostream.flow.quantize import dequantize, quantize
from twostream.flow.store import FlowSettings, FlowStore, StoredFlow, StoredFlowWriter
from twostream.video import Video, write_video
from twostream.work_claims import claimed

SETTINGS = FlowSettings(estimator="dis", short_side=24, parameters={"preset": "ultrafast"})
PYTHON = [sys.executable, "-W", "error"]


def make(path: Path, frames: int = 5, *, width: int = 48, height: int = 36, shift: int = 2, fps: float = 10) -> Path:
    """A texture that moves to the right by ``shift`` px a frame."""
    rng = np.random.default_rng(len(path.name))
    noise = rng.integers(0, 256, (height, width + shift * frames)).astype(np.float32)
    texture = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    starts = [shift * (frames - k) for k in range(frames)]
    write_video(path, (np.repeat(texture[:, s : s + width, None], 3, axis=2) for s in starts), fps, crf=8)
    return path


def make_several(folder: Path, *lengths: int) -> list[Source]:
    """One video of each length."""
    names = [f"class{k % 2}/v{k}.mp4" for k in range(len(lengths))]
    return [Source(name, make(folder / name, length)) for name, length in zip(names, lengths, strict=True)]


def matching(root: Path, pattern: str) -> list[str]:
    """Names of files below a folder in which others are at work: `rglob` fails where a folder goes while it looks."""
    return [name for _, _, names in os.walk(root) for name in fnmatch.filter(names, pattern)]


def files(root: Path) -> dict[str, str]:
    """Every file below ``root`` and its hash."""
    found = sorted(p for p in root.rglob("*") if p.is_file())
    return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


def job_of(path: Path, root: Path, **options: Any) -> Job:
    options = {"settings": SETTINGS, "on_error": "raise", "run": "r", **options}
    return Job(source=Source("v", path), store=root, target=root / "v.flow", **options)


def run_inline(source: Path, root: Path, settings: FlowSettings = SETTINGS, **options: Any) -> ExtractionSummary:
    return extract([Source("v", source)], FlowStore(root, settings), workers=0, **options)


def test_the_stored_fields_are_those_of_the_video(tmp_path: Path) -> None:
    path = make(tmp_path / "v.mp4", 6)
    summary = run_inline(path, tmp_path / "store", replace(SETTINGS, frames=True))
    assert (summary.done, summary.fields) == (("v",), 5)
    with FlowStore(tmp_path / "store").open("v") as stored:
        assert summary.bytes == stored.path.stat().st_size
        assert (stored.frame_count, stored.field_count, stored.width, stored.height) == (6, 5, 32, 24)
        assert (stored.source_width, stored.source_height, stored.fps) == (48, 36, 10)
        luma = Video(path).frames(range(6), luma=True, short_side=24)
        estimator = create_estimator("dis", preset="ultrafast")
        wanted = np.stack([quantize(estimator(luma[k], luma[k + 1])) for k in range(5)])
        assert np.array_equal(stored.fields(range(5)), wanted)
        rgb = Video(path).frames(range(6), short_side=24)
        assert np.abs(stored.frames(range(6)).astype(int) - rgb).mean() < 3
        # To the right, by two thirds of 2 px.
        assert np.median(dequantize(stored.fields(range(5)))[:, 0]) == pytest.approx(4 / 3, abs=0.3)
        source = stored.provenance["source"]
        assert source["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert (source["name"], source["bytes"], source["codec"]) == ("v", path.stat().st_size, "h264")
        assert stored.provenance["truncated"] is None
        assert set(stored.provenance["made_by"]) == {"twostream", "opencv", "pyav"}


def test_a_single_frame_is_stored_without_fields(tmp_path: Path) -> None:
    path = make(tmp_path / "v.mp4", 1)
    for root, settings in ((tmp_path / "a", SETTINGS), (tmp_path / "b", replace(SETTINGS, frames=True))):
        assert run_inline(path, root, settings).fields == 0
        with FlowStore(root).open("v") as stored:
            assert (stored.frame_count, stored.field_count) == (1, 0)


def test_with_a_common_frame_rate_frames_are_chosen_first(tmp_path: Path) -> None:
    path = make(tmp_path / "v.mp4", 8, fps=10)
    run_inline(path, tmp_path / "store", replace(SETTINGS, fps=5))
    with FlowStore(tmp_path / "store").open("v") as stored:
        assert (stored.frame_count, stored.fps) == (4, 5)
        luma = Video(path).frames(range(4), luma=True, short_side=24, fps=5)
        wanted = quantize(create_estimator("dis", preset="ultrafast")(luma[1], luma[2]))
        assert np.array_equal(stored.fields([1])[0], wanted)


def test_each_videos_own_size(tmp_path: Path) -> None:
    run_inline(make(tmp_path / "v.mp4", 2), tmp_path / "store", replace(SETTINGS, short_side=None))
    with FlowStore(tmp_path / "store").open("v") as stored:
        assert (stored.width, stored.height) == (48, 36)


def test_workers_and_order_change_no_byte_and_one_bad_video_stops_none(tmp_path: Path) -> None:
    sources = make_several(tmp_path / "videos", 5, 3, 8, 2)
    (tmp_path / "videos" / "bad.mp4").write_bytes(b"no video at all")
    sources += [
        Source("bad.mp4", tmp_path / "videos" / "bad.mp4"),
        Source("absent.mp4", tmp_path / "videos" / "absent.mp4"),
        Source("tiny.mp4", make(tmp_path / "videos" / "tiny.mp4", 2, width=12, height=12)),
    ]
    told: list[tuple[int, int, str]] = []
    settings = replace(SETTINGS, short_side=None)
    one = extract(sources, FlowStore(tmp_path / "one", settings), workers=0)
    two = extract(
        sources[::-1], FlowStore(tmp_path / "two", settings), workers=2, progress=lambda *state: told.append(state)
    )
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert len(files(tmp_path / "one")) == 4 + 1
    assert set(one.done) == set(two.done) == {f"class{k % 2}/v{k}.mp4" for k in range(4)}
    assert one.done == tuple(reversed(two.done))  # as they were asked for
    assert one.failed == two.failed
    assert list(one.failed) == ["bad.mp4", "absent.mp4", "tiny.mp4"]
    assert f"{tmp_path / 'videos' / 'bad.mp4'}: not a video file" in one.failed["bad.mp4"]
    assert "absent.mp4: no such file" in one.failed["absent.mp4"]
    assert "tiny.mp4: frames of 12x12 px are too small for dis" in one.failed["tiny.mp4"]
    assert one.fields == two.fields == 4 + 2 + 7 + 1
    assert one.bytes == sum(p.stat().st_size for p in (tmp_path / "one").rglob("*.flow"))
    assert told[-1][:2] == (7, 7)
    assert all(done <= total == 7 for done, total, _ in told)
    assert "class0/v2.mp4: done" in {what for *_, what in told}
    assert "bad.mp4: failed" in {what for *_, what in told}

    again = extract(sources, FlowStore(tmp_path / "one"), workers=0)
    assert (again.done, again.skipped, again.failed) == ((), one.done, one.failed)
    assert again.lines()[0].startswith("flow: 0 videos done in")
    assert "4 were there already, 3 failed" in again.lines()[0]
    assert sum(line.startswith("failed: ") for line in again.lines()) == 3
    plain = again.to_dict()
    assert plain["skipped"] == list(one.done)
    assert plain["failed"] == one.failed


def test_a_finished_store_needs_no_worker_and_no_permission_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(tmp_path / "v.mp4")
    run_inline(path, tmp_path / "store")
    monkeypatch.setattr(executors, "_Worker", None)
    monkeypatch.setattr(FlowStore, "prepare", None)
    summary = extract([Source("v", path)], FlowStore(tmp_path / "store"), workers=3)
    assert summary.skipped == ("v",)


def test_what_changed_or_was_damaged_is_computed_anew(tmp_path: Path) -> None:
    path, root = make(tmp_path / "v.mp4", 3), tmp_path / "store"
    run_inline(path, root)
    file = FlowStore(root).path_for("v")
    before = file.read_bytes()
    file.write_bytes(before[:-10])
    assert run_inline(path, root).done == ("v",)
    assert file.read_bytes() == before
    assert run_inline(path, root).skipped == ("v",)
    make(path, 4)
    assert run_inline(path, root).done == ("v",)
    with FlowStore(root).open("v") as stored:
        assert stored.frame_count == 4
    # One made by something else, with nothing to compare by.
    with StoredFlowWriter(file, SETTINGS, width=32, height=24) as writer:
        writer.finish(fps=10, source_width=48, source_height=36, provenance={})
    assert run_inline(path, root).done == ("v",)


def test_a_damaged_video_fails_or_is_cut_as_asked(tmp_path: Path) -> None:
    path, root = make(tmp_path / "v.mp4", 60), tmp_path / "store"
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    path.write_bytes(data)
    broken = run_inline(path, root)
    assert "damaged after" in broken.failed["v"]
    assert not FlowStore(root).has("v")
    cut = run_inline(path, root, on_error="truncate")
    assert cut.done == ("v",)
    assert cut.fields < 59
    assert list(cut.truncated) == ["v"]
    assert any(line.startswith("cut at damage: v: ") for line in cut.lines())
    with FlowStore(root).open("v") as stored:
        assert stored.provenance["truncated"] == cut.truncated["v"]
        assert stored.field_count == cut.fields
    again = run_inline(path, root, on_error="truncate")
    assert (again.skipped, again.truncated) == (("v",), cut.truncated)
    # Whole videos asked for: what is there is not one.
    assert "damaged after" in run_inline(path, root).failed["v"]


def test_wrong_calls(tmp_path: Path) -> None:
    path = make(tmp_path / "v.mp4", 2)
    store = FlowStore(tmp_path / "store", SETTINGS)
    with pytest.raises(UsageError, match="the number of workers is 0"):
        extract([], store, workers=-1)
    with pytest.raises(FlowError, match="two videos are called 'v' in the store"):
        extract([Source("v", path), Source("v", tmp_path / "w.mp4")], store, workers=0)
    assert extract([Source("v", path)] * 2, store, workers=0).done == ("v",)
    with pytest.raises(FlowError, match=r"'\.\./v' cannot be the name of a video"):
        extract([Source("../v", path)], store, workers=0)
    assert extract([], FlowStore(tmp_path / "none", SETTINGS), workers=2).done == ()
    assert not (tmp_path / "none").exists()


def test_a_store_that_cannot_be_written_is_found_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(tmp_path / "v.mp4", 2)
    monkeypatch.setattr(executors, "run_job", None)
    store = FlowStore(tmp_path / "file" / "store", SETTINGS)
    (tmp_path / "file").write_text("")
    with pytest.raises(FlowError, match="a file stands where the folder of a flow store must be"):
        extract([Source("v", path)], store, workers=0)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes into read-only folders")
@pytest.mark.parametrize("made", [False, True])
def test_a_read_only_folder_is_found_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: bool
) -> None:
    path = make(tmp_path / "v.mp4", 2)
    store = FlowStore(tmp_path / "store", SETTINGS)
    if made:
        store.prepare()
    else:
        store.root.mkdir()
    store.root.chmod(0o555)
    monkeypatch.setattr(executors, "run_job", None)
    with pytest.raises(OutputError, match="cannot be written"):
        extract([Source("v", path)], store, workers=0)


def full_disk(error: OSError) -> Any:
    class File:
        written = 0

        def __init__(self, file: Any) -> None:
            self.file = file

        def write(self, data: bytes) -> None:
            self.written += len(data)
            if self.written > 1500:
                raise error
            self.file.write(data)

    return File


@pytest.mark.parametrize(("number", "stops"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EFBIG, False)])
def test_a_full_disk_stops_the_run_and_a_file_too_large_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, stops: bool
) -> None:
    sources = make_several(tmp_path / "videos", 2, 2)
    store = FlowStore(tmp_path / "store", SETTINGS)
    extract(sources[:1], store, workers=0)
    sources.append(Source("long", make(tmp_path / "long.mp4", 12)))
    enter = StoredFlowWriter.__enter__

    def limited(writer: StoredFlowWriter) -> StoredFlowWriter:
        enter(writer)
        writer._file = full_disk(OSError(number, os.strerror(number)))(writer._file)
        return writer

    monkeypatch.setattr(StoredFlowWriter, "__enter__", limited)
    if stops:
        with pytest.raises(OutputError, match=r"The flow of 1 videos is safe in .*the same command goes on") as error:
            extract(sources, store, workers=0)
        assert os.strerror(number) in str(error.value)
    else:
        summary = extract(sources, store, workers=0)
        assert "File too large" in summary.failed["long"]
        assert summary.skipped == ("class0/v0.mp4",)
    assert "long.flow" not in files(tmp_path / "store")
    assert not any("partial" in name for name in files(tmp_path / "store"))


def test_a_name_too_long_for_the_disk_fails_alone(tmp_path: Path) -> None:
    path = make(tmp_path / "v.mp4", 2)
    sources = [Source("x" * 254, path), Source("v", path)]
    summary = extract(sources, FlowStore(tmp_path / "store", SETTINGS), workers=0)
    assert summary.done == ("v",)
    assert "File name too long" in summary.failed["x" * 254]


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (MemoryError(), "memory ran out; take fewer workers"),
        (ZeroDivisionError("odd"), "unexpected ZeroDivisionError: odd"),
    ],
)
def test_whatever_goes_wrong_is_told_of_that_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: Exception, message: str
) -> None:
    def fail(_path: Path) -> dict[str, Any]:
        raise raised

    path = make(tmp_path / "v.mp4", 2)
    monkeypatch.setattr(jobs, "fingerprint", fail)
    job = job_of(path, tmp_path)
    assert message in str(run_job(job, lambda _: None).reason)


def test_a_video_that_yields_nothing_or_goes_away_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(tmp_path / "v.mp4", 2)
    job = job_of(path, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Video, "stream", lambda _self, **_: iter(()))
        assert run_job(job, lambda _: None).reason == f"{path}: not one frame of it can be read"
    for function in ("fingerprint", "_whole_hash"):
        real = getattr(jobs, function)
        with monkeypatch.context() as patch:
            patch.setattr(jobs, function, lambda _path, real=real: real(tmp_path / "gone"))
            assert "gone: cannot be read (No such file or directory)" in str(run_job(job, lambda _: None).reason)
    assert not (tmp_path / "v.flow").exists()


def test_long_videos_are_reported_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_MESSAGE_EVERY", 0.0)
    told: list[str] = []
    run_inline(make(tmp_path / "v.mp4", 4), tmp_path / "store", progress=lambda *state: told.append(state[2]))
    assert told[2:] == ["v: 0 fields", "v: 1 fields", "v: 2 fields", "v: 3 fields", "v: done"]


def test_the_longest_come_first(tmp_path: Path) -> None:
    told: list[str] = []
    sources = make_several(tmp_path / "videos", 2, 30, 4)
    extract(sources, FlowStore(tmp_path / "store", SETTINGS), workers=0, progress=lambda *state: told.append(state[2]))
    assert next(what for what in told if what.endswith("done")) == "class1/v1.mp4: done"


def test_ctrl_c_in_this_process_keeps_what_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = make_several(tmp_path / "videos", 5, 3)
    real = executors.run_job

    def interrupted(job: Job, report: Any) -> Outcome:
        if job.source.name.endswith("v1.mp4"):
            raise KeyboardInterrupt
        return real(job, report)

    monkeypatch.setattr(executors, "run_job", interrupted)
    with pytest.raises(KeyboardInterrupt, match=r"stopped with the flow of 1 of 2 videos in .*the same command"):
        extract(sources, FlowStore(tmp_path / "store", SETTINGS), workers=0)
    assert FlowStore(tmp_path / "store").has("class0/v0.mp4")


# Processes that die. Each is a script of its own, as a user would run it.

SCRIPT = """
import sys
from pathlib import Path
from twostream.flow.extract import extract
from twostream.flow.jobs import Source
from twostream.flow.store import FlowSettings, FlowStore

if __name__ == "__main__":
    videos, root, workers = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    sources = [Source(p.relative_to(videos).as_posix(), p) for p in sorted(videos.rglob("*.mp4"))]
    settings = FlowSettings(estimator="dis", short_side=24, parameters={"preset": "ultrafast"})
    try:
        summary = extract(sources, FlowStore(root, settings), workers=workers)
    except KeyboardInterrupt as stopped:
        sys.exit(f"STOPPED {stopped}")
    print(*summary.lines(), sep="\\n")
"""


def start_script(tmp_path: Path, *arguments: object, script: str = SCRIPT) -> "subprocess.Popen[str]":
    file = tmp_path / "script.py"
    file.write_text(script)
    return subprocess.Popen(
        [*PYTHON, str(file), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_until(condition: Any, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder of videos, and what an undisturbed run makes of it."""
    folder = tmp_path_factory.mktemp("several")
    sources = make_several(folder / "videos", 700, 500, 300, 200, 100)
    extract(sources, FlowStore(folder / "store", SETTINGS), workers=0)
    return folder / "videos", files(folder / "store")


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL on Windows")
def test_killed_five_times_and_restarted_the_files_are_the_same(
    tmp_path: Path, several: tuple[Path, dict[str, str]]
) -> None:
    videos, undisturbed = several
    root = tmp_path / "store"
    # While the first file is being written, twice; after the first one; after the second; after the third. With all its
    # workers, or alone: then they must end by themselves.
    for finished, whole_group in ((0, False), (0, True), (1, False), (2, True), (3, False)):
        with start_script(tmp_path, videos, root, 2) as process:
            while len(matching(root, "*.flow")) < finished or not matching(root, ".*.partial"):
                assert process.poll() is None, "it had finished before it could be killed"
                time.sleep(0.002)
            (os.killpg if whole_group else os.kill)(process.pid, signal.SIGKILL)
            process.wait()
        left = {item for item in files(root).items() if not item[0].endswith(".partial") and ".claims" not in item[0]}
        assert not left - set(undisturbed.items())
        # A worker that lived on would keep the lock of the file that it writes.
        if not whole_group:
            wait_until(lambda: remove_leftovers(root) >= 0 and not matching(root, ".*.partial"), 10)
    with start_script(tmp_path, videos, root, 2) as process:
        said, errors = process.communicate()
    assert process.returncode == 0, errors
    assert files(root) == undisturbed
    assert "0 failed" in said
    for file in root.rglob("*.flow"):
        with StoredFlow(file) as stored:
            stored.verify()


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is sent by SIGINT")
def test_ctrl_c_stops_the_workers_and_keeps_what_is_finished(
    tmp_path: Path, several: tuple[Path, dict[str, str]]
) -> None:
    videos, undisturbed = several
    root = tmp_path / "store"
    with start_script(tmp_path, videos, root, 2) as process:
        wait_until(lambda: matching(root, "*.flow"))
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    # One line, and no traceback of a worker.
    assert errors.startswith("STOPPED stopped with the flow of ")
    assert errors.count("\n") == 1
    left = files(root)
    assert left
    assert not set(left.items()) - set(undisturbed.items())


DYING = """
import os, signal, sys, time
from pathlib import Path
from twostream.flow import executors as room
from twostream.flow.extract import extract
from twostream.flow.jobs import Source
from twostream.flow.store import FlowSettings, FlowStore

real = room.run_job

def run_job(job, report):
    if job.source.name == "class1/v1.mp4":
        os.kill(os.getpid(), signal.{signal})
    return real(job, report)

room.run_job = run_job


if __name__ == "__main__":
    videos, root = Path(sys.argv[1]), Path(sys.argv[2])
    sources = [Source(p.relative_to(videos).as_posix(), p) for p in sorted(videos.rglob("*.mp4"))]
    settings = FlowSettings(estimator="dis", short_side=24, parameters={{"preset": "ultrafast"}})
    summary = extract(sources, FlowStore(root, settings), workers=1)
    print(len(summary.done), *summary.failed.values(), sep="\\n")
"""


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("SIGKILL", "the process that worked on it died (SIGKILL, perhaps because memory ran out)"),
        ("SIGSEGV", "the process that worked on it died (SIGSEGV)"),
    ],
)
def test_a_video_that_kills_its_worker_is_named_and_the_rest_go_on(tmp_path: Path, kind: str, message: str) -> None:
    make_several(tmp_path / "videos", 3, 4, 2)
    script = DYING.format(signal=kind)
    with start_script(tmp_path, tmp_path / "videos", tmp_path / "store", script=script) as process:
        said, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert said.split("\n")[0] == "2"
    assert f"v1.mp4: {message}; the same command tries it again" in said
    assert len(list((tmp_path / "store").rglob("*.flow"))) == 2


def test_workers_that_cannot_start_are_an_error_with_advice(tmp_path: Path) -> None:
    make_several(tmp_path / "videos", 3, 4)
    script = SCRIPT.replace('if __name__ == "__main__":', "if True:")
    with start_script(tmp_path, tmp_path / "videos", tmp_path / "store", 1, script=script) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "FlowError: a worker process could not start (it ended with status 1)" in errors
    assert 'if __name__ == "__main__":, or take workers=0' in errors


def test_each_video_is_computed_by_one_of_two_extractors(tmp_path: Path, several: tuple[Path, dict[str, str]]) -> None:
    videos, undisturbed = several
    root = tmp_path / "store"
    with start_script(tmp_path, videos, root, 1) as one, start_script(tmp_path, videos, root, 1) as two:
        (said_one, errors_one), (said_two, errors_two) = one.communicate(timeout=60), two.communicate(timeout=60)
    assert (one.returncode, two.returncode) == (0, 0), errors_one + errors_two
    assert files(root) == undisturbed
    assert not (root / ".claims").exists()
    done = [int(re.findall(r"(\d+) videos done", said)[0]) for said in (said_one, said_two)]
    assert sum(done) == len(undisturbed) - 1, (said_one, said_two)


def test_what_another_extractor_is_at_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_LOOK_EVERY", 0.02)
    sources = make_several(tmp_path / "videos", 3, 4, 2)
    store, told = FlowStore(tmp_path / "store", SETTINGS), []
    store.prepare()
    name = sources[0].name
    holds = claimed(store.root, name, run="other")
    assert holds.__enter__() is None

    def progress(done: int, total: int, what: str) -> None:
        told.append(what)
        if told.count(f"{name}: waiting for process {os.getpid()} on {platform.node()}") == 3 and len(left) == 0:
            assert (done, total) == (2, 3)
            # The other one finishes, or gives up.
            left.append(what)
            if finishes:
                other = job_of(sources[0].path, store.root, run="other")
                other = replace(other, source=sources[0], target=store.path_for(name))
                assert run_job(other, lambda _: None).fields == 2
            holds.__exit__(None, None, None)

    for finishes in (True, False):
        left: list[str] = []
        summary = extract(sources, store, workers=0, progress=progress)
        assert left
        assert f"{name}: left to process {os.getpid()} on {platform.node()}" in told
        if finishes:
            assert (summary.done, summary.elsewhere) == (tuple(s.name for s in sources[1:]), (name,))
            assert summary.skipped == (name,)
            assert "0 were there already, 1 done by another extractor, 0 failed" in summary.lines()[0]
            assert summary.to_dict()["elsewhere"] == [name]
        else:
            assert (len(summary.done), summary.elsewhere) == (3, ())
        shutil.rmtree(store.root)
        told.clear()
        store.prepare()
        holds = claimed(store.root, name, run="other")
        assert holds.__enter__() is None
    holds.__exit__(None, None, None)


def test_what_another_finished_since_the_plan_was_made_is_left_alone(tmp_path: Path) -> None:
    job = job_of(make(tmp_path / "v.mp4", 3), tmp_path / "store")
    assert run_job(job, lambda _: None).fields == 2
    assert run_job(job, lambda _: None) == Outcome(elsewhere=True)


def test_one_extractor_at_a_time_makes_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_LOOK_EVERY", 0.02)
    path, told = make(tmp_path / "v.mp4", 2), []
    with ExitStack() as stack:
        stack.enter_context(claimed(tmp_path / "store", room._SETTINGS, run="other"))

        def progress(_done: int, _total: int, what: str) -> None:
            told.append(what)
            if told.count(f"waiting for process {os.getpid()} on {platform.node()}, which makes the store") == 2:
                stack.close()

        assert run_inline(path, tmp_path / "store", progress=progress).done == ("v",)
    assert len([what for what in told if "makes the store" in what]) == 2


def test_what_others_are_writing_is_not_tidied_away(tmp_path: Path) -> None:
    path, root = make(tmp_path / "v.mp4", 2), tmp_path / "store"
    root.mkdir()
    # As on a file system without locks: nothing but the claim says that somebody writes it.
    written = root / ".w.flow.12345678.partial"
    written.touch()
    with claimed(root, "w", run="other"):
        assert run_inline(path, root).done == ("v",)
        assert written.exists()
    path = make(tmp_path / "v.mp4", 3)
    assert run_inline(path, root).done == ("v",)
    assert sorted(p.name for p in root.iterdir()) == ["store.json", "v.flow"]


def test_shards_are_a_partition_by_size(tmp_path: Path) -> None:
    sources = []
    for k, size in enumerate([900, 500, 400, 300, 200, 100, 0]):
        sources.append(Source(f"v{k}", tmp_path / f"v{k}"))
        sources[-1].path.write_bytes(bytes(size))
    sources.append(Source("absent", tmp_path / "absent"))
    for count in (1, 2, 3, 9):
        shards = [share(sources, index, count) for index in range(1, count + 1)]
        assert sorted(s.name for shard in shards for s in shard) == sorted(s.name for s in sources)
        assert shards == [share(sources[::-1], index, count)[::-1] for index in range(1, count + 1)]
    loads = [sum(s.path.stat().st_size for s in share(sources[:-1], index, 2)) for index in (1, 2)]
    assert loads == [1200, 1200]
    for index, count in ((0, 4), (5, 4), (1, 0), (-1, 2)):
        with pytest.raises(UsageError, match="a shard is one of 1/"):
            share(sources, index, count)


@pytest.mark.parametrize("change", ["cut", "flipped in the header", "flipped in a field", "foreign", "other settings"])
def test_a_changed_file_of_the_store_is_told_and_computed_anew(tmp_path: Path, change: str) -> None:
    path, root = make(tmp_path / "v.mp4", 4), tmp_path / "store"
    run_inline(path, root)
    file = FlowStore(root).path_for("v")
    whole = file.read_bytes()
    damaged = bytearray(whole)
    if change == "cut":
        del damaged[-100:]
    elif change == "flipped in the header":
        damaged[-100] ^= 1
    elif change == "flipped in a field":
        damaged[40] ^= 1
    elif change == "foreign":
        damaged = bytearray(b"something else")
    else:
        other = replace(SETTINGS, bound=10.0)
        run_inline(path, tmp_path / "other", other)
        damaged = bytearray((tmp_path / "other" / "v.flow").read_bytes())
    file.write_bytes(damaged)
    if change == "flipped in a field":
        # The header is sound, and more is not read unless asked for.
        assert run_inline(path, root).skipped == ("v",)
    summary = run_inline(path, root, verify=True)
    assert summary.done == ("v",)
    assert str(file) in summary.replaced["v"]
    # What to do about it is done.
    assert "Delete it" not in summary.replaced["v"]
    assert f"computed anew: v: {summary.replaced['v']}" in summary.lines()
    assert file.read_bytes() == whole
    assert run_inline(path, root, verify=True).skipped == ("v",)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root mounts file systems")
@pytest.mark.parametrize("options", ["size=64k", "ro"])
def test_a_disk_that_is_really_full_or_read_only(tmp_path: Path, options: str) -> None:
    sources = make_several(tmp_path / "videos", 3)
    sources.append(Source("long", make(tmp_path / "long.mp4", 200, width=160, height=120)))
    undisturbed, root = tmp_path / "undisturbed", tmp_path / "disk"
    settings = replace(SETTINGS, short_side=None)
    extract(sources, FlowStore(undisturbed, settings), workers=0)
    root.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(root)], capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        with pytest.raises(
            OutputError, match="No space left on device" if options != "ro" else "Read-only file system"
        ):
            extract(sources, FlowStore(root, settings), workers=1)
        left = files(root)
        assert not set(left.items()) - set(files(undisturbed).items())
        subprocess.run(["mount", "-o", "remount,rw,size=64m", str(root)], check=True)
        extract(sources, FlowStore(root, settings), workers=1)
        assert files(root) == files(undisturbed)
    finally:
        subprocess.run(["umount", str(root)], check=True)


# Estimates


def test_an_estimate_is_measured_and_near_the_truth(tmp_path: Path) -> None:
    sources = make_several(tmp_path / "videos", 40, 25, 60, 30)
    ratios = []
    for attempt in range(3):  # other programs may run meanwhile
        guess = estimate(sources, SETTINGS, workers=0)
        summary = extract(sources, FlowStore(tmp_path / f"store{attempt}", SETTINGS), workers=0)
        assert 0.5 < guess.bytes / summary.bytes < 1.5
        ratios.append(guess.seconds / summary.seconds)
        if 0.1 < ratios[-1] < 10:
            break
    else:
        raise AssertionError(f"estimated over true seconds: {ratios}")
    assert guess.pairs == 18
    halved = estimate(sources, replace(SETTINGS, fps=5), workers=0)
    assert 0.4 < halved.bytes / guess.bytes < 0.6
    kept = estimate(sources, replace(SETTINGS, frames=True), workers=0)
    assert kept.bytes > guess.bytes + 100 * 150
    assert estimate(sources, SETTINGS, workers=0, samples=1).pairs == 6


def test_what_a_first_call_compiles_is_not_taken_for_every_fields_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = forecast.stored_size, []

    def slow_at_first(*arguments: Any) -> int:
        calls.append(arguments)
        if len(calls) == 1:
            time.sleep(2)
        return real(*arguments)

    monkeypatch.setattr(forecast, "stored_size", slow_at_first)
    (source,) = make_several(tmp_path / "videos", 40)
    assert estimate([source], SETTINGS, workers=0).seconds < 39


def test_a_finished_store_is_progress_to_the_end(tmp_path: Path) -> None:
    sources = make_several(tmp_path / "videos", 2, 2)
    told: list[int] = []
    for _ in range(2):
        told.clear()
        store = FlowStore(tmp_path / "store", SETTINGS)
        extract(sources, store, workers=0, progress=lambda done, _total, _what: told.append(done))
    assert told[-1] == 2


def test_estimates_skip_grids_that_no_store_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_file, "_MAX_PIXELS", 100)
    assert np.isnan(estimate(make_several(tmp_path / "videos", 4), SETTINGS, workers=1).seconds)


def test_estimates_skip_what_cannot_be_read(tmp_path: Path) -> None:
    sources = make_several(tmp_path / "videos", 8, 8)
    good = estimate(sources[:1], SETTINGS, workers=1)
    for k in range(3):
        (tmp_path / f"bad{k}.mp4").write_bytes(b"x" * 50)
        sources.append(Source(f"bad{k}", tmp_path / f"bad{k}.mp4"))
    sources.append(Source("absent", tmp_path / "absent.mp4"))
    assert 1 < estimate(sources, SETTINGS, workers=1).bytes / good.bytes < 4
    nothing = estimate(sources[2:], SETTINGS, workers=1)
    assert np.isnan(nothing.seconds)
    assert nothing.pairs == 0
    assert estimate([], SETTINGS, workers=2).bytes == 0


def test_more_workers_than_cores_promise_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = make_several(tmp_path / "videos", 8, 8, 8, 8)
    measured = forecast.Estimate(seconds=10.0, bytes=100.0, pairs=6)
    monkeypatch.setattr(forecast, "_measure", lambda _path, _settings: measured)
    monkeypatch.setattr(forecast, "_cores", lambda: 3)
    times = [estimate(sources[:1] * n, SETTINGS, workers=w).seconds for n, w in ((1, 8), (6, 0), (6, 2), (6, 8))]
    # A single video's fields are shared out too.
    assert times == pytest.approx([10 / 3, 60, 30, 20])
