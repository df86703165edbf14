"""Numba functions whose machine code is kept in the user's cache folder.

Numba's own caching writes beside the source, which may be read-only or shared, and looks only at the file of the
function itself: after a change in a file that it calls, it would run the old code. Here the name of the folder holds
everything that the code depends on, so another version, another source or another CPU finds an empty folder.
"""

# Numba and llvmlite have no types, and neither has what they compile.
# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators, allow-subclassing-any

import hashlib
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import llvmlite  # type: ignore[import-untyped]
import llvmlite.binding  # type: ignore[import-untyped]
import numba
from numba.core import config
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator

from twostream.flow.contract import FlowError
from twostream.version import __version__

# Contraction and reciprocal estimates as in lanes.py; no checks of bounds; other threads run meanwhile.
OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": True, "error_model": "numpy", "boundscheck": False}

# Variables that change the code that Numba makes.
_SWITCHES = ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NUMBA_OPT", "NUMBA_ENABLE_AVX", "NUMBA_LOOP_VECTORIZE")


def cache_root() -> Path:
    """Where compiled code is kept: ``$NUMBA_CACHE_DIR``, else ``twostream/kernels`` in the user's cache folder.

    The user's cache folder is ``$TWOSTREAM_CACHE`` (then without ``twostream``), else ``$XDG_CACHE_HOME``, else what
    the platform has for it.
    """
    if folder := os.environ.get("NUMBA_CACHE_DIR"):
        return Path(folder) / "twostream-kernels"
    if folder := os.environ.get("TWOSTREAM_CACHE"):
        return Path(folder) / "kernels"
    if folder := os.environ.get("XDG_CACHE_HOME"):
        user = Path(folder)
    elif sys.platform == "darwin":
        user = Path("~/Library/Caches").expanduser()
    elif sys.platform == "win32":
        user = Path(os.environ.get("LOCALAPPDATA") or Path("~/AppData/Local").expanduser())
    else:
        user = Path("~/.cache").expanduser()
    return user / "twostream" / "kernels"


def cache_folder(sources: Sequence[Path]) -> Path:
    """The folder for code made from these files by these libraries for this CPU."""
    digest = hashlib.sha256()
    facts = [__version__, numba.__version__, llvmlite.__version__, sys.version, platform.machine()]
    facts += [llvmlite.binding.get_host_cpu_name(), llvmlite.binding.get_host_cpu_features().flatten()]
    facts += [f"{key}={os.environ.get(key)}" for key in _SWITCHES]
    for fact in facts:
        digest.update(fact.encode() + b"\0")
    for source in (Path(__file__), *sources):
        digest.update(hashlib.sha256(source.read_bytes()).digest())
    return cache_root() / f"{__version__}-{digest.hexdigest()[:24]}"


def _usable(folder: Path) -> bool:
    """Whether files can be made there; it is made if it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        # Filled by someone else beforehand, it can still be read.
        return folder.is_dir() and os.access(folder, os.R_OK)
    return True


def kernel(signature: str, *sources: Path) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function for one signature, or take its code from the cache.

    Args:
        signature: types of result and arguments, in Numba's words.
        sources: the files that the code depends on, beside this one.

    Raises:
        FlowError: Numba's compiler is turned off.
    """
    if getattr(config, "DISABLE_JIT", 0):
        raise FlowError("flow by tvl1 needs Numba's compiler, which NUMBA_DISABLE_JIT turns off; unset it or take dis")

    def compiled(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(**OPTIONS)(function)
        with suppress(OSError, RuntimeError):  # no home folder; sources that are no files
            folder = cache_folder(sources)
            if _usable(folder):
                dispatcher._cache = _cache_in(folder)(function)
        dispatcher.compile(signature)
        dispatcher.disable_compile()
        return dispatcher

    return compiled


def _cache_in(folder: Path) -> type[FunctionCache]:
    class Locator(_CacheLocator):
        # What stands in Numba's warnings.
        _py_file = __file__

        def get_cache_path(self) -> str:
            return str(folder)

        def get_source_stamp(self) -> str:
            return folder.name

        def get_disambiguator(self) -> str:
            return "kernel"

    class Implementation(CompileResultCacheImpl):
        # Numba's own way to a locator can be turned aside by a variable of the environment.
        def __init__(self, function: Callable[..., Any]) -> None:
            self._lineno = function.__code__.co_firstlineno
            self._locator = Locator()
            self._filename_base = self.get_filename_base(f"{function.__module__}.{function.__qualname__}", "")

    class Cache(FunctionCache):
        _impl_class = Implementation

        # A cache that cannot be read or written costs seconds, never the run: a full disk, a folder that is
        # read-only or was removed, a damaged file.
        def load_overload(self, sig: Any, target_context: Any) -> Any:
            try:
                return super().load_overload(sig, target_context)
            except Exception:
                return None

        def save_overload(self, sig: Any, data: Any) -> None:
            for attempt in (1, 2):
                try:
                    super().save_overload(sig, data)
                    return
                except Exception:
                    # A damaged index is in the way; it is only a list of what can be made again.
                    with suppress(OSError):
                        if attempt == 1:
                            self.flush()

    return Cache


__all__ = ["OPTIONS", "cache_folder", "cache_root", "kernel"]
