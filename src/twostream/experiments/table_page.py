"""The table and the claims as one page that can be sent to somebody."""

from collections.abc import Sequence
from pathlib import Path

from twostream.experiments.evidence import Finding
from twostream.experiments.markdown import (
    PARTS_EXPLANATION,
    claims_explanation,
    claims_grid,
    explanation,
    grid,
    is_beside,
    lines_with_parts,
    notes,
    parts_grid,
    short_names,
)
from twostream.experiments.table import Line, Table
from twostream.files import write_text
from twostream.reporting import page
from twostream.reporting.figures import Dot, differences, dots
from twostream.reporting.page import Markup, tag
from twostream.version import __version__


def write_table_page(table: Table, path: Path) -> None:
    """Write the page, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    write_text(path, render(table))


def render(table: Table) -> str:
    """The page as text."""
    suite = table.suite
    header, *rows = grid(table)
    cells = _emphasised(rows, is_beside(table))
    parts = [page.section("Accuracy", *_charts(table), page.table("Top-1 of every line", header, cells))]
    if suite.parts:
        columns, *lines = parts_grid(table)
        beside = [line.reference for line in lines_with_parts(table)]
        parts.append(page.section("By part", page.table(PARTS_EXPLANATION, columns, _emphasised(lines, beside))))
    if table.findings:
        parts.insert(0, _claims(table))
    return page.document(
        f"{suite.title} - twostream suite",
        tag("p", f"twostream suite {suite.name}", class_="over"),
        tag("h1", suite.title),
        tag("p", explanation(table), class_="lead"),
        *parts,
        page.section("Where this comes from", page.paragraphs(notes(table), class_="notes")),
        tag("footer", f"Made by twostream {__version__}. This page holds all it shows and loads nothing."),
    )


def _emphasised(rows: Sequence[Sequence[str]], which: Sequence[bool]) -> list[list[str | Markup]]:
    return [[tag("em", row[0]) if beside else row[0], *row[1:]] for row, beside in zip(rows, which, strict=True)]


def _claims(table: Table) -> Markup:
    header, *rows = claims_grid(table)
    cells = [
        [*row[:-1], tag("span", row[-1], class_=_CLASSES.get(finding.verdict))]
        for finding, row in zip(table.findings, rows, strict=True)
    ]
    said = _count(table.findings)
    return page.section(
        "Claims",
        tag("p", said),
        *_claims_chart(table.findings),
        page.table("Every claim", header, cells),
        tag("p", claims_explanation(table), class_="note"),
    )


def claim_dots(findings: Sequence[Finding]) -> list[Dot]:
    """Those claims that were run, in grey where they do not hold."""
    return [
        Dot(found.claim, found.difference, _bounds(found), aside=found.verdict != "holds")
        for found in findings
        if found.difference is not None
    ]


def _bounds(found: Finding) -> tuple[float, float] | None:
    return None if found.low is None or found.high is None else (found.low, found.high)


def _claims_chart(findings: Sequence[Finding]) -> list[Markup]:
    drawn = claim_dots(findings)
    if not drawn:
        return []
    described = "; ".join(f"{dot.label} {100 * dot.value:+.0f}" for dot in drawn)
    title = "Differences in percentage points with corrected intervals; filled where the claim holds"
    return [page.chart(differences(drawn), title=title, description=described)]


_CLASSES = {"holds": "right", "does not hold": "wrong"}


def _count(findings: Sequence[Finding]) -> str:
    verdicts = [finding.verdict for finding in findings]
    counts = [f"{verdicts.count(verdict)} {verdict}" for verdict in dict.fromkeys(verdicts)]
    return f"Of {len(verdicts)}: {', '.join(counts)}."


def _charts(table: Table) -> list[Markup]:
    """A drawing for each data set, of the lines that are there."""
    drawn = []
    for data in dict.fromkeys(line.data for line in table.lines):
        lines = [line for line in table.lines if line.data == data and line.top1 is not None]
        if not lines:
            continue
        described = "; ".join(f"{dot.label} {dot.value:.3f}" for dot in map(_dot, lines))
        shown = short_names(table.suite).get(data, data)
        title = f"Top-1 with 95 % intervals{f', {shown}' if shown else ''}"
        drawn.append(page.chart(dots([_dot(line) for line in lines]), title=title, description=described))
    return [tag("div", *drawn, class_="charts")] if drawn else []


def _dot(line: Line) -> Dot:
    assert line.top1 is not None
    return Dot(line.label, line.top1, line.interval, aside=line.reference)
