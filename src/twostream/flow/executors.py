"""Who carries jobs out on one machine: this process, or spawned ones that are replaced when they die."""

import multiprocessing
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from typing import Protocol

import cv2

from twostream import processes
from twostream.flow.contract import FlowError
from twostream.flow.jobs import Job, Outcome, run_job

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
        self.connection, theirs = multiprocessing.Pipe()
        self.process = processes.spawned(_serve, theirs, name="twostream flow")
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
        return processes.death_of(self.process)


def divided(workers: int, jobs: int) -> tuple[int, int]:
    """How many processes, and how many threads for the flow in each, make the most of ``workers`` cores."""
    processes = max(1, min(workers, jobs))
    return processes, max(1, workers // processes)


def in_workers(jobs: Sequence[Job], report: Report, *, workers: int) -> Outcomes:
    """In processes that use ``workers`` cores. One that dies is replaced, and its job's outcome tells of it."""
    count, threads = divided(workers, len(jobs))
    waiting = deque(replace(job, threads=threads) for job in jobs)
    crew: list[_Worker] = []
    try:
        crew += [_Worker() for _ in range(count)]
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
        processes.stop([worker.process for worker in crew])
        for worker in crew:
            worker.connection.close()


def _serve(connection: Connection) -> None:
    """The life of a worker: says that it is there, then answers jobs with outcomes until it is sent home."""
    processes.obey()
    cv2.setNumThreads(1)
    # Where the other end is gone there is nobody left to tell.
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        connection.send(None)
        while (job := connection.recv()) is not None:
            connection.send(run_job(job, connection.send))


__all__ = ["Executor", "Outcomes", "Report", "divided", "in_turn", "in_workers"]
