"""The model folder: whole or not at all, loaded strictly; and what --init carries over."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from twostream.checkpoint import CheckpointError, LoadedModel, image_network, is_model, load_model, save_model, transfer
from twostream.files import OutputError
from twostream.models.contract import VideoModel
from twostream.models.registry import create_model

CLASSES = ("jump", "run", "wave")


def small(name: str = "two_stream_resnet18", *, num_classes: int = 3, seed: int = 0, **numbers: Any) -> VideoModel:
    torch.manual_seed(seed)
    return create_model(name, num_classes=num_classes, **{"width": 4, "size": 64, **numbers})


def saved(
    folder: Path, name: str = "two_stream_resnet18", *, classes: Sequence[str] = CLASSES, **numbers: Any
) -> LoadedModel:
    save_model(folder, small(name, num_classes=len(classes), **numbers), classes=classes)
    return load_model(folder)


def edit(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def test_round_trip(tmp_path: Path) -> None:
    model = small(dropout=0.1, fps=12.5, segments=2).train()
    save_model(tmp_path / "m", model, classes=CLASSES, provenance={"data": "gestures", "split": 1})
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == ["config.json", "model.safetensors"]
    loaded = load_model(tmp_path / "m")
    assert loaded.classes == CLASSES
    assert loaded.folder == tmp_path / "m"
    assert loaded.config["provenance"] == {"data": "gestures", "split": 1}
    assert loaded.config["input"] == model.spec.to_dict()
    assert loaded.model.spec == model.spec
    assert dict(loaded.model.numbers) == dict(model.numbers)
    assert not loaded.model.training
    state = loaded.model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


def test_the_same_model_gives_the_same_bytes_and_loading_leaves_the_random_state(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_model(tmp_path / name, small(), classes=CLASSES)
    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    torch.manual_seed(4)
    expected = torch.randn(3)
    torch.manual_seed(4)
    source = load_model(tmp_path / "a")
    assert torch.equal(torch.randn(3), expected)
    model = small(seed=5)
    torch.manual_seed(4)
    transfer(model, source, classes=CLASSES)
    assert torch.equal(torch.randn(3), expected)


def test_defaults_of_the_day_are_kept(tmp_path: Path) -> None:
    saved(tmp_path)
    numbers = json.loads((tmp_path / "config.json").read_text())["numbers"]
    assert numbers["dropout"] == 0.5, "a later version's default must not change an old model"


def test_a_run_folder_is_taken_for_its_model(tmp_path: Path) -> None:
    saved(tmp_path / "run" / "model")
    assert load_model(tmp_path / "run").folder == tmp_path / "run" / "model"


def test_only_named_models_with_fitting_classes_are_saved(tmp_path: Path) -> None:
    model = small()
    for classes in (("a", "b"), ("a", "b", "b")):
        with pytest.raises(CheckpointError, match="a model of 3 classes needs as many different names"):
            save_model(tmp_path, model, classes=classes)
    model.name = ""
    with pytest.raises(CheckpointError, match="only networks made by create_model"):
        save_model(tmp_path, model, classes=CLASSES)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        save_model(tmp_path / "file", small(), classes=CLASSES)


def test_where_no_model_is(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder; a model is a folder with"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"no model in it .* A run has one once its first validation is over"):
        load_model(tmp_path)
    saved(tmp_path / "m")
    with pytest.raises(CheckpointError, match="is a file; name the folder"):
        load_model(tmp_path / "m" / "model.safetensors")
    (tmp_path / "m" / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"weights without a config\.json, left by a writer that was stopped"):
        load_model(tmp_path / "m")


def test_half_replaced_and_damaged_folders_are_never_trusted(tmp_path: Path) -> None:
    saved(tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    for content in (whole[:-4], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
        (tmp_path / "model.safetensors").write_bytes(content)
        with pytest.raises(CheckpointError, match="damaged, or not the weights that config"):
            load_model(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="the weights cannot be read"):
        load_model(tmp_path)
    # the writer was stopped between its two renames: new weights, old configuration
    save_model(tmp_path / "other", small(seed=9), classes=CLASSES)
    (tmp_path / "other" / "model.safetensors").replace(tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="SHA-256 differs"):
        load_model(tmp_path)


KILLED = """
import os, sys, torch
from pathlib import Path
from twostream.checkpoint import save_model
from twostream.models.registry import create_model
torch.manual_seed(1)
model = create_model("spatial_resnet18", num_classes=3, width=4, size=64)
renames, replace = int(sys.argv[2]), Path.replace
def dies(self, target):
    global renames
    if renames == 0:
        os._exit(9)
    renames -= 1
    return replace(self, target)
Path.replace = dies
save_model(sys.argv[1], model, classes=["jump", "run", "wave"])
"""


@pytest.mark.parametrize("renames", [0, 1])
def test_a_writer_killed_at_either_rename(tmp_path: Path, renames: int) -> None:
    old = saved(tmp_path, "spatial_resnet18").model.state_dict()
    code = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), str(renames)], env={**os.environ, "OMP_NUM_THREADS": "1"}
    ).returncode
    assert code == 9
    if renames == 0:  # nothing has its name yet: the old model stands
        new = load_model(tmp_path).model.state_dict()
        assert all(torch.equal(old[name], new[name]) for name in old)
    else:
        with pytest.raises(CheckpointError, match="damaged, or not the weights"):
            load_model(tmp_path)


def test_configurations_that_are_none(tmp_path: Path) -> None:
    saved(tmp_path)
    for text in ("", "[]", "{}", '{"format": "twostream-model-9"}'):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"not a model's configuration|this version of twostream reads"):
            load_model(tmp_path)
    (tmp_path / "config.json").write_text('{"format": "twostream-model-1"}')
    with pytest.raises(CheckpointError, match="the weights cannot be read"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "two_stream_resnet99"}, "cannot be built by .*: there is no model 'two_stream_resnet99'"),
        ({"numbers": {"depth_of_field": 3}}, "takes no depth_of_field"),
        ({"num_classes": 4}, "3 class names for a model of 4 classes"),
        ({"num_classes": 4, "classes": ["a", "b", "c", "d"]}, r"with 4 classes\. Tensors .*classifier\.weight"),
        ({"classes": ["a"]}, "1 class names for a model of 3 classes"),
        ({"numbers": {"width": 8, "size": 64}}, "the weights are not those of .* of another shape"),
        ({"model": "spatial_resnet18", "numbers": {"width": 4, "size": 64}}, "saved with another input"),
        ({"numbers": None}, "not what twostream writes"),
        ({"input": {"colour": 1}}, "unknown input spec entries"),
    ],
)
def test_configurations_of_other_networks(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    saved(tmp_path)
    edit(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path)


def test_foreign_bytes_with_the_right_hash(tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"junk")
    edit(tmp_path, weights={"sha256": hashlib.sha256(b"junk").hexdigest()})
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load_model(tmp_path)


def test_our_weights_are_plain_safetensors(tmp_path: Path) -> None:
    model = small()
    save_model(tmp_path, model, classes=CLASSES)
    tensors = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert set(tensors) == set(model.state_dict())


# --init


def test_init_with_the_same_classes_carries_everything(tmp_path: Path) -> None:
    source = saved(tmp_path, seed=1)
    model = small(seed=2)
    report = transfer(model, source, classes=CLASSES)
    assert report.skipped == {}
    assert report.initialised == ()
    state = source.model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert report.describe() == (
        f"init: {len(state)} tensors from {tmp_path} (two_stream_resnet18)\n"
        "  appearance.backbone: 120 of 120\n"
        "  appearance.classifier: 2 of 2\n"
        "  motion.backbone: 120 of 120\n"
        "  motion.classifier: 2 of 2"
    )


@pytest.mark.parametrize("classes", [("a", "b", "c"), ("wave", "run", "jump"), ("a", "b", "c", "d")])
def test_init_with_other_classes_leaves_the_classifier(tmp_path: Path, classes: tuple[str, ...]) -> None:
    source = saved(tmp_path, seed=1)
    model = small(seed=2, num_classes=len(classes))
    fresh = model.motion.classifier.weight.clone()  # type: ignore[union-attr]
    report = transfer(model, source, classes=classes)
    heads = {f"{stream}.classifier.{part}" for stream in ("appearance", "motion") for part in ("weight", "bias")}
    assert set(report.skipped) == set(report.initialised) == heads
    assert torch.equal(model.motion.classifier.weight, fresh)  # type: ignore[union-attr]
    assert "appearance.classifier: 0 of 2, the rest fresh (appearance.classifier.bias its classes are others" in (
        report.describe()
    )


def test_init_of_both_streams_from_two_runs(tmp_path: Path) -> None:
    spatial = saved(tmp_path / "s", "spatial_resnet18", seed=1)
    temporal = saved(tmp_path / "t", "temporal_resnet18", seed=2)
    model = small(seed=3)
    first = transfer(model, spatial, classes=CLASSES)
    assert all(name.startswith("motion.") for name in first.initialised)
    assert "motion.backbone: 0 of 120, the rest fresh" in first.describe()
    transfer(model, temporal, classes=CLASSES)
    expected = {**spatial.model.state_dict(), **temporal.model.state_dict()}
    assert all(torch.equal(expected[name], value) for name, value in model.state_dict().items())


def test_the_network_on_frames_of_a_run_is_an_image_network(tmp_path: Path) -> None:
    spatial = saved(tmp_path / "s", "spatial_resnet18", seed=1)
    assert is_model(tmp_path / "s")
    assert not is_model(tmp_path)
    model = small("st_resnet18", seed=3)
    model.load_backbones(image_network(spatial, model), source="s")
    there, here = spatial.model.state_dict(), model.state_dict()
    first = there["appearance.backbone.conv1.weight"]
    assert torch.equal(here["appearance.backbone.conv1.weight"], first)
    assert torch.allclose(here["motion.backbone.conv1.weight"], first.mean(1, keepdim=True).expand(-1, 20, -1, -1))
    assert not torch.equal(here["appearance.classifier.weight"], there["appearance.classifier.weight"])
    with pytest.raises(CheckpointError, match="no network on frames to start from"):
        image_network(saved(tmp_path / "t", "temporal_resnet18"), model)
    with pytest.raises(CheckpointError, match=r"is built on resnet34.*, st_resnet18 on resnet18"):
        image_network(saved(tmp_path / "d", "spatial_resnet34"), model)


def test_init_of_one_stream_leaves_the_other_behind(tmp_path: Path) -> None:
    source = saved(tmp_path)
    report = transfer(small("temporal_resnet18"), source, classes=CLASSES)
    assert "appearance.backbone: 120 left behind (temporal_resnet18 has none)" in report.describe()


def test_init_with_stacks_of_another_length_starts_the_first_layer_anew(tmp_path: Path) -> None:
    source = saved(tmp_path, "temporal_resnet18")
    report = transfer(small("temporal_resnet18", flow_length=5), source, classes=CLASSES)
    assert report.initialised == ("motion.backbone.conv1.weight",)
    assert "(4, 20, 7, 7) there, (4, 10, 7, 7) here" in report.describe()


def test_init_from_a_network_that_does_not_fit(tmp_path: Path) -> None:
    source = saved(tmp_path / "s", "spatial_resnet18")
    with pytest.raises(CheckpointError, match=r"no layer of .* fits temporal_resnet18 .* has none"):
        transfer(small("temporal_resnet18"), source, classes=CLASSES)
    with pytest.raises(CheckpointError, match=r"\(4, 3, 7, 7\) there, \(8, 3, 7, 7\) here.* same backbone, width"):
        transfer(small("spatial_resnet18", width=8), source, classes=CLASSES)
    with pytest.raises(CheckpointError, match=r"normalises its input with rgb_mean .* different layouts"):
        transfer(small("spatial_resnet18", layout="caffe"), source, classes=CLASSES)
