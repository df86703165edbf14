"""The measuring commands of the networks, in their quick versions; what they print is judged on a quiet machine."""

import re
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
Printed = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)


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
