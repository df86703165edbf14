"""What in frames and flow spoke for a class, on the videos of a run: maps as a file, and their figures."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twostream.attention.attributions import TITLES, Attribution, AttributionFile, Method
from twostream.checkpoint import LoadedModel
from twostream.errors import UsageError
from twostream.evaluation.evaluate import resolve_device
from twostream.explain.attributor import PATH_STEPS, Attributor
from twostream.explain.shown import MOMENTS, run_views
from twostream.runs import Progress, RunFolder
from twostream.version import __version__

Say = Callable[[str], None]

# Beyond this share of the difference, attributions that should add up to it do not.
_INCOMPLETE = 0.1


@dataclass(frozen=True)
class Attributed:
    """Attributions on some videos, where they were written, and what could not be looked at.

    Attributes:
        attributions: what was found.
        file: where it is.
        unreadable: videos that could not be read, with the reason.
        left: videos that there was no time for.
    """

    attributions: AttributionFile
    file: Path
    unreadable: Mapping[str, str]
    left: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The document of ``--json``."""
        classes = self.attributions.classes
        return {
            "file": str(self.file),
            **self.attributions.meta,
            "videos": {name: figures(found, classes) for name, found in self.attributions.videos.items()},
            "left": self.left,
            "unreadable": dict(self.unreadable),
        }

    def lines(self) -> list[str]:
        """The figures for the terminal."""
        classes = self.attributions.classes
        title = TITLES[self.attributions.meta["method"]]
        lines = [
            line for name, found in self.attributions.videos.items() for line in attribution_lines(name, found, classes)
        ]
        lines.append(f"{title} of {len(self.attributions.videos)} videos: {self.file}")
        if self.left:
            lines.append(f"no time for {self.left} more; twostream explain takes as long as it needs")
        lines += [f"could not be read: {reason}" for reason in self.unreadable.values()]
        return lines


def attribution_lines(name: str, found: Attribution, classes: tuple[str, ...]) -> list[str]:
    """A video's figures for the terminal."""
    told = figures(found, classes)
    chances = ", ".join(f"{chance:.2f} {shown}" for shown, chance in told["probability"].items())
    lines = [f"{name}: {told['class']}, probability {chances}"]
    if "incomplete" in told:
        shares = ", ".join(f"{stream} {value:+.2f}" for stream, value in told["attribution"].items())
        lines.append(f"  of the logit's difference {told['difference']:+.2f}: {shares}")
        if told["incomplete"] > _INCOMPLETE:
            lines.append(
                f"  they miss it by {told['incomplete']:.0%}; more points on the path (--path-steps) miss by less"
            )
    return lines


def figures(found: Attribution, classes: tuple[str, ...]) -> dict[str, Any]:
    """A video's figures: the class, its probability as shown and with streams silenced, what each stream adds up to.

    Attributions of a logit are complete where they add up to the difference that the streams make to it: those of
    integrated gradients, but for the finite number of points; Grad-CAM's need not.
    """
    told: dict[str, Any] = {
        "class": classes[found.label],
        "probability": {shown: found.probability(shown, found.label) for shown in found.logits},
        "difference": found.difference,
    }
    if found.complete:
        told["attribution"] = {stream: maps.total for stream, maps in found.streams.items()}
        sizes = [abs(value) for value in told["attribution"].values()]
        told["incomplete"] = abs(found.total - found.difference) / max(abs(found.difference), sum(sizes), 1e-6)
    return told


def class_index(name: str, classes: tuple[str, ...]) -> int:
    """The index of a class.

    Raises:
        UsageError: the model has no such class.
    """
    if name not in classes:
        raise UsageError(f"the model has no class {name!r}; it has {', '.join(classes)}")
    return classes.index(name)


def attributor_for(loaded: LoadedModel, method: Method, *, device: str, path_steps: int) -> Attributor:
    """A loaded model, ready to be asked."""
    weights = loaded.config["provenance"].get("stream_weights")
    return Attributor(
        loaded.model, resolve_device(device), method=method, path_steps=path_steps, stream_weights=weights
    )


def attribution_meta(loaded: LoadedModel, method: Method, *, moments: int, path_steps: int) -> dict[str, Any]:
    """What an :class:`AttributionFile` says about where it comes from."""
    meta = {
        "method": method,
        "moments": moments,
        "model": loaded.model.name,
        "weights": loaded.config["weights"]["sha256"],
        "twostream": __version__,
    }
    return meta | ({"path_steps": path_steps} if method == "integrated_gradients" else {})


def explain_attribution(
    run: RunFolder,
    method: Method,
    *,
    part: str = "test",
    protocol: str = "25-step",
    moments: int = MOMENTS,
    videos: int | None = None,
    of: Mapping[str, str] | None = None,
    label: str | None = None,
    path_steps: int = PATH_STEPS,
    seconds: float | None = None,
    out: Path | None = None,
    device: str = "auto",
    flow_workers: int = 1,
    say: Say = print,
    progress: Progress | None = None,
) -> Attributed:
    """Ask a run's network what spoke for a class in the videos of a part, and keep the answer in the run folder.

    Flow that is not stored yet is computed on the way. No mirror images are shown.

    Args:
        run: a finished run.
        method: ``"gradcam"`` or ``"integrated_gradients"``.
        part: train, val or test.
        protocol: says whether the whole frame is seen or its centre.
        moments: of each video, spread evenly over it; a network that sees steps together is shown at least its own.
        videos: at most so many, spread evenly over the list; None: all.
        of: these videos alone, by name, and for each the class that is asked about.
        label: the class that is asked about; None: for each video what it is taken for.
        path_steps: of integrated gradients.
        seconds: after so many no other video is begun; the first always is.
        out: folder; None: the run's ``explain``.
        device: ``"auto"`` or a torch device.
        flow_workers: processes that compute flow.
        say: takes a line for the user.
        progress: called with (videos done, videos, name).

    Raises:
        UsageError: captum is not installed, no such videos or class, or numbers are out of range.
        RunError: the run has not finished.
    """
    ready: list[tuple[Attributor, int | None]] = []

    def needs(loaded: LoadedModel) -> None:
        asked = None if label is None else class_index(label, loaded.classes)
        ready.append((attributor_for(loaded, method, device=device, path_steps=path_steps), asked))

    shown = run_views(
        run,
        part=part,
        protocol=protocol,
        moments=moments,
        videos=videos,
        names=None if of is None else set(of),
        mirrored=False,
        flow_workers=flow_workers,
        say=say,
        progress=progress,
        needs=needs,
    )
    attributor, asked = ready[0]
    classes = shown.loaded.classes
    found: dict[str, Attribution] = {}
    began = time.monotonic()
    for n, item in enumerate(shown.items):
        if found and seconds is not None and time.monotonic() - began > seconds:
            break
        about = asked if of is None else class_index(of[item.name], classes)
        found[item.name] = attributor.attribute(shown.shown(n), about)
        if progress:
            progress(n + 1, len(shown.items), item.name)
    meta = attribution_meta(shown.loaded, method, moments=moments, path_steps=path_steps)
    meta |= {"part": part, "split": str(run.config()["split"]), "protocol": protocol, "run": str(run.path)}
    file = (out or run.path / "explain") / f"{method}-{part}.npz"
    attributions = AttributionFile(videos=found, classes=classes, meta=meta)
    attributions.save(file)
    return Attributed(attributions, file, shown.unreadable, left=len(shown.items) - len(found))


__all__ = [
    "Attributed",
    "attribution_lines",
    "attribution_meta",
    "attributor_for",
    "class_index",
    "explain_attribution",
    "figures",
]
