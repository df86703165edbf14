"""Running a suite: what is finished is a file and stays, what fails is named and the rest goes on."""

import difflib
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Protocol

from twostream.errors import UsageError
from twostream.experiments.making import LOOK_EVERY, Maker, Progress, Say, attempt
from twostream.experiments.parallel import Crew, Outcome, require_one_device
from twostream.experiments.rows import Finished, SuiteFolder, changes, machine
from twostream.experiments.schema import SuiteError
from twostream.experiments.suite import Row, Suite
from twostream.units import seconds_text
from twostream.work_claims import Owner, owner_of


def run_suite(
    suite: Suite,
    out: Path,
    *,
    only: Sequence[str] = (),
    seeds: Sequence[int] = (),
    splits: Sequence[str] = (),
    jobs: int = 1,
    redo: bool = False,
    say: Say = print,
    progress: Progress | None = None,
) -> dict[str, str]:
    """Run the rows that are not finished; called again after an interruption it goes on where it stopped.

    A row that fails is left out with those that start from it, and the rest goes on; Ctrl-C ends all, and the trainings
    that it met resume. Several commands may work on one suite in a folder that they share: no row is made twice, and
    one that another has begun is waited for.

    Rows may start from finished ones whose networks are not in the folder, as when these were made on another machine:
    such networks are trained again first, whether their rows were asked for or not. Their finished rows stay as they
    are, and a line for each says what the network has come to beside that.

    Args:
        suite: what is to be run.
        out: folder of all suites; this one's files lie in ``OUT/NAME``.
        only: variants; the others' rows are left alone. Empty: all.
        seeds, splits: in the same way.
        jobs: how many rows are made at a time, in processes of their own if more than one. They are spawned, so a
            script must call this under ``if __name__ == "__main__":``.
        redo: run rows anew that were finished with another configuration, instead of refusing.
        say: takes a line for the user.
        progress: called with (done, total, what) while videos are read, written or judged; of one row at a time only.

    Returns:
        The reason for each row and reference that failed; empty when all that was asked is there.

    Raises:
        UsageError: no such variant, seed or split, no data, or rows of several devices each side by side.
        SuiteError: rows were finished with another configuration, or the file of one is damaged.
    """
    rows = _asked_for(suite, only, seeds, splits)
    folder = SuiteFolder(suite, out)
    maker = Maker(folder, say, progress)
    waiting = _waiting(folder, rows, redo)
    again = _trained_again(folder, waiting, maker.run)
    if any(row.data is None for row in (*rows, *again)):
        raise UsageError(f"{suite.source} leaves its data open; name them with --data DATA")
    if jobs > 1:
        require_one_device((*rows, *again))
    failed = maker.make_references(rows)
    if again:
        say(
            f"trained again, as rows to go need their networks and {folder.path / 'runs'} does not hold them: "
            f"{', '.join(row.name for row in again)}; the finished rows stay as they are"
        )
    to_go = [*again, *waiting]
    say(f"{suite.name}: {len(rows)} rows, {len(rows) - len(waiting)} finished; {_left(folder, to_go, jobs)}")
    with InTurn(maker) if jobs == 1 else Crew(folder, say, jobs=jobs) as makers:
        failed |= _Schedule(folder, to_go, makers, run=maker.run, say=say).carry_out()
    return failed


class Makers(Protocol):
    """Who makes rows: this process, or some others."""

    jobs: int

    @property
    def free(self) -> bool:
        """Whether one more row can be taken."""

    def start(self, row: Row, /) -> None:
        """Take a row."""

    def outcomes(self, seconds: float | None, /) -> Iterator[tuple[Row, Outcome]]:
        """Wait until something ends, at most so long (None: for ever); yields what has ended."""


class InTurn:
    """One row after the other in this process."""

    jobs = 1

    def __init__(self, maker: Maker) -> None:
        self.maker = maker
        self._row: Row | None = None

    def __enter__(self) -> "InTurn":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @property
    def free(self) -> bool:
        """Whether one more row can be taken."""
        return self._row is None

    def start(self, row: Row) -> None:
        """Take a row."""
        self._row = row

    def outcomes(self, seconds: float | None) -> Iterator[tuple[Row, Outcome]]:
        """Make the row, or wait."""
        if self._row is None:
            time.sleep(seconds or 0.0)
            return
        outcome = attempt(partial(self.maker.make, self._row), self.maker.say)
        row, self._row = self._row, None
        yield row, outcome


class _Schedule:
    """Which row is next."""

    def __init__(self, folder: SuiteFolder, waiting: Sequence[Row], makers: Makers, *, run: str, say: Say) -> None:
        self.folder = folder
        self.makers = makers
        self.run = run
        self.say = say
        self.total = len(waiting)
        self.begun = 0
        self.pending = list(waiting)
        # With the finished row of each whose network is made again.
        self.running: dict[Row, Finished | None] = {}
        # What these networks have come to; no file says how long they took here.
        self.again: list[Finished] = []
        # Rows that other processes are at, and when to look at them again.
        self.elsewhere: dict[Row, float] = {}
        self.failed: dict[str, str] = {}

    def carry_out(self) -> dict[str, str]:
        """Make all rows; returns the reason for each that failed."""
        while self.pending or self.running:
            self._start_what_can_be()
            if not self.pending and not self.running:
                break
            for row, (reason, made) in self.makers.outcomes(LOOK_EVERY if self.elsewhere else None):
                record = self.running.pop(row)
                if isinstance(made, Owner):
                    self._put_aside(row, made, row)
                    self.pending.append(row)
                else:
                    self._ended(row, reason, made, record)
        return self.failed

    def _start_what_can_be(self) -> None:
        for row in [*self.pending]:
            if cause := self._failed_before(row):
                self.pending.remove(row)
                self._ended(row, f"it starts from {cause}, which failed", None)
            elif self.makers.free and self._can_start(row):
                self.pending.remove(row)
                if made := self._made_elsewhere(row):
                    self._ended(row, "", made)
                    continue
                self.begun += 1
                self.elsewhere.pop(row, None)
                self.running[row] = record = self.folder.made(row)
                again = ", again" if record is not None else ""
                self.say(f"row {self.begun} of {self.total}: {row.name} on {row.data_name}{again}")
                self.makers.start(row)

    def _failed_before(self, row: Row) -> str | None:
        """A row that has failed and without which this one cannot be made."""
        failed = [before for before in _sources(row) if before.name in self.failed]
        lacking = self.folder.lacks(row) if failed else []
        lacking += [before for before in row.after if failed and self.folder.made(before) is None]
        return next((before.name for before in failed if before in lacking), None)

    def _can_start(self, row: Row) -> bool:
        """Whether all that a row starts from is there, and nobody else is at it."""
        if any(before in self.pending or before in self.running for before in _sources(row)):
            return False
        if self.elsewhere.get(row, 0.0) > time.monotonic():
            return False
        # What it starts from may be no part of what was asked here.
        for needed in (row, *self.folder.lacks(row)):
            if owner := owner_of(self.folder.path, needed.name, run=self.run):
                self._put_aside(row, owner, needed)
                return False
        return True

    def _put_aside(self, row: Row, owner: Owner, needed: Row) -> None:
        if row not in self.elsewhere:
            waits = f" waits for {needed.name}" if needed is not row else ""
            self.say(f"{row.name}{waits}: {owner} is at it")
        self.elsewhere[row] = time.monotonic() + LOOK_EVERY

    def _made_elsewhere(self, row: Row) -> Finished | None:
        """The row, if nothing of it is to be made any more: finished, and its network here or needed by none."""
        made = self.folder.made(row)
        if made is None:
            return None
        users = [other for other in self.pending if row in _sources(other) and self._made_elsewhere(other) is None]
        return None if any(row in self.folder.lacks(other) for other in users) else made

    def _ended(self, row: Row, reason: str, made: Finished | None, record: Finished | None = None) -> None:
        self.elsewhere.pop(row, None)
        if made is None:
            self.failed[row.name] = reason
            what = f" failed: {reason}"
        else:
            figures = _figures_text(made)
            # Another process may have been faster; then this is the row itself.
            if record is not None and made != record:
                self.again.append(made)
                now, then = made.figures["top1"], record.figures["top1"]
                figures = f"made again, top-1 {now:.3f} now, {then:.3f} in its row,"
            what = f": {figures} after {seconds_text(made.cost['seconds'] or 0.0)}"
        left = [*self.running, *self.pending]
        rest = f"; {_left(self.folder, left, self.makers.jobs, self.again)}" if left else ""
        self.say(f"{row.name}{what}{rest}")


def _asked_for(suite: Suite, only: Sequence[str], seeds: Sequence[int], splits: Sequence[str]) -> list[Row]:
    rows = suite.rows()
    known: tuple[tuple[str, Collection[str], Collection[str]], ...] = (
        ("variant", only, suite.variants),
        ("seed", [str(seed) for seed in seeds], [str(seed) for seed in suite.seeds]),
        ("split", splits, [str(split) for split in suite.splits]),
    )
    for kind, asked, there in known:
        for name in asked:
            if name not in there:
                near = difflib.get_close_matches(name, there, n=1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(there)}"
                raise UsageError(f"{suite.source} has no {kind} {name!r}; {hint}")
    return [
        row
        for row in rows
        if (not only or row.variant in only)
        and (not seeds or row.seed in seeds)
        and (not splits or row.split in splits)
    ]


def _waiting(folder: SuiteFolder, rows: Sequence[Row], redo: bool) -> list[Row]:
    """The rows that are not finished; with ``redo`` also those of another configuration, which else are refused."""
    waiting, changed = [], []
    for row in rows:
        finished = folder.finished(row)
        if finished is None:
            waiting.append(row)
        elif different := changes(finished, row):
            waiting.append(row)
            changed.append(f"{row.name} ({'; '.join(different)})")
    if changed and not redo:
        raise SuiteError(
            f"{folder.path}: rows were finished with another configuration than {folder.suite.source} has now: "
            f"{', '.join(changed)}. Give the variant another name, or run these rows anew with --redo"
        )
    return waiting


def _trained_again(folder: SuiteFolder, waiting: Sequence[Row], run: str) -> list[Row]:
    """The finished rows whose networks have to be trained again for those that wait, each after what it starts from.

    None for a row that will fail anyway, as it needs one that is not finished and that nobody makes.
    """
    can_be: set[Row] = set()
    again: dict[Row, None] = {}
    for row in waiting:
        needed = folder.needed(row)
        unfinished = [other for other in needed if folder.made(other) is None]
        if all(other in can_be or owner_of(folder.path, other.name, run=run) for other in unfinished):
            can_be.add(row)
            again |= dict.fromkeys(other for other in needed if other not in unfinished)
    return [*again]


def _sources(row: Row) -> list[Row]:
    """What a row starts from or joins, and what is behind those that join others."""
    return [
        source for before in row.after for source in (before, *(_sources(before) if before.joined is not None else ()))
    ]


def _left(folder: SuiteFolder, waiting: Sequence[Row], jobs: int, again: Sequence[Finished] = ()) -> str:
    """How many rows are to go, and for about how long, judged by what finished rows took on such a machine.

    Beside them by ``again``, what was made again here.
    """
    if not waiting:
        return "none to go"
    here = machine()
    made = [finished for row in folder.suite.rows() if (finished := folder.finished(row)) and finished.machine == here]
    made += again
    # Side by side each takes longer.
    made = [finished for finished in made if finished.cost.get("jobs", 1) == jobs] or made
    count = f"{len(waiting)} to go"
    if not made:
        return f"{count}; for how long is known after the first"
    times: dict[str, list[float]] = {}
    for finished in made:
        times.setdefault(finished.variant, []).append(finished.cost["seconds"] or 0.0)
    all_times = [seconds for of_variant in times.values() for seconds in of_variant]
    takes = {row: fmean(times.get(row.variant, all_times)) for row in waiting}
    return f"{count}, about {seconds_text(_together(takes, jobs))}"


def _together(takes: Mapping[Row, float], jobs: int) -> float:
    """How long rows take side by side; not less than the longest of those that start one from the other."""

    def chain(row: Row) -> float:
        return takes[row] + max((chain(before) for before in _sources(row) if before in takes), default=0.0)

    return max(sum(takes.values()) / jobs, *(chain(row) for row in takes))


def _figures_text(finished: Finished) -> str:
    parts = [f"top-1 {finished.figures['top1']:.3f}"]
    parts += [f"{stream} alone {figures['top1']:.3f}" for stream, figures in finished.streams.items()]
    return ", ".join(parts)
