"""Which classes are taken for which: all counts, and the clips of the most frequent confusions beside a right one."""

import numpy as np
import numpy.typing as npt

from twostream.clip import Scores
from twostream.evaluation.metrics import confusion_matrix, predictions, probabilities
from twostream.flow.store import FlowStore
from twostream.reporting import page
from twostream.reporting.clip_cards import clip_strip
from twostream.reporting.figures import heat_map
from twostream.reporting.page import SPACE, Markup, tag
from twostream.reporting.run_files import RunFiles

# Beyond so many classes, confusions are a picture.
MANY_CELLS = 24

_PAIRS, _CLIPS = 4, 3
_MOMENTS = 2


def confusions(run: RunFiles, scores: Scores, store: FlowStore | None, level: int) -> Markup:
    """Counts of all confusions, and the clips of the most frequent ones, under headings of ``level``."""
    counts = confusion_matrix(scores)
    return page.join([_counts(scores, counts), *_shown(run, scores, counts, store, level)])


def most_frequent(counts: npt.NDArray[np.int64], most: int) -> list[tuple[int, int, int]]:
    """True class, answer and number of the most frequent confusions, at most so many."""
    K = len(counts)
    wrong = counts * (1 - np.eye(K, dtype=np.int64))
    first = np.argsort(-wrong, axis=None, kind="stable")[:most]
    return [(int(cell) // K, int(cell) % K, int(wrong.flat[cell])) for cell in first if wrong.flat[cell]]


def _counts(scores: Scores, counts: npt.NDArray[np.int64]) -> Markup:
    K = len(scores.classes)
    if K > MANY_CELLS:
        rows = [(scores.classes[truth], scores.classes[answer], n) for truth, answer, n in most_frequent(counts, 12)]
        picture = page.chart(
            heat_map(counts),
            title="All confusions",
            description=f"{K} by {K} cells, true class down, answer across, in the order of the class list; "
            "the most frequent ones are in the table",
        )
        return page.join(
            [page.table("The most frequent confusions", ("True class", "Answer", "Videos"), rows), picture]
        )
    cells = [
        (name, *(_cell(int(counts[k, j]), int(counts[k].sum()), k == j) for j in range(K)))
        for k, name in enumerate(scores.classes)
    ]
    header = ("True class \\ answer", *(tag("span", name) for name in scores.classes))
    return page.table("Number of videos by true class (rows) and answer (columns)", header, cells, class_="confusion")


def _cell(count: int, total: int, hit: bool) -> page.Cell:
    if not count:
        return page.cell("0" if hit else "", class_="hit" if hit else None)
    share = count / total
    full = share > 0.5
    classes = " ".join(name for name, wanted in (("hit", hit), ("full", full)) if wanted)
    # A single video must be seen, and between the shades for dark and for light figures neither could be read.
    shade = 0.72 + 0.28 * share if full else 0.12 + 0.5 * share
    return page.cell(count, class_=classes or None, style=f"--v:{shade:.2f}")


def _shown(
    run: RunFiles, scores: Scores, counts: npt.NDArray[np.int64], store: FlowStore | None, level: int
) -> list[Markup]:
    """Rows of clips: those that were confused, the surest first, and one of the class that they were taken for."""
    values, answers = probabilities(scores), predictions(scores)
    rows = []
    for truth, answer, count in most_frequent(counts, _PAIRS):
        order = np.argsort(-values[:, answer], kind="stable").tolist()
        taken = [n for n in order if scores.labels[n] == truth and answers[n] == answer][:_CLIPS]
        right = [n for n in order if scores.labels[n] == answers[n] == answer][:1]
        tiles = [
            _tile(run, scores, n, store, f"{scores.classes[truth]}, taken for {scores.classes[answer]}",
                  [(answer, values[n, answer]), (truth, values[n, truth])])
            for n in taken
        ]  # fmt: skip
        if right:
            (n,) = right
            said = f"for comparison: {scores.classes[answer]}, recognised"
            tiles.append(_tile(run, scores, n, store, said, [(answer, values[n, answer])], class_="beside"))
        else:
            tiles.append(tag("p", f"No clip of {scores.classes[answer]} was recognised.", class_="missing"))
        first = f", the {len(taken)} surest" if count > len(taken) else ""
        clips = f"{count} clip{'s' * (count != 1)}{first}"
        heading = f"{scores.classes[truth]} taken for {scores.classes[answer]}: {clips}"
        rows.append(page.section(heading, tag("div", *tiles, class_="pairs"), level=level))
    return rows


def _tile(
    run: RunFiles,
    scores: Scores,
    n: int,
    store: FlowStore | None,
    said: str,
    sure: list[tuple[int, float]],
    *,
    class_: str | None = None,
) -> Markup:
    name = scores.videos[n]
    strip, _ = clip_strip(run.samples.get(name), store, name, moments=_MOMENTS)
    chances = ", ".join(f"P({scores.classes[k]}){SPACE}{value:.2f}" for k, value in sure)
    caption = tag("figcaption", said, tag("small", chances), tag("small", name))
    return tag("figure", strip, caption, class_=class_)


__all__ = ["MANY_CELLS", "confusions", "most_frequent"]
