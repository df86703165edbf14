"""Who carries jobs out on many machines: a Ray cluster. The only file that knows Ray, which is an extra."""

import os
import platform
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from twostream.errors import UsageError
from twostream.flow.contract import FlowError
from twostream.flow.executors import Outcomes, Report
from twostream.flow.jobs import Job, Outcome, run_job
from twostream.work_claims import claimed, is_claimed_by

# How often a video whose worker was lost is given to another one.
_RETRIES = 3
# Seconds for the first answer from a cluster's address.
_PATIENCE = 10.0
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


def on_ray(jobs: Sequence[Job], report: Report, *, workers: int | None, address: str | None) -> Outcomes:
    """On a Ray cluster, one video a core; a video whose worker is lost is tried again, on whichever machine.

    The machines of the cluster must see the videos and the store under the same paths as this one, and have this
    package installed. Which cluster: see :func:`_cluster`.

    Args:
        jobs: their paths may be relative to this process's folder.
        report: told when a job is handed over; Ray brings no news of it before its end.
        workers: videos at once; None is as many as the cluster has cores, also those that join later.
        address: of a running cluster.

    Raises:
        UsageError: Ray is not installed.
        FlowError: no cluster at that address, or its machines lack this package.
    """
    ray = load_ray()
    run, store = jobs[0].run, jobs[0].store
    mark = f"run {run}"
    with _cluster(ray, address, workers), claimed(store, mark, run=run):
        task = ray.remote(_on_a_machine).options(num_cpus=1, max_retries=_RETRIES, name="twostream flow")
        waiting = deque(_absolute(job) for job in jobs)
        given = {absolute.source.name: job for absolute, job in zip(waiting, jobs, strict=True)}
        running: dict[Any, Job] = {}
        try:
            while waiting or running:
                # Twice as many as there are cores: none waits for the next video to be handed over.
                room = workers or max(2, 2 * int(ray.cluster_resources().get("CPU", 1)))
                while waiting and len(running) < room:
                    job = waiting.popleft()
                    running[task.remote(job, mark, job.source.path.exists())] = given[job.source.name]
                    report(given[job.source.name], "handed over")
                for answer in ray.wait(list(running), timeout=1.0)[0]:
                    done = running.pop(answer)
                    yield done, _outcome(ray, answer, done)
        finally:
            for answer in running:
                ray.cancel(answer, force=True)


def _outcome(ray: Any, answer: Any, job: Job) -> Outcome:
    try:
        outcome: Outcome = ray.get(answer)
    except ray.exceptions.RayTaskError as error:
        # A job does not raise, so it was never begun.
        raise FlowError(
            f"the machines of the Ray cluster cannot run this package ({type(error.cause).__name__}: {error.cause}); "
            "install the same version of it, and of Python, on all of them"
        ) from error
    except ray.exceptions.RayError as error:
        reason = str(error).strip().partition("\n")[0]
        return Outcome(
            reason=f"{job.source.path}: {1 + _RETRIES} processes that worked on it were lost "
            f"({type(error).__name__}: {reason}); the same command tries it again"
        )
    return outcome


def _on_a_machine(job: Job, mark: str, seen: bool) -> Outcome:
    """Runs in a worker of the cluster."""
    import cv2

    cv2.setNumThreads(1)
    for path, there in (
        (job.store, is_claimed_by(job.store, mark, run=job.run)),
        (job.source.path, not seen or job.source.path.exists()),
    ):
        # One such machine would fail all jobs faster than the others do them.
        if not there:
            return Outcome(
                reason=f"{path}: {platform.node()}, a machine of the Ray cluster, sees something else under this path "
                "than the one that started the work; videos and store must lie in a folder that all of them share",
                fatal=True,
            )
    return run_job(job, lambda _what: None)


def _absolute(job: Job) -> Job:
    """The job with paths that mean the same in another folder."""
    source = replace(job.source, path=_full(job.source.path))
    return replace(job, source=source, store=_full(job.store), target=_full(job.target))


def _full(path: Path) -> Path:
    # Links stay: on another machine they may lead elsewhere.
    return Path.cwd() / path


@contextmanager
def _cluster(ray: Any, address: str | None, workers: int | None) -> Iterator[None]:
    """Be connected to a cluster: one that this process is connected to already, the named one, or one of our own."""
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS")
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address:
            _knock(ray, address)
            ray.init(address=address, **quiet)
        else:
            # "local": not the cluster that happens to run here, which may be somebody else's.
            ray.init(address="local", num_cpus=workers, include_dashboard=False, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        if not address:
            raise FlowError(f"Ray cannot be started on this machine ({reason})") from error
        raise FlowError(
            f"the Ray cluster at {address!r} cannot be reached ({reason}). One is started with: ray start --head; new "
            "versions ask for a token, and then RAY_AUTH_MODE=token and the same RAY_AUTH_TOKEN must be set for "
            "the cluster and for this command"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _knock(ray: Any, address: str) -> None:
    """Whether anybody listens at ``HOST:PORT``: Ray itself goes on trying for many minutes, and says so at length.

    Raises:
        OSError: nobody does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    # "auto" and the like name no place.
    if not (host and port.isdecimal()):
        return
    if host in _THIS_MACHINE:
        # As Ray does, which listens at the address that other machines see.
        with suppress(OSError):
            socket.create_connection((ray.util.get_node_ip_address(), int(port)), timeout=_PATIENCE).close()
            return
    socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()


def load_ray() -> Any:
    """The library.

    Raises:
        UsageError: it is not installed.
    """
    # Ray reports home unless it is told not to. It is read when Ray is imported.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise UsageError(
            f"the executor 'ray' needs Ray, which cannot be imported ({error}); pip install 'twostream[ray]'"
        ) from error
    return ray


__all__ = ["load_ray", "on_ray"]
