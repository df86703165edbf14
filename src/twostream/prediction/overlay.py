"""The video with what was recognised written into it."""

import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from twostream.attention.heat import Heat
from twostream.errors import UsageError
from twostream.prediction.answer import Prediction
from twostream.prediction.timeline import UNKNOWN
from twostream.video import Video, write_video

Uint8Array = npt.NDArray[np.uint8]
Progress = Callable[[int, int, str], None]

_FONT = cv2.FONT_HERSHEY_SIMPLEX
# Letters of about 7 px; smaller ones cannot be read.
_SMALLEST = 0.35
# Letters of a twentieth of the short side: 13 px on a frame 256 px high.
_LETTERS = 1 / 20
# What the band leaves of the picture behind it: white text stays readable even on white.
_BAND = 0.3


def write_overlay(
    video: Path | str, prediction: Prediction, out: Path | str, *, progress: Progress | None = None
) -> int:
    """Write ``video`` as H.264 with label and score on every frame; returns the number of frames.

    With a timeline each frame bears the label of its time, and none where the timeline says nothing; without one all
    bear the best class of the whole video. What is unknown is called so, with the best class as a mere guess. The
    letters of the font are ASCII: accents are dropped, and any other letter is shown as a question mark.

    Where the prediction holds attention it lies over the frames: orange where there is up to four times as much as if
    it were even, blue where there is down to a quarter, clear where it is even; what the network was not shown is
    dimmed. Between the frames that it was shown, the nearest one's attention is held.

    Args:
        video: the file that was predicted.
        prediction: what was said about it.
        out: an ``.mp4`` file, written whole or not at all.
        progress: called with (frames done, frames, file name).

    Raises:
        UsageError: ``out`` is the video itself.
        VideoError: the video cannot be read.
        OutputError: ``out`` cannot be written.
    """
    if Path(out).exists() and Path(out).samefile(video):
        raise UsageError(f"{out}: the overlay would replace the video itself; give it another name")
    source = Video(video)
    track = prediction.attention
    heat = None if track is None else Heat(track, source.width, source.height)

    def frames() -> Iterator[Uint8Array]:
        # Frames are chosen by time, so that a video of variable frame rate keeps its pace.
        for frame in source.stream(fps=source.fps):
            picture = frame.rgb()
            if track is not None and heat is not None:
                picture = heat.over(picture, track.nearest(frame.time))
            yield labelled(picture, _text_at(prediction, frame.time))
            if progress and frame.index % 25 == 0:
                progress(min(frame.index, prediction.frames), prediction.frames, Path(video).name)

    written = write_video(out, frames(), source.fps)
    if progress:
        progress(prediction.frames, prediction.frames, Path(video).name)
    return written


def labelled(frame: Uint8Array, text: str) -> Uint8Array:
    """``frame`` (H, W, 3) with a line of text on a dark band along its lower edge; itself where there is none."""
    if not text:
        return frame
    H, W, _ = frame.shape
    letters = _band(text, W, H)
    darker = cv2.convertScaleAbs(frame[H - len(letters) :], alpha=_BAND)
    frame = frame.copy()
    frame[H - len(letters) :] = np.maximum(darker, letters[..., None])
    return frame


def _text_at(prediction: Prediction, time: float) -> str:
    if prediction.timeline is None:
        label, score = prediction.predictions[0]
        return _line(label if score >= prediction.unknown else f"{UNKNOWN} ({label}?)", score)
    place = bisect_right([segment.start for segment in prediction.timeline], time) - 1
    if place < 0 or time >= prediction.timeline[place].end:
        return ""
    return _line(prediction.timeline[place].text, prediction.timeline[place].score)


def _line(label: str, score: float) -> str:
    return f"{label}  {score:.0%}"


@lru_cache(maxsize=8)
def _band(text: str, width: int, height: int) -> Uint8Array:
    """White letters on black, (h, width): as large as the frame suggests, smaller or cut short where they must be."""
    plain = unicodedata.normalize("NFKD", " ".join(text.split(" ")))
    text = "".join(letter if " " <= letter <= "~" else "?" for letter in plain if not unicodedata.combining(letter))
    scale = max(_SMALLEST, min(width, height) * _LETTERS / _text_size("H", 1.0)[1])
    margin = max(2, round(min(width, height) / 60))
    wide = _text_size(text, scale)[0]
    if wide > width - 2 * margin:
        scale = max(_SMALLEST, scale * (width - 2 * margin) / wide)
    label, _, score = text.rpartition("  ")
    while label and _text_size(text, scale)[0] > width - 2 * margin:
        label = label[:-1]
        text = f"{label}.. {score}"
    tall = _text_size("H", scale)[1]
    below = max(1, round(0.35 * tall))
    band = np.zeros((min(height, 2 * margin + tall + below), width), np.uint8)
    cv2.putText(
        band, text, (margin, len(band) - margin - below), _FONT, scale, 255, max(1, round(scale * 1.5)), cv2.LINE_AA
    )
    return band


def _text_size(text: str, scale: float) -> tuple[int, int]:
    (wide, tall), _ = cv2.getTextSize(text, _FONT, scale, max(1, round(scale * 1.5)))
    return wide, tall
