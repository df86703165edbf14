"""Folders of flow images: which layout, whether they fit the video, and that what is read and written is the same."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from twostream.files import OutputError
from twostream.flow import layouts as room
from twostream.flow.layouts import (
    LAYOUTS,
    LayoutError,
    detect_layout,
    export_dataset,
    export_folder,
    find_videos,
    import_dataset,
    import_folder,
    imported_settings,
)
from twostream.flow.settings import FlowSettings
from twostream.flow.store import FlowStore, FlowStoreError, StoredFlow, StoredFlowWriter

WIDTH, HEIGHT = 24, 16


def image(value: int, *, width: int = WIDTH) -> np.ndarray:
    """Flat, so that JPEG at 100 keeps it to the value."""
    return np.full((HEIGHT, width), value, np.uint8)


def put(root: Path, layout: str, video: str, count: int, *, first: int | None = None, frames: int = 0) -> Path:
    """A video's images: u of field k is 100 + k, v is 200 - k, frame k is grey 10 k; gives the folder."""
    names = LAYOUTS[layout]
    start = names.first if first is None else first

    def write(pattern: str, index: int, picture: np.ndarray) -> Path:
        path = root / pattern.format(video=video, index=index + start)
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, 100])
        return path

    for k in range(count):
        write(names.v, k, image(200 - k))
        path = write(names.u, k, image(100 + k))
    for k in range(frames):
        assert names.frame
        write(names.frame, k, np.repeat(image(10 * k)[..., None], 3, 2))
    return path.parent


def make_store(root: Path, **options: object) -> FlowStore:
    return FlowStore(root, imported_settings(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("video", ["v_Dive_g01_c01", "Dive/v_g01"])
def test_each_layout_is_known_by_its_files(tmp_path: Path, layout: str, video: str) -> None:
    folder = put(tmp_path, layout, video, 4)
    found = detect_layout(folder)
    assert (found.layout, found.first, found.folder) == (layout, LAYOUTS[layout].first, folder)
    assert [len(found.u), len(found.v), len(found.frames)] == [4, 4, 0]
    assert find_videos(tmp_path) == {video: folder}
    assert found.describe() == f"{folder}: {layout}, 4 fields numbered from {LAYOUTS[layout].first}"
    store = make_store(tmp_path / "store")
    assert import_folder(found, store, f"{video}.avi", fps=25, frame_count=5, source={"bytes": 7}) == 4
    with store.open(f"{video}.avi") as stored:
        read = stored.fields(range(4))
        assert read[:, 0, 3, 3].tolist() == [100, 101, 102, 103]
        assert read[:, 1, 3, 3].tolist() == [200, 199, 198, 197]
        assert (stored.frame_count, stored.fps, stored.width, stored.height) == (5, 25.0, WIDTH, HEIGHT)
        assert stored.provenance["source"] == {"name": f"{video}.avi", "bytes": 7}
        assert stored.provenance["imported"] == {
            "layout": layout,
            "first": LAYOUTS[layout].first,
            "fields": 4,
            "estimator": "unknown",
            "bound": "as stated by the user",
            "images": "JPEG, decoded grey values",
            "checked_by": "the video's frames",
        }
        assert (
            stored.settings.describe() == "imported, each video's own size, own frame rate, bound 20 px, without frames"
        )


def test_the_first_number_is_found_not_presumed(tmp_path: Path) -> None:
    found = detect_layout(put(tmp_path, "mmaction2", "v", 3, first=0, frames=4))
    assert (found.layout, found.first, len(found.frames)) == ("mmaction2", 0, 4)
    assert found.describe().endswith("3 fields numbered from 0 and 4 frames")


def test_frames_come_along(tmp_path: Path) -> None:
    folder = put(tmp_path, "tsn", "v", 3, frames=4)
    store = make_store(tmp_path / "store", frames=True, bound=15.0, codec="fast", fps=10)
    # No count is given, so the frames beside the flow are counted.
    assert import_folder(folder, store, "v", fps=10) == 3
    with store.open("v") as stored:
        assert stored.settings.fps == 10
        assert stored.frames([0, 3])[:, 5, 5].tolist() == [[0, 0, 0], [30, 30, 30]]
        assert stored.bound == 15
        assert stored.provenance["imported"]["checked_by"] == "the frames beside the flow"
    bare = put(tmp_path, "tsn", "w", 3)
    with pytest.raises(LayoutError, match="the store keeps frames, and there are 0 of them beside 3 fields; 4 are"):
        import_folder(bare, store, "w", fps=25)
    assert import_folder(bare, make_store(tmp_path / "other"), "w", fps=25) == 3
    with FlowStore(tmp_path / "other", imported_settings()).open("w") as stored:
        assert stored.provenance["imported"]["checked_by"] == "nothing"


@pytest.mark.parametrize(
    ("frame_count", "message"),
    [
        (4, r"4 fields to 4 frames \(counted by the video's frames\), where 3 are expected: some .* --drop-last"),
        (6, "4 fields to 6 frames .* where 5 are expected: extractors that compare frames two apart, or lose the last"),
        (50, "4 fields to 50 frames .*: they are not of this video, or were not all written"),
    ],
)
def test_fields_that_do_not_fit_the_video(tmp_path: Path, frame_count: int, message: str) -> None:
    folder = put(tmp_path, "tsn", "v", 4)
    with pytest.raises(LayoutError, match=message):
        import_folder(folder, make_store(tmp_path / "store"), "v", fps=25, frame_count=frame_count)
    assert not (tmp_path / "store").exists()


def test_a_last_field_too_many_can_be_left_away(tmp_path: Path) -> None:
    folder = put(tmp_path, "tsn", "v", 4)
    store = make_store(tmp_path / "store")
    for frame_count, fields in ((4, 3), (5, 4), (None, 3)):
        assert import_folder(folder, store, "v", fps=25, frame_count=frame_count, drop_last=True) == fields


def damage(change: Callable[[Path], object], layout: str = "tsn") -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        folder = put(root, layout, "v", 5)
        change(folder)
        return folder

    return make


def both(folder: Path, index: int) -> None:
    for axis in "xy":
        (folder / f"flow_{axis}_{index:05d}.jpg").unlink()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: root / "none", "none: cannot be read"),
        (lambda root: root, "no flow images; a video's folder has flow_x_00001.jpg"),
        (
            damage(lambda f: (f / "flow_y_00002.jpg").unlink()),
            "horizontal flow without the vertical one for 1 of 5 images, the first flow_x_00002.jpg",
        ),
        (
            damage(lambda f: [(f / f"flow_x_{k:05d}.jpg").unlink() for k in range(1, 6)]),
            "vertical flow without the horizontal one for 5 of 5 images, the first flow_y_00001.jpg",
        ),
        (
            damage(lambda f: both(f, 3)),
            "the flow images are numbered from 1 to 5, but there are 4 of them; number 3 is the first that is missing",
        ),
        (
            damage(lambda f: [both(f, k) for k in (1, 2)]),
            "the flow images begin with flow_x_00003.jpg; numbers begin at 0 or 1",
        ),
        (damage(lambda f: cv2.imwrite(str(f / "x_00001.jpg"), image(9))), "flow images of two layouts"),
        (
            damage(lambda f: shutil.copy(f / "flow_x_00001.jpg", f / "flow_x_1.jpg")),
            "two images have the number 1",
        ),
        (
            damage(lambda f: shutil.rmtree(f.parents[1] / "v"), "feichtenhofer"),
            "horizontal flow without the vertical one, which would be in .*v",
        ),
        (
            damage(lambda f: (f.parents[1] / "v" / "v" / "frame000002.jpg").unlink(), "feichtenhofer"),
            "horizontal flow without the vertical one for 1 of 5 images, the first frame000002.jpg",
        ),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, make: Callable[[Path], Path], message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        detect_layout(make(tmp_path))


def test_frames_by_themselves_are_no_flow(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "frame000001.jpg"), image(1))
    with pytest.raises(LayoutError, match="which are flow only below folders u and v"):
        detect_layout(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: cv2.imwrite(str(f / "flow_y_00003.jpg"), image(9, width=30)), r"flow_y_00003\.jpg: 30x16 px, where"),
        (
            lambda f: cv2.imwrite(str(f / "flow_y_00003.jpg"), np.repeat(image(9)[..., None], 3, 2)),
            "flow_y_00003.jpg: a flow image is grey, and this one has colours",
        ),
        (lambda f: (f / "flow_x_00004.jpg").write_bytes(b"no"), "flow_x_00004.jpg: cannot be decoded as an image"),
        (lambda f: (f / "flow_x_00004.jpg").write_bytes(b""), "flow_x_00004.jpg: cannot be decoded as an image"),
        (
            lambda f: [(f / "flow_x_00004.jpg").unlink(), (f / "flow_x_00004.jpg").mkdir()],
            r"flow_x_00004\.jpg: cannot be read",
        ),
    ],
)
def test_images_that_do_not_belong(tmp_path: Path, change: Callable[[Path], object], message: str) -> None:
    folder = put(tmp_path, "tsn", "v", 5)
    change(folder)
    store = make_store(tmp_path / "store")
    with pytest.raises(LayoutError, match=message):
        import_folder(folder, store, "v", fps=25)
    assert not store.has("v")


def test_flow_is_imported_into_a_store_of_its_own(tmp_path: Path) -> None:
    folder = put(tmp_path, "tsn", "v", 2)
    with pytest.raises(LayoutError, match=r"holds flow that was computed .*; import into"):
        import_folder(folder, FlowStore(tmp_path / "store", FlowSettings()), "v", fps=25)
    with pytest.raises(LayoutError, match="frame rate of the video must lie above 0 and up to 1000, got 0"):
        import_folder(folder, make_store(tmp_path / "store"), "v", fps=0)


def test_a_whole_data_set_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    for video, count in (("A/v1", 3), ("A/v2", 4), ("B/v3", 2)):
        put(root, "denseflow", video, count)
    store = make_store(tmp_path / "store")
    told: list[tuple[int, int, str]] = []
    options = {"frame_counts": {"A/v1": 4, "A/v2": 9}, "names": {"B/v3": "B/v3.avi"}, "sources": {"A/v1": {"bytes": 1}}}
    summary = import_dataset(root, store, fps=25, progress=lambda *state: told.append(state), **options)  # type: ignore[arg-type]
    assert (summary.done, summary.skipped, summary.fields) == (("A/v1", "B/v3"), (), 5)
    assert "4 fields to 9 frames" in summary.failed["A/v2"]
    assert told == [(0, 3, "A/v1"), (1, 3, "A/v2"), (2, 3, "B/v3"), (3, 3, "")]
    assert FlowStore(tmp_path / "store").has("B/v3.avi")
    with store.open("A/v1") as stored:
        assert stored.provenance["source"]["bytes"] == 1
    again = import_dataset(root, store, fps=25, names=options["names"])
    assert (again.done, again.skipped) == (("A/v2",), ("A/v1", "B/v3"))
    assert summary.lines()[0] == "2 videos done (5 fields), 0 were there already, 1 failed"
    assert summary.lines()[1].startswith("failed: A/v2: ")
    assert json.loads(json.dumps(summary.to_dict()))["done"] == ["A/v1", "B/v3"]
    with pytest.raises(LayoutError, match="A/v1 and A/v2 would both be x in the store"):
        import_dataset(root, store, fps=25, names={"A/v1": "x", "A/v2": "x"})


def test_where_there_are_no_videos(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="no flow images in it or below; known are tsn, denseflow"):
        find_videos(tmp_path)
    with pytest.raises(LayoutError, match="no such folder"):
        find_videos(tmp_path / "none")
    put(tmp_path.parent, "tsn", tmp_path.name, 2)
    # What a killed export left behind.
    put(tmp_path, "tsn", ".v.0.partial", 2)
    assert find_videos(tmp_path) == {tmp_path.name: tmp_path}


# Writing


def computed(root: Path, *names: str, frames: bool = False) -> FlowStore:
    store = FlowStore(root, FlowSettings(short_side=16, frames=frames))
    store.prepare()
    for name in names:
        with StoredFlowWriter(store.path_for(name), store.settings, width=WIDTH, height=HEIGHT) as writer:
            for k in range(20):
                if frames:
                    writer.add_frame(np.repeat(image(10 * k)[..., None], 3, 2))
                if k < 19:
                    writer.add_field(np.stack([image(100 + k), image(200 - k)]))
            writer.finish(fps=25, source_width=1, source_height=1, provenance={})
    return store


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_exported_is_imported_again(tmp_path: Path, layout: str) -> None:
    store = computed(tmp_path / "store", "A/v.avi", frames=True)
    with store.open("A/v.avi") as stored:
        assert export_folder(stored, tmp_path / "out", "A/v", layout, quality=100) == 19
    (name, folder), *none = find_videos(tmp_path / "out").items()
    found = detect_layout(folder)
    assert (name, none, found.layout) == ("A/v", [], layout)
    assert len(found.frames) == (0 if layout == "feichtenhofer" else 20)
    names = LAYOUTS[layout]
    for pattern in (names.u, names.v):
        assert (tmp_path / "out" / pattern.format(video="A/v", index=names.first)).exists()
    back = make_store(tmp_path / "back", frames=layout != "feichtenhofer")
    import_folder(found, back, "v", fps=25, frame_count=20)
    with back.open("v") as one, store.open("A/v.avi") as other:
        assert np.array_equal(one.fields(range(19)), other.fields(range(19)))
        if layout != "feichtenhofer":
            assert np.array_equal(one.frames([3, 19]), other.frames([3, 19]))


def test_a_whole_store_is_exported_and_goes_on(tmp_path: Path) -> None:
    store = computed(tmp_path / "store", "A/v1.avi", "v2", "v4.5")
    told: list[tuple[int, int, str]] = []
    summary = export_dataset(
        store, tmp_path / "out", "tsn", ["A/v1.avi", "v2", "v3"], progress=lambda *s: told.append(s)
    )
    assert (summary.done, summary.skipped, summary.fields) == (("A/v1.avi", "v2"), (), 38)
    assert "v3.flow: the flow of this video is not in the store" in summary.failed["v3"]
    assert told == [(0, 3, "A/v1.avi"), (1, 3, "v2"), (2, 3, "v3"), (3, 3, "")]
    again = export_dataset(store, tmp_path / "out", "tsn", ["A/v1.avi", "v4.5"])
    assert (again.done, again.skipped) == (("v4.5",), ("A/v1.avi",))
    assert sorted(find_videos(tmp_path / "out")) == ["A/v1", "v2", "v4.5"]
    with pytest.raises(LayoutError, match=r"v2\.avi and v2 would both be v2 in "):
        export_dataset(store, tmp_path / "out", "tsn", ["v2.avi", "v2"])
    with pytest.raises(LayoutError, match="no layout is called 'hdf5'; there are: tsn, denseflow, mmaction2, feicht"):
        export_dataset(store, tmp_path / "out", "hdf5", ["v2"])


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    store = computed(tmp_path / "store", "v")
    with store.open("v") as stored:
        with pytest.raises(LayoutError, match="no layout is called 'hdf5'"):
            export_folder(stored, tmp_path, "v", "hdf5")
        with pytest.raises(LayoutError, match="quality of JPEG is 1 to 100, got 0"):
            export_folder(stored, tmp_path, "v", "tsn", quality=0)
        for name in ("", "../v", "/v", "a\0b"):
            with pytest.raises(LayoutError, match="cannot be the name of a folder"):
                export_folder(stored, tmp_path, name, "tsn")
        export_folder(stored, tmp_path / "out", "v", "tsn")
        with pytest.raises(LayoutError, match=r"v: is there already; remove it, or name another folder"):
            export_folder(stored, tmp_path / "out", "v", "tsn")
        (tmp_path / "file").write_text("")
        with pytest.raises(OutputError, match="cannot be written"):
            export_folder(stored, tmp_path / "file", "v", "tsn")
        with pytest.raises(OutputError, match="cannot be written"):
            export_dataset(store, tmp_path / "file", "tsn", ["v"])


@pytest.mark.parametrize("layout", ["tsn", "feichtenhofer"])
def test_a_video_that_was_not_finished_is_not_there(
    tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = computed(tmp_path / "store", "v")
    written = room._write

    def full(path: Path, *rest: object) -> None:
        if "00017" in path.name:
            raise OSError(28, "No space left on device")
        written(path, *rest)  # type: ignore[arg-type]

    with store.open("v") as stored:
        with monkeypatch.context() as patch:
            patch.setattr(room, "_write", full)
            with pytest.raises(
                OutputError, match=r"v: cannot be written \(No space left on device\); nothing was left"
            ):
                export_folder(stored, tmp_path / "out", "v", layout)
        assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
        if layout == "feichtenhofer":
            # Killed between the two halves: the first one is written over.
            (tmp_path / "out" / "v" / "v").mkdir()
            (tmp_path / "out" / "v" / "v" / "frame000099.jpg").write_bytes(b"")
        assert export_folder(stored, tmp_path / "out", "v", layout) == 19
    assert len(detect_layout(next(iter(find_videos(tmp_path / "out").values()))).u) == 19


def test_a_damaged_file_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    store = computed(tmp_path / "store", "v1", "v2")
    data = bytearray(store.path_for("v1").read_bytes())
    data[30] ^= 1
    store.path_for("v1").write_bytes(data)
    summary = export_dataset(store, tmp_path / "out", "mmaction2", ["v1", "v2"])
    assert summary.done == ("v2",)
    assert "the checksum of chunk" in summary.failed["v1"]
    assert not (tmp_path / "out" / "v1").exists()
    with StoredFlow(store.path_for("v1")) as stored, pytest.raises(FlowStoreError):
        export_folder(stored, tmp_path / "out", "v1", "tsn")


@pytest.mark.data
def test_a_folder_of_mmaction2(real_data: Path, tmp_path: Path) -> None:
    found = detect_layout(real_data / "rawframes_demo" / "mmaction2_imgs")
    assert (found.layout, found.first, len(found.u), len(found.frames)) == ("mmaction2", 1, 5, 10)
    store = make_store(tmp_path / "store")
    # It is an excerpt, and says so by its counts.
    with pytest.raises(
        LayoutError, match=r"5 fields to 10 frames \(counted by the frames beside the flow\), where 9 are"
    ):
        import_folder(found, store, "demo", fps=25)
    assert import_folder(found, store, "demo", fps=25, frame_count=6) == 5
    with store.open("demo") as stored:
        first = cv2.imread(str(found.u[0]), cv2.IMREAD_GRAYSCALE)
        assert np.array_equal(stored.fields([0])[0, 0], first)
        assert (stored.width, stored.height) == (320, 240)
