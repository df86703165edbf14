"""The section on clips: a card for each that tells most, with its pictures, its answers and who decided when."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from twostream.clip import Scores
from twostream.errors import TwostreamError
from twostream.evaluation.metrics import one_stream, probabilities
from twostream.evaluation.over_time import margins
from twostream.flow.store import FlowStore
from twostream.reporting import page
from twostream.reporting.clips import choose, footage
from twostream.reporting.figures import colour_wheel, flow_images, jpeg, lines_over_time
from twostream.reporting.page import SPACE, Markup, tag
from twostream.reporting.run_files import RunFiles, Sample

TILE = 132
_MOMENTS = 4


def clips_section(run: RunFiles, level: int, store: FlowStore | None, lacking: str) -> Markup:
    """The clips of :func:`clips.choose`; nothing before the first evaluation."""
    scores = run.headline
    if scores is None or not (scores.labels >= 0).any():
        return Markup()
    samples = run.samples
    values = probabilities(scores)
    parts = {stream: probabilities(one_stream(scores, stream)) for stream in scores.streams}
    groups = []
    any_flow = any_time = False
    for heading, indices in choose(scores).items():
        cards = []
        for n in indices:
            strip, has_flow = clip_strip(samples.get(scores.videos[n]), store, scores.videos[n])
            over_time = _over_time(scores, n, values)
            any_flow |= has_flow
            any_time |= bool(over_time)
            cards.append(_card(scores, n, values, parts, page.join([strip, over_time]), level + 2))
        groups.append(page.section(heading, tag("div", *cards, class_="clips"), level=level + 1))
    notes = page.paragraphs([lacking] if lacking else [], class_="notes")
    return page.join([notes, _key() if any_flow else "", _time_key(scores) if any_time else "", *groups])


def title_of(scores: Scores, truth: int, answer: int) -> Markup:
    """The class, what it was taken for, and whether that is right."""
    hit = truth == answer
    mark = tag("span", f"✓{SPACE}right" if hit else f"✗{SPACE}wrong", class_="right" if hit else "wrong")
    title = scores.classes[truth] if hit else f"{scores.classes[truth]}, taken for {scores.classes[answer]}"
    return page.join([title, " ", mark])


def rival(values: npt.NDArray[np.float64], truth: int) -> int:
    """What a clip's answer is set against: a mistake's truth against the answer, a success against the runner-up."""
    answer = int(values.argmax())
    if answer != truth or len(values) == 1:
        return answer
    return int(np.argsort(-values, kind="stable")[1])


def _key() -> Markup:
    wheel = page.image(jpeg(colour_wheel(), quality=92), "The colour wheel that optical flow is drawn with")
    words = (
        "Each clip: moments in order of time and, below, the optical flow from each to the next frame. Colour is the "
        "direction of motion as on the wheel, strength its speed; white is still."
    )
    return tag("div", wheel, tag("p", words), class_="key")


def _time_key(scores: Scores) -> Markup:
    who = "each stream adds" if len(scores.streams) > 1 else "the network adds"
    return tag(
        "p",
        f"The lines show, from the first to the last moment that was looked at, what {who} to the margin of the true "
        "class over the other one, in logits: above zero for the true class, below for the other. Their means over "
        "time, added up, are the margin of the answer.",
        class_="note",
    )


def _over_time(scores: Scores, n: int, values: npt.NDArray[np.float64]) -> Markup:
    truth = int(scores.labels[n])
    other = rival(values[n], truth)
    lines = margins(scores, n, truth, other)
    if other == truth or max(map(len, lines.values()), default=0) < 2:
        return Markup()
    said = ", ".join(f"{stream} {line.mean():+.2f} on average" for stream, line in lines.items())
    drawing = tag(
        "div",
        Markup(lines_over_time({stream: line.tolist() for stream, line in lines.items()})),
        role="img",
        aria_label=f"Margin over time of {scores.videos[n]}: {said}",
        class_="drawing",
    )
    caption = f"When: ↑{SPACE}for {scores.classes[truth]}, ↓{SPACE}for {scores.classes[other]}"
    return tag("figure", tag("figcaption", caption), drawing, class_="when")


def _card(
    scores: Scores,
    n: int,
    values: npt.NDArray[np.float64],
    parts: Mapping[str, npt.NDArray[np.float64]],
    pictures: Markup,
    level: int,
) -> Markup:
    truth, answer = int(scores.labels[n]), int(values[n].argmax())
    other = rival(values[n], truth)
    group = f", group {scores.groups[n]}" if scores.groups[n] else ""
    rows = [
        _stream_row(scores, stream, own[n], truth, other)
        for stream, own in (*parts.items(), *([("together", values)] if len(parts) > 1 else []))
    ]
    header = ("Stream", "Answer", "P(true)", f"P(next: {scores.classes[other]})" if truth == answer else "P(answer)")
    return tag(
        "article",
        tag(f"h{level}", title_of(scores, truth, answer)),
        tag("p", scores.videos[n], group, class_="file"),
        pictures,
        page.table(f"What each stream says of {scores.videos[n]}", header, rows),
        class_="clip",
    )


def _stream_row(
    scores: Scores, stream: str, own: npt.NDArray[np.float64], truth: int, other: int
) -> tuple[object, ...]:
    answer = int(own.argmax())
    cells = [
        page.join([page.bar(float(own[k]), kind=stream if stream != "together" else "fused"), f"{own[k]:.2f}"])
        for k in (truth, other)
    ]
    return stream, f"{'✓' if answer == truth else '✗'}{SPACE}{scores.classes[answer]}", *cells


def clip_strip(
    sample: Sample | None, store: FlowStore | None, name: str, *, moments: int = _MOMENTS
) -> tuple[Markup, bool]:
    """A clip's moments and their flow, and whether there is any flow among them."""
    if sample is None:
        return tag("p", f"No pictures: data.json does not list {name}.", class_="missing"), False
    try:
        found = footage(sample, store, moments=moments)
    except TwostreamError as error:
        return tag("p", f"No pictures: {error}", class_="missing"), False
    tiles = [] if found.frames is None else [page.image(jpeg(frame, height=TILE), "") for frame in found.frames]
    words = [f"Frames of {name} at {', '.join(f'{second:.1f}' for second in found.seconds)} s"]
    if found.frames is None:
        words = [f"The video {sample.path} cannot be read; of {name}"]
    if found.flow is not None:
        images, full = flow_images(found.flow)
        tiles += [page.image(jpeg(image, height=TILE), "") for image in images]
        words.append(f"the optical flow at these moments, full colour at {full:.1f} px per frame")
    return tag(
        "div", *tiles, class_=f"strip of{moments}", role="img", aria_label=" and ".join(words)
    ), found.flow is not None


__all__ = ["TILE", "clip_strip", "clips_section", "rival", "title_of"]
