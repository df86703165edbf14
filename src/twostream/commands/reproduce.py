"""`twostream reproduce`."""

from collections.abc import Sequence
from pathlib import Path

from twostream.commands.parser import Parser
from twostream.errors import UsageError


def reproduce(argv: Sequence[str]) -> int:
    """Run a suite of variants x seeds x splits row by row, and print its table; resumable."""
    parser = Parser("reproduce", reproduce.__doc__ or "")
    parser.add_argument("suite", metavar="SUITE", help="a YAML file, or the name of a suite of the package")
    parser.add_argument("--out", default="runs/suites", metavar="DIR", help="folder of the rows and their runs")
    parser.add_argument("--data", default=None, metavar="DATA", help="data set, where the suite leaves it open")
    parser.add_argument("--only", default=None, metavar="VARIANT", help="run rows of this variant only")
    parser.add_argument("--table", action="store_true", help="print the table of the finished rows, run nothing")
    parser.add_argument(
        "--redo", action="store_true", help="run rows anew that were finished with another configuration"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    args = parser.read(argv)
    if args.table and (args.only or args.redo):
        raise UsageError("--table runs nothing, so --only and --redo do not go with it")
    from twostream import console
    from twostream.experiments.suite import Suite
    from twostream.experiments.table import table_json, table_markdown

    suite, out = Suite.load(args.suite, data=args.data), Path(args.out)
    failed = {}
    if not args.table:
        from twostream.experiments.run import run_suite

        with console.progress_bar("suite") as progress:
            failed = run_suite(suite, out, only=args.only, redo=args.redo, say=console.say, progress=progress)
    if args.json:
        console.show_json({**table_json(suite, out), "failed": failed})
    else:
        console.show(table_markdown(suite, out))
    for row, reason in failed.items():
        console.say(f"twostream reproduce: {row}: {reason}")
    return 1 if failed else 0
