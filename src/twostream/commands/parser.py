"""What the commands share: the parser that refuses well, and the kinds of values on a command line."""

import argparse
import difflib
import os
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from twostream.errors import UsageError


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Tells defaults, but not that an option which nobody gave is not given."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        nothing = action.default is None or action.default is False or action.default == ""
        return action.help if nothing else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """argparse with one message for a wrong call, and the nearest option where one was mistyped."""

    def __init__(self, command: str, description: str, **kwargs: Any) -> None:
        super().__init__(
            prog=f"twostream {command}",
            description=description,
            formatter_class=_Help,
            allow_abbrev=False,
            **kwargs,
        )

    def read(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse; an unknown option is named with the nearest known one."""
        parsed, unknown = self.parse_known_args(argv)
        if unknown:
            known = [option for action in self._actions for option in action.option_strings]
            near = difflib.get_close_matches(unknown[0].split("=")[0], known, n=1)
            self.error(f"unknown: {' '.join(unknown)}" + (f"; did you mean {near[0]}?" if near else ""))
        return parsed

    def error(self, message: str) -> NoReturn:
        """One message, and status 2."""
        raise UsageError(f"{message} (options: {self.prog} --help)")


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """The options of every command that opens a data set."""
    parser.add_argument(
        "--split", default="1", help="number of the official split, or leave-03-of-01-10: group 3 of those from 1 to 10"
    )
    parser.add_argument(
        "--videos", default=None, metavar="DIR", help="folder of the videos, where it is not beside the lists"
    )
    parser.add_argument(
        "--allow-missing", action="store_true", help="go on without videos that the lists name but the disk lacks"
    )


def at_least(lowest: int) -> Callable[[str], int]:
    """The type of an option that is a whole number from ``lowest`` on."""

    def whole_number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = lowest - 1
        if value < lowest:
            raise argparse.ArgumentTypeError(f"a whole number of at least {lowest} is wanted, got {text!r}")
        return value

    return whole_number


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def numbers(text: str) -> dict[str, float]:
    """``a=1,b=2.5`` to a dictionary."""
    numbers = {}
    for entry in filter(None, text.split(",")):
        name, equals, value = entry.partition("=")
        try:
            numbers[name.strip()] = float(value)
        except ValueError:
            raise UsageError(f"{text!r} is not of the form name=number,name=number") from None
        if not equals:
            raise UsageError(f"{text!r} is not of the form name=number,name=number")
    return numbers


def list_of_numbers(text: str) -> list[float]:
    """``1,1.5`` to a list."""
    try:
        return [float(entry) for entry in text.split(",")] if text else []
    except ValueError:
        raise UsageError(f"{text!r} is not of the form number,number") from None


__all__ = ["Parser", "add_data_options", "at_least", "cores", "list_of_numbers", "numbers"]
