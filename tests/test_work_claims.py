"""Claims: one owner at a time, the dead outranked at once or after a time, nothing left behind."""

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from twostream import work_claims as room
from twostream.files import OutputError
from twostream.work_claims import FOLDER, Owner, claimed, is_claimed_by, others_at_work, owner_of


def claim_file(root: Path, name: str = "v", generation: int = 0) -> Path:
    return root / FOLDER / f"{room._stem(name)}.{generation}"


def leave(root: Path, owner: Owner, *, name: str = "v", generation: int = 0, age: float = 0.0) -> Path:
    """A claim as ``owner`` would have left it ``age`` seconds ago."""
    file = claim_file(root, name, generation)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(asdict(owner)))
    os.utime(file, (time.time() - age,) * 2)
    return file


ME = room._this_process("another run")
FOREIGN = replace(ME, host="elsewhere", machine="elsewhere", run="theirs")


def dead_process() -> Owner:
    process = subprocess.Popen([sys.executable, "-c", ""])
    started = room._started(process.pid)
    process.wait()
    return replace(ME, pid=process.pid, started=started)


def test_one_at_a_time_and_nothing_is_left(tmp_path: Path) -> None:
    with claimed(tmp_path, "v", run="a") as other:
        assert other is None
        assert is_claimed_by(tmp_path, "v", run="a")
        assert not is_claimed_by(tmp_path, "v", run="b")
        assert not is_claimed_by(tmp_path, "w", run="a")
        assert others_at_work(tmp_path, run="b")
        with claimed(tmp_path, "v", run="b") as holder:
            assert (holder and holder.pid, str(holder)) == (os.getpid(), f"process {os.getpid()} on {ME.host}")
            assert owner_of(tmp_path, "v", run="b") == holder
        with claimed(tmp_path, "w", run="b") as other_video:
            assert other_video is None
        assert claim_file(tmp_path).exists(), "who has no claim takes none away"
    assert owner_of(tmp_path, "v", run="b") is None
    assert not others_at_work(tmp_path, run="b")
    assert list(tmp_path.iterdir()) == []


def test_it_is_given_up_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), claimed(tmp_path, "v", run="a"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="without /proc only time tells who is dead")
def test_the_claim_of_a_dead_process_of_this_machine_is_outranked_at_once(tmp_path: Path) -> None:
    dead = leave(tmp_path, dead_process())
    leave(tmp_path, replace(ME, started="before"), generation=1)  # its number was given to another process since
    assert owner_of(tmp_path, "v", run="a") is None
    with claimed(tmp_path, "v", run="a") as other:
        assert other is None
        assert claim_file(tmp_path, generation=2).exists()
        assert dead.exists()
        with claimed(tmp_path, "v", run="b") as holder:
            assert holder is not None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="without /proc only time tells who is dead")
def test_a_process_that_nobody_has_buried_is_dead(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    leave(tmp_path, replace(ME, pid=process.pid, started=room._started(process.pid)))
    assert owner_of(tmp_path, "v", run="a") is not None
    process.kill()
    deadline = time.monotonic() + 10
    while owner_of(tmp_path, "v", run="a") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert owner_of(tmp_path, "v", run="a") is None
    process.communicate()


@pytest.mark.parametrize("written", [True, False])
def test_the_claim_of_another_machine_counts_until_it_has_been_silent_for_long(tmp_path: Path, written: bool) -> None:
    file = leave(tmp_path, FOREIGN, age=room.SILENCE - 30)
    if not written:  # cut by a power failure, or not written yet
        file.write_text("")
        os.utime(file, (time.time() - room.SILENCE + 30,) * 2)
    with claimed(tmp_path, "v", run="a") as other:
        assert str(other) == f"process {FOREIGN.pid} on elsewhere" if written else "process 0 on an unknown machine"
    assert others_at_work(tmp_path, run="a")
    os.utime(file, (time.time() - room.SILENCE - 30,) * 2)
    with claimed(tmp_path, "v", run="a") as other:
        assert other is None
    assert list(tmp_path.iterdir()) == []


def test_a_lost_worker_of_the_same_run_is_outranked_on_any_machine(tmp_path: Path) -> None:
    leave(tmp_path, FOREIGN)
    with claimed(tmp_path, "v", run="theirs") as other:
        assert other is None


def test_the_claims_of_the_dead_are_cleared_away(tmp_path: Path) -> None:
    leave(tmp_path, FOREIGN, name="v", age=1000)
    leave(tmp_path, FOREIGN, name="w", age=1000)
    (tmp_path / FOLDER / "clock-1").touch()
    assert not others_at_work(tmp_path, run="a")
    assert list(tmp_path.iterdir()) == []
    assert not others_at_work(tmp_path / "absent", run="a")


def test_an_owner_shows_that_it_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "HEARTBEAT", 0.01)
    with claimed(tmp_path, "v", run="a"):
        os.utime(claim_file(tmp_path), (0, 0))
        deadline = time.monotonic() + 10
        while claim_file(tmp_path).stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        # Taken for dead and cleared away by another: not our end.
        claim_file(tmp_path).unlink()
        time.sleep(0.05)


def test_of_many_that_find_a_dead_claim_one_gets_it(tmp_path: Path) -> None:
    leave(tmp_path, FOREIGN, age=1000)
    held, together, most = 0, threading.Barrier(8), 0
    lock = threading.Lock()

    def take(run: str) -> None:
        nonlocal held, most
        together.wait()
        with claimed(tmp_path, "v", run=run) as other:
            if other is None:
                with lock:
                    held += 1
                    most = max(most, held)
                time.sleep(0.2)
                with lock:
                    held -= 1

    threads = [threading.Thread(target=take, args=(f"run {k}",)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert list(tmp_path.iterdir()) == []


def test_a_claim_that_goes_with_its_folder_at_that_very_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = leave(tmp_path, FOREIGN)
    opened = Path.open

    def gone(path: Path, *how: str, **options: object) -> object:
        if path == theirs and theirs.exists() and how == ("xb",):
            theirs.unlink()
            theirs.parent.rmdir()
            raise FileExistsError(path)
        return opened(path, *how, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", gone)
    with claimed(tmp_path, "v", run="a") as other:
        assert other is None
        assert is_claimed_by(tmp_path, "v", run="a")


def test_where_no_claim_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / FOLDER).write_text("")
    with pytest.raises(OutputError, match="a file stands where its folder must be"), claimed(tmp_path, "v", run="a"):
        pass
    with (
        pytest.raises(OutputError, match=r"cannot be written \(Not a directory\)"),
        claimed(tmp_path / FOLDER, "v", run="a"),
    ):
        pass
    (tmp_path / FOLDER).unlink()
    leave(tmp_path, FOREIGN)
    monkeypatch.setattr(Path, "touch", denied)
    with pytest.raises(OutputError, match=r"cannot be written \(Permission denied\)"):
        owner_of(tmp_path, "v", run="a")
    monkeypatch.setattr(Path, "mkdir", lambda *_args, **_options: None)
    with (
        pytest.raises(OutputError, match="cannot be made, or goes away again and again"),
        claimed(tmp_path / "x", "v", run="a"),
    ):
        pass


@pytest.mark.skipif(os.name == "nt", reason="limits of a process are Unix's")
def test_a_full_disk_leaves_no_claim_that_says_nothing(tmp_path: Path) -> None:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"\.claims: cannot be written"), claimed(tmp_path, "v", run="a"):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list((tmp_path / FOLDER).iterdir()) == []
    assert owner_of(tmp_path, "v", run="b") is None


def denied(*_args: object, **_options: object) -> None:
    raise PermissionError(13, "Permission denied")


def test_without_proc_numbers_of_processes_say_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = Path.read_text
    monkeypatch.setattr(
        Path,
        "read_text",
        lambda path, *a, **k: denied() if str(path).startswith("/proc") else real(path, *a, **k),
    )
    monkeypatch.setattr(Path, "exists", lambda path: not str(path).startswith("/proc") and os.path.exists(path))  # noqa: PTH110
    assert room._started(1) == "?"
    leave(tmp_path, replace(ME, started="?"))
    assert owner_of(tmp_path, "v", run="a") is not None
