"""The files of a suite: a small one for every finished row, which can be kept, moved and committed by itself.

The finished row is the record of what was made, on whatever machine. What others need of it, its network or its scores,
lies in its run folder, which may have stayed there; then the network is made again, and the record stays as it is.

.. code-block:: text

    OUT/SUITE/rows/<variant>-seed<k>-split<s>.json
    OUT/SUITE/references/<reference>-<data>-split<s>.json
    OUT/SUITE/runs/<variant>-seed<k>-split<s>-<digest>/     the run folders, with the scores files; begun-again
                                                            in one says that its network is not whole yet
    OUT/data/<set>/                                         generated videos, shared by suites
"""

import json
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from twostream.clip import Scores, ScoresError
from twostream.data.leave_one_out import split_label
from twostream.evaluation.metrics import one_stream, summary
from twostream.evaluation.statistics import accuracy_interval
from twostream.experiments.hits import Hits
from twostream.experiments.schema import SuiteError
from twostream.experiments.suite import MotionShapes, Row, Suite, flat, own_key, without_defaults
from twostream.files import write_text
from twostream.runs import RunFolder
from twostream.training.config import TrainConfig

FORMAT = "twostream-row-2"
# Of rows that do not say which videos they got right.
_WITHOUT_HITS = "twostream-row-1"
# What figures can hang on, besides the configuration.
_LIBRARIES = ("twostream", "torch", "numpy", "opencv-contrib-python-headless", "av", "lightning")


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A finished row, or a reference beside the rows.

    Attributes:
        suite: its name.
        variant: of the row, or the name of the reference.
        seed: None for a reference, which has none.
        split: number of the split, or name of the fold.
        data: what the data are called.
        asked: all that the figures depend on, as asked for, by dotted key.
        digest: of what was asked.
        chosen: what was left open there and chosen by the machine and the data.
        figures: top-1, its 95 % interval and the rest of ``evaluation.metrics.summary``.
        streams: the same of each stream's votes alone, where there are several.
        hits: which test videos it got right; None for a reference without such, and for rows made before they were
            kept.
        cost: seconds of wall time in all and of training, epochs and optimiser steps; ``cpu_seconds`` of all cores
            and processes together, None where a part was trained by another process before; ``jobs``, how many rows
            were made at a time.
        left_out: what could not be judged: name and reason.
        weights: what the networks started from.
        versions, machine, date, command: where the figures come from.
        scores_file: below the suite's folder; it may have stayed on another machine. None for a reference.
    """

    suite: str
    variant: str
    seed: int | None
    split: str
    data: str
    asked: dict[str, Any]
    digest: str
    figures: dict[str, Any]
    streams: dict[str, dict[str, Any]]
    versions: dict[str, str]
    machine: dict[str, Any]
    date: str
    command: str
    chosen: dict[str, Any]
    cost: dict[str, float | None]
    left_out: dict[str, str]
    weights: str | None
    scores_file: str | None
    hits: Hits | None = None

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        document = {"format": FORMAT, **{f.name: getattr(self, f.name) for f in fields(self) if f.name != "hits"}}
        text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
        # On one line: a line a video would make a test set of thousands unreadable.
        hits = json.dumps(self.hits and self.hits.to_dict(), ensure_ascii=False, separators=(",", ":"))
        write_text(path, text.removesuffix("\n}") + f',\n "hits": {hits}\n}}\n')

    @classmethod
    def load(cls, path: Path) -> "Finished | None":
        """Read a file; None where there is none.

        Raises:
            SuiteError: it is not the file of a row.
        """
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            written = document.pop("format")
            if written == _WITHOUT_HITS:
                document["hits"] = None
            elif written != FORMAT:
                raise ValueError(f"not of the format {FORMAT}")
            if set(document) != {field.name for field in fields(cls)}:
                raise ValueError("its keys are not those of a row")
            if document["hits"] is not None:
                document["hits"] = Hits.from_dict(document["hits"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
            raise SuiteError(f"{path}: not a finished row ({error}); remove it, and the row is run again") from error
        return cls(**document)


@dataclass(frozen=True)
class SuiteFolder:
    """Where a suite keeps what it makes."""

    suite: Suite
    out: Path

    @property
    def path(self) -> Path:
        """The suite's own folder."""
        return self.out / self.suite.name

    def row_file(self, row: Row) -> Path:
        """The file of a finished row."""
        return self.path / "rows" / f"{row.name}.json"

    def run_folder(self, row: Row) -> Path:
        """The run folder of a row, of this very configuration; one that is there already keeps its name."""
        made = self.made(row)
        digests = [row.digest, row.earlier_digest]
        if made is not None:
            digests.insert(0, made.digest)
        folders = [self.path / "runs" / row.run_name_of(digest) for digest in digests]
        return next((folder for folder in folders if folder.is_dir()), self.path / "runs" / row.run_name)

    def reference_file(self, reference: str, data: str, split: str) -> Path:
        """The file of a reference on a split of some data."""
        return self.path / "references" / f"{reference}-{data}-{split_label(split)}.json"

    def generated(self, shapes: MotionShapes) -> Path:
        """The folder of generated videos."""
        return self.out / "data" / shapes.name

    def finished(self, row: Row) -> Finished | None:
        """The finished row, whatever configuration it was made with; None where there is none."""
        return Finished.load(self.row_file(row))

    def made(self, row: Row) -> Finished | None:
        """The finished row, if it was made with this very configuration."""
        finished = self.finished(row)
        return finished if finished is not None and not changes(finished, row) else None

    def begun_again(self, row: Row) -> Path:
        """A file that is there from when the network of a finished row is begun again until it has been judged."""
        return self.run_folder(row) / "begun-again"

    def has_network(self, row: Row) -> bool:
        """Whether the network of a row is here, trained; one that is made again only when it has been judged too."""
        return RunFolder(self.run_folder(row)).finished and not self.begun_again(row).exists()

    def scores_file(self, row: Row, protocol: str) -> Path | None:
        """The scores of a finished row by a protocol; None where they are not here.

        Those by its own protocol are its record as the row is, and stay when its network is made again. Those by
        another count as long as they are of the network.
        """
        made, run = self.made(row), RunFolder(self.run_folder(row))
        # Where a row was made when there were fewer options, its run folder can have another name since.
        recorded = () if made is None else (self.path / str(made.scores_file),)
        places = (*recorded, run.scores_file("test", row.protocol))
        own = next((file for file in places if file.is_file()), None)
        if protocol == row.protocol:
            return own
        file = run.scores_file("test", protocol)
        if not file.is_file():
            return None
        try:
            there = Scores.load(file).meta.get("model_sha256")
            if self.has_network(row):
                network = run.model().config["weights"]["sha256"]
            else:
                # The network is gone; its other scores tell which it was. Without them nothing speaks against these.
                network = Scores.load(own).meta.get("model_sha256") if own is not None else there
        except ScoresError:
            # Damaged: judged anew, as if they were not there.
            return None
        return file if there == network else None

    def lacks(self, row: Row, protocol: str | None = None) -> list[Row]:
        """The rows of which something is not here that a row needs to be made.

        A row that trains needs the networks it starts from; one that joins needs of each row to be finished, and its
        scores by the protocol or a network to be judged by that.

        Args:
            row: that is to be made.
            protocol: by which the scores of others are joined; the row's own by default.
        """
        protocol = protocol or row.protocol
        if row.joined is None:
            return [before for before in row.after if not self.has_network(before)]
        found: dict[Row, None] = {}
        for before in row.after:
            if self.made(before) is None:
                found[before] = None
            elif before.joined is not None:
                if self.scores_file(before, protocol) is None:
                    found |= dict.fromkeys(self.lacks(before, protocol))
            elif not self.has_network(before) and self.scores_file(before, protocol) is None:
                found[before] = None
        return [*found]

    def needed(self, row: Row) -> list[Row]:
        """All that has to be made before a row can be, each after what it starts from itself.

        Rows that are not finished, without what these need in turn, and finished ones whose networks are not here.
        """
        found: dict[Row, None] = {}
        for before in self.lacks(row):
            if self.made(before) is not None:
                found |= dict.fromkeys(self.needed(before))
            found[before] = None
        return [*found]

    def require(self, row: Row) -> None:
        """Check that all that a row needs to be made is here.

        Raises:
            SuiteError: something is not; says what, and what to do.
        """
        needed = self.needed(row)
        for other in needed:
            command, finished = self.suite.command(other.variant), self.finished(other)
            if finished is None:
                raise SuiteError(
                    f"it needs {other.name}, which is not finished ({self.row_file(other)} is not there); run it first "
                    f"with: {command}"
                )
            if different := changes(finished, other):
                raise SuiteError(
                    f"it needs {other.name}, which was made with another configuration ({'; '.join(different)}); run "
                    f"it anew with: {command} --redo"
                )
        if needed:
            raise SuiteError(
                f"it needs the network of {', '.join(other.name for other in needed)}, which {self.path / 'runs'} does "
                "not hold any more; the same command, called again, makes it again"
            )


def changes(finished: Finished, row: Row) -> list[str]:
    """What of a row's configuration is another one than that of its finished file, in words."""
    all_now, all_there = row.asked(), finished.asked
    return _differences(all_there, all_now)


def _differences(all_there: Mapping[str, Any], all_now: Mapping[str, Any]) -> list[str]:
    # An option that did not exist when the row was made did then what its default does now.
    now, there = without_defaults(all_now), without_defaults(all_there)
    absent = object()
    found = []
    for key in sorted(now.keys() | there.keys()):
        # Looking at the table of a suite with open data needs no data.
        if own_key(key) == "data" and all_now.get(key, absent) is None:
            continue
        if now.get(key, absent) != there.get(key, absent):
            words = [json.dumps(values[key]) if key in values else "nothing" for values in (all_there, all_now)]
            found.append(f"{key}: {words[0]} there, {words[1]} now")
    return found


def trained_by_place(rows: Iterable[Row]) -> dict[tuple[str | None, str], Row]:
    """For the data and split of each row the first row that trains: references look at the videos as that does."""
    found: dict[tuple[str | None, str], Row] = {}
    for row in rows:
        if row.joined is None:
            found.setdefault((row.data_name, row.split), row)
    return found


def reference_asked(reference: str, row: Row) -> dict[str, Any]:
    """All that a reference's figures depend on, of what was asked of a row beside it."""
    of_flow = {"size", "model_args.region"} if reference == "flow_histogram" else set()
    kinds = {"data", "motion_shapes"} | ({"flow"} if reference == "flow_histogram" else set())
    return {key: value for key, value in row.asked().items() if key.split(".")[0] in kinds or key in of_flow}


def reference_changes(finished: Finished, reference: str, row: Row) -> list[str]:
    """What a reference depends on that is another than when it was computed, in words."""
    return _differences(finished.asked, reference_asked(reference, row))


def figures_of(scores: Scores) -> dict[str, Any]:
    """The figures of scores as a row keeps them."""
    interval = accuracy_interval(scores)
    bounds = {
        "low": interval.low,
        "high": interval.high,
        "level": interval.level,
        "units": interval.units,
        "method": interval.method,
    }
    figures = summary(scores)
    return {**figures, "interval": bounds if figures["videos"] else None}


def streams_of(scores: Scores) -> dict[str, dict[str, Any]]:
    """The figures of each stream's votes alone; nothing where there is one stream only."""
    if len(scores.streams) < 2:
        return {}
    return {stream: figures_of(one_stream(scores, stream)) for stream in scores.streams}


def provenance(command: str) -> dict[str, Any]:
    """The fields of a row that say where its figures come from."""
    return {"versions": _versions(), "machine": machine(), "date": _now(), "command": command}


def machine() -> dict[str, Any]:
    """The processor, how many cores of it can be used, and the GPU if there is one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": _processor(Path("/proc/cpuinfo")), "cores": cores, "gpu": gpu}


def _processor(listing: Path) -> str:
    try:
        lines = listing.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:  # opencv goes by several names
            continue
    return found


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def chosen(asked: TrainConfig, resolved: Mapping[str, Any]) -> dict[str, Any]:
    """What ``asked`` left open and a run chose, without paths."""
    left_open = {key for key, value in flat(asdict(asked)).items() if value is None}
    paths = {"flow.store", "videos", "init"}
    return {
        key: value
        for key, value in flat(resolved).items()
        if key in left_open and key not in paths and value is not None
    }
