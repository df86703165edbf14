"""Files that are finished or absent: written under a temporary name in the same folder, flushed, renamed."""

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from twostream.errors import TwostreamError

try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be deleted anyway
    fcntl = None  # type: ignore[assignment]

_TEMPORARY = ".partial"


class OutputError(TwostreamError):
    """An output could not be written: read-only folder, full disk, a file where a folder must be."""


@contextmanager
def atomic_write(path: Path | str) -> Iterator[BinaryIO]:
    """Open ``path`` for binary writing; it appears under its name only when the block ends without an error.

    The bytes go to a hidden file beside it, are flushed to the disk and renamed over ``path``, so a reader, a full
    disk, Ctrl-C or ``kill -9`` never meets or leaves half a file under the final name. Missing folders are made.

    Raises:
        OutputError: the folder or the file cannot be written; the message names the path and the reason.
    """
    path = Path(path)
    # A name may have 255 bytes and a character four of them; what is added must still fit.
    temporary = path.with_name(f".{path.name[:50]}.{secrets.token_hex(4)}{_TEMPORARY}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            # Some network file systems have no locks; what a killed writer leaves there has to stay.
            with suppress(OSError):
                _lock(file)
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        if isinstance(error, FileExistsError | NotADirectoryError):
            reason = "a file stands where its folder must be"
        raise OutputError(f"{path}: cannot be written ({reason}); nothing was left there") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


class _Tried(Exception):  # noqa: N818 - ends a write that was only a trial
    pass


def check_writable(path: Path | str) -> None:
    """Whether :func:`atomic_write` could write there, found before the work for it is done; leaves ``path`` as it was.

    Raises:
        OutputError: as it would.
    """
    with suppress(_Tried), atomic_write(path):
        raise _Tried


def write_text(path: Path | str, text: str) -> None:
    """Write ``text`` as UTF-8, whole or not at all."""
    with atomic_write(path) as file:
        file.write(text.encode("utf-8"))


def remove_leftovers(folder: Path, *, unless: Callable[[], bool] = lambda: False) -> int:
    """Delete what killed writers left below ``folder``; returns how many files.

    A file that another process is still writing is locked by it and stays; the lock dies with its holder.

    Args:
        folder: with all folders in it.
        unless: asked after looking for them, if there are any; True leaves them where they are. For file systems
            without locks: a writer that is still at work with one of these files is known by then.
    """
    removed = 0
    leftovers = list(folder.rglob(f".*{_TEMPORARY}"))
    if not leftovers or unless():
        return 0
    for leftover in leftovers:
        with suppress(OSError), ExitStack() as stack:
            if fcntl is not None:
                _lock(stack.enter_context(leftover.open("r+b")))
            leftover.unlink()
            removed += 1
    return removed


def _lock(file: BinaryIO) -> None:
    """Mark ``file`` as being written, until it is closed; OSError if it is, or if the file system has no locks."""
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def sha256_of(path: Path | str) -> str:
    """The SHA-256 of a file's bytes in hexadecimal, read in pieces."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
