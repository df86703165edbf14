"""The preview: frame k beside its motion, one colour for one motion throughout, a legend that says how fast."""

from pathlib import Path

import numpy as np
import pytest

from test_flow_extract import SETTINGS, make
from twostream.files import OutputError
from twostream.flow import preview as preview_room
from twostream.flow.colour import flow_to_colour
from twostream.flow.contract import FlowError
from twostream.flow.estimators import create_estimator
from twostream.flow.preview import find_full_speed, round_up, side_by_side, write_preview
from twostream.flow.store import FlowSettings
from twostream.video import Video

OWN_SIZE = FlowSettings(estimator="dis", short_side=None)


def test_frame_and_flow_stand_side_by_side(tmp_path: Path) -> None:
    source = Video(make(tmp_path / "v.mp4", 12, width=160, height=120, shift=4))
    told: list[tuple[int, int, str]] = []
    preview = write_preview(source, OWN_SIZE, tmp_path / "out.mp4", progress=lambda *state: told.append(state))
    assert (preview.frames, preview.full_speed) == (11, 5.0)
    assert told[-1] == (11, 11, "writing")
    # Nothing counts as done while it is only looked at.
    assert (0, 12, "looking how fast it moves") in told
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    written = Video(tmp_path / "out.mp4")
    assert (len(written), written.width, written.height, written.fps) == (11, 320, 120, 10)
    shown, frames = written.frames([0, 5, 10]), source.frames([0, 5, 10])
    assert np.abs(shown[:, :, :160].astype(int) - frames).mean() < 6
    # To the right is red.
    red, green, blue = np.median(shown[:, :60, 180:300], axis=(0, 1, 2))
    assert red > 240
    assert max(green, blue) < 100
    luma = source.frames([5, 6], luma=True)
    flow = create_estimator("dis")(*luma)
    assert np.abs(shown[1, :60, 160:].astype(int) - flow_to_colour(flow, 5.0)[:60]).mean() < 12


def test_threads_and_common_frame_rate(tmp_path: Path) -> None:
    source = Video(make(tmp_path / "v.mp4", 20))
    settings = FlowSettings(estimator="dis", short_side=24, fps=5)
    for threads in (1, 2):
        preview = write_preview(source, settings, tmp_path / f"{threads}.mp4", threads=threads)
        assert preview.frames == 9
    assert (tmp_path / "1.mp4").read_bytes() == (tmp_path / "2.mp4").read_bytes()
    assert Video(tmp_path / "1.mp4").fps == 5


def test_a_video_that_stands_still_is_white(tmp_path: Path) -> None:
    source = Video(make(tmp_path / "v.mp4", 4, width=96, height=64, shift=0))
    assert write_preview(source, OWN_SIZE, tmp_path / "out.mp4").full_speed == 1.0
    shown = Video(tmp_path / "out.mp4").frames([1])[0]
    assert shown[:20, 100:180].min() > 230


def test_one_frame_has_no_motion(tmp_path: Path) -> None:
    source = Video(make(tmp_path / "v.mp4", 1))
    with pytest.raises(FlowError, match=r"v\.mp4: it has one frame only, and so no motion to show"):
        write_preview(source, SETTINGS, tmp_path / "out.mp4")
    assert not (tmp_path / "out.mp4").exists()


def test_a_place_that_cannot_be_written_is_found_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Video(make(tmp_path / "v.mp4", 4))
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(preview_room, "find_full_speed", lambda *_: pytest.fail("work was begun"))
    with pytest.raises(OutputError, match=r"out\.mp4: cannot be written"):
        write_preview(source, SETTINGS, tmp_path / "file" / "out.mp4")


def test_frames_too_small_are_those_of_a_named_video(tmp_path: Path) -> None:
    source = Video(make(tmp_path / "v.mp4", 4, width=12, height=10))
    with pytest.raises(FlowError, match=r"v\.mp4: frames of 12x10 px are too small for dis"):
        write_preview(source, OWN_SIZE, tmp_path / "out.mp4")


@pytest.mark.parametrize("frames", [2, 3, 16, 17, 40])
def test_every_video_has_a_pair_to_look_at(tmp_path: Path, frames: int) -> None:
    source = Video(make(tmp_path / "v.mp4", frames, shift=3))
    assert find_full_speed(source, OWN_SIZE, lambda *_: None) in (3.0, 5.0)


def test_full_speeds_are_round() -> None:
    speeds = {0.0: 1, 0.3: 1, 1: 1, 1.2: 1.5, 1.5: 1.5, 2.1: 3, 6: 7, 7.5: 10, 11: 15, 80: 100, 100: 100}
    assert [round_up(speed) for speed in speeds] == list(speeds.values())


def test_the_legend_is_the_wheel_and_stays_out_of_small_pictures() -> None:
    frame, flow = np.zeros((256, 340, 3), np.uint8), np.zeros((2, 256, 340), np.float32)
    picture = side_by_side(frame, flow, 5.0)
    assert picture.shape == (256, 680, 3)
    legend = picture[256 - 90 :, 680 - 80 :]
    reddest = np.unravel_index(np.argmax(legend[..., 0].astype(int) - legend[..., 1] - legend[..., 2]), (90, 80))
    assert reddest[1] > 60, "red, which is to the right, lies to the right"
    assert (legend < 60).all(axis=-1).sum() > 30, "letters"
    assert (picture[:150, 340:] == 255).all()
    small = side_by_side(frame[:60, :60], flow[:, :60, :60], 5.0)
    assert (small[:, 60:] == 255).all()
