"""The section on what spoke for the answers, from the files that ``twostream explain`` leaves in the run."""

from collections.abc import Sequence
from dataclasses import dataclass

from twostream.attention import heat
from twostream.attention.attributions import (
    METHODS,
    SHOWN,
    TITLES,
    Attribution,
    AttributionError,
    AttributionFile,
    Method,
    StreamMaps,
    without,
)
from twostream.clip import Scores
from twostream.errors import TwostreamError
from twostream.evaluation.metrics import predictions
from twostream.flow.store import FlowStore
from twostream.reporting import page
from twostream.reporting.clip_cards import TILE, title_of
from twostream.reporting.clips import footage, telling
from twostream.reporting.figures import attribution_images, flow_images, jpeg
from twostream.reporting.page import Markup, tag
from twostream.reporting.run_files import RunFiles, Sample, entries
from twostream.video import Image

_MOMENTS = 4
_CLIPS = 12

# What a stream reads, in a sentence.
_READS = {"appearance": "frames", "motion": "flow"}

_READ = {
    "gradcam": "Grad-CAM: the last map of each stream, every channel weighted by how much the class's logit rises with "
    "it. It is as coarse as that map, and a cell sees much more of the frame than its own place.",
    "integrated_gradients": "Integrated gradients: how much each place added to the class's logit on the way from "
    "silence (frames of the mean colour, flow without motion) to the clip; all places and streams together add up to "
    "the difference.",
}


@dataclass(frozen=True)
class Row:
    """A row of pictures of a clip, in order of time."""

    caption: str
    images: Sequence[Image]
    seconds: Sequence[float]

    def said(self, before: "Row | None") -> str:
        """The caption, with the times where they are others than those of the row before."""
        if before is not None and list(before.seconds) == list(self.seconds):
            return self.caption
        return f"{self.caption} at {', '.join(f'{second:.1f}' for second in self.seconds)} s"


def explanations_section(run: RunFiles, level: int, store: FlowStore | None) -> Markup:
    """What spoke for the answers, by every method that the run has a file of; how to find out where it has none."""
    scores = run.headline
    if scores is None or not (scores.labels >= 0).any() or not run.model:
        return Markup()
    part = str(scores.meta.get("part", "test"))
    files = {method: run.path / "explain" / f"{method}-{part}.npz" for method in METHODS}
    there = {method: file for method, file in files.items() if file.exists()}
    if not there:
        command = tag("code", f"twostream report {run.path} --explain gradcam")
        return tag("p", "To see here what in the frames and in the flow spoke for the answers: ", command)
    made: list[object] = []
    for method, file in there.items():
        try:
            found = AttributionFile.load(file)
        except AttributionError as error:
            made.append(page.paragraphs([f"Left out: {error}"], class_="notes"))
            continue
        made.append(page.section(TITLES[method], _of_method(run, scores, found, method, store, level), level=level + 1))
    return page.join(made)


def _of_method(
    run: RunFiles, scores: Scores, found: AttributionFile, method: Method, store: FlowStore | None, level: int
) -> Markup:
    notes = []
    if found.meta.get("weights") != entries(run.model, "weights").get("sha256"):
        notes.append(
            "These are of other weights than the run now has; make them again: "
            f"twostream report {run.path} --explain {method}"
        )
    shown = telling(scores, found.videos)[:_CLIPS]
    if not shown:
        notes.append(f"None of the {len(found.videos)} explained videos is among the clips that this page shows.")
    cards = [_card(run, scores, n, found, store, level + 2) for n in shown]
    return page.join(
        [page.paragraphs(notes, class_="notes"), _key(method) if shown else "", tag("div", *cards, class_="clips")]
    )


def _key(method: Method) -> Markup:
    scale = page.image(jpeg(heat.key(), quality=92), "From blue over clear to orange")
    words = (
        f"{_READ[method]} Orange spoke for the named class, blue against it; in each stream the strongest place "
        "of the clip has the full colour, so colours do not compare between streams or clips. The tables do: they say "
        "how probable the class still is when a stream is silenced. Dark is what the network was not shown."
    )
    return tag("div", scale, tag("p", words), class_="key scale")


def _card(run: RunFiles, scores: Scores, n: int, file: AttributionFile, store: FlowStore | None, level: int) -> Markup:
    name = scores.videos[n]
    found = file.videos[name]
    return tag(
        "article",
        tag(f"h{level}", title_of(scores, int(scores.labels[n]), int(predictions(scores)[n]))),
        tag("p", name, class_="file"),
        _strip(run.samples.get(name), found, file.classes[found.label], store, name),
        _silenced(found, file.classes, int(scores.labels[n]), name),
        tag("p", _added_up(found, file.classes[found.label]), class_="muted") if found.complete else "",
        class_="clip",
    )


def _added_up(found: Attribution, asked: str) -> str:
    gave = " and ".join(f"the {_READS[stream]} {maps.total:+.2f}" for stream, maps in found.streams.items())
    rest = found.difference - found.total
    missed = f" ({abs(rest):.2f} is the method's own error)" if abs(rest) >= 0.005 else ""
    return f"Against silence the logit of {asked} changes by {found.difference:+.2f}, to which {gave} added{missed}."


def _silenced(found: Attribution, classes: Sequence[str], truth: int, name: str) -> Markup:
    columns = list(dict.fromkeys(k for k in (found.label, truth) if k >= 0))
    names = {SHOWN: "as shown"}
    if len(found.streams) > 1:
        names |= {without(stream): f"without the {_READS[stream]}" for stream in found.streams}
    names[without(*found.streams)] = "silence"
    rows = [
        (
            said,
            *(
                page.join([page.bar(found.probability(shown, k)), f"{found.probability(shown, k):.2f}"])
                for k in columns
            ),
        )
        for shown, said in names.items()
    ]
    header = ("Shown", *(f"P({classes[k]})" for k in columns))
    return page.table(f"How probable the classes are for {name} when streams are silenced", header, rows)


def _strip(sample: Sample | None, found: Attribution, asked: str, store: FlowStore | None, name: str) -> Markup:
    if sample is None:
        return tag("p", f"No pictures: data.json does not list {name}.", class_="missing")
    try:
        rows = rows_of_clip(sample, found, asked, store)
    except TwostreamError as error:
        return tag("p", f"No pictures: {error}", class_="missing")
    parts = []
    for row, before in zip(rows, [None, *rows], strict=False):
        parts.append(tag("p", row.said(before), class_="row"))
        tiles = [page.image(jpeg(image, height=TILE), "") for image in row.images]
        columns = f"grid-template-columns:repeat({len(tiles)},1fr)"
        said = f"{row.said(None)}, {name}"
        parts.append(tag("div", *tiles, class_="strip", style=columns, role="img", aria_label=said))
    return page.join(parts)


def rows_of_clip(sample: Sample, found: Attribution, asked: str, store: FlowStore | None) -> list[Row]:
    """The pictures of a clip with what in them spoke for and against the class ``asked``.

    Raises:
        TwostreamError: the video cannot be read.
    """
    rows: list[Row] = []
    for stream, maps in found.streams.items():
        moments = some(len(maps), _MOMENTS)
        seconds = [float(maps.seconds[m]) for m in moments]
        pictures = footage(sample, store, moments=seconds)
        if pictures.frames is None:
            raise PicturesError(f"{sample.path} cannot be read")
        flow = None if stream == "appearance" or pictures.flow is None else flow_images(pictures.flow)[0]
        rows += stream_rows(stream, maps, found, asked, moments, pictures.frames, flow, first=not rows)
    return rows


class PicturesError(TwostreamError):
    """A clip of which neither the store nor the video has frames."""


def stream_rows(
    stream: str,
    maps: StreamMaps,
    found: Attribution,
    asked: str,
    moments: Sequence[int],
    frames: Image,
    flow: Sequence[Image] | None,
    *,
    first: bool,
) -> list[Row]:
    """What a stream read at these steps of its maps, and its maps over the frames there.

    ``first`` says whether the frames are yet to be shown; ``flow`` is its pictures, where there are any.
    """
    seconds = [float(maps.seconds[m]) for m in moments]
    rows = [Row("Frames", list(frames), seconds)] if first else []
    if flow is not None:
        rows.append(Row("Optical flow", flow, seconds))
    images = attribution_images(frames, maps, found.seen, moments)
    rows.append(Row(f"In the {_READS[stream]}: for {asked} (orange), against (blue)", images, seconds))
    return rows


def some(count: int, most: int) -> list[int]:
    """At most so many of ``count`` steps, evenly."""
    kept = min(most, count)
    return [(2 * k + 1) * count // (2 * kept) for k in range(kept)]


__all__ = ["PicturesError", "Row", "explanations_section", "rows_of_clip", "some", "stream_rows"]
