"""Fields in order, the same for any number of threads, never more than a few blocks of frames ahead."""

import itertools
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from test_flow_extract import SETTINGS, make
from twostream.flow import streaming as room
from twostream.flow.estimators import compute, create_estimator
from twostream.flow.store import FlowSettings
from twostream.flow.streaming import stream_flow
from twostream.video import Video, VideoError


def identity(flow: Any) -> Any:
    return flow


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("parameters", [{"quality": "fast"}, {"quality": "fast", "warm_start": 5}])
def test_threads_change_no_bit(tmp_path: Path, threads: int, parameters: dict[str, Any]) -> None:
    video = Video(make(tmp_path / "v.mp4", 30))
    settings = FlowSettings(estimator="tvl1", parameters=parameters, short_side=24)
    steps = list(stream_flow(video, settings, identity, frames=True, threads=threads))
    assert len(steps) == 30
    assert steps[0].field is None
    luma = video.frames(range(30), luma=True, short_side=24)
    assert np.array_equal(np.stack([step.field for step in steps[1:]]), compute(luma, **parameters))
    assert np.array_equal(np.stack([step.frame for step in steps]), video.frames(range(30), short_side=24))


@pytest.mark.parametrize("frames", [1, 2, 8, 9, 10, 17])
def test_videos_of_any_length(tmp_path: Path, frames: int) -> None:
    video = Video(make(tmp_path / "v.mp4", frames))
    one, two = (list(stream_flow(video, SETTINGS, identity, threads=threads)) for threads in (1, 2))
    assert [step.field is None for step in two] == [True] + [False] * (frames - 1)
    assert all(np.array_equal(a.field, b.field) for a, b in zip(one[1:], two[1:], strict=True))
    assert all(step.frame is None for step in two)


def test_blocks() -> None:
    assert room._block_length(create_estimator("dis"), 340 * 256) == 8
    assert room._block_length(create_estimator("dis"), 4096 * 2160) == 1
    assert room._block_length(create_estimator("tvl1", warm_start=6), 340 * 256) == 12
    assert room._block_length(create_estimator("tvl1", warm_start=6), 4096 * 2160) == 6
    # Then everything happens in one thread.
    assert room._block_length(create_estimator("tvl1", warm_start=1000), 340 * 256) is None


def test_where_a_video_cannot_be_begun_anew_one_thread_does_it(tmp_path: Path) -> None:
    video = Video(make(tmp_path / "v.mp4", 4))
    settings = FlowSettings(estimator="tvl1", parameters={"quality": "fast", "warm_start": 100}, short_side=24)
    here = threading.get_ident()
    steps = stream_flow(video, settings, lambda _flow: threading.get_ident(), threads=2)
    assert [step.field for step in steps] == [None, here, here, here]


def test_decoding_does_not_run_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = 0
    real = Video.stream

    def counted(video: Video, **options: Any) -> Iterator[Any]:
        nonlocal read
        for frame in real(video, **options):
            read += 1
            yield frame

    monkeypatch.setattr(Video, "stream", counted)
    before = threading.active_count()  # other tests may have left some
    steps = stream_flow(Video(make(tmp_path / "v.mp4", 200)), SETTINGS, identity, threads=2)
    assert len(list(itertools.islice(steps, 3))) == 3
    assert threading.active_count() > before
    assert read <= 1 + 8 * (2 * 2 + 1)
    steps.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


@pytest.mark.parametrize("threads", [1, 2])
def test_errors_come_through(tmp_path: Path, threads: int) -> None:
    path = make(tmp_path / "v.mp4", 40)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    path.write_bytes(data)
    with pytest.raises(VideoError, match="damaged after"):
        list(stream_flow(Video(path), SETTINGS, identity, threads=threads))
    cut = Video(path, on_error="truncate")
    assert 1 < len(list(stream_flow(cut, SETTINGS, identity, threads=threads))) < 40

    def fail(_flow: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(stream_flow(cut, replace(SETTINGS, short_side=32), fail, threads=threads))
