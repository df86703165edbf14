"""Late fusion of rows that were trained apart: their scores on every test video become one row's."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from twostream.clip import Scores, ScoresError
from twostream.evaluation.score_fusion import align, fuse
from twostream.experiments.hits import Hits
from twostream.experiments.rows import Finished, SuiteFolder, figures_of, provenance, streams_of
from twostream.experiments.suite import Row
from twostream.runs import RunFolder

Judge = Callable[[Row, str], Scores]
"""Judges the network of a trained row by a protocol."""


def joined_row(folder: SuiteFolder, row: Row, judge: Judge) -> Finished:
    """Join the scores of the rows in ``row.after``, and write the scores and the file of this one.

    Args:
        folder: of the suite.
        row: what is joined; ``folder.require`` has found here what it needs.
        judge: asked for scores that are not here: those of networks that were judged by another protocol than this row
            is, and those that stayed on another machine.

    Raises:
        ScoresError: they are not about the same videos, or made in other ways.
    """
    began, computed = time.monotonic(), time.process_time()
    scores, left_out = _answers(folder, row, row.protocol, judge)
    path = RunFolder(folder.run_folder(row)).scores_file("test", row.protocol)
    scores.save(path)
    finished = Finished(
        suite=folder.suite.name,
        variant=row.variant,
        seed=row.seed,
        split=row.split,
        data=str(row.data_name),
        asked=row.asked(),
        digest=row.digest,
        chosen={},
        figures=figures_of(scores),
        streams=streams_of(scores),
        hits=Hits.of(scores),
        cost={
            "seconds": round(time.monotonic() - began, 3),
            "training_seconds": 0.0,
            "cpu_seconds": round(time.process_time() - computed, 3),
            "epochs": 0,
            "steps": 0,
        },
        left_out=left_out,
        weights=None,
        scores_file=path.relative_to(folder.path).as_posix(),
        **provenance(folder.suite.command(row.variant)),
    )
    finished.save(folder.row_file(row))
    return finished


def _answers(folder: SuiteFolder, row: Row, protocol: str, judge: Judge) -> tuple[Scores, dict[str, str]]:
    """The scores of the rows that a row joins, by a protocol, as one, and the videos that are left out of them."""
    several: list[Scores] = []
    left_out: dict[str, str] = {}
    for before in row.after:
        if (file := folder.scores_file(before, protocol)) is not None:
            several.append(Scores.load(file))
        elif before.joined is not None:
            several.append(_answers(folder, before, protocol, judge)[0])
        else:
            several.append(judge(before, protocol))
        made = folder.made(before)
        assert made is not None
        left_out |= made.left_out
    return join_scores(row, several), left_out


def join_scores(row: Row, several: Sequence[Scores]) -> Scores:
    """What a row that trains nothing answers: the votes of several counted together, or their probabilities averaged.

    Raises:
        ScoresError: other videos or classes, other protocols, or, of votes, streams of the same name.
    """
    return join_votes(several) if row.joined == "votes" else join_answers(several)


def join_answers(several: Sequence[Scores]) -> Scores:
    """The mean of what several networks answer, each having merged its own views and streams; all count the same.

    Raises:
        ScoresError: other videos or classes, or other protocols.
    """
    if len(protocols := {str(scores.meta.get("protocol")) for scores in several}) > 1:
        raise ScoresError(f"scores of different protocols do not make one row: {sorted(protocols)}")
    return fuse(several)


def join_votes(several: Sequence[Scores]) -> Scores:
    """One set of scores with the votes of all, as a network with all these streams would have given them.

    Raises:
        ScoresError: other videos or classes, other protocols, or streams of the same name.
    """
    aligned = align(several)
    first = aligned[0]
    views = {(scores.meta.get("protocol"), scores.meta.get("merge"), scores.logits.shape[1]) for scores in aligned}
    if len(views) > 1:
        raise ScoresError(f"scores of different protocols have no votes in common: {sorted(views, key=str)}")
    names = [stream for scores in aligned for stream in scores.streams]
    if len(set(names)) < len(names):
        raise ScoresError(f"each stream can vote once, and these scores are of the streams {', '.join(names)}")
    meta = {
        key: first.meta[key] for key in ("protocol", "merge", "flips", "split", "part", "seed") if key in first.meta
    }
    return replace(
        first,
        logits=np.concatenate([scores.logits for scores in aligned], axis=2),
        votes=tuple(vote for scores in aligned for vote in scores.votes),
        meta=meta | {"model": " + ".join(str(scores.meta.get("model", "?")) for scores in aligned)},
    )
