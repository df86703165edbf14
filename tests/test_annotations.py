import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from twostream.data.annotations import Annotations, VideoItem, load_annotations
from twostream.data.items import DataError, NoClassesError, counted, first_few
from twostream.data.splits import split_by_group
from twostream.data.video_files import is_video_name, list_videos, natural_key

DATA = os.environ.get("TWOSTREAM_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="TWOSTREAM_DATA does not name the folder of real videos")


def touch(root: Path, *names: str) -> Path:
    """Empty files, folders made on the way: annotations never open a video."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def names(data: Annotations, part: str) -> list[str]:
    return [item.name for item in data.parts[part]]


def refuses(data: Path, *said: str, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        load_annotations(data, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    for words in said:
        assert words in message
    return message


# --- names ----------------------------------------------------------------------------------------


def test_items_are_named_by_video_and_stretch() -> None:
    path = Path("a")
    assert VideoItem(path, "d/a.mp4", 0).name == "d/a.mp4"
    assert VideoItem(path, "a.mp4", 0, start=12.5, end=36000.25).name == "a.mp4@12.5-36000.25"
    assert VideoItem(path, "a.mp4", 0, start=3).name == "a.mp4@3-"
    assert VideoItem(path, "a.mp4", 0, end=10).name == "a.mp4@-10"


def test_first_few_counts_the_rest() -> None:
    assert first_few(["a", "b"]) == "a, b"
    assert first_few([str(n) for n in range(1007)], 2) == "0, 1 and 1,005 more"


def test_counts_agree_with_their_noun() -> None:
    assert [counted(n, "video") for n in (0, 1, 2000)] == ["0 videos", "1 video", "2,000 videos"]


def test_natural_order() -> None:
    assert sorted(["clip10", "Clip2", "clip2", "clip1", "²"], key=natural_key) == [
        "clip1",
        "Clip2",
        "clip2",
        "clip10",
        "²",
    ]


def test_videos_are_known_by_their_ending() -> None:
    assert is_video_name("a.AVI")
    assert is_video_name("-o.gif")
    assert not is_video_name("._a.avi")
    assert not is_video_name("a.jpg")
    assert not is_video_name("avi")


def test_videos_are_listed_through_links_without_going_round(tmp_path: Path) -> None:
    touch(tmp_path, "d/a10.avi", "d/a9.avi", "d/.hidden.avi", ".git/x.avi", "d/notes.txt", "elsewhere/b.mp4")
    (tmp_path / "d/linked.avi").symlink_to(tmp_path / "elsewhere/b.mp4")
    (tmp_path / "d/dangling.avi").symlink_to(tmp_path / "nowhere.avi")
    (tmp_path / "d/round").symlink_to(tmp_path / "d")
    assert list_videos(tmp_path / "d") == ["a9.avi", "a10.avi", "dangling.avi", "linked.avi"]
    with pytest.raises(DataError, match=r"a9\.avi: cannot be read"):
        list_videos(tmp_path / "d/a9.avi")


# --- a folder per class ---------------------------------------------------------------------------


def test_class_folders_are_split_by_group(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{c}/{person}_{n}.mp4" for c in ("wave", "jump10", "jump9") for person in "abcd" for n in "12"))
    data = load_annotations(tmp_path)
    assert data.kind == "folder per class"
    assert data.classes == ("jump9", "jump10", "wave")
    assert data.root == tmp_path
    assert {part: data.counts(part) for part in data.parts} == {"train": (6, 6, 6), "val": (0, 0, 0), "test": (2, 2, 2)}
    assert len({item.group for item in data.parts["test"]}) == 1
    assert data.notes == (
        "groups: 4 from recordings that clips with running numbers were cut from",
        "no test part is named: 6 of 24 videos (1 of 4 groups) held out, stratified by class, seed 0.1",
    )
    assert not data.problems()
    assert all(item.path == tmp_path / item.video for item in data.items())
    assert load_annotations(tmp_path) == data
    draws = {tuple(names(load_annotations(tmp_path, split=n), "test")) for n in range(1, 6)}
    draws |= {tuple(names(load_annotations(tmp_path, seed=n), "test")) for n in range(1, 6)}
    assert len(draws) > 1
    assert len(load_annotations(tmp_path, test_fraction=0.5).parts["test"]) == 12


def test_class_folders_in_parts_with_other_words(tmp_path: Path) -> None:
    touch(tmp_path, "Training/a/1.mp4", "Training/b/sub/2.mp4", "validation/a/3.mp4", "test/b/4.mp4", "test/stray.mp4")
    data = load_annotations(tmp_path)
    assert data.kind == "folder per class in parts"
    assert names(data, "train") == ["Training/a/1.mp4", "Training/b/sub/2.mp4"]
    assert names(data, "val") == ["validation/a/3.mp4"]
    assert names(data, "test") == ["test/b/4.mp4"]
    assert data.notes[0] == "parts by folder: Training/ is train, validation/ is val, test/ is test"
    assert data.notes[1] == "left out, being in no class folder: 1 video: test/stray.mp4"
    assert "no val videos of class b" in data.problems()
    data.require_trainable()


def test_val_without_test_keeps_val_and_holds_a_test_part_out(tmp_path: Path) -> None:
    touch(tmp_path, *(f"train/{c}/x{n}.mp4" for c in "ab" for n in range(8)), "val/a/v.mp4", "val/b/v2.mp4")
    data = load_annotations(tmp_path, split=2)
    assert names(data, "val") == ["val/a/v.mp4", "val/b/v2.mp4"]
    assert data.counts("train") == (6, 6)
    assert data.counts("test") == (2, 2)
    assert data.listed == {"train": (6, 6), "val": (1, 1), "test": (2, 2)}
    assert "no test part is named" in data.notes[-1]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{c}/x{n}.mp4" for c in ("train", "car") for n in range(4)))
    assert load_annotations(tmp_path).classes == ("car", "train")


def test_one_folder_around_all_classes_is_entered(tmp_path: Path) -> None:
    touch(tmp_path, *(f"UCF-101/{c}/x{n}.mp4" for c in "ab" for n in range(4)), "annotations/readme.txt")
    data = load_annotations(tmp_path)
    assert data.root == tmp_path / "UCF-101"
    assert data.classes == ("a", "b")
    assert f"videos under {tmp_path / 'UCF-101'}" in data.describe()


def test_folders_of_documents_and_loose_videos_are_passed_over_and_named(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{c}/x{n}.mp4" for c in "ab" for n in range(4)), "lists/x.txt", "loose.mp4")
    data = load_annotations(tmp_path)
    assert data.classes == ("a", "b")
    assert data.notes[:2] == (
        "left out, being in no class folder: 1 video: loose.mp4",
        "folders without videos passed over: lists",
    )


@pytest.mark.parametrize("inside", [(), ("frame_1.jpg",)])
def test_an_empty_class_is_a_problem_and_is_not_trained(tmp_path: Path, inside: tuple[str, ...]) -> None:
    touch(tmp_path, *(f"{c}/x{n}.mp4" for c in "ab" for n in range(4)))
    (tmp_path / "empty").mkdir()
    touch(tmp_path / "empty", *inside)
    data = load_annotations(tmp_path)
    assert data.classes == ("a", "b", "empty")
    assert data.problems() == ["class empty has no videos"]
    with pytest.raises(DataError, match=r"no training videos of class empty; .*an empty folder counts as a class"):
        data.require_trainable()


def test_one_class_only_is_a_problem_and_is_not_trained(tmp_path: Path) -> None:
    data = load_annotations(touch(tmp_path, *(f"wave/x{n}.mp4" for n in range(4))))
    assert data.problems() == ["there is one class only (wave); telling actions apart needs two"]
    with pytest.raises(DataError, match=r"one class only \(wave\); add a folder or a label"):
        data.require_trainable()


def test_imbalance_is_reported_by_a_stated_rule(tmp_path: Path) -> None:
    touch(tmp_path, *(f"train/a/{n}.mp4" for n in range(7)), "train/b/1.mp4", "train/b/2.mp4", "test/a/x.mp4")
    data = load_annotations(touch(tmp_path, "test/b/y.mp4"))
    assert data.problems() == [
        "class imbalance: 7 training videos of a but 2 of b (more than 3 times as many is reported); "
        "judge by mean class accuracy"
    ]
    touch(tmp_path, "train/b/3.mp4")
    assert not load_annotations(tmp_path).problems()


def test_classes_that_differ_in_capitals_are_reported(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{c}/x{n}.mp4" for c in ("Wave", "wave") for n in range(4)))
    assert load_annotations(tmp_path).warnings == ("classes that differ only in capitals: Wave, wave",)


def test_folders_that_cannot_be_a_data_set(tmp_path: Path) -> None:
    refuses(tmp_path / "none", "no such file or folder")
    refuses(touch(tmp_path / "flat", "a.mp4", "b.mp4").joinpath("a.mp4"), "is a video; a data set is")
    with pytest.raises(NoClassesError, match=r"2 videos in no class folder \(first a\.mp4\); wanted CLASS/"):
        load_annotations(tmp_path / "flat")
    touch(tmp_path, "void/.x.avi")
    refuses(tmp_path / "void", "there are no videos (it holds no files)", ".avi")
    refuses(touch(tmp_path / "texts", "a/x.txt", "a/README"), "its files: 1 .txt, 1 without ending")
    refuses(touch(tmp_path / "frames", "a/1/img_1.jpg"), "pictures but no videos", "ffmpeg -framerate")
    refuses(touch(tmp_path / "bare", "train/1.mp4", "test/2.mp4"), "hold videos but no class folders", "test/CLASS/")
    refuses(touch(tmp_path / "mixed", "train/a/1.mp4", "more/2.mp4"), "train would be the parts", "videos in more")
    refuses(touch(tmp_path / "twice", "val/a/1.mp4", "valid/a/2.mp4"), "val, valid both mean the val part")
    refuses(touch(tmp_path / "one", "a/1.mp4", "b/2.mp4"), "nothing can be held out of 2 videos in 2 groups")
    refuses(tmp_path / "one", "has no lists or label sheet, so --videos", videos=tmp_path)
    refuses(tmp_path / "one", "nowhere: no such folder of videos", videos=tmp_path / "nowhere")
    refuses(write(tmp_path / "data.bin", "x"), "neither a folder nor a .csv or .txt list")


# --- leaks ----------------------------------------------------------------------------------------


def test_a_numbered_group_on_both_sides_is_refused_unless_asked_for(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/v_a_g01_c01.avi", "train/b/v_b_g02_c01.avi", "test/b/v_b_g01_c02.avi")
    touch(tmp_path, "test/a/v_a_g03_c01.avi")
    refuses(tmp_path, "the split leaks: 1 group ", "g01 (1 in train, 1 in test)", "--allow-leak")
    data = load_annotations(tmp_path, allow_leak=True)
    assert data.warnings == ("on both sides of the split: 1 group: g01 (1 in train, 1 in test)",)
    assert data.problems() == list(data.warnings)
    assert "warning: on both sides of the split: 1 group" in data.describe()


def test_groups_read_from_names_are_only_reported(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/rec1_1.avi", "train/b/rec2_1.avi", "test/b/rec1_2.avi", "test/a/rec3_1.avi")
    assert load_annotations(tmp_path).warnings == (
        "on both sides of the split, if the names tell right: 1 group: rec1 (1 in train, 1 in test)",
    )


def test_column_groups_and_one_recording_on_both_sides_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "1.mp4", "2.mp4", "3.mp4", "4.mp4")
    by_group = write(
        tmp_path / "g.csv", "path,label,group,split\n1.mp4,a,x,train\n2.mp4,b,y,train\n3.mp4,a,x,test\n4.mp4,b,z,test\n"
    )
    refuses(by_group, "the split leaks: 1 group ", "x (1 in train, 1 in test)")
    stretches = "path,label,start,end,split\n1.mp4,a,0,1,train\n1.mp4,b,1,2,test\n2.mp4,b,,,train\n3.mp4,a,,,test\n"
    refuses(write(tmp_path / "r.csv", stretches), "1.mp4 (1 in train, 1 in test)")
    twice = write(tmp_path / "t.csv", "path,label,split\n1.mp4,a,train\n2.mp4,b,train\n1.mp4,a,test\n3.mp4,b,test\n")
    refuses(twice, "1.mp4 (1 in train, 1 in test)")
    assert names(load_annotations(twice, allow_leak=True), "test") == ["1.mp4", "3.mp4"]


# --- UCF101 lists ---------------------------------------------------------------------------------


def ucf(root: Path, lists: str = "splits", videos: str = "videos") -> Path:
    touch(root / videos, *(f"{c}/v_{c}_g0{g}_c01.avi" for c in ("Wave", "JumpUp") for g in (1, 2, 3)))
    write(root / lists / "classInd.txt", b"\xef\xbb\xbf1 Wave\r\n2 JumpUp \r\n\r\n")
    train = "".join(f"{c}/v_{c}_g0{g}_c01.avi {n}\r\n" for n, c in ((1, "Wave"), (2, "JumpUp")) for g in (1, 2))
    write(root / lists / "trainlist01.txt", train)
    write(root / lists / "testlist01.txt", "Wave/v_Wave_g03_c01.avi\n JumpUp\\v_JumpUp_g03_c01.avi  \n")
    return root


@pytest.mark.parametrize(
    ("lists", "videos"), [("splits", "videos"), ("ucfTrainTestlist", "UCF-101/UCF-101"), (".", "."), ("a", ".")]
)
def test_ucf101_lists_and_their_videos_are_found_wherever_they_lie(tmp_path: Path, lists: str, videos: str) -> None:
    data = load_annotations(ucf(tmp_path, lists, videos))
    assert data.kind == "UCF101 lists"
    assert data.classes == ("Wave", "JumpUp")
    assert data.root == tmp_path / videos
    assert [item.label for item in data.parts["train"]] == [0, 0, 1, 1]
    assert names(data, "test") == ["Wave/v_Wave_g03_c01.avi", "JumpUp/v_JumpUp_g03_c01.avi"]
    assert all(item.path.is_file() for item in data.items())
    assert data.notes == ("class numbers begin at 1 (classInd.txt)", "groups: 3 from _gNN_ in the names")
    assert data.split == "1"
    assert not data.problems()
    data.require_trainable()


def test_ucf101_videos_elsewhere(tmp_path: Path) -> None:
    ucf(tmp_path, "splits", "../else/videos")
    said = refuses(tmp_path, "none of the 6 videos", "--videos FOLDER")
    assert "--allow-missing" not in said
    data = load_annotations(tmp_path, videos=tmp_path.parent / "else")
    assert data.root == tmp_path.parent / "else/videos"
    assert len(data.items()) == 6


def test_reencoded_videos_are_found_by_their_stem(tmp_path: Path) -> None:
    ucf(tmp_path)
    for video in list((tmp_path / "videos").rglob("*.avi")):
        video.rename(video.with_suffix(".MP4"))
    data = load_annotations(tmp_path)
    assert names(data, "test") == ["Wave/v_Wave_g03_c01.MP4", "JumpUp/v_JumpUp_g03_c01.MP4"]
    assert data.notes[1].startswith("with another ending than listed: 6 videos (first Wave/v_Wave_g01_c01.avi: ")
    touch(tmp_path, "videos/Wave/v_Wave_g01_c01.webm")
    refuses(tmp_path, "Wave/v_Wave_g01_c01.avi is not there, and Wave/v_Wave_g01_c01.MP4, Wave/v_Wave_g01_c01.webm")


def test_missing_videos_are_refused_or_reported(tmp_path: Path) -> None:
    ucf(tmp_path)
    for name in ("Wave/v_Wave_g01_c01.avi", "Wave/v_Wave_g02_c01.avi"):
        (tmp_path / "videos" / name).unlink()
    refuses(tmp_path, "2 of the 6 videos", "Wave/v_Wave_g01_c01.avi, Wave/v_Wave_g02_c01.avi", "--allow-missing")
    data = load_annotations(tmp_path, allow_missing=True)
    assert data.missing == ("Wave/v_Wave_g01_c01.avi", "Wave/v_Wave_g02_c01.avi")
    assert data.listed == {"train": (2, 2), "val": (0, 0), "test": (1, 1)}
    assert data.counts("train") == (0, 2)
    assert data.problems()[0].startswith(f"not under {tmp_path / 'videos'}: 2 listed videos: Wave/")
    assert "listed: 4 train, 2 test; missing 2: Wave/v_Wave_g01_c01.avi" in data.describe()
    # The class has listed training videos, and going on without them was asked for.
    data.require_trainable()
    (tmp_path / "videos/JumpUp/v_JumpUp_g01_c01.avi").unlink()
    (tmp_path / "videos/JumpUp/v_JumpUp_g02_c01.avi").unlink()
    with pytest.raises(DataError, match="no training videos; all 4 listed ones are missing under"):
        load_annotations(tmp_path, allow_missing=True).require_trainable()


def test_ucf101_label_base_and_optional_lists(tmp_path: Path) -> None:
    ucf(tmp_path)
    write(tmp_path / "splits/classInd.txt", "0 Wave\n1 JumpUp\n")
    train = "Wave/v_Wave_g01_c01.avi 0\nJumpUp/v_JumpUp_g01_c01.avi\n"
    write(tmp_path / "splits/trainlist01.txt", train)
    write(tmp_path / "splits/vallist01.txt", "Wave/v_Wave_g02_c01.avi\n")
    data = load_annotations(tmp_path, split="01")
    assert [item.label for item in data.parts["train"]] == [0, 1]
    assert names(data, "val") == ["Wave/v_Wave_g02_c01.avi"]
    assert data.notes[0] == "class numbers begin at 0 (classInd.txt)"
    refuses(tmp_path, "label_base=1 is for CSV and text lists", label_base=1)


def test_ucf101_without_a_test_list_holds_one_out(tmp_path: Path) -> None:
    ucf(tmp_path)
    (tmp_path / "splits/testlist01.txt").unlink()
    data = load_annotations(tmp_path)
    assert data.counts("train") == data.counts("test") == (1, 1)
    assert data.listed["train"] == data.listed["test"] == (1, 1)


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("classInd.txt", None, "no classInd.txt beside them"),
        ("classInd.txt", "", "is empty; it names the classes"),
        ("classInd.txt", "Wave\nJumpUp\n", "classInd.txt:1: wanted 'number name'"),
        ("classInd.txt", "1 Wave\n4 JumpUp\n", "run from 1 to 4 but 2, 3 are missing"),
        ("classInd.txt", "1 Wave\n3 JumpUp\n", "run from 1 to 3 but 2 is missing"),
        (
            "classInd.txt",
            "1 Wave\n1 JumpUp\n",
            "classInd.txt:2: '1 JumpUp' names a class number or a class for the sec",
        ),
        ("classInd.txt", "1 Wave\n2 Jump/Up\n", "'Jump/Up' cannot be a class name"),
        ("trainlist01.txt", "Wave/x.avi 3\n", "trainlist01.txt:1: label 3 is out of range; classInd.txt has 1 to 2"),
        (
            "trainlist01.txt",
            "\nWave/x.avi 2\n",
            "trainlist01.txt:2: 'Wave/x.avi 2' says class 2, but its folder is cla",
        ),
        ("testlist01.txt", "x.avi\n", "testlist01.txt:1: 'x.avi' has no label, and its folder is none of the classes"),
    ],
)
def test_ucf101_lists_that_do_not_fit(tmp_path: Path, file: str, text: str | None, said: str) -> None:
    ucf(tmp_path)
    if text is None:
        (tmp_path / "splits" / file).unlink()
    else:
        write(tmp_path / "splits" / file, text)
    if text == "1 Wave\n2 Jump/Up\n":
        write(tmp_path / "splits/trainlist01.txt", "Wave/v_Wave_g01_c01.avi 1\n")
        write(tmp_path / "splits/testlist01.txt", "")
    refuses(tmp_path, said)


def test_splits_that_are_not_there(tmp_path: Path) -> None:
    ucf(tmp_path)
    refuses(tmp_path, "there is no split 4; the lists are for split 1", split=4)
    refuses(tmp_path, "split is a number from 1 on, or leave-03-of-01-10", "got 'one'", split="one")
    refuses(tmp_path, "split is a number from 1 on", "got 0", split=0)
    refuses(tmp_path / "splits/trainlist01.txt", "is one of several lists that go together")
    touch(tmp_path, "other/trainlist01.txt")
    refuses(tmp_path, "more than one set of lists: UCF101 lists in", "UCF101 lists in", "--videos")


# --- HMDB51 lists ---------------------------------------------------------------------------------


def hmdb(root: Path) -> Path:
    odd = "Ok!_it's_[NEW]_#1_&_(2)_wave_u_nm_np1_fr_goo_0.avi"
    write(root / "splits/wave_test_split1.txt", f"{odd} 1 \na b_wave_u_nm_np1_fr_goo_1.avi 2\nc.avi 0\n")
    write(root / "splits/brush_hair_test_split1.txt", "x_brush_hair_u_nm_np1_ba_goo_0.avi 1\nh.avi 2 \n")
    touch(root / "hmdb51_org", f"wave/{odd}", "wave/a b_wave_u_nm_np1_fr_goo_1.avi", "wave/c.avi", "brush_hair/h.avi")
    touch(root / "hmdb51_org", "brush_hair/x_brush_hair_u_nm_np1_ba_goo_0.avi")
    return root


def test_hmdb51_lists(tmp_path: Path) -> None:
    hmdb(tmp_path)
    data = load_annotations(tmp_path)
    assert data.kind == "HMDB51 lists"
    assert data.classes == ("brush_hair", "wave")
    assert data.root == tmp_path / "hmdb51_org"
    assert [(item.label, item.group) for item in data.parts["train"]] == [(0, "x"), (1, "Ok!_it's_[NEW]_#1_&_(2)")]
    assert names(data, "test") == ["brush_hair/h.avi", "wave/a b_wave_u_nm_np1_fr_goo_1.avi"]
    assert data.notes[0] == "in neither part of this split: 1 listed video"


def test_hmdb51_groups_on_both_sides_are_reported_and_not_refused(tmp_path: Path) -> None:
    hmdb(tmp_path)
    write(tmp_path / "splits/wave_test_split1.txt", "x_wave_u_nm_np1_ba_goo_0.avi 2\nc.avi 1\n")
    touch(tmp_path, "hmdb51_org/wave/x_wave_u_nm_np1_ba_goo_0.avi")
    assert load_annotations(tmp_path).warnings == (
        "on both sides of the split as published: 1 group: x (1 in train, 1 in test)",
    )


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        (
            "wave_test_split1.txt",
            "a.avi 3\n",
            "wave_test_split1.txt:1: wanted 'video.avi 1' with 1 for train, 2 for te",
        ),
        ("wave_test_split1.txt", "a.avi\n", "wave_test_split1.txt:1: wanted"),
        ("jump_test_split2.txt", "a.avi 1\n", "other splits name more classes; missing for this one: jump_test_split1"),
        ("trainlist01.txt", "", "more than one set of lists: UCF101 lists in"),
    ],
)
def test_hmdb51_lists_that_do_not_fit(tmp_path: Path, file: str, text: str, said: str) -> None:
    hmdb(tmp_path)
    write(tmp_path / "splits" / file, text)
    refuses(tmp_path, said)


def test_hmdb51_split_that_is_not_there(tmp_path: Path) -> None:
    refuses(hmdb(tmp_path), "there is no split 2; the lists are for split 1", split=2)


# --- CSV ------------------------------------------------------------------------------------------


def test_csv_of_long_recordings(tmp_path: Path) -> None:
    touch(tmp_path, "rec/day 1.mp4", "rec/day2.mp4", "rec/day3.mp4")
    sheet = write(
        tmp_path / "labels.csv",
        "\ufeffPath, Label ,start,end,person\r\n"
        "rec/day 1.mp4,wave,0:01.5,3,x\r\n"
        "rec\\day 1.mp4,jump,1:02:03,\r\n"
        "\r\n"
        './rec/day2.mp4,"jump",,7.25,\r\n'
        "rec/day2.mp4,wave,8,9\r\n"
        "rec/day3.mp4,wave,8,9\r\n"
        "rec/day3.mp4,jump,9,12\r\n",
    )
    for data in (load_annotations(sheet), load_annotations(tmp_path)):
        assert data.kind == "CSV"
        assert data.classes == ("jump", "wave")
        assert data.root == tmp_path
        assert {item.name: item.label for item in data.items()} == {
            "rec/day 1.mp4@1.5-3": 1,
            "rec/day 1.mp4@3723-": 0,
            "rec/day2.mp4@-7.25": 0,
            "rec/day2.mp4@8-9": 1,
            "rec/day3.mp4@8-9": 1,
            "rec/day3.mp4@9-12": 0,
        }
        assert data.counts("test") == (1, 1)
        assert len({item.group for item in data.parts["test"]}) == 1
        assert "columns of labels.csv that are not used: person" in data.notes
        assert "groups: 3 from recordings that segments share" in data.notes


def test_csv_with_groups_and_splits(tmp_path: Path) -> None:
    touch(tmp_path, "1.mp4", "2.mp4", "3.mp4", "4.mp4")
    sheet = write(
        tmp_path / "s.csv",
        "group;split;label;path\nanna;Training;a;1.mp4\neva;val;a;2.mp4\ntom;TEST;b;3.mp4\nanna;train;b;4.mp4\n",
    )
    data = load_annotations(sheet)
    assert {part: names(data, part) for part in data.parts} == {
        "train": ["1.mp4", "4.mp4"],
        "val": ["2.mp4"],
        "test": ["3.mp4"],
    }
    assert [item.group for item in data.items()] == ["anna", "anna", "eva", "tom"]
    assert "groups: 3 from the group column" in data.notes
    refuses(sheet, "names its own test part, so there is only split 1, not 2", split=2)


def test_csv_in_other_encodings(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{n}.mp4" for n in range(4)))
    text = "path\tlabel\n" + "".join(f"{n}.mp4\t{'grüßen' if n % 2 else 'gehen'}\n" for n in range(4))
    for encoding, note in (
        ("utf-8-sig", None),
        ("latin-1", "l.csv is not UTF-8 and was read as Latin-1"),
        ("utf-16", "l.csv was read as UTF-16"),
    ):
        data = load_annotations(write(tmp_path / "l.csv", text.encode(encoding)))
        assert data.classes == ("gehen", "grüßen")
        assert note is None or data.notes[0] == note


def test_csv_files_by_part(tmp_path: Path) -> None:
    touch(tmp_path, *(f"videos/{n}.mp4" for n in range(4)))
    write(tmp_path / "train.csv", "path,label\n0.mp4,b\n1.mp4,a\n")
    write(tmp_path / "my-test.csv", "path,label,split\n2.mp4,a,whatever\n3.mp4,b,\n")
    data = load_annotations(tmp_path)
    assert data.kind == "CSV files"
    assert names(data, "train") == ["0.mp4", "1.mp4"]
    assert [item.label for item in data.parts["test"]] == [0, 1]
    write(tmp_path / "more.csv", "path,label\n0.mp4,b\n")
    refuses(tmp_path, "more than one set of lists: more.csv in", "my-test.csv in", "train.csv in")


def test_csv_paths_outside_its_folder_share_a_root(tmp_path: Path) -> None:
    touch(tmp_path, *(f"v/{n}.mp4" for n in range(3)), "w/3.mp4")
    sheet = write(tmp_path / "sheets/l.csv", "path,label\n" + "".join(f"../v/{n}.mp4,{n % 2}\n" for n in range(3)))
    with sheet.open("a") as file:
        file.write(f"{tmp_path / 'w/3.mp4'},1\n")
    data = load_annotations(sheet)
    assert data.root == tmp_path
    assert sorted(names(data, "train") + names(data, "test")) == ["v/0.mp4", "v/1.mp4", "v/2.mp4", "w/3.mp4"]
    inner = write(tmp_path / "v/l.csv", f"path,label\n0.mp4,a\n1.mp4,b\n2.mp4,b\n{tmp_path / 'w/3.mp4'},a\n")
    assert load_annotations(inner).root == tmp_path


def test_videos_on_several_drives_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "v/a.mp4", "w/b.mp4")
    sheet = write(tmp_path / "v/l.csv", f"path,label\na.mp4,a\n{tmp_path / 'w/b.mp4'},b\n")

    def on_windows(_: object) -> str:
        raise ValueError("Paths don't have the same drive")

    monkeypatch.setattr(os.path, "commonpath", on_windows)
    refuses(sheet, "the videos lie on several drives (", "put them under one folder")


def test_the_search_passes_over_folders_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ucf(tmp_path)
    (tmp_path / "private").mkdir()
    scan = os.scandir

    def deny(folder: Path) -> object:
        if Path(folder).name == "private":
            raise PermissionError(13, "Permission denied")
        return scan(folder)

    sheet = write(tmp_path / "l.csv", "path,label\nv_Wave_g01_c01,a\nv_Wave_g02_c01,a\n")
    monkeypatch.setattr(os, "scandir", deny)
    assert load_annotations(sheet).root == tmp_path / "videos/Wave"
    with pytest.raises(DataError, match="private: cannot be read"):
        list_videos(tmp_path)


def test_file_names_that_are_not_text_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{c}/x{n}.mp4" for c in "ab" for n in range(3)), os.fsdecode(b"a/caf\xe9.mp4"))
    refuses(tmp_path, "'a/caf\\udce9.mp4' is not a UTF-8 file name; rename it")


def test_names_that_look_like_protocols_and_options_are_names(tmp_path: Path) -> None:
    odd = ("-rf.mp4", "concat:a|b.mp4", "http:/x/y.mp4", "img%03d.mp4", "~.mp4", "* ?.mp4")
    touch(tmp_path, *odd)
    sheet = write(tmp_path / "l.csv", "path,label\n" + "".join(f"{name},{'ab'[n % 2]}\n" for n, name in enumerate(odd)))
    assert {item.video for item in load_annotations(sheet).items()} == set(odd)


def test_repeated_rows_count_once_and_contradictions_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{n}.mp4" for n in range(4)))
    rows = "path,label\n0.mp4,a\n1.mp4,b\n0.mp4,a\n2.mp4,a\n3.mp4,b\n"
    data = load_annotations(write(tmp_path / "l.csv", rows))
    assert len(data.items()) == 4
    assert data.notes[0] == "listed more than once, and counted once: 0.mp4"
    both = write(tmp_path / "m.csv", rows + "0.mp4,b\n")
    refuses(both, "0.mp4 is listed twice with different labels: a (", "m.csv:2) and b (", "m.csv:7)")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "file,class\nx,y\n",
            "wanted a header with the columns path,label and optionally start,end,group,split; got f",
        ),
        ("", "got an empty file"),
        ("path,label,path\nx,y,z\n", "the header has path more than once"),
        ("path,label\n", "has a header but no rows"),
        ("path,label\na.mp4,x,y\n", "l.csv:2: 3 cells under 2 columns; put names that hold the separator in quotes"),
        ("path,label\na.mp4\n", "l.csv:2: the label is empty"),
        ("path,label\n ,a\n", "l.csv:2: the path is empty"),
        ("path,label,start\na.mp4,a,soon\n", "l.csv:2: the start is 'soon'; wanted seconds (7.5), mm:ss (1:07.5) or h"),
        ("path,label,end\na.mp4,a,-1\n", "l.csv:2: the end is '-1'"),
        ("path,label,start,end\na.mp4,a,2,1:0\na.mp4,a,2,2\n", "l.csv:3: the end (2 s) does not come after the start"),
        ("path,label,split\na.mp4,a,\n", "l.csv:2: the split is ''; wanted one of: train = training; val = valid"),
        ("path,label\na.mp4,a/b\n", "'a/b' cannot be a class name"),
        ("path,label\na.mp4,..\n", "'..' cannot be a class name"),
        ('path,label\na.mp4,"a\nb"\n', r"'a\nb' cannot be a class name"),
        ("path,label\na.mp4," + "x" * 200_000 + "\n", "l.csv:2: not CSV (field larger than field limit"),
    ],
)
def test_csv_that_does_not_fit(tmp_path: Path, text: str, said: str) -> None:
    touch(tmp_path, "a.mp4")
    refuses(write(tmp_path / "l.csv", text), said)


def test_a_wrong_csv_in_a_folder_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    write(tmp_path / "labels.csv", "video,class\na.mp4,x\n")
    refuses(tmp_path, "2 videos in no class folder", "labels.csv (its columns: video,class)")
    touch(tmp_path / "classes", *(f"{c}/{n}.mp4" for c in "ab" for n in range(3)))
    write(tmp_path / "classes/manifest.csv", "video,cls\n")
    note = "not read, because a label sheet has the columns path and label: manifest.csv (its columns: video,cls)"
    assert load_annotations(tmp_path / "classes").notes[0] == note


def test_a_list_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sheet = write(tmp_path / "l.csv", "path,label\n")

    def deny(*_: object) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", deny)
    refuses(sheet, "l.csv: cannot be read (Permission denied)")
    monkeypatch.setattr(os, "scandir", deny)
    refuses(tmp_path, f"{tmp_path}: cannot be read (Permission denied)")


# --- whole-number labels --------------------------------------------------------------------------


def numbered(root: Path, labels: list[int], folders: bool = False) -> Path:
    lines = []
    for n, label in enumerate(labels):
        name = f"{'abcdefg'[label]}/{n}.mp4" if folders else f"{n}.mp4"
        touch(root, name)
        lines.append(f"{name},{label}\n")
    return write(root / "l.csv", "path,label\n" + "".join(lines))


def test_labels_may_begin_at_0_or_1(tmp_path: Path) -> None:
    zero = load_annotations(numbered(tmp_path / "0", [0, 1, 0, 1]))
    assert zero.classes == ("0", "1")
    assert zero.notes[:2] == ("labels are whole numbers from 0", "class names are the numbers")
    one = load_annotations(numbered(tmp_path / "1", [1, 2, 1, 2]))
    assert one.classes == ("1", "2")
    assert {item.label for item in one.items()} == {0, 1}
    assert one.notes[0] == "labels are whole numbers from 1"


def test_labels_that_begin_elsewhere_or_jump_are_refused(tmp_path: Path) -> None:
    refuses(numbered(tmp_path / "2", [2, 3, 2, 3]), "the lowest label is 2; whole-number labels begin at 0 or 1")
    gap = numbered(tmp_path / "gap", [1, 2, 5, 1, 2, 5])
    refuses(gap, "run from 1 to 5 but nothing has the labels 3, 4", "classes.txt")
    refuses(numbered(tmp_path / "g", [0, 2, 0, 2]), "nothing has the label 1;")
    refuses(gap, "label_base is 'auto', 0 or 1, got 2", label_base=2)
    refuses(gap, "nothing has the labels 0, 3, 4", label_base=0)
    write(tmp_path / "neg.csv", "path,label\na.mp4,-1\nb.mp4,0\n")
    refuses(tmp_path / "neg.csv", "the lowest label is -1")
    refuses(numbered(tmp_path / "base", [0, 1, 0, 1]), "label 0 is out of range; the labels of", label_base=1)


def test_label_base_is_for_whole_numbers(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    sheet = write(tmp_path / "l.csv", "path,label\na.mp4,7\nb.mp4,wave\n")
    refuses(
        sheet, "label_base=1 is for labels that are whole numbers; here there are names such as 'wave'", label_base=1
    )


@pytest.mark.parametrize(
    ("file", "text"),
    [("classInd.txt", "1 wave\n2 jump up\n3 100 m run\n"), ("classes.txt", "wave\njump up\n100 m run\n")],
)
def test_class_names_beside_the_list(tmp_path: Path, file: str, text: str) -> None:
    sheet = numbered(tmp_path, [0, 2, 0, 2, 1, 1])
    write(tmp_path / "x" / file, text)
    (tmp_path / "x" / file).rename(tmp_path / file)
    data = load_annotations(sheet)
    assert data.classes == ("wave", "jump up", "100 m run")
    assert data.notes[:2] == ("labels are whole numbers from 0", f"class names from {file}")


def test_class_names_allow_gaps_and_bound_the_labels(tmp_path: Path) -> None:
    write(tmp_path / "labels.txt", "a\nb\nc\nd\n")
    data = load_annotations(numbered(tmp_path, [0, 2, 0, 2]))
    assert data.problems() == ["class b has no videos", "class d has no videos"]
    data = load_annotations(numbered(tmp_path, [1, 4, 1, 4]))
    assert [data.classes[item.label] for item in sorted(data.items(), key=lambda i: i.video)] == ["a", "d", "a", "d"]
    refuses(numbered(tmp_path, [0, 4]), "l.csv:3: label 4 is out of range; the labels of 4 classes run from 0 to 3")
    sheet = numbered(tmp_path, [1, 2, 1, 2])
    refuses(sheet, "run from 1 to 2 and labels.txt names 4 classes, so they could count from 0 or from 1")
    assert {item.label for item in load_annotations(sheet, label_base=0).items()} == {1, 2}
    assert {item.label for item in load_annotations(sheet, label_base=1).items()} == {0, 1}
    write(tmp_path / "labels.txt", "a\nb\na\n")
    refuses(numbered(tmp_path, [0, 1]), "class names repeat: a")


def test_class_names_from_the_folders_of_the_videos(tmp_path: Path) -> None:
    data = load_annotations(numbered(tmp_path, [0, 1, 0, 1], folders=True))
    assert data.classes == ("a", "b")
    assert "class names from the videos' folders" in data.notes


# --- text lists -----------------------------------------------------------------------------------


def test_text_lists_of_mmaction2(tmp_path: Path) -> None:
    touch(tmp_path, "videos/Wave Hand/v 1.avi", "videos/Run/v2.avi", "videos/Run/v3.avi", "videos/Wave Hand/v4.avi")
    folder = tmp_path / "annotations"
    write(folder / "classInd.txt", "1 Run\n2 Wave Hand\n")
    for split in (1, 2):
        write(folder / f"ucf101_train_split_{split}_videos.txt", "Wave Hand/v 1.avi 1\nRun/v2.avi 0\n")
        write(folder / f"ucf101_val_split_{split}_videos.txt", "Run/v3.avi 0\n")
        write(folder / f"ucf101_train_split_{split}_rawframes.txt", "Run/v2 120 0\n")
    write(folder / "ucf101_test_split_1_videos.txt", "Wave Hand/v4.avi 1\n")
    data = load_annotations(tmp_path)
    assert data.kind == "text lists"
    assert data.classes == ("Run", "Wave Hand")
    assert [(item.video, item.label) for item in data.items()] == [
        ("Wave Hand/v 1.avi", 1),
        ("Run/v2.avi", 0),
        ("Run/v3.avi", 0),
        ("Wave Hand/v4.avi", 1),
    ]
    assert data.notes[:2] == ("labels are whole numbers from 0", "class names from classInd.txt")
    without_test = load_annotations(tmp_path, split=2)
    assert names(without_test, "val") == ["Run/v3.avi"]
    assert not without_test.parts["test"]
    assert without_test.warnings[0].startswith("no test part is named: nothing can be held out of 2 videos in 2 groups")
    refuses(tmp_path, "there is no split 3; the lists are for split 1, 2", split=3)


def test_one_text_list_is_split(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{n}.mp4" for n in range(8)))
    rows = "".join(f"{n}.mp4 {'make tea' if n % 2 else 'eat'}\n" for n in range(8))
    data = load_annotations(write(tmp_path / "all.txt", rows))
    assert data.kind == "text list"
    assert data.classes == ("eat", "make tea")
    assert data.counts("test") == (1, 1)
    sheet = write(tmp_path / "sheet.txt", "path,label\n0.mp4,a\n1.mp4,b\n2.mp4,a\n3.mp4,b\n")
    assert load_annotations(sheet).kind == "CSV"
    no_ending = write(tmp_path / "stems.txt", "".join(f"{n} {n % 2}\n" for n in range(4)))
    assert names(load_annotations(no_ending), "train")[0].endswith(".mp4")


def test_lists_of_frame_folders_need_videos_of_the_same_names(tmp_path: Path) -> None:
    rows = "wave/1 17 0\nwave/2 18 0\nrun/1 15 1\nrun/2 15 1\n"
    frames = write(tmp_path / "list.txt", rows)
    touch(tmp_path, "wave/1/img_00001.jpg")
    message = refuses(frames, "lists folders of frames (as wave/1), and for 4 of 4 there is no video", "ffmpeg")
    assert message == refuses(frames, allow_missing=True)
    touch(tmp_path, "videos/wave/1.mp4", "videos/wave/2.mp4", "videos/run/1.mp4", "videos/run/2.mp4")
    data = load_annotations(frames)
    assert data.classes == ("wave", "run")
    assert "the list names folders of frames; the videos of the same names are read instead" in data.notes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty; wanted 'video.mp4 label' on each line"),
        ("a.mp4\n", "train.txt:1: wanted 'video.mp4 label' on each line, got 'a.mp4'"),
        ("a.mp4 1 4\n", "train.txt:1: 'a.mp4 1 4' gives several labels to one video"),
        ("wave/1 1 17 0\n", "is a folder of frames with an offset, or several labels"),
        ("a.mp4 1\nwave/1 17 0\n", "a list names videos or folders of frames, not both; "),
    ],
)
def test_text_lists_that_do_not_fit(tmp_path: Path, text: str, said: str) -> None:
    touch(tmp_path, "a.mp4")
    write(tmp_path / "train.txt", text)
    refuses(tmp_path, said)


def test_text_lists_that_do_not_go_together(tmp_path: Path) -> None:
    write(tmp_path / "a_train.txt", "a.mp4 0\n")
    write(tmp_path / "val.txt", "wave/1 17 0\n")
    refuses(tmp_path, "some of the lists name videos and others folders of frames")
    write(tmp_path / "b_train.txt", "b.mp4 0\n")
    refuses(tmp_path, "a_train.txt, b_train.txt could all be the train list")


# --- what annotations can do ----------------------------------------------------------------------


def test_annotations_survive_json(tmp_path: Path) -> None:
    data = load_annotations(ucf(tmp_path))
    assert Annotations.from_dict(json.loads(json.dumps(data.to_dict()))) == data
    with pytest.raises(DataError, match=r"not the annotations of a data set \(KeyError\('data'\)\)"):
        Annotations.from_dict({"classes": []})


def test_parts_can_be_replaced(tmp_path: Path) -> None:
    data = load_annotations(ucf(tmp_path))
    kept, held_out, _ = split_by_group(data.parts["train"], 0.5, 0)
    held = replace(data, parts={**data.parts, "train": kept, "val": held_out})
    assert held.counts("val") == held.counts("train") == (1, 1)
    assert ["class", "train", "val", "test"] in [line.split() for line in held.describe().splitlines()]
    held.require_trainable()
    unreadable = replace(data, parts={**data.parts, "train": data.parts["train"][:2]})
    with pytest.raises(DataError, match="no training videos of class JumpUp"):
        unreadable.require_trainable()
    with pytest.raises(DataError, match=r"there are no training videos$"):
        replace(data, parts={**data.parts, "train": ()}).require_trainable()


def test_what_is_written_down_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, *(f"d/{c}/x{n}.mp4" for c in "ab" for n in range(3)))
    monkeypatch.chdir(tmp_path)
    values = load_annotations("d").to_dict()
    assert values["data"] == values["root"] == str(tmp_path / "d")
    assert values["parts"]["test"][0]["path"].startswith(str(tmp_path / "d/a/x"))


def test_description(tmp_path: Path) -> None:
    assert load_annotations(ucf(tmp_path)).describe().splitlines() == [
        f"UCF101 lists, split 1: {tmp_path}",
        f"videos under {tmp_path / 'videos'}",
        "  class        train     test",
        "  Wave             2        1",
        "  JumpUp           2        1",
        "  2 classes        4        2",
        "class numbers begin at 1 (classInd.txt)",
        "groups: 3 from _gNN_ in the names",
    ]
    touch(tmp_path / "many", *(f"class{k}/x{n}.mp4" for k in range(30) for n in range(2)))
    lines = load_annotations(tmp_path / "many").describe().splitlines()
    assert [line.split() for line in lines[1:4]] == [
        ["class", "train", "test"],
        ["class0", "1", "1"],
        ["class1", "1", "1"],
    ]
    assert lines[12].strip() == "..."
    assert lines[23].split() == ["30", "classes", "30", "30"]


# --- real lists -----------------------------------------------------------------------------------


@pytest.mark.data
@needs_data
@pytest.mark.parametrize(
    ("split", "train", "test", "here"), [(1, 9537, 3783, 17), (2, 9586, 3734, 32), (3, 9624, 3696, 36)]
)
def test_the_official_ucf101_lists(split: int, train: int, test: int, here: int) -> None:
    folder = Path(str(DATA)) / "ucf101_clips"
    data = load_annotations(folder, split=split, allow_missing=True)
    assert len(data.classes) == 101
    assert (sum(data.listed["train"]), sum(data.listed["test"])) == (train, test)
    assert len(data.items()) == 42
    assert len(data.parts["train"]) == here
    assert len(data.missing) == 13_320 - 42
    assert all(item.path.is_file() and data.classes[item.label] == item.path.parent.name for item in data.items())
    assert not data.warnings
    refuses(folder, "13,278 of the 13,320 videos", "--allow-missing", split=split)


@pytest.mark.data
@needs_data
@pytest.mark.parametrize("split", [1, 2, 3])
def test_the_official_hmdb51_lists(split: int, tmp_path: Path) -> None:
    folder = Path(str(DATA)) / "hmdb51_splits"
    data = load_annotations(folder, split=split, allow_missing=True)
    assert len(data.classes) == 51
    assert data.classes[0] == "brush_hair"
    assert set(data.listed["train"]) == {70}
    assert set(data.listed["test"]) == {30}
    assert len(data.missing) == 5100
    assert data.notes == ("in neither part of this split: 1,666 listed videos",)
    refuses(folder, "none of the 5,100 videos", "--videos FOLDER", split=split)
    touch(tmp_path, *data.missing)
    there = load_annotations(folder, split=split, videos=tmp_path)
    assert (len(there.parts["train"]), len(there.parts["test"])) == (3570, 1530)
    # The official split keeps the clips of one source apart within a class, not across classes.
    assert (
        there.warnings[0].removeprefix("on both sides of the split as published: ")[:3]
        == {1: "133", 2: "149", 3: "144"}[split]
    )
    by_class: Counter[tuple[int, str]] = Counter()
    for part in ("train", "test"):
        by_class.update({(item.label, item.group) for item in there.parts[part]})
    assert max(by_class.values()) == 1
    kept, held_out, _ = split_by_group(there.parts["train"], 0.1, 0)
    assert not {item.group for item in kept} & {item.group for item in held_out}
    assert {item.label for item in held_out} == set(range(51))


@pytest.mark.data
@needs_data
@pytest.mark.parametrize(
    ("name", "split", "train", "test"),
    [
        ("ut_interaction", 1, 78, 42),
        ("ut_interaction", 2, 79, 41),
        ("ut_interaction", 3, 83, 37),
        ("body_gesture", 1, 315, 135),
        ("body_gesture", 2, 315, 135),
        ("body_gesture", 3, 270, 180),
    ],
)
def test_real_data_sets(name: str, split: int, train: int, test: int) -> None:
    data = load_annotations(Path(str(DATA)) / name, split=split)
    assert (len(data.parts["train"]), len(data.parts["test"])) == (train, test)
    assert data.root.name == "videos"
    assert not data.problems()
    data.require_trainable()
    assert {item.label for item in split_by_group(data.parts["train"], 0.15, 0).held_out} == set(
        range(len(data.classes))
    )


@pytest.mark.data
@needs_data
def test_real_lists_of_frame_folders_are_refused() -> None:
    folder = Path(str(DATA)) / "rawframes_demo"
    refuses(folder / "demo_dataset", "pictures but no videos")
    refuses(folder / "demo_dataset/annotations.txt", "a folder of frames with an offset")
    refuses(folder / "demo_dataset_multilabel/annotations.txt", "several labels for one video")
