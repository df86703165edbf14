"""`twostream predict`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twostream.commands.parser import Parser, add_precision_option, add_protocol_option, at_least
from twostream.errors import UsageError


def predict(argv: Sequence[str]) -> int:
    """Label videos: the best classes, and with --timeline what happens when."""
    parser = Parser("predict", predict.__doc__ or "")
    parser.add_argument("run", metavar="RUN", help="a run folder, or the model folder in it")
    parser.add_argument(
        "videos", nargs="+", metavar="VIDEO", help="video files (after -- where a name begins with a dash)"
    )
    parser.add_argument("--top", type=at_least(1), default=5, metavar="K", help="how many classes to print")
    add_protocol_option(parser)
    parser.add_argument("--timeline", action="store_true", help="slide over the video and print segments")
    parser.add_argument("--window", type=float, default=None, help="seconds that one window of the timeline sees")
    parser.add_argument("--stride", type=float, default=None, help="seconds between windows of the timeline")
    parser.add_argument("--min-score", type=float, default=None, help="below this score the timeline says nothing")
    parser.add_argument(
        "--min-length", type=float, default=1.0, help="seconds; shorter segments of the timeline are flicker"
    )
    parser.add_argument(
        "--unknown",
        type=float,
        default=0.0,
        metavar="C",
        help="where the best class does not reach this score the label is unknown, of the video and of each stretch of "
        "the timeline, where the higher of this and --min-score counts; `twostream calibrate` shows which to take",
    )
    parser.add_argument("--overlay", metavar="FILE", help="write the video with its labels (one VIDEO only)")
    parser.add_argument(
        "--attention",
        nargs="?",
        type=float,
        const=0.5,
        metavar="SECONDS",
        help="lay over the overlay's frames where the network looked (STPN): orange is up to four times an even share, "
        "blue down to a quarter; every so many seconds, 0.5 where none are named",
    )
    parser.add_argument("--csv", metavar="FILE", help="write the timeline as CSV")
    parser.add_argument("--srt", metavar="FILE", help="write the timeline as subtitles (one VIDEO only)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda ...")
    add_precision_option(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    args = parser.read(argv)
    for option in ("overlay", "srt"):
        if getattr(args, option) and len(args.videos) > 1:
            raise UsageError(f"--{option} names one file, so it goes with one VIDEO; {len(args.videos)} were given")
    if (args.csv or args.srt) and not args.timeline:
        raise UsageError("--csv and --srt write the timeline: add --timeline")
    if args.attention is not None and not args.overlay:
        raise UsageError("--attention is drawn into the overlay: add --overlay FILE")
    # Found before the work is done, not after it.
    if args.overlay and Path(args.overlay).suffix.lower() != ".mp4":
        raise UsageError(f"--overlay {args.overlay}: the name must end in .mp4")
    for option in ("overlay", "csv", "srt"):
        target = getattr(args, option)
        if target and (Path(target).is_dir() or Path(target).resolve() in {Path(v).resolve() for v in args.videos}):
            raise UsageError(f"--{option} {target}: a folder or one of the videos; name a new file")
    from twostream import console
    from twostream.clip import ScoresError
    from twostream.prediction import Prediction, PredictionError, Predictor, write_csv, write_overlay, write_srt
    from twostream.video import VideoError

    predictor = Predictor.load(args.run, device=args.device, precision=args.precision)
    chosen = {
        name: getattr(args, name)
        for name in ("window", "stride", "min_score", "min_length", "unknown", "attention")
        if getattr(args, name) is not None
    }
    answers: list[Prediction] = []
    documents: list[dict[str, Any]] = []
    failed: list[str] = []
    for video in args.videos:
        try:
            with console.progress_bar("predicting") as progress:
                answer = predictor.predict(
                    video, top=args.top, protocol=args.protocol, timeline=args.timeline, progress=progress, **chosen
                )
        except (VideoError, PredictionError, ScoresError) as error:
            failed.append(str(error))
            documents.append({"video": video, "error": str(error)})
            continue
        answers.append(answer)
        documents.append(answer.to_dict())
        if not args.json:
            for line in answer.lines():
                console.show(line)
    if args.overlay and answers:
        with console.progress_bar("overlay") as progress:
            write_overlay(args.videos[0], answers[0], args.overlay, progress=progress)
    if args.csv:
        write_csv(args.csv, answers)
    if args.srt and answers:
        write_srt(args.srt, answers[0])
    if args.json:
        console.show_json(documents)
    if args.unknown > 0 and any(not answer.calibrated for answer in answers):
        console.say(
            f"note: scores under {args.protocol} are not calibrated, so {args.unknown:g} stands for no share of right "
            f"answers; do it once: twostream calibrate {args.run} --protocol {args.protocol}"
        )
    for reason in failed:
        console.say(f"twostream predict: {reason}")
    return 1 if failed else 0
