import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from twostream.clip import Scores, ScoresError
from twostream.errors import UsageError
from twostream.evaluation.metrics import log_loss, one_stream, probabilities, top_k_accuracy
from twostream.evaluation.score_fusion import (
    Weights,
    align,
    fuse,
    fuse_searched,
    search_stream_weights,
    search_weights,
)


def scores(logits: Any, labels: Any, **changes: Any) -> Scores:
    logits = np.asarray(logits, np.float32)
    if logits.ndim == 2:
        logits = logits[:, None, None]
    N, _, V, K = logits.shape
    values: dict[str, Any] = {
        "videos": tuple(f"v{n:03}" for n in range(N)),
        "classes": tuple(f"c{k}" for k in range(K)),
        "votes": (("fused", V),),
    }
    return Scores(logits=logits, labels=np.asarray(labels), **values | changes)


def informed(labels: Any, strength: float, seed: int, *, K: int = 3, **changes: Any) -> Scores:
    """Logits that know the label as well as ``strength`` says."""
    rng = np.random.default_rng(seed)
    labels = np.asarray(labels)
    return scores(rng.standard_normal((len(labels), K)) + strength * np.eye(K)[labels], labels, **changes)


LABELS = np.arange(90) % 3


def shuffled(original: Scores, seed: int) -> Scores:
    rng = np.random.default_rng(seed)
    rows, columns = rng.permutation(len(original)), rng.permutation(len(original.classes))
    place = np.argsort(columns)
    return Scores(
        logits=original.logits[rows][..., columns],
        labels=np.where(original.labels[rows] >= 0, place[np.maximum(original.labels[rows], 0)], -1),
        videos=tuple(original.videos[row] for row in rows),
        groups=tuple(original.groups[row] for row in rows),
        classes=tuple(original.classes[column] for column in columns),
        votes=original.votes,
        meta=original.meta,
    )


def test_files_in_another_order_are_aligned_by_name() -> None:
    first = informed(LABELS, 1, 0, groups=tuple(f"g{n % 4}" for n in range(90)))
    other = shuffled(first, 5)
    assert other.classes != first.classes
    one, two = align([first, other])
    assert np.array_equal(one.logits, two.logits)
    assert np.array_equal(two.labels, LABELS)
    assert (two.videos, two.classes, two.groups) == (first.videos, first.classes, first.groups)
    assert top_k_accuracy(other) == top_k_accuracy(first)


def test_what_one_file_knows_all_learn() -> None:
    partly = scores(np.zeros((3, 2)), [-1, 0, -1], groups=("", "a", ""))
    other = scores(np.zeros((3, 2)), [1, -1, -1], groups=("b", "", ""))
    for aligned in align([partly, other]):
        assert aligned.labels.tolist() == [1, 0, -1]
        assert aligned.groups == ("b", "a", "")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"videos": ("a", "b", "c", "d", "e")},
            r"scores number 2 speak of other videos than the first: they lack 5 \(v000, v001, v002 \.\.\.\) "
            r"and have 5 more \(a, b, c \.\.\.\)",
        ),
        ({"videos": ("v000", "v001", "v002", "v003", "x")}, r"lack 1 \(v004\) and have 1 more \(x\)"),
        ({"classes": ("c0", "jump")}, r"other classes than the first: they lack 1 \(c1\) and have 1 more \(jump\)"),
        ({"videos": ("v000", "v000", "v001", "v002", "v003")}, r"number 2 name the video 'v000' more than once"),
        ({"classes": ("c0", "c0")}, r"number 2 name the class 'c0' more than once"),
        ({"labels": np.array([0, 1, 0, 0, 0])}, r"disagree on the true class of 1 videos, first v001"),
    ],
)
def test_other_videos_classes_or_truths_are_named(changes: dict[str, Any], message: str) -> None:
    first = scores(np.zeros((5, 2)), [0] * 5)
    labels = changes.pop("labels", [0] * 5)
    with pytest.raises(ScoresError, match=message):
        fuse([first, scores(np.zeros((5, 2)), labels, **changes)])


def test_fewer_videos_are_other_videos() -> None:
    with pytest.raises(ScoresError, match=r"they lack 1 \(v002\)$"):
        align([scores(np.zeros((3, 2)), [0] * 3), scores(np.zeros((2, 2)), [0] * 2)])


def test_the_mean_of_probabilities_and_the_mean_of_logits() -> None:
    rng = np.random.default_rng(0)
    first = scores(rng.standard_normal((6, 4, 2, 3)), [0] * 6, votes=(("appearance", 1), ("motion", 1)))
    second = scores(rng.standard_normal((6, 1, 3, 3)), [0] * 6, meta={"merge": "softmax"})
    softly = fuse([first, second], [1, 3])
    assert np.allclose(probabilities(softly), 0.25 * probabilities(first) + 0.75 * probabilities(second), atol=1e-6)
    assert softly.votes == (("fused", 1),)
    assert softly.logits.shape == (6, 1, 1, 3)
    plainly = fuse([first, first], [1, 1], order="logits")
    assert np.allclose(plainly.logits[:, 0, 0], first.logits.mean((1, 2)), atol=1e-6)


def test_the_fused_file_says_what_it_is_made_of(tmp_path: Path) -> None:
    shared = {"protocol": "25-step", "split": "1", "part": "test"}
    first = informed(LABELS, 1, 0, meta={**shared, "model": "spatial"})
    second = informed(LABELS, 1, 1, meta={**shared, "model": "temporal", "split": "2"})
    fused = fuse([first, second], [1, 3])
    fused.save(tmp_path / "fused.npz")
    meta = Scores.load(tmp_path / "fused.npz").meta
    assert meta["weights"] == [0.25, 0.75]
    assert (meta["weights_chosen_by"], meta["weights_chosen_on"], meta["fusion_order"]) == ("given", "", "softmax")
    assert (meta["protocol"], meta["part"], meta["model"]) == ("25-step", "test", "spatial + temporal")
    assert "split" not in meta
    assert [part["split"] for part in meta["fused"]] == ["1", "2"]
    assert fuse([first, second]).meta["weights_chosen_by"] == "equal"


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], r"1 weights for 2 scores; one weight each"),
        (Weights(values=(1.0,), chosen_by="given"), r"1 weights for 2 scores; one weight each"),
        ([0.0, 0.0], r"finite, not negative and not all zero, got \[0.0, 0.0\]"),
        ([2.0, -1.0], r"finite, not negative and not all zero"),
        ([float("nan"), 1.0], r"finite, not negative and not all zero"),
    ],
)
def test_weights_that_do_not_fit_are_refused(weights: Any, message: str) -> None:
    pair = [informed(LABELS, 1, seed) for seed in range(2)]
    with pytest.raises(UsageError, match=message):
        fuse(pair, weights)


def test_nothing_to_fuse_is_said() -> None:
    with pytest.raises(UsageError, match=r"no scores were given; name at least one scores file"):
        fuse([])


@pytest.mark.parametrize("order", ["softmax", "logits"])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_search_finds_what_a_finer_grid_finds(count: int, order: Any) -> None:
    inputs = [informed(LABELS, strength, seed) for seed, strength in enumerate((0.3, 2.0, 1.0, 0.0)[:count])]
    found = search_weights(inputs, order=order)
    best = min(
        log_loss(fuse(inputs, weights, order=order))
        for weights in itertools.product(np.linspace(0, 1, {2: 31, 3: 9, 4: 6}[count]), repeat=count)
        if sum(weights) > 0
    )
    assert found.value is not None
    assert found.value <= best + 2e-3
    assert found.equal_value is not None
    assert found.value < found.equal_value
    assert sum(found.values) == pytest.approx(1)
    assert found.value == pytest.approx(log_loss(fuse(inputs, found, order=order)))
    assert found.equal_value == pytest.approx(log_loss(fuse(inputs, order=order)))


@pytest.mark.parametrize("count", [2, 3, 4])
def test_among_equals_the_nearest_to_equal_weights_wins(count: int) -> None:
    perfect = [informed(LABELS, 50, seed) for seed in range(count)]
    found = search_weights(perfect, by="accuracy")
    assert found.values == pytest.approx((1 / count,) * count)
    assert (found.value, found.equal_value) == (1.0, 1.0)


def test_a_useless_input_gets_little() -> None:
    found = search_weights([informed(LABELS, 3, 0), informed(LABELS, 0, 1)], by="accuracy")
    assert found.values[0] > 0.5
    assert found.value == top_k_accuracy(fuse([informed(LABELS, 3, 0), informed(LABELS, 0, 1)], found))
    assert found.chosen_on == "90 videos"


def test_what_cannot_be_searched_is_said() -> None:
    pair = [informed(LABELS, 1, seed) for seed in range(2)]
    with pytest.raises(UsageError, match=r"needs at least two scores, got 1"):
        search_weights(pair[:1])
    with pytest.raises(UsageError, match=r"one of \['log_loss', 'accuracy'\], got 'f1'"):
        search_weights(pair, by="f1")  # type: ignore[arg-type]
    unknown = [scores(np.zeros((3, 2)), [-1] * 3)] * 2
    with pytest.raises(UsageError, match=r"no video in the validation scores has a known class"):
        search_weights(unknown)


def two_streams(seed: int, prefix: str, **meta: Any) -> Scores:
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((90, 2, 3, 3))
    logits += np.array([0.3, 0.3, 1.5])[:, None] * np.eye(3)[LABELS][:, None, None]
    logits *= 5  # too sure of themselves, as networks are, so that mixing pays
    return scores(
        logits,
        LABELS,
        votes=(("appearance", 2), ("motion", 1)),
        videos=tuple(f"{prefix}{n}" for n in range(90)),
        meta=meta,
    )


@pytest.mark.parametrize("order", ["softmax", "logits"])
def test_the_streams_of_one_model_are_weighed(order: Any) -> None:
    validation, test = two_streams(0, "val"), two_streams(1, "test")
    weights = search_stream_weights(validation, order=order)
    assert list(weights) == ["appearance", "motion"]
    assert weights["motion"] > 0.6
    assert log_loss(test, stream_weights=weights, order=order) < log_loss(test, order=order)
    by_hand = min(
        np.linspace(0, 1, 101),
        key=lambda share: log_loss(validation, stream_weights={"appearance": 1 - share, "motion": share}, order=order),
    )
    assert weights["motion"] == pytest.approx(by_hand)


def test_the_streams_are_merged_as_the_file_says() -> None:
    asking = two_streams(0, "val", merge="softmax")
    assert search_stream_weights(asking) == search_stream_weights(asking, order="softmax")
    assert search_stream_weights(asking) != search_stream_weights(asking, order="logits")


def test_one_stream_has_nothing_to_weigh() -> None:
    with pytest.raises(UsageError, match=r"these scores have one stream, 'motion'"):
        search_stream_weights(one_stream(two_streams(0, "val"), "motion"))


def test_weights_from_validation_videos_are_applied_to_the_judged_ones() -> None:
    validation = [one_stream(two_streams(0, "val", part="val"), s) for s in ("appearance", "motion")]
    judged = [one_stream(two_streams(1, "test", part="test"), s) for s in ("appearance", "motion")]
    fused = fuse_searched(judged, validation)
    assert fused.meta["weights"] == list(search_weights(validation).values)
    assert fused.meta["weights_chosen_by"] == "log_loss"
    assert fused.meta["weights_chosen_on"] == "90 videos of part 'val'"
    assert fused.videos == judged[0].videos


def test_weights_are_not_chosen_on_the_judged_videos_unless_asked_for() -> None:
    judged = [informed(LABELS, strength, seed) for seed, strength in enumerate((1, 2))]
    with pytest.raises(UsageError, match=r"90 of the videos that the weights would be chosen on are among the judged"):
        fuse_searched(judged, judged)
    fused = fuse_searched(judged, judged, by="accuracy", allow_judged_videos=True)
    assert fused.meta["weights_chosen_by"] == "accuracy"
    assert fused.meta["weights_chosen_on"] == "the judged videos themselves (90 of 90), so the figures flatter"


def test_validation_scores_go_with_the_judged_ones_one_by_one() -> None:
    judged = [two_streams(seed, "test", model=name) for seed, name in enumerate(("spatial", "temporal"))]
    validation = [two_streams(seed, "val", model=name) for seed, name in enumerate(("spatial", "temporal"))]
    with pytest.raises(UsageError, match=r"2 scores to fuse but 1 validation scores"):
        fuse_searched(judged, validation[:1])
    with pytest.raises(UsageError, match=r"number 1 are of model 'spatial', their validation scores of 'temporal'"):
        fuse_searched(judged, validation[::-1])
    # A run was once named by its whole path.
    moved = [two_streams(0, "test", run="/somewhere/run"), two_streams(1, "test", run="/somewhere/other")]
    known = [two_streams(0, "val", run="run"), two_streams(1, "val", run="other")]
    assert fuse_searched(moved, known).meta["weights_chosen_by"] == "log_loss"
    # Two runs of one name, in two folders.
    judged, validation = (
        [two_streams(seed, part, run="run", model_sha256=f"{seed}") for seed in (0, 1)] for part in ("test", "val")
    )
    with pytest.raises(UsageError, match=r"number 1 are of model_sha256 '0', their validation scores of '1'"):
        fuse_searched(judged, validation[::-1])
    with pytest.raises(UsageError, match=r"at least two scores, got 0"):
        fuse_searched([], [])
