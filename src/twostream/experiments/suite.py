"""A suite: variants x seeds x splits of training runs, declared in one YAML file and checked whole when it is read.

.. code-block:: yaml

    name: two_streams                  # of its folder
    title: Each stream alone, and both
    data: ../shared/data/my_videos     # or {motion_shapes: {set: conjunction, ...}}; or left open, for --data
    base: {size: 112, optim: {lr: 1e-3}}            # any keys of `twostream train --config`
    variants:                          # what differs from the base, by name
      spatial: {model: spatial_resnet18}
      late: {model: two_stream_resnet18}
      longer: {after: late, trainer: {epochs: 20}}  # starts from late's run of the same seed and split
      joined: {after: [looks, moves], model: st_resnet18}   # a run for each stream
      inflated: {images_after: spatial}             # from spatial's network on frames, as from image weights
      both: {scores_of: [looks, moves]}             # late fusion: their votes on every test video together, no training
      other: {seed_plus: 100}                       # as the base, from a seed that is 100 higher
      best: {fuse: [late, inflated]}                # the mean of what whole models answer, no training either
      crops: {fuse: [late], protocol: 25x10}        # late's network, judged in another way than all others
    seeds: [0, 1]
    splits: [1, 2, 3]                  # or {leave_one_out: [1, 10]}: ten folds, each without one group of 1 to 10
    protocol: 25-step
    baseline: late                     # the variant that the others are compared with
    bar: flow_histogram                # a reference that all lines are compared with too
    streams: true                      # each stream's votes alone as lines of their own
    parts: {near: ["*_c01.*"], far: ["*_c0[23].*"]}     # of the test videos, by name: each line's top-1 on each
    references: [chance, clip_shape]   # what needs no network; flow_histogram and ceiling too
    claims:                            # what the rows are to show, said before they are run
      - {claim: Two streams know more than one, better: late, worse: spatial}
      - {claim: Motion alone is enough, better: late, stream: motion, above: 0.5}   # or above: chance, ceiling
    tiers:                             # parts that fit some hardware, for --tier
      cpu: {hardware: two cores, seeds: [0], without: [inflated, best]}
    published:                         # what others print for the same splits, beside the own lines
      - {what: ST-ResNet, top1: 0.934, source: its table 4, certainty: verified}

Suites that come with the package are known by name.
"""

import difflib
import hashlib
import importlib.resources
import itertools
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch

from twostream.data.items import DataError, first_few
from twostream.data.leave_one_out import Fold, folds_of, split_label, split_name
from twostream.data.motion_shapes import Settings, settings_for
from twostream.errors import TwostreamError, UsageError
from twostream.evaluation.protocols import get_protocol
from twostream.experiments.claims import Claim, check_claims
from twostream.experiments.published import Published
from twostream.experiments.schema import SuiteError, build, keys_of, merged, read_yaml
from twostream.experiments.tiers import Tier, check_tiers
from twostream.flow.estimators import create_estimator
from twostream.models.registry import create_model, known_numbers
from twostream.training.config import TrainConfig

Reference = Literal["chance", "clip_shape", "flow_histogram", "ceiling"]

# How scores of rows that were trained apart become one row's: as the votes of one network, whose streams they are, or
# as the answers of several, whose probabilities are averaged.
Joining = Literal["votes", "probabilities"]
_JOINING: dict[str, Joining] = {"scores_of": "votes", "fuse": "probabilities"}

# Where files lie and how many processes work changes no figure; paths would also tie a row to one machine.
_NO_MATTER = {
    "data",
    "out",
    "videos",
    "flow.store",
    "flow.workers",
    "trainer.loader_workers",
    "trainer.checkpoint_seconds",
    "trainer.tensorboard",
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


@dataclass(frozen=True, kw_only=True)
class MotionShapes:
    """Diagnostic videos that a suite generates on the way; the fields are the arguments of ``motion_shapes.generate``.

    They have the same ``seed`` in all rows, so that rows of different seeds are tested on the same videos.
    """

    set: str
    train: int = 200
    val: int = 0
    test: int = 100
    seed: int = 0
    size: int = 128
    frames: int | None = None
    difficulty: float = 0.5
    classes: int | None = None

    def __post_init__(self) -> None:
        self.settings()

    def settings(self) -> Settings:
        """What the pictures depend on.

        Raises:
            UsageError: a value that the set does not have.
        """
        return settings_for(
            self.set,
            seed=self.seed,
            size=self.size,
            frames=self.frames,
            difficulty=self.difficulty,
            classes=self.classes,
        )

    @property
    def name(self) -> str:
        """The set with what differs from the defaults: ``conjunction-train400-size96``; names a folder."""
        other = [f for f in fields(self)[1:] if getattr(self, f.name) != f.default]
        return "-".join([self.set, *(f"{f.name}{getattr(self, f.name)}" for f in other)])


@dataclass(frozen=True, eq=False)  # its dictionaries cannot be hashed; a row is itself
class Row:
    """One training run of a suite.

    Attributes:
        variant, seed, split: its place in the suite.
        data: a path, videos to be generated, or None where the suite leaves it open and none was named.
        config: how it is trained; ``data`` and ``out`` are filled in when it is run.
        protocol: how it is judged; rows that are joined may have been judged otherwise before.
        after: the rows whose weights it starts from, one after the other.
        as_images: only its network on frames is taken, for the networks of both streams.
        joined: nothing is trained: the scores of the rows in ``after`` are joined, and how.
    """

    variant: str
    seed: int
    split: str
    data: "str | MotionShapes | None"
    config: TrainConfig
    protocol: str
    after: "tuple[Row, ...]" = ()
    as_images: bool = False
    joined: Joining | None = None

    @property
    def name(self) -> str:
        """``late-seed0-split1`` or ``late-seed0-leave-03-of-01-10``, the name of its file."""
        return f"{self.variant}-seed{self.seed}-{split_label(self.split)}"

    @property
    def run_name(self) -> str:
        """The name of its run folder: another configuration gets another folder, so that neither is lost."""
        return self.run_name_of(self.digest)

    def run_name_of(self, digest: str) -> str:
        """The name of the run folder of a configuration."""
        return f"{self.name}-{digest[:8]}"

    @property
    def data_name(self) -> str | None:
        """What its data are called in tables and files: the folder's name, whatever machine it is on."""
        return data_name(self.data)

    def asked(self) -> dict[str, Any]:
        """All that its figures depend on, as asked for, by dotted key."""
        asked = {key: value for key, value in flat(asdict(self.config)).items() if key not in _NO_MATTER}
        if self.joined is not None:
            # The votes' key is older than the other way.
            how = "after.as_scores" if self.joined == "votes" else "after.as_probabilities"
            asked = {"seed": self.seed, "split": self.config.split, how: True}
        asked |= {"data": self.data_name, "protocol": self.protocol}
        if isinstance(self.data, MotionShapes):
            asked |= flat(asdict(self.data), "motion_shapes.")
        for number, row in enumerate(self.after):
            place = f"after.{number}." if number else "after."
            asked |= {f"{place}variant": row.variant} | flat(row.asked(), place)
        if self.as_images:
            asked["after.as_images"] = True
        # As it comes back from a file.
        return dict(json.loads(json.dumps(asked)))

    @property
    def digest(self) -> str:
        """SHA-256 of what was asked for beside the defaults, so that an option that comes to be later changes none."""
        return _sha256(without_defaults(self.asked()))

    @property
    def earlier_digest(self) -> str:
        """The digest that counted defaults too, by which run folders were named before."""
        return _sha256(self.asked())


@dataclass(frozen=True, kw_only=True)
class Suite:
    """What a suite's file says.

    Attributes:
        name: of its folder.
        title: of its table.
        variants: by name, the keys that differ from ``base``; besides those of a training run ``data``, and ``after``
            or ``images_after``: the variant, or for ``after`` several, from whose run of the same seed and split it
            starts; and ``seed_plus``, by which its seed is higher than the row's, for a second network of the same
            kind (on data whose split is given: one that is drawn hangs on the seed). Or alone ``scores_of``, variants
            whose votes are counted together as those of one network, each stream once, or ``fuse``, variants whose
            probabilities are averaged. Beside all of these ``protocol``, where a variant is judged otherwise than the
            suite's: networks that ``scores_of`` or ``fuse`` name are judged anew then, and one is enough.
        data: a path, videos to be generated, or None: named on the command line.
        base: keys of a training run that all variants share.
        seeds, splits: every variant is run on each pair of them. Splits are numbers, or all of them folds.
        protocol: how runs are judged, but for variants with one of their own.
        baseline: the variant that the others are compared with.
        bar: a reference that all lines are compared with as well, one that answers video by video.
        parts: of the test videos, by patterns that their names fit: a second table has each line's accuracy on each.
        streams: whether each stream's votes alone are lines of the table; late fusion needs one run then, not three.
        published: what others print, for lines of their own.
        references: what is put beside the rows: ``chance``; ``clip_shape``, a linear model on width, height and frame
            count; ``flow_histogram``, the same on histograms of the rows' flow; ``ceiling``, the best that any two
            streams can reach on generated videos.
        tiers: parts of it that fit some hardware, by name.
        claims: what the rows are to show; said beforehand, and corrected for their number.
        source: the name or path it was loaded by.
        open_data: the file as a whole names none; a variant still may.
    """

    name: str
    title: str
    variants: dict[str, dict[str, Any]]
    data: str | MotionShapes | None = None
    base: dict[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    splits: tuple[int | str, ...] = (1,)
    protocol: str = "25-step"
    baseline: str | None = None
    bar: Literal["clip_shape", "flow_histogram"] | None = None
    streams: bool = False
    parts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    references: tuple[Reference, ...] = ()
    tiers: dict[str, Tier] = field(default_factory=dict)
    claims: tuple[Claim, ...] = ()
    published: tuple[Published, ...] = ()
    source: str
    open_data: bool

    @classmethod
    def load(cls, suite: Path | str, *, data: Path | str | None = None) -> "Suite":
        """Read a suite and check all of its rows.

        Args:
            suite: a YAML file, or the name of a suite of the package.
            data: data set, where the suite leaves it open.

        Raises:
            UsageError: no such suite, or ``data`` for a suite that names its own.
            SuiteError: what the file says cannot be run; names the file and the key.
        """
        path = find_suite(str(suite))
        values = read_yaml(path)
        open_data = values.get("data") is None
        values["data"] = str(data) if data is not None else _source_of_videos(values.get("data"), f"{path}: data")
        if "splits" in values:
            values["splits"] = _splits(values["splits"], f"{path}: splits")
        given = {"data": values.pop("data"), "source": str(suite), "open_data": open_data}
        read = build(cls, values, str(path), given=given)
        if data is not None and not read.asks_for_data:
            raise UsageError(f"{path} names its own data; --data is for suites that leave them open")
        read._check()
        return read

    @property
    def asks_for_data(self) -> bool:
        """Whether the data of some variant are left to the command line."""
        return self.open_data and any(not {"data", *_JOINING} & keys.keys() for keys in self.variants.values())

    @property
    def leaves_one_out(self) -> bool:
        """Whether the splits are folds, which count together: accuracy is then that over the videos of all of them."""
        return not isinstance(self.splits[0], int)

    def rows(self) -> tuple[Row, ...]:
        """All rows, variant by variant, seed by seed, split by split.

        Raises:
            SuiteError: keys of a variant that no training run has, or values that do not fit.
        """
        rows: dict[tuple[str, int, int | str], Row] = {}
        for variant, seed, split in itertools.product(self.variants, self.seeds, self.splits):
            place = f"{self.source}: variants.{variant}"
            keys = dict(self.variants[variant])
            images_after = keys.pop("images_after", None)
            protocol = str(keys.pop("protocol", self.protocol))
            join = next((key for key in _JOINING if key in keys), None)
            scores_of = None if join is None else keys.pop(join)
            named = scores_of if isinstance(scores_of, list) and all(isinstance(n, str) for n in scores_of) else []
            least = 1 if "protocol" in self.variants[variant] else 2
            if join and (keys or images_after or len(set(named)) < least or len(set(named)) < len(named)):
                raise SuiteError(
                    f"{place}: {join} names two variants or more, each once, and stands alone, as it trains nothing; "
                    "beside a protocol of its own one is enough"
                )
            after = keys.pop("after", images_after if join is None else scores_of)
            own = keys.pop("data", None)
            plus = keys.pop("seed_plus", 0)
            if isinstance(plus, bool) or not isinstance(plus, int) or plus < 0:
                raise SuiteError(f"{place}: seed_plus is a whole number from 0, got {plus!r}")
            if plus and seed + plus in self.seeds:
                raise SuiteError(
                    f"{place}: seed_plus {plus} leads from seed {seed} to {seed + plus}, which is a seed of the suite "
                    "itself; take a larger one, so that no network stands for two"
                )
            values = merged(keys_of(self.base, f"{self.source}: base"), keys)
            given_values = {"data": "", "out": "", "seed": seed + plus, "split": split}
            config = build(TrainConfig, values, place, given=given_values)
            before = [after] if isinstance(after, str) else [] if after is None else after
            if not isinstance(before, list) or any((name, seed, split) not in rows for name in before):
                raise SuiteError(f"{place}: {join or 'after'} must name an earlier variant, or several, got {after!r}")
            started = [name for name in before if rows[name, seed, split].joined is not None]
            if started and join is None:
                raise SuiteError(
                    f"{place}: {started[0]} joins the scores of others and has no network to start from; name one of "
                    f"{', '.join(start.variant for start in rows[started[0], seed, split].after)}"
                )
            if join == "scores_of" and any(rows[name, seed, split].joined == "probabilities" for name in started):
                raise SuiteError(
                    f"{place}: scores_of counts the votes of streams, and {started[0]} has whole answers; take fuse"
                )
            if isinstance(images_after, list):
                raise SuiteError(f"{place}: images_after names one variant, got {images_after!r}")
            sources = ["after", "images_after", "init"]
            data = self.data if own is None else _source_of_videos(own, f"{place}: data")
            if join is not None:
                of_data = {rows[name, seed, split].data_name: rows[name, seed, split].data for name in before}
                if len(of_data) > 1:
                    raise SuiteError(f"{place}: {join} must be of the same data, got {', '.join(map(str, of_data))}")
                (data,) = of_data.values()
            given = [key for key in sources if self.variants[variant].get(key) or (key == "init" and config.init)]
            if len(given) > 1:
                raise SuiteError(f"{place}: {' and '.join(given)} both say where the weights come from; give one")
            rows[variant, seed, split] = Row(
                variant=variant,
                seed=seed,
                split=str(split),
                data=data,
                config=config,
                protocol=protocol,
                after=tuple(rows[name, seed, split] for name in before),
                as_images=images_after is not None,
                joined=None if join is None else _JOINING[join],
            )
        return tuple(rows.values())

    def data_sets(self) -> dict[str | None, "str | MotionShapes | None"]:
        """The distinct data of all rows by name, in order."""
        return {row.data_name: row.data for row in self.rows()}

    def command(self, variant: str | None = None) -> str:
        """The command that makes the rows, of one variant or all."""
        data = f" --data {data_name(self.data) or 'DATA'}" if self.asks_for_data else ""
        return f"twostream reproduce {self.source}{data}" + (f" --only {variant}" if variant else "")

    def _check(self) -> None:
        path = self.source
        for key, names in (("name", [self.name]), ("variants", list(self.variants))):
            for name in names:
                if not _NAME.fullmatch(name):
                    raise SuiteError(f"{path}: {key}: {name!r} names files; letters, digits and _ . + - only")
        for key in ("variants", "seeds", "splits"):
            values = list(getattr(self, key))
            if not values:
                raise SuiteError(f"{path}: {key} is empty, so there is nothing to run")
            if len(set(values)) < len(values):
                raise SuiteError(f"{path}: {key} names one of {values} twice")
        for part, patterns in self.parts.items():
            if not patterns:
                raise SuiteError(f"{path}: parts.{part} names no pattern of videos, like '*_c01.*'")
        if self.baseline is not None and self.baseline not in self.variants:
            near = difflib.get_close_matches(self.baseline, self.variants, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(self.variants)}"
            raise SuiteError(f"{path}: baseline: no variant is called {self.baseline!r}{hint}")
        if self.bar is not None and self.bar not in self.references:
            there = ", ".join(self.references) or "none"
            raise SuiteError(f"{path}: bar: {self.bar} is none of the suite's references, which are {there}")
        judged = {"protocol": self.protocol} | {
            f"variants.{name}.protocol": keys["protocol"] for name, keys in self.variants.items() if "protocol" in keys
        }
        for place, protocol in judged.items():
            try:
                get_protocol(str(protocol))
            except UsageError as error:
                raise SuiteError(f"{path}: {place}: {error}") from error
        # By itself first: a mistake in it is not the first variant's.
        build(TrainConfig, self.base, f"{path}: base", given={"data": "", "out": "", "seed": 0, "split": 1})
        for row in self.rows():
            if isinstance(row.data, MotionShapes) and row.split != "1":
                raise SuiteError(f"{path}: splits: generated videos have split 1 only, got {list(self.splits)}")
        variants = {row.variant: row for row in self.rows()}
        starts = {name: [before.variant for before in row.after] for name, row in variants.items()}
        check_tiers(self.tiers, path, starts=starts, seeds=self.seeds)
        streams: dict[str, tuple[str, ...]] = {}
        for row in variants.values():
            if row.joined is not None:
                streams[row.variant] = ()
                if row.joined == "votes":
                    streams[row.variant] = tuple(s for before in row.after for s in streams[before.variant])
                continue
            config = row.config
            numbers = ({"size": config.size} if config.size else {}) | config.model_args
            try:
                create_estimator(config.flow.estimator or "tvl1", **(config.flow.parameters or {}))
                with torch.device("meta"):  # shapes without memory
                    model = create_model(config.model, num_classes=2, **numbers)
            except TwostreamError as error:
                raise SuiteError(f"{path}: variants.{row.variant}: {error}") from error
            streams[row.variant] = tuple(stream for stream, _ in model.votes)
        check_claims(
            self.claims,
            path,
            streams=streams,
            data={variant: row.data_name for variant, row in variants.items()},
            generated=[variant for variant, row in variants.items() if isinstance(row.data, MotionShapes)],
        )


def find_suite(suite: str) -> Path:
    """The file of a suite given by path or name.

    Raises:
        UsageError: there is none.
    """
    if Path(suite).is_file():
        return Path(suite)
    shipped = shipped_suites()
    if suite in shipped:
        return shipped[suite]
    near = difflib.get_close_matches(suite, shipped, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UsageError(f"{suite!r} is neither a file nor the name of a suite; {hint}The suites are {', '.join(shipped)}")


def shipped_suites() -> dict[str, Path]:
    """The suites that come with the package, by name."""
    folder = Path(str(importlib.resources.files("twostream.experiments"))) / "suites"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def data_name(data: "str | MotionShapes | None") -> str | None:
    """What data are called in tables and files; None where they are not known."""
    if isinstance(data, MotionShapes):
        return data.name
    return None if data is None else Path(data).resolve().name


def _splits(value: Any, place: str) -> Any:
    """``splits:`` of a file as numbers or names of folds; ``{leave_one_out: [1, 10]}`` as ten of these."""
    try:
        if isinstance(value, Mapping):
            match value:
                case {"leave_one_out": [int(first), int(last)]} if len(value) == 1 and first >= 0:
                    return [str(fold) for fold in folds_of(first, last)]
            raise SuiteError(f"{place} is a list, or {{leave_one_out: [1, 10]}} for a range of groups, got {value!r}")
        if not isinstance(value, list):
            return value
        names = [split_name(split) if isinstance(split, str) else split for split in value]
    except DataError as error:
        raise SuiteError(f"{place}: {error}") from error
    # A numbered split is one number whichever way it is written; finished rows hold it as such.
    splits = [int(name) if isinstance(name, str) and name.isdecimal() else name for name in names]
    if len({isinstance(split, str) for split in splits}) > 1:
        raise SuiteError(f"{place}: numbered splits and folds do not make one mean; take either, got {value!r}")
    left_out = Counter(fold.test for split in splits if isinstance(split, str) and (fold := Fold.parse(split)))
    if twice := [str(group) for group, count in left_out.items() if count > 1]:
        raise SuiteError(
            f"{place}: the videos of a group would count twice; left out more than once: {first_few(twice)}"
        )
    return splits


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, by dotted key."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def own_key(key: str) -> str:
    """A key of what was asked without the stages it belongs to: ``size`` of ``after.1.size``."""
    return re.sub(r"^(after\.(\d+\.)?)+", "", key)


def without_defaults(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What of a row's configuration is not as it would be if nothing had been asked for."""
    defaults = _defaults()
    kept = {}
    for key, value in asked.items():
        own = own_key(key)
        if own.startswith("model_args."):
            model = asked.get(key.removesuffix(own) + "model", defaults["model"])
            known = _numbers_of(str(model))
            own = own.removeprefix("model_args.")
        else:
            known = defaults
        if own not in known or known[own] != value:
            kept[key] = value
    return kept


@cache
def _defaults() -> dict[str, Any]:
    values = flat(asdict(TrainConfig(data="", out=""))) | flat(asdict(MotionShapes(set="same_look")), "motion_shapes.")
    # These have none.
    for key in ("data", "out", "motion_shapes.set"):
        del values[key]
    return dict(json.loads(json.dumps(values)))


@cache
def _numbers_of(model: str) -> dict[str, Any]:
    try:
        return dict(json.loads(json.dumps(known_numbers(model))))
    except UsageError:  # of a row that was made when there was a model of that name
        return {}


def _sha256(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _source_of_videos(value: Any, place: str) -> "str | MotionShapes | None":
    """``data:`` of a file: a path, or ``{motion_shapes: {...}}``."""
    if value is None or isinstance(value, str):
        return value
    keys = keys_of(value, place)
    if set(keys) != {"motion_shapes"}:
        raise SuiteError(f"{place} is a path or {{motion_shapes: {{set: NAME, ...}}}}, got {value!r}")
    return build(MotionShapes, keys["motion_shapes"], f"{place}.motion_shapes")


__all__ = ["MotionShapes", "Reference", "Row", "Suite", "SuiteError", "find_suite", "shipped_suites"]
