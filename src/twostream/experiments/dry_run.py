"""A suite gone through without training: every list, path and clip, and every network from a clip to its figures.

What a suite of weeks would stumble over on its third day is found in an hour. Nothing is learned, so no figure that
comes of it means anything, and none is told.
"""

import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from twostream.clip import Scores
from twostream.data import motion_shapes
from twostream.data.annotations import Annotations, load_annotations
from twostream.data.items import VideoItem, counted, first_few
from twostream.data.preparation import sources_of
from twostream.errors import TwostreamError, UsageError
from twostream.experiments.joined_scores import join_scores
from twostream.experiments.network_trial import Trial, try_network
from twostream.experiments.official_counts import official_name
from twostream.experiments.rows import figures_of
from twostream.experiments.suite import MotionShapes, Row, Suite
from twostream.flow.extract import extract
from twostream.flow.store import FlowStore
from twostream.training.config import Machine, TrainConfig, resolve
from twostream.training.run import adopt_store, open_store
from twostream.units import seconds_text
from twostream.video import write_video

Say = Callable[[str], None]
Progress = Callable[[int, int, str], None]

# What stands in for videos where none is found: UCF101's size, long enough for steps far apart.
_STAND_INS, _STAND_IN_FRAMES, _STAND_IN_SIZE = 2, 96, (320, 240)


@dataclass(frozen=True, kw_only=True)
class SplitFacts:
    """What the lists of one split name, and how much of it is there.

    Attributes:
        data: what the data are called.
        split: its name.
        train, test: listed videos.
        classes: how many.
        missing: listed videos that are not on the disk.
        official: the published data set whose counts these are; "" for others.
    """

    data: str
    split: str
    train: int
    test: int
    classes: int
    missing: int
    official: str


@dataclass(kw_only=True)
class DryRun:
    """What a dry run found.

    Attributes:
        suite: its name.
        splits: of all data, those that could be loaded.
        clips: clips that were found, by data; where there are none, generated ones went through the networks.
        stand_ins: the data for which clips were generated.
        flow_seconds: wall time of opening all clips and computing their flow.
        trials: what each variant's network did, in order.
        notes: what should be known.
        problems: what did not pass.
    """

    suite: str
    splits: list[SplitFacts] = field(default_factory=list)
    clips: dict[str, int] = field(default_factory=dict)
    stand_ins: list[str] = field(default_factory=list)
    flow_seconds: float = 0.0
    trials: list[Trial] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether everything passed."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "ok": self.ok}

    def lines(self) -> list[str]:
        """The report for the terminal."""
        lines = [f"### {self.suite}: dry run, nothing was trained", ""]
        for split in self.splits:
            counts = f"{split.train:,} training and {split.test:,} test videos of {split.classes} classes"
            official = f", as {split.official}'s official lists" if split.official else ""
            lines.append(f"- {split.data}, split {split.split}: {counts}{official}; {split.missing:,} missing")
        for data, count in self.clips.items():
            instead = "; generated ones went through the networks instead" if data in self.stand_ins else ""
            lines.append(f"- {data}: {counted(count, 'clip')} found on the disk{instead}")
        if self.trials:
            lines += ["", *_table(self.trials)]
        lines += ["", *(f"- {note}" for note in dict.fromkeys(self.notes))]
        lines += [f"- problem: {problem}" for problem in self.problems]
        passed = "everything passed" if self.ok else f"did not pass: {len(self.problems)}"
        return [*lines, f"- {passed}"]


def dry_run(
    suite: Suite,
    *,
    store: Path | None = None,
    limit_clips: int | None = None,
    say: Say = print,
    progress: Progress | None = None,
) -> DryRun:
    """Go through all that the suite would need, but for the training.

    The lists of every split are read and counted; every clip that is there is opened and its flow computed; every
    network of the suite, at its own size and with weights drawn at random, one after the other, takes a training clip
    (no backward pass), judges the clips by the whole protocol, and is saved and loaded again, whereupon the networks
    that start from it do. Listed videos that are missing are counted, and are no problem.

    Args:
        suite: what is to be tried.
        store: folder for the flow, which stays; None: one that is removed.
        limit_clips: how many clips go through the protocol; None: all that are there.
        say: takes a line for the user.
        progress: called with (done, total, what).

    Raises:
        UsageError: the suite leaves its data open and none were named.
    """
    if any(row.data is None for row in suite.rows()):
        raise UsageError(f"{suite.source} leaves its data open; name them with --data DATA")
    with tempfile.TemporaryDirectory(prefix="twostream-dry-run-") as folder:
        trier = _Trier(suite, Path(folder), store or Path(folder) / "flow", limit_clips, say, progress)
        trier.go()
    return trier.found


@dataclass(frozen=True)
class _Clips:
    """A data set: as its first readable split has it, and the items that stand for it."""

    annotations: Annotations
    items: tuple[VideoItem, ...]


class _Trier:
    """Goes through a suite step by step; what fails is noted and the rest goes on."""

    def __init__(
        self, suite: Suite, folder: Path, store: Path, limit: int | None, say: Say, progress: Progress | None
    ) -> None:
        self.suite = suite
        self.folder = folder
        self.store = store
        self.limit = limit
        self.say = say
        self.progress = progress
        self.machine = Machine.detect(suite.rows()[0].config.trainer.accelerator)
        self.found = DryRun(suite=suite.name)
        self.scores: dict[str, Scores] = {}

    def go(self) -> None:
        """All steps."""
        rows = self.suite.rows()
        variants = list({row.variant: row for row in rows}.values())
        clips = {
            str(name): self.read(data, [row for row in rows if row.data_name == name])
            for name, data in self.suite.data_sets().items()
        }
        stores: dict[str, FlowStore] = {}
        for row in variants:
            if row.joined is None and (known := clips[str(row.data_name)]):
                with self.noting(f"{row.variant}: flow"):
                    stores[row.variant] = self.flow(row, known, made=stores)
        for row in variants:
            if row.joined is not None:
                with self.noting(row.variant):
                    self.join(row)
            elif row.variant in stores and (known := clips[str(row.data_name)]):
                with self.noting(row.variant):
                    self.network(row, known, stores[row.variant], needed_by=variants)

    @contextmanager
    def noting(self, what: str) -> Iterator[None]:
        """Make a problem of whatever goes wrong inside."""
        try:
            yield
        except TwostreamError as error:
            self.problem(f"{what}: {error}")
        except Exception as error:
            # One network's accident must not hide what the others have to tell.
            self.say(traceback.format_exc())
            self.problem(f"{what}: {type(error).__name__}: {error}")

    def problem(self, text: str) -> None:
        """Keep it for the end, and tell it now."""
        self.found.problems.append(text)
        self.say(f"problem: {text}")

    def read(self, data: "str | MotionShapes | None", rows: Sequence[Row]) -> _Clips | None:
        """The lists of every split; None where none can be read."""
        first: Annotations | None = None
        items: dict[str, VideoItem] = {}
        name = str(rows[0].data_name)
        place = self.few_shapes(data) if isinstance(data, MotionShapes) else Path(str(data))
        for row in {row.split: row for row in rows}.values():
            with self.noting(f"{name}, split {row.split}"):
                annotations = load_annotations(
                    place,
                    split=row.split,
                    videos=row.config.videos,
                    allow_missing=True,
                    allow_leak=row.config.allow_leak,
                    seed=row.config.seed,
                )
                first = first or annotations
                items |= {item.name: item for item in annotations.items()}
                self.split(name, annotations, allowed=row.config.allow_missing)
        if first is None:
            return None
        self.found.clips[name] = len(items)
        if not items:
            self.found.stand_ins.append(name)
            return _Clips(first, self.stand_ins(name))
        return _Clips(first, tuple(items.values()))

    def split(self, name: str, annotations: Annotations, *, allowed: bool) -> None:
        """Count what a split lists, and compare it with what was published."""
        listed = {part: sum(counts) for part, counts in annotations.listed.items()}
        facts = SplitFacts(
            data=name,
            split=annotations.split,
            train=listed["train"],
            test=listed["test"],
            classes=len(annotations.classes),
            missing=len(annotations.missing),
            official="",
        )
        self.found.splits.append(facts)
        for part in ("train", "test"):
            counts = zip(annotations.classes, annotations.listed[part], strict=True)
            if lacking := [label for label, count in counts if not count]:
                text = f"{name}, split {annotations.split}: no {part} videos are listed of {first_few(lacking)}"
                # A fold need not test all classes, but what is not trained cannot be told.
                (self.problem if part == "train" else self.found.notes.append)(text)
        self.found.notes += annotations.warnings
        if annotations.missing and not allowed:
            self.found.notes.append(
                f"{name}: without the missing videos training is refused, unless the suite says allow_missing: true"
            )
        self.found.splits[-1] = replace(facts, official=official_name(annotations))

    def few_shapes(self, data: MotionShapes) -> Path:
        """A video of each class and part, instead of all that the suite would generate."""
        classes = data.settings().classes
        return motion_shapes.generate(
            self.folder / "videos" / data.name,
            data.set,
            train=classes,
            test=classes,
            seed=data.seed,
            size=data.size,
            frames=data.frames,
            difficulty=data.difficulty,
            classes=data.classes,
        )

    def stand_ins(self, name: str) -> tuple[VideoItem, ...]:
        """Generated clips in the place of videos that are not there."""
        width, height = _STAND_IN_SIZE
        items = []
        for number in range(_STAND_INS):
            picture = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
            path = self.folder / "videos" / name / f"stand_in{number}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_video(path, (np.roll(picture, 2 * t, axis=1) for t in range(_STAND_IN_FRAMES)), 25)
            items.append(VideoItem(path, f"stand_in{number}.mp4", number))
        self.say(f"{name}: no video of the lists is there; {counted(len(items), 'generated clip')} instead")
        return tuple(items)

    def resolved(self, row: Row, known: _Clips) -> TrainConfig:
        """The configuration as training would fill it in."""
        config = replace(row.config, data=str(known.annotations.data), out=str(self.folder / "run"))
        return resolve(
            adopt_store(config),
            machine=self.machine,
            clips=sum(known.annotations.listed["train"]),
            validation=0,
            pretrained=bool(row.after or config.init) or config.weights not in ("auto", "none"),
        )

    def flow(self, row: Row, known: _Clips, *, made: Mapping[str, FlowStore]) -> FlowStore:
        """The store of a row, with the flow of every clip; rows of the same settings share one."""
        config = self.resolved(row, known)
        if config.flow.store:
            open_store(config)
        flow = config.flow
        rate = f"{flow.fps:g}fps" if flow.fps else None
        name = "-".join(str(part) for part in (flow.method, flow.resize, rate) if part)
        root = self.store / str(row.data_name) / name
        if there := next((store for store in made.values() if store.root == root), None):
            return there
        store = open_store(replace(config, flow=replace(flow, store=str(root))))
        sources = sources_of(known.items)
        self.say(f"flow: opening {counted(len(sources), 'clip')} of {row.data_name}, {store.settings.describe()}")
        began = time.monotonic()
        summary = extract(sources, store, workers=config.flow.workers, progress=self.progress)
        self.found.flow_seconds += time.monotonic() - began
        for line in summary.lines():
            self.say(line)
        for reason in summary.failed.values():
            self.problem(f"{row.data_name}: {reason}")
        return store

    def network(self, row: Row, known: _Clips, store: FlowStore, *, needed_by: Sequence[Row]) -> None:
        """Pass a network; one that differs from an earlier in nothing but its training is not passed again."""
        items = tuple(item for item in known.items if store.has(item.video))
        if not items:
            return
        key = _key(row, store)
        same = next((trial for trial in self.found.trials if trial.key == key), None)
        judged = items if self.limit is None else _spread(items, self.limit)
        self.say(f"{row.variant}: {row.config.model}" + (f", the network of {same.variant}" if same else ""))
        trial, scores = try_network(
            row,
            self.resolved(row, known),
            known.annotations,
            items,
            () if same else judged,
            store,
            machine=self.machine,
            models=self.folder / "models",
            key=key,
            say=self.say,
            progress=self.progress,
            problem=self.problem,
        )
        if same:
            trial = replace(trial, same_as=same.variant, views=same.views, test_votes=same.test_votes)
            self.scores[row.variant] = self.scores[same.variant]
        if scores:
            figures_of(scores)
            self.scores[row.variant] = scores
            self.say(
                f"{row.variant}: {counted(len(judged), 'clip')} by {row.protocol} in "
                f"{seconds_text(trial.seconds_a_clip * len(judged))}, {trial.seconds_a_clip:.1f} s a clip"
            )
        self.found.trials.append(trial)
        if not any(row.variant == before.variant for other in needed_by for before in other.after):
            shutil.rmtree(self.folder / "models" / row.variant)

    def join(self, row: Row) -> None:
        """Fuse the scores of rows that were tried."""
        lacking = [before.variant for before in row.after if before.variant not in self.scores]
        if lacking:
            self.problem(f"{row.variant}: joins the scores of {', '.join(lacking)}, which did not pass")
            return
        scores = join_scores(row, [self.scores[before.variant] for before in row.after])
        figures_of(scores)
        tried = str(scores.meta.get("protocol"))
        self.found.notes.append(
            f"{row.variant}: the {row.joined} of {' and '.join(before.variant for before in row.after)} fuse to "
            f"{'x'.join(map(str, scores.logits.shape))} logits"
            + (f"; tried by {tried}, not by {row.protocol}" if tried != row.protocol else "")
        )


def _key(row: Row, store: FlowStore) -> str:
    """What the passage of a clip through a network depends on."""
    config = row.config
    numbers = sorted(config.model_args.items())
    clips = (config.augment, config.short_clips, config.no_flip, row.protocol, store.root)
    return repr((config.model, numbers, config.size, *clips))


def _spread(items: Sequence[VideoItem], count: int) -> tuple[VideoItem, ...]:
    """At most ``count`` items from all over the list, which is sorted by class."""
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return tuple(items[place] for place in dict.fromkeys(places.tolist()))


def _table(trials: Sequence[Trial]) -> list[str]:
    header = ["", "model", "parameters", "training clips: rgb", "flow", "votes", "test: views", "votes", "s a clip"]
    grid = [header, ["---", "---", *("---:" for _ in header[2:])]]
    for trial in trials:
        seconds = f"as {trial.same_as}" if trial.same_as else f"{trial.seconds_a_clip:.1f}"
        shapes = ["x".join(map(str, shape)) for shape in (trial.rgb, trial.flow)]
        cells = [trial.variant, trial.model, f"{trial.parameters:,}", *shapes, str(trial.train_votes)]
        grid.append([*cells, str(trial.views), str(trial.test_votes), seconds])
    return ["| " + " | ".join(cells) + " |" for cells in grid]
