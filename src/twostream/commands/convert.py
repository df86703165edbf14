"""`twostream convert`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from twostream.commands.parser import Parser
from twostream.errors import UsageError
from twostream.files import OutputError, atomic_write, sha256_of

if TYPE_CHECKING:
    from twostream.weights.matconvnet import Conversion


def convert(argv: Sequence[str]) -> int:
    """Turn a MatConvNet file of the papers' authors into a model folder, or into image weights."""
    parser = Parser(
        "convert",
        "Turn a MatConvNet file of the papers' authors (base stream, ST-ResNet, ST-MulNet) into a model folder; a base "
        "stream of RGB and one of flow together into one two-stream model; an ImageNet ResNet into a folder for "
        "--weights.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE.mat", help="one file, or an RGB and a flow base stream")
    parser.add_argument("out", metavar="OUT", help="folder to write; new or empty")
    parser.add_argument(
        "--classes",
        default=None,
        metavar="FILE",
        help="class names in the order of the classifier, a line each; by default those in the file, UCF101's where "
        "there are 101 and HMDB51's where there are 51",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    args = parser.read(argv)
    if len(args.files) > 2:
        raise UsageError(f"one FILE.mat, or two base streams, and then OUT; got {len(args.files)} files")
    paths, out = [Path(file) for file in args.files], Path(args.out)
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise OutputError(f"{out}: is there already and not an empty folder; name a new one")
    from twostream import console
    from twostream.weights.dagnn import read_dag
    from twostream.weights.matconvnet import join, recognise

    conversions = [recognise(read_dag(path)) for path in paths]
    conversion = conversions[0] if len(conversions) == 1 else join(*conversions)
    provenance = {
        "converted": conversion.kind,
        "files": [{"file": path.name, "sha256": sha256_of(path)} for path in paths],
        "notes": list(conversion.notes),
    }
    if conversion.model:
        report = _write_model(out, conversion, provenance, Path(args.classes) if args.classes else None)
    elif args.classes:
        raise UsageError("--classes goes with a video network; of an image network only the backbone is used")
    else:
        report = _write_image_weights(out, conversion, provenance)
    if args.json:
        console.show_json(report)
    else:
        for line in (f"{' and '.join(map(str, paths))}: {conversion.kind}", *conversion.notes, *report["written"]):
            console.show(line)
        console.show(f"next: {report['next']}")
    return 0


class _Named(NamedTuple):
    """The conversion with its rows in the order of ``names``, and where the names are from."""

    conversion: "Conversion"
    names: tuple[str, ...]
    source: str


def _write_model(out: Path, conversion: "Conversion", provenance: dict[str, Any], given: Path | None) -> dict[str, Any]:
    from twostream.checkpoint import save_model
    from twostream.flow.store import FlowSettings
    from twostream.models.registry import create_model
    from twostream.weights.strict import load_strict

    conversion, classes, named_by = _named(conversion, given)
    model = create_model(conversion.model, num_classes=conversion.num_classes, **conversion.numbers)
    load_strict(model, conversion.state, source=" and ".join(entry["file"] for entry in provenance["files"]))
    # What the authors computed flow with, so that `predict` does the same.
    flow = FlowSettings(
        estimator="tvl1", parameters={"quality": "papers"}, short_side=model.spec.resize, fps=model.spec.fps
    )
    provenance |= {"flow": flow.to_dict(), "classes": named_by}
    save_model(out, model, classes=classes, provenance=provenance)
    count = sum(parameter.numel() for parameter in model.parameters())
    return {
        "model": model.name,
        "numbers": dict(conversion.numbers),
        "classes": list(classes),
        **provenance,
        "written": [
            f"{out}: {model.name}, {count:,} parameters, {len(classes)} classes: {named_by}",
        ],
        "next": f"twostream predict {out} VIDEO; or train on from it with --init {out}",
    }


def _write_image_weights(out: Path, conversion: "Conversion", provenance: dict[str, Any]) -> dict[str, Any]:
    import json

    import safetensors.torch

    # Named as `--weights FOLDER` looks for it.
    path = out / f"{conversion.backbone}.safetensors"
    tensors = {
        name: (tensor.float() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in conversion.state.items()
    }
    data = safetensors.torch.save(tensors, metadata={"provenance": json.dumps(provenance)})
    with atomic_write(path) as file:
        file.write(data)
    numbers = " ".join(f"--model-args.{name} {value}" for name, value in conversion.numbers.items())
    return {
        "backbone": conversion.backbone,
        "numbers": dict(conversion.numbers),
        **provenance,
        "written": [f"{path}: {len(tensors)} tensors, {len(data) / 1e6:.0f} MB"],
        "next": f"twostream train --weights {out} {numbers} ...",
    }


def _named(conversion: "Conversion", given: Path | None) -> _Named:
    """Whose classes the rows stand for.

    HMDB51's rows are put into the order of its lists, alphabetical, so that a run on those lists can start from the
    classifier too.
    """
    from twostream.data.labels import check_class_names
    from twostream.weights.class_names import HMDB51, UCF101
    from twostream.weights.matconvnet import in_order

    if given is not None:
        names = _read_names(given)
        check_class_names(names)
        if len(names) != conversion.num_classes:
            raise UsageError(f"{given} names {len(names)} classes, the network has {conversion.num_classes}")
        return _Named(conversion, names, f"as {given.name} names them")
    if conversion.classes:
        return _Named(conversion, conversion.classes, "as the file names them")
    if conversion.num_classes == len(UCF101):
        return _Named(conversion, UCF101, "UCF101's, in the order of classInd.txt")
    if conversion.num_classes == len(HMDB51):
        names = tuple(sorted(HMDB51))
        rows = [HMDB51.index(name) for name in names]
        return _Named(in_order(conversion, rows), names, "HMDB51's, put into alphabetical order")
    raise UsageError(
        f"the network has {conversion.num_classes} classes and the file does not name them (UCF101 has "
        f"{len(UCF101)}, HMDB51 {len(HMDB51)}); give their names, in the classifier's order, with --classes FILE"
    )


def _read_names(path: Path) -> tuple[str, ...]:
    """Names a line each, or ``number name`` as in ``classInd.txt``."""
    from twostream.data.listing import read_lines

    lines = [line for _, line in read_lines(path)[0]]
    numbered = [line.partition(" ")[::2] for line in lines]
    if all(number == str(index) for index, (number, _) in enumerate(numbered, 1)):
        return tuple(name.strip() for _, name in numbered)
    return tuple(lines)
