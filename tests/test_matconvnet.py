"""The authors' MatConvNet files: recognised, converted, and the same answers as the second implementation of them."""

import json
import struct
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from torch import Tensor

import matconvnet_files as files
import st_resnet_reference as reference
from twostream import cli
from twostream.checkpoint import load_model
from twostream.files import sha256_of
from twostream.models.contract import VideoModel
from twostream.models.registry import create_model
from twostream.models.resnet import ResNet
from twostream.weights.catalog import resolve_weights
from twostream.weights.class_names import HMDB51, UCF101
from twostream.weights.dagnn import read_dag
from twostream.weights.mat_file import Unread, read_mat
from twostream.weights.matconvnet import Conversion, join, recognise
from twostream.weights.strict import WeightsError, load_strict

Printed = pytest.CaptureFixture[str]
WIDTH, K = 4, 6


def clips(T: int, height: int = 64, width: int = 48) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(T)
    rgb = torch.randint(0, 256, (1, T, 3, height, width), dtype=torch.uint8, generator=generator)
    return rgb, torch.randint(0, 256, (1, T, 20, height, width), dtype=torch.uint8, generator=generator)


def stream(seed: int, channels: int, **numbers: Any) -> dict[str, Any]:
    given = {"width": WIDTH, "classes": K, "temporal": False} | numbers
    return reference.random_arrays(seed=seed, streams={"": channels}, **given)


def converted(path: Path) -> Conversion:
    return recognise(read_dag(path))


def built(conversion: Conversion) -> VideoModel:
    """The network in float64, so that nothing but the conversion is compared."""
    model = create_model(conversion.model, num_classes=conversion.num_classes, **conversion.numbers).double().eval()
    load_strict(model, conversion.state, source="the file")
    return model


def read_back(path: Path) -> dict[str, Any]:
    """A file's own parameters, by scipy or h5py alone."""
    if path.read_bytes()[:10] == b"MATLAB 7.3":
        with h5py.File(path) as file:
            names, values = (file["params"][key][:, 0] for key in ("name", "value"))
            return {
                "".join(map(chr, np.ravel(file[name][()]))): file[value][()].T
                for name, value in zip(names, values, strict=True)
            }
    read = scipy.io.loadmat(path)
    params = read["net"]["params"][0, 0] if "net" in read else read["params"]
    return {str(row["name"][0]): row["value"] for row in params[0]}


def closely(got: Tensor, wanted: Tensor) -> None:
    assert wanted.abs().max() > 0.1
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-10)


@pytest.fixture(scope="module")
def rgb_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base") / "ucf101-img-resnet50-split1-dr0.mat"
    return files.write(path, {"net": files.net(files.base_layers(), stream(0, 3)), "state": {"x": np.ones((2, 2))}})


@pytest.fixture(scope="module")
def flow_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base") / "ucf101-resnet50-split1-dr0.8.mat"
    mean = np.full((1, 1, 20), 128.0)
    net = files.net(files.base_layers(dropout=0.8), stream(1, 20), normalization={"averageImage": mean})
    return files.write(path, net, compressed=True)  # the fields at top level


@pytest.fixture(scope="module")
def names_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("names") / "classInd.txt"
    path.write_text("".join(f"{i + 1} Class{i}\n" for i in range(K)), "utf-8")
    return path


def test_an_rgb_base_stream(rgb_file: Path) -> None:
    conversion = converted(rgb_file)
    assert (conversion.kind, conversion.model) == ("RGB base stream, ResNet-50", "spatial_resnet50")
    assert conversion.numbers == {"layout": "caffe", "width": WIDTH, "dropout": 0.0}
    assert (conversion.num_classes, conversion.classes, conversion.notes) == (K, (), ())
    rgb, flow = clips(1)
    wanted = reference.base_stream(read_back(rgb_file), rgb[0], reference.RGB_MEAN)
    closely(built(conversion)(rgb, flow)[0], wanted)


def test_a_flow_base_stream(flow_file: Path) -> None:
    conversion = converted(flow_file)
    assert (conversion.kind, conversion.model) == ("flow base stream, ResNet-50", "temporal_resnet50")
    assert conversion.numbers == {"layout": "caffe", "width": WIDTH, "dropout": 0.8, "flow_length": 10}
    rgb, flow = clips(1)
    closely(built(conversion)(rgb, flow)[0], reference.base_stream(stream(1, 20), flow[0], 128.0))


def test_two_base_streams_make_one_model(rgb_file: Path, flow_file: Path) -> None:
    rgb, flow = clips(1)
    wanted = torch.cat(
        [
            reference.base_stream(stream(0, 3), rgb[0], reference.RGB_MEAN),
            reference.base_stream(stream(1, 20), flow[0], 128.0),
        ]
    )
    first, second = converted(rgb_file), converted(flow_file)
    for pair in ((first, second), (second, first)):
        conversion = join(*pair)
        assert conversion.model == "two_stream_resnet50"
        assert (conversion.numbers["dropout"], conversion.numbers["motion_dropout"]) == (0.0, 0.8)
        closely(built(conversion)(rgb, flow)[0], wanted)
    with pytest.raises(WeightsError, match=r"an RGB base stream and the other a flow base stream; these are RGB base"):
        join(first, first)


def test_base_streams_that_do_not_go_together(rgb_file: Path, tmp_path: Path) -> None:
    wider = files.net(files.base_layers(), stream(1, 20, width=8))
    with pytest.raises(WeightsError, match="different backbones: resnet50-caffe-width4 and resnet50-caffe-width8"):
        join(converted(rgb_file), converted(files.write(tmp_path / "wider.mat", wider)))
    more = files.net(files.base_layers(), stream(1, 20, classes=7))
    with pytest.raises(WeightsError, match="different numbers of classes: 6 and 7"):
        join(converted(rgb_file), converted(files.write(tmp_path / "more.mat", more)))


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_an_image_network_gives_weights_to_start_from(version: str, tmp_path: Path, capsys: Printed) -> None:
    arrays = stream(2, 3, classes=1000)
    net = files.net(files.image_layers(), arrays, normalization={"averageImage": np.ones((4, 4, 3))})
    path = files.write(tmp_path / "imagenet-resnet-50-dag.mat", net, version=version)
    out = tmp_path / "weights"
    assert cli.main(["convert", str(path), str(out)]) == 0
    said = capsys.readouterr().out
    assert "image network, ResNet-50" in said
    assert "was trained on inputs less 1.0, 1.0, 1.0; here 123.2, 115.9, 103.1" in said
    assert f"twostream train --weights {out} --model-args.layout caffe --model-args.width 4" in said
    backbone = ResNet(50, layout="caffe", width=WIDTH)
    resolved = resolve_weights(out, backbone.identity)
    assert resolved.state is not None
    load_strict(backbone, resolved.state, source="the folder")
    rgb, _ = clips(2)
    x = rgb[0].double() - torch.tensor(reference.RGB_MEAN, dtype=torch.float64).reshape(3, 1, 1)
    with torch.no_grad():
        features = backbone.double().eval()(x).mean((2, 3))
    logits = features @ torch.from_numpy(arrays["fc1000_filter"][0, 0]).double()
    wanted = reference.base_stream(arrays, rgb[0], reference.RGB_MEAN)
    # The weights are single precision, and so is the variance that sigma became.
    torch.testing.assert_close(logits + torch.from_numpy(arrays["fc1000_bias"][0]), wanted, rtol=1e-5, atol=1e-5)
    with pytest.raises(WeightsError, match=r"holds no resnet50-caffe\.safetensors"):
        resolve_weights(out, "resnet50-caffe")
    assert cli.main(["convert", str(path), str(tmp_path / "other"), "--classes", "x.txt"]) == 2
    assert "--classes goes with a video network" in capsys.readouterr().err


def test_deeper_image_networks_have_other_letters_and_no_bias(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    letters = ("a", *(f"b{i}" for i in range(1, 23)))
    units = {2: tuple("abc"), 3: ("a", "b1", "b2", "b3"), 4: letters, 5: tuple("abc")}
    monkeypatch.setattr(reference, "UNITS", units)
    arrays = stream(3, 3)
    del arrays["conv1_bias"]
    net = files.net(files.base_layers(units=units, conv1_bias=False), arrays)
    conversion = converted(files.write(tmp_path / "deep.mat", net))
    assert conversion.model == "spatial_resnet101"
    rgb, flow = clips(1)
    zero = {"conv1_bias": np.zeros(WIDTH)}
    closely(built(conversion)(rgb, flow)[0], reference.base_stream(arrays | zero, rgb[0], reference.RGB_MEAN))


def test_the_command_writes_a_model_folder(rgb_file: Path, names_file: Path, tmp_path: Path, capsys: Printed) -> None:
    out = tmp_path / "model"
    words = ["convert", str(rgb_file), str(out), "--classes", str(names_file)]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert f"{rgb_file}: RGB base stream, ResNet-50" in said
    assert f"{out}: spatial_resnet50, " in said
    assert "6 classes: as classInd.txt names them" in said
    loaded = load_model(out)
    assert loaded.classes == tuple(f"Class{i}" for i in range(K))
    provenance = loaded.config["provenance"]
    assert provenance["files"] == [{"file": rgb_file.name, "sha256": sha256_of(rgb_file)}]
    assert provenance["flow"]["estimator"] == "tvl1", "prediction computes flow as the authors did"
    assert provenance["flow"]["parameters"]["quality"] == "papers"
    assert provenance["flow"]["short_side"] == 256
    state = converted(rgb_file).state
    for name, tensor in loaded.model.state_dict().items():
        assert torch.equal(tensor, state[name].to(tensor.dtype))
    assert cli.main(words) == 1
    assert f"{out}: is there already and not an empty folder" in capsys.readouterr().err


def test_the_command_joins_two_files(
    rgb_file: Path, flow_file: Path, names_file: Path, tmp_path: Path, capsys: Printed
) -> None:
    words = ["convert", str(flow_file), str(rgb_file), str(tmp_path / "model"), "--classes", str(names_file), "--json"]
    assert cli.main(words) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["model"] == "two_stream_resnet50"
    assert [entry["file"] for entry in report["files"]] == [flow_file.name, rgb_file.name]
    assert load_model(tmp_path / "model").model.votes == (("appearance", 1), ("motion", 1))
    assert cli.main(["convert", *[str(rgb_file)] * 3, str(tmp_path / "three")]) == 2
    assert "one FILE.mat, or two base streams, and then OUT; got 3 files" in capsys.readouterr().err


# both streams ---------------------------------------------------------------------------------------------------------


def two_streams(seed: int, **numbers: Any) -> dict[str, Any]:
    return reference.random_arrays(seed=seed, **({"width": WIDTH, "classes": K} | numbers))


MULNET: Mapping[str, Any] = {"temporal": False, "extra": True}
MEAN = {"averageImage": np.array([128.0] * 20 + list(reference.RGB_MEAN)).reshape(1, 1, 23)}


def test_st_resnet_stage_1(tmp_path: Path) -> None:
    arrays = two_streams(10)
    net = files.net(files.stage1_layers(), arrays, normalization=MEAN)
    path = files.write(tmp_path / "ucf101-ST-ResNet50-split=1.mat", {"net": net})
    conversion = converted(path)
    assert (conversion.kind, conversion.model) == ("ST-ResNet, stage 1, ResNet-50", "st_resnet50")
    assert (conversion.numbers["temporal_pool"], conversion.notes) == (None, ())
    rgb, flow = clips(5)
    closely(built(conversion)(rgb, flow), reference.st_resnet(read_back(path), rgb, flow))


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_st_resnet_stage_2(version: str, tmp_path: Path) -> None:
    arrays = two_streams(11)
    net = files.net(files.pooled(files.stage1_layers()), arrays, normalization=MEAN)
    path = files.write(tmp_path / "final.mat", net, version=version)
    conversion = converted(path)
    assert (conversion.kind, conversion.model) == ("ST-ResNet, stage 2, ResNet-50", "st_resnet50")
    assert (conversion.numbers["temporal_pool"], conversion.numbers["temporal_pool_stride"]) == (5, 2)
    rgb, flow = clips(11)
    wanted = reference.st_resnet(read_back(path), rgb, flow, pool=(5, 2))
    assert wanted.shape == (1, 8, K)
    closely(built(conversion)(rgb, flow), wanted)


def test_st_mulnet(tmp_path: Path) -> None:
    arrays = two_streams(12, **MULNET)
    layers = files.pooled(files.stage1_layers(kind="Mul", filters="extra", dropout=0.8), stride=1)
    path = files.write(tmp_path / "mul.mat", {"net": files.net(layers, arrays)})
    conversion = converted(path)
    assert (conversion.kind, conversion.model) == ("ST-MulNet, ResNet-50", "st_mulnet50")
    assert (conversion.numbers["temporal_pool"], conversion.numbers["temporal_pool_stride"]) == (5, 1)
    assert (conversion.numbers["dropout"], conversion.numbers["motion_dropout"]) == (0.0, 0.8)
    rgb, flow = clips(6)
    wanted = reference.st_resnet(read_back(path), rgb, flow, pool=(5, 1), multiply=True)
    closely(built(conversion)(rgb, flow), wanted)


def test_st_mulnets_filters_bear_the_name_of_the_layer_before_them(tmp_path: Path) -> None:
    """Some base streams called that ReLU otherwise."""
    arrays, layers = two_streams(12, **MULNET), files.stage1_layers(kind="Mul", filters="extra")

    def other(name: str) -> str:
        return name.replace("res2b_branch2b_relu", "res2b_relu_branch2b_relu")

    for one in layers:
        one["params"] = tuple(map(other, one["params"]))
    renamed = {other(name): array for name, array in arrays.items()}
    conversion = converted(files.write(tmp_path / "x.mat", files.net(layers, renamed)))
    wanted = converted(
        files.write(tmp_path / "y.mat", files.net(files.stage1_layers(kind="Mul", filters="extra"), arrays))
    )
    assert all(torch.equal(tensor, wanted.state[name]) for name, tensor in conversion.state.items())


def test_the_command_converts_full_width(tmp_path: Path, capsys: Printed) -> None:
    """58,624,522 parameters, and HMDB51's and UCF101's names."""
    arrays = two_streams(13, width=64, classes=101)
    net = files.net(files.pooled(files.stage1_layers()), arrays)
    path, out = files.write(tmp_path / "final.mat", {"net": net}), tmp_path / "model"
    assert cli.main(["convert", str(path), str(out)]) == 0
    said = capsys.readouterr().out
    assert f"{out}: st_resnet50, 58,624,522 parameters, 101 classes: UCF101's, in the order of classInd.txt" in said
    loaded = load_model(out)
    assert loaded.model.spec.steps == 11
    assert loaded.config["numbers"]["layout"] == "caffe"
    rgb, flow = clips(5, 32, 32)
    with torch.no_grad():
        got = loaded.model(rgb, flow)
    wanted = reference.st_resnet(read_back(path), rgb, flow, pool=(5, 2))
    torch.testing.assert_close(got.double(), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("layers", "numbers", "said"),
    [
        pytest.param(
            files.stage1_layers(sends=(2, 3, 4)),
            {},
            r"are those of ST-ResNet, its layers are not: the layer of res5b_branch2a_filter_spatial reads "
            r"ReLU\(Sum\(.*wanted Sum\(",
            id="three places",
        ),
        pytest.param(
            files.stage1_layers(kind="Mul"),
            {},
            "two streams of ResNet-50 on 3 and 20 channels, with motion that enters by multiply, inflated filters and "
            "no extra ones over time: neither ST-ResNet-50",
            id="products and inflated filters",
        ),
        pytest.param(
            files.stage1_layers(filters="extra"),
            MULNET,
            "enters by add, no inflated filters and extra ones",
            id="sums and extra filters",
        ),
        pytest.param(
            files.stage1_layers(filters="none"),
            {"temporal": False},
            "enters by add, no inflated filters and no extra ones",
            id="no filters over time",
        ),
        pytest.param(
            files.pooled(files.stage1_layers(), method="avg"),
            {},
            r"Pooling\(method='avg', length=5, stride=2\) over time; known is the maximum",
            id="mean over time",
        ),
        pytest.param(
            files.pooled(files.stage1_layers(), length=np.inf),
            {},
            r"length='inf', stride=2\) over time",
            id="all steps",
        ),
        pytest.param(
            files.stage1_layers(),
            {"streams": {"spatial": 3, "temporal": 9}},
            "reads 9 channels; u and v make an even number",
            id="odd channels",
        ),
        pytest.param(
            files.stage1_layers(),
            {"streams": {"spatial": 3}},
            "one stream of two, or parameters of neither: conv1_filter_spatial",
            id="half",
        ),
    ],
)
def test_other_connections_of_two_streams_are_refused(
    layers: list[files.Net], numbers: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path = files.write(tmp_path / "x.mat", files.net(layers, two_streams(14, **({"width": 2} | numbers))))
    with pytest.raises(WeightsError, match=said):
        recognise(read_dag(path))


def test_more_connections_of_two_streams_are_refused(tmp_path: Path) -> None:
    def refused(said: str, arrays: Mapping[str, Any], layers: list[files.Net]) -> None:
        with pytest.raises(WeightsError, match=said):
            recognise(read_dag(files.write(tmp_path / "x.mat", files.net(layers, arrays))))

    arrays = two_streams(15, width=2)
    both = files.stage1_layers()  # and appearance into motion
    name = "res2a_relu_temporal_sum"
    both.append(files.layer(name, "Sum", ["res2ax_spatial", "res2a_temporal"], name))
    files.by_name(both, "res2b_branch2a_temporal")["inputs"] = (name,)
    refused(r"the layer of res2b_branch2a_filter_temporal reads Sum\(.*wanted ReLU\(Sum", arrays, both)
    direct = files.stage1_layers()  # into the skip path
    files.by_name(direct, "res2b_spatial")["inputs"] = ("res2a_relu_spatial_sum", "res2b_branch2cx_spatial")
    refused("the layer of res2c_branch2a_filter_spatial reads ", arrays, direct)
    late = files.pooled(files.stage1_layers())  # pooled behind the spatial pooling
    for s in ("spatial", "temporal"):
        files.by_name(late, f"res5c_relu_pool_{s}")["inputs"] = (f"pool5_{s}",)
        files.by_name(late, f"pool5_{s}")["inputs"] = (f"res5cx_{s}",)
        files.by_name(late, f"prediction_{s}")["inputs"] = (f"res5c_relu_pool_{s}",)
    refused("the layer of fc1000_filter_temporal reads PoolTime.*wanted Pooling", arrays, late)
    twice = files.pooled(files.stage1_layers())
    files.by_name(twice, "res5c_relu_pool_spatial")["block"]["stride"] = np.array([[1.0, 1.0]])
    refused("different poolings over time, which no network here has", arrays, twice)
    deep = {name.replace("res3b_", "res3b1_"): a for name, a in arrays.items() if "_temporal" in name}
    for k, last in ((3, 7), (4, 35)):
        for index in range(1, last + 1):
            deep[f"res{k}b{index}_branch2a_filter_temporal"] = np.ones((1, 1, 2, 2))
    mixed = {name: a for name, a in arrays.items() if "_spatial" in name} | deep  # the flow152 of ST-MulNet
    refused("streams of different depths, 50 and 152, which no network here has", mixed, files.stage1_layers())
    wider = two_streams(15, width=4, streams={"spatial": 3}) | {n: a for n, a in arrays.items() if "_temporal" in n}
    refused("streams of different widths, 4 and 2, which no network here has", wider, files.stage1_layers())


def test_class_names(rgb_file: Path, tmp_path: Path, capsys: Printed) -> None:
    def convert(count: int, *words: str, **meta: Any) -> Any:
        arrays = stream(5, 3, classes=count, width=2)
        path = files.write(tmp_path / f"{count}.mat", files.net(files.base_layers(), arrays, **meta))
        out = tmp_path / f"{count}-{len(list(tmp_path.iterdir()))}"
        assert cli.main(["convert", str(path), str(out), *words]) == 0, capsys.readouterr().err
        return load_model(out), arrays, capsys.readouterr().out

    loaded, arrays, said = convert(101)
    assert (loaded.classes, len(loaded.classes), loaded.classes[36]) == (UCF101, 101, "HandstandPushups")
    assert "UCF101's, in the order of classInd.txt" in said
    # A stream trained from ImageNet still names its classes; names that fit are believed.
    loaded, _, _ = convert(101, classes={"name": tuple(f"n{i}" for i in range(1000))})
    assert loaded.classes == UCF101
    loaded, _, said = convert(3, classes={"name": ("run", "jump", "hop")})
    assert loaded.classes == ("run", "jump", "hop")
    assert "as the file names them" in said
    # HMDB51's rows go where its lists have their class.
    loaded, arrays, said = convert(51)
    assert "HMDB51's, put into alphabetical order" in said
    assert loaded.classes == tuple(sorted(HMDB51))
    assert loaded.classes != HMDB51
    for name in ("kick", "kick_ball", "sword", "wave"):
        row = loaded.model.get_parameter("appearance.classifier.weight")[loaded.classes.index(name)]
        assert np.array_equal(row.detach().numpy(), arrays["fc1000_filter"][0, 0, :, HMDB51.index(name)])
        bias = loaded.model.get_parameter("appearance.classifier.bias")[loaded.classes.index(name)]
        assert bias.item() == arrays["fc1000_bias"][0, HMDB51.index(name)]
    names = tmp_path / "names.txt"
    names.write_text("1 one\n2 two\n", "utf-8")
    for words, said in (
        ([], "the network has 6 classes and the file does not name them"),
        (["--classes", str(names)], "names 2 classes, the network has 6"),
        (["--classes", str(tmp_path / "none.txt")], "none.txt"),
    ):
        assert cli.main(["convert", str(rgb_file), str(tmp_path / "no"), *words]) in (1, 2)
        assert said in capsys.readouterr().err
    names.write_text("a\nb\nc\nd\ne\nf\n", "utf-8")
    assert cli.main(["convert", str(rgb_file), str(tmp_path / "yes"), "--classes", str(names)]) == 0
    assert load_model(tmp_path / "yes").classes == tuple("abcdef")


# files that are no network of these papers ----------------------------------------------------------------------------


def test_files_that_are_not_matlabs(tmp_path: Path) -> None:
    path = tmp_path / "x.mat"
    with pytest.raises(WeightsError, match=r"x\.mat: cannot be read \(No such file or directory\)"):
        read_dag(path)
    with pytest.raises(WeightsError, match="Is a directory"):
        read_dag(tmp_path)
    for data, kind in (
        (b"", "empty"),
        (b"\x80\x04\x95 pickled", "a pickle, which is never opened here"),
        (b"PK\x03\x04....", "a zip archive, as PyTorch writes"),
        (b"<!DOCTYPE html>", "a page of text, perhaps what a server answered"),
        (b"0123456789", "something else"),
    ):
        path.write_bytes(data)
        with pytest.raises(WeightsError, match=f"no MATLAB file, of version 5 or 7.3: it is {kind}"):
            read_dag(path)


@pytest.mark.parametrize("version", ["5", "5 compressed", "7.3"])
def test_a_file_cut_short_is_damaged(version: str, tmp_path: Path) -> None:
    net = files.net(files.base_layers(), stream(0, 3, width=2))
    whole = files.write(
        tmp_path / "w.mat", {"net": net}, version=version.split()[0], compressed="compressed" in version
    )
    data, path = whole.read_bytes(), tmp_path / "cut.mat"
    for share in (0.01, 0.3, 0.8, 0.999):
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(WeightsError, match=r"cut\.mat: .*(damaged or cut off|without a DagNN)"):
            read_dag(path)


def test_without_the_reader_of_version_7_3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = files.write(tmp_path / "x.mat", {"x": np.ones((1, 1))}, version="7.3")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(
        WeightsError, match=r"7\.3 \(HDF5\) are read with h5py, which is not installed; install it with: "
    ):
        read_dag(path)
    # Version 5 needs nothing but ourselves.
    assert read_mat(files.write(path, {"x": np.ones((1, 1))}), ["x"]) == {"x": np.ones((1, 1))}


@pytest.mark.parametrize("compressed", [False, True])
def test_version_5_as_scipy_reads_it(compressed: bool, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    arrays = {
        f"a{dtype}": random.integers(0, 100, (2, 3, 1, 4)[: 2 + number % 3]).astype(dtype)
        for number, dtype in enumerate(("f4", "f8", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "?"))
    }
    values = {
        "text": "r\u00e9sum\u00e9",
        "empty": np.zeros((0, 3)),
        "cell": ("a", np.ones((1, 2)), ()),
        "one": [{"x": "y"}],
    }
    path = files.write(tmp_path / "x.mat", {**arrays, **values, "z": 1 + 2j}, compressed=compressed)
    got = read_mat(path, [*arrays, *values, "z", "absent"])
    for name, array in scipy.io.loadmat(path, variable_names=list(arrays)).items():
        if not name.startswith("__"):
            assert np.array_equal(got[name], array)
            assert got[name].dtype == array.dtype or array.dtype == np.uint8  # scipy leaves logicals as bytes
    assert (got["text"], got["one"], got["z"]) == ("r\u00e9sum\u00e9", {"x": "y"}, Unread("complex numbers"))
    assert got["empty"].shape == (0, 3)
    assert got["cell"][0] == "a"
    assert (np.array_equal(got["cell"][1], np.ones((1, 2))), got["cell"][2]) == (True, [])
    assert "absent" not in got


def test_version_5_from_a_machine_of_the_other_byte_order(tmp_path: Path) -> None:
    def element(kind: int, data: bytes) -> bytes:
        return struct.pack(">2I", kind, len(data)) + data + bytes(-len(data) % 8)

    def matrix(kind: int, name: bytes, *rest: bytes) -> bytes:
        return element(14, element(6, struct.pack(">2I", kind, 0)) + element(5, struct.pack(">2i", 1, 2)) + b"".join(
            [element(1, name), *rest]))  # fmt: skip

    head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x01\x00MI"
    path = tmp_path / "x.mat"
    # Single precision, stored as two whole numbers in a small element; and text.
    small = struct.pack(">2H2h", 4, 3, 5, -7)
    path.write_bytes(head + matrix(7, b"x", small) + matrix(4, b"t", element(17, "\u00e9!".encode("utf-16-be"))))
    got = read_mat(path, ["x", "t"])
    assert (got["x"].tolist(), got["x"].dtype, got["t"]) == ([[5.0, -7.0]], np.float32, "\u00e9!")
    # What the nested array of a cell cannot be, an element that is longer than the file, and no end.
    path.write_bytes(head + matrix(1, b"x", element(5, bytes(8))))
    with pytest.raises(WeightsError, match="an array was wanted inside of a cell or struct"):
        read_mat(path, ["x"])
    path.write_bytes(head + struct.pack(">2I", 14, 1000) + bytes(24))
    with pytest.raises(WeightsError, match="an element reaches beyond the end"):
        read_mat(path, ["x"])
    nested = matrix(7, b"", element(7, bytes(8)))
    for _ in range(60):
        nested = matrix(1, b"", nested, matrix(7, b"", element(7, bytes(8))))
    path.write_bytes(head + matrix(1, b"x", nested, nested))
    with pytest.raises(WeightsError, match="structs nested without end"):
        read_mat(path, ["x"])


def test_matlab_files_without_such_a_network(tmp_path: Path) -> None:
    path = tmp_path / "x.mat"
    for variables in (
        {"x": np.ones((2, 2))},
        {"net": np.ones((2, 2))},
        {"net": {"layers": "none"}},
        {"net": {"a": "b"}},
    ):
        with pytest.raises(WeightsError, match=r"without a DagNN of MatConvNet \(net\.layers and net\.params\)"):
            read_dag(files.write(path, variables))
    layers = tuple({"name": f"conv{i}", "type": "conv", "weights": (np.ones((3, 3)),)} for i in range(8))
    with pytest.raises(WeightsError, match=r"a SimpleNN of MatConvNet \(8 layers, the first of them conv0, conv1"):
        read_dag(files.write(path, {"layers": layers, "meta": {"x": "y"}}))


def test_values_that_no_network_needs_stay_closed(tmp_path: Path) -> None:
    """Function handles and objects lie in the file's meta; nothing of them is run, and the rest is read."""
    arrays = stream(0, 3, width=2)
    net = files.net(files.base_layers(), arrays)
    del net["meta"]
    path = files.write(tmp_path / "x.mat", net)
    whole = path.read_bytes()
    # A variable whose class is 16, function handle: flags, size, name, and a matrix within.
    number = files.write(tmp_path / "number.mat", {"x": np.ones((1, 1))}).read_bytes()[128:]
    head = struct.pack("<4I", 6, 8, 16, 0) + struct.pack("<4I", 5, 8, 1, 1) + struct.pack("<2I8s", 1, 4, b"meta")
    path.write_bytes(whole + struct.pack("<2I", 14, len(head + number)) + head + number)
    assert read_mat(path, ["meta"]) == {"meta": Unread("function handle")}
    assert recognise(read_dag(path)).model == "spatial_resnet50"

    path = files.write(tmp_path / "x.mat", {"net": files.net(files.base_layers(), arrays)}, version="7.3")
    with h5py.File(path, "r+") as file:
        for name, kind in (("fn", "function_handle"), ("object", "containers.Map")):
            file["net/meta"].create_dataset(name, data=np.ones((6, 1), np.uint32)).attrs["MATLAB_class"] = np.bytes_(
                kind
            )
        file["net/meta"].create_group("handle").attrs["MATLAB_class"] = np.bytes_("function_handle")
    assert recognise(read_dag(path)).model == "spatial_resnet50"
    with h5py.File(path, "r+") as file:
        file["net/meta/elsewhere"] = h5py.ExternalLink("/etc/hostname", "/")
    with pytest.raises(WeightsError, match="damaged or cut off \\(elsewhere is a link to another place\\)"):
        read_dag(path)
    with h5py.File(path, "r+") as file:
        del file["net/meta/elsewhere"]
        file["net/meta"].create_dataset("outside", (4,), "u1", external=[("/etc/hostname", 0, 4)])
    with pytest.raises(WeightsError, match="/net/meta/outside is kept in another file"):
        read_dag(path)
    with h5py.File(path, "r+") as file:
        del file["net/meta/outside"]
        file["net/meta/itself"] = file["net/meta"]
    with pytest.raises(WeightsError, match="structs nested without end"):
        read_dag(path)


Change = Callable[[dict[str, Any], list[files.Net]], object]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a, _: a.pop("res3b_branch2c_filter"), "1 missing: res3b_branch2c_filter"),
        (lambda a, _: a.update(res6a_filter=np.ones((2, 2))), "1 unexpected: res6a_filter"),
        (
            lambda a, _: a.update(res2a_branch2b_filter=np.ones((5, 5, 2, 2))),
            r"1 of another shape: res2a_branch2b_filter is \(5, 5, 2, 2\), wanted \(3, 3, 2, 2\)",
        ),
        (lambda a, _: a.update(bn_conv1_mult=np.ones((3, 1))), r"bn_conv1_mult is \(3,\), wanted \(2,\)"),
        (lambda a, _: a.update(bn_conv1_mult=np.full((2, 1), np.nan)), "not finite: bn_conv1_mult"),
        (
            lambda a, _: a.update(bn_conv1_moments=np.zeros((2, 2))),
            r"sigma, sqrt\(variance \+ 1e-05\), and cannot be below 0\.0032, as it is in bn_conv1_moments",
        ),
        (lambda a, _: a.pop("fc1000_filter"), r"no ResNet of these papers; its 2\d\d parameters are conv1_filter"),
        (lambda a, _: a.update(x_spatial=np.ones((1, 1))), "one stream of two, or parameters of neither: conv1_filter"),
        (
            lambda a, _: a.update(
                res2b_branch2a_filter=np.ones((1, 3, 8, 2)), res2b_branch2c_filter=np.ones((1, 3, 2, 8))
            ),
            "11 of another shape|Parameters",
        ),
        (
            lambda _, n: files.by_name(n, "res3a_branch2a").update(type="dagnn.ConvTranspose"),
            r"1 layers that the networks of these papers do not have: res3a_branch2a \(dagnn\.ConvTranspose\)",
        ),
        (
            lambda _, n: files.by_name(n, "res3a_branch2a")["block"].update(stride=np.array([[1.0, 1.0]])),
            r"are those of an image network or base stream, its layers are not: the layer of res3a_branch2a_filter is "
            r"Conv \[1, 1, 0, 0, 0, 0, 1, 1\] with res3a_branch2a_filter, wanted Conv \[2, 2,",
        ),
        (
            lambda _, n: files.by_name(n, "res2b_branch2a").update(inputs=("res2a",)),
            r"the layer of res2b_branch2a_filter reads Sum\(bn2a_branch1_mult, bn2a_branch2c_mult\), wanted ReLU\(Sum",
        ),
        (
            lambda _, n: files.by_name(n, "pool1")["block"].update(pad=np.array([[1.0, 1, 1, 1]])),
            "the layer of res2a_branch1_filter reads Pooling",
        ),
        (
            lambda _, n: files.by_name(n, "conv1_relu")["block"].update(leak=np.array([[0.1]])),
            "the layer of res2a_branch1_filter reads",
        ),
        (lambda _, n: n.remove(files.by_name(n, "fc1000")), "no layer uses fc1000_filter"),
        (lambda _, n: files.by_name(n, "conv1").update(inputs=("res5cx",)), "layers that read each other in a circle"),
        (lambda _, n: files.by_name(n, "pool5").update(name="pool1"), "layers of the same name"),
        (
            lambda _, n: n[3].update(name=np.ones((1, 1))),
            r"not as MatConvNet writes them \(text was wanted, got ndarray",
        ),
        (lambda a, _: a.update(conv1_bias="text"), r"not as MatConvNet writes them \(numbers were wanted, got str"),
        (
            lambda _, n: n.append(
                files.layer("late", "PoolTime", ["res5cx"], "late", poolSize=[1, 5], stride=[1, 2], method="max")
            ),
            "the layer of fc1000_filter reads",
        ),
    ],
)
def test_a_file_that_differs_anywhere_is_refused(change: Change, said: str, tmp_path: Path) -> None:
    arrays, layers = stream(0, 3, width=2), files.base_layers()
    change(arrays, layers)
    path = files.write(tmp_path / "x.mat", {"net": files.net(layers, arrays)})
    with pytest.raises(WeightsError, match=said):
        recognise(read_dag(path))
