import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from twostream.clip import Scores, ScoresError, vote_count


def scores(**changes: Any) -> Scores:
    rng = np.random.default_rng(0)
    values: dict[str, Any] = {
        "logits": rng.standard_normal((4, 3, 2, 3)).astype(np.float32),
        "labels": np.array([0, 2, -1, 1]),
        "videos": ("a/1.avi", "b/2.avi", "b/Ünï 3.avi", "c/4.avi"),
        "classes": ("wave", "bow", "clap <b>"),
        "votes": (("appearance", 1), ("motion", 1)),
        "groups": ("g1", "g1", "g2", ""),
        "meta": {"protocol": "25-step", "split": "1"},
    }
    return Scores(**values | changes)


def assert_same(first: Scores, second: Scores) -> None:
    assert np.array_equal(first.logits, second.logits)
    assert first.logits.dtype == second.logits.dtype == np.float32
    assert np.array_equal(first.labels, second.labels)
    assert (first.videos, first.classes, first.votes) == (second.videos, second.classes, second.votes)
    assert (first.groups, dict(first.meta)) == (second.groups, dict(second.meta))


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    scores().save(tmp_path / "runs" / "test.npz")
    assert_same(scores(), Scores.load(str(tmp_path / "runs" / "test.npz")))


def test_the_same_scores_give_the_same_file(tmp_path: Path) -> None:
    scores().save(tmp_path / "one.npz")
    scores().save(tmp_path / "two.npz")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_groups_default_to_none_and_streams_keep_their_order() -> None:
    plain = scores(groups=(), votes=(("motion", 1), ("appearance", 1)))
    assert plain.groups == ("", "", "", "")
    assert plain.streams == ("motion", "appearance")
    assert len(plain) == 4


def test_votes_of_a_stream_may_be_several_and_apart() -> None:
    several = scores(
        logits=np.zeros((4, 1, 5, 3), np.float32), votes=(("appearance", 2), ("motion", 2), ("appearance", 1))
    )
    assert several.vote_slices() == {"appearance": [0, 1, 4], "motion": [2, 3]}
    assert vote_count(several.votes) == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logits": np.zeros((4, 2, 3), np.float32)}, r"logits must be \(videos, views, votes, classes\), got"),
        ({"labels": np.array([0, 1])}, r"need 4 labels, got 2"),
        ({"videos": ("a",)}, r"need 4 videos, got 1"),
        ({"groups": ("a",)}, r"need 4 groups, got 1"),
        ({"classes": ("wave", "bow")}, r"need 3 classes, got 2"),
        ({"votes": (("fused", 1),)}, r"need 2 votes, got 1"),
        ({"labels": np.array([0, 1, 2, 3])}, r"labels must lie in -1\.\.2, got 0\.\.3"),
        ({"labels": np.array([0, 1, 2, -2])}, r"labels must lie in -1\.\.2, got -2\.\.2"),
        (
            {"logits": np.where(np.arange(4)[:, None, None, None] == 2, np.nan, np.zeros((4, 3, 2, 3), np.float32))},
            r"1 videos have scores that are not finite, first b/Ünï 3.avi",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ScoresError, match=message):
        scores(**changes)


def test_no_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ScoresError, match=r"none\.npz: no such scores file; make one with: twostream evaluate RUN"):
        Scores.load(tmp_path / "none.npz")


def test_foreign_files_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "foreign.npz"
    for content in (b"", b"just text", b"PK\x03\x04 and no archive", b"\x93NUMPY"):
        path.write_bytes(content)
        with pytest.raises(ScoresError, match=r"foreign\.npz: not a scores file of twostream"):
            Scores.load(path)
    np.savez(path, logits=np.zeros(3))
    with pytest.raises(ScoresError, match=r"foreign\.npz: not a scores file of twostream"):
        Scores.load(path)
    scores().save(path)
    rewritten(path, sha256=None)
    with pytest.raises(ScoresError, match=r"damaged"):
        Scores.load(path)
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(ScoresError, match=r"array\.npy: not a scores file of twostream"):
        Scores.load(tmp_path / "array.npy")
    with pytest.raises(ScoresError, match=r"not a scores file of twostream"):
        Scores.load(tmp_path)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return (exec, ("raise SystemExit('unpickled')",))

    header = np.frombuffer(b"{}", np.uint8)
    np.savez(tmp_path / "bomb.npz", header=header, logits=np.array([Bomb()], object), labels=np.zeros(1))
    with pytest.raises(ScoresError, match="not a scores file"):
        Scores.load(tmp_path / "bomb.npz")


def rewritten(path: Path, **changes: Any) -> None:
    with np.load(path) as archive:
        header = json.loads(archive["header"].tobytes())
        arrays = {"logits": archive["logits"], "labels": archive["labels"]}
    for key, value in changes.items():
        (arrays if key in arrays else header)[key] = value
    np.savez(path, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays)


def test_another_format_is_refused(tmp_path: Path) -> None:
    scores().save(tmp_path / "s.npz")
    rewritten(tmp_path / "s.npz", format="twostream-scores-9")
    with pytest.raises(ScoresError, match=r"scores of another format \(twostream-scores-9\)"):
        Scores.load(tmp_path / "s.npz")


def test_arrays_changed_behind_the_header_are_refused(tmp_path: Path) -> None:
    scores().save(tmp_path / "s.npz")
    rewritten(tmp_path / "s.npz", logits=scores().logits + 1)
    with pytest.raises(ScoresError, match=r"damaged, its checksum does not match; write it again with"):
        Scores.load(tmp_path / "s.npz")


def test_labels_behind_the_header_that_do_not_fit_name_the_file(tmp_path: Path) -> None:
    scores().save(tmp_path / "s.npz")
    rewritten(tmp_path / "s.npz", labels=np.array([7, 7, 7, 7]))
    with pytest.raises(ScoresError, match=r"s\.npz: .*labels must lie in"):
        Scores.load(tmp_path / "s.npz")


def test_damage_anywhere_is_refused_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    scores().save(path)
    whole = path.read_bytes()
    draw = random.Random(0)
    for _ in range(300):
        damaged = bytearray(whole)
        if draw.random() < 0.3:
            del damaged[draw.randrange(len(damaged)) :]
        else:
            damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        try:
            loaded = Scores.load(path)
        except ScoresError as error:
            assert str(path) in str(error)  # noqa: PT017
        else:
            assert_same(loaded, scores())
