from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from twostream.commands.train import parse_train
from twostream.data.transforms import Augment
from twostream.errors import UsageError
from twostream.experiments.suite import Suite
from twostream.models import create_model
from twostream.training.config import FlowConfig, Machine, OptimConfig, TrainConfig, TrainerConfig, resolve
from twostream.training.optim import freeze, parameter_groups, rate_factor

LAPTOP = Machine(accelerator="cpu", cores=2, fast_bf16=False)
SERVER = Machine(accelerator="cuda", cores=16, fast_bf16=True)
PLAIN = TrainConfig(data="d", out="o")


def test_a_laptop_with_few_clips_gets_small_pictures_and_many_passes() -> None:
    config = resolve(PLAIN, machine=LAPTOP, clips=80, validation=8, pretrained=False)
    assert (config.size, config.flow.resize) == (112, 128)
    assert config.trainer.epochs == 60
    assert config.trainer.precision == "32-true"
    assert config.trainer.keep == "last"
    assert config.trainer.loader_workers == 0
    assert (config.optim.optimizer, config.optim.lr, config.optim.weight_decay) == ("adamw", 1e-3, 0.05)
    assert config.optim.batch_size == 16


def test_a_gpu_with_many_clips_gets_the_papers_sizes() -> None:
    config = resolve(PLAIN, machine=SERVER, clips=9537, validation=900, pretrained=True)
    assert (config.size, config.flow.resize) == (224, 256)
    assert config.trainer.precision == "bf16-mixed"
    assert config.trainer.keep == "best"
    assert config.trainer.loader_workers == 8
    assert (config.optim.optimizer, config.optim.lr, config.optim.weight_decay) == ("sgd", 1e-2, 5e-4)
    assert config.optim.batch_size == 32
    assert resolve(PLAIN, machine=SERVER, clips=50_000, validation=0, pretrained=True).trainer.epochs == 15


def test_what_is_given_is_kept() -> None:
    given = TrainConfig(
        data="d",
        out="o",
        size=64,
        flow=FlowConfig(estimator="farneback", resize=80, workers=3),
        optim=OptimConfig(optimizer="sgd", lr=0.5, weight_decay=0.0, batch_size=2),
        trainer=TrainerConfig(epochs=7, repeats=2, precision="32-true", keep="best", loader_workers=5),
    )
    assert resolve(given, machine=SERVER, clips=100, validation=0, pretrained=False) == given


def test_short_lists_are_drawn_from_more_often() -> None:
    def repeats(clips: int) -> int | None:
        return resolve(PLAIN, machine=LAPTOP, clips=clips, validation=0, pretrained=False).trainer.repeats

    assert [repeats(clips) for clips in (8, 72, 400, 9537)] == [50, 6, 1, 1]


def test_this_machine_can_be_looked_at() -> None:
    machine = Machine.detect("cpu")
    assert machine.accelerator == "cpu"
    assert machine.cores >= 1
    assert Machine.detect("mps").accelerator == "mps"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"val_fraction": 1.0}, "val_fraction"),
        ({"unreadable": -0.1}, "unreadable"),
        ({"size": 8}, "size"),
        ({"trainer": TrainerConfig(epochs=0)}, "trainer.epochs"),
        ({"trainer": TrainerConfig(repeats=0)}, "trainer.repeats"),
        ({"trainer": TrainerConfig(early_stopping=0)}, "trainer.early_stopping"),
        ({"trainer": TrainerConfig(average=1.0)}, "trainer.average"),
        ({"optim": OptimConfig(accumulate=0)}, "optim.accumulate"),
        ({"optim": OptimConfig(batch_size=0)}, "optim.batch_size"),
        ({"optim": OptimConfig(lr=0.0)}, "optim.lr"),
        ({"optim": OptimConfig(warmup=1.0)}, "optim.warmup"),
        ({"optim": OptimConfig(milestones=(0.8, 0.5))}, "optim.milestones"),
        ({"optim": OptimConfig(label_smoothing=1.0)}, "optim.label_smoothing"),
        ({"optim": OptimConfig(batch_norm_momentum=0.0)}, "optim.batch_norm_momentum"),
    ],
)
def test_values_out_of_range_are_named(changes: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError, match=f"--{named} must be"):
        replace(PLAIN, **changes)  # type: ignore[arg-type]


def test_the_command_line_and_yaml_are_one_declaration(tmp_path: Path) -> None:
    config = TrainConfig(
        data="clips",
        out="run",
        split=2,
        model_args={"width": 32, "dropout": 0.5},
        no_flip=("left", "right"),
        init=("runs/spatial", "runs/temporal"),
        sampling="released_code",
        allow_missing=True,
        flow=FlowConfig(store="s", fps=12.5),
        augment=Augment(scales=(1.0, 0.5), corners=False),
        optim=OptimConfig(lr_multipliers={"*.classifier.*": 10.0}, frozen=("*.backbone.*",), milestones=(0.25, 0.75)),
        trainer=TrainerConfig(epochs=3),
    )
    file = tmp_path / "run.yaml"
    file.write_text(config.to_yaml())
    assert parse_train(["--config", str(file)]) == config
    assert parse_train(["--data", "d", "--out", "o", "--init", "runs/base"]).init == "runs/base"
    # Later options win, dashes may stand for underscores, and a switch needs no value.
    words = ["--config", str(file), "--trainer.epochs", "9", "--allow-leak", "--optim.lr=0.25"]
    changed = parse_train(words)
    assert changed == replace(
        config,
        allow_leak=True,
        trainer=replace(config.trainer, epochs=9),
        optim=replace(config.optim, lr=0.25),
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data", "d", "--out", "o", "--optim.lrr", "3"], "did you mean --optim.lr"),
        (["--data", "d", "--out", "o", "--optim.lr", "fast"], "optim.lr"),
        (["--out", "o"], "data"),
        (["--data", "d", "--out", "o", "--optim.schedule", "linear"], "optim.schedule"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_a_wrong_call_is_one_message(words: list[str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_train(words)
    assert said in str(caught.value)
    assert "--help" in str(caught.value)


@pytest.mark.parametrize("file", sorted((Path(__file__).parents[1] / "configs").glob("*.yaml")), ids=lambda p: p.name)
def test_every_shipped_configuration_parses(file: Path) -> None:
    assert yaml.safe_load(file.read_text())
    config = parse_train(["--config", str(file), "--data", "d", "--out", "o"])
    with torch.device("meta"):  # shapes without memory
        model = create_model(config.model, num_classes=101, **{"size": config.size or 224, **config.model_args})
    # Every pattern of what is frozen, and of its rates, names something.
    resolved = resolve(config, machine=SERVER, clips=9537, validation=954, pretrained=True)
    freeze(model, resolved.optim.frozen)
    assert parameter_groups(model, resolved.optim)


@pytest.mark.parametrize(
    ("recipe", "steps_an_epoch", "epochs", "rates"),
    [
        ("base_appearance", 373, 6, [1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4]),
        ("base_motion", 7451, 4, [1e-2, 1e-3, 1e-4, 1e-5]),
        ("stage1", 746, 8, [1e-3] * 3 + [1e-4] * 3 + [1e-5] * 2),
        ("stage2", 75, 2, [1e-4, 1e-5]),
    ],
)
def test_the_recipes_of_st_resnet_have_the_released_codes_steps_and_rates(
    recipe: str, steps_an_epoch: int, epochs: int, rates: list[float]
) -> None:
    """Section 5 of the papers' sheet, for the 9,537 training videos of UCF101's first split, all of them trained on."""
    file = Path(__file__).parents[1] / "configs" / f"ucf101_st_resnet50_{recipe}.yaml"
    config = parse_train(["--config", str(file), "--data", "d", "--out", "o"])
    optim, trainer = config.optim, config.trainer
    assert (config.val_fraction, trainer.keep, config.flow.quality) == (0.0, "last", "papers")
    assert optim.batch_size
    assert optim.lr
    assert trainer.repeats
    videos_a_step = optim.batch_size * optim.accumulate
    assert videos_a_step == (256 if recipe == "base_appearance" else 128)
    assert -(-9537 * trainer.repeats // videos_a_step) == steps_an_epoch
    assert trainer.epochs == epochs
    factor = rate_factor(optim, steps_an_epoch * epochs)
    for epoch, rate in enumerate(rates):
        first, last = epoch * steps_an_epoch, (epoch + 1) * steps_an_epoch - 1
        assert [optim.lr * factor(step) for step in (first, last)] == pytest.approx([rate, rate]), epoch
    assert optim.batch_norm_momentum == pytest.approx(1 - 0.95 ** (1 / optim.accumulate), abs=1e-5)


def test_the_multipliers_of_st_resnets_recipes() -> None:
    """Section 5: biases and batch norm's weights at twice the rate, its shifts at the rate, decay on filters alone."""
    file = Path(__file__).parents[1] / "configs" / "ucf101_st_resnet50_stage1.yaml"
    config = parse_train(["--config", str(file), "--data", "d", "--out", "o"])
    with torch.device("meta"):
        model = create_model(config.model, num_classes=101, **config.model_args)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {}
    for group in parameter_groups(model, config.optim):
        for parameter in group["params"]:  # type: ignore[attr-defined]
            found[names[id(parameter)]] = (group["lr"], group["weight_decay"])
    assert len(found) == len(names)
    norms = {f"{n}." for n, m in model.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}
    for name, (rate, decay) in found.items():
        of_norm = name[: name.rindex(".") + 1] in norms
        twice = name.endswith(".weight") if of_norm else name.endswith(".bias")
        assert rate == pytest.approx(2e-3 if twice else 1e-3), name
        assert decay == (5e-4 if name.endswith(".weight") and not of_norm else 0.0), name


@pytest.mark.parametrize(
    ("file", "suite", "variant"),
    [
        ("ut_interaction_motion", "ut_interaction", "motion_time"),
        ("body_gesture_motion", "body_gesture", "motion_augmented"),
    ],
)
def test_the_best_single_networks_train_as_in_their_suites(file: str, suite: str, variant: str) -> None:
    path = Path(__file__).parents[1] / "configs" / f"{file}.yaml"
    config = parse_train(["--config", str(path), "--data", "d", "--out", "o"])
    row = next(row for row in Suite.load(suite, data="d").rows() if row.variant == variant)
    trainer = replace(row.config.trainer, tensorboard=config.trainer.tensorboard)
    assert replace(row.config, data="d", out="o", trainer=trainer) == config
