"""Download, resume, check, read and choose weights; the server is a thread of the test on the loopback."""

import http.server
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import safetensors.torch
import torch

from twostream.files import OutputError
from twostream.models.registry import create_model
from twostream.models.resnet import ResNet
from twostream.weights import catalog
from twostream.weights.catalog import (
    CATALOG,
    WeightsError,
    WeightsRecord,
    cache_folder,
    download,
    find_cached,
    reachable,
    read_tensors,
    resolve_weights,
)

TORCHVISION = "https://download.pytorch.org/models"


class Server(http.server.ThreadingHTTPServer):
    """Serves one file at every address and misbehaves as told."""

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.drops: list[int] = []  # bytes after which the next connections are cut
        self.status = 0
        self.ranges = True
        self.seen: list[tuple[str, str | None]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        server, wanted = self.server, self.headers.get("Range")
        server.seen.append((self.command, wanted))
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.ranges else 0
        data = server.content[start:]
        status = server.status or (206 if wanted and server.ranges else 200)
        if wanted and server.ranges and not data:
            status, data = 416, b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            if server.drops:
                data = data[: server.drops.pop(0)]
                self.close_connection = True
            with suppress(ConnectionError):  # a client that has seen enough
                self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        del format, args


def resnet18_file(folder: Path, *, suffix: str = ".pth", **changes: torch.Tensor) -> Path:
    """A file as torchvision publishes it: a plain state dict with the ImageNet classifier."""
    torch.manual_seed(2)
    state = dict(ResNet(18).state_dict())
    state = {name: value.contiguous() for name, value in state.items() if "num_batches" not in name}
    state |= {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000), **changes}
    path = folder / f"made{suffix}"
    torch.save(state, path) if suffix == ".pth" else safetensors.torch.save_file(state, path)
    return path


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return resnet18_file(tmp_path_factory.mktemp("published")).read_bytes()


@pytest.fixture
def server(published: bytes) -> Iterator[Server]:
    with Server(published) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("TWOSTREAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def record(server: Server, monkeypatch: pytest.MonkeyPatch) -> WeightsRecord:
    """The catalog's ResNet-18, at our server and with our file's hash."""
    prefix = sha256(server.content).hexdigest()[:8]
    record = replace(CATALOG["resnet18"], url=f"{server.address}/resnet18-{prefix}.pth", hash_prefix=prefix)
    monkeypatch.setitem(CATALOG, "resnet18", record)
    return record


def test_the_catalog_names_published_files_and_the_input_they_want() -> None:
    assert {r.file for r in CATALOG.values()} == {
        "resnet18-f37072fd.pth",
        "resnet34-b627a593.pth",
        "resnet50-0676ba61.pth",
        "resnet101-63fe2227.pth",
        "resnet152-394f9c45.pth",
        "vgg16-397923af.pth",
        "vgg16_bn-6c64b313.pth",
        "bn_inception-52deb4733.pth",
    }
    for identity, record in CATALOG.items():
        assert record.identity == identity
        server = "http://data.lip6.fr/cadene/pretrainedmodels" if identity == "bn_inception" else TORCHVISION
        assert record.url == f"{server}/{record.file}"
        assert re.fullmatch(r"[0-9a-f]{8,9}", record.hash_prefix)
        assert record.hash_prefix in record.file
        assert "ImageNet" in record.source
        assert "BSD" in record.licence
        name, numbers = ("vgg16", {"batch_norm": True}) if identity == "vgg16_bn" else (identity, {})
        with torch.device("meta"):
            model = create_model(f"spatial_{name}", num_classes=1000, **numbers)
        assert model.backbone_identity == identity
        for key in ("rgb_mean", "rgb_std", "size", "resize"):
            assert getattr(model.spec, key) == getattr(record.spec, key)
        parameters = sum(p.numel() for p in model.parameters())
        if name == "vgg16":  # three layers where the model has one
            parameters += 25089 * 4096 + 4097 * 4096 + 4097 * 1000 - 513 * 1000
        assert parameters * 4 < record.size < parameters * 4.02  # float32, moments of the batch norms, names


def test_download_once_then_from_the_cache(server: Server, record: WeightsRecord, tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    path = download(record, progress=lambda done, total, what: told.append((done, total, what)))
    assert path == cache_folder() / record.file == tmp_path / "cache" / "weights" / record.file
    assert path.read_bytes() == server.content
    assert told[-1] == (len(server.content), len(server.content), record.file)
    assert [p.name for p in path.parent.iterdir()] == [record.file]
    assert download(record) == path
    assert len(server.seen) == 1
    assert find_cached(record) == path


def test_a_dropped_connection_is_resumed_where_it_stopped(server: Server, record: WeightsRecord) -> None:
    server.drops = [1_500_000, 700_000]
    path = download(record, pauses=(0.0, 0.0))
    assert path.read_bytes() == server.content
    assert [wanted for _, wanted in server.seen] == [None, "bytes=1500000-", "bytes=2200000-"]


def test_the_next_run_resumes_too(server: Server, record: WeightsRecord) -> None:
    server.drops = [1_000_000]
    with pytest.raises(WeightsError, match=r"the connection ended after 1\.0 MB of 46\.8 MB"):
        download(record, pauses=())
    assert (cache_folder() / f"{record.file}.part").stat().st_size == 1_000_000
    assert find_cached(record) is None
    assert download(record).read_bytes() == server.content
    assert server.seen[-1] == ("GET", "bytes=1000000-")


def test_a_server_without_ranges_starts_over(server: Server, record: WeightsRecord) -> None:
    server.drops, server.ranges = [1_000_000], False
    assert download(record, pauses=(0.0,)).read_bytes() == server.content


def test_a_finished_part_of_a_killed_run_is_taken(server: Server, record: WeightsRecord) -> None:
    part = cache_folder() / f"{record.file}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(server.content)
    assert download(record).read_bytes() == server.content
    assert not part.exists()


def test_a_stale_part_of_another_file_is_thrown_away(server: Server, record: WeightsRecord) -> None:
    part = cache_folder() / f"{record.file}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 1000)
    assert download(record, pauses=(0.0,)).read_bytes() == server.content


def test_bytes_of_another_hash_are_refused(server: Server, record: WeightsRecord) -> None:
    server.content = b"<html>please log in</html>"
    with pytest.raises(WeightsError, match=f"SHA-256 does not begin with {record.hash_prefix}.*--weights PATH"):
        download(record, pauses=(0.0, 0.0, 0.0))
    assert len(server.seen) == 2, "a whole file that is wrong twice is not asked for again"
    assert list(cache_folder().iterdir()) == []


def test_a_damaged_file_in_the_cache_is_fetched_anew(server: Server, record: WeightsRecord) -> None:
    cache_folder().mkdir(parents=True)
    (cache_folder() / record.file).write_bytes(b"half")
    assert find_cached(record) is None
    assert download(record).read_bytes() == server.content


def test_torchs_own_cache_serves_too(server: Server, record: WeightsRecord, tmp_path: Path) -> None:
    hub = tmp_path / "torch" / "hub" / "checkpoints"
    hub.mkdir(parents=True)
    (hub / record.file).write_bytes(server.content)
    assert download(record) == hub / record.file
    assert server.seen == []


def test_a_refusal_is_not_asked_again(server: Server, record: WeightsRecord) -> None:
    server.status = 404
    with pytest.raises(WeightsError, match="the server answered 404 Not Found"):
        download(record, pauses=(0.0, 0.0))
    assert len(server.seen) == 1


def test_a_server_in_trouble_is_asked_again(server: Server, record: WeightsRecord) -> None:
    server.status = 503
    with pytest.raises(WeightsError, match="the server answered 503"):
        download(record, pauses=(0.0, 0.0))
    assert len(server.seen) == 3


def test_without_a_network(record: WeightsRecord) -> None:
    with socket.socket() as closed:  # bound, not listening: refused
        closed.bind(("127.0.0.1", 0))
        gone = replace(record, url=f"http://127.0.0.1:{closed.getsockname()[1]}/x.pth")
        with pytest.raises(WeightsError, match=r"could not be downloaded \(.*refused.*--weights none"):
            download(gone, pauses=())


def test_a_cache_that_cannot_be_written(record: WeightsRecord, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file/sub: downloaded weights cannot be kept there .*TWOSTREAM_CACHE"):
        download(record, cache=tmp_path / "file" / "sub")


def test_a_full_disk_is_named(record: WeightsRecord) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    part = cache_folder() / f"{record.file}.part"
    part.parent.mkdir(parents=True)
    part.symlink_to("/dev/full")
    with pytest.raises(OutputError, match=r"cannot be written \(No space left"):
        download(record)


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TWOSTREAM_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "twostream" / "weights"


def test_asking_whether_a_server_answers(server: Server, record: WeightsRecord) -> None:
    assert reachable(record.url) == ""
    assert server.seen == [("HEAD", None)]
    server.status = 403
    assert "403" in reachable(record.url)
    assert reachable("http://") != ""


def test_a_silent_network_is_given_up_in_time() -> None:
    with socket.socket() as mute:  # listens and never answers
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        start = time.monotonic()
        assert reachable(f"http://127.0.0.1:{mute.getsockname()[1]}/", timeout=0.3) != ""
        assert time.monotonic() - start < 2


def test_a_name_server_that_hangs_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def hang(*args: object, **kwargs: object) -> None:
        del args, kwargs
        release.wait(5)
        raise OSError("too late")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    start = time.monotonic()
    assert reachable("http://name.invalid/", timeout=0.3) == "no answer within 0.3 s"
    assert time.monotonic() - start < 2
    release.set()


# What --weights means


def test_none_is_from_scratch() -> None:
    state, says, _ = resolve_weights("none", "resnet18")
    assert state is None
    assert says == "weights: from scratch, as asked (--weights none)"


def test_auto_downloads_when_the_server_answers(server: Server, record: WeightsRecord) -> None:
    found = resolve_weights("auto", "resnet18")
    assert found.state is not None
    assert set(found.state) == set(ResNet(18).state_dict())
    assert found.says.startswith(f"weights: {record.file} from torchvision, ImageNet-1K")
    assert [method for method, _ in server.seen] == ["HEAD", "GET"]
    assert resolve_weights("auto", "resnet18").says == found.says
    assert len(server.seen) == 2, "cached: the network is left alone"


@pytest.mark.usefixtures("record")
def test_auto_goes_on_without_and_says_why(server: Server, tmp_path: Path) -> None:
    server.status = 403
    state, says, _ = resolve_weights("auto", "resnet18")
    assert state is None
    assert says.startswith("weights: FROM SCRATCH. ImageNet's would do better, but http://127.0.0.1")
    assert "is not cached and cannot be reached (the server answered 403 Forbidden)" in says
    server.status = 0
    (tmp_path / "file").write_text("")
    assert "cannot be kept there" in resolve_weights("auto", "resnet18", cache=tmp_path / "file").says


def test_auto_without_a_published_file() -> None:
    state, says, _ = resolve_weights("auto", "resnet18-width32")
    assert state is None
    assert says.startswith("weights: FROM SCRATCH, no ImageNet weights are published for resnet18-width32 (there are:")


def test_imagenet_must_succeed(server: Server, record: WeightsRecord) -> None:
    with pytest.raises(WeightsError, match=r"no ImageNet weights are published for resnet50-caffe .*--weights PATH"):
        resolve_weights("imagenet", "resnet50-caffe")
    server.status = 404
    with pytest.raises(WeightsError, match="could not be downloaded"):
        resolve_weights("imagenet", "resnet18")
    server.status = 0
    assert resolve_weights("imagenet", "resnet18").source == record.file


def test_a_model_starts_from_the_published_file_end_to_end(record: WeightsRecord) -> None:
    model = create_model("two_stream_resnet18", num_classes=3)
    state, says, source = resolve_weights("auto", model.backbone_identity)
    assert state is not None
    assert says.startswith(f"weights: {record.file}")
    assert model.load_backbones(state, source=source).endswith("repeated 20 times")
    torch.manual_seed(2)
    donor = ResNet(18).state_dict()
    state = model.state_dict()
    assert torch.equal(state["appearance.backbone.layer4.1.conv2.weight"], donor["layer4.1.conv2.weight"])
    assert torch.equal(state["motion.backbone.layer4.1.conv2.weight"], donor["layer4.1.conv2.weight"])
    torch.testing.assert_close(state["motion.backbone.conv1.weight"][:, 7], donor["conv1.weight"].mean(1))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_given_file(tmp_path: Path, suffix: str) -> None:
    path = resnet18_file(tmp_path, suffix=suffix)
    state, says, source = resolve_weights(path, "resnet18")
    assert says == f"weights: {path} (sha256 {sha256(path.read_bytes()).hexdigest()[:8]})"
    assert state is not None
    model = create_model("spatial_resnet18", num_classes=3)
    assert model.load_backbones(state, source=source) == "appearance as it is"


def test_a_folder_that_holds_the_published_file(server: Server, record: WeightsRecord, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=f"holds no {record.file}; name a file of weights for resnet18"):
        resolve_weights(tmp_path, "resnet18")
    (tmp_path / record.file).write_bytes(server.content)
    assert resolve_weights(tmp_path, "resnet18").state is not None
    (tmp_path / record.file).write_bytes(resnet18_file(tmp_path, extra=torch.zeros(1)).read_bytes())
    with pytest.raises(WeightsError, match="not the published file, its SHA-256 does not begin with"):
        resolve_weights(tmp_path, "resnet18")
    with pytest.raises(WeightsError, match=r"holds no resnet18-width8\.safetensors"):
        resolve_weights(tmp_path, "resnet18-width8")


def test_a_run_is_not_a_file_of_weights(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    for folder in (tmp_path, tmp_path / "model"):
        with pytest.raises(WeightsError, match="trained by twostream; carry its weights over with --init"):
            resolve_weights(folder, "resnet18")


def test_torchvisions_weights_are_refused_for_the_caffe_layout(tmp_path: Path) -> None:
    path = resnet18_file(tmp_path)
    with pytest.raises(WeightsError, match=r"has no conv1\.bias.*Build the model with layout=torchvision"):
        resolve_weights(path, "resnet18-caffe")
    path = resnet18_file(tmp_path, **{"conv1.bias": torch.zeros(64)})
    assert "conv1.bias" in (resolve_weights(path, "resnet18-caffe").state or {})


def test_weights_of_another_network_are_listed(tmp_path: Path) -> None:
    state, _, source = resolve_weights(resnet18_file(tmp_path), "resnet34")
    assert state is not None
    deeper = create_model("spatial_resnet34", num_classes=3)
    with pytest.raises(WeightsError, match=r"made\.pth does not fit .* 96 missing: layer1\.2\.conv1.* and 91 more"):
        deeper.load_backbones(state, source=source)
    narrower = create_model("spatial_resnet18", num_classes=3, width=8)
    with pytest.raises(
        WeightsError, match=r"of another shape: conv1\.weight is \(64, 3, 7, 7\), wanted \(8, 3, 7, 7\)"
    ):
        narrower.load_backbones(state, source=source)
    with pytest.raises(WeightsError, match=r"made\.pth: not a ResNet with torchvision's names: 1 .* features\.0"):
        resolve_weights(resnet18_file(tmp_path, **{"features.0": torch.zeros(1)}), "resnet18")


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("this must never be run",))


def test_files_that_are_no_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(WeightsError, match=r"nothing\.pth: no such weights file"):
        read_tensors(tmp_path / "nothing.pth")
    with pytest.raises(WeightsError, match=r"nothing\.safetensors: no such weights file"):
        read_tensors(tmp_path / "nothing.safetensors")
    for name, content in (("a.pth", b""), ("b.pth", b"junk"), ("c.safetensors", b"junk"), ("d.pth", b"PK\x03\x04")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError, match=f"{name}: cannot be read as weights"):
            read_tensors(tmp_path / name)
    torch.save({"x": Harmful()}, tmp_path / "e.pth")
    with pytest.raises(WeightsError, match=r"e\.pth: cannot be read as weights"):
        read_tensors(tmp_path / "e.pth")
    assert "never be run" not in capsys.readouterr().out
    torch.save({"state_dict": {}}, tmp_path / "f.pth")
    with pytest.raises(WeightsError, match="something else than a dict of names and tensors"):
        read_tensors(tmp_path / "f.pth")


def test_the_module_hands_no_private_name_on() -> None:
    assert all(hasattr(catalog, name) for name in catalog.__all__)
