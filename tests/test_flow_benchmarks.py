"""The measuring commands of extraction, in their quick versions; what they print is judged on a quiet machine."""

import os
import re
from pathlib import Path

import pytest

import test_flow_extract as extraction

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
Printed = pytest.CaptureFixture[str]


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)


@pytest.mark.usefixtures("benchmarks")
def test_end_to_end(tmp_path: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    import flow_end_to_end

    extraction.make_several(tmp_path / "videos", 9, 4, 6)
    monkeypatch.setattr(flow_end_to_end, "write_long_video", lambda path, *_: extraction.make(path, 30))
    words = [str(tmp_path / "videos"), "--videos", "2", "--minutes", "0.1", "--short-side", "24", "--estimator", "dis"]
    assert flow_end_to_end.main([*words, "--limit-mib", "1"]) == 1
    printed = capsys.readouterr().out
    for workers in (1, 2):
        assert re.search(rf"\| videos \| {workers} \| 2 \| 13 \| [\d.]+ \| [\d.]+ \| \d+ \| \d+ \|", printed), printed
        assert re.search(rf"\| one video of 0.1 min \| {workers} \| 1 \| 29 \| [\d.]+ ", printed)
    assert re.search(r"peak of a worker: [1-9]\d+ MiB, limit 1 MiB", printed)
    assert re.search(r"videos: 1 to 2 workers [\d.]+ times as fast", printed)
    with pytest.raises(SystemExit):
        flow_end_to_end.main([])


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL on Windows")
@pytest.mark.usefixtures("benchmarks")
def test_kills(tmp_path: Path, capsys: Printed) -> None:
    import kill_extraction

    extraction.make_several(tmp_path / "videos", 300, 200)
    words = [str(tmp_path / "videos"), "--kills", "2", "--short-side", "24", "--estimator", "dis"]
    assert kill_extraction.main(words) == 0
    printed = capsys.readouterr().out
    assert "| 2 | all processes |" in printed
    assert printed.endswith("2 videos, 0 files differ\nidentical\n")
