"""Running a suite row by row: what is finished is a file and stays, what fails is named and the rest goes on."""

import csv
import difflib
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from twostream.data import motion_shapes
from twostream.data.annotations import Annotations, load_annotations
from twostream.data.reading import read_videos
from twostream.errors import TwostreamError, UsageError
from twostream.experiments.references import ceiling, chance, clip_shape
from twostream.experiments.rows import (
    Finished,
    SuiteFolder,
    changes,
    chosen,
    figures_of,
    machine,
    provenance,
    streams_of,
)
from twostream.experiments.schema import SuiteError
from twostream.experiments.suite import MotionShapes, Reference, Row, Suite, data_name
from twostream.runs import RunFolder, evaluate_run
from twostream.training.config import TrainConfig
from twostream.training.run import train
from twostream.units import seconds_text
from twostream.video import VideoError, VideoInfo

Say = Callable[[str], None]
Progress = Callable[[int, int, str], None]


def run_suite(
    suite: Suite,
    out: Path,
    *,
    only: str | None = None,
    redo: bool = False,
    say: Say = print,
    progress: Progress | None = None,
) -> dict[str, str]:
    """Run the rows that are not finished; called again after an interruption it goes on where it stopped.

    A row that fails is left out and the rest goes on; Ctrl-C ends all, and the training that it met resumes.

    Args:
        suite: what is to be run.
        out: folder of all suites; this one's files lie in ``OUT/NAME``.
        only: a variant; the others' rows are left alone.
        redo: run rows anew that were finished with another configuration, instead of refusing.
        say: takes a line for the user.
        progress: called with (done, total, what) while videos are read, written or judged.

    Returns:
        The reason for each row and reference that failed; empty when all that was asked is there.

    Raises:
        UsageError: no such variant, or no data.
        SuiteError: rows were finished with another configuration, or the file of one is damaged.
    """
    if only is not None and only not in suite.variants:
        near = difflib.get_close_matches(only, suite.variants, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(suite.variants)}"
        raise UsageError(f"{suite.source} has no variant {only!r}; {hint}")
    rows = [row for row in suite.rows() if only in (None, row.variant)]
    if any(row.data is None for row in rows):
        raise UsageError(f"{suite.source} leaves its data open; name them with --data DATA")
    folder = SuiteFolder(suite, out)
    waiting = _waiting(folder, rows, redo)
    maker = _Maker(folder, say, progress)
    failed = maker.make_references(rows)
    say(f"{suite.name}: {len(rows)} rows, {len(rows) - len(waiting)} finished; {_left(folder, waiting)}")
    for place, row in enumerate(waiting):
        say(f"row {place + 1} of {len(waiting)}: {row.name} on {row.data_name}")
        reason, finished = _attempt(partial(maker.make, row), say)
        rest = f"; {_left(folder, waiting[place + 1 :])}" if waiting[place + 1 :] else ""
        if finished is None:
            failed[row.name] = reason
            say(f"{row.name} failed: {reason}{rest}")
        else:
            say(f"{row.name}: {_figures_text(finished)} after {seconds_text(finished.cost['seconds'])}{rest}")
    return failed


def _waiting(folder: SuiteFolder, rows: Sequence[Row], redo: bool) -> list[Row]:
    """The rows that are not finished; with ``redo`` also those of another configuration, which else are refused."""
    waiting, changed = [], []
    for row in rows:
        finished = folder.finished(row)
        if finished is None:
            waiting.append(row)
        elif different := changes(finished, row):
            waiting.append(row)
            changed.append(f"{row.name} ({'; '.join(different)})")
    if changed and not redo:
        raise SuiteError(
            f"{folder.path}: rows were finished with another configuration than {folder.suite.source} has now: "
            f"{', '.join(changed)}. Give the variant another name, or run these rows anew with --redo"
        )
    return waiting


def _left(folder: SuiteFolder, waiting: Sequence[Row]) -> str:
    """How many rows are to go, and for about how long, judged by what finished rows took on such a machine."""
    if not waiting:
        return "none to go"
    here, times = machine(), dict[str, list[float]]()
    for row in folder.suite.rows():
        finished = folder.finished(row)
        if finished is not None and finished.machine == here:
            times.setdefault(row.variant, []).append(finished.cost["seconds"])
    count = f"{len(waiting)} to go"
    if not times:
        return f"{count}; for how long is known after the first"
    all_times = [seconds for of_variant in times.values() for seconds in of_variant]
    seconds = sum(fmean(times.get(row.variant, all_times)) for row in waiting)
    return f"{count}, about {seconds_text(seconds)}"


def _attempt(work: Callable[[], Finished], say: Say) -> tuple[str, Finished | None]:
    """The result, or the reason why there is none."""
    try:
        return "", work()
    except TwostreamError as error:
        return str(error), None
    except Exception as error:
        # A night's work must not end with one row's accident, such as memory that does not suffice.
        say(traceback.format_exc())
        return f"{type(error).__name__}: {error}", None


def _figures_text(finished: Finished) -> str:
    parts = [f"top-1 {finished.figures['top1']:.3f}"]
    parts += [f"{stream} alone {figures['top1']:.3f}" for stream, figures in finished.streams.items()]
    return ", ".join(parts)


class _Maker:
    """Makes one row or reference at a time."""

    def __init__(self, folder: SuiteFolder, say: Say, progress: Progress | None) -> None:
        self.folder = folder
        self.suite = folder.suite
        self.say = say
        self.progress = progress
        self.decoded: dict[Path, VideoInfo | VideoError] = {}

    def make(self, row: Row) -> Finished:
        """Train and judge a row, and write its file."""
        starts = tuple(self.start(before) for before in row.after)
        config = replace(
            row.config,
            data=str(self.videos(row.data, row.config)),
            out=str(self.folder.run_folder(row)),
            init=starts if starts and not row.as_images else row.config.init,
            weights=starts[0] if row.as_images else row.config.weights,
        )
        run = RunFolder(Path(config.out))
        before = _seconds_trained(run)
        began = time.monotonic()
        train(config, say=self.say, progress=self.progress)
        resolved = run.config()
        evaluation = evaluate_run(
            run,
            protocol=row.protocol,
            device="cpu" if config.trainer.accelerator == "cpu" else "auto",
            flow_workers=resolved["flow"]["workers"],
            say=self.say,
            progress=self.progress,
        )
        epochs = _epochs(run)
        finished = Finished(
            suite=self.suite.name,
            variant=row.variant,
            seed=row.seed,
            split=row.split,
            data=str(row.data_name),
            asked=row.asked(),
            digest=row.digest,
            chosen=chosen(row.config, resolved),
            figures=figures_of(evaluation.scores),
            streams=streams_of(evaluation.scores),
            cost={
                # What earlier sittings trained counts too.
                "seconds": round(before + time.monotonic() - began, 3),
                "training_seconds": round(_seconds_trained(run), 3),
                "epochs": len(epochs),
                "steps": int(epochs[-1]["step"]) if epochs else 0,
            },
            left_out={**dict.fromkeys(evaluation.missing, "missing"), **evaluation.unreadable},
            weights=None if row.after or config.init else run.model().config["provenance"]["weights"],
            scores_file=evaluation.file.relative_to(self.folder.path).as_posix(),
            **provenance(self.suite.command(row.variant)),
        )
        finished.save(self.folder.row_file(row))
        return finished

    def start(self, row: Row) -> str:
        """The run folder that another row starts from."""
        run = RunFolder(self.folder.run_folder(row))
        if not run.finished:
            raise SuiteError(
                f"it starts from the run of {row.name}, and {run.path} holds no finished one; run it first with: "
                f"{self.suite.command(row.variant)}"
            )
        return str(run.path)

    def videos(self, data: "str | MotionShapes | None", config: TrainConfig) -> Path:
        """The folder of the data; videos to be generated are, as far as they are missing."""
        if not isinstance(data, MotionShapes):
            return Path(str(data))
        return motion_shapes.generate(
            self.folder.generated(data),
            data.set,
            train=data.train,
            val=data.val,
            test=data.test,
            seed=data.seed,
            size=data.size,
            frames=data.frames,
            difficulty=data.difficulty,
            classes=data.classes,
            workers=config.flow.workers or machine()["cores"],
            progress=self.progress,
        )

    def make_references(self, rows: Sequence[Row]) -> dict[str, str]:
        """Compute the references that are not there yet; returns the reason for each that failed."""
        failed = {}
        for row in {(row.data_name, row.split): row for row in rows}.values():
            for reference in self.suite.references:
                if reference == "ceiling" and not isinstance(row.data, MotionShapes):
                    continue
                name = f"{reference} on {row.data_name}, split {row.split}"
                if Finished.load(self.folder.reference_file(reference, str(row.data_name), row.split)):
                    continue
                self.say(f"reference: {name}")
                reason, finished = _attempt(partial(self.reference, reference, row), self.say)
                if finished is None:
                    failed[name] = reason
        return failed

    def reference(self, reference: Reference, row: Row) -> Finished:
        """Compute one reference and write its file."""
        began = time.monotonic()
        figures, streams, left_out = self.figures(reference, row)
        finished = Finished(
            suite=self.suite.name,
            variant=reference,
            seed=None,
            split=row.split,
            data=str(data_name(row.data)),
            asked={key: value for key, value in row.asked().items() if key.split(".")[0] in ("data", "motion_shapes")},
            digest="",
            chosen={},
            figures=figures,
            streams=streams,
            cost={"seconds": round(time.monotonic() - began, 3)},
            left_out=left_out,
            weights=None,
            scores_file=None,
            **provenance(self.suite.command()),
        )
        finished.save(self.folder.reference_file(reference, str(row.data_name), row.split))
        return finished

    def figures(
        self, reference: Reference, row: Row
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]], dict[str, str]]:
        """A reference's figures, those of streams alone, and what was left out."""
        if reference == "ceiling":
            assert isinstance(row.data, MotionShapes)
            return (*ceiling(row.data.settings()), {})
        annotations = self.annotations(row)
        if reference == "chance":
            return chance(len(annotations.classes)), {}, {}
        # Splits share most of their videos, and each is decoded once.
        paths = [item.path for item in annotations.items() if item.path not in self.decoded]
        workers = row.config.flow.workers or machine()["cores"]
        self.decoded.update(read_videos(paths, workers=workers, progress=self.progress))
        scores, left_out = clip_shape(annotations, self.decoded)
        return figures_of(scores), {}, left_out

    def annotations(self, row: Row) -> Annotations:
        """The data set of a row, its training part whole."""
        config = row.config
        return load_annotations(
            self.videos(row.data, config),
            split=row.split,
            videos=config.videos,
            allow_missing=config.allow_missing,
            allow_leak=config.allow_leak,
            seed=config.seed,
        )


def _epochs(run: RunFolder) -> list[dict[str, str]]:
    if not run.metrics_file.exists():
        return []
    with run.metrics_file.open(newline="") as file:
        return list(csv.DictReader(file))


def _seconds_trained(run: RunFolder) -> float:
    return sum(float(row["seconds"]) for row in _epochs(run))
