"""What is said about one video."""

from dataclasses import dataclass
from typing import Any

from twostream.prediction.timeline import Segment


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
    """

    video: str
    frames: int
    fps: float
    seconds: float
    predictions: tuple[tuple[str, float], ...]
    timeline: tuple[Segment, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The entry of ``twostream predict --json``; ``timeline`` is there only where it was asked for."""
        document: dict[str, Any] = {
            "video": self.video,
            "frames": self.frames,
            "fps": self.fps,
            "seconds": round(self.seconds, 3),
            "predictions": [{"label": label, "score": score} for label, score in self.predictions],
        }
        if self.timeline is not None:
            document["timeline"] = [segment.to_dict() for segment in self.timeline]
        return document

    def lines(self) -> list[str]:
        """For the terminal: the video, its best classes, and its timeline where there is one."""
        seconds = self.frames / self.fps if self.fps else 0.0
        width = max(len(label) for label, _ in self.predictions)
        lines = [f"{self.video}: {self.frames} frames, {seconds:.1f} s, judged in {self.seconds:.1f} s"]
        lines += [f"  {label:<{width}}  {score:.3f}" for label, score in self.predictions]
        if self.timeline is not None:
            lines += [f"  {s.start:8.2f} to {s.end:8.2f} s  {s.label:<{width}}  {s.score:.3f}" for s in self.timeline]
            if not self.timeline:
                lines.append("  timeline: nothing reaches --min-score")
        return lines
