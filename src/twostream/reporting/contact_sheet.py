"""One picture file about one video: rows of frames, flow and what a network made of them."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from twostream.attention.attributions import Attribution
from twostream.attention.tracks import AttentionTrack
from twostream.files import atomic_write
from twostream.reporting.attribution import Row, some, stream_rows
from twostream.reporting.clips import footage
from twostream.reporting.figures import attention_images, flow_images
from twostream.reporting.run_files import Sample
from twostream.video import Image, VideoError

_MOMENTS = 6
# Inches: a tile's height, and what stands above a row and above the sheet.
_TILE, _CAPTION, _TITLE = 1.5, 0.3, 0.45


def write_sheet(
    target: Path,
    video: Path,
    found: Attribution | AttentionTrack,
    classes: Sequence[str],
    *,
    title: str,
    flow: npt.NDArray[np.float32] | None,
) -> None:
    """Write a PNG with at most six moments of a video side by side.

    Args:
        target: the file.
        video: where its frames are read.
        found: what is laid over them.
        classes: K names.
        title: above all.
        flow: (M, 2, H, W) in px, a field for each step of the motion stream; None: there is none.

    Raises:
        VideoError: the video cannot be read.
        OutputError: the file cannot be written.
    """
    rows: list[Row] = []
    if isinstance(found, AttentionTrack):
        moments = some(len(found), _MOMENTS)
        seconds = [float(found.seconds[m]) for m in moments]
        frames = _frames(video, seconds)
        rows.append(Row("Frames", list(frames), seconds))
        images = attention_images(frames, found, moments)
        rows.append(Row("Attention: more than an even share (orange), less (blue)", images, seconds))
    else:
        for stream, maps in found.streams.items():
            moments = some(len(maps), _MOMENTS)
            frames = _frames(video, [float(maps.seconds[m]) for m in moments])
            drawn = flow_images(flow[moments])[0] if stream == "motion" and flow is not None else None
            rows += stream_rows(
                stream, maps, found, classes[found.label], moments, frames, drawn, first=not rows
            )  # fmt: skip
    with atomic_write(target) as file:
        file.write(_png(title, rows))


def _frames(video: Path, seconds: Sequence[float]) -> Image:
    sample = Sample(name=video.name, video=video.name, path=video, label=-1, group="", start=None, end=None)
    frames = footage(sample, None, moments=seconds).frames
    if frames is None:
        raise VideoError(video, "has no frames to draw on")
    return frames


def _png(title: str, rows: Sequence[Row]) -> bytes:
    columns = max(len(row.images) for row in rows)
    shape = rows[0].images[0].shape
    width = _TILE * shape[1] / shape[0]
    size = max(5.0, columns * width + 0.2), _TITLE + len(rows) * (_TILE + _CAPTION + 0.12)
    figure = Figure(figsize=size, dpi=110, facecolor="white")
    figure.text(0.1 / size[0], 1 - 0.14 / size[1], title, va="top", fontsize=10, parse_math=False)
    top = size[1] - _TITLE
    for row, before in zip(rows, [None, *rows], strict=False):
        top -= _CAPTION
        place = 0.1 / size[0], (top + 0.06) / size[1]
        figure.text(*place, row.said(before), fontsize=8, color="#555", parse_math=False)
        top -= _TILE
        for column, image in enumerate(row.images):
            axes = figure.add_axes(
                ((0.1 + column * width) / size[0], top / size[1], 0.97 * width / size[0], _TILE / size[1])
            )
            axes.imshow(image)
            axes.axis("off")
        top -= 0.12
    target = io.BytesIO()
    figure.savefig(target, format="png", metadata={"Software": None})
    return target.getvalue()


__all__ = ["write_sheet"]
