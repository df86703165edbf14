import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from twostream.clip import Scores, ScoresError
from twostream.errors import UsageError
from twostream.evaluation.metrics import probabilities
from twostream.evaluation.score_tables import (
    ScoreTable,
    logits_of,
    looks_like,
    matched,
    read_scores,
    write_table,
)
from twostream.evaluation.video_names import AmbiguousNameError, match_videos


def table(path: Path) -> ScoreTable:
    found = read_scores(path)
    assert isinstance(found, ScoreTable)
    return found


def sheet(folder: Path, text: str, name: str = "idt.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def archive(folder: Path, **arrays: Any) -> Path:
    values = {"scores": np.eye(2), "videos": np.array(["a", "b"]), "classes": np.array(["x", "y"])}
    np.savez(folder / "idt.npz", **{k: v for k, v in (values | arrays).items() if v is not None})
    return folder / "idt.npz"


OURS = ("Run/v_Run_g01_c01.avi", "Run/v_Run_g01_c02.avi", "Jump/v_Jump_g01_c01.avi")


@pytest.mark.parametrize(
    "names",
    [
        OURS,
        ("v_Run_g01_c01", "v_Run_g01_c02", "v_Jump_g01_c01"),
        ("v_Run_g01_c01.avi", "v_Run_g01_c02.mp4", "v_Jump_g01_c01"),
        ("videos/Run/v_Run_g01_c01.avi", "/data/UCF-101/Run/v_Run_g01_c02", "./Jump//v_Jump_g01_c01.avi"),
        (r"videos\Run\v_Run_g01_c01.avi", r"Run\v_Run_g01_c02", "a/../Jump/v_Jump_g01_c01.AVI"),
    ],
)
def test_names_of_other_people_mean_our_videos(names: tuple[str, ...]) -> None:
    assert match_videos(names, OURS) == [0, 1, 2]
    assert match_videos(names[::-1], OURS) == [2, 1, 0]
    # And the other way round, where ours are the shorter ones.
    assert match_videos(OURS, names) == [0, 1, 2]


def test_no_name_means_another_video() -> None:
    for name in ("Walk/v_Run_g01_c01.avi", "g01_c01", "v_Run_g01_c03", "Run", "v_run_g01_c01"):
        assert match_videos([name], OURS) == [None]


def test_the_nearest_name_is_meant_and_equals_are_ambiguous() -> None:
    ours = ("a/clip.avi", "a/clip.mp4", "clip.mp4", "b/clip.avi", "day.mp4@1-2.5", "day.mp4@2.5-", "clip 1.5")
    assert match_videos(["a/clip.mp4", "clip.mp4", "x/b/clip", "day@1-2.5", "r/day.mp4@2.5-", "clip 1.5"], ours) == [
        *(1, 2, 3, 4, 5, 6)
    ]
    with pytest.raises(AmbiguousNameError, match=r"a/clip could mean a/clip.avi or a/clip.mp4; write as much of the"):
        match_videos(["a/clip"], ours)
    with pytest.raises(AmbiguousNameError, match=r"clip.avi could mean a/clip.avi or b/clip.avi"):
        match_videos(["clip.avi"], ours)
    # Composed and decomposed accents are one name.
    assert match_videos(["cafe\u0301"], ["caf\u00e9.avi"]) == [0]


@pytest.mark.parametrize(
    "text",
    [
        "video,Run,Jump\nv1,0.25,0.75\nv2,1,-2e-1\n",
        "\ufeffvideo, Run, Jump\r\nv1, 0.25, 0.75\r\n\r\nv2, 1, -.2\r\n",
        "Run;Video;Jump\n0,25;v1;0,75\n1;v2;-0,2\n",
        'Run\tvideo\tJump\n0.25\t"v1"\t0.75\n1\tv2\t-0.2\n',
    ],
)
def test_tables_of_numbers_are_read(tmp_path: Path, text: str) -> None:
    found = table(sheet(tmp_path, text))
    assert (found.videos, found.classes) == (("v1", "v2"), ("Run", "Jump"))
    assert found.values.tolist() == [[0.25, 0.75], [1, -0.2]]
    assert found.labels.tolist() == [-1, -1]


def test_a_column_may_hold_the_true_class(tmp_path: Path) -> None:
    found = table(sheet(tmp_path, "video,Run,Label,Jump\na,1,Jump,2\nb,3,,4\nc,5,run,6\n"))
    assert (found.classes, found.labels.tolist()) == (("Run", "Jump"), [1, -1, 0])
    assert found.values.tolist() == [[1, 2], [3, 4], [5, 6]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"idt.csv: wanted a header video,<class 1>,<class 2>,\.\.\. and perhaps label; got ''"),
        ("path,Run\na,1\n", r"wanted a header video,.*; got 'path,Run'"),
        ("video,Run,video\na,1,b\n", r"the header has video more than once"),
        ("video,label\na,Run\n", r"has no classes; wanted a header"),
        ("video,Run\n", r"has no rows; wanted a header"),
        ("video,Run,Jump\na,1\n", r"idt.csv:2: 2 cells under 3 columns"),
        ("video,Run,Jump\na,1,x\n", r"idt.csv:2: the score of Jump is 'x'; wanted a number"),
        ("video,Run,Jump\na,1,2\nb,nan,2\n", r"the score of Run for b is nan; wanted a finite number"),
        ("video,Run,Jump\na,1,1e39\n", r"the score of Jump for a is 1e\+39; wanted a finite number"),
        ("video,Run,Jump\na,1,2\na,1,2\n", r"names the video 'a' more than once"),
        ("video,Run,Run\na,1,2\n", r"names the class 'Run' more than once"),
        ("video,Run,\na,1,2\n", r"class number 2 has no name"),
        ("video,Run\na,1\n,2\n", r"video number 2 has no name"),
        ("video,label,Run\na,Swim,1\n", r"the label of a is 'Swim', which is no class of the file"),
        ('video,Run\n"' + "a" * 140_000 + '",1\n', r"idt.csv:2: not CSV \(field larger"),
    ],
)
def test_tables_that_cannot_be_used_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ScoresError, match=message):
        read_scores(sheet(tmp_path, text))


def test_plain_archives_are_read(tmp_path: Path) -> None:
    found = table(archive(tmp_path))
    assert (found.videos, found.classes, found.labels.tolist()) == (("a", "b"), ("x", "y"), [-1, -1])
    found = table(archive(tmp_path, videos=np.array([b"\xc3\xa9", b"b"]), labels=np.array([1, -1])))
    assert (found.videos, found.labels.tolist()) == (("é", "b"), [1, -1])
    found = table(archive(tmp_path, scores=np.array([[1, 2], [3, 4]], np.int32), labels=np.array(["", "x"])))
    assert (found.values.tolist(), found.labels.tolist()) == ([[1, 2], [3, 4]], [-1, 0])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"classes": None}, r"wanted scores of twostream, or arrays scores \(N, K\), .*; got scores, videos"),
        ({"scores": np.zeros((2, 1, 2))}, r"scores must be numbers \(N, K\), got float64 \(2, 1, 2\)"),
        ({"scores": np.array([["1", "2"]] * 2)}, r"scores must be numbers \(N, K\), got <U1 \(2, 2\)"),
        ({"videos": np.array(["a"])}, r"scores \(2, 2\) need 2 videos, got 1"),
        ({"videos": np.array([1, 2])}, r"videos must be a row of texts, got int64 \(2,\)"),
        ({"labels": np.array([0])}, r"scores \(2, 2\) need 2 labels, got 1"),
        ({"labels": np.array([0, 2])}, r"the label of b is 2; wanted -1 to 1"),
        ({"labels": np.array([0.0, 1.0])}, r"labels must be a row of texts, got float64"),
    ],
)
def test_archives_that_cannot_be_used_are_named(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(ScoresError, match=message):
        read_scores(archive(tmp_path, **arrays))


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "sprung",)

    path = archive(tmp_path, videos=np.array(["a", Trap()], dtype=object))
    with pytest.raises(ScoresError, match=r"holds Python objects, which are not opened; keep names as text"):
        read_scores(path)
    assert not (tmp_path / "sprung").exists()


def test_damaged_and_absent_files_are_named(tmp_path: Path) -> None:
    path = archive(tmp_path)
    data = bytearray(path.read_bytes())
    data[40:90] = bytes(50)
    path.write_bytes(data)
    with pytest.raises(ScoresError, match=r"idt.npz: a damaged archive"):
        read_scores(path)
    path.write_bytes(b"no archive")
    with pytest.raises(ScoresError, match=r"not a scores file of twostream"):
        read_scores(path)
    for name in ("none.csv", "none.npz"):
        with pytest.raises(ScoresError, match=f"{name}: no such scores file"):
            read_scores(tmp_path / name)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ScoresError, match=r"folder: cannot be read"):
        read_scores(tmp_path / "folder")


def test_tables_are_put_into_our_order_and_names(tmp_path: Path) -> None:
    found = table(sheet(tmp_path, "video,JUMP,label,Run\nv_Jump_g01_c01,1,Jump,2\nc02,0,,0\nv_Run_g01_c01,3,Run,4\n"))
    ours = (OURS[0], OURS[2], "c02.avi")
    one = matched(found, ours, ("Run", "Jump"), where="test.npz")
    assert one.values.tolist() == [[4, 3], [2, 1], [0, 0]]
    assert (one.videos, one.classes, one.labels.tolist()) == (ours, ("Run", "Jump"), [0, 1, -1])


@pytest.mark.parametrize(
    ("videos", "classes", "message"),
    [
        (OURS, ("x", "y"), r"of other videos than test.npz: it lacks 3 \(.*c01.avi\) and it has 2 more \(a, b\)$"),
        (("a.avi",), ("x", "y"), r"speaks of other videos than test.npz: it has 1 more \(b\)$"),
        (("a", "b"), ("x", "y", "z"), r"speaks of other classes than test.npz: it lacks 1 \(z\)$"),
        (("d/a", "e/a", "b"), ("x", "y"), r"a could mean d/a or e/a; write as much of the path"),
        (("a", "b"), ("X", "y", "Y"), r"of other classes than test.npz: it lacks 1 \(Y\)$"),
    ],
)
def test_other_videos_and_classes_are_named(
    tmp_path: Path, videos: tuple[str, ...], classes: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ScoresError, match=message):
        matched(table(archive(tmp_path)), videos, classes, where="test.npz")


def test_two_rows_of_one_video_are_refused(tmp_path: Path) -> None:
    found = table(archive(tmp_path, videos=np.array(["a.avi", "x/a"])))
    with pytest.raises(ScoresError, match=r"idt.npz: a.avi and x/a both mean x/a.avi of test.npz"):
        matched(found, ("x/a.avi", "b"), ("x", "y"), where="test.npz")


def test_what_the_numbers_look_like(tmp_path: Path) -> None:
    assert looks_like(table(archive(tmp_path, scores=np.array([[0.333, 0.666], [1, 0]])))) == "probabilities"
    for rows in ([[0.5, 0.5], [0.6, 0.5]], [[0.5, 0.5], [1.5, -0.5]], [[3.0, 1.0], [0, 1]]):
        assert looks_like(table(archive(tmp_path, scores=np.array(rows)))) == "logits"


def test_numbers_become_what_a_softmax_takes(tmp_path: Path) -> None:
    found = table(archive(tmp_path, scores=np.array([[0.25, 0.75], [1, 0]])))
    back = np.exp(logits_of(found, "probabilities"))
    assert back / back.sum(1, keepdims=True) == pytest.approx(found.values, abs=2e-7)
    assert logits_of(found, "logits").tolist() == logits_of(found, "margins").tolist() == found.values.tolist()
    found = table(archive(tmp_path, scores=np.array([[0.25, 0.75], [2, 0.5]])))
    with pytest.raises(
        ScoresError, match=r"not probabilities, those of b go from 0.5 to 2 and sum to 2.5; say --outsi"
    ):
        logits_of(found, "probabilities")


def test_ours_as_a_table_and_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ours = Scores(
        logits=rng.normal(0, 4, (3, 2, 3, 2)).astype(np.float32),
        labels=np.array([1, -1, 0]),
        videos=("a,b.avi", 'c"d.avi', "e.avi"),
        classes=("Run", "high jump"),
        votes=(("appearance", 1), ("motion", 2)),
        meta={"merge": "softmax", "stream_weights": {"motion": 1}},
    )
    write_table(tmp_path / "out.csv", ours)
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["video", "label", "Run", "high jump"]
    assert [row["label"] for row in rows] == ["high jump", "", "Run"]
    found = table(tmp_path / "out.csv")
    assert looks_like(found) == "probabilities"
    assert found.values == pytest.approx(probabilities(ours), abs=1e-8)
    assert (found.videos, found.classes, found.labels.tolist()) == (ours.videos, ours.classes, [1, -1, 0])
    named = replace(ours, classes=("Run", "Label"))
    with pytest.raises(UsageError, match=r"a class is called 'Label', which is the name of a column of its own"):
        write_table(tmp_path / "no.csv", named)
    assert not (tmp_path / "no.csv").exists()
