"""The section on what a network looked at, from the file that ``twostream explain`` leaves in the run."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from twostream.attention import heat
from twostream.attention.tracks import AttentionError, AttentionFile, AttentionTrack
from twostream.clip import Scores
from twostream.errors import TwostreamError
from twostream.evaluation.metrics import predictions
from twostream.flow.store import FlowStore
from twostream.reporting import page
from twostream.reporting.clips import footage, telling
from twostream.reporting.figures import attention_images, flow_images, jpeg
from twostream.reporting.page import SPACE, Markup, percent, tag
from twostream.reporting.run_files import RunFiles, Sample, entries

_TILE = 132
_MOMENTS = 4
_CLIPS = 8


def attention_section(run: RunFiles, level: int, store: FlowStore | None) -> Markup:
    """Where the network looked; how to find out where it has not been asked; nothing where it has no attention."""
    scores = run.headline
    part = str(scores.meta.get("part", "test")) if scores else "test"
    file = run.path / "explain" / f"attention-{part}.npz"
    if not file.exists():
        if entries(run.model, "numbers").get("attention", "none") == "none":
            return Markup()
        command = tag("code", f"twostream explain {run.path} --method attention --part {part}")
        return tag("p", "This network has attention. To see here where it looks: ", command)
    try:
        found = AttentionFile.load(file)
    except AttentionError as error:
        return page.paragraphs([f"Attention is left out: {error}"], class_="notes")
    notes = []
    if found.meta.get("weights") != entries(run.model, "weights").get("sha256"):
        notes.append(
            f"This attention is of other weights than the run now has; make it again: twostream explain "
            f"{run.path} --method attention --part {part}"
        )
    parts: list[object] = [page.paragraphs(notes, class_="notes"), _summary(run, found), _key()]
    if scores is not None:
        cards = [_card(run, scores, n, found, store, level + 1) for n in telling(scores, found.tracks)[:_CLIPS]]
        parts.append(tag("div", *cards, class_="clips"))
    return page.join(parts)


def _summary(run: RunFiles, found: AttentionFile) -> Markup:
    half = float(np.mean([track.concentration().mean() for track in found.tracks.values()]))
    said = tag(
        "p",
        f"Half of the attention lies on {percent(half)} of the cells, on average over {len(found.tracks)} videos at "
        f"{found.meta.get('moments', '?')} moments each; at 50{SPACE}% it would be even.",
    )
    samples = run.samples
    by_class: dict[str, list[npt.NDArray[np.float64]]] = {name: [] for name in run.classes}
    for name, track in found.tracks.items():
        shares = _inside(track)
        if shares is not None and name in samples and samples[name].label >= 0:
            by_class[run.classes[samples[name].label]].append(shares)
    everything = [shares for of_class in by_class.values() for shares in of_class]
    if not everything:
        return said
    rows = [
        (name, len(of_class), *_inside_cells(np.mean(of_class, axis=0)))
        for name, of_class in [*by_class.items(), ("All", everything)]
        if of_class
    ]
    table = page.table(
        "Attention inside the boxes of what moves, which the truth about these generated videos tells",
        ("Class", "Videos", "Attention inside", "If it were even", "Boxes' share of the frame", "Times the even share"),
        rows,
    )
    return page.join([said, table])


def _inside(track: AttentionTrack) -> npt.NDArray[np.float64] | None:
    """Mass, even and area, means over the moments; None where no box is known."""
    if track.inside is None or np.isnan(track.inside.mass).all():
        return None
    means: npt.NDArray[np.float64] = np.nanmean([track.inside.mass, track.inside.even, track.inside.area], axis=1)
    return means


def _inside_cells(shares: npt.NDArray[np.float64]) -> tuple[object, ...]:
    mass, even, area = shares.tolist()
    times = f"{mass / even:.1f}" if even else "-"
    return page.join([page.bar(mass), percent(mass)]), percent(even), percent(area), times


def _key() -> Markup:
    scale = page.image(jpeg(heat.key(), quality=92), "From blue over clear to orange")
    words = (
        f"Each clip: frames that the network was shown, the optical flow there, and its attention. Clear is an even "
        f"share; orange more, up to {heat.FULL:g} times; blue less, down to one part in {heat.FULL:g}. Dark is what it "
        "was not shown. A cell of its map sees much more of the frame than its own place."
    )
    return tag("div", scale, tag("p", words), class_="key scale")


def _card(run: RunFiles, scores: Scores, n: int, found: AttentionFile, store: FlowStore | None, level: int) -> Markup:
    name = scores.videos[n]
    track = found.tracks[name]
    truth, answer = int(scores.labels[n]), int(predictions(scores)[n])
    hit = truth == answer
    mark = tag("span", f"✓{SPACE}right" if hit else f"✗{SPACE}wrong", class_="right" if hit else "wrong")
    title = scores.classes[truth] if hit else f"{scores.classes[truth]}, taken for {scores.classes[answer]}"
    said = f"Half of the attention lies on {percent(float(track.concentration().mean()))} of the cells"
    shares = _inside(track)
    if shares is not None:
        mass, even, _ = shares.tolist()
        said += f", {percent(mass)} of it on what moves (even: {percent(even)})"
    return tag(
        "article",
        tag(f"h{level}", title, " ", mark),
        tag("p", name, class_="file"),
        _strip(run.samples.get(name), track, store, name),
        tag("p", f"{said}.", class_="muted"),
        class_="clip",
    )


def _strip(sample: Sample | None, track: AttentionTrack, store: FlowStore | None, name: str) -> Markup:
    if sample is None:
        return tag("p", f"No pictures: data.json does not list {name}.", class_="missing")
    moments = _some(len(track))
    seconds = [float(track.seconds[m]) for m in moments]
    try:
        shown = footage(sample, store, moments=seconds)
    except TwostreamError as error:
        return tag("p", f"No pictures: {error}", class_="missing")
    if shown.frames is None:
        return tag("p", f"No pictures: {sample.path} cannot be read.", class_="missing")
    rows = [list(shown.frames)]
    if shown.flow is not None:
        rows.append(flow_images(shown.flow)[0])
    rows.append(attention_images(shown.frames, track, moments))
    tiles = [page.image(jpeg(image, height=_TILE), "") for row in rows for image in row]
    at = ", ".join(f"{second:.1f}" for second in shown.seconds)
    flow = "" if shown.flow is None else ", their optical flow"
    return tag(
        "div",
        *tiles,
        class_="strip",
        style=f"grid-template-columns:repeat({len(moments)},1fr)",
        role="img",
        aria_label=f"Frames of {name} at {at} s{flow} and the attention on them",
    )


def _some(count: int) -> Sequence[int]:
    """At most four of so many moments, evenly."""
    kept = min(_MOMENTS, count)
    return [(2 * k + 1) * count // (2 * kept) for k in range(kept)]
