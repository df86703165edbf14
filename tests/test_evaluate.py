import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from twostream.clip import ShapeError
from twostream.errors import UsageError
from twostream.evaluation.evaluate import EvaluationError, evaluate, resolve_device


@dataclass(frozen=True)
class Item:
    name: str
    label: int = -1
    group: str = ""


class Clips(NamedTuple):
    rgb: Tensor
    flow: Tensor
    label: int
    item: int


@dataclass
class FakeViews:
    """Videos of random views; video n has the side ``sides[n]``."""

    sides: Sequence[int] = (8, 8, 8)
    views: Sequence[int] = (2, 2, 2)
    steps: int = 1
    asked: list[int] = field(default_factory=list)

    @property
    def items(self) -> list[Item]:
        return [Item(f"video {n}", n % 2, f"g{n // 2}") for n in range(len(self.sides))]

    def __len__(self) -> int:
        return len(self.sides)

    def __getitem__(self, index: int) -> Clips:
        self.asked.append(index)
        draw = torch.Generator().manual_seed(index)
        side, R = self.sides[index], self.views[index]
        return Clips(
            torch.randint(0, 256, (R, self.steps, 3, side, side), generator=draw, dtype=torch.uint8),
            torch.randint(0, 256, (R, self.steps, 4, side, side), generator=draw, dtype=torch.uint8),
            index % 2,
            index,
        )


class Model(nn.Module):
    """Answers with means of its inputs, and remembers what it was shown."""

    votes: Any = (("appearance", 1), ("motion", 1))

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([1.0, -1.0]))
        self.frozen = nn.BatchNorm2d(3)
        self.shown: list[tuple[int, int, bool]] = []

    def forward(self, rgb: Tensor, flow: Tensor) -> Tensor:
        self.shown.append((rgb.shape[0], rgb.shape[-1], self.training))
        votes = [x.float().mean((1, 2, 3, 4))[:, None] @ self.scale[None] for x in (rgb, flow)]
        return torch.stack(votes, dim=1)


CLASSES = ("no", "yes")


def test_every_view_of_every_video_is_scored_in_its_place() -> None:
    views, model = FakeViews(), Model()
    scores = evaluate(model, views, classes=CLASSES, meta={"protocol": "test", "split": "1"})
    assert scores.logits.shape == (3, 2, 2, 2)
    for n in range(3):
        for r in range(2):
            for v, x in enumerate(views[n][:2]):
                mean = x[r].float().mean().item()
                assert scores.logits[n, r, v] == pytest.approx([mean, -mean], rel=1e-5)
    assert scores.videos == ("video 0", "video 1", "video 2")
    assert scores.groups == ("g0", "g0", "g1")
    assert scores.labels.tolist() == [0, 1, 0]
    assert scores.classes == CLASSES
    assert scores.votes == (("appearance", 1), ("motion", 1))
    assert dict(scores.meta) == {"protocol": "test", "split": "1", "precision": "32-true"}
    json.dumps(dict(scores.meta))


@pytest.mark.parametrize(
    ("batch_steps", "batches"),
    [
        (1, [1] * 8),
        (2, [2, 2, 2, 2]),
        (3, [2, 2, 2, 2]),
        (4, [4, 4]),
        (100, [8]),
    ],
)
def test_small_videos_share_a_batch(batch_steps: int, batches: list[int]) -> None:
    model = Model()
    views = FakeViews(sides=(8,) * 4, views=(2,) * 4)
    scores = evaluate(model, views, classes=CLASSES, batch_steps=batch_steps)
    assert [shown[0] for shown in model.shown] == batches
    assert np.allclose(scores.logits, evaluate(Model(), views, classes=CLASSES, batch_steps=5).logits, rtol=1e-6)


def test_many_views_are_spread_over_batches_and_sizes_are_kept_apart() -> None:
    model = Model()
    views = FakeViews(sides=(8, 8, 12, 8), views=(5,) * 4)
    scores = evaluate(model, views, classes=CLASSES, batch_steps=4)
    assert [shown[:2] for shown in model.shown] == [(4, 8), (1, 8), (4, 8), (1, 8), (4, 12), (1, 12), (4, 8), (1, 8)]
    assert np.allclose(scores.logits, evaluate(Model(), views, classes=CLASSES, batch_steps=1).logits, rtol=1e-6)


def test_the_model_judges_in_evaluation_mode_and_gets_its_modes_back() -> None:
    model = Model()
    model.train()
    model.frozen.eval()
    evaluate(model, FakeViews(), classes=CLASSES)
    assert not any(shown[2] for shown in model.shown)
    assert model.training
    assert not model.frozen.training


def test_the_modes_come_back_after_an_error_too() -> None:
    model = Model()
    with pytest.raises(ShapeError):
        evaluate(model, FakeViews(views=(1, 2, 1)), classes=CLASSES, batch_steps=1)
    assert model.training


def test_progress_counts_videos_that_are_scored_whole() -> None:
    said: list[tuple[int, int, str]] = []
    evaluate(
        Model(), FakeViews(views=(3, 3, 3)), classes=CLASSES, batch_steps=2, progress=lambda *say: said.append(say)
    )
    assert said == [
        (0, 3, "video 0"),
        (1, 3, "video 0"),
        (1, 3, "video 1"),
        (2, 3, "video 1"),
        (2, 3, "video 2"),
        (3, 3, "video 2"),
    ]


def test_workers_read_the_same() -> None:
    with_workers = evaluate(Model(), FakeViews(), classes=CLASSES, workers=1)
    assert np.array_equal(with_workers.logits, evaluate(Model(), FakeViews(), classes=CLASSES).logits)


def test_a_training_around_it_draws_what_it_would_have_drawn() -> None:
    torch.manual_seed(0)
    wanted = torch.rand(3)
    torch.manual_seed(0)
    evaluate(Model(), FakeViews(), classes=CLASSES)
    assert torch.equal(torch.rand(3), wanted)


def test_half_precision_is_said_in_the_scores() -> None:
    class Half(Model):
        def forward(self, rgb: Tensor, flow: Tensor) -> Tensor:
            means = torch.stack([x.float().mean((1, 2, 3, 4)) for x in (rgb, flow)], dim=1)
            answer = means[:, :, None] @ self.scale[None, None]
            assert answer.dtype == torch.bfloat16
            return answer

    scores = evaluate(Half(), FakeViews(), classes=CLASSES, precision="bf16-mixed")
    assert scores.meta["precision"] == "bf16-mixed"
    assert scores.logits.dtype == np.float32
    assert np.allclose(scores.logits, evaluate(Model(), FakeViews(), classes=CLASSES).logits, rtol=0.02)


class Steps(Model):
    """A vote per step and stream, so more of them when it is shown more steps than in training."""

    votes = (("appearance", 2), ("motion", 2))

    def forward(self, rgb: Tensor, flow: Tensor) -> Tensor:
        return torch.cat([x.float().mean((2, 3, 4))[..., None] @ self.scale[None] for x in (rgb, flow)], dim=1)


def test_more_steps_than_in_training_give_more_votes_of_each() -> None:
    scores = evaluate(Steps(), FakeViews(steps=5), classes=CLASSES)
    assert scores.votes == (("appearance", 5), ("motion", 5))
    assert scores.logits.shape == (3, 2, 10, 2)


@pytest.mark.parametrize(("batch_steps", "batches"), [(1, [1] * 4), (9, [1] * 4), (10, [2, 2]), (100, [4])])
def test_a_view_of_many_steps_takes_the_place_of_many(batch_steps: int, batches: list[int]) -> None:
    model = Model()
    evaluate(model, FakeViews((8, 8), (2, 2), steps=5), classes=CLASSES, batch_steps=batch_steps)
    assert [shown[0] for shown in model.shown] == batches


class Uneven(Model):
    votes = (("appearance", 1), ("motion", 2))


class Flat(Model):
    def forward(self, rgb: Tensor, flow: Tensor) -> Tensor:
        return super().forward(rgb, flow).mean(1)


class Hungry(Model):
    def forward(self, *_: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


@pytest.mark.parametrize(
    ("model", "views", "error", "message"),
    [
        (Model(), FakeViews((), ()), EvaluationError, r"there are no videos to evaluate; look at the split with"),
        (Model(), FakeViews(views=(1, 2, 1)), ShapeError, r"every video must give the same \(views, votes, classes\)"),
        (Model(), FakeViews(views=(0, 1, 1)), ShapeError, r"the views of a video are rgb .* with the same R >= 1, got"),
        (Uneven(), FakeViews(), ShapeError, r"declares the votes \(\('appearance', 1\), \('motion', 2\)\) but gave 2"),
        (Flat(), FakeViews(), ShapeError, r"a model answers \(B, V, K\) for B=6 views, got \(6, 2\)"),
        (
            Hungry(),
            FakeViews(),
            EvaluationError,
            r"6 views of rgb \(1, 3, 8, 8\) and flow \(1, 4, 8, 8\) do not fit into the memory of cpu; take fewer at "
            r"once \(batch_steps below 6\)",
        ),
        (
            Hungry(),
            FakeViews((8,), (1,), steps=40),
            EvaluationError,
            r"1 views of rgb \(40, 3, 8, 8\) and flow .* do not fit into the memory of cpu; one is the "
            r"least .*: take a protocol of fewer steps",
        ),
    ],
)
def test_what_cannot_be_judged_is_said(model: Model, views: FakeViews, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        evaluate(model, views, classes=CLASSES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "8"}, r"precision is one of \['32-true', 'bf16-mixed', '16-mixed'\], got '8'"),
        ({"batch_steps": 0}, r"batch_steps is at least 1 and workers at least 0, got 0 and 0"),
        ({"workers": -1}, r"batch_steps is at least 1 and workers at least 0, got 32 and -1"),
        ({"device": "abacus"}, r"device 'abacus' cannot be used here \(.*\); try auto, cpu or cuda"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        evaluate(Model(), FakeViews(), classes=CLASSES, **options)


def test_the_device_is_the_gpu_if_there_is_one() -> None:
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_device("cpu").type == "cpu"
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match=r"device 'cuda' cannot be used here"):
            resolve_device("cuda")
