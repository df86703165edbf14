import math
from typing import Any

import numpy as np
import pytest

from twostream.clip import Scores
from twostream.errors import UsageError
from twostream.evaluation.metrics import (
    confusion_matrix,
    log_loss,
    log_probabilities,
    mean_class_accuracy,
    normalised_weights,
    one_stream,
    per_class_accuracy,
    predictions,
    probabilities,
    ranks,
    right,
    summary,
    top_k_accuracy,
)


def scores(logits: Any, labels: Any = None, *, votes: Any = None, meta: dict[str, Any] | None = None) -> Scores:
    logits = np.asarray(logits, np.float32)
    if logits.ndim == 2:
        logits = logits[:, None, None]
    N, _, V, K = logits.shape
    return Scores(
        logits=logits,
        labels=np.zeros(N, np.int64) if labels is None else np.asarray(labels),
        videos=tuple(f"v{n}" for n in range(N)),
        classes=tuple(f"c{k}" for k in range(K)),
        votes=votes or (("fused", V),),
        meta=meta or {},
    )


def softmax(x: Any) -> Any:
    e = np.exp(np.asarray(x, np.float64))
    return e / e.sum(-1, keepdims=True)


@pytest.fixture
def random() -> Scores:
    rng = np.random.default_rng(3)
    return scores(
        rng.normal(0, 3, (7, 5, 6, 4)),
        rng.integers(-1, 4, 7),
        votes=(("appearance", 4), ("motion", 1), ("appearance", 1)),
    )


def test_softmax_first_averages_softmaxes_of_each_stream_then_the_streams_by_weight(random: Scores) -> None:
    each = softmax(random.logits)
    appearance = each[:, :, [0, 1, 2, 3, 5]].mean((1, 2))
    motion = each[:, :, 4].mean(1)
    got = probabilities(random, order="softmax", stream_weights={"appearance": 1, "motion": 3})
    assert np.allclose(got, 0.25 * appearance + 0.75 * motion)


def test_softmax_last_averages_logits_of_each_stream_then_the_streams_by_weight(random: Scores) -> None:
    appearance = random.logits[:, :, [0, 1, 2, 3, 5]].mean((1, 2))
    motion = random.logits[:, :, 4].mean(1)
    got = probabilities(random, order="logits", stream_weights={"appearance": 1, "motion": 3})
    assert np.allclose(got, softmax(0.25 * appearance + 0.75 * motion), atol=1e-6)


def test_streams_count_alike_whatever_their_votes_and_the_order_changes_the_answer(random: Scores) -> None:
    assert normalised_weights(random) == {"appearance": 0.5, "motion": 0.5}
    assert np.allclose(
        probabilities(random), probabilities(random, stream_weights={"appearance": 7, "motion": 7}, order="logits")
    )
    assert not np.allclose(probabilities(random, order="logits"), probabilities(random, order="softmax"))
    assert np.allclose(probabilities(random).sum(1), 1)


def test_the_file_says_how_it_wants_to_be_merged_and_arguments_overrule_it(random: Scores) -> None:
    asking = scores(
        random.logits,
        random.labels,
        votes=random.votes,
        meta={"merge": "softmax", "stream_weights": {"appearance": 1, "motion": 3}},
    )
    weights = {"appearance": 1, "motion": 3}
    assert np.allclose(probabilities(asking), probabilities(random, order="softmax", stream_weights=weights))
    assert np.allclose(
        probabilities(asking, order="logits", stream_weights={"motion": 1}),
        probabilities(one_stream(random, "motion"), order="logits"),
    )


def test_a_stream_alone_is_the_weight_of_the_other_at_zero(random: Scores) -> None:
    for order in ("logits", "softmax"):
        assert np.allclose(
            probabilities(one_stream(random, "appearance"), order=order),
            probabilities(random, stream_weights={"appearance": 2.0}, order=order),
        )


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"sound": 1.0}, r"weights for streams \['sound'\], but these scores have \['appearance', 'motion'\]"),
        ({"motion": -1.0, "appearance": 2.0}, "finite, not negative and not all zero"),
        ({"motion": 0.0}, "finite, not negative and not all zero"),
        ({"motion": math.inf}, "finite, not negative and not all zero"),
        ({"motion": math.nan}, "finite, not negative and not all zero"),
        ({}, "finite, not negative and not all zero"),
    ],
)
def test_weights_that_weigh_nothing_are_refused(random: Scores, weights: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        probabilities(random, stream_weights=weights)


def test_unknown_names_are_refused(random: Scores) -> None:
    with pytest.raises(UsageError, match=r"is one of \['logits', 'softmax'\], got 'mean'"):
        probabilities(random, order="mean")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"is one of \['logits', 'softmax'\], got 'max'"):
        probabilities(scores([[0.0, 1.0]], meta={"merge": "max"}))
    with pytest.raises(UsageError, match=r"no stream 'sound'; these scores have \['appearance', 'motion'\]"):
        one_stream(random, "sound")
    with pytest.raises(UsageError, match=r"top-k accuracy needs k >= 1, got 0"):
        top_k_accuracy(random, 0)


def test_logits_beyond_what_an_exponential_holds_are_ranked() -> None:
    far = scores([[3e4, 0.0, -3e4], [-3e4, -2e4, -1e4]], [0, 1])
    for order in ("logits", "softmax"):
        assert np.isfinite(log_probabilities(far, order=order)).all()
        assert ranks(far, order=order).tolist() == [0, 1]
        assert log_loss(far, order=order) == pytest.approx(5000)


def test_ties_go_to_the_class_listed_first() -> None:
    even = scores(np.zeros((4, 4)), [0, 1, 2, 3])
    assert ranks(even).tolist() == [0, 1, 2, 3]
    assert predictions(even).tolist() == [0, 0, 0, 0]
    assert [top_k_accuracy(even, k) for k in (1, 2, 3, 4)] == [0.25, 0.5, 0.75, 1.0]


def test_top_k_is_clipped_to_the_number_of_classes() -> None:
    assert top_k_accuracy(scores([[0.0, 1.0]], [0]), 5) == 1.0


def test_counts_by_hand() -> None:
    by_hand = scores(np.eye(4)[[0, 1, 1, 2, 0, 3]] * 9, [0, 0, 1, 2, 2, -1])
    assert right(by_hand).tolist() == [True, False, True, True, False, False]
    assert confusion_matrix(by_hand).tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    assert top_k_accuracy(by_hand) == 3 / 5
    assert per_class_accuracy(by_hand)[:3].tolist() == [0.5, 1.0, 0.5]
    assert math.isnan(per_class_accuracy(by_hand)[3])
    assert mean_class_accuracy(by_hand) == pytest.approx(2 / 3)
    assert log_loss(scores([[0.0, 0.0], [5.0, 1.0]], [1, -1])) == pytest.approx(math.log(2))


def test_the_summary_is_what_evaluate_prints() -> None:
    judged = scores(
        np.eye(4)[[0, 1, 1, 2, 0, 3]] * 9,
        [0, 0, 1, 2, 2, -1],
        meta={"protocol": "25-step", "split": "2", "part": "test"},
    )
    assert summary(judged) == {
        "protocol": "25-step",
        "split": "2",
        "videos": 5,
        "unlabelled": 1,
        "top1": 0.6,
        "top5": 1.0,
        "mean_class": pytest.approx(2 / 3),
        "per_class": {"c0": 0.5, "c1": 1.0, "c2": 0.5, "c3": None},
        "per_class_videos": {"c0": 2, "c1": 1, "c2": 2, "c3": 0},
    }


def test_the_summary_passes_weights_and_order_on(random: Scores) -> None:
    alone = summary(random, stream_weights={"motion": 1.0}, order="softmax")
    assert alone["top1"] == top_k_accuracy(one_stream(random, "motion"), order="softmax")


def test_nothing_to_judge_gives_nothing() -> None:
    unknown = scores(np.zeros((3, 2)), [-1, -1, -1])
    assert summary(unknown) == {
        "protocol": None,
        "split": None,
        "videos": 0,
        "unlabelled": 3,
        "top1": None,
        "top5": None,
        "mean_class": None,
        "per_class": {"c0": None, "c1": None},
        "per_class_videos": {"c0": 0, "c1": 0},
    }
    assert math.isnan(log_loss(unknown))
    empty = scores(np.zeros((0, 2)))
    assert summary(empty)["videos"] == 0
    assert summary(empty)["top1"] is None
