"""docs/evidence.md shows what the committed rows say, and every row there is one its suite asks for."""

import json
import runpy
from pathlib import Path

import pytest

from twostream.experiments.suite import Suite

DOCS = Path(__file__).parent.parent / "docs"
SUITES = sorted(path.name for path in (DOCS / "results").iterdir())


def test_its_tables_are_those_of_the_rows() -> None:
    script = runpy.run_path(str(DOCS / "write_evidence.py"))
    page = (DOCS / "evidence.md").read_text(encoding="utf-8")
    shown = {found["suite"] for found in script["BLOCK"].finditer(page)}
    assert shown == set(SUITES), "every suite with rows is on the page"
    assert script["up_to_date"](page) == page, "python docs/write_evidence.py"
    assert "- left out: " not in page, "a row of another configuration than its suite's"


@pytest.mark.parametrize("name", SUITES)
def test_every_row_is_one_of_its_suite(name: str) -> None:
    files = sorted((DOCS / "results" / name / "rows").glob("*.json"))
    data = json.loads(files[0].read_text())["data"]
    suite = Suite.load(name, data=data) if Suite.load(name).asks_for_data else Suite.load(name)
    asked = {row.name: row.digest for row in suite.rows()}
    for file in files:
        row = json.loads(file.read_text())
        assert asked.get(file.stem) == row["digest"], file
        assert row["hits"]["videos"], f"{file} does not say which videos it got right"
