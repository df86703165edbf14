"""The table and the claims as Markdown, and their cells as text."""

from collections.abc import Iterator, Sequence

from twostream.data.leave_one_out import Fold
from twostream.evaluation.statistics import RESAMPLES
from twostream.experiments.evidence import Finding
from twostream.experiments.suite import MotionShapes, Suite
from twostream.experiments.table import Line, Table, Versus
from twostream.units import seconds_text


def table_markdown(table: Table) -> str:
    """The table for people."""
    text = [f"### {table.suite.title}", "", lines_markdown(table), ""]
    if table.findings:
        text += ["#### Claims", "", claims_markdown(table), ""]
    return "\n".join([*text, *(f"- {note}" for note in notes(table))])


def lines_markdown(table: Table) -> str:
    """A line a variant, under what the figures are; and once more over parts of the test videos, if there are."""
    text = [explanation(table), "", *_piped(_emphasised(grid(table), is_beside(table)), right=True)]
    if table.suite.parts:
        of_parts = _emphasised(parts_grid(table), [line.reference for line in lines_with_parts(table)])
        text += ["", PARTS_EXPLANATION, "", *_piped(of_parts, right=True)]
    return "\n".join(text)


def _emphasised(lines: list[list[str]], which: Sequence[bool]) -> list[list[str]]:
    header, *rows = lines
    return [header, *([f"*{row[0]}*" if beside else row[0], *row[1:]] for row, beside in zip(rows, which, strict=True))]


def claims_markdown(table: Table) -> str:
    """A line a claim, under what the figures are."""
    return "\n".join([claims_explanation(table), "", *_piped(claims_grid(table), right=False)])


def grid(table: Table) -> list[list[str]]:
    """The header and a row a line, then what others print."""
    suite = table.suite
    several = len({line.data for line in table.lines}) > 1
    splits = [str(split) for split in suite.splits]
    compared = any(line.versus for line in table.lines)
    over_bar = any(line.over_bar for line in table.lines)
    bounds = any(line.interval for line in table.lines)
    header = ["", *(["data"] if several else []), *(_heading(split) for split in splits)]
    header += ["mean"] if len(splits) > 1 else []
    mean = len(header) - 1
    header += ["95 % interval"] if bounds else []
    header += ["spread", "mean class", "steps", "training", "rows"]
    header += [f"against {suite.baseline}"] if compared else []
    header += [f"against {str(suite.bar).replace('_', ' ')}"] if over_bar else []
    shown = short_names(suite)
    rows = [header]
    for line in table.lines:
        cells = [line.label]
        cells += [shown.get(line.data, line.data or "")] if several else []
        cells += [_number(line.splits.get(split), "missing") for split in splits]
        cells += [_number(line.top1, "")] if len(splits) > 1 else []
        cells += [_interval_text(line.interval)] if bounds else []
        cells += ["" if line.spread is None else f"± {line.spread:.3f} over {line.spread_over}"]
        cells += [_number(line.mean_class, "")]
        cells += ["" if line.steps is None else f"{line.steps:.0f}"]
        cells += ["" if line.training_seconds is None else seconds_text(line.training_seconds)]
        cells += ["" if line.reference else f"{line.rows} of {line.of}"]
        cells += [_versus_text(line.versus)] if compared else []
        cells += [_versus_text(line.over_bar)] if over_bar else []
        rows.append(cells)
    for figure in suite.published:
        cells = [f"{figure.what}, published ({figure.sureness})", *[""] * (len(header) - 1)]
        cells[mean] = _number(figure.top1, "")
        rows.append(cells)
    return rows


PARTS_EXPLANATION = "Top-1 on parts of the test videos, those of all rows counted together."


def parts_grid(table: Table) -> list[list[str]]:
    """The header and a row for each line of which it is known, over parts of the test videos."""
    parts = list(table.suite.parts)
    lines = lines_with_parts(table)
    return [["", *parts], *([line.label, *(_number(line.parts[part], "") for part in parts)] for line in lines)]


def lines_with_parts(table: Table) -> list[Line]:
    """Those of which it is known which videos they got right."""
    return [line for line in table.lines if any(value is not None for value in line.parts.values())]


def is_beside(table: Table) -> list[bool]:
    """Of each row of the grid, whether it is no result of the suite: a reference, or what others print."""
    return [*(line.reference for line in table.lines), *(True for _ in table.suite.published)]


def explanation(table: Table) -> str:
    """What the table's figures are."""
    suite = table.suite
    over = ""
    if len(suite.seeds) > 1:
        some = any(line.rows < line.of for line in table.lines if not line.reference)
        over = (
            f", mean over those of {len(suite.seeds)} seeds that are there"
            if some
            else f", mean over {len(suite.seeds)} seeds"
        )
    others: dict[str, list[str]] = {}
    for variant, protocol in {row.variant: row.protocol for row in suite.rows()}.items():
        if protocol != suite.protocol:
            others.setdefault(protocol, []).append(variant)
    but = "".join(f", {', '.join(variants)} by {protocol}" for protocol, variants in others.items())
    explained = [f"Top-1 on the test videos by the protocol {suite.protocol}{but}{over}."]
    if suite.leaves_one_out:
        explained.append("Each group is left out once; the mean counts the videos of all of them together.")
    if any(row.after for row in suite.rows()):
        explained.append("Steps and time of training count all stages.")
    compared = [versus for line in table.lines for versus in (line.versus, line.over_bar) if versus]
    bounds = [line.interval for line in table.lines if line.interval]
    if len(suite.splits) > 1 and not suite.leaves_one_out and bounds:
        explained.append("The interval is that of the accuracy over the videos of all splits together.")
    if compared:
        explained.append("Differences with their 95 % interval.")
    if reserves := list(dict.fromkeys(versus.reserve for versus in compared if versus.reserve)):
        explained.append(f"They rest on {' or '.join(reserves)}, and say little of others.")
    return " ".join(explained)


def claims_grid(table: Table) -> list[list[str]]:
    """The header and a row a claim."""
    header = ["claim", "against", "difference", "corrected interval", "adjusted p", "seeds", "result"]
    return [header, *([*_finding_cells(finding)] for finding in table.findings)]


def claims_explanation(table: Table) -> str:
    """What the claims' figures are, and when one holds."""
    m = len(table.findings)
    level = f"{100 * table.findings[0].level:.2f}".rstrip("0").rstrip(".")
    least = 2 / (RESAMPLES + 1)
    return (
        f"{m} claim{'s' * (m > 1)}, paired video by video; groups (videos where there are none) and seeds are "
        f"resampled crossed. Each interval is one at {level} % (1 - 0.05 / {m}), so that all hold together with 95 % "
        "(Bonferroni). A claim holds where the difference is above 0 and p, two-sided and adjusted by Holm for all "
        f"claims of the suite, is at most 0.05; from {RESAMPLES:,} resamples no p comes out below {least:.4f}, "
        f"adjusted {m * least:.4f}. With fewer than six seeds nothing is said."
    )


def notes(table: Table) -> list[str]:
    """What has to be said besides, and the command."""
    published = [figure.note() for figure in table.suite.published]
    claims: dict[str, list[str]] = {}
    for finding in table.findings:
        if finding.note:
            claims.setdefault(finding.note, []).append(finding.claim)
    of_claims = [f"{of[0] if len(of) == 1 else f'{len(of)} claims'}: {note}" for note, of in claims.items()]
    return [*published, *table.notes, *of_claims, f"made by `{table.suite.command()}`"]


def _finding_cells(finding: Finding) -> Iterator[str]:
    yield finding.claim
    yield finding.against
    yield "" if finding.difference is None else f"{finding.difference:+.3f}"
    yield "" if finding.low is None else f"{finding.low:+.3f} to {finding.high:+.3f}"
    yield "" if finding.adjusted_p is None else f"{finding.adjusted_p:.4f}"
    yield f"{finding.seeds} of {finding.of_seeds}"
    yield finding.verdict


def _piped(rows: list[list[str]], *, right: bool) -> list[str]:
    # A bar in a text would end its cell.
    header, *rows = [[cell.replace("|", "\\|") for cell in cells] for cells in rows]
    rule = ["---", *("---:" if right else "---" for _ in header[1:])]
    return ["| " + " | ".join(cells) + " |" for cells in (header, rule, *rows)]


def _heading(split: str) -> str:
    fold = Fold.parse(split)
    return f"group {fold.test}" if fold else f"split {split}"


def _number(value: float | None, absent: str) -> str:
    return absent if value is None else f"{value:.3f}"


def _interval_text(bounds: tuple[float, float] | None) -> str:
    return "" if bounds is None else f"{bounds[0]:.3f} to {bounds[1]:.3f}"


def _versus_text(versus: Versus | None) -> str:
    if versus is None:
        return ""
    return f"{versus.difference:+.3f} ({versus.low:+.3f} to {versus.high:+.3f})"


def short_names(suite: Suite) -> dict[str | None, str]:
    """Generated data by the set's name alone, where that says which."""
    data = suite.data_sets()
    sets = [shapes.set for shapes in data.values() if isinstance(shapes, MotionShapes)]
    return {
        name: shapes.set
        for name, shapes in data.items()
        if isinstance(shapes, MotionShapes) and sets.count(shapes.set) == 1
    }
