"""`twostream flow`, option by option."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import test_flow_extract as extraction
from test_cli import fails
from twostream import cli
from twostream.data import preparation
from twostream.flow.extract import extract
from twostream.flow.forecast import Estimate
from twostream.flow.jobs import Source
from twostream.flow.store import FlowSettings, FlowStore
from twostream.video import Video

Printed = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for k, frames in enumerate((9, 5, 3, 2)):
        extraction.make(folder / f"v{k}.mp4", frames)
    return folder


def run(words: list[object], capsys: Printed, *, status: int = 0) -> Any:
    capsys.readouterr()
    assert cli.main(["flow", *map(str, words), "--json"]) == status
    return json.loads(capsys.readouterr().out)


def small(*words: object) -> list[object]:
    return [*words, "--resize", 24, "--workers", 1]


def test_shards_fill_one_store(videos: Path, tmp_path: Path, capsys: Printed) -> None:
    words = small(videos, "--out", tmp_path / "store", "--estimator", "dis")
    parts = [run([*words, "--shard", f"{k}/3"], capsys)["done"] for k in (1, 2, 3)]
    assert sorted(name for part in parts for name in part) == [f"v{k}.mp4" for k in range(4)]
    assert [len(part) for part in parts] == [1, 1, 2]
    whole = run(words, capsys)
    assert (whole["done"], len(whole["skipped"])) == ([], 4)
    assert run([*words, "--shard", "5/9"], capsys)["done"] == []
    for wrong in ("0/3", "4/3", "1", "1/0", "a/b", "1/2/3", "-1/2", "", "1.5/2"):
        fails(["flow", str(videos), "--out", "o", f"--shard={wrong}"], capsys, "I/N with I from 1 to N", status=2)


def test_the_estimator_is_the_stores_unless_named(videos: Path, tmp_path: Path, capsys: Printed) -> None:
    words = small(videos / "v3.mp4", "--out", tmp_path / "store")
    run([*words, "--quality", "fast", "--parameters", "warps=1, pyramid=linear"], capsys)
    made = FlowStore(tmp_path / "store").settings
    assert (made.estimator, made.parameters["quality"], made.parameters["warps"]) == ("tvl1", "fast", 1)
    assert run(words, capsys)["skipped"] == ["v3.mp4"]
    fails(["flow", *map(str, words), "--quality", "balanced"], capsys, "quality: fast, not balanced")
    fails(["flow", *map(str, words), "--estimator", "dis"], capsys, "estimator: tvl1, not dis", "asked for: dis")
    run(small(videos / "v3.mp4", "--out", tmp_path / "new"), capsys)
    assert FlowStore(tmp_path / "new").settings == FlowSettings(estimator="tvl1", short_side=24)


def test_size_rate_and_bound_are_the_stores_unless_named(videos: Path, tmp_path: Path, capsys: Printed) -> None:
    words = [videos / "v0.mp4", "--out", tmp_path / "store", "--workers", 1]
    assert (
        cli.main(["flow", *map(str, words), "--estimator", "dis", "--resize", "24", "--fps", "5", "--bound", "9"]) == 0
    )
    assert "with dis at short side 24 and 5 frames/s, about" in capsys.readouterr().err
    assert run(words, capsys)["skipped"] == ["v0.mp4"]
    fails(["flow", *map(str, words), "--resize", "0"], capsys, "(short_side: 24, not None)")
    fails(["flow", *map(str, words), "--fps", "10"], capsys, "(fps: 5.0, not 10.0)")
    fails(["flow", *map(str, words), "--bound", "20"], capsys, "(bound: 9.0, not 20.0)")
    new = [videos / "v0.mp4", "--out", tmp_path / "new", "--workers", 1, "--estimator", "dis", "--resize", 0]
    assert cli.main(["flow", *map(str, new)]) == 0
    assert "with dis at each video's own size, about" in capsys.readouterr().err
    settings = FlowStore(tmp_path / "new").settings
    assert (settings.short_side, settings.fps, settings.bound) == (None, None, 20)


def test_a_store_that_lost_its_settings_is_not_overwritten(videos: Path, tmp_path: Path, capsys: Printed) -> None:
    words = small(videos / "v3.mp4", "--out", tmp_path / "store")
    run([*words, "--estimator", "dis"], capsys)
    before = extraction.files(tmp_path / "store")
    (tmp_path / "store" / "store.json").unlink()
    fails(["flow", *map(str, words), "--estimator", "tvl1"], capsys, "(estimator: dis, not tvl1)")
    assert run(words, capsys)["skipped"] == ["v3.mp4"]
    new = run(small(videos / "v2.mp4", "--out", tmp_path / "store"), capsys)
    assert new["done"] == ["v2.mp4"]
    after = extraction.files(tmp_path / "store")
    assert {name: after[name] for name in before} == before


def test_wrong_words(videos: Path, capsys: Printed) -> None:
    out = ["flow", str(videos), "--out", "o"]
    fails(["flow", str(videos)], capsys, "--out STORE says where", "--preview OUT.mp4", status=2)
    fails([*out, "--estimator", "dis", "--quality", "fast"], capsys, "--quality is for the estimator tvl1", status=2)
    fails([*out, "--quality", "fast", "--parameters", "quality=papers"], capsys, "which one?", status=2)
    fails([*out, "--quality", "best"], capsys, "the qualities of tvl1 are reference, papers, balanced, fast", status=2)
    fails([*out, "--estimator", "raft"], capsys, "no flow estimator is called 'raft'", status=2)
    fails([*out, "--resize", "1000000"], capsys, "a whole number of px, 16 to 8192", "got 1000000", status=2)
    fails([*out, "--bound", "nan"], capsys, "the bound of stored flow must be", status=2)
    fails([*out, "--fps", "0"], capsys, "the common frame rate must lie above 0", status=2)
    for wrong in ("a", "a=", "=1", "a:1"):
        fails([*out, "--parameters", wrong], capsys, "not of the form name=value,name=value", status=2)
    wrong = [*out, "--estimator", "dis", "--parameters", "preset=true"]
    fails(wrong, capsys, "preset of dis is a word, got True", status=2)
    # Before anything is read or measured.
    nowhere = ["flow", str(videos / "nowhere"), "--out", "o"]
    fails([*nowhere, "--ray-address", "auto"], capsys, "goes with the executor 'ray'", status=2)
    fails([*nowhere, "--executor", "ray", "--device", "cuda"], capsys, "leave out --device cuda, or Ray", status=2)
    fails([*out, "--executor", "dask"], capsys, "invalid choice: 'dask'", status=2)


def test_ray_is_missing(videos: Path, tmp_path: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    words = ["flow", str(videos), "--out", str(tmp_path / "o"), "--executor", "ray", "--estimator", "dis"]
    fails(words, capsys, "pip install 'twostream[ray]'", status=2)


def test_verify_finds_what_a_header_does_not_tell(videos: Path, tmp_path: Path, capsys: Printed) -> None:
    words = small(videos, "--out", tmp_path / "store", "--estimator", "dis")
    run(words, capsys)
    file = tmp_path / "store" / "v1.mp4.flow"
    whole = file.read_bytes()
    file.write_bytes(whole[:30] + bytes([whole[30] ^ 4]) + whole[31:])
    assert len(run(words, capsys)["skipped"]) == 4
    found = run([*words, "--verify"], capsys)
    assert found["done"] == ["v1.mp4"]
    assert str(file) in found["replaced"]["v1.mp4"]
    assert file.read_bytes() == whole


def test_a_store_is_verified_without_its_videos(videos: Path, tmp_path: Path, capsys: Printed) -> None:
    root = tmp_path / "store"
    run(small(videos, "--out", root, "--estimator", "dis"), capsys)
    assert len(run(["--verify", "--out", root], capsys)["sound"]) == 4
    file = root / "v1.mp4.flow"
    whole = file.read_bytes()
    file.write_bytes(whole[:30] + bytes([whole[30] ^ 4]) + whole[31:])
    found = run(["--verify", "--out", root], capsys, status=1)
    assert list(found["damaged"]) == ["v1.mp4"]
    assert cli.main(["flow", "--verify", "--out", str(root)]) == 1
    assert f"damaged: {file}: " in capsys.readouterr().out
    for words in (["--out", str(root)], []):
        fails(["flow", *words], capsys, "DATA says of which videos", "--verify, --import-from", status=2)
    fails(["flow", "--verify"], capsys, "--out STORE says where", status=2)
    fails(["flow", "--preview", "o.mp4"], capsys, "DATA says which video to show", status=2)
    fails(["flow", "--verify", "--out", str(tmp_path / "none")], capsys, "no flow store there")


def test_codec_and_precision(videos: Path, tmp_path: Path, capsys: Printed) -> None:
    video, sizes = videos / "v0.mp4", {}
    words = small(video, "--estimator", "dis")
    for codec in ("compact", "fast"):
        run([*words, "--codec", codec, "--out", tmp_path / codec], capsys)
        with FlowStore(tmp_path / codec).open("v0.mp4") as stored:
            sizes[codec] = stored.path.stat().st_size
            fields = stored.fields(range(8))
    assert sizes["compact"] < sizes["fast"]
    # A matter of storage: what is there serves.
    assert run([*words, "--codec", "fast", "--out", tmp_path / "compact"], capsys)["skipped"] == ["v0.mp4"]
    run([*words, "--precision", "float16", "--out", tmp_path / "half"], capsys)
    with FlowStore(tmp_path / "half").open("v0.mp4") as stored:
        assert stored.settings.precision == "float16"
        # Half a step of 8 bit is more than what float16 rounds, but for values that lie on an edge.
        assert np.abs(stored.fields(range(8)).astype(int) - fields).max() <= 1
    assert run([*words, "--out", tmp_path / "half"], capsys)["skipped"] == ["v0.mp4"]
    wrong = [*map(str, words), "--precision", "float16", "--out", str(tmp_path / "fast")]
    fails(["flow", *wrong], capsys, "precision: uint8, not float16")
    fails(["flow", *wrong, "--codec", "zip"], capsys, "invalid choice: 'zip'", status=2)
    fails(["flow", *wrong, "--precision", "int4"], capsys, "invalid choice: 'int4'", status=2)


@pytest.mark.parametrize("layout", ["tsn", "denseflow", "mmaction2", "feichtenhofer"])
def test_images_of_other_tools_go_out_and_come_in(videos: Path, tmp_path: Path, capsys: Printed, layout: str) -> None:
    store, images, back = tmp_path / "store", tmp_path / "images", tmp_path / "back"
    words = small(videos, "--out", store, "--estimator", "dis")
    written = run([*words, "--export-to", images, "--layout", layout], capsys)
    assert written["done"] == [f"v{k}.mp4" for k in range(4)]
    assert written["exported"]["done"] == written["done"]
    assert written["exported"]["fields"] == 8 + 4 + 2 + 1
    assert (
        images
        / {"feichtenhofer": "u/v0/frame000008.jpg", "denseflow": "v0/flow_x_00007.jpg"}.get(
            layout, f"v0/{'flow_x' if layout == 'tsn' else 'x'}_00008.jpg"
        )
    ).is_file()
    assert len(run(["--out", store, "--export-to", images, "--layout", layout], capsys)["skipped"]) == 4
    taken = run([videos, "--out", back, "--import-from", images], capsys)
    assert (taken["done"], taken["failed"], taken["missing"]) == (written["done"], {}, [])
    assert len(run([videos, "--out", back, "--import-from", images], capsys)["skipped"]) == 4
    with FlowStore(store).open("v0.mp4") as ours, FlowStore(back).open("v0.mp4") as theirs:
        assert theirs.fps == 10
        assert np.abs(ours.fields(range(8)).astype(int) - theirs.fields(range(8))).mean() < 2
    assert cli.main(["flow", "--out", str(store), "--export-to", str(images), "--layout", layout]) == 0
    assert "4 were there already, 0 failed" in capsys.readouterr().out


def test_imported_flow_is_that_of_the_videos(videos: Path, tmp_path: Path, capsys: Printed) -> None:
    images, root = tmp_path / "images", tmp_path / "imported"
    run(
        [*small(videos, "--out", tmp_path / "store", "--estimator", "dis"), "--export-to", images, "--layout", "tsn"],
        capsys,
    )
    # One of which there are too few, one that has as many as frames, one that is absent.
    for kind in "xy":
        (images / "v0" / f"flow_{kind}_00008.jpg").unlink()
        last = images / "v1" / f"flow_{kind}_00004.jpg"
        shutil.copy(last, images / "v1" / f"flow_{kind}_00005.jpg")
    shutil.rmtree(images / "v2")
    words: list[object] = [videos, "--out", root, "--import-from", images]
    found = run(words, capsys, status=1)
    assert found["done"] == ["v3.mp4"]
    assert "7 fields to 9 frames (counted by the video's frames)" in found["failed"]["v0.mp4"]
    assert "5 fields to 5 frames" in found["failed"]["v1.mp4"]
    none = f"{images}: no folder with flow images is called v2; those there are v0, v1, v3. Rename it after its video"
    assert found["failed"]["v2.mp4"].startswith(none)
    assert cli.main(["flow", *map(str, words), "--drop-last"]) == 1
    assert "1 videos done (4 fields), 1 were there already, 2 failed" in capsys.readouterr().out

    # What is there is used; what is not cannot be computed.
    store = FlowStore(root)
    sources = [Source(f"v{k}.mp4", videos / f"v{k}.mp4") for k in range(4)]
    said: list[str] = []
    preparation.announce(sources, store, workers=1, say=said.append)
    assert said == [f"flow: 2 of 4 videos are not in {root}, whose flow is imported"]
    summary = extract(sources, store, workers=1)
    assert summary.skipped == ("v1.mp4", "v3.mp4")
    assert list(summary.failed) == ["v0.mp4", "v2.mp4"]
    assert "v0.mp4.flow: is not there, or of another version of" in summary.failed["v0.mp4"]
    assert "imported and cannot be computed" in summary.failed["v0.mp4"]
    other = tmp_path / "v3.mp4"
    extraction.make(other, 7)
    assert list(extract([Source("v3.mp4", other)], store, workers=1).failed) == ["v3.mp4"]
    file = store.path_for("v3.mp4")
    file.write_bytes(file.read_bytes()[:-3])
    assert "damaged or foreign" in extract(sources[3:], store, workers=1).failed["v3.mp4"]


def test_images_without_their_videos(videos: Path, tmp_path: Path, capsys: Printed) -> None:
    images, root = tmp_path / "images", tmp_path / "imported"
    run(
        [*small(videos, "--out", tmp_path / "store", "--estimator", "dis"), "--export-to", images, "--layout", "tsn"],
        capsys,
    )
    out = ["--out", root, "--import-from", images]
    assert len(run([*out, "--fps", 25, "--bound", 15, "--codec", "fast"], capsys)["done"]) == 4
    assert len(run([*out, "--fps", 25], capsys)["skipped"]) == 4
    settings = FlowStore(root).settings
    assert (settings.bound, settings.codec, settings.estimator) == (15, "fast", "imported")
    # Nothing but the name tells whose it is.
    assert extract([Source("v0", videos / "v0.mp4")], FlowStore(root), workers=1).skipped == ("v0",)
    words = ["flow", *map(str, out)]
    fails(words, capsys, "name their videos by DATA, or it by --fps", status=2)
    fails([*words, "--fps", "25", "--precision", "float16"], capsys, "flow images have 8 bit", status=2)
    fails([*words, "--fps", "25", "--bound", "-1"], capsys, "the bound of stored flow must be", status=2)
    passed_over = ["--verify", "--quality", "fast", "--shard", "1/2"]
    fails([*words, *passed_over], capsys, "leave out --quality, --shard, --verify", status=2)
    fails([*words, "--fps", "25", "--layout", "tsn"], capsys, "finds out by itself", status=2)
    fails([*words, "--export-to", "x", "--layout", "tsn"], capsys, "either --import-from or --export-to", status=2)
    fails([*words[:3], "--export-to", "x"], capsys, "--export-to FOLDER and --layout NAME go together", status=2)
    fails([*words[:3], "--verify", "--drop-last"], capsys, "--drop-last goes with --import-from", status=2)
    fails([*words[:4], str(videos), "--fps", "25", "--bound", "15"], capsys, "no flow images in it")
    # Two folders that could be the video's.
    for place in ("a", "b"):
        shutil.copytree(images / "v0", tmp_path / "twice" / place / "v0")
    twice = run([videos / "v0.mp4", "--out", root, "--import-from", tmp_path / "twice"], capsys, status=1)
    assert "2 folders below" in twice["failed"]["v0.mp4"]
    assert "are called v0 (a/v0, b/v0); keep one" in twice["failed"]["v0.mp4"]
    video = ["flow", str(videos / "v0.mp4"), "--preview", "o.mp4"]
    fails([*video, "--import-from", "x"], capsys, "leave out --import-from", status=2)
    fails([*video, "--export-to", "x", "--layout", "tsn"], capsys, "leave out --export-to", status=2)


def test_videos_that_failed_are_not_exported(videos: Path, tmp_path: Path, capsys: Printed) -> None:
    folder = tmp_path / "videos"
    shutil.copytree(videos, folder)
    (folder / "bad.mp4").write_bytes(b"no video")
    words = [*small(folder, "--out", tmp_path / "store", "--estimator", "dis"), "--export-to", tmp_path / "images"]
    assert cli.main(["flow", *map(str, words), "--layout", "tsn"]) == 1
    printed = capsys.readouterr().out
    assert "flow: 4 videos done" in printed
    assert "failed: " + str(folder / "bad.mp4") in printed
    assert "4 videos done (15 fields), 0 were there already, 0 failed" in printed


def test_preview(videos: Path, tmp_path: Path, capsys: Printed) -> None:
    video, out = videos / "v0.mp4", tmp_path / "out.mp4"
    told = run(small(video, "--preview", out, "--estimator", "dis"), capsys)
    assert told == {"preview": str(out), "frames": 8, "full_speed": told["full_speed"]}
    assert len(Video(out)) == 8
    assert cli.main(["flow", str(video), "--preview", str(out), "--estimator", "dis"]) == 0
    assert ": 8 frames with dis; full colour is " in capsys.readouterr().out
    preview = ["flow", str(video), "--preview"]
    fails([*preview, str(out), "--out", "o"], capsys, "keeps no flow; leave out --out", status=2)
    fails([*preview, str(out), "--shard", "1/2"], capsys, "leave out --shard", status=2)
    fails([*preview, str(out), "--verify", "--frames"], capsys, "leave out --frames, --verify", status=2)
    fails([*preview, str(out), "--ray-address", "auto"], capsys, "leave out --ray-address", status=2)
    fails([*preview, "out.gif"], capsys, "the name must end in .mp4", status=2)
    fails([*preview, str(video)], capsys, "the video itself", status=2)
    fails(["flow", str(videos), "--preview", str(out)], capsys, "shows one video", "is a folder", status=2)
    fails(["flow", str(tmp_path / "none.mp4"), "--preview", str(out)], capsys, "no such file")


def test_a_first_run_of_hours_is_told_of_the_fastest_estimator(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[FlowSettings] = []

    def guess(sources: list[Source], settings: FlowSettings, *, workers: int) -> Estimate:
        asked.append(settings)
        hours = 40 if settings.estimator == "tvl1" else 3
        return Estimate(seconds=hours * 3600 / workers, bytes=5e9, pairs=len(sources))

    monkeypatch.setattr(preparation, "estimate", guess)
    sources = [Source(name=f"v{k}.mp4", path=videos / f"v{k}.mp4") for k in range(4)]
    said: list[str] = []

    def announce(store: FlowStore, workers: int | None) -> list[str]:
        said.clear()
        preparation.announce(sources, store, workers=workers, say=said.append)
        return said

    store = FlowStore(tmp_path / "store", FlowSettings(estimator="tvl1", short_side=24))
    first, second = announce(store, 2)
    assert "4 of 4 videos to go with tvl1 at short side 24, about 20 h 0 min with 2 processes and 5.0 GB" in first
    assert second.startswith("flow: with the estimator dis, less exact, it would be about 90 min 0 s and 5.0 GB")
    assert (asked[1].estimator, asked[1].short_side) == ("dis", 24)
    assert "about 40 h 0 min of one core's work" in announce(store, None)[0]
    assert len(announce(store, 80)) == 1
    assert len(announce(FlowStore(tmp_path / "dis", FlowSettings(estimator="dis")), 1)) == 1
    # What was begun so has to go on so.
    store.prepare()
    assert len(announce(store, 1)) == 1


def test_it_works_as_a_command_of_its_own(videos: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "twostream.cli", "flow", str(videos), "--out", str(tmp_path / "o")]
    command += ["--resize", "24", "--estimator", "dis", "--workers", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("flow: 4 videos done in")
