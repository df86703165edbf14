"""`twostream reproduce`."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from twostream.commands.parser import Parser, at_least
from twostream.errors import UsageError


def reproduce(argv: Sequence[str]) -> int:
    """Run a suite of variants x seeds x splits row by row, and print its table and claims; resumable."""
    parser = Parser("reproduce", reproduce.__doc__ or "")
    suite_option = parser.add_argument("suite", metavar="SUITE")
    parser.name_later(suite_option, "a YAML file, or the name of a suite of the package: {}", _suites)
    parser.add_argument("--out", default="runs/suites", metavar="DIR", help="folder of the rows and their runs")
    parser.add_argument("--data", default=None, metavar="DATA", help="data set, where the suite leaves it open")
    parser.add_argument("--only", default="", metavar="VARIANT,...", help="run rows of these variants only")
    parser.add_argument("--seeds", default="", metavar="SEED,...", help="run rows of these seeds only")
    parser.add_argument("--splits", default="", metavar="SPLIT,...", help="run rows of these splits only")
    parser.add_argument("--tier", default=None, metavar="NAME", help="run rows of this part of the suite only")
    parser.add_argument(
        "--jobs",
        type=at_least(1),
        default=1,
        metavar="N",
        help="rows made at a time, which share the cores and have one GPU each",
    )
    parser.add_argument("--table", action="store_true", help="print the table of the finished rows, run nothing")
    parser.add_argument(
        "--redo", action="store_true", help="run rows anew that were finished with another configuration"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="train nothing: read all lists, open all clips, pass them through every network, save and load it",
    )
    parser.add_argument(
        "--limit-clips",
        type=at_least(1),
        default=None,
        metavar="N",
        help="with --dry-run: so many of the clips go through each network's whole protocol; all by default",
    )
    parser.add_argument(
        "--store", default=None, metavar="DIR", help="with --dry-run: keep the flow there; it is removed by default"
    )
    parser.add_argument("--html", default=None, metavar="FILE", help="write table and claims as one page too")
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    args = parser.read(argv)
    chosen = args.only or args.seeds or args.splits or args.tier
    if args.table and (chosen or args.redo or args.jobs > 1):
        raise UsageError(
            "--table runs nothing, so --only, --seeds, --splits, --tier, --jobs and --redo do not go with it"
        )
    if args.dry_run and (chosen or args.redo or args.table or args.html or args.jobs > 1):
        raise UsageError(
            "--dry-run tries the whole suite and runs nothing; only --limit-clips, --store and --json go with it"
        )
    if not args.dry_run and (args.limit_clips or args.store):
        raise UsageError("--limit-clips and --store go with --dry-run")
    only, seeds, splits = _list(args.only), _seeds(args.seeds), _list(args.splits)
    from twostream import console
    from twostream.experiments.markdown import table_markdown
    from twostream.experiments.suite import Suite
    from twostream.experiments.table import make_table, table_json
    from twostream.experiments.tiers import tier_of
    from twostream.files import check_writable

    suite, out = Suite.load(args.suite, data=args.data), Path(args.out)
    if args.tier:
        if only or seeds:
            raise UsageError("--tier chooses variants and seeds, so --only and --seeds do not go with it")
        tier = tier_of(suite.tiers, args.tier, suite.source)
        only, seeds = [name for name in suite.variants if name not in tier.without], list(tier.seeds)
    if args.dry_run:
        return _dry_run(suite, args)
    if args.html:
        # Before a night's work, not after it.
        check_writable(args.html)
    failed = {}
    if not args.table:
        from twostream.experiments.run import run_suite

        with console.progress_bar("suite") as progress:
            failed = run_suite(
                suite,
                out,
                only=only,
                seeds=seeds,
                splits=splits,
                jobs=args.jobs,
                redo=args.redo,
                say=console.say,
                progress=progress,
            )
    table = make_table(suite, out)
    if args.html:
        from twostream.experiments.table_page import write_table_page

        write_table_page(table, Path(args.html))
        console.say(f"page: {args.html}")
    if args.json:
        console.show_json({**table_json(table), "failed": failed})
    else:
        console.show(table_markdown(table))
    for row, reason in failed.items():
        console.say(f"twostream reproduce: {row}: {reason}")
    return 1 if failed else 0


def _suites() -> Iterable[str]:
    from twostream.experiments.suite import shipped_suites

    return shipped_suites()


def _dry_run(suite: Any, args: Any) -> int:
    from twostream import console
    from twostream.experiments.dry_run import dry_run

    with console.progress_bar("dry run") as progress:
        found = dry_run(
            suite,
            store=Path(args.store) if args.store else None,
            limit_clips=args.limit_clips,
            say=console.say,
            progress=progress,
        )
    if args.json:
        console.show_json(found.to_dict())
    else:
        for line in found.lines():
            console.show(line)
    return 0 if found.ok else 1


def _list(text: str) -> list[str]:
    return [entry.strip() for entry in text.split(",") if entry.strip()]


def _seeds(text: str) -> list[int]:
    try:
        return [int(entry) for entry in _list(text)]
    except ValueError:
        raise UsageError(f"--seeds are whole numbers, as 0,1,2; got {text!r}") from None
