"""The mean over splits: its figures, its interval, and what is refused."""

from typing import Any

import numpy as np
import pytest

from twostream.clip import Scores
from twostream.evaluation.metrics import mean_class_accuracy
from twostream.evaluation.splits import JudgedSplit, SplitsError, mean_of_splits
from twostream.evaluation.statistics import accuracy_interval, wilson_interval

META = {"protocol": "25-step", "part": "test", "model": "net"}


def judged(split: str, hits: list[int], *, labels: list[int] | None = None, **changes: Any) -> JudgedSplit:
    """A split whose n-th video was recognised where ``hits[n]`` is 1; classes take turns."""
    true = np.array(labels if labels is not None else [n % 3 for n in range(len(hits))])
    logits = np.zeros((len(hits), 1, 1, 3), np.float32)
    said = np.where(np.array(hits) == 1, np.maximum(true, 0), (true + 1) % 3)
    logits[np.arange(len(hits)), 0, 0, said] = 5
    meta = META | {"split": split} | changes.pop("meta", {})
    listed = changes.pop("listed", ())
    given: dict[str, Any] = {
        "videos": tuple(f"{split}-{n}" for n in range(len(hits))),
        "classes": ("a", "b", "c"),
        "votes": (("fused", 1),),
        **changes,
    }
    return JudgedSplit(name=f"run{split}", scores=Scores(logits=logits, labels=true, meta=meta, **given), listed=listed)


def test_every_split_counts_alike() -> None:
    splits = [judged("1", [1, 1, 0, 1, 1, 1, 1, 1, 1, 0]), judged("2", [0, 1, 1]), judged("3", [1, 0, 0, 1])]
    found = mean_of_splits(splits)
    assert [one.top1 for one in found.splits] == pytest.approx([0.8, 2 / 3, 0.5])
    assert found.top1 == pytest.approx((0.8 + 2 / 3 + 0.5) / 3)
    assert found.mean_class == pytest.approx(np.mean([mean_class_accuracy(one.scores) for one in splits]))
    assert found.together == pytest.approx(12 / 17)
    assert (found.videos, found.classes, found.model, found.judged_by) == (17, 3, "net", "25-step")
    assert found.low < found.top1 < found.high
    assert found.method == "bootstrap over 17 videos"
    document = found.to_dict()
    assert document["splits"][1] == {
        "split": "2",
        "run": "run2",
        "videos": 3,
        "top1": pytest.approx(2 / 3),
        "mean_class": pytest.approx(2 / 3),
    }


def test_videos_of_unknown_class_are_left_out() -> None:
    found = mean_of_splits([judged("1", [1, 1, 0], labels=[0, -1, 2]), judged("2", [1, 1])])
    assert [one.videos for one in found.splits] == [2, 2]
    assert (found.top1, found.together) == (0.75, 0.75)


def test_of_splits_of_one_size_the_interval_is_that_of_their_videos_together() -> None:
    """The mean of two halves of a set of videos is the accuracy on the set, and so is its interval."""
    rng = np.random.default_rng(1)
    hits = rng.integers(0, 2, 60).tolist()
    groups = tuple(f"g{n // 5}" for n in range(60))
    halves = [
        judged("1", hits[:30], groups=groups[:30], videos=tuple(map(str, range(30)))),
        judged("2", hits[30:], groups=groups[30:], videos=tuple(map(str, range(30, 60)))),
    ]
    whole = judged("1", hits, groups=groups, labels=[n % 3 for n in [*range(30), *range(30)]])
    expected = accuracy_interval(whole.scores)
    found = mean_of_splits(halves)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert found.method == expected.method == "bootstrap over 12 groups"


def test_a_unit_that_is_tested_on_twice_is_one_unit() -> None:
    hits = [1, 0] * 8
    names = tuple(f"v{n}" for n in range(16))
    same = mean_of_splits([judged("1", hits, videos=names), judged("2", hits, videos=names)])
    apart = mean_of_splits([judged("1", hits), judged("2", hits)])
    assert (same.method, apart.method) == ("bootstrap over 16 videos", "bootstrap over 32 videos")
    assert same.high - same.low > 1.2 * (apart.high - apart.low)


def test_folds_of_one_group_each_and_answers_that_are_all_right() -> None:
    folds = [judged(f"leave-{n}", [1, n % 2], groups=(f"g{n}", f"g{n}")) for n in range(8)]
    found = mean_of_splits(folds)
    assert found.top1 == found.together == 0.75
    assert 0.5 < found.low < 0.75 < found.high < 1
    sure = mean_of_splits([judged("1", [1, 1, 1]), judged("2", [1, 1])])
    assert (sure.low, sure.high) == pytest.approx(wilson_interval(5, 5))
    assert sure.method == "Wilson's interval for 5 videos"
    # One group tells nothing of others.
    lone = mean_of_splits([judged("1", [1, 0], groups=("g", "g")), judged("2", [1, 1], groups=("g", "g"))])
    assert lone.method == "bootstrap over 4 videos"


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (judged("1", [1, 1]), "run1 and run1 are both of split 1; name one run a split"),
        (judged("2", [1, 1], classes=("a", "b", "d")), "run1 and run2 have other classes: c, d"),
        (judged("2", [1, 1], meta={"model": "web"}), "run1 and run2 are of other models: net and web"),
        (judged("2", [1, 1], meta={"part": "val"}), "run1 and run2 are of other parts of their data: test and val"),
        (judged("2", [1, 1], meta={"protocol": "10x3"}), "run1 and run2 are of other protocols: 25-step and 10x3"),
        (
            judged("2", [1, 1], meta={"precision": "bf16-mixed"}),
            "run1 and run2 are of other protocols: 25-step and 25-step in bf16-mixed",
        ),
        (judged("2", [1, 1], labels=[-1, -1]), "run2 has no video of known class"),
        (
            judged("2", [1, 1], listed=["1-0", "2-0", "2-1"]),
            "run1 and run2 are of other data: run2 lists 1 of the 3 videos that run1 was judged on",
        ),
    ],
)
def test_what_belongs_to_no_mean_is_named(other: JudgedSplit, message: str) -> None:
    first = judged("1", [1, 0, 1], listed=["1-0", "1-1", "1-2", "2-0"])
    with pytest.raises(SplitsError, match=message):
        mean_of_splits([first, other])


def test_data_of_which_a_split_leaves_a_part_unused_are_the_same_data() -> None:
    first, second = judged("1", [1, 0, 1, 1]), judged("2", [1, 1])
    known = ["1-0", "1-1", "1-2", "2-0", "2-1"]
    found = mean_of_splits([JudgedSplit(name=one.name, scores=one.scores, listed=known) for one in (first, second)])
    assert found.top1 == 0.875
    with pytest.raises(SplitsError, match="needs runs of at least two splits"):
        mean_of_splits([first])
