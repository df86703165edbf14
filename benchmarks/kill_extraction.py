"""Kill an extraction at random moments, restart it by the same command, and compare with an undisturbed run.

    python benchmarks/kill_extraction.py VIDEOS [--kills 50] [--workers 2] [--short-side 128] [--seed 0]

Every second kill takes the main process alone, so that its workers have to notice; the others take all processes at
once. Exit status 0 if every file of the store is byte-identical to the undisturbed run's and nothing else is left.
"""

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from twostream.flow.extract import extract
from twostream.flow.jobs import Source
from twostream.flow.store import FlowSettings, FlowStore
from twostream.work_claims import FOLDER

SUFFIXES = {".avi", ".mp4", ".mkv", ".webm", ".mov"}


def run(videos: Path, root: Path, workers: int, settings: FlowSettings) -> int:
    """The command that is killed and restarted."""
    paths = sorted(p for p in videos.rglob("*") if p.suffix.lower() in SUFFIXES)
    sources = [Source(p.relative_to(videos).as_posix(), p) for p in paths]
    summary = extract(sources, FlowStore(root, settings), workers=workers)
    print(*summary.lines(), sep="\n")
    return 0


def hashes(root: Path) -> dict[str, str]:
    found = {}
    for path in sorted(root.rglob("*")):
        # Workers whose main process was killed may still be tidying up.
        with suppress(FileNotFoundError, IsADirectoryError):
            found[path.relative_to(root).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def is_work(name: str) -> bool:
    """Whether a file of the store belongs to work that is going on, or was when it was killed."""
    return name.endswith(".partial") or name.startswith(f"{FOLDER}/")


def kill_and_compare(args: argparse.Namespace, work: Path) -> int:
    rng = random.Random(args.seed)

    def start(root: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, __file__, str(args.videos), "--only", str(root), "--workers", str(args.workers)]
        command += ["--short-side", str(args.short_side), "--estimator", args.estimator]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)

    began = time.perf_counter()
    if start(work / "undisturbed").wait():
        print("the undisturbed run failed")
        return 1
    duration = time.perf_counter() - began
    expected = hashes(work / "undisturbed")
    began = time.perf_counter()
    start(work / "undisturbed").wait()
    idle = time.perf_counter() - began
    print(f"undisturbed: {len(expected) - 1} videos in {duration:.1f} s, {idle:.1f} s of which go by before the work\n")
    print("| kill | who | after s | files finished | unfinished | wrong |")
    print("|---|---|---|---|---|---|")
    root = work / "killed"
    wrong_ever = kills = 0
    while kills < args.kills:
        process = start(root)
        # Workers take as long to start as their main process, and every restart repeats what was unfinished.
        moment = rng.uniform(idle / 2, 2.5 * idle + 2 * max(0.0, duration - 2 * idle) / (args.kills + 1))
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            everybody = kills % 2 == 1
            (os.killpg if everybody else os.kill)(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            found = hashes(root)
            finished = {name: digest for name, digest in found.items() if not is_work(name)}
            wrong = sum(expected.get(name) != digest for name, digest in finished.items())
            wrong_ever += wrong
            print(
                f"| {kills} | {'all processes' if everybody else 'main process'} | {moment:.2f} | "
                f"{sum(name.endswith('.flow') for name in finished)} | {len(found) - len(finished)} | {wrong} |",
                flush=True,
            )
        else:
            # It came to its end before the moment; a new one gives the next kill something to interrupt.
            wrong_ever += hashes(root) != expected
            shutil.rmtree(root)
    status = start(root).wait()
    found = hashes(root)
    differing = sorted(name for name in {**expected, **found} if expected.get(name) != found.get(name))
    print(
        f"\nrestarted to the end: status {status}, {len(found) - 1} videos, {len(differing)} files differ", *differing
    )
    print("identical" if not (differing or status or wrong_ever) else "NOT IDENTICAL")
    return 1 if differing or status or wrong_ever else 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path, help="folder of videos")
    parser.add_argument("--kills", type=int, default=50, help="random moments at which it is killed")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--short-side", type=int, default=128)
    parser.add_argument("--estimator", default="tvl1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=Path, metavar="STORE", help="extract into STORE, undisturbed, and nothing else")
    args = parser.parse_args(argv)
    if args.only:
        settings = FlowSettings(estimator=args.estimator, short_side=args.short_side)
        return run(args.videos, args.only, args.workers, settings)
    with tempfile.TemporaryDirectory() as work:
        return kill_and_compare(args, Path(work))


if __name__ == "__main__":
    sys.exit(main())
