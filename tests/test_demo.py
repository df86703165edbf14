"""The demo in its short form: every step runs, and what it leaves is there."""

from pathlib import Path

import pytest
import torch

from twostream.attention.tracks import AttentionFile
from twostream.cli import main
from twostream.video import Video


def test_the_demo_runs_and_leaves_what_it_promises(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert main(["demo", "--short", "--out", str(tmp_path / "demo")]) == 0
    finally:
        torch.set_num_threads(threads)
    said = capsys.readouterr().err
    for step in range(1, 8):
        assert f"{step}/7 " in said
    assert "accuracy on 4 test videos: appearance " in said
    assert "late fusion 0." in said
    assert "(none can expect more than 0.50 here, chance 0.50)" in said
    assert "in truth, 3.2 s each: sideways-updown, updown-sideways, sideways-updown, updown-sideways" in said
    assert "STPN, which sees several moments together: " in said
    out = tmp_path / "demo"
    assert len(Video(out / "new_video_labelled.mp4")) == len(Video(out / "new_video.mp4")) == 4 * 80
    assert len(AttentionFile.load(out / "stpn" / "explain" / "attention-test.npz").tracks) == 4
    page = (out / "report.html").read_text("utf-8")
    assert "2 runs compared" in page
    assert "Half of the attention lies on" in page
