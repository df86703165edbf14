"""One ``.npz`` file of arrays and what they are: written whole or not at all, with a checksum of the arrays inside."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from twostream.errors import TwostreamError
from twostream.files import atomic_write

Arrays = Mapping[str, npt.NDArray[Any]]


def save_arrays(path: Path | str, form: str, arrays: Arrays, header: Mapping[str, Any]) -> None:
    """Write arrays with a header of JSON values; ``form`` names what kind of file it is and its version.

    Raises:
        OutputError: it cannot be written.
    """
    told = {"format": form, "sha256": _digest(arrays), **header}
    text = np.frombuffer(json.dumps(told, ensure_ascii=False).encode("utf-8"), np.uint8)
    with atomic_write(path) as file:
        np.savez_compressed(file, allow_pickle=False, header=text, **arrays)


def load_arrays(
    path: Path | str, form: str, error: type[TwostreamError], *, what: str
) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """The arrays and the header that :func:`save_arrays` wrote.

    Args:
        path: the file.
        form: the kind and version that is wanted.
        error: what is raised.
        what: what the file should hold, for the message.

    Raises:
        FileNotFoundError: no such file.
        TwostreamError: as ``error``: another kind of file, or a damaged one; names it and says why.
    """
    try:
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
            header = json.loads(archive["header"].tobytes().decode("utf-8"))
            arrays = {name: archive[name] for name in archive.files if name != "header"}
        found, stated = header.pop("format"), header.pop("sha256")
    except FileNotFoundError:
        raise
    # What foreign or damaged bytes make the archive reader raise has no common ancestor.
    except Exception as problem:
        # The reader's own words advise loading such files unsafely.
        reason = "it is no archive of arrays" if "allow_pickle" in str(problem) else str(problem)
        raise error(f"{path}: not a file of {what} ({reason})") from problem
    if found != form:
        raise error(f"{path}: {what} of another format ({found}); this version reads {form}")
    if stated != _digest(arrays):
        raise error(f"{path}: damaged, its checksum does not match; make it again with: twostream explain")
    return arrays, header


def _digest(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(str((name, array.dtype.str, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


__all__ = ["load_arrays", "save_arrays"]
