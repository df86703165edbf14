"""`twostream demo`."""

from collections.abc import Sequence
from pathlib import Path

from twostream.commands.parser import Parser


def demo(argv: Sequence[str]) -> int:
    """Write videos, train on them, evaluate, predict and open a page: the whole way in three minutes."""
    parser = Parser("demo", demo.__doc__ or "")
    parser.add_argument("--out", default="runs/demo", help="folder that everything is written to")
    parser.add_argument(
        "--short", action="store_true", help="a few videos and two epochs: does it run, not what it learns"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the videos and the training")
    args = parser.read(argv)
    from twostream import console
    from twostream.demo import run_demo

    with console.progress_bar("demo") as progress:
        run_demo(Path(args.out), short=args.short, seed=args.seed, say=console.say, progress=progress)
    return 0
