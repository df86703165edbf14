"""Published weights: where they are, how they are fetched and checked, and which of them a run starts from."""

import http.client
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
from torch import Tensor

from twostream.clip import InputSpec
from twostream.files import OutputError, sha256_of
from twostream.units import bytes_text
from twostream.weights.caffemodel import read_caffemodel
from twostream.weights.convert import to_backbone
from twostream.weights.strict import WeightsError

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class WeightsRecord:
    """One published file.

    Attributes:
        identity: of the backbone that it fits.
        url: where it is; the last part is its name in the cache.
        hash_prefix: the first digits of its SHA-256, as its publisher put them into its name.
        size: about how many bytes, for the estimate before the download.
        spec: the input it was trained on (mean, deviation, size).
        source, licence: to be told to the user.
    """

    identity: str
    url: str
    hash_prefix: str
    size: int
    spec: InputSpec
    source: str
    licence: str

    @property
    def file(self) -> str:
        """The name of the file."""
        return self.url.rpartition("/")[2]


def _torchvision(identity: str, hash_prefix: str, mebibytes: float) -> WeightsRecord:
    return WeightsRecord(
        identity=identity,
        url=f"https://download.pytorch.org/models/{identity}-{hash_prefix}.pth",
        hash_prefix=hash_prefix,
        size=round(mebibytes * 2**20),
        spec=InputSpec(
            streams=("appearance",),
            rgb_mean=(123.675, 116.28, 103.53),
            rgb_std=(58.395, 57.12, 57.375),
            size=224,
            resize=256,
        ),
        source="torchvision, ImageNet-1K (IMAGENET1K_V1)",
        licence="BSD-3-Clause (torchvision); the terms of the ImageNet pictures may bear on the weights",
    )


# All fit only backbones of full width. The stride sits in the 3x3 of these ResNets (torchvision's layout); MSRA's own
# weights, for the Caffe layout, are had by converting a MatConvNet or Caffe file.
CATALOG: dict[str, WeightsRecord] = {
    "resnet18": _torchvision("resnet18", "f37072fd", 44.661),
    "resnet34": _torchvision("resnet34", "b627a593", 83.275),
    "resnet50": _torchvision("resnet50", "0676ba61", 97.781),
    "resnet101": _torchvision("resnet101", "63fe2227", 170.511),
    "resnet152": _torchvision("resnet152", "394f9c45", 230.434),
    "vgg16": _torchvision("vgg16", "397923af", 527.796),
    "vgg16_bn": _torchvision("vgg16_bn", "6c64b313", 527.866),
    "bn_inception": WeightsRecord(
        identity="bn_inception",
        # The server is not always up; a copy from elsewhere is given with --weights PATH and held to the same hash.
        url="http://data.lip6.fr/cadene/pretrainedmodels/bn_inception-52deb4733.pth",
        hash_prefix="52deb4733",
        size=round(43.2 * 2**20),
        spec=InputSpec(
            streams=("appearance",),
            rgb_mean=(123.0, 117.0, 104.0),
            rgb_std=(1.0, 1.0, 1.0),
            size=224,
            resize=256,
        ),
        source="pretrained-models.pytorch, ImageNet-1K (trained by Y. Xiong in Caffe for TSN)",
        licence="BSD-3-Clause (pretrained-models.pytorch); the terms of the ImageNet pictures may bear on the weights",
    ),
}


class Resolved(NamedTuple):
    """What a run starts from: a state (None: from scratch), a sentence for the user, and the file's name."""

    state: dict[str, Tensor] | None
    says: str
    source: str


def cache_folder() -> Path:
    """Where downloaded weights are kept: ``$TWOSTREAM_CACHE/weights``, else ``~/.cache/twostream/weights``."""
    root = os.environ.get("TWOSTREAM_CACHE")
    return (Path(root) if root else Path.home() / ".cache" / "twostream") / "weights"


def find_cached(record: WeightsRecord, *, cache: Path | None = None) -> Path | None:
    """The file in our cache, or in torch's own (``torch.hub``), where torchvision puts the same files."""
    for folder in (cache or cache_folder(), Path(torch.hub.get_dir()) / "checkpoints"):
        path = folder / record.file
        if path.is_file() and sha256_of(path).startswith(record.hash_prefix):
            return path
    return None


def reachable(url: str, *, timeout: float = 4.0) -> str:
    """Ask for the headers of ``url``; returns ``""`` when the server answers, else the reason, within ``timeout`` s.

    The question is asked in a thread, because looking a name up cannot be timed out and takes half a minute where a
    name server does not answer.
    """
    answer = [f"no answer within {timeout:g} s"]

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=timeout):
                answer[0] = ""
        except (OSError, http.client.HTTPException, ValueError) as error:
            answer[0] = _reason(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout)
    return answer[0]


def download(
    record: WeightsRecord,
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
    timeout: float = 10.0,
    pauses: tuple[float, ...] = (0.5, 2.0, 5.0),
) -> Path:
    """Fetch a record's file into the cache, or find it there; returns its path.

    An interrupted download is resumed where it stopped, at once and by the next run. The file gets its name only
    when its SHA-256 is right. Several processes may do this at a time: they write the same bytes to the same places.

    Args:
        record: an entry of :data:`CATALOG`.
        cache: the folder; default :func:`cache_folder`.
        progress: told (bytes done, bytes in all, file name).
        timeout: seconds that the server may be silent.
        pauses: seconds to wait before each further attempt.

    Raises:
        WeightsError: no connection, refused by the server, or bytes of another hash.
        OutputError: the cache folder cannot be written.
    """
    if found := find_cached(record, cache=cache):
        return found
    folder = cache or cache_folder()
    path, part = folder / record.file, folder / f"{record.file}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part.touch()
    except OSError as error:
        raise OutputError(
            f"{folder}: downloaded weights cannot be kept there ({error.strerror or error}); "
            "TWOSTREAM_CACHE names another folder"
        ) from error
    reason, mismatched = "", False
    for pause in (0.0, *pauses):
        time.sleep(pause)
        try:
            _fetch(record, part, progress, timeout)
        except urllib.error.HTTPError as error:
            reason = _reason(error)
            if error.code < 500:  # asking again will not change the answer
                break
            continue
        except (OSError, http.client.HTTPException) as error:
            reason = _reason(error)
            continue
        if not sha256_of(part).startswith(record.hash_prefix):
            part.unlink(missing_ok=True)
            part.touch()
            reason = f"what came is not the published file: its SHA-256 does not begin with {record.hash_prefix}"
            if mismatched:  # once may be a stale beginning; twice is what the server has
                break
            mismatched = True
            continue
        part.replace(path)
        return path
    if part.exists() and part.stat().st_size == 0:
        part.unlink()
    raise WeightsError(
        f"{record.url} could not be downloaded ({reason}). Fetch it on another machine and give the file or its "
        f"folder with --weights PATH, or train from scratch with --weights none"
    )


def _fetch(record: WeightsRecord, part: Path, progress: Progress | None, timeout: float) -> None:
    """Append what is missing to ``part``; raises OSError when the connection ends too early."""
    start = part.stat().st_size
    headers = {"Range": f"bytes={start}-"} if start else {}
    try:
        response = urllib.request.urlopen(urllib.request.Request(record.url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing after `start`: the file is whole, and its hash will tell
            return
        raise
    with response, part.open("r+b") as file:
        if response.status != 206:  # the server sends it from the beginning
            start = 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else record.size
        done = file.seek(start)
        while chunk := response.read(1 << 20):
            try:
                done += file.write(chunk)
            except OSError as error:
                raise OutputError(f"{part}: cannot be written ({error.strerror or error})") from error
            if progress is not None:
                progress(done, total, record.file)
        file.truncate()
    if length and done < total:
        raise ConnectionError(f"the connection ended after {bytes_text(done)} of {bytes_text(total)}")


def _reason(error: BaseException) -> str:
    if isinstance(error, urllib.error.HTTPError):
        with suppress(OSError):
            error.close()
        return f"the server answered {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    return str(error) or type(error).__name__


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` or ``.caffemodel`` file, or of a ``.pth`` without running code it may hold.

    Raises:
        WeightsError: no such file, damaged, or something else than a dict of tensors.
    """
    try:
        if path.suffix == ".safetensors":
            state = safetensors.torch.load_file(path)
        elif path.suffix == ".caffemodel":
            state = read_caffemodel(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: no such weights file") from error
    except Exception as error:  # bytes that are no weights make the readers fail in any way there is
        reason = str(error).partition("\n")[0]
        raise WeightsError(
            f"{path}: cannot be read as weights, .pth, .safetensors or .caffemodel ({reason or error!r})"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{path}: holds something else than a dict of names and tensors")
    return state


def resolve_weights(
    choice: Path | str,
    identity: str,
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
    timeout: float = 4.0,
) -> Resolved:
    """What ``--weights auto|imagenet|none|PATH`` means for a backbone of this identity.

    ``"none"``: from scratch. ``"imagenet"``: the published weights, or an error. ``"auto"``: them where they are
    cached or can be had, else from scratch; the sentence says which and why. A path: a ``.pth``, ``.safetensors`` or
    ``.caffemodel`` with the published names (torchvision's; for BN-Inception, those of TSN), or a folder that holds
    the published file. (A file called ``auto`` is ``./auto``.)

    torchvision's weights are refused for the Caffe layout although every shape agrees: with the stride in another
    convolution the same numbers compute something else.

    Args:
        choice: as above.
        identity: :attr:`Backbone.identity`.
        cache: folder of downloaded files.
        progress: told of a download.
        timeout: seconds until ``"auto"`` gives the network up.

    Raises:
        WeightsError: what was asked for cannot be had, is damaged or is of another layout.
    """
    choice = str(choice)
    if choice == "none":
        return Resolved(None, "weights: from scratch, as asked (--weights none)", "")
    record = CATALOG.get(identity)
    if choice in ("auto", "imagenet"):
        if record is None:
            reason = f"no ImageNet weights are published for {identity} (there are: {', '.join(CATALOG)})"
            if choice == "imagenet":
                raise WeightsError(f"{reason}; give a file with --weights PATH, or --weights none")
            return Resolved(None, f"weights: FROM SCRATCH, {reason}", "")
        if choice == "imagenet":
            return _published(record, download(record, cache=cache, progress=progress))
        try:
            path = find_cached(record, cache=cache)
            if path is None:
                if reason := reachable(record.url, timeout=timeout):
                    raise WeightsError(f"{record.url} is not cached and cannot be reached ({reason})")
                path = download(record, cache=cache, progress=progress)
        except (WeightsError, OutputError) as error:
            return Resolved(
                None, f"weights: FROM SCRATCH. ImageNet's would do better, but {error}".replace("\n", " "), ""
            )
        return _published(record, path)
    return _given(Path(choice), identity, record)


def _published(record: WeightsRecord, path: Path) -> Resolved:
    says = f"weights: {record.file} from {record.source}; {record.licence}"
    return Resolved(to_backbone(read_tensors(path), record.identity), says, record.file)


def _given(path: Path, identity: str, record: WeightsRecord | None) -> Resolved:
    if path.is_dir():
        if (path / "config.json").exists() or (path / "model" / "config.json").exists():
            raise WeightsError(f"{path} is a model trained by twostream; carry its weights over with --init {path}")
        wanted = record.file if record else f"{identity}.safetensors"
        if not (path / wanted).is_file():
            raise WeightsError(f"{path} holds no {wanted}; name a file of weights for {identity}")
        path = path / wanted
    tensors, digest = read_tensors(path), sha256_of(path)
    if record is not None and path.name == record.file and not digest.startswith(record.hash_prefix):
        raise WeightsError(f"{path}: not the published file, its SHA-256 does not begin with {record.hash_prefix}")
    try:
        state = to_backbone(tensors, identity)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    if "-caffe" in identity and "conv1.bias" not in state:
        raise WeightsError(
            f"{path} has no conv1.bias, so it is of torchvision's layout, and {identity} has its strides elsewhere: "
            "the weights would load and compute something else. Build the model with layout=torchvision, or give "
            "weights made for the Caffe layout"
        )
    return Resolved(state, f"weights: {path} (sha256 {digest[:8]})", str(path))


__all__ = [
    "CATALOG",
    "Resolved",
    "WeightsError",
    "WeightsRecord",
    "cache_folder",
    "download",
    "find_cached",
    "reachable",
    "read_tensors",
    "resolve_weights",
]
