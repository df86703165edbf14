"""The terminal: notes and progress on standard error, results on standard output, one JSON document where asked."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

_ERRORS = Console(stderr=True, highlight=False, soft_wrap=True)
_RESULTS = Console(highlight=False, soft_wrap=True)


def say(line: str) -> None:
    """A note for the user, on standard error."""
    _ERRORS.print(line, markup=False)


def show(line: str) -> None:
    """A result, on standard output."""
    _RESULTS.print(line, markup=False)


def show_table(table: Table) -> None:
    """A table of results, on standard output."""
    # A pipe has no width; a table must not be folded there.
    Console(highlight=False, width=None if _RESULTS.is_terminal else 160).print(table)


def show_json(document: Any) -> None:
    """One JSON document, alone on standard output."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int, str], None]]:
    """A bar on a terminal, a line every tenth of the way elsewhere; yields the callback that long jobs take."""
    if not _ERRORS.is_terminal:
        yield _tenths(title)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[what]}"),
    )
    with Progress(*columns, console=_ERRORS, transient=True) as bar:
        task = bar.add_task(title, total=None, what="")

        def update(done: int, total: int, what: str) -> None:
            bar.update(task, completed=done, total=total, what=what[-40:])

        yield update


def _tenths(title: str) -> Callable[[int, int, str], None]:
    said = 0

    def update(done: int, total: int, what: str) -> None:
        nonlocal said
        del what
        tenth = 10 * done // max(1, total)
        if tenth > said:
            said = tenth
            say(f"{title}: {done}/{total}")

    return update
