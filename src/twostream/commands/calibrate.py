"""`twostream calibrate`."""

from collections.abc import Sequence

from twostream.commands.parser import Parser, add_protocol_option, at_least


def calibrate(argv: Sequence[str]) -> int:
    """Make a model's scores mean something: fit a temperature on its validation videos, keep it in the model."""
    parser = Parser("calibrate", calibrate.__doc__ or "")
    parser.add_argument("run", metavar="RUN", help="a run folder")
    add_protocol_option(parser, "{}; the temperature holds for this one")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda ...")
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
    from twostream.run_calibration import calibrate_run
    from twostream.runs import RunFolder

    with console.progress_bar("calibrating") as progress:
        found = calibrate_run(
            RunFolder.open(args.run),
            protocol=args.protocol,
            device=args.device,
            workers=args.workers,
            batch_steps=args.batch_steps,
            say=console.say,
            progress=progress,
        )
    if args.json:
        console.show_json(found.to_dict())
    else:
        for line in found.lines():
            console.show(line)
    return 1 if found.unreadable else 0
