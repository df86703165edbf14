import os
from pathlib import Path

import numpy as np
import pytest

from twostream.data.reading import read_video, read_videos
from twostream.video import VideoError, VideoInfo, write_video

# Worker processes import this file; it stays clear of what takes long to import.


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """0.mp4 of 3 frames, 1.mp4 of 4 and 2.mp4 of 5."""
    folder = tmp_path_factory.mktemp("clips")
    for n in range(3):
        write_video(folder / f"{n}.mp4", (np.full((16, 32, 3), 40 * n, np.uint8) for _ in range(3 + n)), 25)
    return folder


def test_worker_processes_find_the_same(clips: Path) -> None:
    paths = [*(clips / f"{n}.mp4" for n in range(3)), clips / "gone.mp4", clips / "0.mp4"]
    alone = read_videos(paths)
    seen: list[tuple[int, int, str]] = []
    together = read_videos(paths, workers=2, progress=lambda *step: seen.append(step))
    assert list(together) == list(alone) == paths[:4]
    assert [step[:2] for step in seen] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    for path, result in alone.items():
        assert str(together[path]) == str(result)


def _crashes_on_2(path: Path) -> VideoInfo | VideoError:
    if path.name == "2.mp4":
        os._exit(139)
    return read_video(path)


def test_a_video_that_crashes_its_process_is_an_error_and_the_rest_are_read(clips: Path) -> None:
    found = read_videos([clips / f"{n}.mp4" for n in (2, 0, 1)], workers=2, read=_crashes_on_2)
    assert [type(result) for result in found.values()] == [VideoError, VideoInfo, VideoInfo]
    assert str(found[clips / "2.mp4"]).endswith(
        "2.mp4: decoding it ends the process that does it (a fault in the decoder)"
    )
