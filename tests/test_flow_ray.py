"""The same work on a Ray cluster: the same bytes, a lost worker's video done again, clear errors."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import test_flow_extract as processes
from twostream import work_claims
from twostream.errors import UsageError
from twostream.files import OutputError
from twostream.flow import ray_executor
from twostream.flow.contract import FlowError
from twostream.flow.extract import extract
from twostream.flow.jobs import Outcome, Source
from twostream.flow.store import FlowStore
from twostream.work_claims import claimed

ray = pytest.importorskip("ray")

SCRIPT = """
import sys
from pathlib import Path
from twostream.flow.extract import extract
from twostream.flow.jobs import Source
from twostream.flow.store import FlowSettings, FlowStore

# Relative paths, to be understood in another folder.
sources = [Source(p.relative_to("videos").as_posix(), p) for p in sorted(Path("videos").rglob("*.mp4"))]
settings = FlowSettings(estimator="dis", short_side=24, parameters={"preset": "ultrafast"})
told = lambda done, total, what: print(done, total, what)
summary = extract(sources, FlowStore("store", settings), workers=2, executor="ray", progress=told)
print(*summary.lines(), sep="\\n")
"""


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL on Windows")
def test_with_a_worker_killed_in_the_middle_the_files_are_the_same(tmp_path: Path) -> None:
    sources = processes.make_several(tmp_path / "videos", 2500, 300, 100)
    (tmp_path / "videos" / "bad.mp4").write_bytes(b"no video")
    extract(sources, FlowStore(tmp_path / "undisturbed", processes.SETTINGS), workers=0)
    claim = tmp_path / "store" / work_claims.FOLDER / f"{work_claims._stem('class0/v0.mp4')}.0"
    with subprocess.Popen(
        [*processes.PYTHON, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    ) as process:
        worker = 0
        deadline = time.monotonic() + 60
        while not worker:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            try:
                worker = json.loads(claim.read_text())["pid"]
            except (FileNotFoundError, ValueError):
                time.sleep(0.005)
        assert worker != process.pid
        os.kill(worker, signal.SIGKILL)
        said, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert errors == ""
    assert "3 videos done" in said
    assert "1 failed" in said
    assert f"failed: {tmp_path / 'videos/bad.mp4'}: not a video file" in said
    assert "class0/v0.mp4: handed over" in said
    assert "4 4 class0/v0.mp4: done" in said, "the killed one comes last"
    assert processes.files(tmp_path / "store") == processes.files(tmp_path / "undisturbed")


def test_without_ray_one_error_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    source = Source("v", processes.make(tmp_path / "v.mp4", 2))
    with pytest.raises(UsageError, match=r"pip install 'twostream\[ray\]'"):
        extract([source], FlowStore(tmp_path / "store", processes.SETTINGS), workers=None, executor="ray")
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert not (tmp_path / "store").exists()


class Cluster:
    """Stands for Ray: answers are what the tasks gave, or the errors they are to end in."""

    exceptions = ray.exceptions

    def __init__(self, *, running: bool = False, refuses: Exception | None = None) -> None:
        self.running = running
        self.refuses = refuses
        self.asked: dict[str, Any] = {}
        self.ends: dict[str, Exception] = {}
        self.handed_over: list[str] = []
        self.cancelled: list[Any] = []
        self.was_shut_down = False

    def is_initialized(self) -> bool:
        return self.running

    def init(self, **options: Any) -> None:
        self.asked = options
        if self.refuses:
            raise self.refuses

    def shutdown(self) -> None:
        self.was_shut_down = True

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 1.0}

    def remote(self, function: Any) -> Any:
        cluster = self

        class Task:
            def options(self, **_options: Any) -> "Task":
                return self

            def remote(self, job: Any, *more: Any) -> Any:
                cluster.handed_over.append(job.source.name)
                return (job.source.name, cluster.ends.get(job.source.name) or function(job, *more))

        return Task()

    def wait(self, answers: list[Any], *, timeout: float) -> tuple[list[Any], list[Any]]:
        assert timeout > 0
        return answers[:1], answers[1:]

    def get(self, answer: Any) -> Outcome:
        if isinstance(answer[1], Exception):
            raise answer[1]
        return answer[1]

    def cancel(self, answer: Any, *, force: bool) -> None:
        assert force
        self.cancelled.append(answer[0])


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    cluster = Cluster()
    monkeypatch.setattr(ray_executor, "load_ray", lambda: cluster)
    monkeypatch.setattr(ray_executor, "_knock", lambda _ray, _address: None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return cluster


def run(sources: list[Source], root: Path, **options: Any) -> Any:
    store = FlowStore(root, processes.SETTINGS)
    return extract(sources, store, **{"workers": None, "executor": "ray", **options})


def test_which_cluster(tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = processes.make_several(tmp_path / "videos", 3, 2, 2)
    assert len(run(sources, tmp_path / "a", workers=2).done) == 3
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    assert cluster.asked == {"address": "local", "num_cpus": 2, "include_dashboard": False, **quiet}
    assert cluster.was_shut_down
    run(sources, tmp_path / "b", ray_address="auto")
    assert cluster.asked == {"address": "auto", **quiet}
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    run(sources, tmp_path / "c")
    assert cluster.asked == {"address": "head:6379", **quiet}
    # A script that is connected already stays so.
    cluster.__init__(running=True)
    run(sources, tmp_path / "d")
    assert (cluster.asked, cluster.was_shut_down) == ({}, False)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (None, r"Ray cannot be started on this machine \(no room\)"),
        ("h:1", r"the Ray cluster at 'h:1' cannot be reached \(no room\).*ray start --head.*RAY_AUTH_TOKEN"),
    ],
)
def test_no_cluster(tmp_path: Path, cluster: Cluster, address: str | None, message: str) -> None:
    cluster.refuses = ConnectionError("no room\nand a long tale")
    with pytest.raises(FlowError, match=message):
        run(processes.make_several(tmp_path / "videos", 2), tmp_path / "store", ray_address=address)


@pytest.mark.parametrize("form", ["{}", "ray://{}"])
def test_an_address_where_nobody_listens_is_told_at_once(form: str, tmp_path: Path) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        listening.listen()
        ray_executor._knock(ray, form.format(address))
    began = time.monotonic()
    sources = processes.make_several(tmp_path / "videos", 2)
    with pytest.raises(FlowError, match=r"cannot be reached \(.*refused\)\. One is started with: ray start --head"):
        run(sources, tmp_path / "store", ray_address=form.format(address))
    assert time.monotonic() - began < 10
    for no_place in ("auto", "local", "head", "head:", ":1"):
        ray_executor._knock(ray, no_place)


def test_a_video_whose_workers_are_lost_again_and_again_is_named(tmp_path: Path, cluster: Cluster) -> None:
    cluster.ends["class0/v0.mp4"] = ray.exceptions.WorkerCrashedError()
    summary = run(processes.make_several(tmp_path / "videos", 3, 2), tmp_path / "store")
    assert summary.done == ("class1/v1.mp4",)
    assert "v0.mp4: 4 processes that worked on it were lost (WorkerCrashedError" in summary.failed["class0/v0.mp4"]
    assert "the same command tries it again" in summary.failed["class0/v0.mp4"]


def test_machines_that_cannot_run_the_package(tmp_path: Path, cluster: Cluster) -> None:
    cause = ModuleNotFoundError("No module named 'twostream'")
    cluster.ends["class0/v0.mp4"] = ray.exceptions.RayTaskError("f", "trace", cause)
    with pytest.raises(FlowError, match=r"cannot run this package .*No module named 'twostream'.*install the same"):
        run(processes.make_several(tmp_path / "videos", 30, 2, 2), tmp_path / "store")
    assert cluster.handed_over == ["class0/v0.mp4", *cluster.cancelled]


@pytest.mark.usefixtures("cluster")
def test_machines_that_see_other_folders_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = processes.make_several(tmp_path / "videos", 2)
    with monkeypatch.context() as patch:
        patch.setattr(ray_executor, "is_claimed_by", lambda *_args, **_options: False)
        with pytest.raises(OutputError, match="a machine of the Ray cluster, sees something else") as error:
            run([source], tmp_path / "store")
        assert str(tmp_path / "store") in str(error.value)
    job = processes.job_of(tmp_path / "gone.mp4", tmp_path / "store")
    with claimed(job.store, "run r", run="r"):
        gone = ray_executor._on_a_machine(job, "run r", seen=True)
        assert gone.fatal
        assert str(gone.reason).startswith(f"{tmp_path / 'gone.mp4'}: ")
        # Where nobody has seen it, it is one video that fails.
        assert ray_executor._on_a_machine(job, "run r", seen=False) == Outcome(
            reason=f"{tmp_path / 'gone.mp4'}: no such file"
        )


def test_wrong_calls(tmp_path: Path) -> None:
    store = FlowStore(tmp_path / "store", processes.SETTINGS)
    with pytest.raises(UsageError, match="Ray works on 1 or more videos at once, got 0"):
        extract([], store, workers=0, executor="ray")
    with pytest.raises(UsageError, match="an address of a Ray cluster goes with the executor 'ray'"):
        extract([], store, workers=1, ray_address="auto")
    with pytest.raises(UsageError, match="the executors are process, ray; got 'dask'"):
        extract([], store, workers=1, executor="dask")  # type: ignore[arg-type]
