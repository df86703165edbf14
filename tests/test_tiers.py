"""Tiers: parts of a suite that fit some hardware."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from test_experiments import TINY, finish, some_scores
from twostream.cli import main
from twostream.experiments.markdown import table_markdown
from twostream.experiments.rows import SuiteFolder
from twostream.experiments.schema import SuiteError
from twostream.experiments.suite import Suite, shipped_suites
from twostream.experiments.table import make_table

VARIANTS: dict[str, Any] = {"late": {}, "longer": {"after": "late"}, "best": {"fuse": ["late", "longer"]}}
SMALL = {"hardware": "a laptop", "seeds": [0], "without": ["longer", "best"]}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """A suite with these tiers."""

    def to_file(**tiers: Any) -> Path:
        path = tmp_path / "tiny.yaml"
        values = {**TINY, "data": str(tmp_path / "gone"), "variants": VARIANTS, "seeds": [0, 1], "tiers": tiers}
        path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        return path

    return to_file


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"seeds": [0]}, "tiers: cpu: the key hardware is missing"),
        ({"hardware": "x", "seeds": [7]}, r"tiers\.cpu: no seed 7; there are 0, 1"),
        ({"hardware": "x", "without": ["bes"]}, r"tiers\.cpu: no variant is called 'bes'; did you mean best\?"),
        ({"hardware": "x", "without": ["q"]}, r"no variant is called 'q'; there are late, longer, best"),
        ({"hardware": "x", "without": ["longer"]}, r"tiers\.cpu: best starts from longer, which is left out"),
    ],
)
def test_mistakes_in_a_tier_are_named(write: Callable[..., Path], keys: dict[str, Any], message: str) -> None:
    with pytest.raises(SuiteError, match=message) as raised:
        Suite.load(write(cpu=keys))
    assert "tiny.yaml" in str(raised.value)


def test_a_tier_runs_its_rows_only(
    write: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = write(cpu=SMALL, full={"hardware": "a GPU"}), tmp_path / "out"
    arguments = ["reproduce", str(file), "--out", str(out)]
    assert main([*arguments, "--tier", "cpu"]) == 1
    said = capsys.readouterr().err
    assert "tiny: 1 rows, 0 finished" in said
    assert "late-seed0-split1 failed" in said
    assert main([*arguments, "--tier", "full"]) == 1
    assert "tiny: 6 rows, 0 finished" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tier", "gpu"], "has no tier 'gpu'; there are cpu"),
        (["--tier", "cpu", "--only", "late"], "--only and --seeds do not go with it"),
        (["--tier", "cpu", "--table"], "--table runs nothing"),
        (["--tier", "cpu", "--dry-run"], "--dry-run tries the whole suite"),
    ],
)
def test_wrong_calls(
    write: Callable[..., Path], words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reproduce", str(write(cpu=SMALL)), *words]) == 2
    assert message in capsys.readouterr().err


def test_the_table_says_how_much_of_a_tier_is_there(write: Callable[..., Path], tmp_path: Path) -> None:
    suite = Suite.load(write(cpu=SMALL, full={"hardware": "a GPU"}))
    folder = SuiteFolder(suite, tmp_path)
    rows = {(row.variant, row.seed): row for row in suite.rows()}
    finish(folder, rows["late", 0], some_scores([True] * 4), cost={"seconds": 60.0, "cpu_seconds": 90.0})
    finish(folder, rows["late", 1], some_scores([True] * 4), cost={"seconds": 30.0, "cpu_seconds": None})
    text = table_markdown(make_table(suite, tmp_path))
    assert "- `--tier cpu`, for a laptop (seed 0, without longer, best): 1 of 1 rows, 90 s of processor time" in text
    assert "- `--tier full`, for a GPU (2 seeds): 2 of 6 rows, 2 min 0 s of processor time" in text


def test_the_tiers_for_two_cores_take_one_seed() -> None:
    for name in ("ut_interaction", "body_gesture"):
        tiers = Suite.load(shipped_suites()[name], data="d").tiers
        assert tiers["cpu"].seeds == (0,)
        assert (tiers["full"].seeds, tiers["full"].without) == ((), ())
