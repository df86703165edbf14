"""Processes of one's own: spawned, not forked, deaf to Ctrl-C, ended by whoever started them, and never left behind."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Any

# Seconds that a process has to tidy up when it is told to stop.
GRACE = 5.0


def spawned(work: Callable[..., None], *args: Any, name: str, daemon: bool = True) -> BaseProcess:
    """Start ``work(*args)`` in a new process, which should call :func:`obey` first.

    Args:
        work: a function of a module.
        args: that can be pickled.
        name: of the process, for who looks.
        daemon: whether it ends with this one by itself; such a process can have none of its own.
    """
    process = multiprocessing.get_context("spawn").Process(target=work, args=args, name=name, daemon=daemon)
    with _ctrl_c_held_back():
        process.start()
    return process


def obey() -> None:
    """Called in a spawned process: from now on it ends when its parent stops it or is no more, and not before."""
    # Ctrl-C reaches the whole group of processes; what happens then is decided by the one that started it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def death_of(process: BaseProcess) -> str:
    """How a process came to its end, in words."""
    process.join(GRACE)
    code = process.exitcode
    if code is None or code >= 0:
        return f"it ended with status {code}"
    name = signal.Signals(-code).name
    return f"{name}, perhaps because memory ran out" if name == "SIGKILL" else name


def stop(processes: Sequence[BaseProcess], *, grace: float = GRACE) -> None:
    """End them: in an orderly way, and after ``grace`` seconds for all together in any way."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + grace
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        process.kill()
        process.join()


def _leave(signum: int, _frame: Any) -> None:
    """End in an orderly way, through every ``with`` block."""
    raise SystemExit(128 + signum)


def _end_with_parent() -> None:
    """A killed parent cannot stop its workers; they would go on, and then wait for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextmanager
def _ctrl_c_held_back() -> Iterator[None]:
    """Ctrl-C waits until the block is over; processes started in it never hear it at all."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


__all__ = ["GRACE", "death_of", "obey", "spawned", "stop"]
