"""One draw for both streams: the same region, the same mirror image, nothing squashed."""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twostream.data.transforms import CROPS, Augment, ClipTransform, covering_crops
from twostream.errors import UsageError

SHARE = 224 / 256


def positions(width: int, height: int, n: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Frames whose red and green, and fields whose v (twice), tell where a pixel stands."""
    x = np.broadcast_to(np.linspace(0, 255, width).astype(np.uint8), (height, width))
    y = np.broadcast_to(np.linspace(0, 255, height).astype(np.uint8)[:, None], (height, width))
    frames = np.stack([np.stack([x, y, np.full_like(x, i)], axis=-1) for i in range(n)])
    fields = np.stack([np.stack([x, y])] * n)
    return frames, fields


@given(
    crop=st.sampled_from(["multi_scale_square", "multi_scale", "random_sides", "random_area", "centre", "none"]),
    corners=st.booleans(),
    width=st.integers(2, 90),
    height=st.integers(2, 90),
    seed=st.integers(0, 99),
)
@settings(max_examples=200, deadline=None)
def test_both_streams_see_the_same_region(crop: Any, corners: bool, width: int, height: int, seed: int) -> None:
    frames, fields = positions(width, height)
    drawn = Augment(crop=crop, corners=corners).draw(np.random.default_rng(seed), width, height, share=SHARE)
    rgb, flow = drawn.frames(frames, (24, 24)), drawn.fields(fields, (24, 24))
    assert rgb.shape == (2, 3, 24, 24)
    assert flow.shape == (2, 2, 24, 24)
    u = 255 - flow[:, 0] if drawn.flip else flow[:, 0]
    # OpenCV rounds interleaved and single planes apart by one grey level at most.
    assert (rgb[:, 0].int() - u.int()).abs().max() <= 1
    assert (rgb[:, 1].int() - flow[:, 1].int()).abs().max() <= 1
    assert (rgb[0, 2] == 0).all()
    assert (rgb[1, 2] == 1).all()
    x0, y0, x1, y1 = drawn.box(width, height)
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height


def test_a_crop_is_the_pixels_it_names() -> None:
    frames, fields = positions(40, 20)
    corner = ClipTransform(left=0.5, top=0.25, width=0.25, height=0.5)
    assert corner.box(40, 20) == (20, 5, 30, 15)
    rgb, flow = corner.frames(frames, (10, 10)), corner.fields(fields, (10, 10))
    assert (rgb.numpy() == frames[:, 5:15, 20:30].transpose(0, 3, 1, 2)).all()
    assert (flow.numpy() == fields[:, :, 5:15, 20:30]).all()
    assert rgb.is_contiguous()
    assert flow.is_contiguous()


def test_the_same_crop_on_grids_of_any_size() -> None:
    drawn = Augment().draw(np.random.default_rng(1), 320, 240, share=SHARE)
    small, large = drawn.box(160, 120), drawn.box(640, 480)
    assert all(abs(b - 4 * a) <= 4 for a, b in zip(small, large, strict=True))


@pytest.mark.parametrize("size", [(8, 8), (32, 32), (16, 16), (20, 6)])
def test_a_flip_mirrors_both_and_turns_u_around(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    fields = rng.integers(0, 256, (3, 2, 16, 16), dtype=np.uint8)
    plain, flipped = ClipTransform(), ClipTransform(flip=True)
    assert (flipped.frames(frames, size) == plain.frames(frames, size).flip(-1)).all()
    flow, mirrored = plain.fields(fields, size), flipped.fields(fields, size)
    assert (mirrored[:, 0] == 255 - flow[:, 0].flip(-1)).all()
    assert (mirrored[:, 1] == flow[:, 1].flip(-1)).all()


def test_flipping_twice_changes_nothing_and_nothing_is_written_over() -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (2, 12, 12, 3), dtype=np.uint8)
    fields = rng.integers(0, 256, (2, 2, 12, 12), dtype=np.uint8)
    kept = frames.copy(), fields.copy()
    flip = ClipTransform(flip=True)
    once = flip.frames(frames, (12, 12)).numpy(), flip.fields(fields, (12, 12)).numpy()
    assert (flip.frames(once[0].transpose(0, 2, 3, 1), (12, 12)).numpy() == frames.transpose(0, 3, 1, 2)).all()
    assert (flip.fields(once[1], (12, 12)).numpy() == fields).all()
    assert (frames == kept[0]).all()
    assert (fields == kept[1]).all()


def test_shrinking_averages_and_enlarging_interpolates() -> None:
    stripes = np.zeros((1, 32, 32, 3), np.uint8)
    stripes[:, :, ::2] = 255
    small = ClipTransform().frames(stripes, (8, 8))
    assert small.unique().tolist() == [128]
    ramp = np.broadcast_to(np.arange(0, 160, 10, dtype=np.uint8), (1, 2, 16, 16)).copy()
    large = ClipTransform().fields(ramp, (32, 32))
    assert (large[0, 0, 0, 1:] >= large[0, 0, 0, :-1]).all()
    assert len(large.unique()) > 16


def test_no_motion_stays_no_motion() -> None:
    still = np.full((1, 2, 30, 40), 128, np.uint8)
    assert ClipTransform(width=0.6, height=0.7).fields(still, (24, 24)).unique().tolist() == [128]


def test_square_crops_are_never_squashed_whatever_the_frame() -> None:
    rng = np.random.default_rng(0)
    for width, height in ((612, 128), (128, 300), (171, 128), (128, 128)):
        for corners in (True, False):
            for _ in range(40):
                x0, y0, x1, y1 = Augment(corners=corners).draw(rng, width, height, share=SHARE).box(width, height)
                assert x1 - x0 == y1 - y0
                assert x1 - x0 in {128, 112, 96, 84}


def test_multi_scale_draws_the_sides_apart() -> None:
    def sides(distort: int) -> set[tuple[int, int]]:
        rng, augment = np.random.default_rng(0), Augment(crop="multi_scale", distort=distort)
        boxes = [augment.draw(rng, 340, 256, share=SHARE).box(340, 256) for _ in range(600)]
        return {(x1 - x0, y1 - y0) for x0, y0, x1, y1 in boxes}

    scales = [256, 224, 192, 169]
    assert sides(0) == {(s, s) for s in scales}
    assert sides(1) == {(a, b) for i, a in enumerate(scales) for j, b in enumerate(scales) if abs(i - j) <= 1}
    assert sides(9) == {(a, b) for a in scales for b in scales}


def test_random_sides_are_those_of_st_resnet() -> None:
    rng = np.random.default_rng(0)
    boxes = [Augment(crop="random_sides").draw(rng, 340, 256, share=SHARE).box(340, 256) for _ in range(2000)]
    w, h = (np.array([b[i + 2] - b[i] for b in boxes]) for i in (0, 1))
    assert (w.min(), w.max()) == (168, 280)
    assert (h.min(), h.max()) == (168, 256)
    assert abs(np.corrcoef(w, h)[0, 1]) < 0.1


def test_random_area_keeps_its_bounds() -> None:
    rng, augment = np.random.default_rng(0), Augment(crop="random_area", area=(0.3, 0.6), aspect=(0.5, 2.0))
    drawn = [augment.draw(rng, 400, 400, share=SHARE) for _ in range(500)]
    areas = [d.width * d.height for d in drawn]
    assert 0.3 <= min(areas) < 0.32
    assert 0.58 < max(areas) <= 0.6
    assert 0.45 < np.mean([d.width > d.height for d in drawn]) < 0.55
    assert all(0.5 <= d.width / d.height <= 2 for d in drawn)


def test_centre_and_none() -> None:
    rng = np.random.default_rng(0)
    assert Augment(crop="centre").draw(rng, 340, 256, share=SHARE).box(340, 256) == (58, 16, 282, 240)
    assert Augment(crop="none").draw(rng, 340, 256, share=SHARE).box(340, 256) == (0, 0, 340, 256)


def places(width: int, height: int, **options: Any) -> Counter[tuple[int, int]]:
    rng, augment = np.random.default_rng(0), Augment(scales=(1.0,), **options)
    return Counter(augment.draw(rng, width, height, share=SHARE).box(width, height)[:2] for _ in range(1000))


def test_corners_are_the_papers_on_usual_frames_and_cover_wide_ones() -> None:
    rng = np.random.default_rng(0)
    boxes = {Augment(scales=(0.875,)).draw(rng, 340, 256, share=SHARE).box(340, 256) for _ in range(200)}
    assert {b[:2] for b in boxes} == {(0, 0), (116, 0), (0, 32), (116, 32), (58, 16)}
    wide = places(612, 128)
    assert {x for x, _ in wide} == {0, 60, 121, 182, 242, 302, 363, 424, 484}
    assert min(wide.values()) > 40
    assert {y for _, y in places(128, 612)} == {x for x, _ in wide}


def test_the_released_codes_crops_lie_near_two_corners() -> None:
    rng = np.random.default_rng(0)
    drawn = [Augment(crop="released_code", flip=0).draw(rng, 340, 256, share=0.875) for _ in range(400)]
    places = np.array([(t.left / (1 - t.width), t.top / (1 - t.height)) for t in drawn if t.height < 0.999])
    top_left, bottom_right = (places <= 0.2501).all(axis=1), (places >= 0.7499).all(axis=1)
    assert (top_left | bottom_right).all()
    assert 0.4 < top_left.mean() < 0.6
    assert {round(float(x) * 76) for x in places[top_left, 0]} == set(range(20))


def test_uniform_places_are_anywhere() -> None:
    anywhere = places(340, 256, corners=False)
    assert {y for _, y in anywhere} == {0}
    assert len({x for x, _ in anywhere}) == 85


def test_flips_follow_their_probability_and_spare_classes_that_a_mirror_would_change() -> None:
    def flips(*, mirror: bool = True, **options: Any) -> list[bool]:
        rng, augment = np.random.default_rng(0), Augment(**options)
        return [augment.draw(rng, 64, 64, share=SHARE, mirror=mirror).flip for _ in range(400)]

    assert 0.45 < np.mean(flips()) < 0.55
    assert not any(flips(flip=0.0))
    assert all(flips(flip=1.0))
    assert not any(flips(flip=1.0, mirror=False))


def test_a_class_that_is_never_flipped_leaves_the_other_draws_alone() -> None:
    augment = Augment(colour=0.3)
    rngs = np.random.default_rng(5), np.random.default_rng(5)
    free = [augment.draw(rngs[0], 100, 80, share=SHARE) for _ in range(20)]
    spared = [augment.draw(rngs[1], 100, 80, share=SHARE, mirror=False) for _ in range(20)]
    assert any(a.flip for a in free)
    assert [(a.left, a.top, a.brightness, a.contrast) for a in free] == [
        (b.left, b.top, b.brightness, b.contrast) for b in spared
    ]


def test_colour_changes_frames_only_and_all_of_a_clip_alike() -> None:
    frames, fields = positions(16, 16, n=3)
    frames[..., 2] = 100
    drawn = Augment(crop="none", flip=0.0, colour=0.5).draw(np.random.default_rng(0), 16, 16, share=SHARE)
    assert 0.5 <= drawn.brightness <= 1.5
    assert 0.5 <= drawn.contrast <= 1.5
    rgb = drawn.frames(frames, (16, 16))
    value = (100 * drawn.brightness - 128) * drawn.contrast + 128
    assert rgb[:, 2].unique().tolist() == [round(value)]
    assert (drawn.fields(fields, (16, 16)).numpy() == fields).all()
    assert Augment().draw(np.random.default_rng(0), 16, 16, share=SHARE).brightness == 1.0


def test_colour_saturates_instead_of_wrapping() -> None:
    frames = np.array([0, 250], np.uint8).reshape(1, 1, 2, 1).repeat(3, axis=3)
    bright = ClipTransform(brightness=1.5, contrast=1.5).frames(frames, (2, 1))
    assert bright[0, 0, 0].tolist() == [0, 255]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": "five"}, r"crop must be one of multi_scale_square, .*none, got 'five'"),
        ({"scales": ()}, r"scales must be one or more shares of the short side"),
        ({"scales": (1.2,)}, r"scales must be .* got \(1\.2,\)"),
        ({"distort": -1}, r"distort must be at least 0"),
        ({"sides": (0.9, 0.5)}, r"sides must be \(lowest, highest\)"),
        ({"area": (0.0, 0.5)}, r"area must be"),
        ({"aspect": (2.0, 1.0)}, r"aspect must be"),
        ({"flip": 2}, r"flip must be a probability from 0 to 1, got 2"),
        ({"colour": -0.1}, r"colour must be a strength from 0 to 1"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Augment(**options)


def boxes(space: Any, width: int, height: int) -> list[tuple[int, int, int, int]]:
    return [crop.box(width, height) for crop in covering_crops(space, width, height, share=SHARE)]


def test_crops_of_the_test_protocols() -> None:
    assert boxes("centre", 340, 256) == [(58, 16, 282, 240)]
    assert boxes("ten", 340, 256) == [
        (0, 0, 224, 224),
        (116, 0, 340, 224),
        (0, 32, 224, 256),
        (116, 32, 340, 256),
        (58, 16, 282, 240),
    ]
    assert boxes("three", 340, 256) == [(0, 0, 256, 256), (42, 0, 298, 256), (84, 0, 340, 256)]
    assert boxes("three", 256, 340) == [(0, 0, 256, 256), (0, 42, 256, 298), (0, 84, 256, 340)]
    assert boxes("whole", 341, 256) == [(0, 0, 341, 256)]
    assert {space: len(names) for space, names in CROPS.items()} == {"centre": 1, "ten": 5, "three": 3, "whole": 1}


def test_speed_stretches_the_flow_and_leaves_no_motion_and_the_frames_alone() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16).repeat(2, axis=1)
    faster = ClipTransform(speed=2.0)
    seen = faster.fields(levels, (16, 16))[0, 0].flatten().tolist()
    assert seen[128] == 128
    assert (seen[138], seen[118], seen[255], seen[0]) == (148, 108, 255, 0)
    frames = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), dtype=np.uint8)
    assert (faster.frames(frames, (16, 16)) == ClipTransform().frames(frames, (16, 16))).all()
    mirrored = ClipTransform(speed=2.0, flip=True).fields(levels, (16, 16))[0, 0].flip(-1).flatten()
    assert mirrored.tolist() == [255 - level for level in seen]


def test_an_erased_rectangle_shows_nothing_in_either_stream() -> None:
    rng = np.random.default_rng(0)
    frames, fields = rng.integers(0, 100, (2, 20, 20, 3), dtype=np.uint8), np.full((2, 2, 20, 20), 200, np.uint8)
    kept = frames.copy(), fields.copy()
    transform = ClipTransform(erased=(0.25, 0.5, 0.75, 1.0))
    for seen in (transform.frames(frames, (20, 20)), transform.fields(fields, (20, 20))):
        nothing = seen == 128
        assert nothing[..., 10:, 5:15].all()
        assert nothing.float().mean() == pytest.approx(0.25)
    assert (frames == kept[0]).all()
    assert (fields == kept[1]).all()


def test_speeds_and_rectangles_are_drawn_within_their_bounds_after_all_else() -> None:
    augment = Augment(speed=0.5, erase=0.5)
    drawn = [augment.draw(np.random.default_rng(k), 160, 128, share=SHARE) for k in range(400)]
    speeds = np.log([t.speed for t in drawn]) / np.log(1.5)
    assert -1 <= speeds.min() < -0.9
    assert 0.9 < speeds.max() <= 1
    erased = [t.erased for t in drawn if t.erased]
    assert 140 < len(erased) < 260
    for left, top, right, bottom in erased:
        assert 0 <= left < right <= 1
        assert 0 <= top < bottom <= 1
        assert (right - left) * (bottom - top) <= 1 / 3 + 1e-9
    # Older draws stay what they were.
    for k, transform in enumerate(drawn[:50]):
        plain = Augment().draw(np.random.default_rng(k), 160, 128, share=SHARE)
        assert replace(transform, speed=1.0, erased=None) == plain


@pytest.mark.parametrize(("name", "value"), [("speed", -0.1), ("erase", 1.5)])
def test_speed_and_erase_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"augmentation: {name} must be"):
        Augment(**{name: value})
