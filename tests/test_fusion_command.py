import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from twostream.cli import main
from twostream.clip import Scores, ScoresError
from twostream.errors import UsageError
from twostream.evaluation.fusion_command import fuse_files
from twostream.evaluation.metrics import probabilities
from twostream.evaluation.score_fusion import fuse, search_weights
from twostream.evaluation.temperature import CalibrationError, fit_temperature, tempered

Printed = pytest.CaptureFixture[str]
CLASSES = ("Run", "Jump", "Wave")


def softmax(values: Any) -> Any:
    e = np.exp(np.asarray(values))
    return e / e.sum(-1, keepdims=True)


def drawn(seed: int, strength: float, *, N: int = 60) -> Any:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((N, 3)) + strength * np.eye(3)[np.arange(N) % 3]


class Folder:
    """Scores of ours and of somebody else, of a test part and of a validation part."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def videos(self, part: str) -> list[str]:
        return [f"{CLASSES[n % 3]}/v_{part}_g{n // 3:02}_c{n % 3}.avi" for n in range(60)]

    def ours(self, part: str, strength: float = 1.0, **changes: Any) -> Path:
        values: dict[str, Any] = {
            "logits": drawn(len(part), strength).astype(np.float32)[:, None, None],
            "labels": np.arange(60) % 3,
            "videos": tuple(self.videos(part)),
            "groups": tuple(f"g{n // 3}" for n in range(60)),
            "classes": CLASSES,
            "votes": (("fused", 1),),
            "meta": {"protocol": "25-step", "part": part, "split": "1", "model": "spatial", "run": "runs/a"},
        }
        path = self.path / f"{part}.npz"
        Scores(**(values | changes)).save(path)
        return path

    def theirs(self, part: str, values: Any, name: str = "idt", *, labels: bool = False) -> Path:
        """Stems only, classes in another order."""
        path = self.path / f"{name}_{part}.csv"
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("video", "Wave", "Run", "Jump", *(("label",) if labels else ())))
            for n, video in enumerate(self.videos(part)):
                row = np.asarray(values)[n, [2, 0, 1]]
                label = (CLASSES[n % 3],) if labels else ()
                writer.writerow((Path(video).stem, *(f"{value:.9g}" for value in row), *label))
        return path


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_other_peoples_scores_are_fused_with_ours(folder: Folder, capsys: Printed) -> None:
    p = softmax(drawn(9, 1.5))
    ours, theirs = folder.ours("test"), folder.theirs("test", p)
    out = folder.path / "fused.npz"
    assert main(["fuse", str(ours), str(theirs), "--weights", "1,3", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"{theirs}: taken for probabilities: rows lie in 0..1 and sum to 1 (--outside says otherwise)" in printed
    assert "weights given; merged after the softmax (a mean of probabilities)" in printed
    assert "WARNING" not in printed
    fused = Scores.load(out)
    assert probabilities(fused) == pytest.approx(0.25 * probabilities(Scores.load(ours)) + 0.75 * p, abs=1e-6)
    assert (fused.videos, fused.classes, fused.groups) == (
        tuple(folder.videos("test")),
        CLASSES,
        tuple(f"g{n // 3}" for n in range(60)),
    )
    meta = fused.meta
    assert (meta["fusion_order"], meta["weights_chosen_on_judged_videos"]) == ("softmax", False)
    assert (meta["part"], meta["split"], meta["model"]) == ("test", "1", "spatial + idt_test")
    assert "protocol" not in meta
    assert meta["fused"][1]["outside"] == {
        "file": str(theirs),
        "kind": "probabilities",
        "detected": True,
        "temperature": None,
    }


def test_ours_may_come_second_and_order_is_stated(folder: Folder, capsys: Printed) -> None:
    z = 3 * drawn(9, 1.5)
    words = ["fuse", str(folder.theirs("test", z)), str(folder.ours("test")), "--order", "logits"]
    assert main([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["order"] == "logits"
    assert document["videos"] == 60
    assert None not in document["alone"].values()
    (told,) = document["outside"].values()
    assert (told["kind"], told["detected"]) == ("logits", True)
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "taken for logits: rows are no distributions" in printed
    assert "merged before the softmax (a mean of logits)" in printed


def test_what_the_numbers_are_can_be_said(folder: Folder, capsys: Printed) -> None:
    p = softmax(drawn(9, 1.5))
    ours, theirs = folder.ours("test"), folder.theirs("test", p)
    as_logits = fuse_files([ours, theirs], outside="logits")
    expected = 0.5 * probabilities(Scores.load(ours)) + 0.5 * softmax(p)
    assert probabilities(as_logits.scores) == pytest.approx(expected, abs=1e-6)
    assert main(["fuse", str(ours), str(theirs), "--outside", "logits"]) == 0
    assert f"{theirs}: logits\n" in capsys.readouterr().out
    with pytest.raises(ScoresError, match=r"not probabilities, those of Run/v_test_g00_c0.avi go from"):
        fuse_files([ours, folder.theirs("test", drawn(9, 1.5))], outside="probabilities")
    with pytest.raises(UsageError, match="--outside says what the numbers of other people's files are, but all of"):
        fuse_files([ours, ours], outside="logits")


def test_weights_are_searched_on_validation_of_both(folder: Folder) -> None:
    files = {
        part: (folder.ours(part), folder.theirs(part, softmax(drawn(len(part) + 7, 1.2)))) for part in ("test", "val")
    }
    found = fuse_files(files["test"], search=files["val"])
    assert not found.flatters
    assert found.how == "weights searched by log_loss on 60 videos of part 'val'"
    theirs = Scores(
        logits=np.log(softmax(drawn(10, 1.2))).astype(np.float32)[:, None, None],
        labels=np.full(60, -1),
        videos=tuple(folder.videos("val")),
        classes=CLASSES,
        votes=(("o", 1),),
    )
    assert list(found.weights.values()) == list(search_weights([Scores.load(files["val"][0]), theirs]).values)
    assert 0.5 < list(found.weights.values())[1] < 1


def test_margins_get_their_scale_on_validation(folder: Folder, capsys: Printed) -> None:
    margins = {part: 0.1 * drawn(len(part) + 7, 2) for part in ("test", "val")}
    files = {part: [str(folder.ours(part)), str(folder.theirs(part, margins[part]))] for part in ("test", "val")}
    out = folder.path / "fused.npz"
    words = ["fuse", *files["test"], "--search", *files["val"], "--outside", "margins", "--out", str(out)]
    assert main(words) == 0
    val = Scores.load(files["val"][0])
    T = fit_temperature(replace(val, logits=margins["val"].astype(np.float32)[:, None, None]))
    # Margins a tenth as large as logits of strength 2, whose own best temperature is a half.
    assert 0.02 < T < 0.1
    assert f"{files['test'][1]}: margins, divided by {T:.3g}, fitted on validation" in capsys.readouterr().out
    fused = Scores.load(out)
    assert fused.meta["fused"][1]["outside"]["temperature"] == pytest.approx(T)
    test = Scores.load(files["test"][0])
    scaled = tempered(replace(test, logits=margins["test"].astype(np.float32)[:, None, None]), T)
    assert np.allclose(fused.logits, fuse([test, scaled], fused.meta["weights"]).logits, atol=1e-4)
    # Without a scale there are no probabilities, but a mean of logits has the weight for it.
    with pytest.raises(
        UsageError, match="margins have no scale, so there are no probabilities to average: add --search"
    ):
        fuse_files(files["test"], outside="margins")
    plainly = fuse_files(files["test"], outside="margins", order="logits", weights=[1, 9])
    assert np.allclose(plainly.scores.logits[:, 0, 0], 0.1 * test.logits[:, 0, 0] + 0.9 * margins["test"], atol=1e-5)


def test_margins_without_a_scale_are_named(folder: Folder) -> None:
    sure = 5 * np.eye(3)[np.arange(60) % 3]
    judged = [folder.ours("test"), folder.theirs("test", sure)]
    validation = [folder.ours("val"), folder.theirs("val", sure)]
    with pytest.raises(
        CalibrationError, match=r"idt_val.csv: the margins have no scale \(.*60 of 60 .*; try --outside l"
    ):
        fuse_files(judged, search=validation, outside="margins")
    with pytest.raises(
        UsageError, match=r"idt_test.csv and .*val.npz: the scale of margins is found on validation mar"
    ):
        fuse_files(judged, search=[validation[0], validation[0]], outside="margins")


def test_both_parts_of_a_source_hold_the_same_numbers(folder: Folder) -> None:
    judged = [folder.ours("test"), folder.theirs("test", softmax(drawn(9, 1)))]
    validation = [folder.ours("val"), folder.theirs("val", drawn(9, 1))]
    with pytest.raises(UsageError, match=r"idt_val.csv are taken for probabilities and logits; say what they are with"):
        fuse_files(judged, search=validation)
    with pytest.raises(UsageError, match=r"2 scores to fuse but 3 validation scores"):
        fuse_files(judged, search=[*validation, validation[1]])


def test_weights_chosen_on_the_judged_videos_are_marked_loudly(folder: Folder, capsys: Printed) -> None:
    files = [str(folder.ours("test")), str(folder.theirs("test", softmax(drawn(9, 1))))]
    words = ["fuse", *files, "--search", *files]
    assert main(words) == 2
    assert "60 of the videos that the weights would be chosen on are among the judged ones" in capsys.readouterr().err
    out = folder.path / "fused.npz"
    assert main([*words, "--allow-judged-videos", "--out", str(out)]) == 0
    assert "WARNING: the weights were chosen on the videos they are judged on" in capsys.readouterr().out
    assert Scores.load(out).meta["weights_chosen_on_judged_videos"] is True
    assert main([*words, "--allow-judged-videos", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["weights_chosen_on_judged_videos"] is True
    # Other people's names for the judged videos do not hide them.
    renamed = [str(folder.theirs("test", softmax(drawn(s, 1)), f"other{s}", labels=True)) for s in (1, 2)]
    assert main(["fuse", *files, "--search", *renamed]) == 2
    assert "60 of the videos" in capsys.readouterr().err


def test_validation_names_that_could_be_several_judged_ones_are_named(folder: Folder, tmp_path: Path) -> None:
    p = softmax(drawn(9, 1))
    names = folder.videos("test")
    judged = folder.ours("test", videos=("d/x.avi", "e/x.avi", *names[2:]))
    sheets = [tmp_path / f"{n}.csv" for n in (1, 2)]
    for path in sheets:
        path.write_text("video,label,Run,Jump,Wave\nx,Run,0,1,0\n")
    second = tmp_path / "second.npz"
    np.savez(second, scores=p, videos=np.array(["d/x", "e/x", *names[2:]]), classes=np.array(CLASSES))
    with pytest.raises(ScoresError, match=r"validation: x could mean d/x.avi or e/x.avi"):
        fuse_files([judged, second], search=sheets)


def test_somebody_must_know_the_true_classes(folder: Folder) -> None:
    p, q = softmax(drawn(9, 1)), softmax(drawn(8, 2))
    blind = [folder.theirs("test", p, "a"), folder.theirs("test", q, "b")]
    with pytest.raises(UsageError, match=r"nobody knows the true classes: name at least one scores file of twostream"):
        fuse_files(blind)
    with pytest.raises(UsageError, match=r"a_test.csv is somebody else's and has nothing to be fused with"):
        fuse_files(blind[:1])
    found = fuse_files([blind[0], folder.theirs("test", q, "c", labels=True)])
    assert found.scores.labels.tolist() == [found.scores.classes.index(CLASSES[n % 3]) for n in range(60)]
    assert found.to_dict(None)["top1"] == pytest.approx(((p + q).argmax(1) == np.arange(60) % 3).mean())
    # Ours may know no labels either.
    unknown = folder.ours("test", labels=np.full(60, -1))
    found = fuse_files([unknown, blind[0]])
    assert found.to_dict(None)["top1"] is None
    assert any("fused top-1 -, mean class -, 0 videos" in line for line in found.lines())


def test_files_that_do_not_fit_are_named(folder: Folder, tmp_path: Path, capsys: Printed) -> None:
    ours = folder.ours("test")
    other = folder.theirs("val", drawn(9, 1))
    assert main(["fuse", str(ours), str(other)]) == 1
    assert f"{other}: speaks of other videos than {ours}: it lacks 60 (Run/v_test" in capsys.readouterr().err
    wrong = folder.theirs("test", drawn(9, 1), labels=True)
    wrong.write_text(wrong.read_text().replace(",Run\n", ",Jump\n"))
    assert main(["fuse", str(ours), str(wrong)]) == 1
    assert "scores disagree on the true class of 20 videos" in capsys.readouterr().err
    (tmp_path / "bad.csv").write_text("a,b")
    assert main(["fuse", str(ours), str(tmp_path / "bad.csv")]) == 1
    assert "bad.csv: wanted a header video," in capsys.readouterr().err
    assert main(["fuse", str(ours), str(other), "--outside", "ranks"]) == 2
    assert "invalid choice: 'ranks'" in capsys.readouterr().err


def test_ours_as_a_table_for_others(folder: Folder, capsys: Printed) -> None:
    ours = folder.ours("test")
    out = folder.path / "ours.csv"
    assert main(["fuse", str(ours), "--csv", str(out)]) == 0
    assert "weight 1.000" in capsys.readouterr().out
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 60
    assert list(rows[0]) == ["video", "label", *CLASSES]
    p = probabilities(Scores.load(ours))
    assert [float(rows[7][name]) for name in CLASSES] == pytest.approx(p[7].tolist(), rel=1e-6)
    # What goes out comes in again.
    assert main(["fuse", str(ours), str(out), "--csv", str(folder.path / "both.csv")]) == 0
    with (folder.path / "both.csv").open(newline="") as file:
        again = list(csv.DictReader(file))
    assert [float(again[7][name]) for name in CLASSES] == pytest.approx(p[7].tolist(), abs=1e-6)
    assert main(["fuse", str(ours)]) == 2
    assert "holds one stream (fused)" in capsys.readouterr().err
    before = ours.read_bytes(), out.read_bytes()
    for words in (["--out", f"{folder.path}/./test.npz"], ["--csv", str(out)]):
        assert main(["fuse", str(ours), "--search", str(ours), str(out), *words]) == 2
        assert f"{words[0]} {words[1]}: would replace scores that the fusion is made of" in capsys.readouterr().err
    assert before == (ours.read_bytes(), out.read_bytes())
