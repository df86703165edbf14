"""Brings evidence.md up to date with the rows in results/: `python docs/write_evidence.py` in the project's folder.

Between ``<!-- claims SUITE -->`` or ``<!-- lines SUITE -->`` and the ``<!-- end -->`` that follows stands what
``twostream reproduce SUITE --out docs/results --table`` prints; the words around are written by hand. The drawing of a
suite's claims is images/claims_SUITE.svg.
"""

import re
import sys
from functools import cache
from importlib.resources import files
from pathlib import Path

from twostream.experiments.markdown import claims_markdown, lines_markdown, notes
from twostream.experiments.suite import Suite
from twostream.experiments.table import Table, make_table
from twostream.experiments.table_page import claim_dots
from twostream.reporting.figures import differences

DOCS = Path(__file__).parent
BLOCK = re.compile(r"(?P<begin><!-- (?P<part>claims|lines) (?P<suite>\w+) -->\n).*?(?P<end><!-- end -->)", re.DOTALL)


@cache
def table_of(name: str) -> Table:
    """Of a suite's committed rows."""
    suite = Suite.load(name)
    if suite.asks_for_data:
        # The rows know what their data are called; nothing is read of them.
        rows = sorted((DOCS / "results" / name / "rows").glob("*.json"))
        suite = Suite.load(name, data=re.search(r'"data": "([^"]+)"', rows[0].read_text())[1])
    return make_table(suite, DOCS / "results")


def up_to_date(text: str) -> str:
    """The page with the tables of today's rows."""

    def block(found: re.Match[str]) -> str:
        table = table_of(found["suite"])
        printed = claims_markdown(table) if found["part"] == "claims" else lines_markdown(table)
        said = "\n".join(f"- {note}" for note in notes(table))
        return f"{found['begin']}\n{printed}\n\n{said}\n\n{found['end']}"

    return BLOCK.sub(block, text)


def drawing(name: str) -> str:
    """A suite's claims as a picture of its own, in the colours of the pages."""
    css = files("twostream.reporting").joinpath("page.css").read_text(encoding="utf-8")
    colours = re.search(r":root \{.*?\n\}\n@media.*?\n\}\n", css, re.DOTALL)[0]
    style = f"<style>{colours} svg {{ font-family: system-ui, sans-serif; }}</style>"
    svg = differences(claim_dots(table_of(name).findings))
    begin, rest = svg.split(">", 1)
    width, height = (1.4 * float(side) for side in re.search(r'viewBox="0 0 (\S+) (\S+)"', begin).groups())
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    begin = begin.replace('<svg aria-hidden="true"', f'<svg {names} width="{width:.0f}" height="{height:.0f}"')
    return f'{begin}>{style}<rect width="100%" height="100%" fill="var(--page)"/>{rest}\n'


if __name__ == "__main__":
    evidence = DOCS / "evidence.md"
    text = evidence.read_text(encoding="utf-8")
    if "--check" in sys.argv:
        sys.exit(text != up_to_date(text) and "docs/evidence.md is behind docs/results: python docs/write_evidence.py")
    evidence.write_text(up_to_date(text), encoding="utf-8")
    for name in dict.fromkeys(found["suite"] for found in BLOCK.finditer(text) if found["part"] == "claims"):
        (DOCS / "images" / f"claims_{name}.svg").write_text(drawing(name), encoding="utf-8")
