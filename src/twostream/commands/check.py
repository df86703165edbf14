"""`twostream check`."""

from collections.abc import Sequence

from twostream.commands.parser import Parser, add_data_options, at_least, cores


def check(argv: Sequence[str]) -> int:
    """Read every video of a data set, or single files, and say what is wrong with them."""
    parser = Parser("check", check.__doc__ or "")
    parser.add_argument("data", nargs="+", metavar="DATA", help="a data set, a folder of videos, or video files")
    add_data_options(parser)
    parser.add_argument("--workers", type=at_least(1), default=None, help="processes; by default one per core")
    parser.add_argument(
        "--shortest", type=at_least(1), default=11, help="frames that a clip needs (11: one flow stack)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    args = parser.read(argv)
    from twostream import console
    from twostream.data.check import check as check_data

    with console.progress_bar("reading") as progress:
        report = check_data(
            args.data[0] if len(args.data) == 1 else args.data,
            split=args.split,
            videos=args.videos,
            allow_missing=args.allow_missing,
            workers=args.workers or cores(),
            shortest=args.shortest,
            progress=progress,
        )
    if args.json:
        console.show_json(report.to_dict())
    else:
        for line in report.lines():
            console.show(line)
    return 0 if report.ok else 1
