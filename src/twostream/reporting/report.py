"""One self-contained page about one or several runs, made from the files they left; needs no model and no GPU."""

import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from twostream.errors import UsageError
from twostream.files import write_text
from twostream.reporting import page
from twostream.reporting.page import Markup, tag
from twostream.reporting.run_files import RunFiles, Sample, read_run
from twostream.reporting.sections import comparison, lead, run_sections
from twostream.version import __version__


def write_report(runs: Sequence[Path | str], out: Path | str | None = None) -> Path:
    """Write the page about ``runs`` to ``out``, by default ``report.html`` in the first run's folder.

    What a run lacks (scores before the first evaluation, videos or flow that have moved) is said on the page. Several
    runs are compared with the first one, video by video; of runs on different splits of one data set the mean is taken.

    Raises:
        UsageError: no runs were named.
        ReportError: a folder that is not a run.
        OutputError: the page cannot be written.
    """
    files = read_runs(runs)
    target = files[0].path / "report.html" if out is None else Path(out)
    write_text(target, render(files))
    return target


def read_runs(runs: Sequence[Path | str]) -> list[RunFiles]:
    """What lies in the run folders, each with a name that tells it from the others.

    Raises:
        UsageError: no runs were named.
        ReportError: a folder that is not a run.
    """
    if not runs:
        raise UsageError("no runs were named; give at least one run folder")
    paths = [Path(run) for run in runs]
    return [read_run(path, name) for path, name in zip(paths, _names(paths), strict=True)]


def render(runs: Sequence[RunFiles]) -> str:
    """The page as text."""
    if len(runs) == 1:
        title = runs[0].name
        sections = run_sections(runs[0])
        links = {name: name.capitalize() for name in sections}
        head: list[Markup] = [lead(runs[0])]
        body = list(sections.values())
    else:
        title = f"{len(runs)} runs compared"
        links = {"comparison": "Comparison"}
        head, body = [], [comparison(runs)]
        seen: list[tuple[tuple[str, ...], dict[str, tuple[Sample, ...]], str]] = []
        for number, run in enumerate(runs, 1):
            # The same data need to be looked at once only.
            same = next((name for *data, name in seen if run.parts and data == [run.classes, run.parts]), None)
            seen.append((run.classes, dict(run.parts), run.name))
            parts = run_sections(run, level=3, prefix=f"run{number}-", same_data_as=same)
            body.append(page.section(run.name, lead(run), *parts.values(), id_=f"run{number}"))
            links[f"run{number}"] = run.name
    items = [tag("li", tag("a", name, href=f"#{target}")) for target, name in links.items()]
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return page.document(
        f"{title} - twostream report",
        tag("p", "twostream report", class_="over"),
        tag("h1", title),
        *head,
        tag("nav", tag("ul", *items), aria_label="Contents"),
        *body,
        tag(
            "footer",
            f"Made by twostream {__version__} on {made}, Python {platform.python_version()} on {platform.system()} "
            f"{platform.machine()}. This page holds all it shows: it loads nothing and can be sent as one file.",
        ),
    )


def _names(paths: Sequence[Path]) -> list[str]:
    """The folders' names, with as many folders above as it takes to tell them apart."""
    parts = [path.resolve().parts for path in paths]
    deepest = max(len(place) for place in parts)
    for depth in range(1, deepest + 1):
        names = ["/".join(place[-depth:]) for place in parts]
        if len(set(names)) == len(set(parts)):
            break
    return names
