"""Attention as numbers, as a file and as a picture."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from twostream.attention.heat import Heat, key, levels
from twostream.attention.tracks import AttentionError, AttentionFile, AttentionTrack, Box
from twostream.files import OutputError


def track_of(*maps: Any, **changes: Any) -> AttentionTrack:
    weights = np.array(maps, np.float32)
    M, h, w = weights.shape
    values: dict[str, Any] = {
        "weights": weights / weights.sum((1, 2), keepdims=True),
        "seconds": np.arange(M, dtype=float),
        "xs": (np.arange(w) + 0.5) / w,
        "ys": (np.arange(h) + 0.5) / h,
    }
    return AttentionTrack(**(values | changes))


EVEN = track_of(np.ones((3, 4)))
# Cells of a network whose map begins on the picture's edge, and of which it sees the middle alone.
UNEVEN = track_of(
    [[1, 2, 3], [4, 5, 6]],
    [[9, 1, 1], [1, 1, 1]],
    xs=np.array([0.1, 0.3, 0.6]),
    ys=np.array([0.2, 0.7]),
    seen=(0.1, 0.1, 0.9, 0.8),
)


def test_what_is_no_attention_is_refused() -> None:
    with pytest.raises(
        AttentionError, match=r"a time for each moment.* got \(1, 3, 4\) with \(\(2,\), \(3,\), \(4,\)\)"
    ):
        replace(EVEN, seconds=np.zeros(2))
    with pytest.raises(AttentionError, match=r"got \(4,\)"):
        replace(EVEN, weights=np.zeros(4, np.float32))
    for weights in (EVEN.weights * 2, EVEN.weights - EVEN.weights.mean() * np.array([2, 0, 0, 2], np.float32)):
        with pytest.raises(AttentionError, match="shares of one"):
            replace(EVEN, weights=weights)


def test_the_nearest_moment_is_held() -> None:
    track = track_of(*np.ones((3, 1, 1)), seconds=np.array([0.5, 1.0, 2.0]))
    assert [track.nearest(t) for t in (-1.0, 0.7, 0.8, 1.6, 9.0)] == [0, 0, 1, 2, 2]
    assert len(track) == 3


def test_tiles_meet_halfway_between_the_cells_and_end_where_the_network_sees_no_more() -> None:
    across, down = UNEVEN.borders()
    assert across == pytest.approx([0.1, 0.2, 0.45, 0.9])
    assert down == pytest.approx([0.1, 0.45, 0.8])
    assert EVEN.ratios() == pytest.approx(1)


def test_half_of_the_attention_lies_on_half_of_the_cells_where_it_is_even() -> None:
    assert EVEN.concentration() == pytest.approx([0.5])
    one = np.zeros((2, 5))
    one[1, 2] = 1
    # Half of one of ten cells.
    assert track_of(one).concentration() == pytest.approx([0.05])
    assert track_of([[3, 1]], [[1, 1]]).concentration() == pytest.approx([1 / 3, 0.5])


def brute_force(track: AttentionTrack, m: int, boxes: list[Box], side: int = 200) -> npt.NDArray[np.float64]:
    """Pixel by pixel: mass, even, area. All borders fall between pixels."""
    across, down = track.borders()
    places = (np.arange(side) + 0.5) / side
    found = np.zeros(3)
    seen = 0
    for y in places:
        r = int(np.searchsorted(down, y)) - 1
        if not 0 <= r < len(down) - 1:
            continue
        for x in places:
            c = int(np.searchsorted(across, x)) - 1
            if not 0 <= c < len(across) - 1:
                continue
            seen += 1
            if any(left < x < right and top < y < bottom for left, top, right, bottom in boxes):
                tile = (across[c + 1] - across[c]) * (down[r + 1] - down[r]) * side**2
                found += [track.weights[m, r, c] / tile, 1 / track.weights[0].size / tile, 1]
    return found / [1, 1, seen]


@pytest.mark.parametrize(
    "boxes",
    [
        [(0.2, 0.2, 0.5, 0.5)],
        [(0.15, 0.3, 0.55, 0.6), (0.4, 0.4, 0.7, 0.75)],  # they overlap
        [(0.0, 0.0, 0.3, 0.3)],  # half outside of what was seen
    ],
)
def test_what_lies_in_boxes_is_counted_as_pixel_by_pixel(boxes: list[Box]) -> None:
    inside = UNEVEN.inside_boxes([boxes, boxes])
    for m in range(2):
        wanted = brute_force(UNEVEN, m, boxes)
        assert [inside.mass[m], inside.even[m], inside.area[m]] == pytest.approx(wanted.tolist(), abs=0.004)


def test_boxes_that_cover_all_or_nothing() -> None:
    inside = UNEVEN.inside_boxes([[(0.0, 0.0, 1.0, 1.0)], []])
    assert (inside.mass[0], inside.even[0], inside.area[0]) == pytest.approx((1, 1, 1))
    assert np.isnan([inside.mass[1], inside.even[1], inside.area[1]]).all()
    assert UNEVEN.inside_boxes([[(0.91, 0.0, 1.0, 1.0)]] * 2).mass.tolist() == [0, 0]
    # Of tiles of one size, even attention has in a box the box's share of the area.
    even = EVEN.inside_boxes([[(0.1, 0.2, 0.35, 0.9)]])
    assert (even.mass[0], even.even[0], even.area[0]) == pytest.approx([0.25 * 0.7] * 3)


def test_a_file_keeps_everything(tmp_path: Path) -> None:
    told = replace(UNEVEN, inside=UNEVEN.inside_boxes([[(0.2, 0.2, 0.5, 0.5)], []]))
    path = tmp_path / "explain" / "attention-test.npz"
    AttentionFile(tracks={"a/ü.mp4": told, "b.mp4": EVEN}, meta={"part": "test", "moments": 2}).save(path)
    read = AttentionFile.load(path)
    assert read.meta == {"part": "test", "moments": 2}
    assert list(read.tracks) == ["a/ü.mp4", "b.mp4"]
    again = read.tracks["a/ü.mp4"]
    for name in ("weights", "seconds", "xs", "ys"):
        assert np.array_equal(getattr(again, name), getattr(told, name))
    assert again.seen == told.seen
    assert again.inside is not None
    assert told.inside is not None
    assert np.array_equal(again.inside.mass, told.inside.mass, equal_nan=True)
    assert read.tracks["b.mp4"].inside is None


def test_files_that_are_no_attention_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with pytest.raises(AttentionError, match=r"a\.npz: no such file; make it with: twostream explain RUN"):
        AttentionFile.load(path)
    path.write_text("no archive")
    with pytest.raises(AttentionError, match=r"a\.npz: not a file of attention \(it is no archive of arrays\)"):
        AttentionFile.load(path)
    AttentionFile(tracks={"v": EVEN}).save(path)
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays["xs/0"] = arrays["xs/0"] / 2
    np.savez(path, **arrays)
    with pytest.raises(AttentionError, match=r"a\.npz: damaged, its checksum does not match"):
        AttentionFile.load(path)
    arrays["header"] = np.frombuffer(arrays["header"].tobytes().replace(b"attention-1", b"attention-9"), np.uint8)
    np.savez(path, **arrays)
    with pytest.raises(AttentionError, match=r"of another format \(twostream-attention-9\)"):
        AttentionFile.load(path)
    shutil.copy(path, tmp_path / "file")
    with pytest.raises(OutputError, match="cannot be written"):
        AttentionFile(tracks={}).save(tmp_path / "file" / "a.npz")


def test_colours_mean_multiples_of_the_even_share() -> None:
    assert levels([0, 0.25, 0.5, 1, 2, 4, 49]).tolist() == pytest.approx([-1, -1, -0.5, 0, 0.5, 1, 1])
    shown = key(201, 8)
    assert shown.shape == (8, 201, 3)
    assert np.abs(shown[:, 100].astype(int) - 128).max() <= 1
    less, more = shown[0, 0].astype(int), shown[0, -1].astype(int)
    assert less[2] > less[0] + 50
    assert more[0] > more[2] + 60


def test_even_attention_changes_nothing_and_the_rest_is_coloured_where_it_lies() -> None:
    frame = np.full((90, 120, 3), 128, np.uint8)
    assert np.array_equal(Heat(EVEN, 120, 90).over(frame, 0), frame)
    one = np.zeros((3, 4))
    one[2, 1] = 1
    heat = Heat(track_of(one, np.ones((3, 4))), 120, 90)
    shown = heat.over(frame, 0).astype(int)
    redness = shown[..., 0] - shown[..., 2]
    y, x = np.unravel_index(redness.argmax(), redness.shape)
    assert abs(x - 120 * 1.5 / 4) < 8
    assert y > 70
    # Blue elsewhere, and no edges between.
    assert redness[10, 100] < -50
    assert np.abs(np.diff(redness, axis=1)).max() < 25
    assert np.array_equal(heat.over(frame, 1), frame)
    assert np.array_equal(heat.over(frame, 0), shown.astype(np.uint8))


def test_what_the_network_did_not_see_is_dark() -> None:
    frame = np.full((100, 100, 3), 200, np.uint8)
    shown = Heat(track_of(np.ones((2, 2)), seen=(0.2, 0.1, 0.8, 0.9)), 100, 100).over(frame, 0)
    assert (shown[10:90, 20:80] == 200).all()
    shown[10:90, 20:80] = 70
    assert (shown == 70).all()
