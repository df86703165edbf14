"""`twostream models`."""

from collections.abc import Sequence

from twostream.commands.parser import Parser, at_least


def models(argv: Sequence[str]) -> int:
    """List the models by name, with their parameters and what they are."""
    parser = Parser("models", models.__doc__ or "")
    parser.add_argument("--classes", type=at_least(2), default=101, help="classes that parameters are counted for")
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    args = parser.read(argv)
    from twostream import console
    from twostream.models import describe_models

    rows = describe_models(args.classes)
    if args.json:
        console.show_json([row._asdict() for row in rows])
    else:
        width = max(len(row.name) for row in rows)
        for row in rows:
            console.show(f"{row.name:<{width}}  {row.parameters / 1e6:6.1f} M  {row.summary}")
    return 0
