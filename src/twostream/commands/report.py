"""`twostream report`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twostream.commands.parser import Parser, at_least
from twostream.errors import UsageError

# Seconds after which no other clip of a run is explained.
_BUDGET = 180.0


def report(argv: Sequence[str]) -> int:
    """Write one self-contained HTML page about one or several runs."""
    parser = Parser("report", report.__doc__ or "")
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="run folders; the others are compared with the first, and of runs on several splits the mean is told",
    )
    parser.add_argument("--out", default=None, metavar="FILE", help="the page; by default report.html in the first run")
    parser.add_argument(
        "--explain",
        choices=("gradcam", "integrated_gradients", "attention"),
        help="ask the network first what spoke for its answers in the best and worst clips, or where it looked "
        "(attention: STPN); needs the model, the videos and, but for attention, twostream[explain]; at most three "
        "minutes a run",
    )
    parser.add_argument("--explain-clips", type=at_least(1), default=8, metavar="N", help="how many clips of each run")
    parser.add_argument("--device", default="auto", help="of --explain: auto, cpu, cuda ...")
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    args = parser.read(argv)
    from twostream import console
    from twostream.reporting.report import read_runs, write_report
    from twostream.reporting.splits import over_splits

    unreadable = False
    for run in args.runs if args.explain else ():
        unreadable |= _explain(Path(run), args)
    page = write_report(args.runs, args.out)
    found = over_splits(read_runs(args.runs)) if len(args.runs) > 1 else None
    mean, why_not = (None, found) if isinstance(found, str) else (found, None)
    if args.json:
        told = None if mean is None else mean.to_dict()
        console.show_json({"page": str(page), "mean_of_splits": told, "no_mean": why_not})
    else:
        for line in [why_not] if why_not else mean.lines() if mean else []:
            console.show(line)
        console.show(str(page))
    return 1 if unreadable else 0


def _explain(path: Path, args: Any) -> bool:
    """Explain the clips that the page shows first; whether there are some that could not be read."""
    from twostream import console
    from twostream.evaluation.metrics import predictions
    from twostream.explain import explain_attention, explain_attribution
    from twostream.reporting.clips import telling
    from twostream.reporting.run_files import read_run
    from twostream.runs import RunFolder

    scores = read_run(path, path.name).headline
    if scores is None:
        raise UsageError(f"{path} has no scores, so no best and worst clips; first: twostream evaluate {path}")
    answers = predictions(scores)
    asked = {scores.videos[n]: scores.classes[answers[n]] for n in telling(scores)[: args.explain_clips]}
    common: dict[str, Any] = {
        "part": str(scores.meta.get("part", "test")),
        "protocol": str(scores.meta.get("protocol", "25-step")),
        "device": args.device,
        "say": console.say,
    }
    run = RunFolder.open(path)
    with console.progress_bar("explaining") as progress:
        if args.explain == "attention":
            found: Any = explain_attention(run, names=set(asked), progress=progress, **common)
        else:
            found = explain_attribution(run, args.explain, of=asked, seconds=_BUDGET, progress=progress, **common)
            if found.left:
                console.say(f"{path}: no time for {found.left} of {len(asked)} clips")
    for reason in found.unreadable.values():
        console.say(f"could not be read: {reason}")
    return bool(found.unreadable)
