"""Several rows at a time, each in a process of its own, with its share of the cores and one of the GPUs."""

import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import cv2
import torch

from twostream import processes
from twostream.errors import UsageError
from twostream.experiments.making import Maker, Say, attempt, cores_each
from twostream.experiments.rows import Finished, SuiteFolder
from twostream.experiments.suite import Row, Suite
from twostream.work_claims import Owner

# Libraries that make threads read these when they are loaded.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
# The epoch that is stopped may have a large checkpoint to write.
_GRACE = 30.0

# Why there is no row, and the row, or who is at it.
Outcome = tuple[str, Finished | Owner | None]


@dataclass
class _Worker:
    row: Row
    place: int
    process: BaseProcess
    connection: Connection


class Crew:
    """Processes that make one row each; leaving the ``with`` block stops those that are still at it.

    Attributes:
        jobs: how many rows at a time.
    """

    def __init__(self, folder: SuiteFolder, say: Say, *, jobs: int) -> None:
        self.folder = folder
        self.say = say
        self.jobs = jobs
        self.gpus = visible_gpus()
        self._workers: list[_Worker] = []

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, *_: object) -> None:
        processes.stop([worker.process for worker in self._workers], grace=_GRACE)
        for worker in self._workers:
            worker.connection.close()

    @property
    def free(self) -> bool:
        """Whether one more row can be taken."""
        return len(self._workers) < self.jobs

    def start(self, row: Row) -> None:
        """Take a row."""
        place = min(set(range(self.jobs)) - {worker.place for worker in self._workers})
        connection, theirs = multiprocessing.Pipe()
        with _environment(surroundings(place, jobs=self.jobs, gpus=self.gpus)):
            # With processes of its own that compute flow and read clips, so it cannot be a daemon.
            process = processes.spawned(
                _serve,
                theirs,
                self.folder.suite,
                self.folder.out,
                row.name,
                self.jobs,
                name=f"twostream {row.name}",
                daemon=False,
            )
        theirs.close()
        self._workers.append(_Worker(row, place, process, connection))

    def outcomes(self, seconds: float | None) -> Iterator[tuple[Row, Outcome]]:
        """Wait until something ends, at most so long; what the rows say meanwhile is handed on with their names."""
        ready = wait([worker.connection for worker in self._workers], seconds)
        for worker in [worker for worker in self._workers if worker.connection in ready]:
            try:
                message = worker.connection.recv()
            except (EOFError, OSError):
                message = (f"its process died ({processes.death_of(worker.process)})", None)
            if isinstance(message, str):
                for line in message.splitlines():
                    self.say(f"{worker.row.name}: {line}")
                continue
            self._workers.remove(worker)
            worker.connection.close()
            worker.process.join(_GRACE)
            processes.stop([worker.process])
            yield worker.row, message


def visible_gpus() -> tuple[str, ...]:
    """The GPUs that this process may use, by the names that ``CUDA_VISIBLE_DEVICES`` takes."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return tuple(filter(None, (name.strip() for name in given.split(","))))
    return tuple(str(number) for number in range(torch.cuda.device_count()))


def surroundings(place: int, *, jobs: int, gpus: Sequence[str]) -> dict[str, str]:
    """The environment of the row in a place: its share of threads, and its GPU, which others share where they are few.

    A smaller number of threads that the user asked for is kept.
    """
    cores = cores_each(jobs)
    asked = {name: os.environ.get(name, "") for name in _THREADS}
    found = {name: str(min(cores, int(value)) if value.isdecimal() else cores) for name, value in asked.items()}
    if gpus:
        found["CUDA_VISIBLE_DEVICES"] = gpus[place % len(gpus)]
    return found


def require_one_device(rows: Sequence[Row]) -> None:
    """Rows that are made side by side have one device each.

    Raises:
        UsageError: a variant asks for several.
    """
    for row in rows:
        trainer = row.config.trainer
        if trainer.devices not in ("auto", 1, "1") or trainer.num_nodes > 1:
            what = f"devices: {trainer.devices}" if trainer.num_nodes == 1 else f"num_nodes: {trainer.num_nodes}"
            raise UsageError(
                f"with --jobs every row has one device, and {row.variant} asks for {what}; run it without --jobs"
            )


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Started processes inherit it; libraries look when they are loaded, which is before anything can be told them."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(connection: Connection, suite: Suite, out: Path, name: str, jobs: int) -> None:
    """Make one row, and tell."""
    processes.obey()
    threads = int(os.environ["OMP_NUM_THREADS"])
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    (row,) = (row for row in suite.rows() if row.name == name)
    maker = Maker(SuiteFolder(suite, out), connection.send, jobs=jobs)
    # Where the other end is gone there is nobody left to tell; stopped, it is being waited for and has nothing to tell.
    with suppress(BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
        connection.send(attempt(partial(maker.make, row), maker.say))


__all__ = ["Crew", "Outcome", "require_one_device", "surroundings", "visible_gpus"]
