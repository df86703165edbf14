"""Rows side by side: who is next, what each process is given, and that no row is made twice or lost."""

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import yaml

from test_experiments import TINY, finish, quiet, some_scores
from twostream import processes, work_claims
from twostream.errors import UsageError
from twostream.experiments import making, parallel, run
from twostream.experiments.making import Maker, shared
from twostream.experiments.parallel import Outcome, surroundings, visible_gpus
from twostream.experiments.rows import Finished, SuiteFolder, provenance
from twostream.experiments.run import run_suite
from twostream.experiments.suite import MotionShapes, Row, Suite
from twostream.experiments.table import make_table
from twostream.runs import RunFolder
from twostream.training.config import TrainConfig
from twostream.work_claims import Owner, claimed


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Suite]:
    def loaded(variants: dict[str, Any], **keys: Any) -> Suite:
        path = tmp_path / "tiny.yaml"
        values = {**TINY, "data": "clips", "variants": variants, **keys}
        path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        return Suite.load(path)

    return loaded


def finish_here(folder: SuiteFolder, row: Row, **other: Any) -> Finished:
    """A finished row with its network, or, where the row is finished, the network."""
    network = RunFolder(folder.run_folder(row)).model_folder
    network.mkdir(parents=True)
    (network / "config.json").touch()
    return folder.made(row) or finish(folder, row, some_scores([True]), **other)


class Puppets:
    """Makers that are told what comes of a row, and note the order of things."""

    def __init__(self, folder: SuiteFolder, jobs: int, **outcomes: Any) -> None:
        self.folder, self.jobs, self.given = folder, jobs, outcomes
        self.working: list[Row] = []
        self.seen: list[str] = []

    @property
    def free(self) -> bool:
        return len(self.working) < self.jobs

    def start(self, row: Row) -> None:
        self.working.append(row)
        self.seen.append(f"+{row.variant}")

    def outcomes(self, seconds: float | None) -> Iterator[tuple[Row, Outcome]]:
        if not self.working:
            assert seconds, "nobody works, and it would be waited for ever"
            self.seen.append("waited")
            return
        row = self.working.pop(0)
        self.seen.append(f"-{row.variant}")
        outcome = self.given.get(row.variant, "made")
        if callable(outcome):
            outcome = outcome()
        if outcome == "made":
            yield row, ("", finish_here(self.folder, row))
        else:
            yield row, (outcome, None) if isinstance(outcome, str) else ("", outcome)


def schedule(suite: Suite, out: Path, puppets: Puppets, said: list[str]) -> dict[str, str]:
    rows = suite.rows()
    return run._Schedule(SuiteFolder(suite, out), rows, puppets, run="this", say=said.append).carry_out()


def test_rows_wait_for_what_they_start_from(load: Callable[..., Suite], tmp_path: Path) -> None:
    suite = load({"a": {}, "b": {"after": "a"}, "c": {}, "d": {"after": ["b", "c"]}, "e": {}})
    puppets = Puppets(SuiteFolder(suite, tmp_path), jobs=2)
    said: list[str] = []
    assert schedule(suite, tmp_path, puppets, said) == {}
    assert puppets.seen == ["+a", "+c", "-a", "+b", "-c", "+e", "-b", "+d", "-e", "-d"]
    # What is at work is to go too; five equal minutes by two at a time, but a, b, d one after the other.
    assert (
        "a-seed0-split1: top-1 1.000, appearance alone 1.000, motion alone 1.000 after 60 s; 4 to go, about" in said[2]
    )
    assert said[2].endswith("about 2 min 0 s")
    assert said[-1].endswith("after 60 s")


def test_a_failed_row_fails_what_starts_from_it_and_nothing_else(load: Callable[..., Suite], tmp_path: Path) -> None:
    suite = load({"a": {}, "b": {"after": "a"}, "c": {"after": "b"}, "d": {}})
    puppets = Puppets(SuiteFolder(suite, tmp_path), 1, a="no memory")
    assert schedule(suite, tmp_path, puppets, []) == {
        "a-seed0-split1": "no memory",
        "b-seed0-split1": "it starts from a-seed0-split1, which failed",
        "c-seed0-split1": "it starts from b-seed0-split1, which failed",
    }
    assert puppets.seen == ["+a", "-a", "+d", "-d"]


OTHER = Owner(host="elsewhere", machine="elsewhere", pid=7, started="", run="theirs")


def test_rows_that_others_are_at_are_waited_for(
    load: Callable[..., Suite], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "LOOK_EVERY", 0.001)
    suite = load({"a": {}, "b": {"after": "a"}, "c": {}})
    folder = SuiteFolder(suite, tmp_path)
    looks = {"a-seed0-split1": 3}

    def owner_of(root: Path, name: str, *, run: str) -> Owner | None:
        assert (root, run) == (folder.path, "this")
        looks[name] = looks.get(name, 0) - 1
        if looks[name] == 0:
            finish_here(folder, suite.rows()[0])
        return OTHER if looks[name] >= 0 else None

    monkeypatch.setattr(run, "owner_of", owner_of)
    puppets = Puppets(folder, 1)
    said: list[str] = []
    assert schedule(suite, tmp_path, puppets, said) == {}
    assert [entry for entry in puppets.seen if entry != "waited"] == ["+c", "-c", "+b", "-b"]
    assert said.count("a-seed0-split1: process 7 on elsewhere is at it") == 1
    assert any(line.startswith("a-seed0-split1: top-1") for line in said)


def test_a_claim_that_somebody_takes_meanwhile_and_gives_up(
    load: Callable[..., Suite], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "LOOK_EVERY", 0.001)
    suite = load({"a": {}})
    outcomes = [OTHER, "made"]
    puppets = Puppets(SuiteFolder(suite, tmp_path), 1, a=lambda: outcomes.pop(0))
    assert schedule(suite, tmp_path, puppets, []) == {}
    assert [entry for entry in puppets.seen if entry != "waited"] == ["+a", "-a", "+a", "-a"]


def test_what_a_row_starts_from_may_be_made_by_another_command(
    load: Callable[..., Suite], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "LOOK_EVERY", 0.001)
    suite = load({"a": {}, "b": {"after": "a"}})
    folder, (first, second) = SuiteFolder(suite, tmp_path), suite.rows()
    said: list[str] = []

    def leave(puppets: Puppets) -> None:
        while "waited" not in puppets.seen:
            time.sleep(0.001)
        finish_here(folder, first)

    puppets = Puppets(folder, 1)
    with claimed(folder.path, first.name, run="theirs"):
        thread = threading.Thread(target=leave, args=(puppets,))
        thread.start()
        assert run._Schedule(folder, [second], puppets, run="this", say=said.append).carry_out() == {}
        thread.join()
    assert f"b-seed0-split1 waits for a-seed0-split1: process {os.getpid()} on" in said[0]
    assert puppets.seen[-2:] == ["+b", "-b"]


CHAIN: dict[str, Any] = {
    "a": {},
    "b": {"after": "a"},
    "both": {"fuse": ["a", "b"]},
    "crops": {"fuse": ["both"], "protocol": "10x3"},
    "c": {"after": "b"},
    "d": {},
    "best": {"fuse": ["a", "both"]},
}


def chain(suite: Suite, out: Path) -> tuple[SuiteFolder, list[Row]]:
    """What others go on from is finished, elsewhere; and what is to go."""
    folder = SuiteFolder(suite, out)
    for row in suite.rows()[:3]:
        finish(folder, row, some_scores([True]), machine={"cpu": "another"})
    waiting = list(suite.rows()[3:])
    again = run._trained_again(folder, waiting, "this")
    assert [row.variant for row in again] == ["a", "b"], "each once"
    return folder, [*again, *waiting]


def test_networks_are_made_again_before_what_needs_them(load: Callable[..., Suite], tmp_path: Path) -> None:
    folder, to_go = chain(load(CHAIN), tmp_path)
    records = [folder.finished(row) for row in to_go[:2]]

    def again(number: int) -> Finished:
        finish_here(folder, to_go[number])
        record = records[number]
        assert record is not None
        figures = {**record.figures, "top1": 0.5}
        return replace(record, figures=figures, cost={**record.cost, "seconds": 600.0}, **provenance("a command"))

    puppets = Puppets(folder, 2, a=lambda: again(0), b=lambda: again(1))
    said: list[str] = []
    assert run._Schedule(folder, to_go, puppets, run="this", say=said.append).carry_out() == {}
    # Behind both are a and b: crops needs their networks, and best takes what is the same whoever is faster.
    assert puppets.seen == ["+a", "+d", "-a", "+b", "-d", "-b", "+crops", "+c", "-crops", "+best", "-c", "-best"]
    assert said[0] == "row 1 of 6: a-seed0-split1 on clips, again"
    assert said[1] == "row 2 of 6: d-seed0-split1 on clips"
    # No finished row says how long anything takes here; what was made again does.
    assert "a-seed0-split1: made again, top-1 0.500 now, 1.000 in its row, after 10 min 0 s; 5 to go, about" in said[2]
    assert [folder.finished(row) for row in to_go[:2]] == records


def test_a_network_that_cannot_be_made_again_fails_what_needs_it_only(
    load: Callable[..., Suite], tmp_path: Path
) -> None:
    folder, to_go = chain(load(CHAIN), tmp_path)
    puppets = Puppets(folder, 1, a="no memory")
    assert run._Schedule(folder, to_go, puppets, run="this", say=quiet).carry_out() == {
        "a-seed0-split1": "no memory",
        "b-seed0-split1": "it starts from a-seed0-split1, which failed",
        "c-seed0-split1": "it starts from b-seed0-split1, which failed",
        "crops-seed0-split1": "it starts from a-seed0-split1, which failed",
    }
    assert puppets.seen == ["+a", "-a", "+d", "-d", "+best", "-best"], "the scores of a and of both are there"


def test_networks_that_another_command_makes_again_are_not_made_twice(
    load: Callable[..., Suite], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "LOOK_EVERY", 0.001)
    suite = load(CHAIN)
    folder, to_go = chain(suite, tmp_path)
    looks = 3

    def owner_of(_root: Path, name: str, **_: str) -> Owner | None:
        nonlocal looks
        if not name.startswith("a-") or looks < 0:
            return None
        looks -= 1
        if looks < 0:
            # The other has made both networks, and what it wanted them for.
            for row in (*suite.rows()[:2], *(row for row in suite.rows() if row.variant in ("c", "crops"))):
                finish_here(folder, row)
            return None
        return OTHER

    monkeypatch.setattr(run, "owner_of", owner_of)
    puppets = Puppets(folder, 1)
    assert run._Schedule(folder, to_go, puppets, run="this", say=quiet).carry_out() == {}
    assert [entry for entry in puppets.seen if entry != "waited"] == ["+d", "-d", "+best", "-best"]


def test_networks_that_nobody_needs_any_more_are_not_made_again(load: Callable[..., Suite], tmp_path: Path) -> None:
    suite = load({"a": {}, "b": {"after": "a"}, "c": {"after": "b"}, "d": {}})
    folder, (a, b, c, d) = SuiteFolder(suite, tmp_path), suite.rows()
    for row in (a, b):
        finish(folder, row, some_scores([True]))

    def meanwhile() -> str:
        finish_here(folder, c)
        return "made elsewhere"

    puppets = Puppets(folder, 1, d=meanwhile)
    failed = run._Schedule(folder, [d, a, b, c], puppets, run="this", say=quiet).carry_out()
    assert failed == {d.name: "made elsewhere"}
    assert puppets.seen == ["+d", "-d"]


def test_a_row_is_not_made_twice(load: Callable[..., Suite], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = load({"a": {}})
    folder, (row,) = SuiteFolder(suite, tmp_path), suite.rows()
    maker = Maker(folder, quiet)

    def no_train(*_: Any, **__: Any) -> None:
        raise AssertionError("it must not be trained")

    monkeypatch.setattr(making, "train", no_train)
    with claimed(folder.path, row.name, run="theirs"):
        owner = maker.make(row)
    assert isinstance(owner, Owner)
    assert owner.run == "theirs"
    made = finish_here(folder, row)
    assert maker.make(row) == made
    assert not (folder.path / work_claims.FOLDER).exists()


def test_videos_are_generated_by_one_at_a_time(
    load: Callable[..., Suite], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making, "LOOK_EVERY", 0.001)
    suite = load({"a": {}}, data={"motion_shapes": {"set": "conjunction", "train": 2, "test": 2}})
    said: list[str] = []
    maker, (row,) = Maker(SuiteFolder(suite, tmp_path), said.append), suite.rows()
    free, calls = threading.Event(), []
    monkeypatch.setattr(making.motion_shapes, "generate", lambda out, *_, **__: calls.append(free.is_set()) or out)
    assert isinstance(row.data, MotionShapes)
    with claimed(tmp_path / "data", row.data.name, run="theirs"):
        thread = threading.Thread(target=maker.videos, args=(row.data, row.config))
        thread.start()
        while not said:
            time.sleep(0.001)
        free.set()
    thread.join()
    assert calls == [True]
    assert said == [
        f"waiting for process {os.getpid()} on {platform.node()}, which is at {tmp_path / 'data' / row.data.name}"
    ]


# What each process is given


def test_cores_and_gpus_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "machine", lambda: {"cores": 8})
    for name in parallel._THREADS:
        monkeypatch.delenv(name, raising=False)
    assert set(surroundings(0, jobs=3, gpus=()).values()) == {"2"}
    assert set(surroundings(0, jobs=9, gpus=()).values()) == {"1"}
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MKL_NUM_THREADS", "64")
    given = surroundings(0, jobs=2, gpus=())
    assert (given["OMP_NUM_THREADS"], given["MKL_NUM_THREADS"], given["NUMBA_NUM_THREADS"]) == ("1", "4", "4")
    devices = [surroundings(place, jobs=3, gpus=("4", "GPU-ab"))["CUDA_VISIBLE_DEVICES"] for place in range(3)]
    assert devices == ["4", "GPU-ab", "4"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, GPU-ab")
    assert visible_gpus() == ("4", "GPU-ab")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == ()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(parallel.torch.cuda, "device_count", lambda: 2)
    assert visible_gpus() == ("0", "1")
    before = dict(os.environ)
    with parallel._environment({"OMP_NUM_THREADS": "3", "NEW_NAME": "x"}):
        assert (os.environ["OMP_NUM_THREADS"], os.environ["NEW_NAME"]) == ("3", "x")
    assert dict(os.environ) == before


def test_workers_follow_the_share_of_cores_unless_they_were_asked_for() -> None:
    config = TrainConfig(data="d", out="o")
    few, many = shared(config, 1), shared(config, 20)
    assert (few.flow.workers, few.trainer.loader_workers) == (1, 0)
    assert (many.flow.workers, many.trainer.loader_workers) == (20, 8)
    asked = replace(config, flow=replace(config.flow, workers=5), trainer=replace(config.trainer, loader_workers=6))
    assert shared(asked, 1) == asked


@pytest.mark.parametrize(("trainer", "message"), [({"devices": 2}, "devices: 2"), ({"num_nodes": 2}, "num_nodes: 2")])
def test_rows_on_several_devices_are_not_made_side_by_side(
    load: Callable[..., Suite], tmp_path: Path, trainer: dict[str, Any], message: str
) -> None:
    suite = load({"wide": {"trainer": trainer}})
    with pytest.raises(UsageError, match=f"one device, and wide asks for {message}; run it without --jobs"):
        run_suite(suite, tmp_path, jobs=2, say=quiet)


# Real processes


def dies_or_fails(connection: Connection, _suite: Suite, _out: Path, name: str, jobs: int) -> None:
    """In the place of a row's process."""
    processes.obey()
    connection.send(f"one of {jobs}\nwith {os.environ['OMP_NUM_THREADS']}")
    if name.startswith("dies"):
        os.kill(os.getpid(), signal.SIGKILL)
    connection.send(("a reason", None))


@pytest.mark.skipif(os.name == "nt", reason="signals are Unix's")
def test_a_process_that_dies_fails_its_row_and_lines_carry_names(
    load: Callable[..., Suite], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "_serve", dies_or_fails)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    said: list[str] = []
    failed = run_suite(load({"dies": {}, "fails": {}}), tmp_path, jobs=2, say=said.append)
    assert failed == {
        "dies-seed0-split1": "its process died (SIGKILL, perhaps because memory ran out)",
        "fails-seed0-split1": "a reason",
    }
    for name in ("dies", "fails"):
        assert f"{name}-seed0-split1: one of 2" in said
        assert f"{name}-seed0-split1: with 1" in said


def test_networks_are_made_again_side_by_side(load: Callable[..., Suite], shapes: Path, tmp_path: Path) -> None:
    suite = load({"late": {}, "longer": {"after": "late"}, "other": {"after": "late"}}, data=str(shapes))
    folder, (late, longer, other) = SuiteFolder(suite, tmp_path / "out"), suite.rows()
    assert run_suite(suite, folder.out, only=["late"], say=quiet) == {}
    shutil.rmtree(folder.path / "runs")
    record = folder.row_file(late).read_bytes()
    said: list[str] = []
    assert run_suite(suite, folder.out, only=["longer", "other"], jobs=2, say=said.append) == {}, "\n".join(said)
    assert said[1].startswith("tiny: 2 rows, 0 finished; 3 to go, about")
    assert sum(line.startswith(f"{late.name}: made again, top-1 ") for line in said) == 1
    assert folder.row_file(late).read_bytes() == record
    assert None not in (folder.finished(longer), folder.finished(other))
    assert not (folder.path / work_claims.FOLDER).exists()


@contextmanager
def started(call: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "twostream.cli", *call], stdout=file, stderr=file, start_new_session=True
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is sent by SIGINT")
def test_ctrl_c_stops_all_rows_and_the_same_command_goes_on(
    load: Callable[..., Suite], shapes: Path, tmp_path: Path
) -> None:
    trainer = {"checkpoint_seconds": 0.0}
    suite = load(
        {
            "motion": {"model": "temporal_resnet18", "trainer": {**trainer, "epochs": 100}},
            "broken": {"no_flip": ["no such class"]},
            "after_broken": {"after": "broken"},
            "after_motion": {"after": "motion"},
        },
        data=str(shapes),
    )
    folder = SuiteFolder(suite, tmp_path / "out")
    log = tmp_path / "log"
    call = ["reproduce", suite.source, "--out", str(folder.out), "--jobs", "2"]

    def under_way() -> bool:
        files = folder.path.glob("runs/motion-*/metrics.csv")
        # What a row says passes through the command, which may be a little behind; either row may be the slower one.
        told = all(words in log.read_text() for words in ("split1: epoch", "after_broken-seed0-split1 failed: "))
        return told and any(file.read_text().count("\n") > 2 for file in files)

    with started(call, log) as process:
        deadline = time.monotonic() + 240
        while not under_way() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 130, log.read_text()
        # Soon nobody of the group is left; Python's own tracker of resources goes a moment after the one it served.
        deadline = time.monotonic() + 60
        while group_lives(process.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not group_lives(process.pid)
    text = log.read_text()
    assert "motion-seed0-split1: epoch" in text, text
    assert "broken-seed0-split1 failed: " in text
    assert "after_broken-seed0-split1 failed: it starts from broken-seed0-split1, which failed" in text
    assert "Traceback" not in text
    assert not list(folder.path.glob("rows/*"))
    assert not (folder.path / work_claims.FOLDER).exists()
    said: list[str] = []
    failed = run_suite(suite, folder.out, jobs=2, say=said.append)
    assert set(failed) == {"broken-seed0-split1", "after_broken-seed0-split1"}, "\n".join(said)
    assert any(line.startswith("motion-seed0-split1:") and "epoch 100" in line for line in said), "\n".join(said)
    assert not any(line.startswith("motion-seed0-split1: epoch 1 ") for line in said)
    made = [finished for row in suite.rows() if (finished := folder.finished(row))]
    assert [finished.variant for finished in made] == ["motion", "after_motion"]
    assert [finished.cost["jobs"] for finished in made] == [2, 2]
    assert made[0].cost["cpu_seconds"] is None
    assert made[1].cost["cpu_seconds"]
    assert [line.rows for line in make_table(suite, folder.out).lines] == [1, 0, 0, 1]
    config = json.dumps(yaml.safe_load((folder.run_folder(suite.rows()[3]) / "config.yaml").read_text())["flow"])
    assert f'"workers": {TINY["base"]["flow"]["workers"]}' in config
    assert isinstance(made[0], Finished)
