"""`twostream fuse`."""

from collections.abc import Sequence
from pathlib import Path

from twostream.commands.parser import Parser, list_of_numbers
from twostream.errors import UsageError


def fuse(argv: Sequence[str]) -> int:
    """Join scores files with given weights, or with weights found on validation scores."""
    parser = Parser(
        "fuse", "Join the scores of several models, or the streams of one, with weights given or found on validation."
    )
    parser.add_argument(
        "scores",
        nargs="+",
        metavar="SCORES",
        help="scores files of the same videos, other people's CSV and NPZ too; one: its streams",
    )
    parser.add_argument("--weights", default="", metavar="1,1.5", help="one number a file, or a stream; default equal")
    parser.add_argument("--search", nargs="+", metavar="VAL", help="validation scores of the same models, in order")
    parser.add_argument("--by", choices=("log_loss", "accuracy"), default="log_loss", help="what a search looks for")
    parser.add_argument("--order", choices=("softmax", "logits"), default=None, help="what is averaged")
    parser.add_argument(
        "--allow-judged-videos",
        action="store_true",
        help="accept a search on the judged videos; the result is optimistic",
    )
    parser.add_argument(
        "--outside",
        choices=("logits", "probabilities", "margins"),
        default=None,
        help="what the numbers in other people's files are; where not given, rows in 0..1 that sum to 1 are taken for "
        "probabilities, others for logits",
    )
    parser.add_argument("--out", metavar="FILE", help="write the fused scores")
    parser.add_argument(
        "--csv", metavar="FILE", help="write the merged probabilities as a table: video,label,<class 1>,<class 2>,..."
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    args = parser.read(argv)
    if args.weights and args.search:
        raise UsageError("either --weights or --search")
    inputs = {Path(file).resolve() for file in (*args.scores, *(args.search or ()))}
    for option in ("out", "csv"):
        target = getattr(args, option)
        if target and Path(target).resolve() in inputs:
            raise UsageError(f"--{option} {target}: would replace scores that the fusion is made of; name a new file")
    from twostream import console
    from twostream.evaluation.fusion_command import fuse_files
    from twostream.evaluation.score_tables import write_table

    result = fuse_files(
        args.scores,
        weights=list_of_numbers(args.weights) or None,
        search=args.search,
        by=args.by,
        order=args.order,
        allow_judged_videos=args.allow_judged_videos,
        outside=args.outside,
        alone=bool(args.csv),
    )
    if args.out:
        result.scores.save(args.out)
    if args.csv:
        write_table(args.csv, result.scores)
    if args.json:
        console.show_json(result.to_dict(args.out))
    else:
        for line in result.lines():
            console.show(line)
    return 0
