"""What a trained model says about new videos: labels, timelines, and the files they are written to."""

from twostream.prediction.answer import Prediction
from twostream.prediction.overlay import write_overlay
from twostream.prediction.predictor import PredictionError, Predictor
from twostream.prediction.timeline import Segment, TimelineSettings, segments
from twostream.prediction.writers import write_csv, write_srt

__all__ = [
    "Prediction",
    "PredictionError",
    "Predictor",
    "Segment",
    "TimelineSettings",
    "segments",
    "write_csv",
    "write_overlay",
    "write_srt",
]
