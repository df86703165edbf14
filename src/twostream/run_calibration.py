"""A run's temperature: fitted on its validation part, kept in its model folder, tried on its test scores."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from twostream.checkpoint import save_calibration
from twostream.clip import Scores, ScoresError
from twostream.evaluation.calibration import Bin, CalibrationError, Coverage, Figures, coverage, figures, reliability_of
from twostream.evaluation.metrics import FULL_PRECISION
from twostream.evaluation.protocols import get_protocol
from twostream.evaluation.temperature import FEW_VIDEOS, Temperature, calibrate, tempered
from twostream.runs import Progress, RunError, RunFolder, evaluate_run


@dataclass(frozen=True, kw_only=True)
class RunCalibration:
    """What ``twostream calibrate`` found.

    Attributes:
        run: the run folder.
        temperature: as it stands in the model folder now.
        folder: that folder.
        scores_file: of the validation videos.
        reused: whether the scores were there already.
        table: reliability of the validation answers at the temperature.
        thresholds: what answering only above a confidence costs and brings, on validation, at the temperature.
        test: figures of the test part without and with the temperature; None where it has no scores of these weights.
        unreadable: validation videos that could not be judged.
    """

    run: Path
    temperature: Temperature
    folder: Path
    scores_file: Path
    reused: bool
    table: tuple[Bin, ...]
    thresholds: tuple[Coverage, ...]
    test: tuple[Figures, Figures] | None
    unreadable: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """What ``calibrate --json`` prints."""
        found = self.temperature.to_dict()
        return {
            "temperature": found.pop("value"),
            **found,
            "videos": self.temperature.videos,
            "rough": self.temperature.videos < FEW_VIDEOS,
            "model": str(self.folder),
            "scores_file": str(self.scores_file),
            "scores_reused": self.reused,
            "reliability": [asdict(one) for one in self.table],
            "coverage": [asdict(one) for one in self.thresholds],
            "test": None if self.test is None else {"before": self.test[0].to_dict(), "after": self.test[1].to_dict()},
            "unreadable": dict(self.unreadable),
        }

    def lines(self) -> list[str]:
        """What the terminal shows."""
        found = self.temperature
        manner = "about as sure as right"
        if abs(found.value - 1) > 0.05:
            manner = "too sure of itself" if found.value > 1 else "not sure enough of itself"
        lines = [
            f"temperature {found.value:.4g}: under {found.protocol} the network was {manner} on {found.videos} "
            "validation videos" + (" (scores that were there)" if self.reused else ""),
            "                     calibration error  equal-mass  log loss  Brier",
            _row("validation before", found.before),
            _row("validation after", found.after) + "   fitted on these",
        ]
        if self.test is None:
            lines.append(
                "  test: no scores of these weights in full precision; "
                f"twostream evaluate {self.run} --protocol {found.protocol}"
            )
        else:
            lines += [_row("test before", self.test[0]), _row("test after", self.test[1])]
            if self.test[1].nll > self.test[0].nll:
                lines.append(
                    "  warning: on test it makes the log loss worse; the validation part is no guide to this one"
                )
        lines += ["reliability on validation, after:", "  confidence       videos  mean   right"]
        lines += [
            f"  {one.low:.3f} to {one.high:.3f}  {one.videos:6}  {one.confidence:.3f}  {one.accuracy:.3f}"
            for one in self.table
        ]
        lines += [
            "answers from a confidence on (predict --unknown), on validation:",
            "  C      answered  right of these",
        ]
        for at in self.thresholds:
            right = "  -" if at.accuracy is None else f"{at.accuracy:.3f}"
            lines.append(f"  {at.threshold:.2f}   {at.answered:.3f}     {right}")
        lines.append(f"kept in {self.folder}: predict and evaluate use it under {found.protocol}")
        if found.videos < FEW_VIDEOS:
            lines.append(
                f"warning: {found.videos} validation videos are few (fewer than {FEW_VIDEOS}), so the temperature is "
                "rough and the tables are rougher"
            )
        lines += [f"could not be read: {reason}" for reason in self.unreadable.values()]
        return lines


def _row(name: str, found: Figures) -> str:
    return (
        f"  {name:<19}{found.ece:17.3f}  {found.ece_equal_mass:10.3f}  {found.nll:8.3f}  {found.brier:5.3f}"
        f"   {found.videos} videos"
    )


def calibrate_run(
    run: RunFolder,
    *,
    protocol: str = "25-step",
    device: str = "auto",
    workers: int = 0,
    batch_steps: int = 25,
    say: Callable[[str], None] = print,
    progress: Progress | None = None,
) -> RunCalibration:
    """Fit a temperature on a run's validation part and keep it in the run's model folder.

    Scores of the validation part that these weights made under this protocol, in full precision, are taken as they are;
    else the part is judged first and its scores kept. The temperature serves the faster precisions too, which move
    probabilities by a hundredth at most. Streams are weighed as predictions weigh them. The test part is looked at
    where its scores are there, and nothing is fitted to it.

    Args:
        run: a finished run.
        protocol: a name of ``evaluation.protocols.PROTOCOLS``; a temperature holds for its protocol.
        device, workers, batch_steps: see :func:`evaluation.evaluate.evaluate`.
        say: takes a line for the user.
        progress: called with (done, total, what).

    Raises:
        RunError: the run has no validation part.
        CalibrationError: no temperature fits its answers best; nothing is written then.
    """
    chosen = get_protocol(protocol)
    loaded = run.model()
    held_out = run.annotations().parts["val"]
    if not held_out:
        raise RunError(
            f"{run.path}: its data has no validation part, and a temperature is fitted on nothing else; train with "
            "--val_fraction above 0, or name a validation part in the data"
        )
    flips = chosen.flips and not run.config()["no_flip"]

    def scores_there(part: str) -> Scores | None:
        # Scores of other weights may lie there, or of another version that knew fewer views.
        try:
            scores = Scores.load(run.scores_file(part, protocol))
        except ScoresError:
            return None
        ours = (loaded.config["weights"]["sha256"], chosen.merge, flips, FULL_PRECISION, loaded.classes)
        meta = scores.meta
        precision = meta.get("precision", FULL_PRECISION)
        theirs = (meta.get("model_sha256"), meta.get("merge"), meta.get("flips"), precision, scores.classes)
        return scores if theirs == ours else None

    scores = scores_there("val")
    reused = scores is not None and set(scores.videos) == {item.name for item in held_out}
    unreadable: Mapping[str, str] = {}
    if scores is None or not reused:
        evaluation = evaluate_run(
            run,
            part="val",
            protocol=protocol,
            device=device,
            workers=workers,
            batch_steps=batch_steps,
            say=say,
            progress=progress,
        )
        scores, unreadable = evaluation.scores, evaluation.unreadable
    try:
        temperature = calibrate(scores, stream_weights=loaded.config["provenance"].get("stream_weights"))
    except CalibrationError as error:
        raise CalibrationError(f"{run.path}, protocol {protocol}: {error}. Its scores stay as they are") from error
    save_calibration(loaded, protocol, temperature.to_dict())
    weights = temperature.stream_weights
    test = scores_there("test")
    after = tempered(scores, temperature.value)
    return RunCalibration(
        run=run.path,
        temperature=temperature,
        folder=loaded.folder,
        scores_file=run.scores_file("val", protocol),
        reused=reused,
        table=reliability_of(after, stream_weights=weights),
        thresholds=coverage(after, stream_weights=weights),
        test=None
        if test is None or not (test.labels >= 0).any()
        else (
            figures(test, stream_weights=weights),
            figures(tempered(test, temperature.value), stream_weights=weights),
        ),
        unreadable=unreadable,
    )
