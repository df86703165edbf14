import errno
import hashlib
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from twostream.files import OutputError, atomic_write, remove_leftovers, sha256_of, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_half(path: Path, interruption: BaseException) -> None:
    with atomic_write(path) as file:
        file.write(b"half of the new")
        raise interruption


def test_a_file_appears_whole_and_alone_in_a_folder_made_for_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "file.bin"
    with atomic_write(path) as file:
        file.write(b"abc")
        assert not path.exists()
    assert path.read_bytes() == b"abc"
    assert names(path.parent) == ["file.bin"]


def test_an_older_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with pytest.raises(KeyError):
        write_half(path, KeyError())
    assert path.read_text() == "old"
    write_text(str(path), "néw ✓")
    assert path.read_text(encoding="utf-8") == "néw ✓"
    assert names(tmp_path) == ["file.txt"]


@pytest.mark.parametrize("name", ["a" * 255, "é" * 127, "動" * 85, "😀" * 63], ids=["ascii", "latin", "cjk", "emoji"])
def test_any_name_that_the_disk_takes_can_be_written(tmp_path: Path, name: str) -> None:
    write_text(tmp_path / name, "x")
    assert names(tmp_path) == [name]


def test_a_file_where_a_folder_must_be_is_named(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "x")
    with pytest.raises(OutputError, match=r"file/child: cannot be written \(a file stands where its folder must be\)"):
        write_text(tmp_path / "file" / "child", "y")
    assert names(tmp_path) == ["file"]


def test_a_folder_in_the_way_of_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OutputError, match=r"taken: cannot be written \(Is a directory\)"):
        write_text(tmp_path / "taken", "y")
    assert names(tmp_path) == ["taken"]


def test_a_folder_that_takes_no_files_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Permissions do not stop root, who may run the tests; so the refusal is simulated where the system makes it.
    def refuse(self: Path, *_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(OutputError, match=r"file: cannot be written \(Read-only file system\)"):
        write_text(tmp_path / "file", "y")
    assert names(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes into read-only folders")
def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match=r"Permission denied"):
            write_text(tmp_path / "file", "y")
    finally:
        tmp_path.chmod(0o700)


def test_a_disk_that_fills_up_at_the_flush_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_text(tmp_path / "file", "old")
    monkeypatch.setattr("twostream.files.os.fsync", full)
    with pytest.raises(OutputError, match=r"No space left on device"):
        write_text(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "old"
    assert names(tmp_path) == ["file"]


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments], capture_output=True, text=True, timeout=60
    )


def test_a_write_beyond_what_the_system_grants_leaves_the_older_file(tmp_path: Path) -> None:
    done = run(
        """
        import resource, signal, sys
        from twostream.files import OutputError, atomic_write
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        path = sys.argv[1]
        with atomic_write(path) as file:
            file.write(b"old")
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            with atomic_write(path) as file:
                for _ in range(100):
                    file.write(bytes(10_000))
        except OutputError as error:
            print(error)
        """,
        str(tmp_path / "file"),
    )
    assert "File too large" in done.stdout, done.stderr
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_kill_in_the_middle_leaves_the_older_file_and_one_leftover(tmp_path: Path) -> None:
    write_text(tmp_path / "sub" / "file", "old")
    done = run(
        """
        import os, signal, sys
        from twostream.files import atomic_write
        with atomic_write(sys.argv[1]) as file:
            file.write(bytes(1_000_000))
            os.kill(os.getpid(), signal.SIGKILL)
        """,
        str(tmp_path / "sub" / "file"),
    )
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "sub" / "file").read_text() == "old"
    assert len(names(tmp_path / "sub")) == 2
    assert remove_leftovers(tmp_path) == 1
    assert names(tmp_path / "sub") == ["file"]
    assert remove_leftovers(tmp_path) == 0


def test_a_file_that_is_being_written_is_not_a_leftover(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "file") as file:
        file.write(b"half")
        assert remove_leftovers(tmp_path) == 0
        file.write(b" and half")
    assert (tmp_path / "file").read_bytes() == b"half and half"


def test_ctrl_c_in_the_middle_cleans_up(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_half(tmp_path / "file", KeyboardInterrupt())
    assert names(tmp_path) == []


def test_the_hash_is_of_the_bytes(tmp_path: Path) -> None:
    content = os.urandom(1_000_001)
    (tmp_path / "file").write_bytes(content)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(content).hexdigest()
