"""Explaining videos that no run knows: each becomes a file of arrays, and the frames and flow to draw them on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from twostream.attention.attributions import Attribution, AttributionFile, Method
from twostream.attention.tracks import AttentionFile, AttentionTrack
from twostream.attention.watch import Watcher
from twostream.checkpoint import LoadedModel
from twostream.evaluation.evaluate import resolve_device
from twostream.explain.attention import track_of
from twostream.explain.attribution import attribution_lines, attribution_meta, attributor_for, class_index, figures
from twostream.explain.attributor import PATH_STEPS
from twostream.explain.shown import MOMENTS, Shown, shown_of_file
from twostream.flow.quantize import dequantize
from twostream.version import __version__


@dataclass(frozen=True)
class ExplainedVideo:
    """What was found about one new video, and the file it was written to.

    Attributes:
        video: the file.
        found: attributions or attention.
        file: where they are.
        classes: K names.
        flow: (R S, 2, H, W) in px, the middle field of each stack that was shown; None where no flow is read.
    """

    video: Path
    found: Attribution | AttentionTrack
    file: Path
    classes: tuple[str, ...]
    flow: npt.NDArray[np.float32] | None

    def to_dict(self) -> dict[str, Any]:
        """The entry of ``--json``."""
        told: dict[str, Any] = {"video": str(self.video), "file": str(self.file)}
        if isinstance(self.found, Attribution):
            return told | figures(self.found, self.classes)
        return told | {"concentration": float(self.found.concentration().mean())}

    def lines(self) -> list[str]:
        """The figures for the terminal."""
        if isinstance(self.found, Attribution):
            return attribution_lines(self.video.name, self.found, self.classes)
        half = float(self.found.concentration().mean())
        return [f"{self.video.name}: half of the attention lies on {half:.2f} of the cells (0.50 if it were even)"]


class VideoExplainer:
    """A model ready to explain new video files.

    Args:
        loaded: the model.
        method: ``"gradcam"``, ``"integrated_gradients"`` or ``"attention"``.
        label: the class that is asked about; None: what each video is taken for.
        protocol: says whether the whole frame is shown or its centre.
        moments: of each video, spread evenly over it.
        path_steps: of integrated gradients.
        device: ``"auto"`` or a torch device.

    Raises:
        UsageError: captum is not installed, the network has no attention, or the model no such class.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        method: Method | Literal["attention"],
        *,
        label: str | None = None,
        protocol: str = "25-step",
        moments: int = MOMENTS,
        path_steps: int = PATH_STEPS,
        device: str = "auto",
    ) -> None:
        self._loaded, self._protocol, self._moments = loaded, protocol, moments
        self._method, self._path_steps = method, path_steps
        self._label = None if label is None else class_index(label, loaded.classes)
        if method == "attention":
            self._watcher = Watcher(loaded.model, resolve_device(device))
        else:
            self._attributor = attributor_for(loaded, method, device=device, path_steps=path_steps)

    def explain(self, video: Path | str, file: Path) -> ExplainedVideo:
        """Explain one video and write what was found to ``file``.

        Raises:
            VideoError: it cannot be read.
            DataError: it is too short.
            OutputError: the file cannot be written.
        """
        loaded, attention = self._loaded, self._method == "attention"
        shown = shown_of_file(video, loaded, protocol=self._protocol, moments=self._moments, mirrored=attention)
        meta: dict[str, Any] = {"protocol": self._protocol, "file": str(video)}
        name = Path(video).name
        found: Attribution | AttentionTrack
        if self._method == "attention":
            found = track_of(self._watcher, shown)
            meta |= {"model": loaded.model.name, "weights": loaded.config["weights"]["sha256"]}
            meta |= {"moments": self._moments, "twostream": __version__}
            AttentionFile(tracks={name: found}, meta=meta).save(file)
        else:
            found = self._attributor.attribute(shown, self._label)
            meta |= attribution_meta(loaded, self._method, moments=self._moments, path_steps=self._path_steps)
            AttributionFile(videos={name: found}, classes=loaded.classes, meta=meta).save(file)
        return ExplainedVideo(Path(video), found, file, loaded.classes, _fields(shown))


def _fields(shown: Shown) -> npt.NDArray[np.float32] | None:
    flow = shown.flow.flatten(0, 1).numpy()  # (R S, 2L, H, W)
    middle = flow.shape[1] // 4 * 2
    return dequantize(flow[:, middle : middle + 2]) if len(flow) else None


def file_names(videos: Sequence[Path | str], method: str) -> list[str]:
    """A name for the file of each video, without its ending; videos of one name are numbered."""
    stems = [f"{Path(video).stem}-{method}" for video in videos]
    return [stem if stems.count(stem) == 1 else f"{stem}-{stems[: n + 1].count(stem)}" for n, stem in enumerate(stems)]


__all__ = ["ExplainedVideo", "VideoExplainer", "file_names"]
