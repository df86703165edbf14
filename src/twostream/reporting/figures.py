"""Arrays in, pictures out: charts as SVG that follow the page's colours, frames and flow as JPEG inside the page."""

import base64
import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import cv2
import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import Formatter, FuncFormatter, MaxNLocator, PercentFormatter

from twostream.attention.attributions import StreamMaps
from twostream.attention.heat import Heat, Tint
from twostream.attention.tracks import AttentionTrack, Box
from twostream.flow.colour import flow_to_colour
from twostream.video import resize_frame

Image = npt.NDArray[np.uint8]
Curve = Sequence[tuple[float, float]]

# matplotlib wants colours, the page has names for them that change with light and dark: these stand for the names in
# the drawing and are replaced in the text of the SVG.
_STAND_IN = {
    "ink": "#000001",
    "muted": "#000002",
    "line": "#000003",
    "first": "#000004",
    "second": "#000005",
    "appearance": "#000006",
    "motion": "#000007",
    "fused": "#000008",
}

# A drawing is laid out for a phone's width and never shrunk, so that its text stays as large as the page's.
_WIDTH, _HEIGHT = 344, 220
_LOW = 96
_LABEL = 50  # characters of a label beside one another


def jpeg(image: Image, *, height: int | None = None, quality: int = 82) -> str:
    """A ``data:`` address of an RGB image (H, W, 3), scaled to ``height`` px where it is larger."""
    H, W = image.shape[:2]
    if height is not None and height < H:
        image = resize_frame(image, (max(1, round(W * height / H)), height))
    ok, coded = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert ok
    return "data:image/jpeg;base64," + base64.b64encode(coded.tobytes()).decode("ascii")


def flow_images(flow: npt.NDArray[np.float32]) -> tuple[list[Image], float]:
    """Fields (n, 2, H, W) in px on the colour wheel, all on one scale, and the motion in px of its full colour."""
    speed = np.hypot(flow[:, 0], flow[:, 1])
    # The fastest hundredth may saturate. At least 1 px, so that the noise of a still scene does not look like motion.
    full = max(1.0, float(np.quantile(speed, 0.99))) if speed.size else 1.0
    return [flow_to_colour(field, max_magnitude=full) for field in flow], full


def attention_images(frames: Image, track: AttentionTrack, moments: Sequence[int]) -> list[Image]:
    """Frames (n, H, W, 3) under the attention of these n moments of a track."""
    heat = Heat(track, frames.shape[2], frames.shape[1])
    return [heat.over(frame, moment) for frame, moment in zip(frames, moments, strict=True)]


def attribution_images(frames: Image, maps: StreamMaps, seen: Box, moments: Sequence[int]) -> list[Image]:
    """Frames (n, H, W, 3) in grey under the attributions of these n steps of a stream."""
    tint = Tint(maps.levels(), maps.xs, maps.ys, seen, width=frames.shape[2], height=frames.shape[1])
    # Grey, so that no colour of the scene passes for one of the map's.
    grey = [cv2.cvtColor(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB) for frame in frames]
    return [tint.over(frame, moment) for frame, moment in zip(grey, moments, strict=True)]


def colour_wheel(side: int = 96) -> Image:
    """The key to the flow's colours: direction of motion by hue, speed by strength; white outside the circle."""
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    u, v = np.meshgrid(axis, axis)
    wheel = flow_to_colour(np.stack([u, v]), max_magnitude=1.0)
    wheel[np.hypot(u, v) > 1] = 255
    return wheel


def curves(history: Mapping[str, Curve], *, percent: bool = False) -> str:
    """Lines over epochs as SVG, each named at its end; the first drawn full, the second dashed."""
    figure, axes = _figure()
    ends = []
    for (name, points), colour, style in zip(
        history.items(), ("first", "second", "muted"), ("-", (0, (4, 2)), ":"), strict=False
    ):
        x, y = np.asarray(points, dtype=np.float64).T
        axes.plot(x, y, color=_STAND_IN[colour], linestyle=style, linewidth=1.8, marker="o" if len(x) == 1 else None)
        ends.append((float(y[-1]), name, colour))
    if percent:
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    else:
        # Learning rates are small: 0.0005, not 5 with a factor above the axis.
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.set_xlabel("epoch", fontsize=11, color=_STAND_IN["muted"])
    _label_ends(axes, ends)
    return _svg(figure)


def lines_over_time(lines: Mapping[str, Sequence[float]]) -> str:
    """A line for each stream along a clip as SVG, around a line at zero; each named at its end."""
    figure, axes = _figure(_LOW, (0.1, 0.08, 0.68, 0.86))
    axes.axhline(0, color=_STAND_IN["muted"], linewidth=1.0)
    ends = []
    for (name, values), style in zip(lines.items(), ("-", (0, (4, 2))), strict=False):
        axes.plot(np.linspace(0, 1, len(values)), values, color=_STAND_IN[name], linestyle=style, linewidth=1.8)
        ends.append((float(values[-1]), name, name))
    # Around zero alike, so that what speaks for a class looks as strong as what speaks against it.
    most = max(1e-3, *(abs(value) for values in lines.values() for value in values)) * 1.08
    axes.set_ylim(-most, most)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, symmetric=True))
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    _label_ends(axes, ends)
    return _svg(figure)


def heat_map(counts: npt.NDArray[np.int64]) -> str:
    """A confusion matrix of many classes as SVG: rows (true class) as shares, brighter for more."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(_WIDTH / 72, _WIDTH / 72), dpi=72)
    axes = figure.add_axes((0.15, 0.14, 0.84, 0.84))
    # As an image: ten thousand cells as shapes would make the page heavy.
    axes.imshow(shares, cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
    axes.set_xlabel("answer", fontsize=11, color=_STAND_IN["muted"])
    axes.set_ylabel("true class", fontsize=11, color=_STAND_IN["muted"])
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    _style(axes)
    return _svg(figure)


class Dot(NamedTuple):
    """A share, or a difference of two, under its name, with its interval where there is one.

    ``aside`` for what is no result of its own, drawn as a ring in grey.
    """

    label: str
    value: float
    bounds: tuple[float, float] | None = None
    aside: bool = False


def dots(lines: Sequence[Dot]) -> str:
    """Shares of 0..1 one below the other as SVG, each a dot on its interval."""
    return _dots(lines, (0.0, 1.0), PercentFormatter(1, decimals=0))


def differences(lines: Sequence[Dot]) -> str:
    """Differences of shares one below the other as SVG, from -1 to 1 at most, with a line at zero."""
    ends = [end for dot in lines for end in (dot.value, *(dot.bounds or ()))]
    low, high = (round(bound * 10) / 10 for bound in (min(-0.1, *ends), max(0.1, *ends)))
    return _dots(lines, (low, high), FuncFormatter(lambda value, _: f"{100 * value:+.0f}" if value else "0"), zero=True)


def _dots(lines: Sequence[Dot], limits: tuple[float, float], ticks: Formatter, *, zero: bool = False) -> str:
    # In the units of the picture; a label that is too long for its width goes on below.
    labels = [textwrap.wrap(dot.label, _LABEL) or [""] for dot in lines]
    ends = list(accumulate(16 + 14 * len(label) for label in labels))
    height, below = ends[-1], 34
    figure = Figure(figsize=(_WIDTH / 72, (height + below) / 72), dpi=72)
    axes = figure.add_axes((0.03, below / (height + below), 0.93, height / (height + below)))
    axes.grid(axis="x", color=_STAND_IN["line"], linewidth=0.8)
    axes.set_axisbelow(True)
    _style(axes)
    margin = 0.01 * (limits[1] - limits[0])
    axes.set_xlim(limits[0] - margin, limits[1] + margin)
    axes.set_ylim(height, 0)
    axes.set_yticks([])
    axes.xaxis.set_major_formatter(ticks)
    if zero:
        axes.axvline(0, color=_STAND_IN["line"], linewidth=2.5)
    for dot, label, end in zip(lines, labels, ends, strict=True):
        place = end - 9
        colour = _STAND_IN["muted" if dot.aside else "first"]
        if dot.bounds is not None:
            axes.plot(dot.bounds, [place] * 2, color=colour, linewidth=2.2, solid_capstyle="butt")
        face = "none" if dot.aside else colour
        axes.plot([dot.value], [place], marker="o", markersize=6, color=colour, markerfacecolor=face, clip_on=False)
        for above, text in enumerate(reversed(label)):
            axes.text(limits[0], place - 9 - 14 * above, text, color=_STAND_IN["ink"], fontsize=11, parse_math=False)
    return _svg(figure)


def _figure(
    height: int = _HEIGHT, place: tuple[float, float, float, float] = (0.14, 0.17, 0.67, 0.78)
) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH / 72, height / 72), dpi=72)
    axes = figure.add_axes(place)
    axes.grid(axis="y", color=_STAND_IN["line"], linewidth=0.8)
    axes.set_axisbelow(True)
    _style(axes)
    return figure, axes


def _style(axes: Axes) -> None:
    axes.patch.set_visible(False)
    axes.figure.patch.set_visible(False)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(_STAND_IN["line"])
    axes.tick_params(labelsize=11, labelcolor=_STAND_IN["muted"], length=0, pad=5)


def _label_ends(axes: Axes, ends: list[tuple[float, str, str]]) -> None:
    """Write each line's name beside its last point, moved apart where they would overlap."""
    low, high = axes.transData.transform(np.array([[0, value] for value in axes.get_ylim()]))[:, 1]
    places = axes.transData.transform(np.array([[0, value] for value, _, _ in ends]))[:, 1]
    gap = 14.0
    order = np.argsort(places)
    for lower, upper in pairwise(order):
        places[upper] = max(places[upper], places[lower] + gap)
    places -= max(0.0, places.max(initial=low) - high)
    for place, (_, name, colour) in zip(places, ends, strict=True):
        axes.text(
            1.03,
            (place - low) / (high - low),
            name,
            transform=axes.transAxes,
            color=_STAND_IN[colour],
            fontsize=11,
            va="center",
            clip_on=False,
            parse_math=False,
        )


def _svg(figure: Figure) -> str:
    """The figure as an ``<svg>`` element to stand inside a page: no addresses, no ids but those it refers to."""
    target = io.StringIO()
    # Text as text, and the same ids for the same drawing.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "twostream"}):
        figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = target.getvalue()
    text = text[text.index("<svg") :]
    # matplotlib's own style sheet would hold for the whole page.
    text = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    text = re.sub(r' (?:xmlns(?::xlink)?|version|width|height)="[^"]*"', "", text, count=5)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r"font-family: [^;\"]*", "font-family: inherit", text)
    for name, colour in _STAND_IN.items():
        text = text.replace(colour, f"var(--{name})")
    return re.sub(r"\s*\n\s*", " ", text).replace("<svg", '<svg aria-hidden="true"', 1)
