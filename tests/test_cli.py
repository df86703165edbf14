"""The command line as a user meets it: what it prints where, its exit status, and one message for every wrong input."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from twostream import cli
from twostream.clip import Scores, ScoresError
from twostream.evaluation.protocols import PROTOCOLS
from twostream.experiments.suite import shipped_suites
from twostream.flow.estimators import ESTIMATORS
from twostream.flow.layouts import LAYOUTS
from twostream.flow.settings import CODECS, PRECISIONS
from twostream.flow.tvl1 import PRESETS
from twostream.prediction import Predictor
from twostream.runs import RunFolder
from twostream.video import write_video

Printed = pytest.CaptureFixture[str]


@pytest.fixture
def clip(shapes: Path) -> Path:
    return sorted(shapes.glob("test/*/*.mp4"))[0]


def run_json(words: list[str], capsys: Printed, *, status: int = 0) -> object:
    assert cli.main([*words, "--json"]) == status
    # One document on standard output, and nothing else there.
    return json.loads(capsys.readouterr().out)


def fails(words: list[str], capsys: Printed, *said: str, status: int = 1) -> None:
    assert cli.main(words) == status
    printed = capsys.readouterr()
    for part in said:
        assert part in printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""


def test_help_names_every_command(capsys: Printed) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    for name in (
        "demo",
        "check",
        "flow",
        "train",
        "evaluate",
        "calibrate",
        "predict",
        "explain",
        "fuse",
        "reproduce",
        "report",
        "convert",
        "models",
    ):
        assert f"\n  {name} " in text
    assert cli.main([]) == 2
    assert cli.main(["--version"]) == 0


@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_every_command_has_help(command: str, capsys: Printed) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main([command, "--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    assert f"twostream {command}" in text
    # That nobody gave an option is no default worth telling. The help of train is not ours.
    assert command == "train" or not re.search(r"\(default:\s+(None|False)?\)", text)


def help_of(command: str, capsys: Printed) -> str:
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("command", ["evaluate", "calibrate", "predict", "explain"])
def test_help_names_every_protocol(command: str, capsys: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    text = help_of(command, capsys)
    assert "--protocol NAME 1-view, 25-step, released_code, 10-step, 25x10 or 10x3" in text
    assert "(default: 25-step)" in text
    monkeypatch.setitem(PROTOCOLS, "100%", PROTOCOLS["1-view"])
    assert "--protocol NAME 1-view, 25-step, released_code, 10-step, 25x10, 10x3 or 100%" in help_of(command, capsys)


def test_help_names_what_the_tables_hold(capsys: Printed) -> None:
    for command in ("evaluate", "predict"):
        assert "--precision NAME 32-true, bf16-mixed or 16-mixed: " in help_of(command, capsys)
    text = help_of("reproduce", capsys)
    assert "a suite of the package: " + ", ".join([*shipped_suites()][:-1]) in text
    assert "motion_shapes" in text
    text = help_of("flow", capsys)
    assert f"--estimator NAME {', '.join([*ESTIMATORS][:-1])} or {[*ESTIMATORS][-1]}; by default the store's" in text
    assert f"of tvl1: {', '.join([*PRESETS][:-1])} or {[*PRESETS][-1]}; the same as" in text
    for option, names in (("layout", LAYOUTS), ("codec", CODECS), ("precision", PRECISIONS)):
        assert f"--{option} {{{','.join(names)}}}" in text


def test_help_and_import_load_no_torch() -> None:
    program = (
        "import sys, time; began = time.perf_counter(); import twostream; import_time = time.perf_counter() - began\n"
        "from twostream.cli import main; main(['--help']); assert main(['evaluate', 'run', '--precison', 'x']) == 2\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules, 'heavy imports'\n"
        "twostream.create_model\n"
        "assert 'torch' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_unknown_name_is_an_attribute_error() -> None:
    import twostream

    with pytest.raises(AttributeError, match="no attribute 'Predictr'"):
        twostream.Predictr  # noqa: B018
    assert "Predictor" in dir(twostream)


def test_wrong_calls_end_with_status_2(capsys: Printed) -> None:
    fails(["trian"], capsys, "no command 'trian'; did you mean train?", status=2)
    fails(["xyz"], capsys, "the commands are demo, check", status=2)
    fails(["check", "d", "--worker", "3"], capsys, "unknown: --worker 3; did you mean --workers?", status=2)
    fails(["check"], capsys, "DATA", status=2)
    fails(["check", "d", "--workers", "0"], capsys, "a whole number of at least 1", status=2)
    fails(["check", "d", "--workers", "two"], capsys, "a whole number of at least 1", status=2)
    fails(["train", "--data", "d", "--out", "o", "--optim.lrr", "1"], capsys, "did you mean --optim.lr?", status=2)
    fails(["flow", "d", "--out", "o", "--parameters", "a:1"], capsys, "name=value,name=value", status=2)
    fails(["flow", "d", "--out", "o", "--parameters", "a"], capsys, "name=value,name=value", status=2)
    fails(["fuse", "a", "--weights", "x"], capsys, "number,number", status=2)
    fails(["fuse", "a", "--weights", "1", "--search", "b"], capsys, "either --weights or --search", status=2)
    fails(["predict", "r", "a.mp4", "b.mp4", "--overlay", "o.mp4"], capsys, "one VIDEO; 2 were given", status=2)
    fails(["predict", "r", "a.mp4", "--srt", "o.srt"], capsys, "add --timeline", status=2)
    fails(["predict", "r", "a.mp4", "--overlay", "o.txt"], capsys, "must end in .mp4", status=2)
    fails(["predict", "r", "a.mp4", "--overlay", "a.mp4"], capsys, "or one of the videos", status=2)
    fails(["predict", "r", "a.mp4", "--timeline", "--csv", "."], capsys, "a folder", status=2)
    fails(
        ["train", "--data", "d", "--out", "o", "--trainer.epoch", "1"],
        capsys,
        "did you mean --trainer.epochs?",
        status=2,
    )
    fails(["train", "--data", "d", "--out", "d/run"], capsys, "lies in the data folder", status=2)


def test_check(shapes: Path, clip: Path, tmp_path: Path, capsys: Printed) -> None:
    document = run_json(["check", str(shapes)], capsys)
    assert isinstance(document, dict)
    assert set(document) == {"videos", "problems"}
    assert len(document["videos"]) == 20
    assert set(document["videos"][0]) == {"video", "frames", "fps", "width", "height"}
    assert document["problems"] == []
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(clip.read_bytes()[:3000])
    document = run_json(["check", str(clip), str(broken)], capsys, status=1)
    assert isinstance(document, dict)
    assert [set(video) for video in document["videos"]][1] == {"video", "error"}
    assert cli.main(["check", str(clip), "--workers", "1"]) == 0
    assert clip.name in capsys.readouterr().out
    fails(["check", str(tmp_path / "nowhere")], capsys, "nowhere")


def test_flow(shapes: Path, tmp_path: Path, capsys: Printed) -> None:
    store = tmp_path / "store"
    words = [
        "flow",
        str(shapes),
        "--out",
        str(store),
        "--resize",
        "48",
        "--workers",
        "1",
        "--estimator",
        "dis",
        "--parameters",
        "finest_scale=1",
    ]
    document = run_json(words, capsys)
    assert isinstance(document, dict)
    assert (len(document["done"]), document["failed"], document["missing"]) == (20, {}, [])
    again = run_json(words, capsys)
    assert isinstance(again, dict)
    assert (len(again["done"]), len(again["skipped"])) == (0, 20)
    fails([*words[:5], "64"], capsys, "made with other settings")
    fails(["flow", str(shapes), "--out", str(store), "--estimator", "raft"], capsys, "raft", "dis", status=2)
    loose = tmp_path / "loose"
    loose.mkdir()
    shutil.copy(sorted(shapes.glob("test/*/*.mp4"))[0], loose / "-dash.mp4")
    (loose / "http:x.mp4").write_bytes(b"no video")
    out = ["--out", str(tmp_path / "store2"), "--resize", "0", "--frames", "--workers", "1"]
    assert cli.main(["flow", str(loose), *out]) == 1
    printed = capsys.readouterr()
    assert "http:x.mp4" in printed.out
    assert (tmp_path / "store2" / "-dash.mp4.flow").is_file()
    assert cli.main(["flow", str(loose / "-dash.mp4"), *out]) == 0
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    capsys.readouterr()
    fails(["flow", str(shapes), "--out", str(blocked / "store"), "--workers", "1"], capsys, "a file stands where")


def test_evaluate_predict_fuse_report(tiny_run: RunFolder, clip: Path, tmp_path: Path, capsys: Printed) -> None:
    run = str(tiny_run.path)
    document = run_json(["evaluate", run, "--protocol", "1-view"], capsys)
    assert isinstance(document, dict)
    assert set(document) >= {"protocol", "split", "videos", "top1", "top5", "mean_class", "per_class", "scores_file"}
    assert cli.main(["evaluate", run, "--protocol", "1-view", "--part", "val", "--stream-weights", "motion=1"]) == 0
    printed = capsys.readouterr()
    assert "top-1" in printed.out
    assert "has not learned to see" not in printed.err
    assert cli.main(["evaluate", run, "--protocol", "10-step"]) == 0
    assert "10-step shows whole frames, which a network of " in capsys.readouterr().err
    scores, val = (str(tiny_run.scores_file(part, "1-view")) for part in ("test", "val"))

    fused = run_json(["fuse", scores, "--weights", "1,3"], capsys)
    assert isinstance(fused, dict)
    assert fused["weights"] == {"appearance": 0.25, "motion": 0.75}
    assert cli.main(["fuse", scores, "--search", val, "--out", str(tmp_path / "fused.npz")]) == 0
    assert "weights searched by log_loss on 4 videos of part 'val'" in capsys.readouterr().out
    assert (tmp_path / "fused.npz").is_file()
    fails(["fuse", scores, "--search", scores], capsys, "among the judged ones", status=2)
    assert cli.main(["fuse", scores, "--search", scores, "--allow-judged-videos", "--by", "accuracy"]) == 0
    assert "flatter" in capsys.readouterr().out
    assert cli.main(["fuse", scores, scores, "--order", "logits"]) == 0
    capsys.readouterr()
    fails(["fuse", str(tmp_path / "fused.npz")], capsys, "holds one stream", status=2)
    fails(["fuse", str(tmp_path / "none.npz")], capsys, "no such scores file")
    (tmp_path / "table.csv").write_text("a,b")
    fails(["fuse", str(tmp_path / "table.csv")], capsys, "wanted a header video,<class 1>,<class 2>,")
    (tmp_path / "table.npz").write_text("a,b")
    fails(["fuse", str(tmp_path / "table.npz")], capsys, "not a scores file of twostream (it is no archive of arrays)")

    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    document = run_json(
        ["predict", run, str(clip), str(bad), "--top", "2", "--timeline", "--min-score", "0"], capsys, status=1
    )
    assert isinstance(document, list)
    assert set(document[0]) >= {"video", "frames", "fps", "seconds", "label", "calibrated", "predictions"}
    assert document[0]["label"] == document[0]["predictions"][0]["label"]
    assert len(document[0]["predictions"]) == 2
    assert set(document[0]["timeline"][0]) == {"start", "end", "label", "score"}
    assert set(document[1]) == {"video", "error"}
    files = {option: tmp_path / f"out.{option}" for option in ("csv", "srt")}
    words = ["predict", run, str(clip), "--timeline", "--min-score", "0", "--overlay", str(tmp_path / "out.mp4")]
    assert cli.main([*words, *(w for option, file in files.items() for w in (f"--{option}", str(file)))]) == 0
    assert capsys.readouterr().out.startswith(f"{clip}: 24 frames")
    assert all(file.is_file() for file in (*files.values(), tmp_path / "out.mp4"))

    assert cli.main(["report", run, "--out", str(tmp_path / "page.html")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'page.html'}\n"
    fails(["report", str(tmp_path)], capsys, "run")
    words = ["report", run, "--out", str(tmp_path / "fused.npz" / "page.html")]
    fails(words, capsys, "a file stands where its folder must be")


def test_scores_of_half_precision_are_told_apart(tiny_run: RunFolder, tmp_path: Path, capsys: Printed) -> None:
    words = ["evaluate", str(tiny_run.path), "--protocol", "1-view", "--device", "cpu"]
    whole = run_json(words, capsys)
    assert isinstance(whole, dict)
    kept = Path(whole["scores_file"]).read_bytes()
    half = run_json([*words, "--precision", "bf16-mixed"], capsys)
    assert isinstance(half, dict)
    assert (whole["precision"], half["precision"]) == ("32-true", "bf16-mixed")
    assert [Path(found["scores_file"]).name for found in (whole, half)] == [
        "test-1-view.npz",
        "test-1-view-bf16-mixed.npz",
    ]
    assert Path(whole["scores_file"]).read_bytes() == kept
    exact, rough = (Scores.load(found["scores_file"]) for found in (whole, half))
    assert exact.meta == {**rough.meta, "precision": "32-true"}
    assert not np.array_equal(exact.logits, rough.logits)
    assert exact.logits == pytest.approx(rough.logits, abs=0.1 * float(np.abs(exact.logits).max()))
    assert cli.main([*words, "--precision", "bf16-mixed"]) == 0
    assert capsys.readouterr().out.startswith("1-view in bf16-mixed on 4 test videos, split ")

    run = tmp_path / "run"
    # Other tests judge the run by other protocols.
    shutil.copytree(tiny_run.path, run, ignore=shutil.ignore_patterns("scores"))
    (run / "scores").mkdir()
    for found in (whole, half):
        shutil.copy(found["scores_file"], run / "scores")
    assert cli.main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    # The full precision heads the page although its file comes later by name.
    assert page.index("test-1-view.npz") < page.index("test-1-view-bf16-mixed.npz")
    assert "by 1-view, split " in page
    assert "1-view in bf16-mixed</td>" in page
    (run / "scores" / "test-1-view.npz").unlink()
    assert cli.main(["report", str(run)]) == 0
    assert "by 1-view in bf16-mixed, split " in (run / "report.html").read_text()

    # Before any flow is computed.
    shutil.rmtree(run / "scores")
    (run / "data.json").unlink()
    capsys.readouterr()
    fails([*words[:1], str(run), "--precision", "8-bit"], capsys, "precision is one of ['32-true', ", status=2)


def test_models(capsys: Printed) -> None:
    rows = run_json(["models", "--classes", "10"], capsys)
    assert isinstance(rows, list)
    assert {row["name"] for row in rows} >= {"two_stream_resnet18", "spatial_resnet18", "tsn_resnet50"}
    assert cli.main(["models"]) == 0
    assert "two_stream_resnet18 " in capsys.readouterr().out


def test_training_input_that_cannot_be_used(tmp_path: Path, clip: Path, shapes: Path, capsys: Printed) -> None:
    base = ["--out", str(tmp_path / "run"), "--weights", "none"]
    fails(["train", "--data", str(tmp_path / "nowhere"), *base], capsys, "nowhere")
    one = tmp_path / "one"
    (one / "wave").mkdir(parents=True)
    for number in range(4):
        shutil.copy(clip, one / "wave" / f"{number}.mp4")
    fails(["train", "--data", str(one), *base], capsys, "one class only")
    (one / "jump").mkdir()
    fails(["train", "--data", str(one), *base], capsys, "jump")
    sheet = tmp_path / "sheet.csv"
    sheet.write_text("file,class\na.mp4,wave\n")
    fails(["train", "--data", str(sheet), *base], capsys, "path", "label", "file")
    fails(
        ["train", "--data", str(shapes), *base, "--model", "two_stream_resnet19"],
        capsys,
        "two_stream_resnet18",
        status=2,
    )
    fails(["train", "--data", str(shapes), *base, "--model_args.wdth", "8"], capsys, "width", status=2)
    fails(["train", "--data", str(shapes), *base, "--init", str(tmp_path)], capsys, str(tmp_path))
    fails(["train", "--data", str(shapes), *base, "--weights", str(tmp_path / "w.pth")], capsys, "w.pth")
    fails(
        ["train", "--data", str(shapes), "--out", str(sheet / "run"), "--weights", "none"],
        capsys,
        "a file stands where",
    )
    fails(
        ["train", "--data", str(shapes), *base, "--trainer.epochs", "0"], capsys, "--trainer.epochs must be", status=2
    )


def test_runs_that_cannot_be_used(tmp_path: Path, tiny_run: RunFolder, clip: Path, capsys: Printed) -> None:
    fails(["evaluate", str(tmp_path / "none")], capsys, "no such run folder")
    fails(["predict", str(tmp_path), str(clip)], capsys, str(tmp_path))
    fails(["evaluate", str(tiny_run.path), "--device", "cuda:7"], capsys, "cuda:7", status=2)
    short = tmp_path / "short.mp4"
    write_video(short, [np.full((64, 64, 3), 40 * k, np.uint8) for k in range(3)], 25)
    document = run_json(["predict", str(tiny_run.path), str(short)], capsys, status=1)
    assert isinstance(document, list)
    assert "11" in document[0]["error"]


def test_scores_that_are_not_finite_cost_one_video_only(
    tiny_run: RunFolder, clip: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    predict = Predictor.predict

    def broken(self: Predictor, path: str, **options: object) -> object:
        if path == "bad.mp4":
            raise ScoresError("bad.mp4 has scores that are not finite")
        return predict(self, path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Predictor, "predict", broken)
    document = run_json(["predict", str(tiny_run.path), "bad.mp4", str(clip)], capsys, status=1)
    assert isinstance(document, list)
    assert document[0] == {"video": "bad.mp4", "error": "bad.mp4 has scores that are not finite"}
    assert document[1]["predictions"]


def test_ctrl_c_says_that_nothing_is_lost(monkeypatch: pytest.MonkeyPatch, capsys: Printed) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, "check", interrupted)
    assert cli.main(["check", "d"]) == 130
    assert "the same command goes on from there" in capsys.readouterr().err

    def stopped(_: object) -> int:
        raise KeyboardInterrupt("stopped with 3 of 5")

    monkeypatch.setitem(cli.COMMANDS, "check", stopped)
    assert cli.main(["check", "d"]) == 130
    assert capsys.readouterr().err == "\ntwostream check: stopped with 3 of 5\n"


def test_a_reader_that_goes_away_is_no_crash() -> None:
    program = "import sys; from twostream.cli import main; sys.exit(main(['models']))"
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
