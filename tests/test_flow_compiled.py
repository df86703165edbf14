"""Compiled code is kept where it can be found again, never used where it does not fit, and not needed."""

import importlib.util
import os
import platform
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import llvmlite.binding
import pytest

from twostream.flow import compiled
from twostream.flow.compiled import cache_folder, cache_root

SOURCE = """
from pathlib import Path
from twostream.flow.compiled import kernel

@kernel("int64(int64)", Path(__file__))
def multiplied(x):
    return FACTOR * x
"""


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "tiny", ModuleType("tiny"))  # what was there before is there again afterwards
    path = tmp_path / "tiny.py"
    path.write_text(SOURCE.replace("FACTOR", "2"))
    return path


def run(path: Path) -> ModuleType:
    """The module, as a process would load it that starts now."""
    spec = importlib.util.spec_from_file_location("tiny", path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    # The byte code of a file that is edited within a second is taken for the new one's.
    # Numba imports the module of code that it takes from its cache.
    sys.modules["tiny"] = module
    exec(compile(path.read_text(), str(path), "exec"), module.__dict__)
    return module


def came_from_cache(module: ModuleType) -> bool:
    return bool(module.multiplied.stats.cache_hits)


def files(source: Path) -> list[Path]:
    return sorted(p for p in (source.parent / "cache").rglob("*") if p.is_file())


def test_code_is_compiled_once(source: Path) -> None:
    first = run(source)
    assert first.multiplied(21) == 42
    assert not came_from_cache(first)
    assert {p.suffix for p in files(source)} == {".nbi", ".nbc"}
    second = run(source)
    assert second.multiplied(21) == 42
    assert came_from_cache(second)


def test_another_source_is_another_code(source: Path) -> None:
    run(source)
    source.write_text(SOURCE.replace("FACTOR", "3"))
    edited = run(source)
    assert edited.multiplied(21) == 63
    assert not came_from_cache(edited)


@pytest.mark.parametrize("what", ["package", "numba", "llvmlite", "python", "cpu", "features", "switch", "callee"])
def test_whatever_the_code_depends_on_is_in_the_folders_name(
    what: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    callee = tmp_path / "callee.py"
    callee.write_text("old")
    before = cache_folder([source, callee])
    assert cache_folder([source, callee]) == before
    match what:
        case "package":
            monkeypatch.setattr(compiled, "__version__", "9.9")
        case "numba":
            monkeypatch.setattr("numba.__version__", "9.9")
        case "llvmlite":
            monkeypatch.setattr("llvmlite.__version__", "9.9")
        case "python":
            monkeypatch.setattr(sys, "version", "9.9")
        case "cpu":
            monkeypatch.setattr(llvmlite.binding, "get_host_cpu_name", lambda: "z80")
        case "features":
            monkeypatch.setattr(llvmlite.binding, "get_host_cpu_features", llvmlite.binding.FeatureMap)
        case "switch":
            monkeypatch.setenv("NUMBA_CPU_NAME", "generic")
        case "callee":
            callee.write_text("new")
    assert cache_folder([source, callee]) != before


def test_the_folder_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("NUMBA_CACHE_DIR", "TWOSTREAM_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    for system, expected in (
        ("linux", ".cache/twostream/kernels"),
        ("darwin", "Library/Caches/twostream/kernels"),
        ("win32", "AppData/Local/twostream/kernels"),
    ):
        monkeypatch.setattr(sys, "platform", system)
        assert cache_root() == tmp_path / expected
    for name, expected in (
        ("LOCALAPPDATA", "twostream/kernels"),
        ("XDG_CACHE_HOME", "twostream/kernels"),
        ("TWOSTREAM_CACHE", "kernels"),
        ("NUMBA_CACHE_DIR", "twostream-kernels"),
    ):
        monkeypatch.setenv(name, str(tmp_path / name))
        assert cache_root() == tmp_path / name / expected


def test_no_folder_no_harm(source: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder) -> None:
    # A file where the folder should be, which stops even root.
    (source.parent / "cache").write_text("in the way")
    module = run(source)
    assert module.multiplied(21) == 42
    assert not came_from_cache(run(source))

    def homeless(_: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", homeless)
    for name in ("NUMBA_CACHE_DIR", "TWOSTREAM_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert run(source).multiplied(21) == 42
    assert not recwarn


@pytest.mark.skipif(platform.system() == "Windows" or os.geteuid() == 0, reason="root writes into read-only folders")
def test_a_read_only_folder_is_read(source: Path) -> None:
    run(source)
    folder = files(source)[0].parent
    folder.chmod(0o500)
    try:
        assert came_from_cache(run(source))
        source.write_text(SOURCE.replace("FACTOR", "3"))
        folder.parent.chmod(0o500)
        assert run(source).multiplied(21) == 63
    finally:
        folder.parent.chmod(0o700)
        folder.chmod(0o700)


def test_a_full_disk_is_no_harm(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("numba.core.caching.IndexDataCacheFile._open_for_write", full)
        assert run(source).multiplied(21) == 42
    assert not came_from_cache(run(source))
    assert came_from_cache(run(source))


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
@pytest.mark.parametrize("damage", ["empty", "cut", "other"])
def test_a_damaged_file_is_made_anew(source: Path, suffix: str, damage: str) -> None:
    run(source)
    for path in files(source):
        if path.suffix == suffix:
            content = path.read_bytes()
            path.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "other": b"\x80\x04N."}[damage])
    module = run(source)
    assert module.multiplied(21) == 42
    assert not came_from_cache(module)
    assert came_from_cache(run(source))


def test_several_processes_may_start_at_once(source: Path) -> None:
    program = "import tiny; print(tiny.multiplied(21), len(tiny.multiplied.stats.cache_hits))"
    command = [sys.executable, "-c", program]

    def start() -> "subprocess.Popen[str]":
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=source.parent)

    started = [start() for _ in range(3)]
    assert [process.communicate()[0].split()[0] for process in started] == ["42"] * 3
    assert not [p for p in files(source) if ".tmp" in p.name]
    assert start().communicate()[0].split() == ["42", "1"]
