"""`twostream evaluate`."""

from collections.abc import Sequence

from twostream.commands.parser import Parser, add_precision_option, add_protocol_option, at_least, numbers


def evaluate(argv: Sequence[str]) -> int:
    """Judge a trained model on its test videos, and keep every logit in a scores file."""
    parser = Parser("evaluate", evaluate.__doc__ or "")
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument(
        "--split",
        default=None,
        help="another split of the same data (2, leave-03-of-01-10); refused where it holds training videos",
    )
    parser.add_argument("--part", choices=("test", "val", "train"), default="test", help="which videos")
    add_protocol_option(parser)
    parser.add_argument(
        "--stream-weights",
        default="",
        metavar="A=1,B=2",
        help="weights of the streams' votes, e.g. appearance=1,motion=1.5",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda ...")
    add_precision_option(parser, "; their scores have files of their own")
    parser.add_argument("--workers", type=at_least(0), default=0, help="processes that read videos ahead")
    parser.add_argument(
        "--batch-steps",
        type=at_least(1),
        default=25,
        help="frames, each with its stack of flow, that pass the network at once; one view at least",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    args = parser.read(argv)
    from twostream import console
    from twostream.evaluation.protocols import advice
    from twostream.runs import RunFolder, evaluate_run

    run = RunFolder.open(args.run)
    with console.progress_bar("evaluating") as progress:
        evaluation = evaluate_run(
            run,
            part=args.part,
            split=args.split,
            protocol=args.protocol,
            stream_weights=numbers(args.stream_weights) or None,
            device=args.device,
            precision=args.precision,
            workers=args.workers,
            batch_steps=args.batch_steps,
            say=console.say,
            progress=progress,
        )
    if args.json:
        console.show_json(evaluation.to_dict())
    else:
        for line in evaluation.lines():
            console.show(line)
        if better := advice(args.protocol, run.config()["size"]):
            console.say(better)
    return 1 if evaluation.unreadable else 0
