"""`twostream report`."""

from collections.abc import Sequence

from twostream.commands.parser import Parser


def report(argv: Sequence[str]) -> int:
    """Write one self-contained HTML page about one or several runs."""
    parser = Parser("report", report.__doc__ or "")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders; the others are compared with the first")
    parser.add_argument("--out", default=None, metavar="FILE", help="the page; by default report.html in the first run")
    args = parser.read(argv)
    from twostream import console
    from twostream.reporting.report import write_report

    console.show(str(write_report(args.runs, args.out)))
    return 0
