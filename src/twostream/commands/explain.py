"""`twostream explain`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twostream.commands.parser import Parser, add_protocol_option, at_least
from twostream.errors import TwostreamError, UsageError


def explain(argv: Sequence[str]) -> int:
    """Show what in the frames and in the flow spoke for an answer, or where attention lay."""
    parser = Parser("explain", explain.__doc__ or "")
    parser.add_argument("run", metavar="RUN", help="a run folder; with VIDEO also the model folder in it")
    parser.add_argument(
        "videos", nargs="*", metavar="VIDEO", help="new video files; without any, the run's own test videos"
    )
    parser.add_argument(
        "--method",
        choices=("gradcam", "integrated_gradients", "attention"),
        default="gradcam",
        help="gradcam: coarse and quick; integrated_gradients: fine, and adds up to the logit (both need "
        "twostream[explain]); attention: STPN's own",
    )
    parser.add_argument("--class", dest="label", metavar="NAME", help="the class asked about; by default the answer")
    parser.add_argument("--moments", type=at_least(1), default=4, help="of each video, spread evenly")
    parser.add_argument(
        "--out", metavar="DIR", help="folder of arrays (.npz) and, with VIDEO, pictures (.png); by default RUN/explain"
    )
    parser.add_argument("--part", choices=("train", "val", "test"), default="test", help="whose videos, without VIDEO")
    parser.add_argument("--limit", type=at_least(1), metavar="N", help="at most so many of them, spread evenly")
    add_protocol_option(parser, "{}: says whether the whole frame is seen or its centre")
    parser.add_argument(
        "--path-steps", type=at_least(1), default=32, metavar="N", help="points of integrated gradients"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda ...")
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    args = parser.read(argv)
    if args.method == "attention" and args.label:
        raise UsageError("--class goes with gradcam and integrated_gradients; attention is of no class")
    if args.videos and args.limit:
        raise UsageError("--limit is for the run's own videos; leave it out, or the VIDEOs")
    return _new_videos(args) if args.videos else _run_videos(args)


def _run_videos(args: Any) -> int:
    from twostream import console
    from twostream.explain import explain_attention, explain_attribution
    from twostream.runs import RunFolder

    run = RunFolder.open(args.run)
    common = {
        "part": args.part,
        "protocol": args.protocol,
        "moments": args.moments,
        "videos": args.limit,
        "out": None if args.out is None else Path(args.out),
        "device": args.device,
        "say": console.say,
    }
    with console.progress_bar("explaining") as progress:
        if args.method == "attention":
            found: Any = explain_attention(run, progress=progress, **common)
        else:
            found = explain_attribution(
                run, args.method, label=args.label, path_steps=args.path_steps, progress=progress, **common
            )
    if args.json:
        console.show_json(found.to_dict())
    else:
        for line in found.lines():
            console.show(line)
        if args.out is None:
            console.show(f"next: twostream report {args.run}")
    return 1 if found.unreadable else 0


def _new_videos(args: Any) -> int:
    from twostream import console
    from twostream.checkpoint import load_model
    from twostream.explain.new_videos import VideoExplainer, file_names
    from twostream.reporting.contact_sheet import write_sheet

    loaded = load_model(args.run)
    explainer = VideoExplainer(
        loaded,
        args.method,
        label=args.label,
        protocol=args.protocol,
        moments=args.moments,
        path_steps=args.path_steps,
        device=args.device,
    )
    folder = Path(args.run) / "explain" if args.out is None else Path(args.out)
    documents: list[dict[str, Any]] = []
    failed: list[str] = []
    with console.progress_bar("explaining") as progress:
        for n, (video, name) in enumerate(zip(args.videos, file_names(args.videos, args.method), strict=True), 1):
            picture = folder / f"{name}.png"
            try:
                found = explainer.explain(video, folder / f"{name}.npz")
                write_sheet(
                    picture,
                    found.video,
                    found.found,
                    found.classes,
                    title="; ".join(found.lines()[:1]),
                    flow=found.flow,
                )
            except UsageError:
                raise
            except TwostreamError as error:
                failed.append(str(error))
                documents.append({"video": video, "error": str(error)})
                continue
            documents.append(found.to_dict() | {"picture": str(picture)})
            if not args.json:
                for line in [*found.lines(), f"  {picture}"]:
                    console.show(line)
            progress(n, len(args.videos), video)
    if args.json:
        console.show_json(documents)
    for reason in failed:
        console.say(f"twostream explain: {reason}")
    return 1 if failed else 0
