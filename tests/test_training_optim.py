import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from twostream import create_model
from twostream.errors import UsageError
from twostream.training.config import OptimConfig
from twostream.training.module import Recognizer, vote_loss
from twostream.training.optim import build_optimizer, freeze, freeze_batch_norm, parameter_groups, rate_factor


def small_model() -> nn.Module:
    return create_model("two_stream_resnet18", num_classes=3, width=4, size=32)


def sgd(**changes: object) -> OptimConfig:
    return OptimConfig(**{"optimizer": "sgd", "lr": 0.1, "weight_decay": 5e-4, **changes})  # type: ignore[arg-type]


def test_only_filters_are_decayed() -> None:
    model = small_model()
    decay = {id(p): group["weight_decay"] for group in parameter_groups(model, sgd()) for p in group["params"]}  # type: ignore[attr-defined]
    for name, parameter in model.named_parameters():
        assert decay[id(parameter)] == (5e-4 if parameter.ndim > 1 else 0.0), name
    everything = parameter_groups(model, sgd(decay_all=True))
    assert {group["weight_decay"] for group in everything} == {5e-4}


def test_multipliers_go_by_the_first_pattern_that_fits() -> None:
    model = small_model()
    config = sgd(lr_multipliers={"motion.classifier.*": 10.0, "motion.*": 0.0})
    rate = {id(p): group["lr"] for group in parameter_groups(model, config) for p in group["params"]}  # type: ignore[attr-defined]
    named = dict(model.named_parameters())
    assert rate[id(named["motion.classifier.weight"])] == pytest.approx(1.0)
    assert rate[id(named["motion.backbone.conv1.weight"])] == 0.0
    assert rate[id(named["appearance.backbone.conv1.weight"])] == 0.1


def test_a_pattern_that_fits_nothing_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"'nothing\.\*'.*fit no parameter"):
        parameter_groups(small_model(), sgd(lr_multipliers={"nothing.*": 2.0}))


def test_optimizers() -> None:
    chosen = build_optimizer(small_model(), sgd(momentum=0.8))
    assert isinstance(chosen, torch.optim.SGD)
    assert chosen.param_groups[0]["momentum"] == 0.8
    config = OptimConfig(optimizer="adamw", lr=1e-3, weight_decay=0.05)
    assert isinstance(build_optimizer(small_model(), config), torch.optim.AdamW)


def test_schedules() -> None:
    cosine = rate_factor(sgd(schedule="cosine", warmup=0.1), 100)
    assert [cosine(step) for step in (0, 9)] == pytest.approx([1 / 11, 10 / 11])
    assert cosine(10) == 1.0
    assert cosine(55) == pytest.approx(0.5)
    assert cosine(100) == pytest.approx(0.0)
    step = rate_factor(sgd(schedule="step", warmup=0.0, milestones=(0.5, 0.8)), 10)
    assert [step(n) for n in (4, 5, 7, 8)] == pytest.approx([1, 0.1, 0.1, 0.01])
    constant = rate_factor(sgd(schedule="constant", warmup=0.0), 10)
    assert {constant(n) for n in range(10)} == {1.0}


@pytest.mark.parametrize(("rule", "frozen"), [("none", 0), ("partial", 2 * 19), ("all", 2 * 20)])
def test_frozen_batch_norms_stay_frozen_through_train(rule: str, frozen: int) -> None:
    model = small_model()
    recognizer = Recognizer(model, sgd(frozen_batch_norm=rule), seed=0)
    recognizer.train()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 40
    assert sum(not norm.training for norm in norms) == frozen
    assert sum(not norm.weight.requires_grad for norm in norms) == frozen
    first = model.get_submodule("motion.backbone.bn1")
    assert first.training == (rule != "all")


def test_freezing_reports_how_many() -> None:
    assert freeze_batch_norm([small_model()], "all") == 40


def test_what_is_frozen_learns_nothing_and_stays_in_inference_mode() -> None:
    model = small_model()
    recognizer = Recognizer(model, sgd(frozen=("appearance.*", "motion.backbone.layer1.0.*")), seed=0)
    assert recognizer.frozen == [model.get_submodule("appearance"), model.get_submodule("motion.backbone.layer1.0")]
    recognizer.eval()
    recognizer.train()
    assert not any(module.training for module in model.get_submodule("appearance").modules())
    assert not any(module.training for module in model.get_submodule("motion.backbone.layer1.0").modules())
    assert model.get_submodule("motion.backbone.layer1").training
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert all(name.startswith(("appearance.", "motion.backbone.layer1.0.")) for name in frozen)
    learning = sum(len(group["params"]) for group in build_optimizer(model, recognizer.config).param_groups)
    assert learning == sum(1 for _ in model.parameters()) - len(frozen)
    assert freeze(model, ()) == []


def test_freezing_by_patterns_that_do_not_fit_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"--optim.frozen: \['nothing\.\*'\] fit no parameter; names are like appear"):
        freeze(small_model(), ("motion.*", "nothing.*"))
    with pytest.raises(UsageError, match=r"--optim.frozen: \['motion\.\*', 'app\*'\] leave nothing to learn"):
        freeze(small_model(), ("motion.*", "app*"))
    model = small_model()
    freeze(model, ("motion.*",))
    with pytest.raises(UsageError, match="fit no parameter that learns"):
        parameter_groups(model, sgd(lr_multipliers={"motion.*": 2.0}))


def test_the_loss_sums_votes_and_divides_by_videos() -> None:
    logits = torch.randn(5, 3, 4, dtype=torch.float64)
    label = torch.tensor([0, 1, 2, 3, 0])
    by_hand = sum(
        -math.log(torch.softmax(logits[b, v].float(), 0)[label[b]].item()) for b in range(5) for v in range(3)
    )
    assert vote_loss(logits, label).item() == pytest.approx(by_hand / 5, rel=1e-5)
    smoothed = vote_loss(logits, label, label_smoothing=0.1)
    expected = 3 * F.cross_entropy(
        logits.float().flatten(0, 1), label.repeat_interleave(3), label_smoothing=0.1, reduction="mean"
    )
    assert smoothed.item() == pytest.approx(expected.item(), rel=1e-5)
