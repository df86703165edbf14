"""The second implementation against arithmetic by hand, and the package's networks against it."""

import numpy as np
import pytest
import torch
from torch import Tensor

import st_resnet_reference as reference
from twostream.models.contract import VideoModel
from twostream.models.registry import create_model


def clips(T: int, height: int, width: int, *, B: int = 1, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rgb = torch.randint(0, 256, (B, T, 3, height, width), dtype=torch.uint8, generator=generator)
    flow = torch.randint(0, 256, (B, T, 20, height, width), dtype=torch.uint8, generator=generator)
    return rgb, flow


def test_a_filter_over_time_by_loops() -> None:
    random = np.random.default_rng(0)
    B, T, C, D, H, W = 2, 5, 3, 2, 2, 3
    x = random.normal(size=(B, T, C, H, W))
    value = random.normal(size=(1, 3, C, D))
    bias = random.normal(size=(D, 1))
    wanted = np.zeros((B, T, D, H, W))
    for b, t, co, i, j in np.ndindex(*wanted.shape):
        total = bias[co, 0]
        for tap, offset in enumerate((-1, 0, 1)):
            if 0 <= t + offset < T:
                for ci in range(C):
                    total += value[0, tap, ci, co] * x[b, t + offset, ci, i, j]
        wanted[b, t, co, i, j] = total
    got = reference.conv_over_time(torch.from_numpy(x).flatten(0, 1), value, T, bias)
    np.testing.assert_allclose(got.numpy().reshape(wanted.shape), wanted, rtol=0, atol=1e-14)


def test_a_filter_over_space_by_loops() -> None:
    random = np.random.default_rng(1)
    x, value = random.normal(size=(1, 2, 5, 4)), random.normal(size=(3, 3, 2, 3))
    wanted = np.zeros((1, 3, 3, 2))
    for co, i, j in np.ndindex(3, 3, 2):
        for ci, row, column in np.ndindex(2, 3, 3):
            y, z = 2 * i + row - 1, 2 * j + column - 1
            if 0 <= y < 5 and 0 <= z < 4:
                wanted[0, co, i, j] += value[row, column, ci, co] * x[0, ci, y, z]
    got = reference.conv(torch.from_numpy(x), value, stride=2, padding=1)
    np.testing.assert_allclose(got.numpy(), wanted, rtol=0, atol=1e-14)


def test_batch_norm_divides_by_sigma_itself() -> None:
    moments = np.array([[1.0, 2.0], [0.0, 0.5]])
    got = reference.batch_norm(
        torch.tensor([3.0, 1.0]).double().reshape(1, 2, 1, 1), np.array([1.0, 3.0]), np.array([0.25, 0.0]), moments
    )
    assert got.flatten().tolist() == [1.25, 6.0]


def test_pools() -> None:
    # Rows and columns in steps of two; the last window hangs over an even edge, and a negative map stays negative.
    x = -torch.arange(20.0).double().reshape(1, 1, 4, 5)
    assert reference.pool1(x).tolist() == [[[[-0.0, -2.0], [-10.0, -12.0]]]]
    assert reference.pool1(torch.zeros(1, 1, 112, 85)).shape == (1, 1, 56, 42)
    steps = torch.tensor([3.0, 9, 1, 2, 0, 7, 1, 1, 1, 1, 5]).double().reshape(11, 1, 1, 1)
    assert reference.max_over_time(steps, 11, 5, 2).flatten().tolist() == [9, 7, 7, 5]
    assert reference.max_over_time(torch.zeros(50, 1, 1, 1), 25, 5, 2).shape[0] == 2 * 11
    x = torch.rand(1, 1, 8, 11, dtype=torch.float64)
    assert reference.pool5(x).shape == (1, 1, 2, 5)
    torch.testing.assert_close(reference.pool5(x)[0, 0, 1, 4], x[0, 0, 1:8, 4:11].mean())
    torch.testing.assert_close(reference.pool5(x[..., :3, :2])[0, 0, 0, 0], x[0, 0, :3, :2].mean())


@pytest.mark.parametrize("multiply", [False, True], ids=["add", "multiply"])
def test_motion_enters_the_branch_of_the_second_unit_and_nothing_else(multiply: bool) -> None:
    """With all residual branches off but that of appearance's res2b, the network can be written out in lines."""
    arrays = reference.random_arrays(seed=3, width=2, classes=4)
    for name in arrays:
        if "_branch2c_" in name and name.startswith("bn") and "moments" not in name:
            arrays[name] *= name.startswith("bn2b") and name.endswith("spatial")
    rgb, flow = clips(3, 40, 33)

    def convolved(x: Tensor, name: str, stride: int = 1) -> Tensor:
        return reference.conv(x, arrays[name], stride=stride)

    def normed(x: Tensor, name: str) -> Tensor:
        return reference.batch_norm(
            x,
            *(
                arrays[name.replace("_s", f"_{kind}_s").replace("_t", f"_{kind}_t")]
                for kind in ("mult", "bias", "moments")
            ),
        )

    def stem(x: Tensor, s: str) -> Tensor:
        x = reference.conv(x, arrays[f"conv1_filter_{s}"], arrays[f"conv1_bias_{s}"], stride=2, padding=3)
        return reference.pool1(normed(x, f"bn_conv1_{s}").clamp(min=0))

    a = stem(rgb[0].double() - torch.tensor(reference.RGB_MEAN, dtype=torch.float64).reshape(3, 1, 1), "spatial")
    m = stem(flow[0].double() - 128, "temporal")
    a = normed(convolved(a, "res2a_branch1_filter_spatial"), "bn2a_branch1_spatial")
    m = normed(convolved(m, "res2a_branch1_filter_temporal"), "bn2a_branch1_temporal")
    assert (a < 0).any(), "the sum before the ReLU differs from the one after it"
    x = a * m.clamp(min=0) if multiply else a + m.clamp(min=0)
    x = reference.conv_over_time(x, arrays["res2b_branch2a_filter_spatial"], 3)
    x = normed(x, "bn2b_branch2a_spatial").clamp(min=0)
    x = reference.conv(x, arrays["res2b_branch2b_filter_spatial"], padding=1)
    x = normed(x, "bn2b_branch2b_spatial").clamp(min=0)
    x = normed(reference.conv_over_time(x, arrays["res2b_branch2c_filter_spatial"], 3), "bn2b_branch2c_spatial")
    a, m = (a.clamp(min=0) + x).clamp(min=0), m.clamp(min=0)
    wanted = []
    for y, s in ((a, "spatial"), (m, "temporal")):
        for k in (3, 4, 5):
            y = normed(convolved(y, f"res{k}a_branch1_filter_{s}", 2), f"bn{k}a_branch1_{s}").clamp(min=0)
        logits = reference.conv(y.mean((2, 3), keepdim=True), arrays[f"fc1000_filter_{s}"], arrays[f"fc1000_bias_{s}"])
        wanted.append(logits[:, :, 0, 0])
    got = reference.st_resnet(arrays, rgb, flow, multiply=multiply)
    torch.testing.assert_close(got[0], torch.cat(wanted), rtol=1e-12, atol=1e-12)


def test_the_streams_depend_on_what_they_should() -> None:
    arrays = reference.random_arrays(seed=4, width=4, classes=5)
    rgb, flow = clips(5, 48, 40)
    whole = reference.st_resnet(arrays, rgb, flow, pool=(5, 2))
    assert whole.shape == (1, 2, 5)
    other_rgb = reference.st_resnet(arrays, 255 - rgb, flow, pool=(5, 2))
    assert torch.equal(whole[:, 1], other_rgb[:, 1])
    assert not torch.allclose(whole[:, 0], other_rgb[:, 0])
    other_flow = reference.st_resnet(arrays, rgb, 255 - flow, pool=(5, 2))
    assert not torch.allclose(whole[:, 0], other_flow[:, 0])
    assert not torch.allclose(whole[:, 1], other_flow[:, 1])
    # Without filters over time and injections the steps are images of their own, and motion is an ordinary ResNet.
    flat = reference.random_arrays(seed=5, width=4, classes=5, temporal=False)
    got = reference.st_resnet(flat, rgb, flow)
    torch.testing.assert_close(got[0, 5:], reference.base_stream(flat, flow[0], 128.0, "temporal"))


# the package's networks -----------------------------------------------------------------------------------------------


def state_of(arrays: reference.Arrays) -> dict[str, Tensor]:
    """The arrays by the package's names and in its layouts, in float64; written apart from the package's converter."""
    state: dict[str, Tensor] = {}
    for name, array in arrays.items():
        part = "appearance" if "_spatial" in name else "motion"
        name = name.replace("_spatial", "").replace("_temporal", "")
        value = torch.from_numpy(array.astype(np.float64))
        layer, _, kind = name.rpartition("_")
        if layer == "fc1000":
            place = f"{part}.classifier"
        elif layer == "conv1":
            place = f"{part}.backbone.conv1"
        elif layer == "bn_conv1":
            place = f"{part}.backbone.bn1"
        else:
            unit = f"{part}.backbone.layer{int(name[name.index('_') - 2]) - 1}.{ord(name[name.index('_') - 1]) - 97}"
            norm = name.startswith("bn")
            if "Time" in name:
                place = f"{unit}.temporal"
            elif "branch1" in name:
                place = f"{unit}.downsample.{int(norm)}"
            else:
                place = f"{unit}.{'bn' if norm else 'conv'}{'abc'.index(name[name.index('branch2') + 7]) + 1}"
        if kind == "moments":
            state[f"{place}.running_mean"] = value[:, 0]
            state[f"{place}.running_var"] = value[:, 1] ** 2 - 1e-5
            state[f"{place}.num_batches_tracked"] = torch.tensor(0)
        elif kind in ("filter", "f"):
            weight = torch.einsum("hwio->oihw", value)
            if layer == "fc1000":
                weight = weight[:, :, 0, 0]
            elif value.shape[:2] == (1, 3):
                weight = torch.einsum("oiht->oith", weight)[..., None]
            state[f"{place}.weight"] = weight
        else:
            state[f"{place}.{'weight' if kind == 'mult' else 'bias'}"] = value.flatten()
    return state


def network(name: str, arrays: reference.Arrays, **numbers: object) -> VideoModel:
    K, width = arrays["fc1000_filter_spatial"].shape[3], arrays["conv1_filter_spatial"].shape[3]
    model = create_model(name, num_classes=K, layout="caffe", width=width, **numbers).double().eval()
    model.load_state_dict(state_of(arrays), strict=True)
    return model


def agree(model: VideoModel, rgb: Tensor, flow: Tensor, wanted: Tensor) -> None:
    with torch.no_grad():
        got = model(rgb, flow)
    assert got.shape == wanted.shape
    assert wanted.abs().max() > 0.1, "an answer of nothing would agree with anything"
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("T", "height", "width"), [(5, 64, 64), (7, 80, 56)], ids=["64x64", "80x56"])
def test_st_resnet50_stage_1(T: int, height: int, width: int) -> None:
    arrays = reference.random_arrays(seed=T)
    rgb, flow = clips(T, height, width)
    agree(network("st_resnet50", arrays), rgb, flow, reference.st_resnet(arrays, rgb, flow))


def test_st_resnet50_stage_2() -> None:
    arrays = reference.random_arrays(seed=8, classes=51)
    rgb, flow = clips(11, 64, 64)
    wanted = reference.st_resnet(arrays, rgb, flow, pool=(5, 2))
    assert wanted.shape == (1, 8, 51)
    agree(network("st_resnet50", arrays, temporal_pool=5), rgb, flow, wanted)


def test_st_mulnet50() -> None:
    arrays = reference.random_arrays(seed=9, temporal=False, extra=True)
    rgb, flow = clips(6, 64, 56)
    wanted = reference.st_resnet(arrays, rgb, flow, pool=(5, 1), multiply=True)
    assert wanted.shape == (1, 4, 101)
    agree(network("st_mulnet50", arrays), rgb, flow, wanted)


@pytest.mark.parametrize("T", [5, 12, 25])
def test_whole_frames_of_any_size_and_batches(T: int) -> None:
    """Maps larger than 7x7 are pooled at every place and their logits averaged, as at test time; narrow networks."""
    arrays = reference.random_arrays(seed=T, width=2, classes=7)
    height, width = (256, 340) if T == 5 else (66, 71)
    rgb, flow = clips(T, height, width, B=1 if T == 5 else 2)
    wanted = reference.st_resnet(arrays, rgb, flow, pool=(5, 2))
    agree(network("st_resnet50", arrays, temporal_pool=5), rgb, flow, wanted)
    extra = reference.random_arrays(seed=T, width=2, classes=7, temporal=False, extra=True)
    wanted = reference.st_resnet(extra, rgb, flow, pool=(5, 1), multiply=True)
    agree(network("st_mulnet50", extra), rgb, flow, wanted)
