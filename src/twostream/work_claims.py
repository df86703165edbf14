"""Who works on what: a small file for each piece of work in a folder ``.claims``, so that processes share the work.

The pieces are the videos of a flow store, for instance, or the rows of a suite, and the processes may be on several
machines.

Locks cannot be relied upon over a network file system; that only one process creates a file of a given name can. So:

- A claim is a file that its owner created, ``<hash of the name>.0``, with the machine, process and run in it. The owner
  touches it every :data:`HEARTBEAT` seconds and deletes it when the work is over.
- A claim is dead when its process is known to be (it ran on this machine), when it was made by this very run (which
  gives a piece to one worker at a time, so that worker was lost), or when nobody has touched it for :data:`SILENCE`
  seconds by the file server's clock, so that the clocks of machines need not agree.
- A dead claim is not deleted but outranked: who creates ``<hash>.1`` first is the next owner. Deleting it could delete
  the claim of one who was faster.

A claim saves work, it does not guard the files: these are renamed into place whole, and whoever computes them computes
the same bytes. An owner that was taken for dead (a machine that slept) does no harm when it wakes up.
"""

import hashlib
import json
import os
import platform
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from twostream.files import OutputError

HEARTBEAT = 20.0
# Longer than a beat and the minute for which network file systems may keep a file's times to themselves.
SILENCE = 180.0

FOLDER = ".claims"
_CLOCK = "clock-"


@dataclass(frozen=True, kw_only=True)
class Owner:
    """A process that has a claim.

    Attributes:
        host: name of the machine.
        machine: what tells this boot of this machine, and its world of process numbers, from others of the same name.
        pid: of the process.
        started: when it was started, in the system's own terms; numbers of processes are used again.
        run: what tells this run of a command from others.
    """

    host: str
    machine: str
    pid: int
    started: str
    run: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@contextmanager
def claimed(root: Path, name: str, *, run: str) -> Iterator[Owner | None]:
    """Hold the claim to ``name`` in the folder ``root`` for a ``with`` block, which is given None.

    Or where a living process has it: hold nothing; the block is given that process.

    Args:
        root: folder that all who share the work see, made where it is missing.
        name: of what only one process should work on.
        run: that this process belongs to, see :class:`Owner`.

    Raises:
        OutputError: the folder cannot be written.
    """
    with _held(root / FOLDER, _stem(name), run) as other:
        yield other


def owner_of(root: Path, name: str, *, run: str) -> Owner | None:
    """The living process that has the claim to ``name``; None where it is free."""
    folder, stem, generation = root / FOLDER, _stem(name), 0
    while (claim := folder / f"{stem}.{generation}").exists():
        if (owner := _living(claim, run)) is not None:
            return owner
        generation += 1
    return None


def is_claimed_by(root: Path, name: str, *, run: str) -> bool:
    """Whether ``run`` has the claim to ``name``: how a process on another machine finds that both see one folder."""
    claims = sorted((root / FOLDER).glob(f"{_stem(name)}.*"))
    return any(owner is not None and owner.run == run for owner in map(_owner, claims))


def others_at_work(root: Path, *, run: str) -> bool:
    """Whether a living process has any claim in the folder ``root``; those of dead ones are cleared away."""
    folder = root / FOLDER
    busy = False
    with suppress(FileNotFoundError):
        names = sorted(path.name for path in folder.iterdir())
        for clock in [name for name in names if name.startswith(_CLOCK)]:
            (folder / clock).unlink(missing_ok=True)
        for stem in sorted({name.partition(".")[0] for name in names if not name.startswith(_CLOCK)}):
            with _held(folder, stem, run) as other:
                busy |= other is not None
    return busy


@contextmanager
def _held(folder: Path, stem: str, run: str) -> Iterator[Owner | None]:
    mine = json.dumps(asdict(_this_process(run))).encode()
    generation = 0
    while True:
        claim = folder / f"{stem}.{generation}"
        if _created(claim, mine):
            break
        if (other := _living(claim, run)) is not None:
            yield other
            return
        # Gone in the meantime: begin again, or two would each hold a generation.
        generation = generation + 1 if claim.exists() else 0
    over = threading.Event()
    heart = threading.Thread(target=_beat, args=(claim, over), name="claim", daemon=True)
    heart.start()
    try:
        yield None
    finally:
        over.set()
        heart.join()
        # The outranked first: they must not come to be the highest again.
        for lower in range(generation + 1):
            with suppress(OSError):
                (folder / f"{stem}.{lower}").unlink(missing_ok=True)
        # Where others are at work it is not empty.
        with suppress(OSError):
            folder.rmdir()


def _created(claim: Path, content: bytes) -> bool:
    """Whether this process has made the file; False if it was there."""
    try:
        for _ in range(10):
            claim.parent.mkdir(parents=True, exist_ok=True)
            try:
                with claim.open("xb") as file:
                    try:
                        file.write(content)
                        file.flush()
                    except OSError:
                        # One that says nothing would keep everybody waiting until it counts as dead.
                        claim.unlink(missing_ok=True)
                        raise
                return True
            except FileNotFoundError:
                # Whoever was last to leave has just taken the folder away.
                continue
        raise OutputError(f"{claim.parent}: cannot be made, or goes away again and again")
    except FileExistsError:
        # Whoever held it may have taken claim and folder away since, and another may have made the folder again.
        if claim.parent.is_dir() or not os.path.lexists(claim.parent) or claim.parent.is_dir():
            return False
        raise OutputError(f"{claim.parent}: cannot be written (a file stands where its folder must be)") from None
    except OSError as error:
        raise OutputError(f"{claim.parent}: cannot be written ({error.strerror or error})") from error


def _beat(claim: Path, over: threading.Event) -> None:
    while not over.wait(HEARTBEAT):
        with suppress(OSError):
            os.utime(claim)


def _living(claim: Path, run: str) -> Owner | None:
    """The owner of a claim, if there is reason to believe that it still works; None otherwise, and for no claim."""
    owner = _owner(claim)
    if owner is None or owner.run == run:
        return None
    if owner.machine == _machine() and _started(owner.pid) != owner.started:
        return None
    return None if _silence(claim) > SILENCE else owner


def _owner(claim: Path) -> Owner | None:
    """What a claim says; None where there is none."""
    try:
        return Owner(**json.loads(claim.read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError):
        # Not written yet, or cut by a power failure; which of the two only time tells.
        return Owner(host="an unknown machine", machine="", pid=0, started="", run="")


def _silence(claim: Path) -> float:
    """Seconds since a claim was touched, by the clock that stamps the files of its folder."""
    clock = claim.with_name(f"{_CLOCK}{secrets.token_hex(8)}")
    try:
        clock.touch(exist_ok=False)
        return clock.stat().st_mtime - claim.stat().st_mtime
    except FileNotFoundError:
        return 0.0
    except OSError as error:
        raise OutputError(f"{claim.parent}: cannot be written ({error.strerror or error})") from error
    finally:
        with suppress(OSError):
            clock.unlink(missing_ok=True)


def _stem(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _this_process(run: str) -> Owner:
    return Owner(host=platform.node(), machine=_machine(), pid=os.getpid(), started=_started(os.getpid()), run=run)


@cache
def _machine() -> str:
    parts = [platform.node()]
    # Two machines may bear one name, and containers on one machine have process numbers of their own.
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def _started(pid: int) -> str:
    """When a process of this machine was started; "" if there is none, and "?" where the system does not tell."""
    try:
        # Behind the name, which may hold anything in its brackets: state, then 18 numbers, then the start.
        state, *numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if state in "ZX" else numbers[18]
    except OSError:
        return "" if Path("/proc/self/stat").exists() else "?"


__all__ = ["FOLDER", "HEARTBEAT", "SILENCE", "Owner", "claimed", "is_claimed_by", "others_at_work", "owner_of"]
