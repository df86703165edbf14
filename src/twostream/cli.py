"""The command line: finds the command, and turns what it raises into one message and a status.

Exit status: 0 when all that was asked was done, 1 with a list of what was not, 2 for a wrong call, 130 after Ctrl-C.
"""

import difflib
import sys
from collections.abc import Callable, Sequence

from twostream.commands.calibrate import calibrate
from twostream.commands.check import check
from twostream.commands.convert import convert
from twostream.commands.demo import demo
from twostream.commands.evaluate import evaluate
from twostream.commands.explain import explain
from twostream.commands.flow import flow
from twostream.commands.fuse import fuse
from twostream.commands.models import models
from twostream.commands.predict import predict
from twostream.commands.report import report
from twostream.commands.reproduce import reproduce
from twostream.commands.train import train
from twostream.errors import TwostreamError, UsageError
from twostream.version import __version__

Command = Callable[[Sequence[str]], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"twostream {__version__}")
        return 0
    name = arguments[0]
    command = COMMANDS.get(name)
    if command is None:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"the commands are {', '.join(COMMANDS)}"
        print(f"twostream: error: no command {name!r}; {hint}", file=sys.stderr)
        return 2
    try:
        return command(arguments[1:])
    except UsageError as error:
        print(f"twostream {name}: error: {error}", file=sys.stderr)
        return 2
    except TwostreamError as error:
        print(f"twostream {name}: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        how_far = str(stop) or "interrupted; what was finished is kept, the same command goes on from there"
        print(f"\ntwostream {name}: {how_far}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output (head, less) has gone: no error, but nothing more can be said.
        sys.stderr.close()
        return 1


def overview() -> str:
    """The text of `twostream --help`."""
    lines = ["usage: twostream COMMAND ...", "", "Two-stream action recognition in video.", "", "commands:"]
    lines += [f"  {name:<10} {(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items()]
    lines += ["", "`twostream COMMAND --help` tells the options of a command. A first look: twostream demo"]
    return "\n".join(lines)


COMMANDS: dict[str, Command] = {
    command.__name__: command
    for command in (
        demo,
        check,
        flow,
        train,
        evaluate,
        calibrate,
        predict,
        explain,
        fuse,
        reproduce,
        report,
        models,
        convert,
    )
}


if __name__ == "__main__":
    sys.exit(main())
