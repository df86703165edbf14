"""Who spoke for a class when, out of scores."""

import numpy as np
import pytest

from twostream.clip import Scores, Votes
from twostream.evaluation.metrics import merged_logits
from twostream.evaluation.over_time import along_time, margins


def scores_of(logits: object, votes: Votes, **meta: object) -> Scores:
    array = np.asarray(logits, np.float32)
    return Scores(
        logits=array,
        labels=np.zeros(len(array), np.int64),
        videos=tuple(f"v{n}" for n in range(len(array))),
        classes=tuple("abc"),
        votes=votes,
        meta=meta,
    )


def random_scores(views: int, votes: Votes, **meta: object) -> Scores:
    V = sum(count for _, count in votes)
    return scores_of(np.random.default_rng(0).standard_normal((2, views, V, 3)), votes, **meta)


def test_views_of_one_position_are_averaged() -> None:
    scores = random_scores(50, (("appearance", 1), ("motion", 1)), protocol="25-step")
    found = along_time(scores)
    assert list(found) == ["appearance", "motion"]
    assert found["motion"].shape == (2, 25, 3)
    # Each position plain and then mirrored.
    assert found["motion"][1, 3] == pytest.approx(scores.logits[1, 6:8, 1].mean(0), abs=1e-6)


def test_steps_that_are_seen_together_are_votes_in_time() -> None:
    scores = random_scores(2, (("appearance", 25), ("motion", 25)), protocol="25-step")
    found = along_time(scores)
    assert found["motion"].shape == (2, 25, 3)
    assert found["motion"][0, 4] == pytest.approx(scores.logits[0, :, 29].mean(0), abs=1e-6)
    assert along_time(random_scores(3, (("fused", 1),), protocol="10x3"))["fused"].shape == (2, 1, 3)
    assert along_time(random_scores(30, (("fused", 1),), protocol="10x3"))["fused"].shape == (2, 10, 3)


def test_scores_of_no_known_protocol_have_no_time() -> None:
    assert along_time(random_scores(4, (("fused", 1),), protocol="by hand")) == {}
    assert margins(random_scores(4, (("fused", 1),)), 0, 1, 2) == {}


def test_the_streams_margins_add_up_to_that_of_the_answer() -> None:
    scores = random_scores(
        20, (("appearance", 1), ("motion", 3)), protocol="10x3", stream_weights={"appearance": 1, "motion": 4}
    )
    lines = margins(scores, 1, 2, 0)
    assert {name: len(line) for name, line in lines.items()} == {"appearance": 10, "motion": 30}
    merged = merged_logits(scores)[1]
    assert sum(line.mean() for line in lines.values()) == pytest.approx(merged[2] - merged[0], abs=1e-6)
