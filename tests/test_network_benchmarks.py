"""The measuring commands of the networks, in their quick versions; what they print is judged on a quiet machine."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
Printed = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(BENCHMARKS)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_compact_bilinear(capsys: Printed) -> None:
    import compact_bilinear

    assert compact_bilinear.main(["--rounds", "1", "--site", "STPN 3", "--batch", "2"]) in (0, 1)
    printed = capsys.readouterr().out
    for contender in ("dense", "scatter"):
        assert re.search(rf"{contender}.*\d", printed), printed


def test_st_resnet(capsys: Printed) -> None:
    import st_resnet

    words = ["cost", "--depth", "18", "--steps", "2", "--size", "64", "--repeats", "1", "--phase", "forward"]
    assert st_resnet.main(words) in (0, 1)
    assert re.search(r"st_resnet18 +\d\.\d+ .*\nratio +\d\.\d+ ", capsys.readouterr().out)


def test_evaluation(capsys: Printed, shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import evaluation

    words = ["--threads", "1", "--size", "48", "--width", "8", "--repeats", "1", "--protocols", "10-step", "1-view"]
    assert evaluation.main([*words, "--count", "1", "--seconds", "1"]) in (0, 1)
    printed = capsys.readouterr().out
    assert "1 video, frames decoded, cpu" in printed
    for protocol, views in (("10-step", 10), ("1-view", 1)):
        assert re.search(rf"{protocol} +package( +\d+\.\d+ +1\.00){{2}}\n", printed), printed
        for way in ("read once", "view by view"):
            spread = r"( +\d+\.\d+){2} +\(\d+\.\d+ to \d+\.\d+\)"
            assert re.search(rf"{protocol} +{way}{spread}{spread}\n", printed), printed
        assert f"{views} views; logits of all ways within " in printed
    assert evaluation.main([*words[:-1], "--count", "2", "--videos", str(shapes), "--frames"]) in (0, 1)
    assert "2 videos, frames from the store" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="no videos there"):
        evaluation.main(["--videos", str(Path(__file__).parent / "nowhere")])
    # An answer of another kind is an error, not a figure.
    monkeypatch.setitem(evaluation.WAYS, "read once", lambda *given: evaluation.read_once(*given) + 1)
    with pytest.raises(SystemExit, match="10-step: the ways answer differently, by up to 1 in a logit"):
        evaluation.main([*words[:-1], "--count", "1", "--videos", str(shapes)])
