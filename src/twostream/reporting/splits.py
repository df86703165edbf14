"""Runs on different splits of one data set: their mean, or in words why there is none."""

from collections.abc import Sequence

from twostream.clip import Scores
from twostream.evaluation.metrics import judged_by
from twostream.evaluation.splits import JudgedSplit, SplitMean, SplitsError, mean_of_splits
from twostream.reporting.run_files import RunFiles


def over_splits(runs: Sequence[RunFiles]) -> SplitMean | str | None:
    """The mean over the splits that ``runs`` were judged on, or a sentence that says why there is none.

    None where all are of one split, so that nobody asks for it. Of scores of several kinds those are taken that head
    the first run's page and all runs have.
    """
    if len({str(scores.meta.get("split")) for run in runs for scores in [run.headline] if scores is not None}) < 2:
        return None
    if lacking := [run.name for run in runs if run.headline is None]:
        return f"No mean over splits: {', '.join(lacking)} not judged yet."
    of_kind = [{_kind(scores): scores for scores in reversed([*run.scores.values()])} for run in runs]
    common = next((kind for kind in map(_kind, runs[0].scores.values()) if all(kind in have for have in of_kind)), None)
    try:
        return mean_of_splits(
            [
                JudgedSplit(name=run.name, scores=scores, listed=run.samples.keys())
                for run, have in zip(runs, of_kind, strict=True)
                for scores in [have[common] if common else run.headline]
                if scores is not None
            ]
        )
    except SplitsError as error:
        return f"No mean over splits: {error}."


def _kind(scores: Scores) -> tuple[str, str]:
    return str(scores.meta.get("part")), judged_by(scores)
