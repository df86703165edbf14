"""One table from the rows that are there: a line a variant, and a stream where asked, over the splits."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from twostream.clip import ScoresError
from twostream.experiments.evidence import Answers, Finding, accuracy_bounds, difference, judge_claims, reserve
from twostream.experiments.folds import pooled
from twostream.experiments.hits import Hits
from twostream.experiments.rows import Finished, SuiteFolder, changes, reference_changes, trained_by_place
from twostream.experiments.schema import SuiteError
from twostream.experiments.suite import Row, Suite
from twostream.units import seconds_text


@dataclass(frozen=True, kw_only=True)
class Versus:
    """A line against the baseline, or against the bar, on the videos that both were judged on.

    Attributes:
        difference, low, high: of top-1, with its 95 % interval.
        method: what was resampled: seeds, and groups where the data know them, each with its videos in all splits.
        pairs: rows that both have, of the same seed and split.
        reserve: what the interval does not say, where seeds or groups are few.
    """

    difference: float
    low: float
    high: float
    method: str
    pairs: int
    reserve: str | None


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of the table.

    Attributes:
        variant: its name, or that of the reference.
        stream: None for the whole answer, or the stream whose votes alone are judged.
        data: what the data are called.
        reference: whether it is one.
        splits: top-1 by split, mean over the seeds that are there; None where none is.
        top1, mean_class: mean over the splits that are there; of folds, over the videos of all of them.
        spread: standard deviation of top-1, ``spread_over`` "seeds" (of the mean over splits) or, with one seed,
            "splits" or "folds".
        rows, of: how many rows are there, and how many belong there.
        steps, training_seconds: optimiser steps and wall time of training, those of the runs that a row starts from
            included; mean over the rows that are there, and None where the file of such a run is not.
        cpu_seconds: of all cores and processes, counted as ``training_seconds`` is, judging included.
        interval: the 95 % interval of top-1, seeds and groups being resampled; None where no row says which videos it
            got right.
        versus: against the baseline.
        over_bar: against the reference that is the suite's bar.
        parts: top-1 by part of the test videos, over those of all rows together; None where none is known to be of it.
    """

    variant: str
    stream: str | None
    data: str | None
    reference: bool
    splits: dict[str, float | None]
    top1: float | None
    mean_class: float | None
    spread: float | None
    spread_over: str | None
    rows: int
    of: int
    steps: float | None = None
    training_seconds: float | None = None
    cpu_seconds: float | None = None
    interval: tuple[float, float] | None = None
    versus: Versus | None = None
    over_bar: Versus | None = None
    parts: dict[str, float | None] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Variant and stream as the table shows them."""
        name = self.variant.replace("_", " ") if self.reference else self.variant
        return name if self.stream is None else f"{name}, {self.stream} alone"


@dataclass(frozen=True, kw_only=True)
class Table:
    """All lines, what became of the suite's claims, and what has to be said about them."""

    suite: Suite
    lines: tuple[Line, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]


def make_table(suite: Suite, out: Path) -> Table:
    """Read the rows that are there.

    Rows of another configuration than the suite's are left out, and a note says so.

    Raises:
        SuiteError: the file of a row is damaged, or the data are left open and the rows are on several.
    """
    folder = SuiteFolder(suite, out)
    there: dict[Row, Finished] = {}
    notes: list[str] = []
    rows = suite.rows()
    for row in rows:
        finished = folder.finished(row)
        if finished is None:
            continue
        if different := changes(finished, row):
            notes.append(f"left out: {row.name}, made with another configuration ({'; '.join(different)})")
            continue
        there[row] = finished
    answers = Answers(folder, there)
    lines: list[Line] = []
    for data, of_data in _by_data(folder, rows, there).items():
        answered = [*_references(folder, data, of_data, notes)]
        lines += [line for line, _ in answered]
        bar = next((hits for line, hits in answered if (line.variant, line.stream) == (suite.bar, None)), {})
        for variant in dict.fromkeys(row.variant for row in of_data):
            own = {row: there.get(row) for row in of_data if row.variant == variant}
            for stream in _streams(suite, own):
                line = _line(own, variant, stream, data, there, folds=suite.leaves_one_out)
                mine = answers.by_place([*own])
                lines.append(
                    replace(
                        line,
                        interval=accuracy_bounds(mine, stream=stream),
                        versus=_versus(suite, of_data, own, answers, stream, notes),
                        over_bar=_over_bar(mine, bar, variant, stream, notes),
                        parts=_by_part(suite, mine.values(), stream),
                    )
                )
    notes += _empty_parts(suite, lines) if there else []
    notes += _made_by(list(there.values()), len(rows))
    notes += _tiers(suite, rows, there)
    return Table(suite=suite, lines=tuple(lines), findings=judge_claims(suite, rows, answers), notes=tuple(notes))


def table_json(table: Table) -> dict[str, Any]:
    """The table for machines."""
    suite = table.suite
    return {
        "suite": suite.name,
        "title": suite.title,
        "protocol": suite.protocol,
        "baseline": suite.baseline,
        "seeds": list(suite.seeds),
        "splits": [str(split) for split in suite.splits],
        "lines": [asdict(line) for line in table.lines],
        "claims": [asdict(finding) for finding in table.findings],
        "published": [figure.to_dict() for figure in suite.published],
        "notes": list(table.notes),
        "command": suite.command(),
    }


def _by_data(folder: SuiteFolder, rows: Sequence[Row], there: Mapping[Row, Finished]) -> dict[str | None, list[Row]]:
    """Rows by what their data are called; where the suite leaves that open, the files know."""
    files = sorted((folder.path / "references").glob("*.json"))
    made = [*there.values(), *(reference for file in files if (reference := Finished.load(file)))]
    names = list(dict.fromkeys(finished.data for finished in made))
    if len(names) > 1 and any(row.data is None for row in rows):
        raise SuiteError(f"{folder.path} has rows on {' and on '.join(names)}; say which with --data")
    known = names[0] if names else None
    grouped: dict[str | None, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row.data_name or known, []).append(row)
    return grouped


def _references(
    folder: SuiteFolder, data: str | None, rows: Sequence[Row], notes: list[str]
) -> Iterator[tuple[Line, dict[str, Hits]]]:
    """A line a reference, with its answers by split where it has such."""
    splits = list(dict.fromkeys(row.split for row in rows))
    for reference in folder.suite.references:
        found = {s: Finished.load(folder.reference_file(reference, str(data), s)) for s in splits}
        otherwise: dict[str, list[str]] = {}
        for row in trained_by_place(rows).values():
            finished = found[row.split]
            if finished is not None and (different := reference_changes(finished, reference, row)):
                found[row.split] = None
                otherwise.setdefault("; ".join(different), []).append(row.split)
        for different_in, left_out in otherwise.items():
            where = f"split {left_out[0]}" if len(left_out) == 1 else f"{len(left_out)} splits"
            notes.append(f"left out: {reference} on {where}, made otherwise ({different_in})")
        there = [finished for finished in found.values() if finished]
        if not there:
            continue
        streams = [None, *(there[0].streams if folder.suite.streams else ())]
        for stream in streams:
            figures = _figures(stream)
            means = {s: figures(finished)["top1"] if finished else None for s, finished in found.items()}
            of_class = [figures(finished).get("mean_class") for finished in there]
            overall = {"top1": _mean(means.values()), "mean_class": _mean(of_class)}
            if folder.suite.leaves_one_out:
                overall = pooled(figures(finished) for finished in there)
            hits = {split: finished.hits for split, finished in found.items() if finished and finished.hits}
            line = Line(
                variant=reference,
                stream=stream,
                data=data,
                reference=True,
                splits=means,
                top1=overall["top1"],
                mean_class=overall["mean_class"],
                spread=None,
                spread_over=None,
                rows=len(there),
                of=len(splits),
                # It has no seeds.
                interval=accuracy_bounds({(0, split): of_split for split, of_split in hits.items()}, stream=stream),
                parts=_by_part(folder.suite, hits.values(), stream),
            )
            yield line, hits


def _empty_parts(suite: Suite, lines: Sequence[Line]) -> list[str]:
    return [
        f"no test video is of the part {part!r}: none fits {' or '.join(patterns)}"
        for part, patterns in suite.parts.items()
        if all(line.parts.get(part) is None for line in lines)
    ]


def _by_part(suite: Suite, answers: Iterable[Hits], stream: str | None) -> dict[str, float | None]:
    """Top-1 on each part of the test videos, counted over all rows together."""
    right: dict[str, list[float]] = {part: [] for part in suite.parts}
    for hits in answers:
        for video, hit in zip(hits.videos, hits.values(stream), strict=True):
            for part, patterns in suite.parts.items():
                if any(fnmatchcase(video, pattern) for pattern in patterns):
                    right[part].append(float(hit))
    return {part: _mean(values) for part, values in right.items()}


def _streams(suite: Suite, own: Mapping[Row, Finished | None]) -> list[str | None]:
    """The whole answer, then each stream that a finished row knows."""
    streams = {stream: None for finished in own.values() if finished for stream in finished.streams}
    return [None, *(streams if suite.streams else ())]


def _figures(stream: str | None) -> Callable[[Finished], dict[str, Any]]:
    return lambda finished: finished.figures if stream is None else finished.streams[stream]


def _line(
    own: Mapping[Row, Finished | None],
    variant: str,
    stream: str | None,
    data: str | None,
    all_there: Mapping[Row, Finished],
    *,
    folds: bool,
) -> Line:
    figures = _figures(stream)
    there = {row: figures(finished) for row, finished in own.items() if finished}
    splits = list(dict.fromkeys(row.split for row in own))

    def by_split(key: str) -> dict[str, float | None]:
        return {s: _mean(values[key] for row, values in there.items() if row.split == s) for s in splits}

    means = by_split("top1")
    # Only seeds that saw all splits can be compared with each other.
    seeds = {
        seed: [values for row, values in there.items() if row.seed == seed]
        for seed in dict.fromkeys(row.seed for row in there)
    }
    overall = {key: _mean(by_split(key).values()) for key in ("top1", "mean_class")}
    of_seeds = [values for values in seeds.values() if len(values) == len(splits)]
    if folds:
        overall = pooled(there.values())
    whole = [pooled(v)["top1"] if folds else _mean(one["top1"] for one in v) for v in of_seeds]
    of_all = [value for value in whole if value is not None]
    one_seed = [value for value in means.values() if value is not None]
    spread, over = None, None
    if len(of_all) > 1:
        spread, over = stdev(of_all), "seeds"
    elif len(seeds) == 1 and len(one_seed) > 1:
        spread, over = stdev(one_seed), "folds" if folds else "splits"
    return Line(
        variant=variant,
        stream=stream,
        data=data,
        reference=False,
        splits=means,
        top1=overall["top1"],
        mean_class=overall["mean_class"],
        spread=spread,
        spread_over=over,
        rows=len(there),
        of=len(own),
        steps=_mean(_over_stages(row, "steps", all_there) for row in there),
        training_seconds=_mean(_over_stages(row, "training_seconds", all_there) for row in there),
        cpu_seconds=_mean(_over_stages(row, "cpu_seconds", all_there) for row in there),
    )


def _over_stages(row: Row, key: str, there: Mapping[Row, Finished]) -> float | None:
    """What a row and all that it starts from cost together; None where that is not known of one of them."""
    stages: dict[Row, None] = {}
    reached = [row]
    while reached:
        stage = reached.pop()
        if stage not in stages:  # two networks that are joined can have begun alike
            stages[stage] = None
            reached += stage.after
    costs = [there[stage].cost.get(key) if stage in there else None for stage in stages]
    known = [cost for cost in costs if cost is not None]
    return sum(known) if len(known) == len(costs) else None


def _mean(values: Any) -> float | None:
    numbers = [value for value in values if value is not None]
    return fmean(numbers) if numbers else None


def _versus(
    suite: Suite,
    of_data: Sequence[Row],
    own: Mapping[Row, Finished | None],
    answers: Answers,
    stream: str | None,
    notes: list[str],
) -> Versus | None:
    """The comparison with the baseline's rows of the same data, seed and split."""
    baseline = [row for row in of_data if row.variant == suite.baseline]
    # The baseline is not compared with itself, but its streams are.
    if stream is None and set(baseline) & set(own):
        return None
    mine, theirs = answers.by_place([*own]), answers.by_place(baseline)
    return _compared(mine, theirs, stream, f"the baseline: {next(iter(own)).variant}", notes)


def _over_bar(
    mine: Mapping[tuple[int, str], Hits], bar: Mapping[str, Hits], variant: str, stream: str | None, notes: list[str]
) -> Versus | None:
    """The comparison with a reference, which is the same for all seeds, on the same splits."""
    theirs = {(seed, split): bar[split] for seed, split in mine if split in bar}
    # A reference has no streams: its whole answer is what each of them is compared with.
    return _compared(mine, theirs, stream, f"the bar: {variant}", notes)


def _compared(
    mine: Mapping[tuple[int, str], Hits],
    theirs: Mapping[tuple[int, str], Hits],
    stream: str | None,
    what: str,
    notes: list[str],
) -> Versus | None:
    try:
        found = difference(mine, theirs, stream=stream)
    except ScoresError as error:
        notes.append(f"not compared with {what} ({error})")
        return None
    if found is None:
        return None
    return Versus(
        difference=found.value,
        low=found.low,
        high=found.high,
        method=found.method,
        pairs=len(mine.keys() & theirs.keys()),
        reserve=reserve(found),
    )


def _made_by(there: Sequence[Finished], rows: int) -> Iterator[str]:
    """How much of the suite is there, how long it took, on what and with what."""
    if not there:
        yield f"0 of {rows} rows are finished"
        return
    took = sum(finished.cost["seconds"] or 0.0 for finished in there)
    machines = dict.fromkeys(f"{f.machine['gpu'] or f.machine['cpu']} ({f.machine['cores']} cores)" for f in there)
    dates = sorted(finished.date[:10] for finished in there)
    when = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    versions = dict.fromkeys(f"twostream {f.versions['twostream']}, torch {f.versions['torch']}" for f in there)
    yield (
        f"{len(there)} of {rows} rows are finished, in {seconds_text(took)} on {' and '.join(machines)}, {when}, "
        f"with {' and '.join(versions)}"
    )


def _tiers(suite: Suite, rows: Sequence[Row], there: Mapping[Row, Finished]) -> Iterator[str]:
    """How much of each tier is there, and what that cost."""
    for name, tier in suite.tiers.items():
        of_tier = [row for row in rows if tier.has(row.variant, row.seed)]
        made = [there[row] for row in of_tier if row in there]
        # Where other work took a part of the cores, wall time says little.
        spent = sum(finished.cost.get("cpu_seconds") or finished.cost["seconds"] or 0.0 for finished in made)
        seeds = f"{len(tier.seeds) or len(suite.seeds)} seeds" if len(tier.seeds) != 1 else f"seed {tier.seeds[0]}"
        without = f", without {', '.join(tier.without)}" if tier.without else ""
        yield (
            f"`--tier {name}`, for {tier.hardware} ({seeds}{without}): {len(made)} of {len(of_tier)} rows, "
            f"{seconds_text(spent)} of processor time"
        )
