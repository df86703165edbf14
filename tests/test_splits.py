import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twostream.data.items import DataError, VideoItem
from twostream.data.splits import assign_groups, split_by_group, straddling


def items_of(*names: str, groups: str = "") -> list[VideoItem]:
    """Items named CLASS/VIDEO, labelled by class in order of appearance."""
    classes = list(dict.fromkeys(name.split("/")[0] for name in names))
    return [VideoItem(Path(name), name, classes.index(name.split("/")[0]), groups) for name in names]


def grid(classes: int, groups: int, clips: int) -> list[VideoItem]:
    return [
        VideoItem(Path(name), name, label, f"g{group:02d}")
        for label in range(classes)
        for group in range(groups)
        for clip in range(clips)
        for name in [f"{label}/v_g{group:02d}_c{clip:02d}.avi"]
    ]


def test_numbered_groups_are_the_same_in_all_classes() -> None:
    found = assign_groups(items_of("A/v_A_g01_c01.avi", "A/v_A_g1_c02.avi", "B/v_B_g01_c01.avi", "B/v_B_g12.avi"))
    assert found.groups == ("g01", "g01", "g01", "g12")
    assert found.certain == {"g01", "g12"}
    assert found.how == "groups: 2 from _gNN_ in the names"


def test_a_column_comes_before_names() -> None:
    items = [
        VideoItem(Path("a"), "A/v_A_g01_c01.avi", 0, "anna"),
        VideoItem(Path("b"), "A/v_A_g02_c01.avi", 0),
        VideoItem(Path("c"), "A/free.avi", 0),
    ]
    found = assign_groups(items)
    assert found.groups == ("anna", "g02", "A/free.avi")
    assert found.certain == {"anna", "g02"}
    assert found.how == "groups: 1 from the group column, 1 from _gNN_ in the names, 1 of one video each"


@pytest.mark.parametrize(
    ("names", "recordings"),
    [
        (("rec1_003.mp4", "rec1_004.mp4", "rec2_001.mp4"), ("rec1", "rec1", "rec2")),
        (("tom (1).mp4", "tom (2).mp4", "eva (1).mp4"), ("tom", "tom", "eva")),
        (("day1_clip3.mp4", "day1_clip4.mp4", "day2_part1.mp4"), ("day1", "day1", "day2")),
        (("aB-c_000010_000020.mp4", "aB-c_000030_000040.mp4", "x9z_000001_000011.mp4"), ("aB-c", "aB-c", "x9z")),
        (("0007_01.mp4", "0007_02.mp4", "0008_01.mp4"), ("0007", "0007", "0008")),
    ],
)
def test_clips_of_one_recording_are_a_group(names: tuple[str, ...], recordings: tuple[str, ...]) -> None:
    found = assign_groups(items_of(*(f"wave/{name}" for name in names)))
    assert found.groups == recordings
    assert not found.certain
    assert "from recordings that clips with running numbers were cut from" in found.how


def test_the_recording_is_the_same_in_all_classes() -> None:
    # Class jump has one stem only, but wave shows that rec1 is a recording.
    found = assign_groups(items_of("wave/rec1_1.mp4", "wave/rec2_1.mp4", "jump/rec1_2.mp4", "jump/rec1_3.mp4"))
    assert found.groups == ("rec1", "rec2", "rec1", "rec1")


@pytest.mark.parametrize(
    "names",
    [
        ("wave/wave_01.mp4", "wave/wave_02.mp4", "wave/extra.mp4", "jump/jump_01.mp4"),
        ("wave/clip_01.mp4", "wave/clip_02.mp4", "jump/clip_01.mp4", "jump/other.mp4"),
        ("wave/IMG_0412.MOV", "wave/VID_20200101_120000.mp4", "jump/IMG_0413.MOV", "jump/VID_20200102_120000.mp4"),
        ("wave/a_01.mp4", "wave/a_02.mp4", "jump/b_01.mp4", "jump/b_02.mp4"),
        ("wave/2023-05-01 12.30.45.mp4", "wave/2023-05-02 12.30.45.mp4", "jump/x.mp4", "jump/y.mp4"),
        ("wave/1.mp4", "wave/2.mp4", "jump/3.mp4", "jump/rec1.mp4"),
    ],
)
def test_a_number_that_counts_videos_makes_no_group(names: tuple[str, ...]) -> None:
    found = assign_groups(items_of(*names))
    assert found.groups == names
    assert "of one video each" in found.how


def test_it_is_said_when_numbers_are_taken_to_count_videos() -> None:
    found = assign_groups(items_of("wave/a_01.mp4", "wave/a_02.mp4", "jump/b_01.mp4", "jump/b_02.mp4"))
    assert found.how == (
        "groups: 4 of one video each; the numbers after a, b are taken to count videos, not the clips of one recording"
    )


def test_hmdb51_names_give_their_source() -> None:
    names = (
        "brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0.avi",
        "brush_hair/April_09_brush_hair_h_cm_np1_fr_med_1.avi",
        "run/metacafe_coolsoccer_run_f_cm_np10_le_bad_2.avi",
        "walk/April_09_walk_f_cm_np1_le_bad_2.avi",
    )
    found = assign_groups(items_of(*names))
    assert found.groups == ("April_09", "April_09", "metacafe_coolsoccer", "April_09")
    assert found.how == "groups: 2 from the sources in HMDB51 names"


def test_segments_of_a_recording_are_one_group_whatever_the_column_says() -> None:
    def segment(video: str, group: str, start: float) -> VideoItem:
        return VideoItem(Path(video), video, 0, group, start, start + 1)

    found = assign_groups([segment("day_1.mp4", "", 0), segment("day_1.mp4", "", 2), segment("day_2.mp4", "", 0)])
    assert found.groups == ("day_1.mp4", "day_1.mp4", "day_2.mp4")
    assert found.certain == {"day_1.mp4"}
    assert found.how == "groups: 1 from recordings that segments share, 1 of one video each"

    joined = assign_groups(
        [segment("day.mp4", "eva", 0), segment("day.mp4", "anna", 2), segment("x.mp4", "eva", 0), segment("y", "b", 0)]
    )
    assert joined.groups == ("anna", "anna", "anna", "b")
    assert joined.how.endswith("1 of them joined from several, because their segments share a video")


def test_no_items_no_groups() -> None:
    assert assign_groups([]).how == "groups: none"


def test_split_keeps_groups_and_proportions() -> None:
    items = grid(classes=6, groups=20, clips=2)
    kept, held_out, how = split_by_group(items, 0.25, 3)
    assert Counter(item.label for item in held_out) == dict.fromkeys(range(6), 10)
    assert len({item.group for item in held_out}) == 5
    assert not straddling({"kept": kept, "held_out": held_out})
    assert how == "60 of 240 videos (5 of 20 groups) held out, stratified by class, seed 3"


def test_split_does_not_hang_on_the_order_and_does_on_the_seed() -> None:
    items = grid(classes=3, groups=12, clips=1)
    shuffled = items[:]
    random.Random(0).shuffle(shuffled)
    first = {item.name for item in split_by_group(items, 0.3, 0).held_out}
    assert {item.name for item in split_by_group(shuffled, 0.3, 0).held_out} == first
    others = [{item.name for item in split_by_group(items, 0.3, seed).held_out} for seed in range(1, 6)]
    assert any(other != first for other in others)
    assert {item.name for item in split_by_group(items, 0.3, (0, 2)).held_out} != first
    assert split_by_group(items, 0.3, (0, 2)).how.endswith("seed 0.2")


def test_split_keeps_the_order_of_the_items() -> None:
    items = grid(classes=2, groups=9, clips=2)
    kept, held_out, _ = split_by_group(items, 0.3, 0)
    assert list(kept) == [item for item in items if item in kept]
    assert list(held_out) == [item for item in items if item in held_out]


def test_small_classes_give_one_group_where_they_have_two() -> None:
    items = items_of("A/1", "A/2", *(f"B/x{n}" for n in range(20)))
    kept, held_out, _ = split_by_group(items, 0.1, 0)
    assert Counter(item.label for item in held_out) == {0: 1, 1: 2}
    assert Counter(item.label for item in kept) == {0: 1, 1: 18}


def test_a_class_of_one_group_stays_whole_and_it_is_said() -> None:
    items = [*grid(classes=2, groups=4, clips=1), *items_of("only/a", "only/b", groups="solo")]
    items = [*items[:-2], *(VideoItem(i.path, i.video, 7, "solo") for i in items[-2:])]
    kept, held_out, how = split_by_group(items, 0.25, 0)
    assert sum(item.label == 7 for item in kept) == 2
    assert {item.label for item in held_out} == {0, 1}
    assert how.endswith("; 1 class could give no group, so nothing of them is held out")


def test_nothing_to_hold_out_is_refused() -> None:
    with pytest.raises(DataError, match=r"nothing can be held out of 3 videos in 1 group: .*\(groups: solo\).*train/"):
        split_by_group(items_of("A/1", "A/2", "B/1", groups="solo"), 0.25, 0)
    with pytest.raises(DataError, match="2 videos in 2 groups"):
        split_by_group(items_of("A/1", "B/1"), 0.25, 0)
    with pytest.raises(DataError, match="0 videos in 0 groups"):
        split_by_group([], 0.25, 0)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5])
def test_fraction_lies_between_0_and_1(fraction: float) -> None:
    with pytest.raises(DataError, match="between 0 and 1"):
        split_by_group(items_of("A/1", "A/2"), fraction, 0)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 7)), min_size=1, max_size=60),
    st.floats(0.05, 0.6),
    st.integers(0, 3),
)
def test_any_split_is_whole_disjoint_and_leaves_every_class_something(
    pairs: list[tuple[int, int]], fraction: float, seed: int
) -> None:
    items = [VideoItem(Path(str(n)), str(n), label, f"g{group}") for n, (label, group) in enumerate(pairs)]
    of_class: dict[int, set[str]] = {}
    for item in items:
        of_class.setdefault(item.label, set()).add(item.group)
    try:
        kept, held_out, _ = split_by_group(items, fraction, seed)
    except DataError:
        # Right where no group can be spared: each is the whole of some class.
        assert all(any(groups == {group} for groups in of_class.values()) for group in {i.group for i in items})
        return
    assert Counter(kept) + Counter(held_out) == Counter(items)
    assert not {item.group for item in kept} & {item.group for item in held_out}
    assert {item.label for item in kept} == set(of_class)
    assert held_out


def test_many_videos_are_split_quickly() -> None:
    items = [VideoItem(Path("x"), f"{n}.mp4", n % 400, f"{n}") for n in range(20_000)]
    kept, held_out, _ = split_by_group(items, 0.2, 0)
    assert set(Counter(item.label for item in held_out).values()) == {10}
    assert len(kept) == 16_000


def test_straddling_counts_by_part() -> None:
    a, b, c = items_of("A/1", "A/2", "B/3", groups="g")
    alone = VideoItem(Path("z"), "z", 0)
    assert straddling({"train": [a, b, alone], "test": [c]}) == {"g": {"train": 2, "test": 1}}
    assert straddling({"train": [alone], "test": [alone]}) == {"z": {"train": 1, "test": 1}}
