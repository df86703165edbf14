"""What many tests share: the place of the real videos, a small generated data set, a run trained on it."""

import os
import signal
from pathlib import Path

import pytest
import torch

from twostream.data import motion_shapes
from twostream.runs import RunFolder
from twostream.training.config import FlowConfig, OptimConfig, TrainConfig, TrainerConfig
from twostream.training.run import train

# A shell that runs the suite in the background has it ignore Ctrl-C, and so would the processes that tests start to
# stop them by it; a handler is not inherited.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = os.environ.get("TWOSTREAM_DATA")
    if not folder:
        pytest.skip("TWOSTREAM_DATA does not name the folder of real videos")
    return Path(folder)


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 20 small videos of four classes in folders train, val and test."""
    folder = tmp_path_factory.mktemp("shapes") / "videos"
    return motion_shapes.generate(folder, "same_look", train=12, val=4, test=4, size=64, frames=24, difficulty=0.2)


@pytest.fixture(scope="session")
def tiny_config(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """A configuration that trains in seconds; change `out` to run it."""
    folder = tmp_path_factory.mktemp("tiny")
    return TrainConfig(
        data=str(shapes),
        out=str(folder / "run"),
        model_args={"width": 8, "dropout": 0.5},
        size=48,
        weights="none",
        # Loads faster in every worker process than what training takes by itself.
        flow=FlowConfig(store=str(folder / "flow"), estimator="dis", workers=1),
        optim=OptimConfig(batch_size=4),
        trainer=TrainerConfig(
            epochs=3, repeats=1, accelerator="cpu", precision="32-true", tensorboard=False, checkpoint_seconds=0.0
        ),
    )


@pytest.fixture(scope="session")
def tiny_run(tiny_config: TrainConfig) -> RunFolder:
    """A finished run of `tiny_config`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return train(tiny_config, say=lambda _: None).run
    finally:
        torch.set_num_threads(threads)
