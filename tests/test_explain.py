"""A run's attention, from its videos to a file, to figures and to the page."""

import json
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from twostream.attention.tracks import AttentionFile
from twostream.cli import main
from twostream.data import motion_shapes
from twostream.errors import UsageError
from twostream.explain import explain_attention
from twostream.explain.attention import Movers, read_truth
from twostream.reporting.report import write_report
from twostream.runs import RunFolder, evaluate_run
from twostream.training.config import TrainConfig
from twostream.training.run import train

Printed = pytest.CaptureFixture[str]


def silent(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def finished(tiny_config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of STPN on a set of which the truth is known."""
    folder = tmp_path_factory.mktemp("stpn")
    data = motion_shapes.generate(folder / "videos", "where", train=4, test=4, classes=2, size=64, frames=24)
    config = replace(
        tiny_config,
        data=str(data),
        out=str(folder / "run"),
        val_fraction=0,
        model="stpn_resnet18",
        model_args={"width": 4, "attention_d": 32, "top_d": 32},
        flow=replace(tiny_config.flow, store=str(folder / "flow")),
        trainer=replace(tiny_config.trainer, epochs=1),
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        run = train(config, say=silent).run
        evaluate_run(run, protocol="1-view", say=silent)
    finally:
        torch.set_num_threads(threads)
    return run


@pytest.fixture
def run(finished: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy that may be broken."""
    shutil.copytree(finished.path, tmp_path / "run")
    return RunFolder.open(tmp_path / "run")


class Words(HTMLParser):
    """The text of a page."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.words: list[str] = []
        self.labels: list[str] = []
        self.feed(page.read_text("utf-8"))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del tag
        self.labels += [str(value) for key, value in attrs if key == "aria-label"]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).replace("\u00a0", " ").split())


def test_a_run_is_explained_and_the_report_shows_it(run: RunFolder) -> None:
    said: list[tuple[int, int, str]] = []
    found = explain_attention(run, moments=3, say=silent, progress=lambda *told: said.append(told))
    assert said[-1][:2] == (4, 4)
    assert found.file == run.path / "explain" / "attention-test.npz"
    tracks = AttentionFile.load(found.file).tracks
    assert list(tracks) == [item.name for item in run.annotations().parts["test"]]
    track = next(iter(tracks.values()))
    # A short side of 54 px and a long one of 62 are two cells each.
    assert track.weights.shape == (3, 2, 2)
    assert track.seen == (0, 0, 1, 1)
    # A stack begins at the frame that is shown, and 24 frames have room for the first and for the last.
    assert (track.seconds * motion_shapes.FPS).tolist() == pytest.approx([0, 7, 13])
    inside = track.inside
    assert inside is not None
    assert np.isfinite(inside.mass).all()
    # The last convolution begins at zero, and one short epoch takes the attention not far.
    assert inside.mass == pytest.approx(inside.even, rel=0.5)
    document = found.to_dict()
    assert json.loads(json.dumps(document)) == document
    assert (document["part"], document["moments"], document["model"]) == ("test", 3, "stpn_resnet18")
    assert document["mass"] == pytest.approx(np.mean([video["mass"] for video in document["videos"].values()]))
    assert 0 < document["area"] < 0.3
    page = Words(write_report([run.path]))
    assert f"Half of the attention lies on {100 * document['concentration']:.1f} % of the cells" in page.text
    assert f"{100 * document['mass']:.1f} % {100 * document['even']:.1f} % {100 * document['area']:.1f} %" in page.text
    strips = [label for label in page.labels if "the attention on them" in label]
    assert len(strips) == 4
    assert all("their optical flow and the attention" in strip for strip in strips)
    assert "make it again" not in page.text


def test_the_boxes_are_those_of_what_moves_at_the_time(run: RunFolder) -> None:
    truth = read_truth(Path(run.config()["data"]) / motion_shapes.TRUTH)
    told = json.loads((Path(run.config()["data"]) / motion_shapes.TRUTH).read_text())
    for entry in told["videos"]:
        (thing,) = [thing for thing in entry["objects"] if thing["moves"]]
        assert thing["texture"] == entry["texture"]
        ((box,),) = truth[entry["video"]].boxes_at([9.2 / told["fps"]])
        assert box == pytest.approx(np.array(thing["boxes"][9]) / [72, 64, 72, 64])
    # Rounding at the very end must not look for a frame beyond it.
    movers = Movers(10, (((0, 0, 1, 1), (0, 0, 0.5, 0.5)),))
    assert movers.boxes_at([0.0, 0.26]) == [[(0, 0, 1, 1)], [(0, 0, 0.5, 0.5)]]
    assert Movers(10, ()).boxes_at([0.0]) == [[]]


def test_protocols_that_look_at_the_centre(run: RunFolder) -> None:
    found = explain_attention(run, protocol="1-view", moments=1, videos=2, say=silent)
    tracks = found.attention.tracks
    # Of four videos every second one, so that both classes are there.
    assert list(tracks) == [run.annotations().parts["test"][n].name for n in (0, 2)]
    track = next(iter(tracks.values()))
    left, top, right, bottom = track.seen
    assert 0 < left < 0.2
    assert left + right == pytest.approx(1)
    assert top + bottom == pytest.approx(1)
    assert (track.xs >= left).all()
    assert (track.xs <= right).all()


def test_classes_that_a_mirror_would_change_are_not_mirrored(run: RunFolder) -> None:
    both = explain_attention(run, moments=1, say=silent).attention.tracks
    config = run.config_file
    config.write_text(config.read_text().replace("no_flip: []", "no_flip: [dots]"))
    plain = explain_attention(run, moments=1, say=silent).attention.tracks
    assert any(not np.array_equal(plain[name].weights, both[name].weights) for name in both)


def test_data_without_truth_have_no_boxes(run: RunFolder, tmp_path: Path) -> None:
    data = Path(run.config()["data"])
    shutil.copytree(data, tmp_path / "videos", ignore=shutil.ignore_patterns(motion_shapes.TRUTH))
    run.config_file.write_text(run.config_file.read_text().replace(str(data), str(tmp_path / "videos")))
    found = explain_attention(run, moments=1, say=silent)
    assert found.to_dict()["mass"] is None
    assert not any("boxes" in line for line in found.lines())
    page = Words(write_report([run.path])).text
    assert "Half of the attention lies on" in page
    assert "Times the even share" not in page
    (tmp_path / "videos" / motion_shapes.TRUTH).write_text("{}")
    with pytest.raises(UsageError, match=r"truth\.json: not the truth of generated videos \('width'\); move it away"):
        explain_attention(run, moments=1, say=silent)


def test_wrong_calls_are_named(run: RunFolder, tiny_run: RunFolder, capsys: Printed) -> None:
    with pytest.raises(UsageError, match="moments is at least 1, got 0"):
        explain_attention(run, moments=0)
    with pytest.raises(UsageError, match="videos is at least 1, got 0"):
        explain_attention(run, videos=0)
    with pytest.raises(UsageError, match="its data has no val videos"):
        explain_attention(run, part="val")
    assert attention(tiny_run) == 2
    assert "two_stream_resnet18 has no attention to show" in capsys.readouterr().err
    assert main(["explain", str(run.path / "none")]) == 1
    assert "no such run folder" in capsys.readouterr().err


def attention(run: RunFolder, *words: str) -> int:
    return main(["explain", str(run.path), "--method", "attention", *words])


def test_the_command_prints_lines_or_one_document(run: RunFolder, capsys: Printed) -> None:
    assert attention(run, "--moments", "1", "--device", "cpu") == 0
    printed = capsys.readouterr().out
    assert "attention of stpn_resnet18 on 4 test videos, 1 moments each: half of it lies on" in printed
    assert "inside the boxes of what moves" in printed
    assert f"next: twostream report {run.path}" in printed
    assert attention(run, "--part", "train", "--protocol", "1-view", "--limit", "1", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["part"], len(document["videos"]), document["protocol"]) == ("train", 1, "1-view")
    assert (run.path / "explain" / "attention-train.npz").is_file()


def test_a_video_that_cannot_be_read_is_named(run: RunFolder, tmp_path: Path, capsys: Printed) -> None:
    document = json.loads(run.data_file.read_text())
    broken = tmp_path / "broken.mp4"
    broken.write_text("no video")
    document["parts"]["test"][0] |= {"path": str(broken), "video": "broken.mp4"}
    run.data_file.write_text(json.dumps(document))
    assert attention(run, "--moments", "1") == 1
    assert f"could not be read: {broken}" in capsys.readouterr().out
    assert len(AttentionFile.load(run.path / "explain" / "attention-test.npz").tracks) == 3


def test_a_report_says_how_attention_is_made(run: RunFolder) -> None:
    page = Words(write_report([run.path])).text
    assert f"To see here where it looks: twostream explain {run.path} --method attention --part test" in page


def test_a_report_says_when_attention_is_old_or_damaged(run: RunFolder) -> None:
    found = explain_attention(run, moments=1, say=silent)
    AttentionFile(tracks=found.attention.tracks, meta={**found.attention.meta, "weights": "others"}).save(found.file)
    page = Words(write_report([run.path])).text
    assert "This attention is of other weights than the run now has; make it again: twostream explain" in page
    found.file.write_bytes(b"PK")
    assert "Attention is left out: " in Words(write_report([run.path])).text


def test_pictures_that_cannot_be_had_are_said(run: RunFolder) -> None:
    found = explain_attention(run, moments=1, say=silent)
    document = json.loads(run.data_file.read_text())
    first = document["parts"]["test"][0]["video"]
    document["parts"]["test"] = document["parts"]["test"][1:]
    run.data_file.write_text(json.dumps(document))
    assert f"No pictures: data.json does not list {first}." in Words(write_report([run.path])).text
    # Neither the store nor the videos.
    run.config_file.write_text(run.config_file.read_text().replace("store:", "store: /nowhere #"))
    for entry in document["parts"]["test"]:
        entry["path"] = "/nowhere/" + entry["video"]
    run.data_file.write_text(json.dumps(document))
    assert Words(write_report([run.path])).text.count("No pictures: /nowhere/") >= 6
    # A run that has not been judged is shown no clips.
    for scores in (run.path / "scores").iterdir():
        scores.unlink()
    page = Words(write_report([run.path]))
    assert "Half of the attention lies on" in page.text
    assert not any("the attention on them" in label for label in page.labels)
    assert found.file.exists()
