"""Draws motion_shapes.png, the README's picture: `python docs/images/draw_motion_shapes.py` in the project's folder."""

from pathlib import Path

import cv2
import numpy as np

from twostream.data.motion_shapes import render
from twostream.flow.colour import flow_to_colour
from twostream.flow.estimators import create_estimator

GAP = 6


def column(label: int) -> np.ndarray:
    """A frame of one class with the flow to its successor below."""
    frames, _ = render("same_look", "train", label, difficulty=0.3)
    first, second = (cv2.cvtColor(frames[k], cv2.COLOR_RGB2GRAY) for k in (20, 21))
    flow = flow_to_colour(create_estimator("dis")(first, second), max_magnitude=4)
    top, bottom = (cv2.resize(p, None, fx=1.6, fy=1.6, interpolation=cv2.INTER_CUBIC) for p in (frames[20], flow))
    return np.vstack([top, np.full((GAP, *top.shape[1:]), 255, np.uint8), bottom])


columns = [column(label) for label in range(4)]
between = np.full((columns[0].shape[0], GAP, 3), 255, np.uint8)
picture = np.hstack([part for c in columns for part in (between, c)][1:])
cv2.imwrite(str(Path(__file__).with_name("motion_shapes.png")), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
