from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from twostream.cli import main
from twostream.errors import UsageError
from twostream.flow import tvl1_torch
from twostream.flow.contract import BatchEstimator, FlowError
from twostream.flow.estimators import compute, create_estimator
from twostream.flow.extract import Source, extract
from twostream.flow.store import FlowSettings, FlowStore
from twostream.flow.tvl1 import PRESETS, Tvl1
from twostream.flow.tvl1_torch import Tvl1Torch, tvl1, tvl1_sequence
from twostream.video import write_video

Luma = npt.NDArray[np.uint8]

# px: between any two of CPU kernel, float32 and float64.
MEAN, MOST = 0.001, 0.02


def texture(height: int, width: int, seed: int) -> npt.NDArray[np.float32]:
    """Smooth structure of several sizes, in 0 to 255."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width), np.float32)
    for cell, weight in ((16, 0.4), (6, 0.4), (3, 0.2)):
        coarse = rng.uniform(0, 255, (height // cell + 2, width // cell + 2)).astype(np.float32)
        image += weight * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return image


def moving(count: int, height: int, width: int, *, speed: tuple[float, float] = (1.6, -0.7), seed: int = 0) -> Luma:
    """(T, H, W) of a ground that drifts, a patch that goes against it, and the noise of a camera."""
    rng = np.random.default_rng(seed)
    ground, patch = texture(height + 60, width + 60, seed), texture(height + 60, width + 60, seed + 1)
    frames = np.empty((count, height, width), np.uint8)
    for k in range(count):
        shown = [
            cv2.warpAffine(
                layer,
                np.array([[1, 0, 30 - way * speed[0] * k], [0, 1, 30 - way * speed[1] * k]], np.float32),
                (width, height),
                flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
            )
            for layer, way in ((ground, 1), (patch, -1))
        ]
        top, left = height // 3, width // 3 + 2 * k
        shown[0][top : top + height // 3, left : left + width // 4] = shown[1][
            top : top + height // 3, left : left + width // 4
        ]
        frames[k] = np.clip(shown[0] + rng.normal(0, 2, (height, width)) + 0.5, 0, 255)
    return frames


def assert_agree(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> None:
    apart = np.abs(one.astype(np.float64) - other)
    assert apart.mean() < MEAN
    assert np.quantile(apart, 0.999) < MOST


@pytest.mark.parametrize("quality", sorted(PRESETS))
def test_fields_are_those_of_the_cpu_kernel(quality: str) -> None:
    frames = moving(3, 97, 130)
    method = Tvl1(quality=quality)
    kernel = np.stack([method(*pair) for pair in pairwise(frames)])
    single = tvl1_sequence(torch.from_numpy(frames), method)
    double = tvl1_sequence(torch.from_numpy(frames).double(), method)
    assert single.dtype == torch.float32
    assert double.dtype == torch.float64
    assert_agree(single.numpy(), kernel)
    assert_agree(double.numpy(), kernel)
    # and it is motion that they agree on
    assert np.abs(np.median(kernel, axis=(0, 2, 3)) - (1.6, -0.7)).max() < 0.1


@pytest.mark.parametrize(
    "numbers",
    [
        {"median_filtering": 3, "texture": 0.5, "derivative": 3, "blend": 0.25},
        {"pyramid": "gaussian", "scale_step": 0.5, "texture": 0.0, "derivative": 5, "blend": 0.0},
        {"median_filtering": 1, "outer_iterations": 2, "inner_iterations": 7},
        {"epsilon": 0.02, "outer_iterations": 3, "inner_iterations": 12},
        {"tau": 0.1, "lambda_": 0.3, "theta": 0.2, "nscales": 2, "warps": 2, "scale_step": 0.7},
    ],
)
def test_every_number_means_the_same(numbers: dict[str, Any]) -> None:
    frames = moving(2, 64, 80, seed=5)
    method = Tvl1(quality="fast", **numbers)
    assert_agree(tvl1_sequence(torch.from_numpy(frames), method).numpy()[0], method(frames[0], frames[1]))


@pytest.mark.parametrize("size", [(16, 16), (16, 91), (17, 33), (75, 31)])
def test_any_size(size: tuple[int, int]) -> None:
    frames = moving(2, *size, speed=(0.6, 0.3))
    method = Tvl1()
    assert_agree(tvl1_sequence(torch.from_numpy(frames), method).numpy()[0], method(frames[0], frames[1]))


@pytest.mark.parametrize("quality", ["balanced", "reference"])
def test_no_field_depends_on_its_company(quality: str) -> None:
    # One pair that rests, which stops at once, among those that move.
    frames = np.concatenate([moving(3, 48, 64), moving(2, 48, 64, seed=9)[[0, 0, 1]]])
    method = Tvl1(quality=quality)
    firsts, seconds = torch.from_numpy(frames[:-1]), torch.from_numpy(frames[1:])
    together = tvl1(firsts, seconds, method)
    for k in range(len(firsts)):
        assert torch.equal(together[k], tvl1(firsts[k : k + 1], seconds[k : k + 1], method)[0])
    assert torch.equal(together.flip(0), tvl1(firsts.flip(0), seconds.flip(0), method))
    assert torch.equal(together, tvl1_sequence(torch.from_numpy(frames), method))
    if quality == "reference":
        assert together[3].abs().max() < 1e-3


@pytest.mark.parametrize("size", [3, 5])
def test_the_median(size: int) -> None:
    field = torch.randn(2, 2, 9, 11, generator=torch.Generator().manual_seed(0))
    reach = size // 2
    windows = F.pad(field, (reach,) * 4, mode="replicate").unfold(2, size, 1).unfold(3, size, 1)
    expected = windows.reshape(2, 2, 9, 11, size * size).median(-1).values
    assert torch.equal(tvl1_torch._median(field, size), expected)


def test_compiled_loops_compute_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    # All of torch.compile but its last step, the making of machine code, which takes a minute;
    # benchmarks/flow_gpu.py --compile takes that too.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    tvl1_torch._compiled_loops.cache_clear()
    frames = torch.from_numpy(moving(3, 40, 56))
    method = Tvl1(quality="fast", nscales=2, warps=2)
    try:
        fused = tvl1_sequence(frames, method, compiled=True)
    finally:
        tvl1_torch._compiled_loops.cache_clear()
    assert (fused - tvl1_sequence(frames, method)).abs().max() < 1e-4


def test_as_an_estimator() -> None:
    frames = moving(6, 40, 56)
    method = Tvl1(quality="fast")
    on_tensors = Tvl1Torch(method, "cpu")
    assert on_tensors.name == method.name
    assert on_tensors.parameters == method.parameters
    fields = on_tensors.fields(list(frames))
    assert fields.shape == (5, 2, 40, 56)
    assert fields.dtype == np.float32
    assert_agree(fields[0], method(frames[0], frames[1]))
    # Batches end anywhere, and frames are handed over from one to the next.
    assert np.array_equal(fields, Tvl1Torch(method, "cpu", batch=2).fields(list(frames)))
    assert np.array_equal(fields[3], on_tensors(frames[3], frames[4]))
    assert on_tensors.fields([frames[0]]).shape == (0, 2, 40, 56)


def test_batches_follow_from_memory() -> None:
    estimator = Tvl1Torch(Tvl1(), "cpu")
    assert estimator.pairs(16, 16) == 128
    assert 1 <= estimator.pairs(256, 340) < 32
    assert estimator.pairs(4320, 7680) == 1
    assert Tvl1Torch(Tvl1(), "cpu", batch=7).pairs(16, 16) == 7


def test_flow_on_a_device_by_name() -> None:
    frames = moving(5, 40, 56)
    # To torch this is the CPU, but it is not the CPU kernel.
    estimator = create_estimator("tvl1", device="cpu:0", quality="fast")
    assert isinstance(estimator, BatchEstimator)
    assert not isinstance(create_estimator("tvl1"), BatchEstimator)
    fields = compute(frames, device="cpu:0", quality="fast")
    assert np.array_equal(fields, estimator.fields(list(frames)))
    assert_agree(fields, compute(frames, quality="fast"))
    with pytest.raises(FlowError, match="dis is computed by the CPU, not on 'cuda'; tvl1 can be"):
        create_estimator("dis", device="cuda")


def test_stores_of_two_devices_go_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tvl1_torch, "_MOST_PAIRS", 4)
    video = tmp_path / "clip.mp4"
    write_video(video, (np.repeat(frame[:, :, None], 3, axis=2) for frame in moving(12, 40, 56)), 10)
    settings = FlowSettings(estimator="tvl1", parameters={"quality": "fast"}, short_side=40)
    source = Source(video.name, video)
    for device in ("cpu", "cpu:0"):
        summary = extract([source], FlowStore(tmp_path / device, settings), workers=0, device=device)
        assert summary.done == (video.name,)
        with FlowStore(tmp_path / device, settings).open(video.name) as stored:
            fields = stored.fields(np.arange(stored.field_count)).astype(int)
            made_by = stored.provenance["made_by"]
        if device == "cpu":
            on_cpu = fields
            assert "device" not in made_by
        else:
            assert made_by["device"] == device
            assert made_by["torch"] == torch.__version__
            assert fields.shape == (11, 2, 40, 56)
            assert abs(fields - on_cpu).max() <= 1  # a last bit, where rounding decides
            assert (fields != on_cpu).mean() < 0.001
    # What one device has made, the other goes on with.
    other = FlowStore(tmp_path / "cpu", settings)
    assert extract([source], other, workers=0, device="cpu:0").skipped == (video.name,)
    with pytest.raises(UsageError, match="leave out the device cuda, or Ray"):
        extract([source], other, workers=1, executor="ray", device="cuda")
    with pytest.raises(FlowError, match=r"flow cannot be computed on 'nonsense'"):
        extract([source], other, workers=0, device="nonsense")
    command = ["flow", str(video), "--out", str(tmp_path / "told"), "--resize", "40", "--quality", "fast"]
    assert main([*command, "--device", "cpu:0", "--workers", "1"]) == 0
    assert "1 of 1 videos to go with tvl1 on cpu:0" in capsys.readouterr().err
    assert main(["flow", str(video), "--preview", str(tmp_path / "shown.mp4"), "--device", "cuda"]) == 2
    assert "leave out --device cuda" in capsys.readouterr().err


def zeros(*shape: int, dtype: torch.dtype = torch.uint8) -> Tensor:
    return torch.zeros(shape, dtype=dtype)


@pytest.mark.parametrize(
    ("previous", "following", "message"),
    [
        (zeros(20, 20), zeros(20, 20), r"must be \(B, H, W\) luma, uint8 or float .*, got \(20, 20\) torch.uint8"),
        (zeros(1, 20, 20), zeros(1, 20, 20, dtype=torch.int32), r"got \(1, 20, 20\) torch.int32"),
        (zeros(1, 20, 20), zeros(2, 20, 20), r"one shape, type and device, got \(1, 20, 20\) .* and \(2, 20, 20\)"),
        (zeros(1, 20, 20), zeros(1, 20, 20, dtype=torch.float32), "one shape, type and device"),
        (zeros(1, 15, 20), zeros(1, 15, 20), "frames of 20x15 px are too small for tvl1, which needs 16 px"),
    ],
)
def test_wrong_tensors_are_named(previous: Tensor, following: Tensor, message: str) -> None:
    with pytest.raises(FlowError, match=message):
        tvl1(previous, following)


def test_wrong_frames_and_devices_are_named() -> None:
    estimator = Tvl1Torch(Tvl1(), "cpu")
    frame = np.zeros((20, 24), np.uint8)
    with pytest.raises(FlowError, match="one frame or more, got none"):
        estimator.fields([])
    with pytest.raises(FlowError, match="two frames of one size, got 24x20 and 22x20 px"):
        estimator.fields([frame, frame[:, :22]])
    with pytest.raises(FlowError, match=r"takes luma frames \(H, W\) uint8"):
        estimator(frame, frame.astype(np.float32))
    with pytest.raises(FlowError, match=r"with warm_start=4 each field waits .* on 'cpu' .* take warm_start=0"):
        Tvl1Torch(Tvl1(warm_start=4), "cpu")
    with pytest.raises(FlowError, match="at least 1 pair, got 0"):
        Tvl1Torch(Tvl1(), "cpu", batch=0)
    for device in ("meta:x", "nonsense"):
        with pytest.raises(FlowError, match=f"flow cannot be computed on '{device}' .*; take cpu"):
            Tvl1Torch(Tvl1(), device)


def test_memory_that_does_not_suffice_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(tvl1_torch, "_pyramid", fail)
    with pytest.raises(FlowError, match=r"3 pairs of 64x64 px do not fit .* of cpu, at about 2 MiB a pair"):
        tvl1(zeros(3, 64, 64), zeros(3, 64, 64))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda() -> None:
    frames = moving(4, 97, 130)
    for quality in PRESETS:
        method = Tvl1(quality=quality)
        kernel = np.stack([method(*pair) for pair in pairwise(frames)])
        assert_agree(Tvl1Torch(method, "cuda").fields(list(frames)), kernel)
