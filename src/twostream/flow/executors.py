"""Who carries jobs out on one machine: this process, or spawned ones that are replaced when they die."""

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

import cv2

from twostream.flow.contract import FlowError
from twostream.flow.jobs import Job, Outcome, run_job

# Seconds that a worker has to tidy up when it is told to stop.
_GRACE = 5.0

Report = Callable[[Job, str], None]
Outcomes = Generator[tuple[Job, Outcome], None, None]


class Executor(Protocol):
    """Carries jobs out and yields each with its outcome, in the order in which they end; closing it stops the rest."""

    def __call__(self, jobs: Sequence[Job], report: Report, /) -> Outcomes:
        """``report`` may be told how far a job is."""


def in_turn(jobs: Sequence[Job], report: Report) -> Outcomes:
    """In this process."""
    for job in jobs:
        yield job, run_job(job, lambda what, job=job: report(job, what))  # type: ignore[misc]


class _Worker:
    """A spawned process that does jobs one at a time; this end of it."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), name="twostream flow", daemon=True)
        with _ctrl_c_held_back():
            self.process.start()
        theirs.close()
        self.started = False
        self.job: Job | None = None

    def give(self, job: Job | None) -> None:
        """A job, or None: go home."""
        self.job = job
        # If it has just died, the next look at the connection says so.
        with suppress(OSError):
            self.connection.send(job)

    def death(self) -> str:
        """How it came to its end."""
        self.connection.close()
        self.process.join(_GRACE)
        code = self.process.exitcode
        if code is None or code >= 0:
            return f"it ended with status {code}"
        name = signal.Signals(-code).name
        return f"{name}, perhaps because memory ran out" if name == "SIGKILL" else name


def divided(workers: int, jobs: int) -> tuple[int, int]:
    """How many processes, and how many threads for the flow in each, make the most of ``workers`` cores."""
    processes = max(1, min(workers, jobs))
    return processes, max(1, workers // processes)


def in_workers(jobs: Sequence[Job], report: Report, *, workers: int) -> Outcomes:
    """In processes that use ``workers`` cores. One that dies is replaced, and its job's outcome tells of it."""
    processes, threads = divided(workers, len(jobs))
    waiting = deque(replace(job, threads=threads) for job in jobs)
    crew: list[_Worker] = []
    try:
        crew += [_Worker() for _ in range(processes)]
        while crew:
            ready = wait([worker.connection for worker in crew])
            for worker in [worker for worker in crew if worker.connection in ready]:
                try:
                    message = worker.connection.recv()
                except (EOFError, OSError):
                    crew.remove(worker)
                    death = worker.death()
                    if not worker.started:
                        raise FlowError(
                            f"a worker process could not start ({death}). A script that calls this must do so under "
                            'if __name__ == "__main__":, or take workers=0'
                        ) from None
                    if worker.job is not None:
                        reason = f"{worker.job.source.path}: the process that worked on it died ({death})"
                        yield worker.job, Outcome(reason=f"{reason}; the same command tries it again")
                        if waiting:
                            crew.append(_Worker())
                    continue
                job = worker.job
                if isinstance(message, str):
                    assert job is not None
                    report(job, message)
                    continue
                worker.started = True
                worker.give(waiting.popleft() if waiting else None)
                if job is not None:
                    yield job, message
    finally:
        for worker in crew:
            worker.process.terminate()
        deadline = time.monotonic() + _GRACE
        for worker in crew:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            worker.process.kill()
            worker.process.join()
            worker.connection.close()


def _serve(connection: Connection) -> None:
    """The life of a worker: says that it is there, then answers jobs with outcomes until it is sent home."""
    # Ctrl-C reaches the whole group of processes; what happens then is decided by the one that hired.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    cv2.setNumThreads(1)
    # Where the other end is gone there is nobody left to tell.
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        connection.send(None)
        while (job := connection.recv()) is not None:
            connection.send(run_job(job, connection.send))


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


__all__ = ["Executor", "Outcomes", "Report", "divided", "in_turn", "in_workers"]
