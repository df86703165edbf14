"""Making what a suite consists of: a row is trained, judged and written; a reference is computed."""

import csv
import os
import secrets
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from twostream.clip import Looking, Scores
from twostream.data import motion_shapes
from twostream.data.annotations import Annotations, load_annotations
from twostream.data.preparation import sources_of
from twostream.data.reading import read_videos
from twostream.errors import TwostreamError
from twostream.experiments.flow_histograms import FloatArray, describe
from twostream.experiments.hits import Hits
from twostream.experiments.joined_scores import joined_row
from twostream.experiments.references import ceiling, chance, clip_shape, linear_scores
from twostream.experiments.rows import (
    Finished,
    SuiteFolder,
    chosen,
    figures_of,
    machine,
    provenance,
    reference_asked,
    reference_changes,
    streams_of,
    trained_by_place,
)
from twostream.experiments.suite import MotionShapes, Reference, Row, data_name
from twostream.files import atomic_write, write_text
from twostream.flow.extract import extract
from twostream.runs import RunFolder, evaluate_run
from twostream.training.config import Machine, TrainConfig, resolve
from twostream.training.run import absolute, adopt_store, open_store, train
from twostream.video import VideoError, VideoInfo
from twostream.work_claims import Owner, claimed

T = TypeVar("T")
Say = Callable[[str], None]
Progress = Callable[[int, int, str], None]

# Seconds between two looks at whether another process has done what this one waits for.
LOOK_EVERY = 5.0


def attempt(work: Callable[[], T], say: Say) -> tuple[str, T | None]:
    """The result, or the reason why there is none."""
    try:
        return "", work()
    except TwostreamError as error:
        return str(error), None
    except Exception as error:
        # A night's work must not end with one row's accident, such as memory that does not suffice.
        say(traceback.format_exc())
        return f"{type(error).__name__}: {error}", None


def cores_each(jobs: int) -> int:
    """How many cores each of so many rows has."""
    return max(1, int(machine()["cores"]) // jobs)


def shared(config: TrainConfig, cores: int) -> TrainConfig:
    """A configuration for so many cores, which leaves what was asked for as it is and changes no figure."""
    flow, trainer = config.flow, config.trainer
    return replace(
        config,
        flow=replace(flow, workers=cores if flow.workers is None else flow.workers),
        trainer=replace(
            trainer, loader_workers=min(8, cores - 1) if trainer.loader_workers is None else trainer.loader_workers
        ),
    )


class Maker:
    """Makes one row or reference at a time.

    Attributes:
        folder: of the suite.
        say, progress: take lines for the user, and (done, total, what).
        jobs: how many rows are made at a time, of which this makes one; processes and readers share the cores.
    """

    def __init__(self, folder: SuiteFolder, say: Say, progress: Progress | None = None, *, jobs: int = 1) -> None:
        self.folder = folder
        self.suite = folder.suite
        self.say = say
        self.progress = progress
        self.jobs = jobs
        self.cores = cores_each(jobs)
        # Of its claims: what tells this process from all others that work on the suite.
        self.run = secrets.token_hex(8)
        self.decoded: dict[Path, VideoInfo | VideoError] = {}
        self.described: dict[tuple[str, str], FloatArray] = {}

    def make(self, row: Row) -> Finished | Owner:
        """Train and judge a row, and write its file; or, where another process is at it, that process.

        A finished row whose network is not here is trained and judged again. Its file stays, and its scores where they
        are here: they are the record, and what the network has come to now is only returned.

        Raises:
            SuiteError: something that it needs of other rows is not here.
        """
        with claimed(self.folder.path, row.name, run=self.run) as other:
            if other is not None:
                return other
            # Who had the claim before may have made it.
            record = self.folder.made(row)
            if record is not None and (row.joined is not None or self.folder.has_network(row)):
                return record
            self.folder.require(row)
            if row.joined is not None:
                return joined_row(self.folder, row, self.judged)
            if record is not None:
                return self._make_again(row)
            finished = self._train(row)
            finished.save(self.folder.row_file(row))
            # Of an earlier sitting, if the finished row has been removed since.
            self.folder.begun_again(row).unlink(missing_ok=True)
            return finished

    def _make_again(self, row: Row) -> Finished:
        """What the network of a finished row has come to here."""
        begun = self.folder.begun_again(row)
        # Else an interruption between training and judging would leave a network that nobody judges any more.
        write_text(begun, f"the network of the finished row {row.name} is being made again; not judged yet\n")
        scores = self.folder.scores_file(row, row.protocol)
        recorded = None if scores is None else scores.read_bytes()
        finished = self._train(row)
        if scores is not None and recorded is not None:
            with atomic_write(scores) as file:
                file.write(recorded)
        begun.unlink()
        return finished

    def _train(self, row: Row) -> Finished:
        """Train and judge a row."""
        starts = tuple(str(self.folder.run_folder(before)) for before in row.after)
        config = replace(
            row.config,
            data=str(self.videos(row.data, row.config)),
            out=str(self.folder.run_folder(row)),
            init=starts if starts and not row.as_images else row.config.init,
            weights=starts[0] if row.as_images else row.config.weights,
        )
        if self.jobs > 1:
            config = shared(config, self.cores)
        run = RunFolder(Path(config.out))
        before = _seconds_trained(run)
        began, computed = time.monotonic(), _cpu_seconds()
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
        return Finished(
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
            hits=Hits.of(evaluation.scores),
            cost={
                # What earlier sittings trained counts too.
                "seconds": round(before + time.monotonic() - began, 3),
                "training_seconds": round(_seconds_trained(run), 3),
                "cpu_seconds": None if before else round(_cpu_seconds() - computed, 3),
                "epochs": len(epochs),
                "steps": int(epochs[-1]["step"]) if epochs else 0,
                "jobs": self.jobs,
            },
            left_out={**dict.fromkeys(evaluation.missing, "missing"), **evaluation.unreadable},
            weights=None if row.after or config.init else run.model().config["provenance"]["weights"],
            scores_file=evaluation.file.relative_to(self.folder.path).as_posix(),
            **provenance(self.suite.command(row.variant)),
        )

    def judged(self, row: Row, protocol: str) -> Scores:
        """The scores of a finished row's network on the test videos by any protocol; it is judged where there are none.

        By one process at a time, and not while another makes the network again.
        """
        with self._in_turn(self.folder.path, row.name):
            if (file := self.folder.scores_file(row, protocol)) is not None:
                return Scores.load(file)
            return evaluate_run(
                RunFolder(self.folder.run_folder(row)),
                protocol=protocol,
                device="cpu" if row.config.trainer.accelerator == "cpu" else "auto",
                flow_workers=self.cores,
                say=self.say,
                progress=self.progress,
            ).scores

    def videos(self, data: "str | MotionShapes | None", config: TrainConfig) -> Path:
        """The folder of the data; videos to be generated are, as far as they are missing."""
        if not isinstance(data, MotionShapes):
            return Path(str(data))
        folder = self.folder.generated(data)
        with self._in_turn(folder.parent, folder.name):
            return motion_shapes.generate(
                folder,
                data.set,
                train=data.train,
                val=data.val,
                test=data.test,
                seed=data.seed,
                size=data.size,
                frames=data.frames,
                difficulty=data.difficulty,
                classes=data.classes,
                workers=config.flow.workers or self.cores,
                progress=self.progress,
            )

    @contextmanager
    def _in_turn(self, root: Path, name: str) -> Iterator[None]:
        """Hold a claim for a ``with`` block, after whoever has it."""
        told = False
        while True:
            with claimed(root, name, run=self.run) as other:
                if other is None:
                    yield
                    return
            if not told:
                self.say(f"waiting for {other}, which is at {root / name}")
                told = True
            time.sleep(LOOK_EVERY)

    def make_references(self, rows: Sequence[Row]) -> dict[str, str]:
        """Compute the references that are not there yet; returns the reason for each that failed."""
        failed = {}
        for row in trained_by_place(rows).values():
            for reference in self.suite.references:
                if reference == "ceiling" and not isinstance(row.data, MotionShapes):
                    continue
                name = f"{reference} on {row.data_name}, split {row.split}"
                there = Finished.load(self.folder.reference_file(reference, str(row.data_name), row.split))
                if there is not None and not reference_changes(there, reference, row):
                    continue
                self.say(f"reference: {name}")
                reason, finished = attempt(partial(self.reference, reference, row), self.say)
                if finished is None:
                    failed[name] = reason
        return failed

    def reference(self, reference: Reference, row: Row) -> Finished:
        """Compute one reference and write its file."""
        began = time.monotonic()
        figures, streams, hits, left_out = self.figures(reference, row)
        finished = Finished(
            suite=self.suite.name,
            variant=reference,
            seed=None,
            split=row.split,
            data=str(data_name(row.data)),
            asked=reference_asked(reference, row),
            digest="",
            chosen={},
            figures=figures,
            streams=streams,
            hits=hits,
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
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]], Hits | None, dict[str, str]]:
        """A reference's figures, those of streams alone, its answers where it gives some, and what was left out."""
        if reference == "ceiling":
            assert isinstance(row.data, MotionShapes)
            return (*ceiling(row.data.settings()), None, {})
        annotations = self.annotations(row)
        if reference == "chance":
            return chance(len(annotations.classes)), {}, None, {}
        if reference == "flow_histogram":
            scores, left_out = self.flow_histogram(row, annotations)
            return figures_of(scores), {}, Hits.of(scores), left_out
        # Splits share most of their videos, and each is decoded once.
        paths = [item.path for item in annotations.items() if item.path not in self.decoded]
        workers = row.config.flow.workers or self.cores
        self.decoded.update(read_videos(paths, workers=workers, progress=self.progress))
        scores, left_out = clip_shape(annotations, self.decoded)
        return figures_of(scores), {}, Hits.of(scores), left_out

    def flow_histogram(self, row: Row, annotations: Annotations) -> tuple[Scores, dict[str, str]]:
        """A linear model on histograms of a row's flow, which is computed where it is missing."""
        config = replace(
            row.config, data=str(self.videos(row.data, row.config)), out=str(self.folder.run_folder(row)), init=None
        )
        if self.jobs > 1:
            config = shared(config, self.cores)
        config = resolve(
            adopt_store(config),
            machine=Machine.detect(config.trainer.accelerator),
            clips=len(annotations.parts["train"]),
            validation=0,
            pretrained=False,
        )
        store = open_store(absolute(config))
        items = (*annotations.parts["train"], *annotations.parts["test"])
        summary = extract(sources_of(items), store, workers=config.flow.workers or 1, progress=self.progress)
        looking: Looking = "motion" if config.model_args.get("region") == "motion" else "frame"
        for item in items:
            # Splits share most of their clips.
            if item.video not in summary.failed and (str(store.root), item.name) not in self.described:
                self.described[str(store.root), item.name] = describe(item, store, region=looking)
        features = {name: found for (root, name), found in self.described.items() if root == str(store.root)}
        scores = linear_scores(annotations, features, "flow_histogram", vote="flow")
        return scores, {item.name: summary.failed[item.video] for item in items if item.video in summary.failed}

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


def _cpu_seconds() -> float:
    """What this process and those of its own that have ended have computed, over all cores."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
