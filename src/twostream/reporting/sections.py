"""The sections of a report, each a function from what a run left behind to a piece of the page."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from twostream.clip import Scores, ScoresError
from twostream.errors import TwostreamError
from twostream.evaluation.metrics import (
    confusion_matrix,
    judged_by,
    mean_class_accuracy,
    merge_order,
    normalised_weights,
    one_stream,
    per_class_accuracy,
    right,
    top_k_accuracy,
)
from twostream.evaluation.score_fusion import search_stream_weights
from twostream.evaluation.splits import SplitMean
from twostream.evaluation.statistics import Comparison, Interval, accuracy_interval, compare
from twostream.flow.store import FlowStore
from twostream.reporting import page
from twostream.reporting.attention import attention_section
from twostream.reporting.attribution import explanations_section
from twostream.reporting.clip_cards import clips_section
from twostream.reporting.clips import footage, open_store
from twostream.reporting.confusions import confusions
from twostream.reporting.figures import curves, flow_images, jpeg
from twostream.reporting.page import DASH, SPACE, Markup, percent, tag
from twostream.reporting.run_files import RunFiles, entries
from twostream.reporting.splits import over_splits

# Beyond so many classes a table of them is folded; beyond so many, confusions are a picture.
MANY_CLASSES = 30


_LOOKS = 24
_TILE = 132
_MOMENTS = 4
_PARTS = {"train": "training", "val": "held out", "test": "test"}


def lead(run: RunFiles) -> Markup:
    """The result in one sentence and its figures, or why there is none."""
    scores = run.headline
    if scores is None or not (scores.labels >= 0).any():
        said = tag("p", f"{run.model_name}: not judged yet.", class_="lead")
        return page.join([said, page.paragraphs(run.problems, class_="notes")])
    interval = accuracy_interval(scores)
    hits = int(right(scores).sum())
    K = len(scores.classes)
    part = _PARTS.get(str(scores.meta.get("part")), "judged")
    sentence = tag(
        "p",
        tag("strong", run.model_name),
        f" named the right one of {K} classes for {hits} of {interval.videos} {part} videos: ",
        tag("strong", percent(interval.value)),
        f" (95 % interval {_range(interval.low, interval.high)}, {interval.method}).",
        class_="lead",
    )
    counted = Counter(scores.labels[scores.labels >= 0].tolist())
    cards = [
        ("Top-1 accuracy", percent(interval.value), f"95 % interval {_range(interval.low, interval.high)}"),
        ("Mean of classes", percent(mean_class_accuracy(scores)), "every class counts alike"),
        ("Guessing", percent(1 / K), f"always the most frequent: {percent(max(counted.values()) / interval.videos)}"),
        (
            "Videos judged",
            str(interval.videos),
            f"by {judged_by(scores)}, split {scores.meta.get('split', 'unknown')}",
        ),
    ]
    # Five of six classes is no achievement.
    if K >= 10:
        cards.insert(1, ("Top-5 accuracy", percent(top_k_accuracy(scores, 5)), f"of {K} classes"))
    listed = (tag("div", tag("dt", name), tag("dd", value, tag("small", small))) for name, value, small in cards)
    notes = list(run.problems)
    if part != "test":
        notes.append(f"These are {part} videos, not test videos: the figures flatter the model.")
    if unknown := len(scores) - interval.videos:
        notes.append(f"{unknown} videos without a known class were left out of all figures.")
    return page.join([sentence, tag("dl", *listed, class_="cards"), page.paragraphs(notes, class_="notes")])


def run_sections(
    run: RunFiles, *, level: int = 2, prefix: str = "", same_data_as: str | None = None
) -> dict[str, Markup]:
    """All sections about one run that there is something to say in, by name."""
    store, lacking = open_store(run.path, run.config)
    makers: dict[str, Callable[[], Markup]] = {
        "streams": lambda: _streams(run),
        "classes": lambda: _classes(run, level, store),
        "clips": lambda: clips_section(run, level, store, lacking),
        "explanations": lambda: explanations_section(run, level, store),
        "attention": lambda: attention_section(run, level, store),
        "training": lambda: _training(run),
        "data": lambda: _data(run, store, same_data_as),
        "provenance": lambda: _provenance(run),
    }
    made = {name: maker() for name, maker in makers.items()}
    return {
        name: page.section(name.capitalize(), content, level=level, id_=prefix + name)
        for name, content in made.items()
        if content
    }


def comparison(runs: Sequence[RunFiles]) -> Markup:
    """Several runs side by side; each against the first one on the videos of both."""
    first = runs[0].headline
    rows = []
    for run in runs:
        scores = run.headline
        if scores is None or not (scores.labels >= 0).any():
            rows.append((run.name, run.model_name, "not judged yet", "", "", "", ""))
            continue
        against, p_value = "first", ""
        if run is not runs[0]:
            against, p_value = _against(first, scores)
        interval = accuracy_interval(scores)
        rows.append(
            (
                run.name,
                run.model_name,
                f"{judged_by(scores)}, split {scores.meta.get('split', '?')}",
                _with_bar(interval),
                percent(mean_class_accuracy(scores)),
                against,
                p_value,
            )
        )
    found = over_splits(runs)
    over = found if isinstance(found, SplitMean) else None
    note = (
        "Differences are taken video by video, with a 95 % interval that resamples groups (videos where there are no "
        "groups); p is McNemar's exact test. An interval that holds zero leaves open which run is better."
    )
    return page.section(
        "Comparison",
        page.table(
            "The runs side by side",
            ("Run", "Model", "Judged by", "Top-1, 95 % interval", "Mean of classes", "Against the first", "p"),
            rows,
        ),
        tag("p", note, class_="note"),
        _mean_of_splits(over) if over else tag("p", found, class_="note") if found else Markup(),
        id_="comparison",
    )


def _mean_of_splits(found: SplitMean) -> Markup:
    rows: list[tuple[object, ...]] = [
        (f"split {one.split}", one.run, one.videos, percent(one.top1), percent(one.mean_class)) for one in found.splits
    ]
    drawn = page.bar(found.top1, low=found.low, high=found.high)
    shown = page.join([drawn, f"{percent(found.top1)} ({_range(found.low, found.high)})"])
    rows.append(("mean", "each split counts alike", found.videos, shown, percent(found.mean_class)))
    note = (
        f"The interval is a {found.method} for {percent(0.95)}: it holds for other videos, not for other networks. "
        f"Over the videos of all splits together top-1 is {percent(found.together)}."
    )
    table = page.table(
        f"The mean over {len(found.splits)} splits", ("", "Run", "Videos", "Top-1", "Mean of classes"), rows
    )
    return page.join([table, tag("p", note, class_="note")])


def _range(low: float, high: float) -> str:
    return f"{100 * low:.0f}{DASH}{100 * high:.0f}{SPACE}%"


def _with_bar(interval: Interval, kind: str = "fused") -> Markup:
    drawn = page.bar(interval.value, low=interval.low, high=interval.high, kind=kind)
    return page.join([drawn, f"{percent(interval.value)} ({_range(interval.low, interval.high)})"])


def _against(first: Scores | None, scores: Scores) -> tuple[str, str]:
    if first is None:
        return "the first is not judged", ""
    if set(first.classes) != set(scores.classes):
        return "other classes", ""
    try:
        found = compare(first, scores)
    except ScoresError:
        splits = [str(one.meta.get("split")) for one in (first, scores)]
        return "other videos" if splits[0] == splits[1] else "another split", ""
    return _points(found), f"{found.p_value:.2g}"


def _points(found: Comparison) -> str:
    return f"{100 * found.difference:+.1f} points ({100 * found.low:+.0f} to {100 * found.high:+.0f})"


# streams ------------------------------------------------------------------------------------------------------------


def _streams(run: RunFiles) -> Markup:
    scores = run.headline
    if scores is None or not (scores.labels >= 0).any():
        return Markup()
    if len(scores.streams) == 1:
        only = scores.streams[0]
        words = (
            "This network joins its streams inside and gives one answer, so there are no streams to take apart."
            if only == "fused"
            else f"This network reads one stream, {only}."
        )
        return tag("p", words)
    weights = normalised_weights(scores)
    rows: list[tuple[object, ...]] = []
    alone = {stream: one_stream(scores, stream) for stream in scores.streams}
    for stream, own in alone.items():
        rows.append((f"{stream} alone", _with_bar(accuracy_interval(own), stream), "-"))
    given = ", ".join(f"{stream} {weight:.2f}" for stream, weight in weights.items())
    rows.append(("together", _with_bar(accuracy_interval(scores)), given))
    rows += _searched_row(run, scores)
    best = max(alone, key=lambda stream: top_k_accuracy(alone[stream]))
    gain = compare(alone[best], scores)
    order = "logits are averaged" if merge_order(scores) == "logits" else "probabilities are averaged"
    said = tag(
        "p",
        f"Together against {best} alone, the better of the streams: {_points(gain)}; {gain.only_second} videos won, "
        f"{gain.only_first} lost. To join them, {order}.",
    )
    table = page.table(
        "Accuracy of each stream alone and together", ("Answer of", "Top-1, 95 % interval", "Weights"), rows
    )
    return page.join([table, said, _agreement(scores, alone)])


def _searched_row(run: RunFiles, scores: Scores) -> list[tuple[object, ...]]:
    """The same with weights that the held-out videos would choose, where the run has their scores."""
    for held_out in run.scores.values():
        if held_out.meta.get("part") != "val" or held_out.streams != scores.streams or not (held_out.labels >= 0).any():
            continue
        weights = search_stream_weights(held_out)
        given = ", ".join(f"{stream} {weight:.2f}" for stream, weight in weights.items())
        interval = accuracy_interval(scores, stream_weights=weights)
        chosen = f"{given} (chosen on {len(held_out)} held-out videos)"
        return [("together, weights searched", _with_bar(interval), chosen)]
    return []


def _agreement(scores: Scores, alone: Mapping[str, Scores]) -> Markup:
    known = scores.labels >= 0
    hits = np.stack([right(own)[known] for own in alone.values()], axis=1)
    together = right(scores)[known]
    rows = []
    for pattern in sorted({tuple(row) for row in hits.tolist()}, key=lambda row: (-sum(row), row)):
        of_kind = (hits == np.array(pattern)).all(axis=1)
        names = [stream for stream, hit in zip(alone, pattern, strict=True) if hit]
        who = "every stream" if all(pattern) else "only " + " and ".join(names) if names else "no stream"
        rows.append((who, int(of_kind.sum()), int(together[of_kind].sum())))
    return page.table("Who is right, video by video", ("Right alone", "Videos", "Right together"), rows)


# classes ------------------------------------------------------------------------------------------------------------


def _classes(run: RunFiles, level: int, store: FlowStore | None) -> Markup:
    scores = run.headline
    if scores is None or not (scores.labels >= 0).any():
        return Markup()
    counts = confusion_matrix(scores)
    shares = per_class_accuracy(scores)
    order = sorted(range(len(shares)), key=lambda k: (math.isnan(shares[k]), shares[k], scores.classes[k]))
    rows = [_class_row(scores, counts, shares, k) for k in order]
    header = ("Class", "Recognised", "Videos", "Most often taken for")
    caption = "Accuracy of each class, the hardest first"
    if len(rows) > MANY_CLASSES:
        table = page.join(
            [
                page.table("The hardest classes", header, rows[: MANY_CLASSES // 2]),
                page.details(f"All {len(rows)} classes", page.table(caption, header, rows)),
            ]
        )
    else:
        table = page.table(caption, header, rows)
    return page.join([table, page.section("Confusions", confusions(run, scores, store, level + 2), level=level + 1)])


def _class_row(
    scores: Scores, counts: npt.NDArray[np.int64], shares: npt.NDArray[np.float64], k: int
) -> tuple[object, ...]:
    total = int(counts[k].sum())
    if not total:
        return scores.classes[k], "no videos to judge", 0, "-"
    others = counts[k].copy()
    others[k] = 0
    worst = int(others.argmax())
    taken = f"{scores.classes[worst]} ({others[worst]})" if others[worst] else "-"
    return scores.classes[k], page.join([page.bar(float(shares[k])), percent(float(shares[k]))]), total, taken


# training -----------------------------------------------------------------------------------------------------------

_CURVES = (
    ("Loss", {"training": ("train_loss", "loss"), "held out": ("val_loss",)}, False),
    ("Accuracy", {"training": ("train_top1", "train_acc"), "held out": ("val_top1", "val_acc")}, True),
)


def _training(run: RunFiles) -> Markup:
    charts = []
    for title, lines, as_percent in _CURVES:
        found = {
            name: next((run.history[column] for column in columns if column in run.history), None)
            for name, columns in lines.items()
        }
        drawn = {name: points for name, points in found.items() if points}
        if drawn:
            ends = (f"{name} ends at {points[-1][1]:.3g}" for name, points in drawn.items())
            charts.append(page.chart(curves(drawn, percent=as_percent), title=title, description=", ".join(ends)))
    rates = {name.removeprefix("lr-"): points for name, points in run.history.items() if name.split("-")[0] == "lr"}
    if rates:
        name, points = next(iter(rates.items()))
        charts.append(
            page.chart(
                curves({"rate" if name == "lr" else name: points}),
                title="Learning rate",
                description=f"from {points[0][1]:.3g} to {points[-1][1]:.3g}",
            )
        )
    return tag("div", *charts, class_="charts") if charts else Markup()


# data ---------------------------------------------------------------------------------------------------------------


def _data(run: RunFiles, store: FlowStore | None, same_data_as: str | None) -> Markup:
    if same_data_as is not None:
        return tag("p", f"The same data as {same_data_as}.")
    if not run.parts:
        return Markup()
    parts = {part: samples for part, samples in run.parts.items() if samples}
    counted = {part: Counter(sample.label for sample in samples) for part, samples in parts.items()}
    header = ("Class", *(_PARTS.get(part, part).capitalize() for part in parts))
    rows: list[tuple[object, ...]] = [
        (name, *(counted[part][k] for part in parts)) for k, name in enumerate(run.classes)
    ]
    total = ("All", *(len(samples) for samples in parts.values()))
    groups = ("Groups", *(len({s.group for s in samples if s.group}) or "-" for samples in parts.values()))
    caption = "Videos by class and part"
    table = page.table(caption, header, [*rows, total, groups])
    if len(rows) > MANY_CLASSES:
        table = page.join(
            [
                page.table("Videos by part", ("", *header[1:]), [total, groups]),
                page.details(f"All {len(rows)} classes", page.table(caption, header, rows)),
            ]
        )
    kind = run.data_facts.get("kind")
    place = run.data_facts.get("data") or run.data_facts.get("root")
    said = [f"{kind}, " if kind else "", f"split {run.data_facts.get('split', '?')}", f": {place}" if place else ""]
    facts = run.data_facts
    notes = [str(note) for key in ("notes", "warnings") for note in _listed(facts.get(key))]
    if missing := _listed(facts.get("missing")):
        notes.append(f"{len(missing)} listed videos are missing.")
    return page.join(
        [tag("p", *said, class_="muted"), table, page.paragraphs(notes, class_="muted"), _looks(run, store)]
    )


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _looks(run: RunFiles, store: FlowStore | None) -> Markup:
    """The first clip of each class: a frame and its flow."""
    figures = []
    for k, name in list(enumerate(run.classes))[:_LOOKS]:
        sample = next((s for samples in run.parts.values() for s in samples if s.label == k), None)
        if sample is None:
            continue
        try:
            found = footage(sample, store, moments=1)
        except TwostreamError as error:
            tiles = tag("p", f"No pictures: {error}", class_="missing")
        else:
            images = (
                [] if found.frames is None else [page.image(jpeg(found.frames[0], height=_TILE), f"A frame of {name}")]
            )
            if found.flow is not None:
                drawn, _ = flow_images(found.flow)
                images.append(page.image(jpeg(drawn[0], height=_TILE), f"The optical flow of {name}"))
            tiles = tag("div", *images, class_=f"strip of{len(images)}")
        figures.append(tag("figure", tiles, tag("figcaption", name)))
    if not figures:
        return Markup()
    told = f", the first {_LOOKS} of {len(run.classes)} classes" if len(run.classes) > _LOOKS else ""
    return page.join([tag("p", f"A clip of each class{told}:", class_="muted"), tag("div", *figures, class_="looks")])


# provenance ---------------------------------------------------------------------------------------------------------


def _provenance(run: RunFiles) -> Markup:
    rows: list[tuple[object, ...]] = [("run folder", str(run.path.resolve()))]
    # The run's own word first, then what the configuration says.
    told = {**_flat(entries(run.model, "provenance")), "model": run.model_name}
    for key in ("seed", "split", "data"):
        if key in run.config:
            told.setdefault(key, run.config[key])
    rows += [(key.replace("_", " "), value) for key, value in told.items() if value is not None]
    command = f"twostream train --config {run.path / 'config.yaml'} --out NEW_RUN"
    rows.append(("repeat with", tag("code", command)))
    scores = [
        (
            name,
            str(found.meta.get("part", "?")),
            str(found.meta.get("split", "?")),
            judged_by(found),
            merge_order(found),
            int((found.labels >= 0).sum()),
            percent(top_k_accuracy(found)),
        )
        for name, found in run.scores.items()
    ]
    parts: list[object] = [page.table("Where this comes from", ("Entry", "Value"), rows)]
    if scores:
        header = ("Scores file", "Part", "Split", "Protocol", "Mean of", "Videos", "Top-1")
        parts.append(page.table("All scores of this run; the first one heads this page", header, scores))
    if run.config:
        text = yaml.safe_dump(dict(run.config), sort_keys=False, allow_unicode=True)
        parts.append(page.details("The whole configuration", tag("pre", text)))
    return page.join(parts)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key} ")
        else:
            flat[f"{prefix}{key}"] = ", ".join(map(str, value)) if isinstance(value, list) else value
    return flat
