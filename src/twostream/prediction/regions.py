"""Where in a new video something moves, before it is looked at there: as a whole, and in each window of a timeline."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from twostream.clip import InputSpec
from twostream.data.region import WHOLE, Region, moving_region, region_fields
from twostream.data.sampling import ClipIndices
from twostream.flow.store import FlowSettings
from twostream.prediction.clip_reader import read_clips
from twostream.video import Video


def find_regions(video: Video, spec: InputSpec, settings: FlowSettings, spans: Sequence[range]) -> tuple[Region, ...]:
    """The region of each of some stretches of a video; all of the frame where the network looks at all of it.

    Flow is computed for this alone and forgotten.

    Args:
        video: read from its beginning to the end of what is needed.
        spec: says what is looked at.
        settings: how flow is computed.
        spans: of frames at the frame rate of ``settings``.

    Raises:
        VideoError, FlowError: see :func:`read_clips`.
    """
    found = [WHOLE] * len(spans)
    if spec.region == "frame":
        return tuple(found)
    clips = [ClipIndices(np.empty(0, np.int64), region_fields(span.start, span.stop)[None]) for span in spans]
    for n, _, fields in read_clips(video, clips, replace(spec, streams=("motion",)), settings):
        found[n] = moving_region(fields, settings.bound)
    return tuple(found)


__all__ = ["find_regions"]
