"""The house's import rules, held true by reading the source: arrows point down, and each room knows its own."""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import twostream

ROOT = Path(twostream.__file__).parent

# What each room may import of ours, beside itself. The rooms of layer 0 are open to all.
BOTTOM = {"clip", "errors", "files", "processes", "units", "version", "work_claims"}
ROOMS: dict[str, set[str]] = {
    "clip": {"errors", "files"},
    "errors": set(),
    "files": {"errors"},
    "processes": set(),
    "units": set(),
    "version": set(),
    "work_claims": {"files"},
    "layers": set(),
    "video": set(),
    "attention": set(),
    "weights": set(),
    "flow": {"video"},
    "models": {"layers", "weights"},
    "data": {"video", "flow"},
    "checkpoint": {"models", "weights"},
    "evaluation": {"data", "flow"},
    "runs": {"video", "flow", "data", "checkpoint", "evaluation"},
    "run_calibration": {"checkpoint", "evaluation", "runs"},
    "training": {"data", "flow", "models", "weights", "checkpoint", "evaluation", "runs"},
    "prediction": {"attention", "video", "flow", "data", "checkpoint", "evaluation"},
    "explain": {"attention", "video", "flow", "data", "checkpoint", "evaluation", "prediction", "runs"},
    "reporting": {"attention", "video", "flow", "evaluation"},
}
_FIVE_AND_BELOW = set(ROOMS)
ROOMS |= {
    "console": set(),
    "experiments": _FIVE_AND_BELOW,
    "demo": _FIVE_AND_BELOW,
    "commands": _FIVE_AND_BELOW | {"console", "experiments", "demo"},
    "cli": {"commands"},
}

# A room's permission that only some of its files have: (room, imported room) -> files.
ONLY_IN = {
    ("flow", "video"): {f"flow/{name}.py" for name in ("extract", "forecast", "jobs", "preview", "streaming")},
    # the other two read names and text files of other people by the rules that lists of videos are read by
    ("evaluation", "data"): {f"evaluation/{name}.py" for name in ("protocols", "score_tables", "video_names")},
    # protocols names the store that it hands on to the data set
    ("evaluation", "flow"): {"evaluation/protocols.py"},
    # clips of new videos are read as for a prediction
    ("explain", "prediction"): {"explain/shown.py"},
}

# Libraries that one room keeps to itself, so that it can be replaced.
KEPT = {
    "captum": {"explain"},
    "jsonargparse": {"commands", "training"},
    "lightning": {"training"},
    "ray": {"flow"},
    "rich": {"console", "training"},
}


@dataclass(frozen=True)
class Import:
    """One imported module; ``lazy`` inside a function or a type-checking block."""

    file: str
    line: int
    module: str
    lazy: bool
    relative: bool
    front_door: str = ""

    @property
    def place(self) -> str:
        return f"src/twostream/{self.file}:{self.line}"


def sources() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def room_of(file: str) -> str:
    return file.split("/")[0].removesuffix(".py")


def is_module(name: str) -> bool:
    path = ROOT.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or path.is_dir()


def imports(path: Path) -> Iterator[Import]:
    file = path.relative_to(ROOT).as_posix()
    tree = ast.parse(path.read_text("utf-8"))
    lazy = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, node.lineno, alias.name, id(node) in lazy, False)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            for alias in node.names:
                # `from twostream.flow import store` names a file, `from twostream.flow import FlowStore` a front door
                full = f"{module}.{alias.name}"
                named = full if module.startswith("twostream") and is_module(full) else module
                door = module if named == module and (ROOT.parent / module.replace(".", "/")).is_dir() else ""
                yield Import(file, node.lineno, named, id(node) in lazy, node.level > 0, door)


ALL = [found for path in sources() for found in imports(path)]
OURS = [found for found in ALL if found.module.split(".")[0] == "twostream"]


def test_every_module_has_its_place_in_the_table() -> None:
    unplaced = sorted({room_of(p.relative_to(ROOT).as_posix()) for p in sources()} - set(ROOMS) - {"__init__"})
    assert not unplaced, f"say in ROOMS (tests/test_layering.py) what these may import: {unplaced}"
    for room, may in ROOMS.items():
        assert may <= set(ROOMS), f"{room} may import rooms that the table does not have"


def test_the_table_points_down() -> None:
    list(graphlib.TopologicalSorter(ROOMS).static_order())  # raises CycleError


def test_rooms_import_only_what_is_below_them() -> None:
    wrong = []
    for found in OURS:
        room, target = room_of(found.file), [*found.module.split("."), ""][1]
        if found.file == "__init__.py" or not target or room == target:
            continue
        allowed = ROOMS[room] | (BOTTOM if room not in BOTTOM else set())
        files = ONLY_IN.get((room, target), {found.file})
        if target not in allowed:
            wrong.append(f"{found.place}: {room} may not import {target}")
        elif found.file not in files:
            wrong.append(f"{found.place}: within {room} only {', '.join(sorted(files))} may import {target}")
    assert not wrong, "\n".join(wrong)


def test_siblings_are_imported_by_file() -> None:
    wrong = [
        f"{found.place}: through the front door of {found.front_door}; import from the file that has the name"
        for found in OURS
        if found.file != "__init__.py"
        and (
            found.front_door == "twostream" or (found.front_door + ".").startswith(f"twostream.{room_of(found.file)}.")
        )
    ]
    wrong += [f"{found.place}: a relative import" for found in ALL if found.relative]
    assert not wrong, "\n".join(wrong)


def test_files_do_not_import_each_other_in_circles() -> None:
    graph: dict[str, set[str]] = {}
    for found in OURS:
        if not found.lazy:
            name = "twostream." + found.file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            graph.setdefault(name, set()).add(found.module)
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError


@pytest.mark.parametrize("path", [p for p in sources() if p.name == "__init__.py"], ids=lambda p: p.parent.name)
def test_front_doors_only_hand_names_on(path: Path) -> None:
    def is_handing_on(node: ast.stmt) -> bool:
        match node:
            case ast.Import() | ast.ImportFrom():
                return True
            case ast.Expr(value=ast.Constant(value=str())):  # the docstring
                return True
            case ast.Assign(targets=[ast.Name(id="__all__" | "_HOMES")]):
                return True
            case ast.If() if ast.unparse(node.test) == "TYPE_CHECKING":
                return all(is_handing_on(inner) for inner in node.body) and not node.orelse
            case ast.FunctionDef(name="__getattr__" | "__dir__"):  # the lazy front door
                return True
        return False

    body = ast.parse(path.read_text("utf-8")).body
    assert isinstance(body[0], ast.Expr), f"{path} needs a docstring that says what the room holds"
    wrong = [f"{path}:{node.lineno}: {ast.unparse(node)[:60]}" for node in body if not is_handing_on(node)]
    assert not wrong, "code belongs into a file with a name:\n" + "\n".join(wrong)


def test_libraries_that_one_room_keeps() -> None:
    wrong = [
        f"{found.place}: {found.module} belongs to {sorted(rooms)}"
        for found in ALL
        for library, rooms in KEPT.items()
        if found.module.split(".")[0] == library and room_of(found.file) not in rooms
    ]
    assert not wrong, "\n".join(wrong)


def test_the_command_line_imports_lazily() -> None:
    light = {"errors", "files", "units", "version", "commands"}
    heavy = [
        f"{found.place}: {found.module}"
        for found in OURS
        if room_of(found.file) in ("cli", "commands") and not found.lazy and found.module.split(".")[1] not in light
    ]
    assert not heavy, "\n".join(heavy)


def test_nothing_imports_the_command_line() -> None:
    assert not [f.place for f in OURS if f.module == "twostream.cli"]


LIGHT = """
import sys
import twostream
import twostream.errors, twostream.files, twostream.units, twostream.version
heavy = {"torch", "numpy", "cv2", "av", "lightning", "matplotlib"} & set(sys.modules)
assert not heavy, f"import twostream loads {heavy}"
assert set(twostream.__all__) <= set(dir(twostream))
assert twostream.__version__
try:
    twostream.nonsense
except AttributeError as error:
    assert "has no attribute 'nonsense'" in str(error)
else:
    raise AssertionError("no error")
import twostream.cli
assert "torch" not in sys.modules, "the command line loads torch before a command is known"
"""


def test_importing_the_package_is_light() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_lazy_names_are_where_the_front_door_says() -> None:
    for name in twostream.__all__:
        assert getattr(twostream, name) is not None
