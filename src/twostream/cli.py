"""The command line: one function a command, each importing what it needs when it is called.

Exit status: 0 when all that was asked was done, 1 with a list of what was not, 2 for a wrong call, 130 after Ctrl-C.
"""

import argparse
import dataclasses
import difflib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from twostream.errors import TwostreamError, UsageError
from twostream.version import __version__

if TYPE_CHECKING:
    from twostream.training.config import TrainConfig

Command = Callable[[Sequence[str]], int]


class Parser(argparse.ArgumentParser):
    """argparse with one message for a wrong call, and the nearest option where one was mistyped."""

    def __init__(self, command: str, description: str, **kwargs: Any) -> None:
        super().__init__(
            prog=f"twostream {command}",
            description=description,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
            allow_abbrev=False,
            **kwargs,
        )

    def read(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse; an unknown option is named with the nearest known one."""
        parsed, unknown = self.parse_known_args(argv)
        if unknown:
            known = [option for action in self._actions for option in action.option_strings]
            near = difflib.get_close_matches(unknown[0].split("=")[0], known, n=1)
            self.error(f"unknown: {' '.join(unknown)}" + (f"; did you mean {near[0]}?" if near else ""))
        return parsed

    def error(self, message: str) -> NoReturn:
        """One message, and status 2."""
        raise UsageError(f"{message} (options: {self.prog} --help)")


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


def check(argv: Sequence[str]) -> int:
    """Read every video of a data set, or single files, and say what is wrong with them."""
    parser = Parser("check", check.__doc__ or "")
    parser.add_argument("data", nargs="+", metavar="DATA", help="a data set, a folder of videos, or video files")
    _add_data_options(parser)
    parser.add_argument("--workers", type=_at_least(1), default=None, help="processes; by default one per core")
    parser.add_argument(
        "--shortest", type=_at_least(1), default=11, help="frames that a clip needs (11: one flow stack)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    args = parser.read(argv)
    from twostream import console
    from twostream.data.check import check as check_data

    with console.progress_bar("reading") as progress:
        report = check_data(
            args.data[0] if len(args.data) == 1 else args.data,
            split=args.split,
            videos=args.videos,
            allow_missing=args.allow_missing,
            workers=args.workers or _cores(),
            shortest=args.shortest,
            progress=progress,
        )
    if args.json:
        console.show_json(report.to_dict())
    else:
        for line in report.lines():
            console.show(line)
    return 0 if report.ok else 1


def flow(argv: Sequence[str]) -> int:
    """Compute the optical flow of videos into a store; the same command goes on where it was stopped."""
    parser = Parser("flow", flow.__doc__ or "")
    parser.add_argument("data", metavar="DATA", help="a data set, a folder of videos, or a video file")
    parser.add_argument("--out", required=True, metavar="STORE", help="folder of the flow store")
    _add_data_options(parser)
    parser.add_argument("--estimator", default="dis", help="dis, tvl1-opencv or farneback")
    parser.add_argument(
        "--parameters",
        default="",
        metavar="A=1,B=2",
        help="of the estimator, by the names `twostream flow` lists on error",
    )
    parser.add_argument("--resize", type=_at_least(0), default=256, help="short side in px; 0 keeps each video's own")
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
    parser.add_argument("--workers", type=_at_least(1), default=None, help="processes; by default one per core")
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    args = parser.read(argv)
    from twostream import console
    from twostream.data.preparation import announce, sources_in
    from twostream.flow.extract import extract
    from twostream.flow.store import FlowSettings, FlowStore

    settings = FlowSettings(
        estimator=args.estimator,
        parameters=_numbers(args.parameters),
        short_side=args.resize or None,
        fps=args.fps,
        frames=args.frames,
    )
    sources, missing = sources_in(args.data, split=args.split, videos=args.videos, allow_missing=args.allow_missing)
    store = FlowStore(Path(args.out), settings)
    workers = args.workers or _cores()
    announce(sources, store, workers=workers, say=console.say)
    with console.progress_bar("flow") as progress:
        summary = extract(sources, store, workers=workers, on_error=args.on_error, progress=progress)
    if args.json:
        console.show_json({**summary.to_dict(), "missing": list(missing)})
    else:
        for line in summary.lines():
            console.show(line)
    return 1 if summary.failed else 0


def train(argv: Sequence[str]) -> int:
    """Train a model into a run folder; the same command goes on where it was stopped."""
    config = parse_train(argv)
    from twostream import console
    from twostream.training.run import train as train_run

    with console.progress_bar("videos") as progress:
        result = train_run(config, say=console.say, progress=progress)
    console.show(f"next: twostream evaluate {result.run.path}")
    return 0


def parse_train(argv: Sequence[str]) -> "TrainConfig":
    """The configuration that words of the command line and YAML files give together."""
    from jsonargparse import ArgumentParser

    from twostream.training.config import TrainConfig

    parser = ArgumentParser(
        prog="twostream train",
        usage="twostream train --data DATA --out RUN [--config FILE] [options]",
        description=train.__doc__,
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="config", help="YAML with any of the options; later options win")
    parser.add_class_arguments(TrainConfig, None)
    try:
        values = dict(parser.instantiate(parser.parse_args(_as_declared(argv, TrainConfig))))
    except argparse.ArgumentError as error:
        known = [option for action in parser._actions for option in action.option_strings]
        raise UsageError(f"{_nearest(str(error), known)} (options: twostream train --help)") from error
    values.pop("config")
    return TrainConfig(**values)


def evaluate(argv: Sequence[str]) -> int:
    """Judge a trained model on its test videos, and keep every logit in a scores file."""
    parser = Parser("evaluate", evaluate.__doc__ or "")
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument(
        "--split", default=None, help="another split of the same data; refused where it holds training videos"
    )
    parser.add_argument("--part", choices=("test", "val", "train"), default="test", help="which videos")
    parser.add_argument("--protocol", default="25-step", help="1-view, 25-step, 25x10 or 10x3")
    parser.add_argument(
        "--stream-weights",
        default="",
        metavar="A=1,B=2",
        help="weights of the streams' votes, e.g. appearance=1,motion=1.5",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda ...")
    parser.add_argument("--workers", type=_at_least(0), default=0, help="processes that read videos ahead")
    parser.add_argument("--batch-views", type=_at_least(1), default=25, help="views that pass the network at once")
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    args = parser.read(argv)
    from twostream import console
    from twostream.runs import RunFolder, evaluate_run

    with console.progress_bar("evaluating") as progress:
        evaluation = evaluate_run(
            RunFolder.open(args.run),
            part=args.part,
            split=args.split,
            protocol=args.protocol,
            stream_weights=_numbers(args.stream_weights) or None,
            device=args.device,
            workers=args.workers,
            batch_views=args.batch_views,
            say=console.say,
            progress=progress,
        )
    if args.json:
        console.show_json(evaluation.to_dict())
    else:
        for line in evaluation.lines():
            console.show(line)
    return 1 if evaluation.unreadable else 0


def predict(argv: Sequence[str]) -> int:
    """Label videos: the best classes, and with --timeline what happens when."""
    parser = Parser("predict", predict.__doc__ or "")
    parser.add_argument("run", metavar="RUN", help="a run folder, or the model folder in it")
    parser.add_argument(
        "videos", nargs="+", metavar="VIDEO", help="video files (after -- where a name begins with a dash)"
    )
    parser.add_argument("--top", type=_at_least(1), default=5, metavar="K", help="how many classes to print")
    parser.add_argument("--protocol", default="25-step", help="1-view, 25-step, 25x10 or 10x3")
    parser.add_argument("--timeline", action="store_true", help="slide over the video and print segments")
    parser.add_argument("--window", type=float, default=None, help="seconds that one window of the timeline sees")
    parser.add_argument("--stride", type=float, default=None, help="seconds between windows of the timeline")
    parser.add_argument("--min-score", type=float, default=None, help="below this score the timeline says nothing")
    parser.add_argument(
        "--min-length", type=float, default=1.0, help="seconds; shorter segments of the timeline are flicker"
    )
    parser.add_argument("--overlay", metavar="FILE", help="write the video with its labels (one VIDEO only)")
    parser.add_argument("--csv", metavar="FILE", help="write the timeline as CSV")
    parser.add_argument("--srt", metavar="FILE", help="write the timeline as subtitles (one VIDEO only)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda ...")
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    args = parser.read(argv)
    for option in ("overlay", "srt"):
        if getattr(args, option) and len(args.videos) > 1:
            raise UsageError(f"--{option} names one file, so it goes with one VIDEO; {len(args.videos)} were given")
    if (args.csv or args.srt) and not args.timeline:
        raise UsageError("--csv and --srt write the timeline: add --timeline")
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

    predictor = Predictor.load(args.run, device=args.device)
    chosen = {
        name: getattr(args, name)
        for name in ("window", "stride", "min_score", "min_length")
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
    for reason in failed:
        console.say(f"twostream predict: {reason}")
    return 1 if failed else 0


def fuse(argv: Sequence[str]) -> int:
    """Join scores files with given weights, or with weights found on validation scores."""
    parser = Parser(
        "fuse", "Join the scores of several models, or the streams of one, with weights given or found on validation."
    )
    parser.add_argument("scores", nargs="+", metavar="SCORES", help="scores files of the same videos; one: its streams")
    parser.add_argument("--weights", default="", metavar="1,1.5", help="one number a file, or a stream; default equal")
    parser.add_argument("--search", nargs="+", metavar="VAL", help="validation scores of the same models, in order")
    parser.add_argument("--by", choices=("log_loss", "accuracy"), default="log_loss", help="what a search looks for")
    parser.add_argument("--order", choices=("softmax", "logits"), default=None, help="what is averaged")
    parser.add_argument(
        "--allow-judged-videos",
        action="store_true",
        help="accept a search on the judged videos; the result is optimistic",
    )
    parser.add_argument("--out", metavar="FILE", help="write the fused scores")
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    args = parser.read(argv)
    if args.weights and args.search:
        raise UsageError("either --weights or --search")
    from twostream import console
    from twostream.evaluation.fusion_command import fuse_files

    result = fuse_files(
        args.scores,
        weights=_list_of_numbers(args.weights) or None,
        search=args.search,
        by=args.by,
        order=args.order,
        allow_judged_videos=args.allow_judged_videos,
    )
    if args.out:
        result.scores.save(args.out)
    if args.json:
        console.show_json(result.to_dict(args.out))
    else:
        for line in result.lines():
            console.show(line)
    return 0


def reproduce(argv: Sequence[str]) -> int:
    """Run a suite of variants x seeds x splits row by row, and print its table; resumable."""
    parser = Parser("reproduce", reproduce.__doc__ or "")
    parser.add_argument("suite", metavar="SUITE", help="a YAML file, or the name of a suite of the package")
    parser.add_argument("--out", default="runs/suites", metavar="DIR", help="folder of the rows and their runs")
    parser.add_argument("--data", default=None, metavar="DATA", help="data set, where the suite leaves it open")
    parser.add_argument("--only", default=None, metavar="VARIANT", help="run rows of this variant only")
    parser.add_argument("--table", action="store_true", help="print the table of the finished rows, run nothing")
    parser.add_argument(
        "--redo", action="store_true", help="run rows anew that were finished with another configuration"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    args = parser.read(argv)
    if args.table and (args.only or args.redo):
        raise UsageError("--table runs nothing, so --only and --redo do not go with it")
    from twostream import console
    from twostream.experiments.suite import Suite
    from twostream.experiments.table import table_json, table_markdown

    suite, out = Suite.load(args.suite, data=args.data), Path(args.out)
    failed = {}
    if not args.table:
        from twostream.experiments.run import run_suite

        with console.progress_bar("suite") as progress:
            failed = run_suite(suite, out, only=args.only, redo=args.redo, say=console.say, progress=progress)
    if args.json:
        console.show_json({**table_json(suite, out), "failed": failed})
    else:
        console.show(table_markdown(suite, out))
    for row, reason in failed.items():
        console.say(f"twostream reproduce: {row}: {reason}")
    return 1 if failed else 0


def report(argv: Sequence[str]) -> int:
    """Write one self-contained HTML page about one or several runs."""
    parser = Parser("report", report.__doc__ or "")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders; the others are compared with the first")
    parser.add_argument("--out", default=None, metavar="FILE", help="the page; by default report.html in the first run")
    args = parser.read(argv)
    from twostream import console
    from twostream.reporting.report import write_report

    console.show(str(write_report(args.runs, args.out)))
    return 0


def models(argv: Sequence[str]) -> int:
    """List the models by name, with their parameters and what they are."""
    parser = Parser("models", models.__doc__ or "")
    parser.add_argument("--classes", type=_at_least(2), default=101, help="classes that parameters are counted for")
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


def _add_data_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--split", default="1", help="number of the official split")
    parser.add_argument(
        "--videos", default=None, metavar="DIR", help="folder of the videos, where it is not beside the lists"
    )
    parser.add_argument(
        "--allow-missing", action="store_true", help="go on without videos that the lists name but the disk lacks"
    )


def _at_least(lowest: int) -> Callable[[str], int]:
    def whole_number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = lowest - 1
        if value < lowest:
            raise argparse.ArgumentTypeError(f"a whole number of at least {lowest} is wanted, got {text!r}")
        return value

    return whole_number


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _numbers(text: str) -> dict[str, float]:
    """``a=1,b=2.5`` to a dictionary."""
    numbers = {}
    for entry in filter(None, text.split(",")):
        name, equals, value = entry.partition("=")
        try:
            numbers[name.strip()] = float(value)
        except ValueError:
            raise UsageError(f"{text!r} is not of the form name=number,name=number") from None
        if not equals:
            raise UsageError(f"{text!r} is not of the form name=number,name=number")
    return numbers


def _list_of_numbers(text: str) -> list[float]:
    """``1,1.5`` to a list."""
    try:
        return [float(entry) for entry in text.split(",")] if text else []
    except ValueError:
        raise UsageError(f"{text!r} is not of the form number,number") from None


def _nearest(message: str, known: Sequence[str]) -> str:
    """The message, with the nearest known option where it names an unknown one."""
    for word in message.split():
        if word.startswith("--") and word.split("=")[0] not in known:
            near = difflib.get_close_matches(word.split("=")[0], known, n=1)
            if near:
                return f"{message}; did you mean {near[0]}?"
    return message


def _as_declared(argv: Sequence[str], schema: type) -> list[str]:
    """``--allow-missing`` as ``--allow_missing=true``: dashes for underscores, and switches without a value."""
    switches = {f"--{entry.name}" for entry in dataclasses.fields(schema) if entry.type in (bool, "bool")}
    declared: list[str] = []
    for place, word in enumerate(argv):
        if not word.startswith("--"):
            declared.append(word)
            continue
        name, equals, value = word.partition("=")
        name = name[:2] + name[2:].replace("-", "_")
        following = argv[place + 1].lower() if place + 1 < len(argv) else ""
        if name in switches and not equals and following not in ("true", "false"):
            declared.append(f"{name}=true")
        else:
            declared.append(f"{name}{equals}{value}")
    return declared


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"twostream {__version__}")
        return 0
    name = arguments[0]
    command = COMMANDS.get(name)
    if command is None:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"the commands are {', '.join(COMMANDS)}"
        print(f"twostream: error: no command {name!r}; {hint}", file=sys.stderr)
        return 2
    try:
        return command(arguments[1:])
    except UsageError as error:
        print(f"twostream {name}: error: {error}", file=sys.stderr)
        return 2
    except TwostreamError as error:
        print(f"twostream {name}: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            f"\ntwostream {name}: interrupted; what was finished is kept, the same command goes on from there",
            file=sys.stderr,
        )
        return 130
    except BrokenPipeError:
        # The reader of our output (head, less) has gone: no error, but nothing more can be said.
        sys.stderr.close()
        return 1


def overview() -> str:
    """The text of `twostream --help`."""
    lines = ["usage: twostream COMMAND ...", "", "Two-stream action recognition in video.", "", "commands:"]
    lines += [f"  {name:<10} {(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items()]
    lines += ["", "`twostream COMMAND --help` tells the options of a command. A first look: twostream demo"]
    return "\n".join(lines)


COMMANDS: dict[str, Command] = {
    command.__name__: command
    for command in (demo, check, flow, train, evaluate, predict, fuse, reproduce, report, models)
}


if __name__ == "__main__":
    sys.exit(main())
