"""Claims of a suite: what its file may say, what rows say of them, and how they are shown."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from test_experiments import TINY, finish, some_scores
from twostream.cli import main
from twostream.evaluation.statistics import CrossedMean
from twostream.experiments.evidence import accuracy_bounds, difference, reserve
from twostream.experiments.hits import Hits
from twostream.experiments.markdown import table_markdown
from twostream.experiments.rows import Finished, SuiteFolder, figures_of, reference_asked
from twostream.experiments.schema import SuiteError
from twostream.experiments.suite import Suite
from twostream.experiments.table import make_table, table_json
from twostream.experiments.table_page import render

SHAPES = {"motion_shapes": {"set": "conjunction", "train": 2, "test": 2}}
VARIANTS: dict[str, Any] = {
    "late": {},
    "spatial": {"model": "spatial_resnet18"},
    "made": {"data": SHAPES},
}


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Suite]:
    """A suite with these claims."""

    def loaded(*claims: dict[str, Any], **keys: Any) -> Suite:
        path = tmp_path / "tiny.yaml"
        values = {**TINY, "data": "clips", "variants": VARIANTS, "claims": list(claims), **keys}
        path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        return Suite.load(path)

    return loaded


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ({"better": "late", "worse": "spatial"}, "claims: the key claim is missing"),
        ({"claim": "c", "bettr": "late"}, "claims: unknown key bettr; did you mean better?"),
        ({"claim": "c", "better": "late"}, "'c' needs either worse, a variant, or above, a figure"),
        ({"claim": "c", "better": "late", "worse": "spatial", "above": 0.5}, "'c' needs either worse"),
        ({"claim": "c", "better": "late", "above": 75}, r"'c': above is ceiling, chance or a share of 0\.\.1, got 75"),
        ({"claim": "c", "better": "late", "above": "luck"}, "above must be ceiling or chance or a number or null"),
        ({"claim": "c", "better": "late", "worse": "late"}, "'c' compares late with itself"),
        ({"claim": "c", "better": "late", "above": 0.5, "worse_stream": "motion"}, "'c' has a worse_stream without"),
        ({"claim": "c", "better": "lat", "above": 0.5}, "claims: 'c': no variant is called 'lat'; did you mean late?"),
        (
            {"claim": "c", "better": "late", "worse": "x"},
            "'c': no variant is called 'x'; there are late, spatial, made",
        ),
        (
            {"claim": "c", "better": "late", "stream": "fused", "above": 0.5},
            "'c': late has no stream 'fused' beside others; its streams are appearance, motion",
        ),
        (
            {"claim": "c", "better": "late", "worse": "spatial", "worse_stream": "appearance"},
            "'c': spatial has no stream 'appearance' beside others; its streams are appearance",
        ),
        (
            {"claim": "c", "better": "late", "worse": "made"},
            "'c': late is judged on clips and made on conjunction-train2-test2; only answers on the same videos",
        ),
        (
            {"claim": "c", "better": "late", "above": "ceiling"},
            "'c': a ceiling is known for generated videos only, and late is judged on clips",
        ),
    ],
)
def test_mistakes_in_a_claim_are_named(load: Callable[..., Suite], claim: dict[str, Any], message: str) -> None:
    with pytest.raises(SuiteError, match=message) as raised:
        load(claim)
    assert "tiny.yaml" in str(raised.value)


def test_a_claim_stands_once(load: Callable[..., Suite]) -> None:
    claim = {"claim": "c", "better": "late", "above": 0.5}
    with pytest.raises(SuiteError, match="'c' stands twice"):
        load(claim, {**claim, "above": 0.6})


# What rows say of claims

BOTH = {"claim": "Both know more", "better": "late", "worse": "spatial"}
BACK = {"claim": "One knows more", "better": "spatial", "worse": "late"}
EASY = {"claim": "Better than chance", "better": "late", "above": "chance"}
SAME = {"claim": "Moves know more than looks", "better": "late", "stream": "motion", "worse": "late"}
SAME |= {"worse_stream": "appearance"}
MADE = {"claim": "More than late fusion can", "better": "made", "above": "ceiling"}
GROUPS = tuple(f"p{n // 4}" for n in range(40))


def rows_of(suite: Suite, out: Path, *, skip: tuple[str, ...] = ("made",), groups: tuple[str, ...] = GROUPS) -> None:
    """Late fusion right on nine of ten videos, appearance alone on six, others in each seed; seeds differ a little."""
    for row in suite.rows():
        if row.variant not in skip:
            rng = np.random.default_rng(row.seed)
            share = {"late": 0.9, "spatial": 0.6, "made": 0.95}[row.variant]
            finish(SuiteFolder(suite, out), row, some_scores([*(rng.random(40) < share).tolist()], groups))


def test_claims_hold_do_not_hold_or_were_not_run(load: Callable[..., Suite], tmp_path: Path) -> None:
    suite = load(BOTH, BACK, EASY, SAME, MADE, seeds=[*range(6)])
    rows_of(suite, tmp_path)
    # As on another machine.
    for scores in tmp_path.rglob("*.npz"):
        scores.unlink()
    table = make_table(suite, tmp_path)
    both, back, easy, same, made = table.findings
    assert [f.verdict for f in table.findings] == ["holds", "does not hold", "holds", "does not hold", "not run"]
    means = {line.variant: line.top1 for line in table.lines}
    assert both.difference == pytest.approx(means["late"] - means["spatial"])
    assert (both.level, both.seeds, both.of_seeds, both.units) == (pytest.approx(0.99), 6, 6, 10)
    assert both.method == "bootstrap over 10 groups and 6 seeds"
    assert both.low is not None
    assert 0 < both.low < both.difference
    assert (back.difference, back.low, back.high) == (-both.difference, -both.high, -both.low)
    assert (easy.against, easy.difference) == ("chance 0.500", pytest.approx(means["late"] - 0.5))
    assert (same.difference, same.p_value, same.adjusted_p) == (0.0, 1.0, 1.0)
    assert same.against == "late, appearance alone"
    assert (made.against, made.difference, made.adjusted_p, made.seeds) == ("ceiling 0.750", None, None, 0)
    # The smallest of five counts five times, though one of them was not run.
    assert both.p_value is not None
    assert both.adjusted_p == pytest.approx(5 * both.p_value)


def test_a_ceiling_and_a_stated_figure(load: Callable[..., Suite], tmp_path: Path) -> None:
    stated = {"claim": "Nine of ten", "better": "made", "above": "9.9e-1"}
    suite = load(MADE, stated, seeds=[*range(6)])
    rows_of(suite, tmp_path, skip=("late", "spatial"), groups=())
    made, nine = make_table(suite, tmp_path).findings
    assert (made.against, made.verdict, made.method) == (
        "ceiling 0.750",
        "holds",
        "bootstrap over 40 videos and 6 seeds",
    )
    assert (nine.against, nine.verdict) == ("a figure 0.990", "does not hold")
    assert made.difference == pytest.approx(nine.difference + 0.24)


def test_few_seeds_or_groups_say_nothing(load: Callable[..., Suite], tmp_path: Path) -> None:
    suite = load(BOTH, seeds=[*range(7)])
    rows_of(suite, tmp_path)
    folder = SuiteFolder(suite, tmp_path)
    for row in suite.rows():
        if row.seed > 4:
            folder.row_file(row).unlink(missing_ok=True)
    (few,) = make_table(suite, tmp_path).findings
    assert (few.verdict, few.seeds, few.of_seeds, few.note) == ("too few seeds to say", 5, 7, "5 seeds only")
    assert few.difference is not None
    text = table_markdown(make_table(suite, tmp_path))
    assert "| 5 of 7 | too few seeds to say |" in text
    assert "- Both know more: 5 seeds only" in text
    rows_of(suite, tmp_path, groups=tuple("pq"[n % 2] for n in range(40)))
    (few,) = make_table(suite, tmp_path).findings
    assert (few.verdict, few.note) == ("too few units to say", "2 units only")


def test_what_an_interval_rests_on() -> None:
    def found(seeds: int, units: int) -> CrossedMean:
        return CrossedMean(value=0, low=0, high=0, level=0.95, p_value=1, seeds=seeds, units=units, method="by hand")

    assert reserve(found(6, 6)) is None
    assert reserve(found(1, 60)) == "1 seed only"
    assert reserve(found(5, 2)) == "5 seeds and 2 units only"


def test_claims_on_rows_that_cannot_be_compared(load: Callable[..., Suite], tmp_path: Path) -> None:
    suite = load(BOTH)
    rows_of(suite, tmp_path)
    folder, (late, spatial, _) = SuiteFolder(suite, tmp_path), suite.rows()
    finish(folder, late, some_scores([True] * 39))
    (finding,) = make_table(suite, tmp_path).findings
    assert finding.verdict == "not run"
    assert finding.note == "seed 0, split 1: 1 videos were judged by one only: v39"
    finished = finish(folder, spatial, some_scores([True] * 39), hits=None)
    assert make_table(suite, tmp_path).findings[0].difference == 0.0
    (folder.path / str(finished.scores_file)).unlink()
    (finding,) = make_table(suite, tmp_path).findings
    assert finding.verdict == "not run"
    assert finding.note == "rows that are there do not say which videos they got right, nor are their scores here"


def test_a_perfect_line_is_not_certain(load: Callable[..., Suite], tmp_path: Path) -> None:
    suite = load(seeds=[0, 1], streams=True)
    for row in suite.rows():
        finish(SuiteFolder(suite, tmp_path), row, some_scores([True] * 40, GROUPS))
    bounds = make_table(suite, tmp_path).lines[0].interval
    assert bounds == (pytest.approx(0.7225, abs=1e-4), 1.0), "Wilson's for ten of ten groups"


# How they are shown


def test_markdown_json_and_page(load: Callable[..., Suite], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite = load(
        {**BOTH, "claim": "Both <know> a|b"}, MADE, seeds=[*range(6)], baseline="spatial", title="A <b>bold</b> suite"
    )
    rows_of(suite, tmp_path)
    page = tmp_path / "pages" / "tiny.html"
    call = ["reproduce", str(suite.source), "--out", str(tmp_path), "--table"]
    assert main([*call, "--html", str(page), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    both, made = document["claims"]
    assert (both["verdict"], made["verdict"]) == ("holds", "not run")
    assert document == {**json.loads(json.dumps(table_json(make_table(suite, tmp_path)))), "failed": {}}
    assert main(call) == 0
    text = capsys.readouterr().out
    difference, interval = f"{both['difference']:+.3f}", f"{both['low']:+.3f} to {both['high']:+.3f}"
    row = f"| Both <know> a\\|b | spatial | {difference} | {interval} | {both['adjusted_p']:.4f} | 6 of 6 | holds |"
    assert row in text
    assert "| More than late fusion can | ceiling 0.750 |  |  |  | 0 of 6 | not run |" in text
    assert "2 claims, paired" in text
    assert "at 97.5 % (1 - 0.05 / 2)" in text
    written = page.read_text(encoding="utf-8")
    assert written == render(make_table(suite, tmp_path))
    assert "<h1>A &lt;b&gt;bold&lt;/b&gt; suite</h1>" in written
    assert "Both &lt;know&gt; a|b" in written
    assert '<span class="right">holds</span>' in written
    assert "Of 2: 1 holds, 1 not run." in written
    assert interval in written
    assert written.count("<svg") == 2, "the claims and one data set; nothing is drawn of data without rows"
    assert f"intervals; filled where the claim holds: Both &lt;know&gt; a|b {100 * both['difference']:+.0f}" in written
    assert "http://" not in written
    assert "https://" not in written


def test_a_page_that_cannot_be_written_is_told_before_the_work(
    load: Callable[..., Suite], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = load()
    (tmp_path / "file").write_text("")
    call = ["reproduce", str(suite.source), "--out", str(tmp_path), "--html", str(tmp_path / "file" / "x.html")]
    assert main(call) == 1
    assert "a file stands where its folder must be" in capsys.readouterr().err
    assert not (tmp_path / "tiny").exists()


def test_an_empty_page(load: Callable[..., Suite], tmp_path: Path) -> None:
    written = render(make_table(load(), tmp_path))
    assert "<svg" not in written
    assert "Claims" not in written
    assert "missing" in written


# Intervals, and the reference that all lines are compared with


def test_all_lines_are_compared_with_the_bar(load: Callable[..., Suite], tmp_path: Path) -> None:
    suite = load(bar="flow_histogram", references=["chance", "flow_histogram"], seeds=[0, 1], streams=True)
    rows_of(suite, tmp_path)
    folder, row = SuiteFolder(suite, tmp_path), suite.rows()[0]
    half = some_scores([n % 4 < 2 for n in range(40)], GROUPS)
    answered = replace(
        Finished.load(folder.row_file(row)) or pytest.fail("no row"),
        variant="flow_histogram",
        seed=None,
        asked=reference_asked("flow_histogram", row),
        figures=figures_of(half),
        hits=Hits.of(half),
        streams={},
    )
    answered.save(folder.reference_file("flow_histogram", "clips", "1"))
    table = make_table(suite, tmp_path)
    lines = {line.label: line for line in table.lines if line.data == "clips"}
    late, bar = lines["late"], lines["flow histogram"]
    assert late.versus is None, "there is no baseline"
    assert late.over_bar is not None
    assert late.over_bar.difference == pytest.approx(late.top1 - 0.5)
    assert (late.over_bar.pairs, late.over_bar.method) == (2, "bootstrap over 10 groups and 2 seeds")
    motion = lines["late, motion alone"]
    assert motion.over_bar is not None
    assert motion.over_bar.difference == pytest.approx(motion.top1 - 0.5)
    assert bar.interval == (0.5, 0.5) or bar.interval[0] < 0.5 < bar.interval[1]  # type: ignore[index]
    assert bar.over_bar is None
    text = table_markdown(table)
    assert "| against flow histogram |" in text
    low, high = late.interval or (0, 0)
    assert f"| {low:.3f} to {high:.3f} |" in text
    # Another clip than the rows were judged on.
    some = some_scores([True] * 39, GROUPS[:39])
    replace(answered, hits=Hits.of(some)).save(folder.reference_file("flow_histogram", "clips", "1"))
    table = make_table(suite, tmp_path)
    assert all(line.over_bar is None for line in table.lines)
    assert any(note.startswith("not compared with the bar: late (seed 0, split 1: 1 vid") for note in table.notes)


def test_the_bar_is_a_reference_with_answers(load: Callable[..., Suite]) -> None:
    with pytest.raises(SuiteError, match="bar: clip_shape is none of the suite's references, which are chance"):
        load(bar="clip_shape", references=["chance"])
    with pytest.raises(SuiteError, match="bar must be clip_shape or flow_histogram or null, got 'chance'"):
        load(bar="chance", references=["chance"])


@pytest.mark.parametrize(
    ("right", "others", "low", "high"),
    [
        (True, False, 1 - 2 * 0.2775, 1.0),
        (True, True, -0.2775, 0.2775),
        (True, None, 1 - 0.2775, 1.0),
        (False, None, 0.0, 0.2775),
    ],
)
def test_where_all_say_the_same_the_interval_has_a_width(
    right: bool, others: bool | None, low: float, high: float
) -> None:
    """Ten of ten: Wilson's lower bound is 10 / (10 + 1.96 ** 2) = 0.7225."""
    mine, theirs = (
        {(0, "1"): Hits.of(some_scores([value] * 10, tuple("abcdefghij")))} for value in (right, bool(others))
    )
    found = difference(mine, None if others is None else theirs)
    assert found is not None
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))
    if others is None:
        assert accuracy_bounds(mine) == (found.low, found.high)
