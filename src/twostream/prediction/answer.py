"""What is said about one video."""

from dataclasses import dataclass, field
from typing import Any

from twostream.attention.tracks import AttentionTrack
from twostream.prediction.timeline import UNKNOWN, Segment
from twostream.units import seconds_text


@dataclass(frozen=True)
class Prediction:
    """What a model says about one video.

    Attributes:
        video: the path as it was given.
        frames: decoded frames of the file.
        fps: its frames per second.
        seconds: wall time that the prediction took.
        predictions: the best classes with their probabilities, best first.
        timeline: what happens when; None where it was not asked for.
        unknown: the confidence that the best class must reach to become the label, of the video and of each stretch of
            its timeline; 0 asks for none.
        calibrated: whether a temperature that was fitted under this protocol is in the probabilities.
        attention: where the network looked along the video; None where it was not asked for.
    """

    video: str
    frames: int
    fps: float
    seconds: float
    predictions: tuple[tuple[str, float], ...]
    timeline: tuple[Segment, ...] | None = None
    unknown: float = 0.0
    calibrated: bool = False
    attention: AttentionTrack | None = field(default=None, repr=False, compare=False)

    @property
    def label(self) -> str:
        """The best class, or ``"unknown"`` where it is not sure enough; it then still leads ``predictions``."""
        best, score = self.predictions[0]
        return best if score >= self.unknown else UNKNOWN

    def to_dict(self) -> dict[str, Any]:
        """The entry of ``twostream predict --json``; ``timeline`` is there only where it was asked for."""
        document: dict[str, Any] = {
            "video": self.video,
            "frames": self.frames,
            "fps": self.fps,
            "seconds": round(self.seconds, 3),
            "label": self.label,
            "unknown_below": self.unknown,
            "calibrated": self.calibrated,
            "predictions": [{"label": label, "score": score} for label, score in self.predictions],
        }
        if self.timeline is not None:
            document["timeline"] = [segment.to_dict() for segment in self.timeline]
        return document

    def lines(self) -> list[str]:
        """What the terminal shows: the best classes, and the segments of the timeline if there is one."""
        lasts = seconds_text(self.frames / self.fps)
        lines = [f"{self.video}: {self.frames} frames, {lasts} at {self.fps:.4g}/s; took {seconds_text(self.seconds)}"]
        if self.predictions[0][1] < self.unknown:
            lines.append(f"  {UNKNOWN}: no class reaches {self.unknown:g}; the best guesses:")
        lines += [f"  {score:.3f}  {label}" for label, score in self.predictions]
        if self.timeline is not None:
            lines.append("  timeline:" if self.timeline else "  timeline: nothing that lasts and is sure enough")
        for segment in self.timeline or ():
            lines.append(f"  {_clock(segment.start)} - {_clock(segment.end)}  {segment.score:.3f}  {segment.text}")
        return lines


def _clock(seconds: float) -> str:
    """``3725.5`` as ``1:02:05.5``."""
    tenths = round(seconds * 10)
    return f"{tenths // 36000}:{tenths // 600 % 60:02d}:{tenths // 10 % 60:02d}.{tenths % 10}"
