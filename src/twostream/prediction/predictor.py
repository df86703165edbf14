"""From a path to labels and a timeline, and from tensors to logits, with a trained model."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from twostream.attention.watch import Watcher
from twostream.checkpoint import load_model
from twostream.clip import InputSpec, Scores
from twostream.data.sampling import ShortClips, sample_views, shortest
from twostream.errors import TwostreamError, UsageError
from twostream.evaluation.evaluate import Precision, check_precision, resolve_device
from twostream.evaluation.metrics import probabilities
from twostream.evaluation.protocols import Protocol, get_protocol
from twostream.evaluation.temperature import Temperature, tempered
from twostream.flow.estimators import FlowError
from twostream.flow.store import FlowSettings
from twostream.prediction.answer import Prediction
from twostream.prediction.clip_reader import read_clips
from twostream.prediction.judge import Judge, all_looks, one_look
from twostream.prediction.onlooker import Onlooker
from twostream.prediction.regions import find_regions
from twostream.prediction.timeline import (
    MIN_LENGTH,
    MIN_SCORE,
    STRIDE,
    WINDOW,
    FloatArray,
    Segment,
    TimelineSettings,
    cell_edges,
    judges_steps_alone,
    segments,
    smooth,
    window_clips,
    window_frames,
)
from twostream.video import Video, grid_size, probe

Progress = Callable[[int, int, str], None]

# Share of the time that counting the frames takes.
_COUNTING = 0.15


class PredictionError(TwostreamError):
    """A video that this model cannot judge."""


class Predictor:
    """A trained model with all that a new video needs to become its input.

    Without a store: frames and flow are computed on the way, by the settings that the model was trained with, and
    forgotten when judged, so that memory does not grow with the video's length.

    Args:
        model: ``model(rgb, flow) -> (B, V, K)`` with ``spec`` and ``votes``.
        classes: K names.
        flow: how flow was computed for training, and the grid that frames are resized to.
        short_clips: what becomes of a video shorter than one flow stack.
        stream_weights: of the votes; None: equal.
        flips: whether mirror images are seen where a protocol has them.
        temperatures: by protocol, what logits are divided by before the softmax (``evaluation.calibration``).
        device: ``"auto"`` (the GPU if there is one) or a torch device.
        precision: arithmetic of the network. ``"bf16-mixed"`` is up to three times as fast on CPUs that multiply
            such numbers (AMX, AVX-512 BF16), slower on others, and moves probabilities by a hundredth at most.

    Raises:
        UsageError: no such device or precision.
    """

    def __init__(
        self,
        model: nn.Module,
        classes: Sequence[str],
        *,
        flow: FlowSettings,
        short_clips: ShortClips = "refuse",
        stream_weights: Mapping[str, float] | None = None,
        flips: bool = True,
        temperatures: Mapping[str, float] | None = None,
        device: str = "auto",
        precision: Precision = "32-true",
    ) -> None:
        check_precision(precision)
        self.precision = precision
        self.device = resolve_device(device)
        self.model = model.to(self.device).eval()
        self.spec = cast(InputSpec, model.spec)
        self.classes = tuple(classes)
        self.flow = flow
        self.short_clips = short_clips
        self.stream_weights = stream_weights
        self.flips = flips
        self.temperatures = dict(temperatures or {})

    @classmethod
    def load(cls, folder: Path | str, *, device: str = "auto", precision: Precision = "32-true") -> "Predictor":
        """The model of a run folder, or of the model folder in it.

        How to make its input is read from the provenance in ``config.json``: ``flow`` (the flow store's settings),
        ``short_clips``, ``stream_weights`` and ``no_flip`` (classes that a mirror would change). Where there is none,
        flow is DIS at the short side and frame rate of the model's InputSpec. Temperatures are those that ``twostream
        calibrate`` left in it.

        Raises:
            CheckpointError: no model there, or a damaged one.
            CalibrationError: its temperature cannot be read.
            UsageError: no such device.
        """
        loaded = load_model(folder)
        provenance: Mapping[str, Any] = loaded.config["provenance"]
        spec = loaded.model.spec
        given = provenance.get("flow")
        return cls(
            loaded.model,
            loaded.classes,
            flow=FlowSettings.from_dict(given) if given else FlowSettings(short_side=spec.resize, fps=spec.fps),
            short_clips=provenance.get("short_clips", "refuse"),
            stream_weights=provenance.get("stream_weights"),
            flips=not provenance.get("no_flip"),
            temperatures={name: Temperature.from_dict(found).value for name, found in loaded.calibration.items()},
            device=device,
            precision=precision,
        )

    def logits(self, rgb: Tensor, flow: Tensor) -> Tensor:
        """Logits (B, V, K) on the CPU for ``rgb`` (B, T, 3, H, W) and ``flow`` (B, S, 2L, H, W), 0..255.

        Raises:
            ShapeError: not the shapes that ``spec`` asks for.
        """
        with torch.inference_mode():
            logits: Tensor = self.model(rgb.to(self.device), flow.to(self.device))
        return logits.float().cpu()

    def predict(
        self,
        path: Path | str,
        *,
        top: int = 5,
        protocol: str = "25-step",
        timeline: bool = False,
        window: float = WINDOW,
        stride: float = STRIDE,
        min_score: float = MIN_SCORE,
        min_length: float = MIN_LENGTH,
        unknown: float = 0.0,
        attention: float | None = None,
        progress: Progress | None = None,
    ) -> Prediction:
        """Label a video, and with ``timeline`` say what happens when.

        The video is decoded twice: to count its frames, because the protocols spread their views over all of it, and to
        look at them. The windows of the timeline see the frame as the protocol does, but one crop of it and no mirror
        images. A network that looks at where something moves has the flow computed once more beforehand, to find the
        region of the whole video and that of each window.

        Where there is a temperature for the protocol, probabilities are calibrated by it. Those of the timeline are
        divided by the same one, which was not fitted to them: a window is fewer views than a video.

        With ``attention`` the network is also asked where it looks, for clips like those of the timeline at so many
        seconds from one another: through the same crop, and its mirror image where the protocol has them, the mean of
        both. A map is of the frame that the clip shows; it says nothing of the frames between two clips.

        Args:
            path: a video file.
            top: how many classes to name, at most K.
            protocol: a name of ``evaluation.protocols.PROTOCOLS``; the answer is the one that ``evaluate`` counts.
            timeline: whether to make one.
            window, stride, min_score, min_length: see :class:`TimelineSettings`.
            unknown: 0..1; where the best class does not reach this probability the label is ``"unknown"``, of the video
                and of the stretches of its timeline. There the stricter of it and ``min_score`` decides.
            attention: seconds from one map to the next, above 0; None: none are made.
            progress: called with (percent done, 100, file name).

        Raises:
            VideoError: the video cannot be read; names it and says why.
            PredictionError: it is too short for one flow stack, or its frames are too small for flow.
            UsageError: an unknown protocol, numbers out of range, or attention of a network that has none.
        """
        began = time.monotonic()
        if top < 1:
            raise UsageError(f"top must be at least 1, got {top}")
        if not 0 <= unknown <= 1:
            raise UsageError(f"unknown: the confidence below which nothing is said is from 0 to 1, got {unknown}")
        if attention is not None and not 0 < attention < np.inf:
            raise UsageError(f"attention: the seconds from one map to the next are above 0, got {attention}")
        watcher = None if attention is None else Watcher(self.model, self.device)
        chosen = get_protocol(protocol)
        chosen = replace(chosen, flips=chosen.flips and self.flips)
        wanted = TimelineSettings(window=window, stride=stride, min_score=min_score, min_length=min_length)
        tell = _Percent(progress, Path(path).name)
        video = Video(path)
        _count(video, lambda share: tell(_COUNTING * share))
        info = video.info()
        rate = self.flow.fps
        times = video.times if rate is None else np.arange(video.count(rate)) / rate
        self._check_length(path, len(times))
        views = sample_views(self.spec, len(times), chosen.steps, spacing=chosen.spacing, short_clips=self.short_clips)
        grid = grid_size(video.width, video.height, self.flow.short_side)
        # Cells shorter than a frame would show the same one again and again.
        least = 1 / (rate or info.fps)
        edges = cell_edges(info.seconds, max(wanted.stride, least))
        windows, looks = (
            window_clips(self.spec, times, borders, window=wanted.window, short_clips=self.short_clips) if asked else []
            for asked, borders in (
                (timeline, edges),
                (watcher is not None, cell_edges(info.seconds, max(attention or 0, least))),
            )
        )
        try:
            spans = window_frames(self.spec, times, edges, window=wanted.window) if timeline else []
            region, *of_window = find_regions(video, self.spec, self.flow, [range(len(times)), *spans])
        except FlowError as error:
            raise PredictionError(f"{path}: {error}") from error
        onlooker = None
        if watcher is not None:
            onlooker = Onlooker(watcher, self.spec, one_look(chosen, self.spec, grid, region, mirrored=chosen.flips))
        network = self.model, self.spec, self.classes, self.device, self.precision
        whole = Judge(*network, partial(all_looks, chosen, self.spec, grid))
        parts = Judge(*network, partial(one_look, chosen, self.spec, grid))
        reading = read_clips(
            video,
            [*views, *windows, *looks],
            self.spec,
            self.flow,
            seen=lambda frames: tell(_COUNTING + (1 - _COUNTING) * frames / len(times)),
        )
        try:
            for n, frames, moved in reading:
                if n < len(views):
                    whole.add(n, frames, moved, region)
                elif n < len(views) + len(windows):
                    parts.add(n, frames, moved, of_window[n - len(views)])
                elif onlooker is not None:
                    onlooker.add(n, frames, moved)
        except FlowError as error:
            raise PredictionError(f"{path}: {error}") from error
        answer = self._probabilities(whole.scores(as_one=True), chosen)[0]
        happened: tuple[Segment, ...] | None = None
        if timeline:
            along = self._probabilities(parts.scores(as_one=False), chosen)
            if judges_steps_alone(self.spec):
                along = smooth(along, wanted.window / (edges[1] - edges[0]))
            happened = segments(
                edges,
                along,
                self.classes,
                min_score=wanted.min_score,
                min_length=wanted.min_length,
                unknown=unknown,
            )
        tell(1)
        return Prediction(
            video=str(path),
            frames=info.frames,
            fps=info.fps,
            seconds=time.monotonic() - began,
            predictions=tuple(
                (self.classes[k], float(answer[k])) for k in np.argsort(-answer, kind="stable")[:top].tolist()
            ),
            timeline=happened,
            unknown=unknown,
            calibrated=chosen.name in self.temperatures,
            attention=None if onlooker is None else onlooker.track([float(times[clip.frames[0]]) for clip in looks]),
        )

    def _check_length(self, path: Path | str, frame_count: int) -> None:
        least = shortest(self.spec)
        if frame_count < least and self.short_clips == "refuse":
            at = "" if self.flow.fps is None else f" at {self.flow.fps:g} per second"
            raise PredictionError(
                f"{path}: {frame_count} frames{at}, but this model needs {least} for one stack of "
                f"{self.spec.flow_length} flow fields; take a longer piece of the recording, or a model trained with "
                "--short_clips repeat"
            )

    def _probabilities(self, scores: Scores, protocol: Protocol) -> FloatArray:
        scores = tempered(scores, self.temperatures.get(protocol.name, 1.0))
        return probabilities(scores, stream_weights=self.stream_weights, order=protocol.merge)


def _count(video: Video, progress: Callable[[float], object]) -> None:
    """Pass over the video once, after which its length and times are known; ``progress`` is called with a share."""
    guess = max(1, probe(video.path).frames)
    for frame in video.stream():
        progress(min(1.0, (frame.index + 1) / guess))


class _Percent:
    """Hands on a share of the work as whole percents, each once."""

    def __init__(self, progress: Progress | None, name: str) -> None:
        self._progress, self._name, self._said = progress, name, -1

    def __call__(self, share: float) -> None:
        percent = round(100 * share)
        if self._progress and percent != self._said:
            self._said = percent
            self._progress(percent, 100, self._name)
