import csv
import json
import math
import os
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

import twostream
from twostream.checkpoint import CheckpointError, save_model
from twostream.cli import main
from twostream.clip import InputSpec, ShapeError
from twostream.data.items import VideoItem
from twostream.data.region import WHOLE, Region
from twostream.data.sampling import NO_MOTION, ClipIndices
from twostream.errors import UsageError
from twostream.evaluation.evaluate import evaluate
from twostream.evaluation.metrics import probabilities
from twostream.evaluation.protocols import PROTOCOLS, view_dataset
from twostream.files import OutputError
from twostream.flow.extract import Source, extract
from twostream.flow.store import FlowSettings, FlowStore
from twostream.models import create_model
from twostream.prediction import (
    Prediction,
    PredictionError,
    Predictor,
    Segment,
    write_csv,
    write_overlay,
    write_srt,
)
from twostream.prediction.clip_reader import read_clips
from twostream.prediction.judge import Judge
from twostream.prediction.overlay import labelled
from twostream.prediction.writers import srt_time
from twostream.video import Frame, Video, VideoError, write_video

Image = npt.NDArray[np.uint8]

BOTH = InputSpec(size=32, resize=36, flow_length=4, flow_offset=-2)
STRIDED = BOTH.with_(sampling="strided", steps=3, snippets=3, stride=(2, 6), flow_offset=0)
SNIPPETS = BOTH.with_(sampling="snippets", snippets=2, stride=(2, 6))
CLASSES = ("dark", "bright")


def moving(count: int, *, height: int = 48, width: int = 64, seed: int = 0, level: int = 0) -> Iterator[Image]:
    """Soft texture that drifts and dims, so that every frame and every field differs from the others."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 120, (height // 8, width // 4, 3)).astype(np.uint8)
    texture = coarse.repeat(8, axis=0).repeat(8, axis=1)
    for i in range(count):
        shift = (i * (1 + i % 3)) % width
        yield np.ascontiguousarray(texture[:, shift : shift + width]) + np.uint8(level + i % 7)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("videos") / "clip.mp4"
    write_video(path, moving(40), 10)
    return path


@pytest.fixture(scope="module")
def corner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A still picture, in a corner of which a patch swings."""
    rng = np.random.default_rng(3)
    ground = rng.integers(60, 190, (18, 24, 3)).astype(np.uint8).repeat(4, axis=0).repeat(4, axis=1)
    patch = rng.integers(0, 250, (5, 5, 3)).astype(np.uint8).repeat(4, axis=0).repeat(4, axis=1)

    def frames() -> Iterator[Image]:
        for i in range(40):
            picture = ground.copy()
            x = 4 + round(6 * (1 + np.sin(i / 2)))
            picture[44:64, x : x + 20] = patch
            yield picture

    path = tmp_path_factory.mktemp("videos") / "corner.mp4"
    write_video(path, frames(), 10, crf=10)
    return path


@pytest.fixture(scope="module")
def day_and_night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four dark seconds, four bright ones, and four that are neither."""
    path = tmp_path_factory.mktemp("videos") / "day.mp4"
    write_video(path, [*moving(40), *moving(40, level=120), *moving(40, level=60)], 10)
    return path


class Recorder(nn.Module):
    """Tells bright frames from dark ones, and remembers what it was shown."""

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        self.spec = spec
        self.votes = (("appearance", spec.steps), ("motion", spec.steps))
        self.shown: list[tuple[Tensor, Tensor]] = []

    def forward(self, rgb: Tensor, flow: Tensor) -> Tensor:
        self.shown.append((rgb, flow))
        level = (rgb.float().mean(dim=(2, 3, 4)) - 125) / 5  # (B, T)
        still = flow.float().mean(dim=(2, 3, 4)) * 0  # (B, S)
        if self.spec.sampling == "snippets":
            still = still.mean(dim=1, keepdim=True)
        votes = torch.cat([level, still], dim=1)
        return torch.stack([-votes, votes], dim=-1)

    def all_shown(self) -> tuple[Tensor, Tensor]:
        rgb, flow = (torch.cat(parts) for parts in zip(*self.shown, strict=True))
        self.shown.clear()
        return rgb, flow


def flow_settings(**changes: Any) -> FlowSettings:
    return replace(FlowSettings(estimator="dis", short_side=36), **changes)


def watcher(spec: InputSpec = BOTH, **options: Any) -> Predictor:
    fps = spec.fps
    return Predictor(Recorder(spec), CLASSES, flow=flow_settings(fps=fps), device="cpu", **options)


def stored(clip: Path, root: Path, settings: FlowSettings) -> tuple[list[VideoItem], FlowStore]:
    store = FlowStore(root, settings)
    assert not extract([Source(clip.name, clip)], store, workers=1).failed
    return [VideoItem(path=clip, video=clip.name, label=0)], store


@pytest.mark.parametrize("protocol", sorted(PROTOCOLS))
@pytest.mark.parametrize(
    "spec", [BOTH, STRIDED, SNIPPETS, BOTH.with_(fps=7.0)], ids=["alone", "strided", "snippets", "fps"]
)
def test_the_network_sees_what_evaluation_shows_it(clip: Path, tmp_path: Path, spec: InputSpec, protocol: str) -> None:
    predictor = watcher(spec)
    if protocol == "released_code" and spec.sampling != "strided":
        with pytest.raises(UsageError, match="take the protocol 25-step"):
            predictor.predict(clip, protocol=protocol)
        return
    items, store = stored(clip, tmp_path, flow_settings(fps=spec.fps))
    views = view_dataset(PROTOCOLS[protocol], items, store, spec)[0]
    predictor.predict(clip, protocol=protocol)
    assert isinstance(predictor.model, Recorder)
    rgb, flow = predictor.model.all_shown()
    assert torch.equal(rgb, views.rgb)
    assert torch.equal(flow, views.flow)


@pytest.mark.parametrize("protocol", ["25-step", "25x10", "10x3"])
def test_a_network_that_looks_at_motion_sees_what_evaluation_shows_it(
    corner: Path, tmp_path: Path, protocol: str
) -> None:
    spec = BOTH.with_(region="motion")
    predictor = watcher(spec)
    items, store = stored(corner, tmp_path, flow_settings())
    views, whole = (view_dataset(PROTOCOLS[protocol], items, store, seen)[0] for seen in (spec, BOTH))
    predictor.predict(corner, protocol=protocol)
    assert isinstance(predictor.model, Recorder)
    rgb, flow = predictor.model.all_shown()
    assert torch.equal(rgb, views.rgb)
    assert torch.equal(flow, views.flow)
    assert views.rgb.shape[-2:] != whole.rgb.shape[-2:] or not torch.equal(views.rgb, whole.rgb)


def test_each_window_is_looked_at_where_it_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A patch swings at the left for three seconds, then at the right; the whole video is looked at from end to end."""
    ground = np.random.default_rng(3).integers(0, 60, (18, 48, 3)).astype(np.uint8).repeat(4, axis=0).repeat(4, axis=1)

    def frames() -> Iterator[Image]:
        for i in range(60):
            picture = ground.copy()
            x = (8 if i < 30 else 148) + round(6 * (1 + np.sin(i / 2)))
            picture[24:48, x : x + 24] = 250 - ground[24:48, x : x + 24]
            yield picture

    write_video(tmp_path / "two.mp4", frames(), 10, crf=10)
    seen: list[Region] = []
    add = Judge.add

    def noting(judge: Judge, n: int, frames: Image, fields: Image, region: Region = WHOLE) -> None:
        seen.append(region)
        add(judge, n, frames, fields, region)

    monkeypatch.setattr(Judge, "add", noting)
    spec = SNIPPETS.with_(region="motion")
    predictor = Predictor(Recorder(spec), CLASSES, flow=flow_settings(short_side=72), device="cpu")
    predictor.predict(tmp_path / "two.mp4", protocol="1-view", timeline=True, window=2.0, stride=1.0)
    middles = [region.left + region.width / 2 for region in seen]
    assert sum(middle < 0.35 for middle in middles) >= 2
    assert sum(middle > 0.65 for middle in middles) >= 2
    assert any(0.4 < middle < 0.6 for middle in middles)


@pytest.mark.parametrize("name", ["two_stream_resnet18", "spatial_resnet18", "temporal_resnet18"])
def test_the_answer_is_the_one_that_evaluation_counts(clip: Path, tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, width=8, size=32)
    weights = {"appearance": 3.0, "motion": 1.0} if name.startswith("two") else None
    settings = flow_settings(short_side=model.spec.resize)
    flow = None if name.startswith("spatial") else {**vars(settings), "estimator": "dis"}
    save_model(
        tmp_path / "run" / "model",
        model,
        classes=["a", "b", "c"],
        provenance={"flow": flow, "stream_weights": weights, "short_clips": "refuse"},
    )
    items, store = stored(clip, tmp_path / "store", settings)
    views = view_dataset(PROTOCOLS["25-step"], items, None if flow is None else store, model.spec)
    scores = evaluate(model, views, classes=["a", "b", "c"], device="cpu")
    expected = probabilities(scores, stream_weights=weights)[0]
    answer = twostream.Predictor.load(tmp_path / "run", device="cpu").predict(clip, top=9)
    assert dict(answer.predictions) == pytest.approx(dict(zip("abc", expected.tolist(), strict=True)), abs=1e-5)
    assert [score for _, score in answer.predictions] == sorted((s for _, s in answer.predictions), reverse=True)
    # With a timeline, the answer for the whole video stays the same.
    again = Predictor.load(tmp_path / "run" / "model", device="cpu").predict(clip, top=9, timeline=True)
    assert dict(again.predictions) == pytest.approx(dict(answer.predictions), abs=1e-5)


def test_a_timeline_finds_what_happens_when(day_and_night: Path) -> None:
    for spec in (BOTH, STRIDED, SNIPPETS, BOTH.with_(fps=8.0)):
        answer = watcher(spec).predict(day_and_night, timeline=True, min_score=0.9, window=1.0)
        assert answer.timeline is not None
        assert [segment.label for segment in answer.timeline] == ["dark", "bright"]
        for segment, (start, end) in zip(answer.timeline, [(0, 4), (4, 8)], strict=True):
            assert segment.score > 0.9
            assert abs(segment.start - start) <= 0.75
            assert abs(segment.end - end) <= 0.75
    # The whole video is neither, and without a threshold something is said of every moment.
    answer = watcher().predict(day_and_night, timeline=True, min_score=0.0, min_length=0.0)
    assert answer.timeline is not None
    assert answer.timeline[0].start == 0
    assert answer.timeline[-1].end == pytest.approx(12)


def test_a_window_of_steps_judged_alone_is_their_mean(day_and_night: Path) -> None:
    def border(window: float) -> float:
        answer = watcher().predict(day_and_night, timeline=True, min_score=0.95, min_length=0.0, window=window)
        assert answer.timeline is not None
        return answer.timeline[0].end

    # The wider the window, the sooner a part of it is bright and nothing is said any more.
    assert border(4.0) < border(0.5) == pytest.approx(4, abs=0.5)


def test_a_stride_below_a_frame_is_a_frame(clip: Path) -> None:
    predictor = watcher()
    predictor.predict(clip, protocol="1-view", timeline=True, stride=1e-9)
    assert isinstance(predictor.model, Recorder)
    assert len(predictor.model.all_shown()[0]) == 1 + 40


def test_windows_see_the_frame_as_the_protocol_does_but_once(clip: Path) -> None:
    for protocol, shape, views in (("25-step", (36, 48), 50), ("25x10", (32, 32), 250)):
        predictor = watcher()
        predictor.predict(clip, protocol=protocol, timeline=True, stride=1.0)
        assert isinstance(predictor.model, Recorder)
        rgb, _ = predictor.model.all_shown()
        assert rgb.shape == (views + 4, 1, 3, *shape)


def test_the_document_is_the_one_that_was_promised(clip: Path) -> None:
    answer = watcher().predict(clip, top=1)
    document = answer.to_dict()
    keys = ["video", "frames", "fps", "seconds", "label", "unknown_below", "calibrated", "predictions"]
    assert list(document) == keys
    assert document["unknown_below"] == 0
    assert document["video"] == str(clip)
    assert (document["frames"], document["fps"]) == (40, 10.0)
    assert 0 < document["seconds"] < 60
    assert (document["label"], document["calibrated"]) == ("dark", False)
    assert document["predictions"] == [{"label": "dark", "score": pytest.approx(1, abs=0.1)}]
    document = watcher().predict(clip, timeline=True).to_dict()
    assert list(document)[-1] == "timeline"
    assert document["timeline"] == [{"start": 0.0, "end": 4.0, "label": "dark", "score": pytest.approx(1, abs=0.1)}]
    # Frames and rate are the file's, whatever rate the model wants.
    document = watcher(BOTH.with_(fps=5.0)).predict(clip).to_dict()
    assert (document["frames"], document["fps"]) == (40, 10.0)


def counting(real: Callable[..., Image], calls: list[int]) -> Callable[..., Image]:
    def convert(frame: Frame, size: tuple[int, int] | None = None) -> Image:
        calls.append(frame.index)
        return real(frame, size)

    return convert


def test_only_what_a_clip_needs_is_converted(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    converted: dict[str, list[int]] = {"rgb": [], "luma": []}
    for name, calls in converted.items():
        monkeypatch.setattr(Frame, name, counting(getattr(Frame, name), calls))
    clips = [
        ClipIndices(np.array([30]), np.array([[29, 30]])),
        ClipIndices(np.array([4]), np.array([[3, 4]])),
        ClipIndices(np.array([4]), np.array([[4, 5]])),
    ]
    read = list(read_clips(Video(clip), clips, BOTH, flow_settings()))
    assert [n for n, _, _ in read] == [1, 2, 0]
    assert converted == {"rgb": [4, 30], "luma": [3, 4, 5, 6, 29, 30, 31]}
    assert all(frames.shape == (1, 36, 48, 3) and moved.shape == (2, 2, 36, 48) for _, frames, moved in read)
    assert np.array_equal(read[0][2][1], read[1][2][0])


def test_memory_does_not_grow_with_the_video(tmp_path: Path) -> None:
    long = tmp_path / "long.mp4"
    write_video(long, moving(400), 10)
    clips = [ClipIndices(np.array([t]), t + np.arange(-2, 2)[None]) for t in range(2, 398)]
    tracemalloc.start()
    read = sum(1 for _ in read_clips(Video(long), clips, BOTH, flow_settings()))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert read == len(clips)
    assert peak < 0.3 * 400 * (3 + 2) * 36 * 48


def test_the_network_is_shown_a_few_steps_at_a_time(clip: Path) -> None:
    for spec, shown in ((BOTH, 8), (STRIDED.with_(steps=5, snippets=5), 1)):
        predictor = watcher(spec)
        predictor.predict(clip, timeline=True)
        assert isinstance(predictor.model, Recorder)
        assert max(len(rgb) for rgb, _ in predictor.model.shown) == shown


@pytest.mark.parametrize("warm_start", [0, 7])
def test_fields_are_those_of_the_store_wherever_reading_begins(clip: Path, tmp_path: Path, warm_start: int) -> None:
    # With a warm start a field depends on those before it, back to the beginning of its block.
    numbers = {"quality": "fast", "warm_start": warm_start}
    settings = flow_settings(estimator="tvl1", parameters=numbers)
    _, store = stored(clip, tmp_path, settings)
    wanted = [[20, 21, 22, 23, 24, 25], [3], [9, 10, 30], [38, NO_MOTION]]
    clips = [ClipIndices(np.array([4, 5]), np.array([fields])) for fields in wanted]
    with store.open(clip.name) as flow:
        seen = 0
        for n, _, moved in read_clips(Video(clip), clips, BOTH, settings):
            real = [f for f in wanted[n] if f != NO_MOTION]
            assert np.array_equal(moved[: len(real)], flow.fields(np.array(real)))
            seen += 1
    assert seen == len(clips)


def test_streams_that_are_not_read_are_empty(clip: Path) -> None:
    one = [ClipIndices(np.array([3]), np.array([[3, 4]]))]
    ((_, frames, moved),) = read_clips(Video(clip), one, BOTH.with_(streams=("motion",)), flow_settings())
    assert (frames.shape, moved.shape) == ((0, 36, 48, 3), (2, 2, 36, 48))
    one = [ClipIndices(np.array([3]), np.empty((0, 2), np.int64))]
    ((_, frames, moved),) = read_clips(Video(clip), one, BOTH.with_(streams=("appearance",)), flow_settings())
    assert (frames.shape, moved.shape) == ((1, 36, 48, 3), (0, 2, 36, 48))
    assert list(read_clips(Video(clip), [], BOTH, flow_settings())) == []


def test_a_video_that_ends_sooner_when_read_again_is_named(clip: Path) -> None:
    with pytest.raises(VideoError, match=r"clip.mp4: frame 90 is needed, but reading it again ended before"):
        list(read_clips(Video(clip), [ClipIndices(np.array([90]), np.array([[88, 89]]))], BOTH, flow_settings()))


def test_a_video_shorter_than_a_stack(tmp_path: Path) -> None:
    short = tmp_path / "short.mp4"
    write_video(short, moving(3), 10)
    with pytest.raises(PredictionError, match=r"short.mp4: 3 frames, but this model needs 5 for one stack of 4 flow"):
        watcher().predict(short)
    with pytest.raises(PredictionError, match=r"short.mp4: 2 frames at 5 per second, but this model needs 5"):
        watcher(BOTH.with_(fps=5.0)).predict(short)
    answer = watcher(short_clips="repeat").predict(short, timeline=True)
    assert answer.timeline is not None
    assert (answer.frames, len(answer.timeline)) == (3, 1)
    # A single frame has no motion, and that is what is shown.
    write_video(short, moving(1), 10)
    predictor = watcher(short_clips="repeat")
    predictor.predict(short, protocol="1-view")
    assert isinstance(predictor.model, Recorder)
    assert (predictor.model.all_shown()[1] == 128).all()


def test_frames_too_small_for_flow_are_named(tmp_path: Path) -> None:
    small = tmp_path / "small.mp4"
    write_video(small, moving(12, height=16, width=12), 10)
    predictor = Predictor(Recorder(BOTH), CLASSES, flow=FlowSettings(estimator="farneback", short_side=None))
    with pytest.raises(PredictionError, match=r"small\.mp4: .*12"):
        predictor.predict(small)


def test_what_training_said_is_kept(tmp_path: Path) -> None:
    model = create_model("two_stream_resnet18", num_classes=2, width=8, size=32, fps=12.5)
    save_model(tmp_path / "bare", model, classes=CLASSES)
    bare = Predictor.load(tmp_path / "bare", device="cpu")
    assert (bare.flow.estimator, bare.flow.short_side, bare.flow.fps) == ("tvl1", model.spec.resize, 12.5)
    assert (bare.short_clips, bare.stream_weights, bare.flips) == ("refuse", None, True)
    provenance = {
        "flow": {"estimator": "farneback", "parameters": {}, "short_side": 40, "fps": 12.5, "bound": 15},
        "short_clips": "repeat",
        "stream_weights": {"appearance": 1, "motion": 1.5},
        "no_flip": ["dark"],
    }
    save_model(tmp_path / "run", model, classes=CLASSES, provenance=provenance)
    told = Predictor.load(tmp_path / "run", device="cpu")
    assert (told.flow.estimator, told.flow.short_side, told.flow.bound) == ("farneback", 40, 15)
    assert (told.short_clips, told.stream_weights) == ("repeat", {"appearance": 1, "motion": 1.5})
    assert not told.flips
    assert told.classes == CLASSES


def test_no_mirror_images_where_a_mirror_changes_the_class(clip: Path) -> None:
    predictor = watcher(flips=False)
    predictor.predict(clip)
    assert isinstance(predictor.model, Recorder)
    assert len(predictor.model.all_shown()[0]) == 25


def test_stream_weights_weigh(clip: Path) -> None:
    alone = watcher(stream_weights={"appearance": 1, "motion": 0}).predict(clip)
    muted = watcher(stream_weights={"appearance": 0, "motion": 1}).predict(clip)
    assert alone.predictions[0][1] > 0.95
    assert [score for _, score in muted.predictions] == pytest.approx([0.5, 0.5])


def test_a_temperature_takes_back_what_was_too_sure(day_and_night: Path) -> None:
    raw = watcher().predict(day_and_night, timeline=True, protocol="1-view", min_score=0.0)
    calm = watcher(temperatures={"1-view": 3.0}).predict(day_and_night, timeline=True, protocol="1-view", min_score=0.0)
    assert (raw.calibrated, calm.calibrated) == (False, True)
    odds = [math.log(p.predictions[0][1] / p.predictions[1][1]) for p in (raw, calm)]
    assert odds[1] == pytest.approx(odds[0] / 3, rel=1e-4)
    assert raw.timeline is not None
    assert calm.timeline is not None
    assert calm.timeline[0].score < raw.timeline[0].score - 0.01
    # It was fitted to this protocol and to no other.
    other = watcher(temperatures={"25-step": 3.0}).predict(day_and_night, protocol="1-view")
    assert (other.predictions, other.calibrated) == (raw.predictions, False)


def test_each_view_is_tempered_where_softmaxes_are_averaged(clip: Path) -> None:
    raw, calm = watcher(), watcher(temperatures={"10x3": 2.0})
    calm.model.register_forward_hook(lambda *called: called[-1] * 2)
    assert raw.predict(clip, protocol="10x3").predictions == calm.predict(clip, protocol="10x3").predictions


def test_below_a_confidence_the_label_is_unknown(day_and_night: Path, tmp_path: Path) -> None:
    sure = watcher().predict(day_and_night)
    best, score = sure.predictions[0]
    assert sure.label == best
    assert watcher().predict(day_and_night, unknown=score).label == best
    unsure = watcher().predict(day_and_night, unknown=min(1.0, score + 1e-6))
    assert unsure.label == "unknown"
    assert unsure.to_dict()["label"] == "unknown"
    assert unsure.predictions == sure.predictions
    shown = replace(ANSWER, timeline=None, unknown=0.9).lines()
    assert shown[1:] == ["  unknown: no class reaches 0.9; the best guesses:", *ANSWER.lines()[1:3]]
    for told, text in ((sure, f"{best}  {score:.0%}"), (unsure, f"unknown ({best}?)  {score:.0%}")):
        write_overlay(day_and_night, told, tmp_path / "out.mp4")
        frame = next(Video(day_and_night).stream()).rgb()
        written = next(Video(tmp_path / "out.mp4").stream()).rgb()
        assert np.abs(written.astype(int) - labelled(frame, text)).mean() < 4
        other = "unknown (dark?)  50%" if told is sure else "dark  50%"
        assert np.abs(written.astype(int) - labelled(frame, other)).mean() > 4
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(UsageError, match="unknown: the confidence below which nothing is said is from 0 to 1"):
            watcher().predict(day_and_night, unknown=wrong)


def test_below_a_confidence_a_stretch_of_the_timeline_is_unknown(day_and_night: Path, tmp_path: Path) -> None:
    named = watcher().predict(day_and_night, timeline=True, min_score=0.9, window=1.0)
    answer = watcher().predict(day_and_night, timeline=True, unknown=0.9, window=1.0)
    assert named.timeline is not None
    assert answer.timeline is not None
    assert [segment.label for segment in named.timeline] == ["dark", "bright"]
    assert tuple(segment for segment in answer.timeline if segment.guess is None) == named.timeline
    last = answer.timeline[-1]
    assert (last.label, last.end, last.start) == ("unknown", 12, named.timeline[-1].end)
    assert last.score < 0.9
    document = answer.to_dict()
    assert document["unknown_below"] == 0.9
    assert document["timeline"][-1]["label"] == "unknown"
    assert document["timeline"][-1]["guess"] == last.guess
    text = f"unknown ({last.guess}?)"
    assert answer.lines()[-1].endswith(f"{last.score:.3f}  {text}")
    write_srt(tmp_path / "a.srt", answer)
    assert (tmp_path / "a.srt").read_text("utf-8").endswith(f"\n{text} ({last.score:.0%})\n")
    write_csv(tmp_path / "a.csv", [answer])
    assert (tmp_path / "a.csv").read_text("utf-8").endswith(f",12.000,unknown,{last.score:.4f}\n")
    write_overlay(day_and_night, answer, tmp_path / "out.mp4")
    original, written = (Video(path).frames([20, 110]).astype(int) for path in (day_and_night, tmp_path / "out.mp4"))
    first = f"dark  {named.timeline[0].score:.0%}"
    for frame, shown, label in zip(original, written, (first, f"{text}  {last.score:.0%}"), strict=True):
        assert np.abs(shown - labelled(frame.astype(np.uint8), label)).mean() < 4
        assert np.abs(shown - frame).mean() > 4


class Spotter(Recorder):
    """Looks at the brightest place, cell by cell of 4 px."""

    attention = "a level of its own"

    def appearance(self, rgb: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(rgb.flatten(0, 1), 4)

    def attention_maps(self, rgb: Tensor, flow: Tensor) -> dict[str, Tensor]:
        assert flow.shape[1:3] == (self.spec.snippets, 2 * self.spec.flow_length)
        maps = self.appearance(rgb.float()).mean(1)
        return {"attention": (maps / 8).flatten(1).softmax(1).reshape(maps.shape)}


def spotter(**options: Any) -> Predictor:
    return Predictor(Spotter(SNIPPETS), CLASSES, flow=flow_settings(), device="cpu", **options)


@pytest.fixture(scope="module")
def spot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bright square that goes from the upper left to the lower right in four seconds."""
    path = tmp_path_factory.mktemp("videos") / "spot.mp4"

    def frame(i: int) -> Image:
        image = np.full((48, 64, 3), 60, np.uint8)
        image[4 + i * 3 // 4 :, 4 + i :][:8, :8] = 250
        return image

    write_video(path, (frame(i) for i in range(40)), 10)
    return path


@pytest.mark.parametrize(("protocol", "cells"), [("25-step", (9, 12)), ("10x3", (8, 8))])
def test_attention_follows_what_is_looked_at(spot: Path, protocol: str, cells: tuple[int, int]) -> None:
    for flips in (True, False):
        track = spotter(flips=flips).predict(spot, protocol=protocol, attention=0.5).attention
        assert track is not None
        assert track.weights.shape == (8, *cells)
        # A window at the video's end is narrower, and its frame lies further in.
        assert track.seconds == pytest.approx(np.arange(8) / 2 + 0.25, abs=0.5)
        for second, weights in zip(track.seconds, track.weights, strict=True):
            x, y = (4 + 10 * second + 4) / 64, (4 + 7.5 * second + 4) / 48
            if track.seen[0] + 0.1 < x < track.seen[2] - 0.1:
                row, column = np.unravel_index(weights.argmax(), weights.shape)
                assert (track.xs[column], track.ys[row]) == pytest.approx((x, y), abs=0.08)
    assert spotter().predict(spot, protocol="1-view").attention is None


def test_an_overlay_shows_where_the_network_looked(spot: Path, tmp_path: Path) -> None:
    answer = spotter().predict(spot, attention=0.1)
    assert write_overlay(spot, answer, tmp_path / "out.mp4") == 40
    shown = Video(tmp_path / "out.mp4").frames([8, 24]).astype(int)
    for i, frame in zip((8, 24), shown, strict=True):
        y, x = 4 + i * 3 // 4 + 4, 4 + i + 4
        # Orange on the square, blue away from it.
        assert frame[y, x, 0] > frame[y, x, 2] + 10
        assert frame[4, 60, 2] > frame[4, 60, 0] + 20
    assert "attention" not in answer.to_dict()


def test_attention_is_refused_where_there_is_none_or_never(spot: Path) -> None:
    with pytest.raises(UsageError, match=r"Recorder has no attention to show; .*stpn_resnet18"):
        watcher(SNIPPETS).predict(spot, attention=0.5)
    for seconds in (0.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="attention: the seconds from one map to the next are above 0, got"):
            spotter().predict(spot, attention=seconds)


def test_the_command_lays_attention_over_the_frames(
    spot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    for name, numbers in (("stpn_resnet18", {"attention_d": 16, "top_d": 16}), ("two_stream_resnet18", {})):
        model = create_model(name, num_classes=2, width=4, size=32, **numbers)
        save_model(tmp_path / name, model, classes=CLASSES, provenance={"flow": flow_settings().to_dict()})
    words = ["--protocol", "1-view", "--overlay", str(tmp_path / "out.mp4"), "--attention"]
    assert main(["predict", str(tmp_path / "stpn_resnet18"), str(spot), *words]) == 0
    assert len(Video(tmp_path / "out.mp4")) == 40
    assert main(["predict", str(tmp_path / "stpn_resnet18"), str(spot), *words, "1.5"]) == 0
    assert main(["predict", str(tmp_path / "two_stream_resnet18"), str(spot), *words]) == 2
    assert "two_stream_resnet18 has no attention to show" in capsys.readouterr().err
    assert main(["predict", "run", str(spot), "--attention"]) == 2
    assert "--attention is drawn into the overlay: add --overlay FILE" in capsys.readouterr().err


def test_tensors_to_logits() -> None:
    model = create_model("two_stream_resnet18", num_classes=2, width=8, size=32)
    predictor = Predictor(model.train(), CLASSES, flow=flow_settings(), device="cpu")
    rgb, flow = torch.zeros(3, 1, 3, 32, 32, dtype=torch.uint8), torch.full((3, 1, 20, 32, 32), 128, dtype=torch.uint8)
    logits = predictor.logits(rgb, flow)
    assert logits.shape == (3, 2, 2)
    assert torch.equal(logits, predictor.logits(rgb, flow))
    assert not logits.requires_grad
    with pytest.raises(ShapeError, match="flow must be"):
        predictor.logits(rgb, flow[:, :, :4])


def test_half_precision_says_about_the_same(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    model = create_model("two_stream_resnet18", num_classes=2, width=8, size=32)
    whole, half = (
        Predictor(model, CLASSES, flow=flow_settings(), device="cpu", precision=precision).predict(clip)
        for precision in ("32-true", "bf16-mixed")
    )
    assert dict(half.predictions) == pytest.approx(dict(whole.predictions), abs=0.01)
    assert dict(half.predictions) != dict(whole.predictions)
    with pytest.raises(UsageError, match=r"precision is one of \['32-true', .*, got '8-bit'"):
        Predictor(model, CLASSES, flow=flow_settings(), precision="8-bit")  # type: ignore[arg-type]
    provenance = {"flow": flow_settings().to_dict()}
    save_model(tmp_path / "model", model, classes=CLASSES, provenance=provenance)
    options = ["--precision", "bf16-mixed", "--device", "cpu", "--json"]
    assert main(["predict", str(tmp_path / "model"), str(clip), *options]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert [entry["score"] for entry in told["predictions"]] == [score for _, score in half.predictions]


def test_progress_rises_to_the_end(day_and_night: Path) -> None:
    said: list[tuple[int, int, str]] = []
    watcher().predict(day_and_night, timeline=True, progress=lambda *told: said.append(told))
    done = [percent for percent, _, _ in said]
    assert done == sorted(done)
    assert said[-1] == (100, 100, "day.mp4")
    assert 10 in done
    assert len(done) <= 101


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top": 0}, "top must be at least 1, got 0"),
        ({"protocol": "9-step"}, "no protocol is called '9-step'"),
        ({"timeline": True, "window": -1}, "window must be above 0"),
    ],
)
def test_wrong_calls_are_named(clip: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        watcher().predict(clip, **options)


def test_what_is_no_video_or_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.mp4").write_text("not a video")
    with pytest.raises(VideoError, match=r"notes.mp4: not a video"):
        watcher().predict(tmp_path / "notes.mp4")
    with pytest.raises(CheckpointError, match="no such folder"):
        Predictor.load(tmp_path / "nowhere")


TIMELINE = (Segment(0.0, 61.25, "shaking hands", 0.876), Segment(3600.0, 3725.0016, "a --> b\n\nüben", 1.0))
ANSWER = Prediction("a,b.mp4", 100, 25.0, 1.5, (("shaking hands", 0.876), ("other", 0.1)), TIMELINE)


def test_files_for_other_programs(tmp_path: Path) -> None:
    write_srt(tmp_path / "a.srt", ANSWER)
    assert (tmp_path / "a.srt").read_text("utf-8") == (
        "1\n00:00:00,000 --> 00:01:01,250\nshaking hands (88%)\n\n"
        "2\n01:00:00,000 --> 01:02:05,002\na -> b üben (100%)\n"
    )
    write_csv(tmp_path / "a.csv", [ANSWER, replace(ANSWER, timeline=())])
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0].items()) == [
        ("video", "a,b.mp4"),
        ("start", "0.000"),
        ("end", "61.250"),
        ("label", "shaking hands"),
        ("score", "0.8760"),
    ]
    assert [row["label"] for row in rows] == [segment.label for segment in TIMELINE]
    document = ANSWER.to_dict()
    assert json.loads(json.dumps(document)) == document
    assert document["timeline"][1] == {"start": 3600.0, "end": 3725.002, "label": TIMELINE[1].label, "score": 1.0}


def test_lines_for_the_terminal() -> None:
    assert ANSWER.lines() == [
        "a,b.mp4: 100 frames, 4 s at 25/s; took 2 s",
        "  0.876  shaking hands",
        "  0.100  other",
        "  timeline:",
        "  0:00:00.0 - 0:01:01.2  0.876  shaking hands",
        f"  1:00:00.0 - 1:02:05.0  1.000  {TIMELINE[1].label}",
    ]
    assert len(replace(ANSWER, timeline=None).lines()) == 3
    assert replace(ANSWER, timeline=()).lines()[-1] == "  timeline: nothing that lasts and is sure enough"


def test_files_of_a_timeline_need_one(tmp_path: Path) -> None:
    bare = replace(ANSWER, timeline=None)
    for write in (lambda: write_srt(tmp_path / "a.srt", bare), lambda: write_csv(tmp_path / "a.csv", [bare])):
        with pytest.raises(UsageError, match=r"a,b.mp4: there is no timeline to write"):
            write()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_csv(tmp_path / "file" / "a.csv", [ANSWER])
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_times_of_subtitles() -> None:
    assert srt_time(0.9996) == "00:00:01,000"
    assert srt_time(3725.5) == "01:02:05,500"
    assert srt_time(400_000) == "111:06:40,000"


@pytest.mark.parametrize(("height", "width"), [(96, 96), (72, 96), (480, 270), (720, 1280), (20, 30)])
@pytest.mark.parametrize("value", [60, 255])
def test_text_is_readable_on_any_ground(height: int, width: int, value: int) -> None:
    frame = np.full((height, width, 3), value, np.uint8)
    for text in ("shaking hands  87%", "the name of this class does not fit into a frame of any width " * 3 + "  5%"):
        shown = labelled(frame, text)
        assert shown.shape == frame.shape
        tall = int((shown != value).any(axis=(1, 2)).sum())
        assert 5 <= tall <= max(18, height // 8)
        band = shown[height - tall :]
        assert band.max() > 200
        assert np.median(band) < 90
        # Neither margin is touched: nothing of the text is cut off.
        if width > 90:
            assert band[:, -1].max() < 90
    assert (frame == value).all()
    assert labelled(frame, "") is frame


def test_letters_beyond_ascii() -> None:
    frame = np.zeros((96, 300, 3), np.uint8)
    assert np.array_equal(labelled(frame, "Tür öffnen  50%"), labelled(frame, "Tur offnen  50%"))
    assert np.array_equal(labelled(frame, "日本  50%"), labelled(frame, "??  50%"))
    assert np.array_equal(labelled(frame, "a\nb  50%"), labelled(frame, "a?b  50%"))


def labelled_frames(path: Path) -> list[bool]:
    # The band dims what is behind it.
    return [bool(np.median(f.luma()[-3:]) < 0.6 * np.median(f.luma()[:20])) for f in Video(path).stream()]


def test_an_overlay_bears_the_label_of_its_time(day_and_night: Path, tmp_path: Path) -> None:
    answer = watcher().predict(day_and_night)
    said: list[tuple[int, int, str]] = []
    out = tmp_path / "out.mp4"
    assert write_overlay(day_and_night, answer, out, progress=lambda *told: said.append(told)) == 120
    assert said[-1] == (120, 120, "day.mp4")
    assert all(labelled_frames(out))
    info = Video(out).info()
    assert (info.width, info.height, info.fps, info.frames, info.codec) == (64, 48, 10.0, 120, "h264")
    timed = replace(answer, timeline=(Segment(2.0, 4.0, "dark", 0.9), Segment(8.0, 12.0, "bright", 0.8)))
    write_overlay(day_and_night, timed, out)
    assert labelled_frames(out) == [20 <= i < 40 or i >= 80 for i in range(120)]


def test_an_overlay_never_replaces_the_video(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the overlay would replace the video itself"):
        write_overlay(clip, ANSWER, clip.parent / "." / clip.name)
    with pytest.raises(VideoError, match=r"must end in \.mp4"):
        write_overlay(clip, ANSWER, tmp_path / "out.avi")
    assert len(Video(clip)) == 40


DATA = os.environ.get("TWOSTREAM_DATA")


@pytest.mark.data
@pytest.mark.skipif(DATA is None, reason="TWOSTREAM_DATA names no folder of real videos")
def test_real_video_is_seen_as_evaluation_shows_it(tmp_path: Path) -> None:
    clip = sorted((Path(str(DATA)) / "ucf101_clips").rglob("*.avi"))[0]
    spec = InputSpec(size=112, resize=128)
    items, store = stored(clip, tmp_path, flow_settings(short_side=128))
    views = view_dataset(PROTOCOLS["10x3"], items, store, spec)[0]
    predictor = Predictor(Recorder(spec), CLASSES, flow=flow_settings(short_side=128), device="cpu")
    answer = predictor.predict(clip, protocol="10x3", timeline=True, min_score=0)
    assert isinstance(predictor.model, Recorder)
    shown = predictor.model.all_shown()
    assert all(any(torch.equal(view, other) for other in shown[0]) for view in views.rgb)
    assert all(any(torch.equal(view, other) for other in shown[1]) for view in views.flow)
    assert answer.timeline is not None
    assert answer.timeline[0].start == 0
