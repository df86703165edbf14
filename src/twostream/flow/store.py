"""The flow store: a folder with one file per video, see ``flow/store_file.py``.

The folder's ``store.json`` holds the settings that all its files share.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from twostream.files import check_writable, write_text
from twostream.flow.contract import FlowError
from twostream.flow.settings import FlowSettings
from twostream.flow.store_file import REMEDY, FlowStoreError, StoredFlow, StoredFlowWriter, stored_size
from twostream.units import bytes_text

SUFFIX = ".flow"

_STORE_FORMAT = "twostream-flow-store-1"


class FlowStore:
    """A folder of flow files, ``root/<name>.flow`` for the video called ``name``, all of the same settings.

    Opening one touches nothing; :meth:`prepare` makes the folder. It can be sent to other processes.

    Args:
        root: the folder.
        settings: what is asked for; None adopts what the store was made with.

    Attributes:
        root: the folder.
        settings: what its files are made with.

    Raises:
        FlowStoreError: the store was made with other settings (both are named), or none are asked for and there is
            no store.
    """

    def __init__(self, root: Path | str, settings: FlowSettings | None = None) -> None:
        self.root = Path(root)
        found = stored_settings(self.root)
        if found is not None and settings is not None and not found.serves(settings):
            raise FlowStoreError(
                f"{self.root}: this flow store was made with other settings than asked for "
                f"({found.difference(settings)}).\n"
                f"  made with: {found.describe()}\n  asked for: {settings.describe()}\n"
                "Ask for the settings that it was made with, or name another folder"
            )
        if found is None and settings is None:
            raise FlowStoreError(
                f"{self.root}: no flow store there; make one with: twostream flow DATA --out {self.root}"
            )
        chosen = found or settings
        assert chosen is not None
        self.settings = chosen
        self._plain = chosen.to_dict()

    def __repr__(self) -> str:
        return f"FlowStore({str(self.root)!r}, {self.settings.describe()})"

    def path_for(self, name: str) -> Path:
        """The file of the video called ``name``, a relative path with ``/`` between its parts.

        Raises:
            FlowStoreError: a name that is empty, absolute or leads out of the store.
        """
        parts = PurePosixPath(name).parts
        path = self.root.joinpath(*parts[:-1], f"{parts[-1]}{SUFFIX}") if parts else self.root
        # On Windows a name may have a drive, or backslashes, of its own.
        inside = path.is_relative_to(self.root) and ".." not in path.parts[len(self.root.parts) :]
        if not parts or not inside or name.startswith("/") or ".." in parts or "\0" in name:
            raise FlowStoreError(
                f"{name!r} cannot be the name of a video in a flow store: names are relative paths without '..', "
                "such as Class/video.avi"
            )
        return path

    def names(self) -> list[str]:
        """The videos that have a file here, sound or not, in order."""
        paths = sorted(path for path in self.root.rglob(f"*{SUFFIX}") if not path.name.startswith("."))
        return [path.relative_to(self.root).as_posix().removesuffix(SUFFIX) for path in paths]

    def has(self, name: str) -> bool:
        """Whether the video's file is there, its header is sound, and it was made with the store's settings."""
        try:
            self.open(name).close()
        except FlowStoreError:
            return False
        return True

    def open(self, name: str) -> "StoredFlow":
        """The flow of one video; close it, or use it in a ``with`` block.

        Raises:
            FlowStoreError: there is none, it is damaged, or it was made with other settings than the store.
        """
        stored = StoredFlow(self.path_for(name))
        try:
            # Equal in nearly every case; the longer comparison fills in what older files did not know of.
            if stored.header["settings"] != self._plain and stored.settings.content() != self.settings.content():
                raise FlowStoreError(
                    f"{stored.path}: made with other settings than its store "
                    f"({stored.settings.difference(self.settings)}).\n"
                    f"  made with: {stored.settings.describe()}\n  the store: {self.settings.describe()}\n{REMEDY}"
                )
        except FlowError:
            stored.close()
            raise
        return stored

    def prepare(self) -> None:
        """Make the folder and write its settings down; where both are there, try whether it can be written to.

        Raises:
            OutputError: it cannot.
            FlowStoreError: another process has made it with other settings in the meantime.
        """
        file = self.root / _STORE_FILE
        FlowStore(self.root, self.settings)
        if file.exists():
            check_writable(file)
        else:
            write_text(
                file, json.dumps({"format": _STORE_FORMAT, "settings": self._plain}, indent=1, sort_keys=True) + "\n"
            )


_STORE_FILE = "store.json"
# How deep below a store its files are looked for where store.json is lost: a data set's names are no deeper.
_DEPTHS = ("*", "*/*", "*/*/*")


def stored_settings(root: Path | str) -> FlowSettings | None:
    """What the store in this folder was made with; None where there is no store.

    Where ``store.json`` was lost, its files still say it: to be asked for other settings must not cost their flow.

    Raises:
        FlowStoreError: ``root`` is a file, or its ``store.json`` cannot be read.
    """
    file = Path(root) / _STORE_FILE
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        if values["format"] != _STORE_FORMAT:
            raise FlowStoreError(f"{file}: a store of another format ({values['format']}); this reads {_STORE_FORMAT}")
        return FlowSettings.from_dict(values["settings"])
    except FileNotFoundError:
        return _settings_of_files(Path(root))
    except NotADirectoryError as error:
        raise FlowStoreError(f"{root}: a file stands where the folder of a flow store must be") from error
    except FlowStoreError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RecursionError, FlowError) as error:
        raise FlowStoreError(
            f"{file}: cannot be read as the settings of a flow store ({error}). Delete it and run the same command "
            "again; finished videos are kept, and say what it said"
        ) from error


def _settings_of_files(root: Path) -> FlowSettings | None:
    """Those of the first sound file below ``root``; None where there is none."""
    for depth in _DEPTHS:
        for path in root.glob(depth + SUFFIX):
            # A store inside this folder is another one.
            if any((folder / _STORE_FILE).exists() for folder in path.parents if folder != root):
                continue
            with suppress(FlowError), StoredFlow(path) as stored:
                return stored.settings
    return None


Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class StoreReport:
    """What :func:`verify_store` found.

    Attributes:
        sound: names of the videos whose file is whole, in order.
        damaged: name -> reason, which names the file: damaged, foreign, or of other settings than the store.
        fields, bytes: of the sound ones.
    """

    sound: tuple[str, ...]
    damaged: dict[str, str]
    fields: int
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "sound": list(self.sound)}

    def lines(self) -> list[str]:
        """For people: one line, and one more for each file that is not sound."""
        return [
            f"{len(self.sound)} files are sound ({self.fields} fields, {bytes_text(self.bytes)}), "
            f"{len(self.damaged)} are not",
            *(f"damaged: {reason}" for reason in self.damaged.values()),
        ]


def verify_store(root: Path | str, progress: Progress | None = None) -> StoreReport:
    """Read every file of a store from end to end and compare all checksums; nothing is changed.

    Args:
        root: the folder.
        progress: called with (files read, files in all, the name of the next).

    Raises:
        FlowStoreError: there is no store, or its ``store.json`` cannot be read.
    """
    store = FlowStore(root)
    names = store.names()
    sound: list[str] = []
    damaged: dict[str, str] = {}
    fields = size = 0
    for number, name in enumerate(names):
        if progress is not None:
            progress(number, len(names), name)
        try:
            with store.open(name) as stored:
                stored.verify()
                sound.append(name)
                fields += stored.field_count
                size += stored.bytes
        except FlowStoreError as error:
            damaged[name] = str(error)
    if progress is not None:
        progress(len(names), len(names), "")
    return StoreReport(sound=tuple(sound), damaged=damaged, fields=fields, bytes=size)


__all__ = [
    "SUFFIX",
    "FlowSettings",
    "FlowStore",
    "FlowStoreError",
    "StoreReport",
    "StoredFlow",
    "StoredFlowWriter",
    "stored_settings",
    "stored_size",
    "verify_store",
]
