"""The whole way in three minutes: write videos, compute flow, train two networks, judge, predict, and leave a page."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from twostream.data import motion_shapes
from twostream.data.shape_sets import SETS
from twostream.evaluation.metrics import one_stream, summary
from twostream.explain import explain_attention
from twostream.prediction import Predictor, write_overlay
from twostream.reporting.report import write_report
from twostream.runs import Evaluation, RunFolder, evaluate_run
from twostream.training.config import FlowConfig, OptimConfig, TrainConfig, TrainerConfig
from twostream.training.run import train
from twostream.units import seconds_text
from twostream.video import Video, write_video

Say = Callable[[str], None]
Progress = Callable[[int, int, str], None]

# Only the order of two motions tells, which are further apart than one stack of flow is long: no late fusion can know.
SET = "long_term"
# A window of the timeline sees as many seconds as one of the set's videos lasts; only where it holds one of them from
# end to end is there an order to name, so it must be sure.
WINDOW, MIN_SCORE = 3.2, 0.8


def run_demo(out: Path, *, short: bool, seed: int, say: Say, progress: Progress | None = None) -> Path:
    """Run every step below ``out`` and return the path of the page; a second call goes on where the first stopped.

    Args:
        out: folder that everything is written to.
        short: a few videos and two epochs, to see that everything runs; its accuracies mean nothing.
        seed: of the videos and the training.
        say: takes a line for the user.
        progress: called with (done, total, what) by the longer steps.
    """
    began = time.monotonic()
    clips, test_clips, epochs, size, width = (4, 4, 2, 64, 8) if short else (96, 48, 8, 96, 16)
    say("1/7 videos whose class is which of two motions comes first")
    data = motion_shapes.generate(
        out / "videos",
        SET,
        train=clips,
        val=test_clips // 2,
        test=test_clips,
        difficulty=0.2,
        seed=seed,
        progress=progress,
    )
    late_fusion = TrainConfig(
        data=str(data),
        out=str(out / "late_fusion"),
        model_args={"width": width},
        size=size,
        weights="none",
        seed=seed,
        # DIS needs nothing compiled first, and for so few videos a process for each core takes longer to start than to
        # do its work.
        flow=FlowConfig(store=str(out / "flow"), estimator="dis", workers=1 if short else None),
        optim=OptimConfig(batch_size=min(16, clips)),
        trainer=TrainerConfig(epochs=epochs, repeats=1 if short else 3, tensorboard=False),
    )
    # The same budget. The motions lie anywhere in a clip: stacks spread over nearly all of it miss neither.
    stpn = replace(
        late_fusion,
        out=str(out / "stpn"),
        model="stpn_resnet18",
        model_args={
            "width": width,
            "attention_d": 512,
            "top_d": 1024,
            "dropout": 0.2,
            "snippets": 5,
            "min_spread": 0.8,
            "max_spread": 1.0,
        },
    )
    say("2/7 optical flow, then training of a two-stream network (late fusion)")
    train(late_fusion, say=say, progress=progress)
    say("3/7 training of STPN: one frame, five stacks of flow, one loss")
    train(stpn, say=say, progress=progress)
    runs = [RunFolder.open(out / name) for name in ("late_fusion", "stpn")]
    say("4/7 the test videos")
    # Thirty small views of each video take a third of the time of fifty whole ones.
    evaluations = [evaluate_run(run, protocol="10x3", say=say, progress=progress) for run in runs]
    say("5/7 a new, longer video, labelled as it goes, and where STPN looks in it")
    film, holds = new_video(runs[1], out / "new_video.mp4")
    say(f"  in truth, {WINDOW:g} s each: {', '.join(holds)}")
    prediction = Predictor.load(runs[1].path).predict(
        film, timeline=True, window=WINDOW, min_score=MIN_SCORE, min_length=0.5, attention=0.2
    )
    for segment in prediction.timeline or ():
        say(f"  {segment.start:5.1f} to {segment.end:5.1f} s  {segment.label} ({segment.score:.2f})")
    write_overlay(film, prediction, out / "new_video_labelled.mp4")
    say("6/7 where it looks in the test videos; here only motion tells, so no place of the frame is worth more to it")
    for line in explain_attention(runs[1], say=say, progress=progress).lines():
        say(line)
    say("7/7 the page")
    page = write_report([run.path for run in runs], out / "report.html")
    for line in closing_lines(evaluations, page, time.monotonic() - began):
        say(line)
    return page


def new_video(run: RunFolder, path: Path, *, count: int = 4) -> tuple[Path, list[str]]:
    """Join test videos, class after class in turn, into one recording that no network has seen; their classes too."""
    annotations = run.annotations()
    turns: Counter[int] = Counter()
    order = []
    for item in annotations.parts["test"]:
        order.append((turns[item.label], item.label, item.path))
        turns[item.label] += 1
    chosen = sorted(order)[:count]
    videos = [Video(place) for *_, place in chosen]
    write_video(path, (frame.rgb() for video in videos for frame in video.stream()), videos[0].fps)
    return path, [annotations.classes[label] for _, label, _ in chosen]


def closing_lines(evaluations: Sequence[Evaluation], page: Path, seconds: float) -> Sequence[str]:
    """The accuracies of the baseline and of STPN, and where to look."""
    baseline, stpn = (evaluation.scores for evaluation in evaluations)
    classes = len(baseline.classes)
    alone = {stream: summary(one_stream(baseline, stream))["top1"] for stream in baseline.streams}
    ceilings = SETS[SET].ceilings(classes)
    return (
        f"accuracy on {len(baseline)} test videos: appearance {alone['appearance']:.2f}, motion {alone['motion']:.2f}, "
        f"late fusion {summary(baseline)['top1']:.2f} (none can expect more than {ceilings['late_fusion']:.2f} here, "
        f"chance {ceilings['chance']:.2f})",
        f"STPN, which sees several moments together: {summary(stpn)['top1']:.2f}, after {seconds_text(seconds)}",
        f"open {page.resolve()}",
    )
