"""`twostream flow`."""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twostream.commands.parser import Parser, add_data_options, at_least, cores
from twostream.errors import UsageError

if TYPE_CHECKING:
    from twostream.flow.extract import ExtractionSummary
    from twostream.flow.layouts import TransferSummary
    from twostream.flow.store import FlowSettings, StoreReport

_DEFAULT_ESTIMATOR = "tvl1"
_DEFAULT_SIDE = 256
_DEFAULT_BOUND = 20.0
# Processes that decode and store what one GPU computes.
_SHARING = 4
# What would be passed over in silence.
_NOT_WITH_IMPORT = (
    *("estimator", "quality", "parameters", "resize", "on_error", "workers", "device", "shard"),
    *("executor", "ray_address", "verify"),
)
_NOT_WITH_PREVIEW = (
    *("out", "frames", "bound", "codec", "precision", "export_to", "shard", "executor", "ray_address", "verify"),
    "import_from",
)


def flow(argv: Sequence[str]) -> int:
    """Compute the optical flow of videos into a store; the same command goes on where it was stopped."""
    parser = _parser()
    args = parser.read(argv)
    _check_layout_options(args, parser)
    if args.preview is not None:
        return _preview(args, parser)
    if args.data is None and args.verify + (args.import_from is not None) + (args.export_to is not None) != 1:
        parser.error("DATA says of which videos; a store without them is taken by --verify, --import-from, --export-to")
    if args.out is None:
        parser.error("--out STORE says where the flow is to be kept, or --preview OUT.mp4 where it is to be shown")
    if args.import_from is not None:
        return _import(args, parser)
    if args.data is None:
        return _verify(args) if args.verify else _tell(args, _exported(args, None))
    if args.executor == "ray" and args.device != "cpu":
        parser.error(f"on a Ray cluster flow is computed by the CPUs; leave out --device {args.device}, or Ray")
    if args.executor != "ray" and args.ray_address is not None:
        parser.error("--ray-address goes with the executor 'ray': --executor ray")
    from twostream import console
    from twostream.data.preparation import announce, sources_in
    from twostream.flow.extract import extract, share
    from twostream.flow.store import FlowStore

    store = FlowStore(Path(args.out), _settings(args))
    sources, missing = sources_in(args.data, split=args.split, videos=args.videos, allow_missing=args.allow_missing)
    if args.shard:
        sources = share(sources, *args.shard)
    workers = args.workers or (cores() if args.executor == "process" else None)
    if args.device == "cpu":
        announce(sources, store, workers=workers, say=console.say)
    else:
        # Processes share the device, and each takes memory of it.
        workers = args.workers or (min(_SHARING, cores()) if args.executor == "process" else None)
        console.say(
            f"flow: {sum(not store.has(source.name) for source in sources)} of {len(sources)} videos to go with "
            f"{store.settings.estimator} on {args.device}; how long it takes shows on the way"
        )
    with console.progress_bar("flow") as progress:
        summary = extract(
            sources,
            store,
            workers=workers,
            executor=args.executor,
            ray_address=args.ray_address,
            on_error=args.on_error,
            verify=args.verify,
            device=args.device,
            progress=progress,
        )
    exported = None
    if args.export_to is not None:
        # What failed is told once, and there is nothing of it to export.
        exported = _exported(args, [source.name for source in sources if source.name not in summary.failed])
    if args.json:
        document = {**summary.to_dict(), "missing": list(missing)}
        console.show_json(document | ({} if exported is None else {"exported": exported.to_dict()}))
    else:
        _show(summary)
        if exported is not None:
            _show(exported)
    return 1 if summary.failed or (exported is not None and exported.failed) else 0


def _show(summary: "ExtractionSummary | StoreReport | TransferSummary") -> None:
    from twostream import console

    for line in summary.lines():
        console.show(line)


def _tell(args: argparse.Namespace, summary: "TransferSummary", **more: Any) -> int:
    """What was transferred; returns the exit status."""
    from twostream import console

    if args.json:
        console.show_json({**summary.to_dict(), **more})
    else:
        _show(summary)
    return 1 if summary.failed else 0


def _parser() -> Parser:
    parser = Parser("flow", flow.__doc__ or "")
    parser.add_argument("data", metavar="DATA", nargs="?", help="a data set, a folder of videos, or a video file")
    parser.add_argument("--out", metavar="STORE", help="folder of the flow store; several commands may fill it at once")
    parser.add_argument(
        "--preview", metavar="OUT.mp4", help="instead of a store, write frame and flow side by side (one video only)"
    )
    add_data_options(parser)
    flow_options = parser.add_argument_group("the flow")
    parser.name_later(
        flow_options.add_argument("--estimator", default=None, metavar="NAME"),
        f"{{}}; by default the store's, or {_DEFAULT_ESTIMATOR} for a new one",
        _estimators,
    )
    parser.name_later(
        flow_options.add_argument("--quality", default=None, metavar="NAME"),
        "of tvl1: {}; the same as --parameters quality=NAME",
        _qualities,
    )
    flow_options.add_argument(
        "--parameters",
        default="",
        metavar="A=1,B=2",
        help="of the estimator, by the names `twostream flow` lists on error",
    )
    flow_options.add_argument(
        "--resize",
        type=at_least(0),
        default=None,
        help=f"short side in px; 0 keeps each video's; by default the store's, or {_DEFAULT_SIDE} for a new one",
    )
    flow_options.add_argument(
        "--fps",
        type=float,
        default=None,
        help="common frame rate, by which frames are chosen first; by default the store's, or each video's own",
    )
    flow_options.add_argument(
        "--frames", action="store_true", help="keep the frames too, as JPEG, so that training decodes no video"
    )
    flow_options.add_argument(
        "--bound",
        type=float,
        default=None,
        help="largest motion that 8 bit keep, or that imported images stand for, px; by default the store's, or "
        f"{_DEFAULT_BOUND:g} for a new one",
    )
    flow_options.add_argument(
        "--codec",
        choices=("compact", "fast"),
        default="compact",
        help="of a new store, lossless either way: fast is larger, and faster to read",
    )
    flow_options.add_argument(
        "--precision", choices=("uint8", "float16"), default="uint8", help="of the fields: the papers' 8 bit, or px"
    )
    flow_options.add_argument(
        "--on-error",
        choices=("raise", "truncate"),
        default="raise",
        help="what a damaged video yields: nothing, or the frames before the damage",
    )
    layouts = parser.add_argument_group("flow images in the folder layouts of other tools")
    layouts.add_argument(
        "--import-from",
        metavar="FOLDER",
        help="compute nothing, take the images; with DATA, named by and checked with it",
    )
    layouts.add_argument(
        "--drop-last", action="store_true", help="of as many fields as frames, leave the last away when importing"
    )
    layouts.add_argument(
        "--export-to", metavar="FOLDER", help="write the videos of DATA as images; without DATA, all of STORE"
    )
    layouts.add_argument("--layout", choices=("tsn", "denseflow", "mmaction2", "feichtenhofer"), help="of --export-to")
    work = parser.add_argument_group("the work")
    work.add_argument("--workers", type=at_least(1), default=None, help="cores to use; by default all there are")
    work.add_argument(
        "--device",
        default="cpu",
        help="cpu, or for tvl1 a device of torch, such as cuda: the same flow but for rounding",
    )
    work.add_argument(
        "--shard", type=_shard, default=None, metavar="I/N", help="do the I-th of N equal parts, 1/N to N/N"
    )
    work.add_argument(
        "--executor", choices=("process", "ray"), default="process", help="this machine, or a Ray cluster"
    )
    work.add_argument(
        "--ray-address",
        default=None,
        metavar="ADDRESS",
        help="of a running Ray cluster, or auto; by default RAY_ADDRESS, or else Ray is started here",
    )
    work.add_argument(
        "--verify",
        action="store_true",
        help="read what is there from end to end, and compute damaged files anew; without DATA only name them",
    )
    work.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    return parser


def _estimators() -> Iterable[str]:
    from twostream.flow.estimators import ESTIMATORS

    return ESTIMATORS


def _qualities() -> Iterable[str]:
    from twostream.flow.tvl1 import PRESETS

    return PRESETS


def _check_layout_options(args: argparse.Namespace, parser: Parser) -> None:
    if args.import_from is not None and args.export_to is not None:
        parser.error("either --import-from or --export-to")
    if (args.layout is not None) != (args.export_to is not None):
        parser.error(
            "--export-to FOLDER and --layout NAME go together; which layout --import-from meets it finds out by itself"
        )
    if args.drop_last and args.import_from is None:
        parser.error("--drop-last goes with --import-from")
    if args.import_from is not None and args.preview is None and (idle := _given(args, parser, _NOT_WITH_IMPORT)):
        parser.error(f"--import-from takes images as they are and computes nothing; leave out {idle}")


def _given(args: argparse.Namespace, parser: Parser, names: Sequence[str]) -> str:
    """Those of these options that are not as they are by default."""
    return ", ".join(f"--{name.replace('_', '-')}" for name in names if getattr(args, name) != parser.get_default(name))


def _import(args: argparse.Namespace, parser: Parser) -> int:
    """Flow images of others into a store; with DATA, named after its videos and checked against them."""
    from twostream import console
    from twostream.data.flow_import import import_flow
    from twostream.data.preparation import sources_in
    from twostream.flow.contract import FlowError
    from twostream.flow.layouts import import_dataset, imported_settings
    from twostream.flow.store import FlowStore, stored_settings

    if args.precision != "uint8":
        parser.error(f"flow images have 8 bit, which --precision {args.precision} would not make more")
    if args.data is None and args.fps is None:
        parser.error("the images do not tell their frame rate: name their videos by DATA, or it by --fps")
    found = stored_settings(args.out)
    bound = args.bound if args.bound is not None else (found.bound if found else _DEFAULT_BOUND)
    try:
        settings = imported_settings(bound=bound, frames=args.frames, codec=args.codec)
    except FlowError as error:
        raise UsageError(str(error)) from error
    store = FlowStore(Path(args.out), settings)
    missing: tuple[str, ...] = ()
    with console.progress_bar("import") as progress:
        if args.data is None:
            summary = import_dataset(args.import_from, store, fps=args.fps, drop_last=args.drop_last, progress=progress)
        else:
            sources, missing = sources_in(
                args.data, split=args.split, videos=args.videos, allow_missing=args.allow_missing
            )
            summary = import_flow(
                args.import_from, sources, store, fps=args.fps, drop_last=args.drop_last, progress=progress
            )
    return _tell(args, summary, missing=list(missing))


def _exported(args: argparse.Namespace, videos: Sequence[str] | None) -> "TransferSummary":
    """Videos of a store, all by default, written as flow images."""
    from twostream import console
    from twostream.flow.layouts import export_dataset
    from twostream.flow.store import FlowStore

    store = FlowStore(args.out)
    with console.progress_bar("export") as progress:
        return export_dataset(
            store, args.export_to, args.layout, store.names() if videos is None else videos, progress=progress
        )


def _verify(args: argparse.Namespace) -> int:
    """A store without its videos."""
    from twostream import console
    from twostream.flow.store import verify_store

    with console.progress_bar("verifying") as progress:
        report = verify_store(args.out, progress)
    if args.json:
        console.show_json(report.to_dict())
    else:
        _show(report)
    return 1 if report.damaged else 0


def _preview(args: argparse.Namespace, parser: Parser) -> int:
    if args.data is None:
        parser.error("DATA says which video to show")
    if idle := _given(args, parser, _NOT_WITH_PREVIEW):
        raise UsageError(f"--preview shows one video and keeps no flow; leave out {idle}")
    if args.device != "cpu":
        raise UsageError(f"--preview computes flow on the CPU; leave out --device {args.device}")
    video = Path(args.data)
    # Found before the work is done, not after it.
    if Path(args.preview).suffix.lower() != ".mp4":
        raise UsageError(f"--preview {args.preview}: the name must end in .mp4")
    if Path(args.preview).is_dir() or Path(args.preview).resolve() == video.resolve():
        raise UsageError(f"--preview {args.preview}: a folder or the video itself; name a new file")
    if video.is_dir():
        raise UsageError(f"--preview shows one video, and {args.data} is a folder; name a file in it")
    from twostream import console
    from twostream.flow.preview import write_preview
    from twostream.video import Video

    settings = _settings(args)
    with console.progress_bar("preview") as progress:
        preview = write_preview(
            Video(video, on_error=args.on_error),
            settings,
            args.preview,
            threads=args.workers or cores(),
            progress=progress,
        )
    if args.json:
        console.show_json({"preview": args.preview, "frames": preview.frames, "full_speed": preview.full_speed})
    else:
        console.show(
            f"{args.preview}: {preview.frames} frames with {settings.estimator}; full colour is {preview.full_speed:g} "
            "px a frame"
        )
    return 0


def _settings(args: argparse.Namespace) -> "FlowSettings":
    """What is asked for; what is left open is as in the store that is there."""
    from twostream.flow.contract import FlowError
    from twostream.flow.store import FlowSettings, stored_settings

    found = stored_settings(args.out) if args.out else None
    estimator = args.estimator or (found.estimator if found else _DEFAULT_ESTIMATOR)
    parameters = _parameters(args.parameters)
    if args.quality is not None:
        if estimator != "tvl1":
            raise UsageError(f"--quality is for the estimator tvl1, and this is {estimator}; it takes --parameters")
        if parameters.setdefault("quality", args.quality) != args.quality:
            raise UsageError(f"--quality {args.quality} and --parameters quality={parameters['quality']}: which one?")
    if found and not parameters and args.estimator is None:
        parameters = dict(found.parameters)
    short_side, bound = (found.short_side, found.bound) if found else (_DEFAULT_SIDE, _DEFAULT_BOUND)
    fps = found.fps if found else None
    try:
        return FlowSettings(
            estimator=estimator,
            parameters=parameters,
            short_side=short_side if args.resize is None else args.resize or None,
            fps=fps if args.fps is None else args.fps,
            frames=args.frames,
            bound=bound if args.bound is None else args.bound,
            codec=args.codec,
            precision=args.precision,
        )
    except FlowError as error:
        # A word or a number of this call.
        raise UsageError(str(error)) from error


def _parameters(text: str) -> "dict[str, bool | float | str]":
    """``a=1,b=word,c=true`` to a dictionary."""
    parameters: dict[str, bool | float | str] = {}
    for entry in filter(None, text.split(",")):
        name, equals, value = (part.strip() for part in entry.partition("="))
        if not (name and equals and value):
            raise UsageError(f"--parameters {text!r} is not of the form name=value,name=value")
        try:
            parameters[name] = float(value)
        except ValueError:
            parameters[name] = {"true": True, "false": False}.get(value.lower(), value)
    return parameters


def _shard(text: str) -> tuple[int, int]:
    """``2/4``."""
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise argparse.ArgumentTypeError(f"a part of the work is I/N with I from 1 to N, such as 1/4, got {text!r}")
    return int(index), int(count)
