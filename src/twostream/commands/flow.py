"""`twostream flow`."""

from collections.abc import Sequence
from pathlib import Path

from twostream.commands.parser import Parser, add_data_options, at_least, cores, numbers


def flow(argv: Sequence[str]) -> int:
    """Compute the optical flow of videos into a store; the same command goes on where it was stopped."""
    parser = Parser("flow", flow.__doc__ or "")
    parser.add_argument("data", metavar="DATA", help="a data set, a folder of videos, or a video file")
    parser.add_argument("--out", required=True, metavar="STORE", help="folder of the flow store")
    add_data_options(parser)
    parser.add_argument("--estimator", default="dis", help="dis, tvl1-opencv or farneback")
    parser.add_argument(
        "--parameters",
        default="",
        metavar="A=1,B=2",
        help="of the estimator, by the names `twostream flow` lists on error",
    )
    parser.add_argument("--resize", type=at_least(0), default=256, help="short side in px; 0 keeps each video's own")
    parser.add_argument("--fps", type=float, default=None, help="common frame rate, by which frames are chosen first")
    parser.add_argument(
        "--frames", action="store_true", help="keep the frames too, as JPEG, so that training decodes no video"
    )
    parser.add_argument(
        "--on-error",
        choices=("raise", "truncate"),
        default="raise",
        help="what a damaged video yields: nothing, or the frames before the damage",
    )
    parser.add_argument("--workers", type=at_least(1), default=None, help="processes; by default one per core")
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    args = parser.read(argv)
    from twostream import console
    from twostream.data.preparation import announce, sources_in
    from twostream.flow.extract import extract
    from twostream.flow.store import FlowSettings, FlowStore

    settings = FlowSettings(
        estimator=args.estimator,
        parameters=numbers(args.parameters),
        short_side=args.resize or None,
        fps=args.fps,
        frames=args.frames,
    )
    sources, missing = sources_in(args.data, split=args.split, videos=args.videos, allow_missing=args.allow_missing)
    store = FlowStore(Path(args.out), settings)
    workers = args.workers or cores()
    announce(sources, store, workers=workers, say=console.say)
    with console.progress_bar("flow") as progress:
        summary = extract(sources, store, workers=workers, on_error=args.on_error, progress=progress)
    if args.json:
        console.show_json({**summary.to_dict(), "missing": list(missing)})
    else:
        for line in summary.lines():
            console.show(line)
    return 1 if summary.failed else 0
