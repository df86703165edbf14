"""Dry runs: what they pass through every network of a suite, what they count, and what they find."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from twostream.cli import main
from twostream.data.annotations import load_annotations
from twostream.data.items import DataError
from twostream.errors import UsageError
from twostream.experiments import dry_run as dry_running
from twostream.experiments import network_trial
from twostream.experiments.dry_run import DryRun, dry_run
from twostream.experiments.official_counts import official_name
from twostream.experiments.suite import Suite
from twostream.weights.class_names import HMDB51, UCF101

BASE: dict[str, Any] = {
    "model_args": {"width": 8},
    "size": 48,
    "weights": "none",
    "flow": {"estimator": "dis", "workers": 0},
    "trainer": {"accelerator": "cpu", "epochs": 1, "repeats": 1},
}
VARIANTS: dict[str, Any] = {
    "looks": {"model": "spatial_resnet18"},
    "moves": {"model": "temporal_resnet18", "optim": {"lr_multipliers": {"*.classifier.bias": 2.0}}},
    "late": {"scores_of": ["looks", "moves"]},
    "joined": {"after": ["looks", "moves"], "model": "st_resnet18", "model_args": {"steps": 3, "max_stride": 5}},
    "longer": {"after": "joined", "model": "st_resnet18", "model_args": {"steps": 3, "max_stride": 5}},
    "inflated": {"images_after": "looks", "model": "two_stream_resnet18"},
}


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def to_file(**keys: Any) -> Path:
        values = {"name": "tiny", "title": "T", "base": BASE, "variants": VARIANTS, "protocol": "1-view", **keys}
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        return path

    return to_file


def go(suite: Suite, **options: Any) -> DryRun:
    return dry_run(suite, say=options.pop("say", lambda _: None), **options)


def test_every_network_is_passed_from_clip_to_figures(
    write: Callable[..., Path], shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[int] = []
    evaluate = network_trial.evaluate

    def watched(model: Any, views: Any, **options: Any) -> Any:
        judged.append(len(views))
        return evaluate(model, views, **options)

    monkeypatch.setattr(network_trial, "evaluate", watched)
    said: list[str] = []
    found = go(
        Suite.load(write(protocol="25-step"), data=shapes), store=tmp_path / "kept", limit_clips=3, say=said.append
    )
    assert found.problems == []
    assert found.ok
    # Twelve train, four test and four held out.
    assert found.clips == {"videos": 20}
    assert len(list((tmp_path / "kept").rglob("*.flow"))) == 20
    assert not found.stand_ins
    (split,) = found.splits
    assert (split.train, split.test, split.classes, split.missing, split.official) == (12, 4, 4, 0, "")
    trials = {trial.variant: trial for trial in found.trials}
    assert list(trials) == ["looks", "moves", "joined", "longer", "inflated"]
    assert judged == [3] * 4, "a network that was passed before is not passed again"
    looks, joined, longer = trials["looks"], trials["joined"], trials["longer"]
    assert (looks.rgb, looks.flow) == ((2, 1, 3, 48, 48), (2, 0, 20, 48, 48))
    assert (looks.train_votes, looks.views, looks.test_votes) == (1, 50, 1)
    assert (joined.rgb, joined.flow) == ((2, 3, 3, 48, 48), (2, 3, 20, 48, 48))
    # All 25 steps at once, plain and mirrored.
    assert (joined.train_votes, joined.views, joined.test_votes) == (6, 2, 50)
    assert longer.same_as == "joined"
    assert (longer.views, longer.test_votes) == (2, 50)
    assert looks.seconds_a_clip > 0
    assert "late: the votes of looks and moves fuse to 3x50x2x4 logits" in found.notes
    text = "\n".join(found.lines())
    assert "- videos, split 1: 12 training and 4 test videos of 4 classes; 0 missing" in text
    assert re.search(
        r"\| looks \| spatial_resnet18 \| [\d,]+ \| 2x1x3x48x48 \| 2x0x20x48x48 \| 1 \| 50 \| 1 \| [\d.]+ \|", text
    )
    assert "| 50 | as joined |" in text
    assert text.endswith("- everything passed")
    assert any(re.fullmatch(r"looks: 3 clips by 25-step in .*, [\d.]+ s a clip", line) for line in said)
    # The flow is there, and the second time it is not computed.
    said.clear()
    assert go(Suite.load(write(), data=shapes), store=tmp_path / "kept", limit_clips=1, say=said.append).ok
    assert any("0 videos done" in line and "20 were there already" in line for line in said)


def test_without_a_limit_all_clips_are_judged(
    write: Callable[..., Path], shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[tuple[str, ...]] = []
    save = network_trial.Scores.save
    monkeypatch.setattr(network_trial.Scores, "save", lambda s, p: (judged.append(s.videos), save(s, p))[1])
    assert go(Suite.load(write(variants={"looks": VARIANTS["looks"]}), data=shapes)).ok
    assert [len(videos) for videos in judged] == [20]
    assert len(set(judged[0])) == 20


def test_what_does_not_pass_is_named_and_the_rest_goes_on(
    write: Callable[..., Path], shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variants = {
        "looks": VARIANTS["looks"],
        "pattern": {"model": "temporal_resnet18", "optim": {"lr_multipliers": {"*.nothing": 2.0}}},
        "mirror": {"model": "spatial_resnet18", "no_flip": ["nobody"]},
        "heavy": {"model": "spatial_resnet18", "weights": str(tmp_path / "none.pth")},
        "begun": {"model": "spatial_resnet18", "init": str(tmp_path / "no_run")},
        "narrow": {"model": "spatial_resnet18", "weights": "imagenet"},
        "after": {"model": "temporal_resnet18", "after": "pattern"},
        "late": {"scores_of": ["looks", "pattern"]},
        "last": {"model": "spatial_resnet18", "size": 64},
        "both": {"fuse": ["looks", "last"]},
        "crops": {"fuse": ["looks"], "protocol": "10x3"},
    }
    found = go(Suite.load(write(variants=variants), data=shapes), limit_clips=1)
    assert not found.ok
    problems = "\n".join(found.problems)
    for words in (
        "pattern: --optim.lr_multipliers: ['*.nothing'] fit no parameter",
        "mirror: --no_flip names ['nobody']",
        "heavy: its first weights: ",
        "begun: its first weights: ",
        "narrow: its first weights: no ImageNet weights are published for resnet18",
        "after: starts from pattern, which did not pass",
        "late: joins the scores of pattern, which did not pass",
    ):
        assert words in problems, words
    assert str(tmp_path / "none.pth") in problems
    assert [trial.variant for trial in found.trials][-1] == "last"
    assert any(note.startswith("both: the probabilities of looks and last fuse to 1x1x1x") for note in found.notes)
    crops = next(note for note in found.notes if note.startswith("crops: "))
    assert crops.endswith(" logits; tried by 1-view, not by 10x3")
    assert f"did not pass: {len(found.problems)}" in found.lines()[-1]

    def broken(*_: Any, **__: Any) -> None:
        raise MemoryError("too big")

    monkeypatch.setattr(dry_running, "try_network", broken)
    said: list[str] = []
    found = go(Suite.load(write(variants={"looks": VARIANTS["looks"]}), data=shapes), say=said.append)
    assert found.problems == ["looks: MemoryError: too big"]
    assert any("Traceback" in line for line in said)


def test_weights_that_training_would_fetch(
    write: Callable[..., Path], shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWOSTREAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    variants = {"looks": {"model": "spatial_resnet18", "weights": "imagenet", "model_args": {"width": 64}}}
    said: list[str] = []
    found = go(Suite.load(write(variants=variants), data=shapes), limit_clips=1, say=said.append)
    assert found.ok
    assert any("resnet18-f37072fd.pth" in line and "training fetches https://" in line for line in said)


def test_a_checkpoint_that_comes_back_changed(
    write: Callable[..., Path], shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = network_trial.load_model

    def other(folder: Path) -> Any:
        loaded = load(folder)
        next(loaded.model.parameters()).data += 1
        return loaded

    monkeypatch.setattr(network_trial, "load_model", other)
    found = go(Suite.load(write(variants={"looks": VARIANTS["looks"]}), data=shapes), limit_clips=1)
    (problem,) = found.problems
    assert "1 tensors came back changed, first appearance.backbone.conv1.weight" in problem


def test_videos_that_cannot_be_opened_are_problems(write: Callable[..., Path], shapes: Path, tmp_path: Path) -> None:
    for number, video in enumerate(sorted((shapes / "train").rglob("*.mp4"))[:9]):
        target = tmp_path / "some" / video.relative_to(shapes)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"no video" if number == 0 else video.read_bytes())
    found = go(Suite.load(write(variants={"looks": VARIANTS["looks"]}), data=tmp_path / "some"), limit_clips=1)
    assert any("train000" in problem or "cannot" in problem for problem in found.problems), found.problems
    assert len(found.trials) == 1, "the others went through"


def lists(root: Path, classes: tuple[str, ...], *, split: int = 1, videos: int = 2) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "classInd.txt").write_text("\n".join(f"{n} {name}" for n, name in enumerate(classes, 1)))
    for part, groups in (("train", range(1, videos)), ("test", range(videos, videos + 1))):
        rows = [f"{name}/v_{name}_g{g:02d}_c01.avi {n}" for n, name in enumerate(classes, 1) for g in groups]
        (root / f"{part}list{split:02d}.txt").write_text("\n".join(rows))
    return root


def test_lists_without_videos_pass_generated_clips(write: Callable[..., Path], tmp_path: Path) -> None:
    data = lists(tmp_path / "lists", ("Hug", "Kick", "Run"))
    lists(data, ("Hug", "Kick", "Run"), split=2, videos=4)
    suite = Suite.load(write(splits=[1, 2]), data=data)
    said: list[str] = []
    found = go(suite, say=said.append)
    assert found.ok, found.problems
    assert [(split.split, split.train, split.test, split.missing) for split in found.splits] == [
        ("1", 3, 3, 6),
        ("2", 9, 3, 12),
    ]
    assert found.stand_ins == ["lists"]
    assert len(found.trials) == 5
    assert any("no video of the lists is there; 2 generated clips instead" in line for line in said)
    text = "\n".join(found.lines())
    assert "0 clips found on the disk; generated ones went through the networks instead" in text
    assert "without the missing videos training is refused" in text


def test_lists_that_leave_a_class_untrained(write: Callable[..., Path], tmp_path: Path) -> None:
    data = lists(tmp_path / "lists", ("Hug", "Kick"))
    (data / "trainlist01.txt").write_text("Hug/v_Hug_g01_c01.avi 1")
    (data / "testlist01.txt").write_text("Hug/v_Hug_g02_c01.avi 1")
    found = go(Suite.load(write(variants={"looks": VARIANTS["looks"]}), data=data))
    assert found.problems == ["lists, split 1: no train videos are listed of Kick"]
    assert "lists, split 1: no test videos are listed of Kick" in found.notes


def test_data_that_are_not_there(write: Callable[..., Path], tmp_path: Path) -> None:
    found = go(Suite.load(write(splits=[1, 2]), data=tmp_path / "nowhere"))
    assert len(found.problems) == 2 + 1  # each split, and late fusion of nothing
    assert not found.trials
    with pytest.raises(UsageError, match="leaves its data open"):
        go(Suite.load(write()))


def test_official_counts(tmp_path: Path) -> None:
    assert official_name(load_annotations(lists(tmp_path / "own", ("Hug", "Kick")), allow_missing=True)) == ""
    cut = load_annotations(lists(tmp_path / "cut", UCF101), allow_missing=True)
    with pytest.raises(
        DataError, match=r"split 1 lists 101 training and 101 test videos, UCF101's official one 9,537 and"
    ):
        official_name(cut)
    whole = replace(cut, split="3", listed={"train": (9624,), "test": (3696,)})
    assert official_name(whole) == "UCF101"
    with pytest.raises(DataError, match="9,624 and 3,696"):
        official_name(replace(whole, listed={"train": (9537,), "test": (3783,)}))
    hmdb = replace(cut, classes=tuple(sorted(HMDB51)), split="2", listed={"train": (3570,), "test": (1530,)})
    assert official_name(hmdb) == "HMDB51"
    assert official_name(replace(hmdb, split="leave-01-of-01-10")) == ""


@pytest.mark.data
def test_the_real_lists_have_the_official_counts(real_data: Path) -> None:
    for name, folder in (("UCF101", "ucf101_clips"), ("HMDB51", "hmdb51_splits")):
        for split in (1, 2, 3):
            assert official_name(load_annotations(real_data / folder, split=split, allow_missing=True)) == name


def test_generated_data_are_generated_small(write: Callable[..., Path]) -> None:
    shapes = {"motion_shapes": {"set": "same_look", "train": 500, "test": 500, "size": 64, "frames": 16, "classes": 2}}
    found = go(Suite.load(write(data=shapes, variants={"moves": VARIANTS["moves"]})))
    assert found.ok, found.problems
    assert list(found.clips.values()) == [4]


def test_the_command(
    write: Callable[..., Path], shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(write(variants={"looks": VARIANTS["looks"]}))
    call = ["reproduce", file, "--data", str(shapes), "--dry-run", "--limit-clips", "1"]
    out = tmp_path / "out"
    assert main([*call, "--out", str(out), "--store", str(tmp_path / "flow"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is True
    assert document["trials"][0]["variant"] == "looks"
    assert (tmp_path / "flow").is_dir()
    assert not out.exists(), "a dry run leaves the suite's folder alone"
    assert main(["reproduce", file, "--data", str(tmp_path / "nothing"), "--dry-run"]) == 1
    assert "did not pass: 1" in capsys.readouterr().out
    for wrong in ([*call, "--only", "looks"], [*call, "--redo"], [*call, "--table"]):
        assert main(wrong) == 2
        assert "--dry-run tries the whole suite" in capsys.readouterr().err
    for wrong in (["--limit-clips", "1"], ["--store", "x"]):
        assert main(["reproduce", file, "--data", str(shapes), *wrong]) == 2
        assert "go with --dry-run" in capsys.readouterr().err
    assert main([*call[:-1], "0"]) == 2
