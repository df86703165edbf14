import base64
import html
import json
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from twostream.cli import main
from twostream.clip import Scores
from twostream.data.items import VideoItem
from twostream.errors import UsageError
from twostream.evaluation.metrics import one_stream, predictions, probabilities, top_k_accuracy
from twostream.evaluation.over_time import margins
from twostream.evaluation.protocols import PROTOCOLS
from twostream.evaluation.splits import SplitMean
from twostream.evaluation.statistics import accuracy_interval, compare
from twostream.files import OutputError
from twostream.flow.quantize import quantize
from twostream.flow.store import FlowSettings, FlowStore, StoredFlowWriter
from twostream.reporting import page
from twostream.reporting.clips import choose, footage
from twostream.reporting.confusions import most_frequent
from twostream.reporting.figures import colour_wheel, curves, flow_images, heat_map, jpeg, lines_over_time
from twostream.reporting.report import read_runs, write_report
from twostream.reporting.run_files import ReportError, Sample, read_run
from twostream.reporting.splits import over_splits
from twostream.video import Video, VideoError, write_video

CLASSES = ('<b>wave</b> & "bow"', "$clap$_1", "jump")
META = {"protocol": "25-step", "split": "1", "part": "test", "model": "two_stream_resnet18", "merge": "logits"}


def moving_square(path: Path, *, step: int, frames: int = 14) -> None:
    rng = np.random.default_rng(step)
    ground = rng.integers(60, 120, (48, 64, 3), dtype=np.uint8)
    square = rng.integers(150, 255, (14, 14, 3), dtype=np.uint8)

    def picture(t: int) -> Any:
        image = ground.copy()
        x = 4 + (t * step) % 40
        image[16:30, x : x + 14] = square
        return image

    write_video(path, (picture(t) for t in range(frames)), 10.0)


def put_flow(store: FlowStore, name: str, path: Path) -> None:
    """Flow to the right, as fast as the square moves."""
    frames = Video(path).frames(range(14), short_side=store.settings.short_side)
    _, H, W, _ = frames.shape
    field = quantize(np.stack([np.full((H, W), 3.0), np.zeros((H, W))]))
    with StoredFlowWriter(store.path_for(name), store.settings, width=W, height=H) as writer:
        for number, frame in enumerate(frames):
            if number:
                writer.add_field(field)
            if store.settings.frames:
                writer.add_frame(frame)
        writer.finish(fps=10.0, source_width=64, source_height=48, provenance={})


def item(video: str, path: Path, label: int, group: str, **stretch: float) -> dict[str, Any]:
    return {"path": str(path), "video": video, "label": label, "group": group, "start": None, "end": None, **stretch}


def made_scores(items: list[dict[str, Any]], *, appearance: Any, motion: Any, **meta: Any) -> Scores:
    """Scores in which each stream is as sure of a class as is asked: pairs of (class, logit) per video."""
    logits = np.zeros((len(items), 2, 2, len(CLASSES)), np.float32)
    for n, pairs in enumerate(zip(appearance, motion, strict=True)):
        for vote, (k, value) in enumerate(pairs):
            logits[n, :, vote, k] = value
    return Scores(
        logits=logits,
        labels=np.array([entry["label"] for entry in items]),
        videos=tuple(entry["video"] for entry in items),
        groups=tuple(entry["group"] for entry in items),
        classes=CLASSES,
        votes=(("appearance", 1), ("motion", 1)),
        meta=META | meta,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run, its videos and its flow store."""
    root = tmp_path_factory.mktemp("report")
    videos = root / "videos"
    entries = []
    for n in range(9):
        name = f"{n % 3}/<i>v{n}</i>.mp4"
        moving_square(videos / name, step=1 + n % 3)
        entries.append(item(name, videos / name, n % 3, f"g{n // 3}"))
    store = FlowStore(root / "flow", FlowSettings(estimator="farneback", short_side=48, frames=True))
    store.prepare()
    for entry in entries:
        put_flow(store, entry["video"], Path(entry["path"]))
    run = root / "run"
    (run / "model").mkdir(parents=True)
    (run / "config.yaml").write_text(
        f"data: {videos}\nmodel: two_stream_resnet18\nsplit: 1\nseed: 7\nflow:\n  store: {root / 'flow'}\n", "utf-8"
    )
    data = {
        "kind": "class folders",
        "data": str(videos),
        "split": "1",
        "classes": list(CLASSES),
        "parts": {"train": entries[:3], "val": [], "test": entries[3:]},
        "missing": ["gone.mp4"],
        "notes": ["split by group"],
        "warnings": [],
    }
    (run / "data.json").write_text(json.dumps(data), "utf-8")
    (run / "model" / "config.json").write_text(
        json.dumps(
            {
                "model": "two_stream_resnet18",
                "classes": list(CLASSES),
                "provenance": {"twostream": "0.1", "seed": 7, "flow": {"estimator": "farneback"}, "tags": ["a", "b"]},
            }
        )
    )
    (run / "metrics.csv").write_text(
        "epoch,step,train_loss,train_top1,val_loss,val_top1,lr,seconds\n"
        "0,4,1.5,0.25,1.4,0.5,0.001,2\n1,8,0.75,0.75,,,0.0005,2\n2,12,0.5,0.875,0.7,0.625,0.0001,2\n"
    )
    # Both right, appearance only, motion only, neither, both wrong differently, both right.
    made_scores(
        entries[3:],
        appearance=[(0, 3), (1, 4), (0, 1), (1, 2), (0, 2), (2, 5)],
        motion=[(0, 2), (2, 1), (2, 4), (1, 3), (2, 3), (2, 1)],
    ).save(run / "scores" / "test-25-step.npz")
    return root


@pytest.fixture
def root(finished: Path, tmp_path: Path) -> Path:
    """A copy that may be broken; it still reads the videos and the flow of the original."""
    shutil.copytree(finished / "run", tmp_path / "run")
    return tmp_path


class Reader(HTMLParser):
    """Reads a page strictly: every element is closed, in order."""

    VOID = frozenset({"meta", "img", "path", "use", "rect", "image"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"[ \n]+", " ", " ".join(self.words)).replace("\u00a0", " ").replace("\u2060", "")

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def report(*runs: Path, out: Path | None = None) -> Reader:
    return Reader(write_report(list(runs), out).read_text("utf-8"))


def test_the_page_holds_the_result(finished: Path, root: Path) -> None:
    path = write_report([root / "run"])
    assert path == root / "run" / "report.html"
    read = Reader(path.read_text("utf-8"))
    scores = Scores.load(finished / "run" / "scores" / "test-25-step.npz")
    interval = accuracy_interval(scores)
    assert "two_stream_resnet18 named the right one of 3 classes for 4 of 6 test videos: 66.7 %" in read.text.replace(
        " :", ":"
    )
    assert f"95 % interval {100 * interval.low:.0f}–{100 * interval.high:.0f} %" in read.text
    assert "33.3 % always the most frequent: 33.3 %" in read.text
    assert "by 25-step, split 1" in read.text
    headings = [name for name, _ in read.elements if re.fullmatch(r"h\d", name)]
    assert headings[0] == "h1"
    assert headings.count("h1") == 1
    for above, below in pairwise(headings):
        assert int(below[1]) <= int(above[1]) + 1
    for name in ("Streams", "Classes", "Clips", "Training", "Data", "Provenance"):
        assert name in read.words


def test_the_page_loads_nothing_and_runs_nothing(root: Path) -> None:
    text = write_report([root / "run"]).read_text("utf-8")
    read = Reader(text)
    assert not {"script", "link", "iframe", "object", "base"} & {name for name, _ in read.elements}
    assert read.all("img")
    for name, attributes in read.elements:
        for key, value in attributes.items():
            assert not key.startswith("on")
            if key in ("src", "xlink:href", "href"):
                assert value is not None
                assert re.match(r"data:image/(jpeg|png);base64,|#", value), (name, value[:80])
    assert not re.findall(r"url\((?!#)|@import|https?:(?!//www\.w3)", text)
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in html.unescape(text)


def test_names_from_files_are_text_and_nothing_else(root: Path) -> None:
    text = write_report([root / "run"]).read_text("utf-8")
    assert "<b>wave" not in text
    assert "<i>v" not in text
    assert html.escape(CLASSES[0]) in text
    read = Reader(text)
    assert CLASSES[0] in read.words
    assert CLASSES[1] in read.words
    assert any("0/<i>v3</i>.mp4" in word for word in read.words)


def test_the_page_can_be_read_without_eyes_or_mouse(root: Path) -> None:
    read = report(root / "run")
    assert read.all("html") == [{"lang": "en"}]
    assert any(attributes.get("name") == "viewport" for attributes in read.all("meta"))
    assert all("alt" in attributes for attributes in read.all("img"))
    assert all(attributes.get("scope") in ("col", "row") for attributes in read.all("th"))
    assert len(read.all("caption")) == len(read.all("table")) >= 6
    for name, attributes in read.elements:
        if attributes.get("role") in ("img", "region"):
            assert attributes["aria-label"], name
        if attributes.get("class") == "scroll":
            assert attributes["tabindex"] == "0"
    ids = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    anchors = [a["href"] for a in read.all("a")]
    assert len(anchors) == 7
    assert {f"#{name}" for name in ids} >= set(anchors)
    assert max(Counter(name for name in ids if not re.fullmatch(r"[mp][0-9a-f]{10}", str(name))).values()) == 1


def test_the_streams_are_taken_apart(finished: Path, root: Path) -> None:
    read = report(root / "run")
    scores = Scores.load(finished / "run" / "scores" / "test-25-step.npz")
    for stream in ("appearance", "motion"):
        share = top_k_accuracy(one_stream(scores, stream))
        assert re.search(rf"{stream} alone +{100 * share:.1f} %", read.text)
    assert "appearance 0.50, motion 0.50" in read.text
    gain = compare(one_stream(scores, "appearance"), scores)
    assert f"Together against appearance alone, the better of the streams: {100 * gain.difference:+.1f}" in read.text
    assert "1 videos won, 0 lost. To join them, logits are averaged." in read.text
    for row in ("every stream 2 2", "only appearance 1 1", "only motion 1 1", "no stream 2 0"):
        assert row in read.text


def test_clips_are_shown_with_their_flow_and_what_each_stream_said(root: Path) -> None:
    read = report(root / "run")
    headings = [word for word in read.words if word.startswith(("Most", "Right, and"))]
    assert headings == [
        "Most often taken for",
        "Most confident mistakes",
        "Right, and appearance alone was not",
        "Right, and motion alone was not",
        "Most confident successes",
    ]
    strips = [str(a["aria-label"]) for a in read.all("div") if str(a.get("class")).startswith("strip") and "role" in a]
    # Six clips, and of each of two confusions the clip and one of the class that it was taken for.
    assert len(strips) == 6 + 2 * 2
    assert all("optical flow at these moments, full colour at" in strip for strip in strips)
    assert "Frames of 0/<i>v3</i>.mp4 at 0.2, 0.5, 0.7, 1.0 s" in " ".join(strips)
    # Clips of four moments and confusions of two, three classes, each with frames and flow, and the wheel.
    assert len(read.all("img")) == 6 * 8 + 4 * 4 + 3 * 2 + 1
    assert "$clap$_1" in read.text
    assert "✗ wrong" in read.text
    assert "✓ right" in read.text
    assert "P(next: jump)" in read.text


def test_confused_clips_stand_beside_a_right_one_of_the_class_they_were_taken_for(root: Path) -> None:
    read = report(root / "run")
    captions = [word for word in read.words if ", taken for " in word or word.startswith("for comparison: ")]
    scores = Scores.load(root / "run" / "scores" / "test-25-step.npz")
    values, answers = probabilities(scores), predictions(scores)
    wrong = [n for n in range(6) if answers[n] != scores.labels[n]]
    assert len(wrong) == 2
    for n in wrong:
        truth, answer = int(scores.labels[n]), int(answers[n])
        assert f"{CLASSES[truth]} taken for {CLASSES[answer]}: 1 clip" in read.words
        assert f"{CLASSES[truth]}, taken for {CLASSES[answer]}" in captions
        said = f"P({CLASSES[answer]})\u00a0{values[n, answer]:.2f}, P({CLASSES[truth]})\u00a0{values[n, truth]:.2f}"
        assert said in read.words
        recognised = [m for m in range(6) if answers[m] == scores.labels[m] == answer]
        if recognised:
            assert f"for comparison: {CLASSES[answer]}, recognised" in captions
            surest = max(recognised, key=lambda m: values[m, answer])
            assert f"P({CLASSES[answer]})\u00a0{values[surest, answer]:.2f}" in read.words
    # Nothing of the class is recognised, or nothing is confused.
    labels = np.where(answers == answers[wrong[0]], (answers + 1) % 3, answers)
    with_changes(scores, labels=labels).save(root / "run" / "scores" / "test-25-step.npz")
    read = report(root / "run")
    assert f"No clip of {CLASSES[answers[wrong[0]]]} was recognised." in read.words
    with_changes(scores, labels=answers).save(root / "run" / "scores" / "test-25-step.npz")
    assert "taken for" not in report(root / "run").text.replace("Most often taken for", "")


def test_the_most_frequent_confusions_come_first() -> None:
    counts = np.array([[9, 2, 0], [5, 0, 0], [0, 3, 7]])
    assert most_frequent(counts, 2) == [(1, 0, 5), (2, 1, 3)]
    assert most_frequent(counts, 9) == [(1, 0, 5), (2, 1, 3), (0, 1, 2)]


def test_each_card_shows_who_decided_when(root: Path) -> None:
    scores = scores_of(root)
    read = report(root / "run")
    # Two views a video, both of one moment.
    assert not any(str(a.get("aria-label")).startswith("Margin over time") for a in read.all("div"))
    logits = np.repeat(scores.logits[:, :1], 25, axis=1)
    logits[0, :12, 1, scores.labels[0]] += 8
    with_changes(scores, logits=logits).save(root / "run" / "scores" / "test-25-step.npz")
    read = report(root / "run")
    drawn = [str(a["aria-label"]) for a in read.all("div") if str(a.get("aria-label")).startswith("Margin over")]
    assert len(drawn) == 6
    assert "what each stream adds to the margin of the true class" in read.text
    moved = scores_of(root)
    truth = int(scores.labels[0])
    other = int(np.argsort(-probabilities(moved)[0], kind="stable")[1])
    assert f"When: ↑\u00a0for {CLASSES[truth]}, ↓\u00a0for {CLASSES[other]}" in read.words
    mean = margins(moved, 0, truth, other)["motion"].mean()
    assert any(f"{moved.videos[0]}: " in words and f"motion {mean:+.2f} on average" in words for words in drawn)
    svg = lines_over_time({"appearance": [1, -2], "motion": [0.5, 0.5]})
    Reader(svg)
    assert {"var(--appearance)", "var(--motion)"} <= set(re.findall(r"var\(--\w+\)", svg))


def test_curves_data_and_provenance_are_there(root: Path) -> None:
    read = report(root / "run")
    drawings = [str(a["aria-label"]) for a in read.all("div") if a.get("class") == "drawing"]
    assert drawings == [
        "Loss: training ends at 0.5, held out ends at 0.7",
        "Accuracy: training ends at 0.875, held out ends at 0.625",
        "Learning rate: from 0.001 to 0.0001",
    ]
    assert "class folders, split 1" in read.text
    assert "1 listed videos are missing." in read.text
    assert "split by group" in read.text
    assert "All 3 6" in read.text
    assert "Groups 1 2" in read.text
    assert "flow estimator farneback" in read.text
    assert "tags a, b" in read.text
    assert "seed 7" in read.text
    assert "repeat with twostream train --config" in read.text
    assert "test-25-step.npz test 1 25-step logits 6 66.7 %" in read.text
    assert "Made by twostream" in read.text


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("config.yaml", "The configuration is not there (config.yaml)."),
        ("data.json", "The list of videos is not there (data.json)."),
        ("metrics.csv", "There are no training curves (metrics.csv is not there)."),
        ("model/config.json", "The trained model's description is not there (config.json)."),
        ("scores/test-25-step.npz", "There are no scores yet. Make them with: twostream evaluate"),
    ],
)
def test_what_is_missing_is_said(root: Path, file: str, message: str) -> None:
    (root / "run" / file).unlink()
    (problem,) = read_run(root / "run", "run").problems
    assert problem.startswith(message)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.yaml", b"a: [", "The configuration cannot be read (config.yaml: "),
        ("config.yaml", b"\xff\xfe\x00", "The configuration cannot be read (config.yaml: "),
        ("config.yaml", b"just words", "The configuration cannot be read (config.yaml holds no entries)."),
        ("data.json", b"{", "The list of videos cannot be read (data.json: "),
        ("data.json", b'{"classes": ["a"]}', "The list of videos cannot be read (data.json: 'parts')."),
        ("data.json", b'{"classes": ["a"], "parts": 3}', "The list of videos cannot be read (data.json: "),
        (
            "data.json",
            b'{"classes": ["a"], "parts": {"test": [{"path": "x", "video": "x", "label": 4}]}}',
            "label 4 of x is outside the 1 classes",
        ),
        ("metrics.csv", b"\xff\xfe\x00", "The training curves cannot be read (metrics.csv: "),
        ("model/config.json", b"[]", "The trained model's description cannot be read (config.json holds no entries)."),
        ("scores/test-25-step.npz", b"PK", "Scores were left out: test-25-step.npz: not a scores file of twostream"),
    ],
)
def test_what_is_damaged_is_said(root: Path, file: str, content: bytes, message: str) -> None:
    (root / "run" / file).write_bytes(content)
    problems = read_run(root / "run", "run").problems
    assert message in problems[0]
    assert len(problems) == (2 if file.startswith("scores") else 1)


def test_a_page_is_made_of_nothing_but_damage(root: Path) -> None:
    for path in (root / "run").rglob("*.*"):
        path.write_bytes(b"\xff\x00")
    read = report(root / "run")
    assert "unknown model: not judged yet." in read.text
    assert len([word for word in read.words if "cannot be read" in word or "were left out" in word]) == 5


def test_facts_of_another_kind_than_expected_are_passed_over(root: Path) -> None:
    changed(root / "run" / "data.json", notes=3, missing={"a": 1}, warnings=None, kind=None)
    changed(root / "run" / "model" / "config.json", provenance=5)
    (root / "run" / "config.yaml").write_text("flow: 3\n")
    text = report(root / "run").text
    assert "split 1" in text
    assert "The configuration names no flow store, so clips are shown without their flow." in text


@pytest.mark.parametrize(
    ("meta", "message"),
    [({"merge": "max"}, "got 'max'"), ({"stream_weights": {"sound": 1}}, "weights for streams ['sound']")],
)
def test_scores_that_cannot_be_merged_are_left_out(root: Path, meta: dict[str, Any], message: str) -> None:
    scores = scores_of(root)
    with_changes(scores, meta=META | meta).save(root / "run" / "scores" / "test-25-step.npz")
    problem = read_run(root / "run", "run").problems[0]
    assert problem.startswith("Scores were left out: test-25-step.npz: ")
    assert message in problem


def test_a_run_that_has_just_begun_is_reported(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("model: spatial_resnet18\n")
    read = report(tmp_path / "run")
    assert "spatial_resnet18: not judged yet." in read.text
    assert "There are no training curves" in read.text


def test_flow_that_has_moved_leaves_the_frames_of_the_videos(root: Path) -> None:
    config = root / "run" / "config.yaml"
    config.write_text(re.sub("store: .*", "store: /nowhere/flow", config.read_text()))
    read = report(root / "run")
    assert "The flow store is no longer at /nowhere/flow, so clips are shown without their flow." in read.text
    assert len(read.all("img")) == 6 * 4 + 4 * 2 + 3
    assert not any("optical flow" in str(a.get("aria-label")) for a in read.all("div"))


def test_a_store_that_cannot_be_opened_is_said(root: Path) -> None:
    (root / "run" / "store").mkdir()
    config = root / "run" / "config.yaml"
    config.write_text(re.sub("store: .*", "store: store", config.read_text()))
    assert re.search(r"Clips are shown without their flow: .*store: no flow store there", report(root / "run").text)


def test_a_store_named_from_the_run_folder_is_found(finished: Path, root: Path) -> None:
    (root / "run" / "store").symlink_to(finished / "flow")
    config = root / "run" / "config.yaml"
    config.write_text(re.sub("store: .*", "store: store", config.read_text()))
    assert "no longer" not in report(root / "run").text


def changed(path: Path, **entries: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | entries), "utf-8")


def test_videos_that_have_moved_are_named(root: Path) -> None:
    (root / "run" / "config.yaml").unlink()
    data = json.loads((root / "run" / "data.json").read_text("utf-8"))
    for entries in data["parts"].values():
        for entry in entries:
            entry["path"] = "/nowhere/" + entry["video"]
    changed(root / "run" / "data.json", parts=data["parts"])
    read = report(root / "run")
    assert len(read.all("img")) == 0
    assert read.text.count("No pictures: /nowhere/") == 6 + 4 + 3


def test_scored_videos_that_the_data_do_not_list_are_named(root: Path) -> None:
    (root / "run" / "data.json").unlink()
    read = report(root / "run")
    assert "No pictures: data.json does not list 0/<i>v3</i>.mp4." in read.text


def test_flow_without_frames_is_still_shown(finished: Path, tmp_path: Path) -> None:
    source = next((finished / "videos").rglob("*.mp4"))
    store = FlowStore(tmp_path / "flow", FlowSettings(estimator="farneback", short_side=24, frames=False))
    store.prepare()
    put_flow(store, "v.mp4", source)
    sample = Sample(name="v.mp4", video="v.mp4", path=source, label=0, group="", start=None, end=None)
    found = footage(sample, store, moments=3)
    assert found.frames is not None
    assert found.flow is not None
    assert found.frames.shape == (3, 24, 32, 3)
    assert found.flow.shape == (3, 2, 24, 32)
    gone = Sample(**{**vars(sample), "path": tmp_path / "gone.mp4"})
    found = footage(gone, store, moments=3)
    assert found.frames is None
    assert found.flow is not None
    with pytest.raises(VideoError, match=r"gone\.mp4"):
        footage(gone, None, moments=3)


def test_the_moments_of_a_stretch_lie_in_it(finished: Path) -> None:
    source = next((finished / "videos").rglob("*.mp4"))
    store = FlowStore(finished / "flow", None)
    name = source.relative_to(finished / "videos").as_posix()
    for place in (store, None):
        sample = Sample(name="x", video=name, path=source, label=0, group="", start=0.5, end=0.9)
        assert footage(sample, place, moments=4).seconds == pytest.approx((0.5, 0.6, 0.7, 0.8))
        beyond = Sample(name="x", video=name, path=source, label=0, group="", start=80.0, end=90.0)
        assert len(footage(beyond, place, moments=4).seconds) == 4


def test_stretches_are_known_by_the_names_in_the_scores(root: Path) -> None:
    data = json.loads((root / "run" / "data.json").read_text("utf-8"))
    stretches = [{}, {"start": 0.1}, {"end": 1.0}, {"start": 0.0, "end": 0.125}]
    entries = [item("day 1.mp4", Path("x"), 0, "", **stretch) for stretch in stretches]
    changed(root / "run" / "data.json", parts=data["parts"] | {"test": entries})
    wanted = [VideoItem(**{**entry, "path": Path("x")}).name for entry in entries]
    assert [sample.name for sample in read_run(root / "run", "run").parts["test"]] == wanted


def test_rows_as_lightning_logs_them_are_read(root: Path) -> None:
    (root / "run" / "metrics.csv").write_text(
        "epoch,step,train_loss,val_loss,val_acc,lr-SGD,note\n0,3,,,,0.1,x\n0,3,2.0,,,,\n0,3,,1.5,0.5,,\n"
        "1,6,1.0,nan,,,\n1,6,,inf,0.75,,\n,,0.5,,,,\n"
    )
    read = report(root / "run")
    drawings = [str(a["aria-label"]) for a in read.all("div") if a.get("class") == "drawing"]
    assert drawings == [
        "Loss: training ends at 0.5, held out ends at 1.5",
        "Accuracy: held out ends at 0.75",
        "Learning rate: from 0.1 to 0.1",
    ]


def scores_of(root: Path) -> Scores:
    return Scores.load(root / "run" / "scores" / "test-25-step.npz")


def with_changes(scores: Scores, **changes: Any) -> Scores:
    return Scores(**{name: getattr(scores, name) for name in scores.__dataclass_fields__} | changes)


def test_the_test_part_by_the_most_thorough_protocol_heads_the_page(root: Path) -> None:
    scores, folder = scores_of(root), root / "run" / "scores"
    for part, protocol in (("val", "25x10"), ("test", "1-view"), ("test", "25x10"), ("train", "25-step")):
        meta = META | {"part": part, "protocol": protocol}
        with_changes(scores, meta=meta).save(folder / f"{part}-{protocol}.npz")
    assert list(read_run(root / "run", "run").scores) == [
        "test-25x10.npz",
        "test-25-step.npz",
        "test-1-view.npz",
        "val-25x10.npz",
        "train-25-step.npz",
    ]


def test_every_protocol_has_its_place_among_the_scores(root: Path) -> None:
    scores, folder = scores_of(root), root / "run" / "scores"
    for protocol in PROTOCOLS:
        with_changes(scores, meta=META | {"protocol": protocol}).save(folder / f"test-{protocol}.npz")
    with_changes(scores, meta=META | {"protocol": "another"}).save(folder / "another.npz")
    assert list(read_run(root / "run", "run").scores)[-1] == "another.npz"


def test_weights_searched_on_held_out_videos_are_shown_beside(root: Path) -> None:
    entries = [item(f"val{n}", Path("x"), n % 3, "") for n in range(3)]
    made_scores(
        entries, appearance=[(1, 1), (2, 1), (0, 1)], motion=[(0, 5), (1, 5), (2, 5)], part="val", protocol="1-view"
    ).save(root / "run" / "scores" / "val-1-view.npz")
    text = report(root / "run").text
    assert "together, weights searched" in text
    assert "appearance 0.00, motion 1.00 (chosen on 3 held-out videos)" in text


def test_scores_of_held_out_videos_alone_are_said_to_flatter(root: Path) -> None:
    scores = scores_of(root)
    with_changes(scores, meta=META | {"part": "val"}).save(root / "run" / "scores" / "val-25-step.npz")
    (root / "run" / "scores" / "test-25-step.npz").unlink()
    text = report(root / "run").text
    assert "for 4 of 6 held out videos" in text
    assert "These are held out videos, not test videos: the figures flatter the model." in text


def test_videos_of_unknown_class_are_left_out_and_counted(root: Path) -> None:
    scores = scores_of(root)
    file = root / "run" / "scores" / "test-25-step.npz"
    with_changes(scores, labels=np.array([0, 1, 2, -1, -1, 2])).save(file)
    text = report(root / "run").text
    assert "for 4 of 4 test videos" in text
    assert "2 videos without a known class were left out of all figures." in text
    with_changes(scores, labels=np.full(6, -1)).save(file)
    assert "two_stream_resnet18: not judged yet." in report(root / "run").text
    with_changes(scores, logits=scores.logits[:0], labels=scores.labels[:0], videos=(), groups=()).save(file)
    assert "Scores were left out: test-25-step.npz holds no videos." in read_run(root / "run", "run").problems


@pytest.mark.parametrize(
    ("vote", "words"),
    [
        ("fused", "This network joins its streams inside and gives one answer"),
        ("motion", "This network reads one stream, motion."),
    ],
)
def test_a_single_answer_has_no_streams_to_take_apart(root: Path, vote: str, words: str) -> None:
    scores = one_stream(scores_of(root), "motion")
    with_changes(scores, votes=((vote, 1),)).save(root / "run" / "scores" / "test-25-step.npz")
    text = report(root / "run").text
    assert words in text
    assert "Right, and" not in text


def test_classes_without_videos_and_classes_without_mistakes(root: Path) -> None:
    scores = scores_of(root)
    with_changes(scores, labels=np.array([0, 1, 0, 1, 0, 1])).save(root / "run" / "scores" / "test-25-step.npz")
    text = report(root / "run").text
    assert "jump no videos to judge 0 -" in text


def test_one_class_has_no_runner_up(root: Path) -> None:
    scores = scores_of(root)
    with_changes(scores, logits=scores.logits[..., :1], labels=np.zeros(6, np.int64), classes=CLASSES[:1]).save(
        root / "run" / "scores" / "test-25-step.npz"
    )
    assert "for 6 of 6 test videos" in report(root / "run").text


def test_many_classes_are_folded_and_their_confusions_drawn(root: Path) -> None:
    rng = np.random.default_rng(0)
    names = tuple(f"class {k}" for k in range(40))
    entries = [item(f"v{n}", Path("/nowhere") / str(n), n % 40, f"g{n % 4}") for n in range(120)]
    changed(
        root / "run" / "data.json", classes=list(names), parts={"train": entries[:40], "val": [], "test": entries[40:]}
    )
    labels = np.arange(40, 120) % 40
    logits = (
        rng.standard_normal((80, 1, 2, 40)).astype(np.float32) + 3 * np.eye(40, dtype=np.float32)[labels][:, None, None]
    )
    Scores(
        logits=logits.astype(np.float32),
        labels=labels,
        videos=tuple(e["video"] for e in entries[40:]),
        groups=tuple(e["group"] for e in entries[40:]),
        classes=names,
        votes=(("appearance", 1), ("motion", 1)),
        meta=META,
    ).save(root / "run" / "scores" / "test-25-step.npz")
    read = report(root / "run")
    assert "All 40 classes" in read.text
    assert read.text.count("All 40 classes") == 2
    assert "The most frequent confusions" in read.text
    assert any(str(a.get("aria-label")).startswith("All confusions: 40 by 40 cells") for a in read.all("div"))
    assert "Top-5 accuracy" in read.text
    assert "the first 24 of 40 classes" in read.text


def test_several_runs_stand_side_by_side(root: Path) -> None:
    shutil.copytree(root / "run", root / "better")
    scores = scores_of(root)
    logits = scores.logits.copy()
    logits[np.arange(6), :, :, scores.labels] += 9
    with_changes(scores, logits=logits, meta=META | {"model": "st_resnet50"}).save(
        root / "better" / "scores" / "test-25-step.npz"
    )
    other = root / "other"
    shutil.copytree(root / "run", other)
    with_changes(scores, videos=tuple(f"else {n}" for n in range(6))).save(other / "scores" / "test-25-step.npz")
    begun = root / "begun"
    begun.mkdir()
    (begun / "config.yaml").write_text("model: spatial_resnet18\n")
    read = report(root / "run", root / "better", other, begun, out=root / "page.html")
    found = compare(scores, with_changes(scores, logits=logits))
    assert "4 runs compared" in read.text
    assert f"+33.3 points ({100 * found.low:+.0f} to {100 * found.high:+.0f}) {found.p_value:.2g}" in read.text
    assert "other videos" in read.text
    assert "mean over" not in read.text.lower()
    assert "begun spatial_resnet18 not judged yet" in read.text
    assert read.text.count("The same data as run.") == 2
    assert [a["href"] for a in read.all("a")] == ["#comparison", "#run1", "#run2", "#run3", "#run4"]
    headings = [name for name, _ in read.elements if re.fullmatch(r"h\d", name)]
    for above, below in pairwise(headings):
        assert int(below[1]) <= int(above[1]) + 1
    assert "the first is not judged" in report(begun, root / "run", out=root / "page.html").text


def split_run(root: Path, split: str, right: int, **changes: Any) -> Path:
    """A run that was judged on the first six videos of all, of which it recognised the first so many."""
    place = root / f"split{split}"
    shutil.copytree(root / "run", place)
    scores = scores_of(root)
    logits = np.zeros_like(scores.logits)
    said = np.where(np.arange(6) < right, scores.labels, (scores.labels + 1) % 3)
    logits[np.arange(6), :, :, said] = 9
    first = read_run(root / "run", "run").samples.values()
    videos, groups = zip(*[(sample.name, sample.group) for sample in first][:6], strict=True)
    changes = {"videos": videos, "groups": groups, "meta": META | {"split": split}, **changes}
    with_changes(scores, logits=logits, **changes).save(place / "scores" / "test-25-step.npz")
    return place


def test_runs_on_several_splits_have_a_mean(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [root / "run", split_run(root, "2", 5), split_run(root, "3", 6)]
    read = report(*runs, out=root / "page.html")
    assert "The mean over 3 splits" in read.text
    assert re.search(r"split 2 split2 6 83.3 % 83.3 %", read.text)
    assert re.search(r"mean each split counts alike 18 83.3 % \(\d+–100 %\) 83.3 %", read.text), read.text
    assert "it holds for other videos, not for other networks" in read.text
    assert read.text.count("another split") == 2
    words = ["report", *map(str, runs), "--out", str(root / "page.html")]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "mean over 3 splits: two_stream_resnet18, 25-step, 3 classes, test videos"
    assert lines[2] == "  split 2  top-1 0.833   mean class 0.833   6 videos   split2"
    assert lines[4].startswith("  mean     top-1 0.833   mean class 0.833   95 % interval of top-1 ")
    assert lines[5:] == ["  all 18 videos together: top-1 0.833", str(root / "page.html")]
    assert main([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["page"], document["no_mean"]) == (str(root / "page.html"), None)
    assert document["mean_of_splits"]["top1"] == pytest.approx(5 / 6)
    assert [one["run"] for one in document["mean_of_splits"]["splits"]] == ["run", "split2", "split3"]
    # Of one split there is nothing to tell.
    assert main(["report", str(runs[0]), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "page": str(runs[0] / "report.html"),
        "mean_of_splits": None,
        "no_mean": None,
    }


def test_a_mean_is_of_what_all_runs_were_judged_by(root: Path) -> None:
    runs = [root / "run", split_run(root, "2", 3)]
    scores = Scores.load(runs[1] / "scores" / "test-25-step.npz")
    thorough = scores.meta | {"protocol": "25x10"}
    with_changes(scores, meta=thorough, logits=scores.logits + 1).save(runs[1] / "scores" / "test-25x10.npz")
    found = over_splits(read_runs(runs))
    assert isinstance(found, SplitMean)
    assert (found.judged_by, found.top1) == ("25-step", pytest.approx((4 / 6 + 3 / 6) / 2))
    (runs[1] / "scores" / "test-25-step.npz").unlink()
    assert over_splits(read_runs(runs)) == (
        "No mean over splits: run and split2 are of other protocols: 25-step and 25x10."
    )


def test_why_there_is_no_mean_is_said(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    second = split_run(root, "2", 5)
    begun = root / "begun"
    begun.mkdir()
    (begun / "config.yaml").write_text("model: spatial_resnet18\n")
    why = "No mean over splits: begun not judged yet."
    assert why in report(root / "run", second, begun, out=root / "page.html").text
    assert over_splits(read_runs([root / "run", begun])) is None
    words = ["report", str(root / "run"), str(second), str(begun), "--out", str(root / "page.html")]
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines() == [why, str(root / "page.html")]
    other = split_run(root, "4", 5, classes=("a", "b", "c"))
    read = report(root / "run", other, out=root / "page.html")
    assert "other classes" in read.text
    assert "No mean over splits: run and split4 have other classes: " in read.text


def test_runs_of_one_name_are_told_apart_by_the_folders_above(root: Path) -> None:
    for name in ("a", "b"):
        shutil.copytree(root / "run", root / name / "run")
    text = report(root / "a" / "run", root / "b" / "run").text
    assert "a/run" in text
    assert "b/run" in text


def test_folders_that_are_no_runs_are_refused(root: Path) -> None:
    with pytest.raises(ReportError, match=r"none: no such run folder; make one with: twostream train --data DATA"):
        write_report([root / "none"])
    (root / "empty").mkdir()
    with pytest.raises(ReportError, match=r"empty: not a run folder \(no config\.yaml, data\.json"):
        write_report([root / "run", root / "empty"])
    with pytest.raises(UsageError, match=r"no runs were named; give at least one run folder"):
        write_report([])
    with pytest.raises(OutputError, match=r"cannot be written"):
        write_report([root / "run"], root / "run" / "config.yaml" / "page.html")


def test_the_same_files_give_the_same_page(root: Path) -> None:
    pages = [write_report([root / "run"], root / f"{n}.html").read_text("utf-8") for n in range(2)]
    first, second = (re.sub(r"on \d{4}-\d\d-\d\d \d\d:\d\d UTC", "", text) for text in pages)
    assert first == second


def decoded(address: str) -> Any:
    data = base64.b64decode(address.removeprefix("data:image/jpeg;base64,"))
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image[..., ::-1]


def test_pictures_keep_their_colours_and_are_made_smaller_but_never_larger() -> None:
    red = np.zeros((100, 60, 3), np.uint8)
    red[..., 0] = 200
    assert decoded(jpeg(red, height=50)).shape == (50, 30, 3)
    assert decoded(jpeg(red, height=500)).shape == (100, 60, 3)
    assert np.abs(decoded(jpeg(red)).astype(int) - red).max() < 8


def test_all_fields_of_a_clip_share_one_scale_and_noise_stays_pale() -> None:
    flow = np.zeros((2, 2, 20, 20), np.float32)
    flow[0, 0] = 4.0
    flow[1, 0] = 2.0
    (strong, weak), full = flow_images(flow)
    assert full == 4.0
    assert strong.min() < weak.min()
    (still,), full = flow_images(np.full((1, 2, 20, 20), 0.02, np.float32))
    assert full == 1.0
    assert still.min() > 230
    assert flow_images(np.zeros((0, 2, 4, 4), np.float32)) == ([], 1.0)


def test_the_wheel_is_white_in_the_middle_and_outside() -> None:
    wheel = colour_wheel(65)
    assert wheel.shape == (65, 65, 3)
    assert wheel[0, 0].tolist() == [255, 255, 255]
    assert wheel[32, 32].min() > 240
    assert wheel[32, 63].min() < 60


def test_charts_follow_the_colours_of_the_page() -> None:
    svg = curves({"training": [(0, 2.0), (1, 1.0)], "held out": [(0, 2.0), (1, 1.0)], "<other>": [(0, 2.0)]})
    assert svg == curves({"training": [(0, 2.0), (1, 1.0)], "held out": [(0, 2.0), (1, 1.0)], "<other>": [(0, 2.0)]})
    Reader(svg)
    assert {"var(--first)", "var(--second)", "var(--muted)", "var(--line)"} <= set(re.findall(r"var\(--\w+\)", svg))
    assert not re.findall(r"#[0-9a-f]{6}|font-family: (?!inherit)|<style|xmlns", svg)
    assert "&lt;other&gt;" in svg
    # Names that end at one height are moved apart.
    heights = [float(y) for y in re.findall(r'text-anchor: start[^>]* y="([\d.]+)"', svg)]
    assert len(heights) == 3
    assert min(abs(a - b) for a, b in pairwise(sorted(heights))) > 12
    assert "100%" in curves({"training": [(0, 0.5)]}, percent=True)
    Reader(heat_map(np.eye(50, dtype=np.int64)))


def picked(answers: Any, labels: Any, *, sure: Any) -> Scores:
    """Two streams with the given answers each, (n, 2), as sure as ``sure``."""
    answers = np.asarray(answers)
    logits = np.eye(3)[answers] * np.asarray(sure, float)[..., None]
    return Scores(
        logits=logits[:, None].astype(np.float32),
        labels=np.asarray(labels),
        videos=tuple(f"v{n}" for n in range(len(answers))),
        classes=CLASSES,
        votes=(("appearance", 1), ("motion", 1)),
    )


def test_the_surest_clips_are_chosen_and_every_class_has_its_turn() -> None:
    scores = picked(
        [[0, 0]] * 5 + [[1, 1]] * 2 + [[2, 2]], [0] * 5 + [1] * 2 + [0], sure=[[n + 1] * 2 for n in range(8)]
    )
    assert choose(scores, each=3) == {"Most confident mistakes": [7], "Most confident successes": [6, 4, 5]}


def test_what_fusion_won_is_chosen_by_the_stream_that_failed() -> None:
    scores = picked(
        [[0, 1], [1, 0], [1, 1], [2, 2], [0, 1]], [0, 0, 0, 2, -1], sure=[[5, 1], [1, 4], [9, 9], [1, 1], [9, 9]]
    )
    assert choose(scores) == {
        "Most confident mistakes": [2],
        "Right, and appearance alone was not": [1],
        "Right, and motion alone was not": [0],
        "Most confident successes": [3],
    }


def test_markup_is_escaped_once() -> None:
    assert page.tag("p", "a < b", page.tag("b", "&")) == "<p>a &lt; b<b>&amp;</b></p>"
    assert (
        page.tag("p", title='"', class_="x", aria_label="y", id=None)
        == '<p title="&quot;" class="x" aria-label="y"></p>'
    )
    assert page.paragraphs([]) == ""
    assert 'style="width:100.00%"' in page.bar(7.0)
    assert 'style="left:10.00%;width:30.00%"' in page.bar(0.2, low=0.1, high=0.4)
