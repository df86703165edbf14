"""Flow to look at: a video of each frame beside its motion in colours, with the colour wheel as the legend."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from twostream.files import check_writable
from twostream.flow.colour import flow_to_colour
from twostream.flow.contract import Flow, FlowError
from twostream.flow.estimators import create_estimator
from twostream.flow.store import FlowSettings
from twostream.flow.streaming import stream_flow
from twostream.video import Video, grid_size, probe, write_video

Image = npt.NDArray[np.uint8]
Progress = Callable[[int, int, str], None]

# Pairs of frames, spread over the video, that tell how fast things move in it.
_SAMPLES = 16
# Share of px that are not darkened for being faster than the fullest colour.
_SHARE = 0.99
_STEPS = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What was written.

    Attributes:
        frames: how many.
        full_speed: px a frame that have the fullest colour; faster ones are darker.
    """

    frames: int
    full_speed: float


def write_preview(
    video: Video, settings: FlowSettings, out: Path | str, *, threads: int = 1, progress: Progress | None = None
) -> Preview:
    """Write a video of frame k on the left and, on the right, its motion to frame k + 1 as the standard colour wheel.

    One colour means one motion throughout: the speed of full colour is found beforehand, in a pass that looks at 16
    pairs of frames spread over the video, as one that 99 % of their pixels do not exceed; 1 px a frame at least, and a
    round number. It stands in the legend, under the wheel, whose rim it is.

    Args:
        video: read twice.
        settings: grid, frame rate and estimator.
        out: an ``.mp4`` file, written whole or not at all.
        threads: that compute flow.
        progress: called with (frames done, frames, what is going on).

    Raises:
        VideoError: the video cannot be read.
        FlowError: it has one frame only, or frames too small for the estimator.
        OutputError: ``out`` cannot be written.
    """
    say = progress or (lambda _done, _total, _what: None)
    # Found before the work is done, not after it.
    check_writable(out)
    try:
        full_speed = find_full_speed(video, settings, say)
    except FlowError as error:
        raise FlowError(f"{video.path}: {error}") from error
    total = video.count(settings.fps) - 1
    if total < 1:
        raise FlowError(f"{video.path}: it has one frame only, and so no motion to show")

    def pictures() -> Iterator[Image]:
        before: Image | None = None
        for done, step in enumerate(stream_flow(video, settings, lambda flow: flow, frames=True, threads=threads)):
            if step.field is not None and before is not None:
                yield side_by_side(before, step.field, full_speed)
                say(done, total, "writing")
            before = step.frame

    return Preview(frames=write_video(out, pictures(), settings.fps or video.fps), full_speed=full_speed)


def find_full_speed(video: Video, settings: FlowSettings, say: Progress) -> float:
    """A round speed in px a frame that hardly anything in the video exceeds, see :func:`write_preview`."""
    info = probe(video.path)
    size = grid_size(video.width, video.height, settings.short_side)
    estimator = create_estimator(settings.estimator, **settings.parameters)
    expected = info.frames if settings.fps is None else round(info.seconds * settings.fps)
    every = max(1, expected // _SAMPLES)
    speeds: list[npt.NDArray[np.float32]] = []
    previous = None

    def ends_a_pair(index: int) -> bool:
        # The first pair whatever the header said, and one from the middle of each part.
        return index == 1 or (index > 1 and index % every == every // 2)

    for frame in video.stream(fps=settings.fps):
        k = frame.index
        luma = frame.luma(size) if ends_a_pair(k) or ends_a_pair(k + 1) else None
        if ends_a_pair(k) and previous is not None and luma is not None:
            u, v = estimator(previous, luma)
            # Every fourth px either way says as much.
            speeds.append(np.hypot(u[::4, ::4], v[::4, ::4]).ravel())
        previous = luma
        # None is written yet; what counts is still to come.
        say(0, expected, "looking how fast it moves")
    if not speeds:
        return 1.0
    return round_up(float(np.quantile(np.concatenate(speeds), _SHARE)))


def round_up(speed: float) -> float:
    """The next of 1, 1.5, 2, 3, 5, 7, 10, 15, 20 ... px, at least 1, so that a still scene stays white."""
    scale = 10.0 ** math.floor(math.log10(max(1.0, speed)))
    return next((step * scale for step in _STEPS if step * scale >= speed), 10 * scale)


def side_by_side(frame: Image, flow: Flow, full_speed: float) -> Image:
    """(H, W, 3) uint8 frame and (2, H, W) flow in px as one (H, 2 W, 3) picture, with the legend where it has room."""
    H, W = frame.shape[:2]
    colours = flow_to_colour(flow, full_speed)
    legend = _legend(min(H, W), full_speed)
    h, w = legend.shape[:2]
    if h <= H // 2 and w <= W // 2:
        colours[H - h :, W - w :] = legend
    return np.hstack([frame, colours])


@lru_cache(maxsize=4)
def _legend(side: int, full_speed: float) -> Image:
    """The wheel with the speed at its rim, for a picture whose shorter side is ``side`` px."""
    diameter = max(24, side // 4)
    letters = max(0.35, side / 700)
    text = f"{full_speed:g} px/frame"
    (wide, tall), below = cv2.getTextSize(text, _FONT, letters, 1)
    margin = max(3, side // 60)
    w = max(diameter, wide) + 2 * margin
    h = diameter + tall + below + 3 * margin
    legend = np.full((h, w, 3), 255, np.uint8)
    y, x = np.mgrid[:diameter, :diameter].astype(np.float32) - (diameter - 1) / 2
    radius = (diameter - 1) / 2
    wheel = flow_to_colour(np.stack([x, y]) * (full_speed / radius), full_speed)
    left = (w - diameter) // 2
    disc = np.hypot(x, y) <= radius
    legend[margin : margin + diameter, left : left + diameter][disc] = wheel[disc]
    centre = (left + diameter // 2, margin + diameter // 2)
    cv2.circle(legend, centre, diameter // 2, (96, 96, 96), 1, cv2.LINE_AA)
    cv2.circle(legend, centre, 1, (96, 96, 96), -1)
    cv2.putText(legend, text, ((w - wide) // 2, h - margin - below), _FONT, letters, (0, 0, 0), 1, cv2.LINE_AA)
    cv2.rectangle(legend, (0, 0), (w - 1, h - 1), (160, 160, 160), 1)
    return legend


__all__ = ["Preview", "find_full_speed", "round_up", "side_by_side", "write_preview"]
