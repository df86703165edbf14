import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch.optim.swa_utils import AveragedModel

from twostream.checkpoint import load_model
from twostream.data import motion_shapes
from twostream.data.items import DataError
from twostream.errors import TwostreamError, UsageError
from twostream.layers import CompactBilinear
from twostream.runs import RunError, RunFolder, evaluate_run
from twostream.training import run as run_module
from twostream.training.config import FlowConfig, TrainConfig
from twostream.training.module import TrainingError
from twostream.training.run import train


@pytest.fixture(autouse=True)
def one_thread() -> None:
    # Sums are split among threads, so bits can only be compared at equal numbers of them.
    torch.set_num_threads(1)


def weights_of(run: RunFolder) -> bytes:
    return (run.model_folder / "model.safetensors").read_bytes()


def quiet(_: str) -> None:
    pass


def with_trainer(config: TrainConfig, **changes: object) -> TrainConfig:
    return replace(config, trainer=replace(config.trainer, **changes))  # type: ignore[arg-type]


def test_a_run_leaves_what_its_docstring_says(tiny_run: RunFolder) -> None:
    files = {str(path.relative_to(tiny_run.path)) for path in tiny_run.path.rglob("*") if path.is_file()}
    # The run is shared with tests that judge it.
    assert {file for file in files if not file.startswith("scores/")} == {
        "config.yaml",
        "data.json",
        "metrics.csv",
        "checkpoints/last.ckpt",
        "model/config.json",
        "model/model.safetensors",
    }
    lines = tiny_run.metrics_file.read_text().splitlines()
    assert lines[0] == "epoch,step,train_loss,train_top1,val_loss,val_top1,lr,seconds"
    assert [line.split(",")[:2] for line in lines[1:]] == [["0", "3"], ["1", "6"], ["2", "9"]]
    provenance = load_model(tiny_run.path).config["provenance"]
    assert provenance["flow"]["estimator"] == "dis"
    assert provenance["weights"] == "random"
    # Nothing of the trainer's state needs a pickle that could run code.
    assert torch.load(tiny_run.checkpoint_file, weights_only=True)["epoch"] == 2


class _Stop(Callback):
    """Dies at the start of an epoch, as `kill -9` between two checkpoints does."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, trainer: object, *_: object) -> None:  # type: ignore[override]
        if trainer.current_epoch == self.epoch:  # type: ignore[attr-defined]
            raise RuntimeError("killed")


def test_a_resumed_run_reaches_the_same_weights_to_the_bit(
    tiny_config: TrainConfig, tiny_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(tiny_config, out=str(tmp_path / "run"))
    callbacks = run_module.callbacks_for

    def dying(*args: object, **kwargs: object) -> list[Callback]:
        return [*callbacks(*args, **kwargs), _Stop(2)]  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(run_module, "callbacks_for", dying)
        with pytest.raises(RuntimeError, match="killed"):
            train(config, say=quiet)
    half = RunFolder(tmp_path / "run")
    assert not half.finished
    with pytest.raises(RunError, match="has not finished; the same `twostream train` command continues it"):
        half.model()
    said: list[str] = []
    whole = train(config, say=said.append).run
    assert any("going on from" in line for line in said)
    assert weights_of(whole) == weights_of(tiny_run)
    rows = [line.rsplit(",", 1)[0] for line in whole.metrics_file.read_text().splitlines()]
    assert rows == [line.rsplit(",", 1)[0] for line in tiny_run.metrics_file.read_text().splitlines()]


def test_averaged_weights_make_the_model_and_survive_a_death(
    tiny_config: TrainConfig, tiny_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def averaged(out: str) -> TrainConfig:
        config = replace(tiny_config, out=str(tmp_path / out))
        return replace(config, trainer=replace(config.trainer, average=0.8))

    run = train(averaged("whole"), say=quiet).run
    state = torch.load(run.checkpoint_file, weights_only=True)
    name = next(key for key in state["state_dict"] if key.endswith("conv1.weight"))
    last, mean = state["current_model_state"][name], state["state_dict"][name]
    own = load_model(run.path).model.state_dict()[name.removeprefix("model.")]
    assert torch.equal(own, mean)
    assert not torch.equal(own, last)
    # The steps themselves are those of a run without an average.
    assert torch.equal(last, load_model(tiny_run.path).model.state_dict()[name.removeprefix("model.")])

    callbacks = run_module.callbacks_for

    def dying(*args: object, **kwargs: object) -> list[Callback]:
        return [*callbacks(*args, **kwargs), _Stop(2)]  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(run_module, "callbacks_for", dying)
        with pytest.raises(RuntimeError, match="killed"):
            train(averaged("resumed"), say=quiet)
    assert weights_of(train(averaged("resumed"), say=quiet).run) == weights_of(run)


@pytest.mark.parametrize("decay", [0.9, 0.9999])
def test_averaging_leaves_hashes_alone(decay: float) -> None:
    """As floats, many of them would come out one lower: another fusion than the one that was trained."""
    network = torch.nn.Sequential(CompactBilinear((100, 100), 1000), torch.nn.BatchNorm1d(1000))
    averaged = AveragedModel(network, avg_fn=run_module.moving_average(decay), use_buffers=True)
    averaged.update_parameters(network)
    network[1](torch.ones(2, 1000))
    averaged.update_parameters(network)
    mean, current = averaged.module.state_dict(), network.state_dict()
    for name in ("0.hashes", "0.signs", "0.size", "1.num_batches_tracked"):
        assert torch.equal(mean[name], current[name]), name
    torch.testing.assert_close(mean["1.running_mean"], (1 - decay) * current["1.running_mean"])


def test_a_killed_process_resumes_to_the_same_weights(
    tiny_config: TrainConfig, tiny_run: RunFolder, tmp_path: Path
) -> None:
    """A real `kill -9`, by the process itself in the middle of the second epoch."""
    config = replace(tiny_config, out=str(tmp_path / "run"))
    file = tmp_path / "config.yaml"
    file.write_text(config.to_yaml())
    program = textwrap.dedent("""
        import os, signal, sys, torch
        from twostream import cli
        from twostream.training import module
        torch.set_num_threads(1)
        if sys.argv[1] == "die":
            step = module.Recognizer.training_step
            def dying(self, batch, batch_idx):
                if self.current_epoch == 1 and batch_idx == 1:
                    os.kill(os.getpid(), signal.SIGKILL)
                return step(self, batch, batch_idx)
            module.Recognizer.training_step = dying
        sys.exit(cli.main(["train", "--config", sys.argv[2]]))
    """)
    script = tmp_path / "program.py"
    script.write_text(program)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    first = subprocess.run([sys.executable, script, "die", file], env=environment, capture_output=True, text=True)
    assert first.returncode == -signal.SIGKILL, first.stderr
    second = subprocess.run([sys.executable, script, "live", file], env=environment, capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    assert "going on from" in second.stderr
    assert second.stdout == f"next: twostream evaluate {tmp_path / 'run'}\n"
    assert weights_of(RunFolder(tmp_path / "run")) == weights_of(tiny_run)


def test_loader_workers_do_not_change_the_result(tiny_config: TrainConfig, tiny_run: RunFolder, tmp_path: Path) -> None:
    config = with_trainer(replace(tiny_config, out=str(tmp_path / "run")), loader_workers=2)
    assert weights_of(train(config, say=quiet).run) == weights_of(tiny_run)


def test_a_finished_run_is_left_alone(tiny_config: TrainConfig, tiny_run: RunFolder) -> None:
    before = weights_of(tiny_run)
    said: list[str] = []
    train(tiny_config, say=said.append)
    assert said[-1] == f"{tiny_run.path} is finished already; to train anew remove it or name another --out"
    assert weights_of(tiny_run) == before


@pytest.mark.usefixtures("tiny_run")
def test_another_run_in_the_folder_is_refused(tiny_config: TrainConfig) -> None:
    with pytest.raises(TrainingError, match=r"started differently \(seed: 0 there, 5 now; trainer.epochs: 3 there, 4"):
        train(with_trainer(replace(tiny_config, seed=5), epochs=4), say=quiet)


def test_best_weights_and_early_stopping(tiny_config: TrainConfig, tmp_path: Path) -> None:
    config = with_trainer(
        replace(tiny_config, out=str(tmp_path / "run"), optim=replace(tiny_config.optim, lr=1e-9)),
        keep="best",
        early_stopping=1,
        epochs=6,
        tensorboard=True,
    )
    said: list[str] = []
    result = train(config, say=said.append)
    assert (tmp_path / "run/checkpoints/best.ckpt").is_file()
    assert any(line.startswith("keeping the weights of the lowest held-out loss") for line in said)
    assert list((tmp_path / "run/tensorboard").glob("events*"))
    assert result.epochs <= 6


def test_early_stopping_needs_held_out_clips(tiny_config: TrainConfig, shapes: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for part in ("train", "test"):
        (tmp_path / "data" / part).symlink_to(shapes / part)
    config = with_trainer(
        replace(tiny_config, data=str(tmp_path / "data"), out=str(tmp_path / "run"), val_fraction=0.0), early_stopping=2
    )
    with pytest.raises(TrainingError, match=r"--trainer\.early_stopping needs held-out clips"):
        train(config, say=quiet)


def test_validation_is_held_out_of_training_where_the_data_names_none(
    tiny_config: TrainConfig, shapes: Path, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    for part in ("train", "test"):
        (tmp_path / "data" / part).symlink_to(shapes / part)
    config = replace(tiny_config, data=str(tmp_path / "data"), val_fraction=0.34)
    annotations = run_module.read_data(config)
    assert [len(annotations.parts[part]) for part in ("train", "val", "test")] == [8, 4, 4]
    assert annotations.notes[-1].startswith("validation: 4 of 12 videos")
    none = run_module.read_data(replace(config, val_fraction=0.0))
    assert not none.parts["val"]


def test_a_loss_that_is_not_finite_stops_with_advice(
    tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twostream.training.module.vote_loss", lambda logits, *_, **__: logits.sum() * float("nan"))
    with pytest.raises(TrainingError, match=r"the loss became nan in epoch 1, batch 1, at learning rate .* --optim.lr"):
        train(replace(tiny_config, out=str(tmp_path / "run")), say=quiet)


def test_weights_carry_over_to_the_same_and_to_other_classes(
    tiny_config: TrainConfig, tiny_run: RunFolder, tmp_path: Path
) -> None:
    said: list[str] = []
    config = with_trainer(replace(tiny_config, out=str(tmp_path / "same"), init=str(tiny_run.path)), epochs=1)
    train(config, say=said.append)
    assert any("init:" in line and str(tiny_run.path) in line for line in said)
    other = motion_shapes.generate(tmp_path / "other", "same_motion", train=4, test=2, classes=2, size=64, frames=24)
    said.clear()
    train(
        replace(config, data=str(other), out=str(tmp_path / "others"), flow=replace(config.flow, store=None)),
        say=said.append,
    )
    assert any("its classes are others" in line for line in said)
    # Without a store of its own the run shares one with its neighbours.
    assert len(list((tmp_path / "flow").glob("other-dis-*/store.json"))) == 1


def test_a_run_for_each_stream_starts_a_run_of_both(
    tiny_config: TrainConfig, tiny_run: RunFolder, tmp_path: Path
) -> None:
    config = with_trainer(replace(tiny_config, init=str(tiny_run.path)), epochs=1)
    for stream in ("spatial", "temporal"):
        train(replace(config, model=f"{stream}_resnet18", out=str(tmp_path / stream)), say=quiet)
    streams = (str(tmp_path / "spatial"), str(tmp_path / "temporal"))
    said: list[str] = []
    optim = replace(tiny_config.optim, lr=1e-12, batch_norm_momentum=1e-6)
    result = train(replace(config, init=streams, out=str(tmp_path / "both"), optim=optim), say=said.append)
    assert all(any("init:" in line and stream in line for line in said) for stream in streams)
    both = result.run.model().model.state_dict()
    for stream, kind in zip(streams, ("appearance", "motion"), strict=True):
        alone = RunFolder.open(stream).model().model.state_dict()
        assert all(name.startswith(kind) for name in alone)
        for name, tensor in alone.items():
            if name.endswith("num_batches_tracked"):
                continue
            assert torch.allclose(both[name], tensor, rtol=1e-4, atol=1e-5), name


def test_single_streams_tsn_and_accumulation_train(tiny_config: TrainConfig, tmp_path: Path) -> None:
    for model, optim in (
        ("spatial_resnet18", replace(tiny_config.optim, accumulate=2, optimizer="sgd", frozen_batch_norm="partial")),
        ("temporal_resnet18", replace(tiny_config.optim, schedule="step", label_smoothing=0.1, clip_norm=None)),
        ("tsn_resnet18", replace(tiny_config.optim, schedule="constant", lr_multipliers={"*.classifier.*": 10.0})),
    ):
        config = replace(tiny_config, model=model, out=str(tmp_path / model), optim=optim)
        result = train(with_trainer(config, epochs=1, repeats=2), say=quiet)
        assert result.run.finished, model


def test_appearance_alone_reads_its_frames_from_a_store(tiny_config: TrainConfig, tmp_path: Path) -> None:
    config = replace(
        tiny_config,
        model="spatial_resnet18",
        out=str(tmp_path / "run"),
        flow=replace(tiny_config.flow, store=str(tmp_path / "flow")),
    )
    run = train(with_trainer(config, epochs=1), say=quiet).run
    assert run.store().settings.frames
    assert len(evaluate_run(run, protocol="1-view", say=quiet).scores) == 4


def test_a_store_that_exists_says_how_flow_is_made(
    tiny_config: TrainConfig, tiny_run: RunFolder, tmp_path: Path
) -> None:
    flow = FlowConfig(store=tiny_config.flow.store, workers=1)
    config = replace(tiny_config, out=str(tmp_path / "run"), size=40, flow=flow)
    run = train(with_trainer(config, epochs=1), say=quiet).run
    assert run.config()["flow"]["resize"] == tiny_run.config()["flow"]["resize"] == 55
    assert run.config()["flow"]["estimator"] == "dis"
    other = replace(config, out=str(tmp_path / "other"), flow=replace(flow, estimator="tvl1"))
    with pytest.raises(TwostreamError, match="estimator: dis, not tvl1"):
        train(other, say=quiet)


def test_flow_is_tvl1_unless_said_otherwise_and_other_numbers_have_a_store_of_their_own(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    asked = {"tvl1": FlowConfig(), "tvl1-fast-texture1": FlowConfig(quality="fast", parameters={"texture": 1.0})}
    for place, flow in asked.items():
        config = replace(tiny_config, out=str(tmp_path / place), flow=replace(flow, workers=0))
        run = train(with_trainer(config, epochs=1), say=quiet).run
        found = run.store().settings.parameters
        assert (found["quality"], found["texture"]) == (("balanced", 0.7) if place == "tvl1" else ("fast", 1.0))
        assert len(list((tmp_path / "flow").glob(f"videos-{place}-55-*"))) == 1
        # What was trained on some flow is given the same to predict from.
        assert load_model(run.path).config["provenance"]["flow"]["parameters"] == found
    for parameters, said in (({"texture": 2.0}, "texture of tvl1"), ({"textur": 1.0}, "textur")):
        config = replace(tiny_config, out=str(tmp_path / "bad"), flow=FlowConfig(parameters=parameters))
        with pytest.raises(TwostreamError, match=said):
            train(config, say=quiet)


def test_unreadable_videos_are_named_and_too_many_refused(
    tiny_config: TrainConfig, shapes: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    for video in shapes.glob("*/*/*.mp4"):
        place = data / video.relative_to(shapes)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(video)
    damaged = next((data / "train").glob("*/*.mp4"))
    damaged.unlink()
    damaged.write_bytes(b"no video")
    config = with_trainer(
        replace(
            tiny_config,
            data=str(data),
            out=str(tmp_path / "run"),
            flow=replace(tiny_config.flow, store=str(tmp_path / "f")),
        ),
        epochs=1,
    )
    with pytest.raises(
        DataError, match=r"(?s)1 of 20 videos cannot be read, more than the accepted share of 0\.02.*" + damaged.name
    ):
        train(replace(config, unreadable=0.02), say=quiet)
    said: list[str] = []
    result = train(replace(config, out=str(tmp_path / "run2"), unreadable=0.5), say=said.append)
    assert list(result.unreadable) == [damaged.relative_to(data).as_posix()]
    assert any(line.startswith("left out: 1 of 20 videos") and damaged.name in line for line in said)
    assert len(result.run.annotations().parts["train"]) == 11


def test_short_clips_are_found_before_training(tiny_config: TrainConfig, tmp_path: Path) -> None:
    short = motion_shapes.generate(tmp_path / "short", "same_motion", train=4, test=2, classes=2, size=64, frames=11)
    config = replace(
        tiny_config,
        data=str(short),
        out=str(tmp_path / "run"),
        flow=replace(tiny_config.flow, store=str(tmp_path / "flow"), fps=12.0),
    )
    with pytest.raises(DataError, match=r"6 of 6 clips have fewer than the 11 frames .*--short_clips repeat"):
        train(with_trainer(config, epochs=1), say=quiet)
    run = train(
        with_trainer(replace(config, short_clips="repeat", out=str(tmp_path / "run2")), epochs=1), say=quiet
    ).run
    assert len(evaluate_run(run, protocol="1-view", say=quiet).scores) == 2


def test_stretches_beyond_the_end_are_found_before_training(
    tiny_config: TrainConfig, shapes: Path, tmp_path: Path
) -> None:
    videos = sorted(shapes.glob("train/*/*.mp4"))[:3]
    rows = [f"{videos[0]},a,0,0.9,train", f"{videos[1]},b,0,0.9,train", f"{videos[2]},a,100,200,test"]
    sheet = tmp_path / "sheet.csv"
    sheet.write_text("\n".join(["path,label,start,end,split", *rows]))
    config = replace(
        tiny_config,
        data=str(sheet),
        out=str(tmp_path / "run"),
        flow=replace(tiny_config.flow, store=str(tmp_path / "f")),
    )
    with pytest.raises(DataError, match=r"1 of 3 clips lie outside their videos: .*@100-200"):
        train(replace(config, short_clips="repeat"), say=quiet)


def test_classes_that_a_mirror_changes(tiny_config: TrainConfig, tmp_path: Path) -> None:
    config = with_trainer(replace(tiny_config, out=str(tmp_path / "run"), no_flip=("spinning",)), epochs=1)
    run = train(config, say=quiet).run
    scores = evaluate_run(run, protocol="25-step", say=quiet).scores
    assert scores.meta["flips"] is False
    assert scores.logits.shape[1] == 25
    with pytest.raises(UsageError, match=r"--no_flip names \['left'\], which are no classes"):
        train(replace(config, out=str(tmp_path / "other"), no_flip=("left",)), say=quiet)


def test_two_processes_train_under_torchrun(tiny_config: TrainConfig, tmp_path: Path) -> None:
    config = replace(
        with_trainer(tiny_config, devices=2, strategy="ddp", epochs=2),
        out=str(tmp_path / "run"),
        flow=replace(tiny_config.flow, store=str(tmp_path / "flow")),
    )
    file = tmp_path / "config.yaml"
    file.write_text(config.to_yaml())
    words = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    done = subprocess.run(
        [sys.executable, *words, "-m", "twostream.cli", "train", "--config", str(file)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("epoch 2/2") == 1
    run = RunFolder.open(tmp_path / "run")
    assert run.finished
    # Two processes with batches of 4 take half as many steps as one.
    assert [line.split(",")[1] for line in run.metrics_file.read_text().splitlines()[1:]] == ["2", "4"]


def test_evaluation_of_a_run(tiny_run: RunFolder) -> None:
    evaluation = evaluate_run(tiny_run, protocol="1-view", say=quiet)
    assert evaluation.file == tiny_run.path / "scores/test-1-view.npz"
    figures = evaluation.to_dict()
    assert json.loads(json.dumps(figures)) == figures
    assert set(figures) >= {"protocol", "split", "videos", "top1", "top5", "mean_class", "per_class", "scores_file"}
    assert figures["videos"] == 4
    assert set(figures["streams"]) == {"appearance", "motion"}
    assert any("each stream alone" in line for line in evaluation.lines())
    weighted = evaluate_run(tiny_run, protocol="1-view", stream_weights={"motion": 1.0}, say=quiet)
    assert weighted.to_dict()["top1"] == weighted.to_dict()["streams"]["motion"]
    assert len(evaluate_run(tiny_run, part="val", protocol="1-view", say=quiet).scores) == 4
    with pytest.raises(UsageError, match="'2-view'"):
        evaluate_run(tiny_run, protocol="2-view", say=quiet)


def test_another_split_that_was_trained_on_is_refused(tmp_path: Path, shapes: Path, tiny_config: TrainConfig) -> None:
    data = tmp_path / "data"
    for number, video in enumerate(sorted(shapes.glob("train/*/*.mp4"))):
        place = data / video.parent.name / f"v_{video.parent.name}_g{number % 3 + 1:02d}_c01.mp4"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(video)
    config = with_trainer(
        replace(
            tiny_config,
            data=str(data),
            out=str(tmp_path / "run"),
            val_fraction=0.0,
            flow=replace(tiny_config.flow, store=str(tmp_path / "flow")),
        ),
        epochs=1,
    )
    run = train(config, say=quiet).run
    test = {item.group for item in run.annotations().parts["test"]}
    for split in range(2, 9):
        other = run_module.read_data(replace(config, split=split)).parts["test"]
        if {item.group for item in other} != test:
            break
    with pytest.raises(RunError, match=f"test videos of split {split} were training videos"):
        evaluate_run(run, split=str(split), protocol="1-view", say=quiet)


def test_folders_that_are_no_runs(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such run folder; make one with: twostream train"):
        RunFolder.open(tmp_path / "nowhere")
    with pytest.raises(RunError, match="not a run folder"):
        RunFolder.open(tmp_path)
    (tmp_path / "config.yaml").write_text("- just a list")
    with pytest.raises(RunError, match="not a configuration"):
        RunFolder.open(tmp_path).config()
    (tmp_path / "config.yaml").write_text("a: [")
    with pytest.raises(RunError, match="cannot be read"):
        RunFolder.open(tmp_path).config()
    (tmp_path / "data.json").write_text("{")
    with pytest.raises(RunError, match=r"data\.json: cannot be read"):
        RunFolder.open(tmp_path).annotations()
