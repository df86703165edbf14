"""What the commands share: the parser that refuses well, and the kinds of values on a command line."""

import argparse
import difflib
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn, get_args

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
        self._named_later: list[tuple[argparse.Action, str, Callable[[], Iterable[str]]]] = []

    def name_later(self, action: argparse.Action, text: str, names: Callable[[], Iterable[str]]) -> None:
        """Give ``action`` the help ``text``, ``{}`` in it being ``names()``: what a table of the package holds.

        The table is read when help is asked for: it may load torch, which takes longer than all else that a wrong call
        does.
        """
        self._named_later.append((action, text, names))

    def format_help(self) -> str:
        """The text of --help."""
        for action, text, names in self._named_later:
            # To argparse a percent sign begins a place to fill in.
            action.help = text.format(one_of(names()).replace("%", "%%"))
        return super().format_help()

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


def add_protocol_option(parser: Parser, text: str = "{}") -> None:
    """--protocol, with the names of those there are in place of ``{}``."""

    def names() -> Iterable[str]:
        from twostream.evaluation.protocols import PROTOCOLS

        return PROTOCOLS

    parser.name_later(parser.add_argument("--protocol", default="25-step", metavar="NAME"), text, names)


def add_precision_option(parser: Parser, more: str = "") -> None:
    """--precision of the network, ``more`` being what else there is to say of it."""

    def names() -> Iterable[str]:
        from twostream.evaluation.evaluate import Precision

        return get_args(Precision)

    action = parser.add_argument("--precision", default="32-true", metavar="NAME")
    parser.name_later(action, "{}: numbers of 16 bits are faster where the device is built for them" + more, names)


def one_of(names: Iterable[str]) -> str:
    """``a, b or c``."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


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


__all__ = [
    "Parser",
    "add_data_options",
    "add_precision_option",
    "add_protocol_option",
    "at_least",
    "cores",
    "list_of_numbers",
    "numbers",
    "one_of",
]
