"""Which stream spoke for a class when: the logits of a clip along time, as far as views and votes keep it apart."""

import numpy as np

from twostream.clip import Scores
from twostream.errors import UsageError
from twostream.evaluation.metrics import FloatArray, normalised_weights
from twostream.evaluation.protocols import get_protocol


def along_time(scores: Scores) -> dict[str, FloatArray]:
    """Logits of each stream at P moments of every video, (N, P, K), in order of time, crops and mirror images averaged.

    A moment is a position of the protocol; where the network sees all positions together, one of its votes. Nothing is
    given where the views do not fit the protocol that the scores name.
    """
    try:
        steps = get_protocol(str(scores.meta.get("protocol"))).steps
    except UsageError:
        return {}
    N, R, _, K = scores.logits.shape
    # A network that is shown all steps together has one view of them a crop, so fewer views than steps.
    positions = steps if R % steps == 0 else 1
    found = {}
    for stream, votes in scores.vote_slices().items():
        logits = scores.logits[:, :, votes].astype(np.float64)  # (N, R, V', K)
        looks = logits.reshape(N, positions, R // positions, len(votes), K).mean(2)
        found[stream] = looks.reshape(N, positions * len(votes), K)
    return found


def margins(scores: Scores, n: int, label: int, other: int) -> dict[str, FloatArray]:
    """What each stream adds at every moment to the logit of ``label`` less that of ``other``, for video ``n``: (P,).

    Weighted as the streams are: the sum of the streams' means over time is the margin between the merged logits.
    """
    weights = normalised_weights(scores)
    return {
        stream: weights[stream] * (logits[n, :, label] - logits[n, :, other])
        for stream, logits in along_time(scores).items()
    }


__all__ = ["along_time", "margins"]
