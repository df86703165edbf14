"""The whole way in three minutes: write videos, compute flow, train, judge, predict, and leave a page to look at."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from twostream.data import motion_shapes
from twostream.evaluation.metrics import one_stream, summary
from twostream.prediction import Predictor, write_overlay
from twostream.reporting.report import write_report
from twostream.runs import Evaluation, RunFolder, evaluate_run
from twostream.training.config import FlowConfig, OptimConfig, TrainConfig, TrainerConfig
from twostream.training.run import train
from twostream.units import seconds_text
from twostream.video import Video, write_video

Say = Callable[[str], None]
Progress = Callable[[int, int, str], None]

# Where the grounds mislead in the test videos: appearance alone must fail, and one sees why motion is needed.
SET = "same_look"


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
    clips, test_clips, epochs, size = (8, 8, 2, 64) if short else (96, 48, 10, 96)
    say("1/6 videos in which only motion tells the class, while the ground misleads")
    data = motion_shapes.generate(
        out / "videos", SET, train=clips, val=test_clips // 2, test=test_clips, seed=seed, progress=progress
    )
    say("2/6 optical flow, then training of a two-stream network")
    config = TrainConfig(
        data=str(data),
        out=str(out / "run"),
        model_args={"width": 32},
        size=size,
        weights="none",
        seed=seed,
        flow=FlowConfig(store=str(out / "flow")),
        optim=OptimConfig(batch_size=min(16, clips)),
        trainer=TrainerConfig(epochs=epochs, tensorboard=False),
    )
    train(config, say=say, progress=progress)
    run = RunFolder.open(out / "run")
    say("3/6 the test videos")
    evaluation = evaluate_run(run, say=say, progress=progress)
    say("4/6 a new, longer video, labelled as it goes")
    film = new_video(run, out / "new_video.mp4")
    prediction = Predictor.load(run.path).predict(film, timeline=True)
    for segment in prediction.timeline or ():
        say(f"  {segment.start:5.1f} to {segment.end:5.1f} s  {segment.label} ({segment.score:.2f})")
    say("5/6 the same video with its labels written over it")
    write_overlay(film, prediction, out / "new_video_labelled.mp4")
    say("6/6 the page")
    page = write_report([run.path], out / "report.html")
    for line in closing_lines(evaluation, page, time.monotonic() - began):
        say(line)
    return page


def new_video(run: RunFolder, path: Path, *, count: int = 4) -> Path:
    """Join test videos of different classes into one recording that no network has seen."""
    items = run.annotations().parts["test"]
    first = {item.label: item for item in reversed(items)}
    videos = [Video(first[label].path) for label in sorted(first)][:count]
    write_video(path, (frame.rgb() for video in videos for frame in video.stream()), videos[0].fps)
    return path


def closing_lines(evaluation: Evaluation, page: Path, seconds: float) -> Sequence[str]:
    """The accuracies and where to look."""
    scores = evaluation.scores
    alone = {stream: summary(one_stream(scores, stream))["top1"] for stream in scores.streams}
    fused, chance = summary(scores)["top1"], 1 / len(scores.classes)
    return (
        f"accuracy on {len(scores)} test videos: appearance {alone['appearance']:.2f}, motion {alone['motion']:.2f}, "
        f"late fusion {fused:.2f} (chance {chance:.2f}), after {seconds_text(seconds)}",
        f"open {page.resolve()}",
    )
