"""What every network of MODELS promises; a network added to the registry is held to it without a line here."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from twostream.checkpoint import load_model, save_model
from twostream.clip import InputSpec, ShapeError, vote_count
from twostream.models.contract import VideoModel
from twostream.models.registry import MODELS, create_model, known_numbers, list_models

K = 4
# Small enough for two cores, where a network has such numbers.
SMALL = {"width": 4, "size": 64}


def batch(model: VideoModel, B: int = 2, size: int = 64) -> tuple[Tensor, Tensor]:
    """uint8 clips as the data set gives them: a stream that is not read has no steps."""
    spec = model.spec
    g = torch.Generator().manual_seed(11)
    T = spec.steps if "appearance" in spec.streams else 0
    S = spec.snippets if "motion" in spec.streams else 0
    rgb = torch.randint(0, 256, (B, T, 3, size, size), dtype=torch.uint8, generator=g)
    flow = torch.randint(64, 192, (B, S, spec.flow_channels, size, size), dtype=torch.uint8, generator=g)
    return rgb, flow


@pytest.fixture(scope="module", params=list_models())
def model(request: pytest.FixtureRequest) -> Iterator[VideoModel]:
    """Every network once, all its parameters nudged away from zeros and ones, in test mode and float64."""
    name = request.param
    numbers = {key: value for key, value in SMALL.items() if key in known_numbers(name)}
    torch.manual_seed(3)
    network = create_model(name, num_classes=K, **numbers).double().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    yield network
    network.zero_grad()


def test_answers_with_its_votes(model: VideoModel) -> None:
    rgb, flow = batch(model)
    with torch.no_grad():
        logits = model(rgb, flow)
        assert logits.shape == (2, vote_count(model.votes), K)
        assert logits.isfinite().all()
        assert torch.equal(logits, model(rgb, flow)), "test mode must be deterministic"
        assert torch.equal(logits, model(rgb.double(), flow.float())), "uint8 and float are the same clip"
        one = model(rgb[1:], flow[1:])
        torch.testing.assert_close(logits[1:], one, rtol=1e-9, atol=1e-9, msg="a clip's answer depends on its batch")
    assert all(count > 0 for _, count in model.votes)


def test_gradients_reach_every_parameter(model: VideoModel) -> None:
    logits = model(*batch(model))
    weights = torch.arange(1.0, logits.numel() + 1, dtype=logits.dtype).reshape(logits.shape)
    (logits * weights.sin()).sum().backward()
    idle = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not idle
    model.zero_grad()


def test_every_stream_shows_its_last_map_and_the_answer_hangs_on_it(model: VideoModel) -> None:
    maps: dict[str, Tensor] = {}
    hooks = []
    for stream, backbone in model.backbones().items():

        def keep(_: nn.Module, __: object, out: Tensor, stream: str = stream) -> None:
            assert stream not in maps, "called once for all steps"
            maps[stream] = out

        hooks.append(backbone.last_unit.register_forward_hook(keep))
    try:
        logits = model(*batch(model))
    finally:
        for hook in hooks:
            hook.remove()
    assert tuple(maps) == model.spec.streams
    for stream, found in maps.items():
        steps = model.spec.steps if stream == "appearance" else model.spec.snippets
        assert found.shape[:2] == (2 * steps, model.backbones()[stream].taps[-1].channels)
        assert found.shape[2:] == (2, 2)
    slopes = torch.autograd.grad(logits[..., 1].sum(), list(maps.values()))
    assert all(slope.abs().sum() > 0 for slope in slopes)


def test_spec_and_identity(model: VideoModel) -> None:
    assert InputSpec.from_dict(model.spec.to_dict()) == model.spec
    assert model.num_classes == K
    assert model.name in MODELS
    assert set(model.numbers) == set(known_numbers(model.name))
    assert isinstance(model.backbone_identity, str)
    assert model.backbone_identity


def test_checkpoint_is_bit_equal(model: VideoModel, tmp_path: Path) -> None:
    network = model.float()
    try:
        save_model(tmp_path, network, classes=["a", "b", "c", "d"])
        loaded = load_model(tmp_path).model
        assert type(loaded) is type(network)
        assert (loaded.spec, loaded.votes, loaded.numbers) == (network.spec, network.votes, network.numbers)
        state, again = network.state_dict(), loaded.state_dict()
        assert list(state) == list(again)
        assert all(torch.equal(state[name], again[name]) for name in state)
        with torch.no_grad():
            assert torch.equal(network(*batch(model)), loaded(*batch(model)))
    finally:
        network.double()


def test_misshapen_clips_are_refused(model: VideoModel) -> None:
    rgb, flow = batch(model)
    with pytest.raises(ShapeError):
        model(rgb[:, 0], flow[:, 0]) if rgb.shape[1] and flow.shape[1] else model(rgb[:, :0], flow[:, :0])
    if "motion" in model.spec.streams:
        with pytest.raises(ShapeError, match="flow"):
            model(rgb, flow[:, :, :-2])
    if "appearance" in model.spec.streams:
        with pytest.raises(ShapeError, match="rgb"):
            model(rgb[:, :, :2], flow)
    with pytest.raises(ShapeError, match="uint8 or floating point"):
        model(rgb.long(), flow.long())
