"""Predictions as files: JSON, CSV and SRT subtitles, each written whole or not at all."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from twostream.errors import UsageError
from twostream.files import write_text
from twostream.prediction.answer import Prediction
from twostream.prediction.timeline import Segment


def write_csv(path: Path | str, predictions: Sequence[Prediction]) -> None:
    """Write the timelines of one or several videos: ``video,start,end,label,score``, a row a segment.

    A stretch that is not sure enough has the label ``unknown``, and the score of its best class.

    Raises:
        UsageError: a prediction without a timeline.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("video", "start", "end", "label", "score"))
    for prediction in predictions:
        for segment in _timeline(prediction):
            times = (f"{segment.start:.3f}", f"{segment.end:.3f}")
            writer.writerow((prediction.video, *times, segment.label, f"{segment.score:.4f}"))
    write_text(path, text.getvalue())


def write_srt(path: Path | str, prediction: Prediction) -> None:
    """Write the timeline as SRT subtitles, which players show beside a video of the same name.

    Raises:
        UsageError: the prediction has no timeline.
    """
    cues = []
    for number, segment in enumerate(_timeline(prediction), 1):
        # A blank line ends a cue and an arrow begins one: a label must hold neither.
        label = " ".join(segment.text.split()).replace("-->", "->")
        cues.append(f"{number}\n{srt_time(segment.start)} --> {srt_time(segment.end)}\n{label} ({segment.score:.0%})\n")
    write_text(path, "\n".join(cues))


def srt_time(seconds: float) -> str:
    """``3725.5`` as ``01:02:05,500``."""
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d},{rest % 1000:03d}"


def _timeline(prediction: Prediction) -> tuple[Segment, ...]:
    if prediction.timeline is None:
        raise UsageError(f"{prediction.video}: there is no timeline to write; predict with timeline=True (--timeline)")
    return prediction.timeline
