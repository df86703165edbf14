import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from twostream.checkpoint import CheckpointError, load_model, save_calibration, save_model
from twostream.cli import main
from twostream.clip import Scores
from twostream.errors import UsageError
from twostream.evaluation.calibration import (
    CalibrationError,
    coverage,
    expected_error,
    figures,
    reliability,
    reliability_of,
)
from twostream.evaluation.metrics import log_loss, probabilities, summary
from twostream.evaluation.temperature import Temperature, calibrate, fit_temperature, tempered
from twostream.models import create_model
from twostream.prediction import Predictor
from twostream.run_calibration import calibrate_run
from twostream.runs import RunError, RunFolder, evaluate_run

Printed = pytest.CaptureFixture[str]


def scores(logits: Any, labels: Any, *, votes: Any = None, **meta: Any) -> Scores:
    logits = np.asarray(logits, np.float32)
    if logits.ndim == 2:
        logits = logits[:, None, None]
    N, _, V, K = logits.shape
    return Scores(
        logits=logits,
        labels=np.asarray(labels, np.int64),
        videos=tuple(f"v{n}" for n in range(N)),
        classes=tuple(f"c{k}" for k in range(K)),
        votes=votes or (("fused", V),),
        meta=meta,
    )


def drawn(
    true: float, *, N: int = 4000, R: int = 1, V: int = 1, K: int = 4, order: str = "logits", **more: Any
) -> Scores:
    """Labels drawn from what the views say at the temperature ``true``."""
    rng = np.random.default_rng(7)
    logits = rng.normal(0, 3, (N, 1, 1, K)) + rng.normal(0, 2, (N, R, V, K))
    bare = scores(logits, [-1] * N, merge=order, **more)
    cumulated = probabilities(tempered(bare, true)).cumsum(axis=1)
    labels = (rng.random((N, 1)) > cumulated[:, :-1]).sum(axis=1)
    return replace(bare, labels=labels)


@pytest.mark.parametrize("true", [0.4, 1.0, 2.5, 8.0])
def test_the_temperature_that_labels_were_drawn_at_is_found(true: float) -> None:
    assert fit_temperature(drawn(true)) == pytest.approx(true, rel=0.06)


def test_a_mean_of_softmaxes_is_tempered_view_by_view() -> None:
    views = drawn(2.5, R=3, V=2, order="softmax", votes=(("appearance", 1), ("motion", 1)))
    assert fit_temperature(views) == pytest.approx(2.5, rel=0.06)
    by_hand = np.exp(views.logits.astype(float) / 3)
    by_hand = (by_hand / by_hand.sum(-1, keepdims=True)).mean((1, 2))
    assert probabilities(tempered(views, 3)) == pytest.approx(by_hand, abs=1e-6)
    # The logits' mean at that temperature is another thing.
    assert fit_temperature(views, order="logits") != pytest.approx(2.5, rel=0.06)


@pytest.mark.parametrize("order", ["logits", "softmax"])
@pytest.mark.parametrize("weights", [None, {"appearance": 1.0, "motion": 4.0}, {"motion": 1.0}])
def test_no_other_temperature_fits_better(order: Any, weights: Any) -> None:
    views = drawn(3.0, N=300, R=2, V=3, votes=(("appearance", 2), ("motion", 1)))
    views = replace(views, labels=np.where(np.arange(300) % 10 == 0, -1, views.labels))
    best = fit_temperature(views, stream_weights=weights, order=order)
    lowest = log_loss(tempered(views, best), stream_weights=weights, order=order)
    others = [log_loss(tempered(views, t), stream_weights=weights, order=order) for t in np.geomspace(0.1, 30, 60)]
    assert lowest <= min(others) + 1e-7
    near = [log_loss(tempered(views, best * f), stream_weights=weights, order=order) for f in (0.99, 1.01)]
    assert lowest < min(near)


def test_two_classes_by_hand() -> None:
    # Three of four answers with a margin of 2 are right: the best says 3/4, so 2 / T = log 3.
    two = scores([[2.0, 0.0]] * 4, [0, 0, 0, 1])
    assert fit_temperature(two) == pytest.approx(2 / math.log(3), rel=1e-6)
    at = tempered(two, fit_temperature(two))
    assert probabilities(at)[0, 0] == pytest.approx(0.75)
    assert figures(at).ece == pytest.approx(0, abs=1e-6)


def test_what_has_no_best_temperature_is_said() -> None:
    with pytest.raises(CalibrationError, match=r"no video has a known class"):
        fit_temperature(scores([[1.0, 0.0]], [-1]))
    with pytest.raises(CalibrationError, match=r"the answers tell no class from another"):
        fit_temperature(scores([[1.0, 1.0], [2.0, 2.0]], [0, 1]))
    for merge in ("logits", "softmax"):
        with pytest.raises(CalibrationError, match=r"3 of 3 videos are recognised and no mistake says how sure to be"):
            fit_temperature(scores([[9.0, 0.0], [0.0, 1.0], [2.0, 0.5]], [0, 1, 0], merge=merge))
    with pytest.raises(CalibrationError, match=r"on these 3 videos \(1 recognised\) the answers know no more than a g"):
        fit_temperature(scores([[1.0, 0.0], [0.0, 2.0], [2.0, 0.0]], [0, 0, 1]))
    for value in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(CalibrationError, match=r"a temperature is a finite number above 0"):
            tempered(scores([[1.0, 0.0]], [0]), value)


def test_the_calibration_error_by_hand() -> None:
    confidence = np.array([0.2, 0.21, 0.55, 0.6, 0.95, 1.0])
    right = np.array([0.0, 1.0, 1.0, 0.0, 1.0, 1.0])
    table = reliability(confidence, right, bins=5)
    # (0, 0.2] holds its upper border, (0.2, 0.4], (0.4, 0.6], (0.8, 1]; none in (0.6, 0.8].
    assert [one.videos for one in table] == [1, 1, 2, 2]
    assert [one.low for one in table] == pytest.approx([0, 0.2, 0.4, 0.8])
    assert [one.accuracy for one in table] == [0, 1, 0.5, 1]
    assert expected_error(table) == pytest.approx((0.2 + 0.79 + 2 * 0.075 + 2 * 0.025) / 6)
    mass = reliability(confidence, right, bins=3, equal_mass=True)
    assert [one.videos for one in mass] == [2, 2, 2]
    assert [one.high for one in mass] == pytest.approx([0.21, 0.6, 1.0])
    assert expected_error(mass) == pytest.approx((2 * abs(0.5 - 0.205) + 2 * abs(0.5 - 0.575) + 2 * 0.025) / 6)
    with pytest.raises(UsageError, match="at least 1 bin, got 0"):
        reliability(confidence, right, bins=0)


def test_equal_answers_may_come_in_any_order() -> None:
    confidence, right = np.full(6, 0.5), np.array([1.0, 1, 1, 0, 0, 0])
    for order in (right, right[::-1]):
        assert expected_error(reliability(confidence, order, bins=3, equal_mass=True)) == 0


def test_the_other_figures_by_hand() -> None:
    p = np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [1 / 3, 1 / 3, 1 / 3]])
    found = figures(scores(np.log(p), [0, 1, -1]))
    assert found.videos == 2
    assert found.nll == pytest.approx(-(math.log(0.7) + math.log(0.3)) / 2, rel=1e-6)
    assert found.brier == pytest.approx(((0.09 + 0.04 + 0.01) + (0.25 + 0.49 + 0.04)) / 2, rel=1e-6)
    assert found.ece == pytest.approx((0.3 + 0.5) / 2, rel=1e-6)
    with pytest.raises(CalibrationError, match="no video has a known class"):
        figures(scores(np.log(p), [-1, -1, -1]))


def test_answering_less_is_answering_better() -> None:
    p = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.5, 0.5]])
    table = coverage(scores(np.log(p), [0, 1, 1, -1]), thresholds=(0, 0.7, 0.85, 0.95))
    assert [at.answered for at in table] == pytest.approx([1, 2 / 3, 1 / 3, 0])
    assert [at.accuracy for at in table] == [pytest.approx(2 / 3), 1, 1, None]


def test_tempering_keeps_the_answers_where_logits_are_averaged() -> None:
    views = drawn(2.0, N=200, R=3)
    found = calibrate(replace(views, meta={**views.meta, "protocol": "25-step", "flips": True}))
    assert found.after.nll < found.before.nll
    assert found.after.ece < found.before.ece
    assert summary(tempered(views, found.value))["top1"] == summary(views)["top1"]


def test_a_temperature_knows_which_answers_it_is_for() -> None:
    meta = {"protocol": "10x3", "flips": False, "split": "2", "part": "val"}
    views = drawn(2.0, N=100, V=2, votes=(("a", 1), ("m", 1)), order="softmax", **meta)
    found = calibrate(views)
    assert (found.protocol, found.merge, found.flips, found.part, found.split) == ("10x3", "softmax", False, "val", "2")
    assert Temperature.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert found.fits(views)
    for change in ({"protocol": "1-view"}, {"flips": True}, {"merge": "logits"}, {"stream_weights": {"a": 1}}):
        assert not found.fits(replace(views, meta={**views.meta, **change}))
    assert calibrate(views, stream_weights={"a": 1}).value != found.value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": 0.0}, "a temperature is a finite number above 0, got 0.0"),
        ({"value": "hot"}, "not a temperature that twostream wrote"),
        ({"before": {}}, "not a temperature that twostream wrote"),
        ({"more": 1}, "not a temperature that twostream wrote"),
    ],
)
def test_a_record_that_is_none_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        Temperature.from_dict({**calibrate(drawn(2.0, N=100)).to_dict(), **change})


def test_the_model_folder_carries_it(tmp_path: Path) -> None:
    model = create_model("spatial_resnet18", num_classes=2, width=4, size=32)
    save_model(tmp_path / "m", model, classes=["a", "b"], provenance={"split": "1"})
    loaded = load_model(tmp_path / "m")
    assert loaded.calibration == {}
    first, second = (calibrate(drawn(t, N=100)).to_dict() for t in (2.0, 3.0))
    save_calibration(loaded, "25-step", first)
    # `loaded` is of before: what was written since stays.
    save_calibration(loaded, "10x3", second)
    shutil.copytree(tmp_path / "m", tmp_path / "elsewhere")
    again = load_model(tmp_path / "elsewhere")
    assert again.calibration == {"25-step": first, "10x3": second}
    assert sorted(path.name for path in again.folder.iterdir()) == ["config.json", "model.safetensors"]
    assert {key: value for key, value in again.config.items() if key != "calibration"} == dict(loaded.config)
    predictor = Predictor.load(again.folder, device="cpu")
    assert predictor.temperatures == {"25-step": first["value"], "10x3": second["value"]}
    save_model(tmp_path / "m", create_model("spatial_resnet18", num_classes=2, width=4, size=32), classes=["a", "b"])
    assert load_model(tmp_path / "m").calibration == {}
    with pytest.raises(CheckpointError, match="was saved anew in the meantime"):
        save_calibration(loaded, "25-step", first)


def test_a_record_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    model = create_model("spatial_resnet18", num_classes=2, width=4, size=32)
    save_model(tmp_path, model, classes=["a", "b"])
    save_calibration(load_model(tmp_path), "25-step", {"value": 2})
    with pytest.raises(CalibrationError, match="not a temperature that twostream wrote"):
        Predictor.load(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "calibration": [2]}))
    with pytest.raises(CheckpointError, match=r"config\.json: calibration is no table of protocols; calibrate it anew"):
        Predictor.load(tmp_path)


@pytest.fixture
def run(tiny_run: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of the tiny run without scores, whose model folder may be written to."""
    shutil.copytree(tiny_run.path, tmp_path / "run", ignore=shutil.ignore_patterns("scores"))
    return RunFolder.open(tmp_path / "run")


def plant(run: RunFolder, part: str, made: Scores, **meta: Any) -> Scores:
    """Scores of a part as the run's weights could have given them under the 1-view protocol."""
    items = run.annotations().parts[part]
    planted = replace(
        made,
        videos=tuple(item.name for item in items),
        groups=(),
        classes=run.model().classes,
        meta={
            "protocol": "1-view",
            "merge": "logits",
            "flips": False,
            "split": "1",
            "part": part,
            "model_sha256": run.model().config["weights"]["sha256"],
            **meta,
        },
    )
    planted.save(run.scores_file(part, "1-view"))
    return planted


# Three right and one wrong, all as sure as each other, in both streams.
MISTAKEN = scores(
    8 * np.eye(4)[[0, 1, 2, 0]][:, None, None].repeat(2, axis=2), [0, 1, 2, 3], votes=(("appearance", 1), ("motion", 1))
)


def test_a_run_is_calibrated_on_its_validation_part(run: RunFolder, capsys: Printed) -> None:
    clip = str(run.annotations().parts["test"][0].path)
    assert main(["evaluate", str(run.path), "--protocol", "1-view"]) == 0
    assert "(no temperature for answers made like these: twostream calibrate)" in capsys.readouterr().out
    assert main(["predict", str(run.path), clip, "--protocol", "1-view", "--json"]) == 0
    (raw,) = json.loads(capsys.readouterr().out)
    assert raw["calibrated"] is False

    val = plant(run, "val", MISTAKEN)
    assert main(["calibrate", str(run.path), "--protocol", "1-view", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    T = fit_temperature(val)
    assert document["temperature"] == pytest.approx(T)
    assert document["temperature"] > 2
    assert (document["videos"], document["rough"], document["scores_reused"]) == (4, True, True)
    assert document["after"] == figures(tempered(val, T)).to_dict()
    assert document["test"]["before"] == figures(Scores.load(run.scores_file("test", "1-view"))).to_dict()
    assert document["test"]["after"] != document["test"]["before"]
    assert document["coverage"][0] == {"threshold": 0.0, "answered": 1.0, "accuracy": 0.75}
    assert load_model(run.path).calibration["1-view"]["value"] == T

    # Evaluation and prediction take it from there.
    assert main(["evaluate", str(run.path), "--protocol", "1-view", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["calibration"]
    assert (told["raw"], told["calibrated"]) == (document["test"]["before"], document["test"]["after"])
    assert (told["temperature"], told["fitted_on"], told["fitted_on_these_videos"]) == (T, "val, split 1", False)
    assert main(["evaluate", str(run.path), "--protocol", "1-view", "--stream-weights", "motion=1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["calibration"]["calibrated"] is None
    assert main(["evaluate", str(run.path), "--protocol", "1-view", "--part", "val"]) == 0
    assert f"at the model's temperature {T:.3g}" in (out := capsys.readouterr().out)
    assert "fitted on these very videos" in out

    words = ["predict", str(run.path / "model"), clip, "--protocol", "1-view", "--top", "4"]
    assert main([*words, "--json", "--timeline", "--min-score", "0"]) == 0
    (calm,) = json.loads(capsys.readouterr().out)
    assert calm["calibrated"] is True
    assert calm["predictions"][0]["score"] < raw["predictions"][0]["score"]
    heated, cooled = (
        {entry["label"]: math.log(entry["score"]) for entry in found["predictions"]} for found in (raw, calm)
    )
    first, second = (entry["label"] for entry in calm["predictions"][:2])
    assert cooled[first] - cooled[second] == pytest.approx((heated[first] - heated[second]) / T, rel=1e-3)
    assert main([*words, "--unknown", "0.99", "--json", "--timeline", "--min-score", "0"]) == 0
    printed = capsys.readouterr()
    (unsure,) = json.loads(printed.out)
    assert (unsure["label"], unsure["unknown_below"]) == ("unknown", 0.99)
    assert {segment["label"] for segment in unsure["timeline"]} == {"unknown"}
    assert {segment["label"] for segment in calm["timeline"]} <= {entry["label"] for entry in calm["predictions"]}
    assert unsure["predictions"] == calm["predictions"]
    assert "not calibrated" not in printed.err
    assert main([*words[:3], "--protocol", "25-step", "--unknown", "1"]) == 0
    printed = capsys.readouterr()
    assert "unknown: no class reaches 1; the best guesses:" in printed.out
    assert "scores under 25-step are not calibrated" in printed.err
    assert f"twostream calibrate {run.path / 'model'} --protocol 25-step" in printed.err


def test_what_calibrate_prints(run: RunFolder, capsys: Printed) -> None:
    plant(run, "val", MISTAKEN)
    words = ["calibrate", str(run.path), "--protocol", "1-view"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "under 1-view the network was too sure of itself on 4 validation videos (scores that were there)" in out
    assert f"test: no scores of these weights in full precision; twostream evaluate {run.path} --protocol 1-view" in out
    assert "warning: 4 validation videos are few (fewer than 30)" in out
    assert "  0.00   1.000     0.750" in out
    # Scores of other weights are as none, and so is what they say of the test part.
    plant(run, "test", MISTAKEN, model_sha256="another")
    assert main(words) == 0
    assert "test: no scores of these weights" in capsys.readouterr().out
    plant(run, "test", MISTAKEN)
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "test after" in out
    assert "makes the log loss worse" not in out
    plant(run, "test", replace(MISTAKEN, labels=np.array([0, 1, 2, 0])))
    assert main(words) == 0
    assert "warning: on test it makes the log loss worse" in capsys.readouterr().out
    plant(run, "val", replace(MISTAKEN, logits=MISTAKEN.logits / 16))
    assert main(words) == 0
    assert "the network was not sure enough of itself" in capsys.readouterr().out


def test_scores_that_are_not_of_these_weights_are_made_anew(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def judge(judged: RunFolder, **options: Any) -> Any:
        asked.append(options["part"])
        evaluation = evaluate_run(judged, **options)
        return replace(evaluation, scores=plant(run, "val", MISTAKEN))

    monkeypatch.setattr("twostream.run_calibration.evaluate_run", judge)
    quiet: Any = {"protocol": "1-view", "say": lambda _: None}
    assert not calibrate_run(run, **quiet).reused
    assert calibrate_run(run, **quiet).reused
    assert asked == ["val"]
    for change in (
        {"model_sha256": "other"},
        {"flips": True},
        {"merge": "softmax"},
        {"precision": "bf16-mixed"},
    ):
        plant(run, "val", MISTAKEN, **change)
        assert not calibrate_run(run, **quiet).reused
    run.scores_file("val", "1-view").write_bytes(b"damaged")
    assert not calibrate_run(run, **quiet).reused
    assert asked == ["val"] * 6


def test_the_real_scores_are_weighed_as_predictions_weigh_them(run: RunFolder) -> None:
    # Scores that were asked for with weights of their own hold the same logits.
    evaluate_run(run, part="val", protocol="1-view", stream_weights={"motion": 1.0}, say=lambda _: None)
    val = Scores.load(run.scores_file("val", "1-view"))
    logits = val.logits.copy()
    # One that is wrong and one that is right, so that there is something to fit whatever the weights learned.
    logits[:, 0, 0] = MISTAKEN.logits[:, 0, 0]
    replace(val, logits=logits, labels=MISTAKEN.labels).save(run.scores_file("val", "1-view"))
    found = calibrate_run(run, protocol="1-view", say=lambda _: None)
    assert found.reused
    assert found.temperature.stream_weights == {"appearance": 0.5, "motion": 0.5}
    planted = Scores.load(run.scores_file("val", "1-view"))
    assert found.temperature.value == pytest.approx(
        fit_temperature(planted, stream_weights={"appearance": 1, "motion": 1})
    )
    assert found.table == reliability_of(
        tempered(planted, found.temperature.value), stream_weights={"appearance": 1, "motion": 1}
    )


def test_runs_that_cannot_be_calibrated(run: RunFolder, tmp_path: Path, capsys: Printed) -> None:
    words = ["calibrate", str(run.path), "--protocol", "1-view"]
    plant(run, "val", replace(MISTAKEN, labels=np.array([0, 1, 2, 0])))
    assert main(words) == 1
    assert "run, protocol 1-view: no temperature can be fitted: the smaller it is" in (err := capsys.readouterr().err)
    assert "hold out more validation videos. Its scores stay as they are" in err
    assert load_model(run.path).calibration == {}
    assert main([*words[:2], "--protocol", "2-view"]) == 2
    assert "no protocol is called '2-view'" in capsys.readouterr().err
    annotations = run.annotations()
    bare = replace(annotations, parts={**annotations.parts, "val": ()})
    run.data_file.write_text(json.dumps(bare.to_dict()))
    with pytest.raises(RunError, match=r"no validation part, .*train with --val_fraction above 0"):
        calibrate_run(run, protocol="1-view")
    assert main(["calibrate", str(tmp_path / "nowhere")]) == 1
    assert "no such run folder" in capsys.readouterr().err


def test_validation_videos_that_cannot_be_read_are_named(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    def judge(judged: RunFolder, **options: Any) -> Any:
        evaluation = evaluate_run(judged, **options)
        return replace(evaluation, scores=plant(run, "val", MISTAKEN), unreadable={"a.mp4": "a.mp4: no video"})

    monkeypatch.setattr("twostream.run_calibration.evaluate_run", judge)
    assert main(["calibrate", str(run.path), "--protocol", "1-view", "--workers", "0", "--batch-steps", "2"]) == 1
    assert "could not be read: a.mp4: no video" in capsys.readouterr().out
