"""The store: what is read is what was written; what was damaged in any byte is noticed; settings are not mixed."""

import json
import pickle
import struct
import threading
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from twostream.files import OutputError
from twostream.flow import store as room
from twostream.flow import store_file
from twostream.flow.estimators import FlowError
from twostream.flow.quantize import dequantize, quantize
from twostream.flow.store import (
    FlowSettings,
    FlowStore,
    FlowStoreError,
    StoredFlow,
    StoredFlowWriter,
    stored_settings,
    stored_size,
    verify_store,
)

WIDTH, HEIGHT = 22, 16
PLAIN = FlowSettings(estimator="dis", short_side=16)
KEEPING = replace(PLAIN, frames=True)


def fields(count: int, *, seed: int = 0) -> np.ndarray:
    """(count, 2, H, W): noise, each with its number in a corner."""
    values = np.random.default_rng(seed).integers(118, 138, (count, 2, HEIGHT, WIDTH)).astype(np.uint8)
    values[:, 0, 0, 0] = np.arange(count)
    return values


def frames(count: int) -> np.ndarray:
    """(count, H, W, 3): a smooth picture, red to the right, green downwards, blue in time."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([np.stack([x * 11, y * 15, np.full_like(x, 40 * k)], -1) for k in range(count)]).astype(np.uint8)


def write(path: Path, count: int = 4, kept: FlowSettings = PLAIN, **provenance: Any) -> Path:
    """A file of ``count`` fields."""
    px = kept.precision == "float16"
    with StoredFlowWriter(path, kept, width=WIDTH, height=HEIGHT) as writer:
        for k in range(count + 1):
            if k:
                writer.add_field(dequantize(fields(count)[k - 1]) if px else fields(count)[k - 1])
            if kept.frames:
                writer.add_frame(frames(count + 1)[k])
        writer.finish(fps=12.5, source_width=44, source_height=32, provenance=provenance)
    return path


@pytest.mark.parametrize("kept", [PLAIN, KEEPING, replace(PLAIN, codec="fast")])
def test_what_is_read_is_what_was_written(tmp_path: Path, kept: FlowSettings) -> None:
    path = write(tmp_path / "a.flow", 6, kept, source={"name": "ä"})
    with StoredFlow(path) as stored:
        assert stored.bytes == path.stat().st_size
        assert (stored.frame_count, stored.field_count, stored.width, stored.height) == (7, 6, WIDTH, HEIGHT)
        assert (stored.source_width, stored.source_height, stored.fps, stored.bound) == (44, 32, 12.5, 20.0)
        assert stored.provenance == {"source": {"name": "ä"}}
        assert stored.settings == kept
        assert stored.has_frames == kept.frames
        assert np.array_equal(stored.flow([3, 1]), dequantize(fields(6)[[3, 1]]))
        assert np.array_equal(stored.fields(range(6)), fields(6))
        for wanted in ([5, 0, 3], [2, 2, 2], [4], [1, 2, 3, 2, 5, 0]):
            assert np.array_equal(stored.fields(wanted), fields(6)[wanted])
            assert np.array_equal(stored.fields(np.array(wanted, np.int32)), fields(6)[wanted])
        assert stored.fields([]).shape == (0, 2, HEIGHT, WIDTH)
        stored.verify()
        assert repr(stored) == f"StoredFlow('{tmp_path / 'a.flow'}', 7 frames, {WIDTH}x{HEIGHT})"


def test_kept_frames_come_back_in_their_colours(tmp_path: Path) -> None:
    with StoredFlow(write(tmp_path / "a.flow", 5, KEEPING)) as stored:
        wanted = [4, 0, 0, 5]
        got = stored.frames(wanted)
        assert got.shape == (4, HEIGHT, WIDTH, 3)
        # JPEG at 95 with colour at half resolution; swapped channels would be off by a hundred.
        assert np.abs(got.astype(int) - frames(6)[wanted]).mean() < 4
        assert stored.frames([]).shape == (0, HEIGHT, WIDTH, 3)


def test_a_single_frame_has_no_field(tmp_path: Path) -> None:
    for kept in (PLAIN, KEEPING):
        with StoredFlow(write(tmp_path / "a.flow", 0, kept)) as stored:
            assert (stored.frame_count, stored.field_count) == (1, 0)
            assert stored.fields([]).shape == (0, 2, HEIGHT, WIDTH)
            with pytest.raises(FlowStoreError, match="field 0 was asked for, but it has no fields"):
                stored.fields([0])


@pytest.mark.parametrize("wanted", [[6], [-1], [0, 99]])
def test_an_index_outside_is_named(tmp_path: Path, wanted: list[int]) -> None:
    with StoredFlow(write(tmp_path / "a.flow", 6, KEEPING)) as stored:
        with pytest.raises(FlowStoreError, match=r"field -?\d+ was asked for, but it has fields 0 to 5"):
            stored.fields(wanted)
        with pytest.raises(FlowStoreError, match=r"frame -?\d+ was asked for, but it has frames 0 to 6"):
            stored.frames([*wanted, 7])
        with pytest.raises(FlowError, match="field indices are a list of whole numbers"):
            stored.fields([0.5])  # type: ignore[list-item]


def test_frames_that_are_not_kept(tmp_path: Path) -> None:
    with (
        StoredFlow(write(tmp_path / "a.flow")) as stored,
        pytest.raises(FlowStoreError, match="this store keeps no frames; read them from the video"),
    ):
        stored.frames([0])


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    one, other = write(tmp_path / "a.flow", 5, KEEPING, b=1, a=2), write(tmp_path / "b.flow", 5, KEEPING, a=2, b=1)
    assert one.read_bytes() == other.read_bytes()
    assert FlowSettings(fps=10, bound=20).to_dict() == FlowSettings(fps=10.0).to_dict()
    assert type(FlowSettings(fps=10).fps) is float


def test_the_estimated_size_is_the_true_one(tmp_path: Path) -> None:
    overhead = write(tmp_path / "a.flow", 0).stat().st_size
    path = write(tmp_path / "b.flow", 3)
    assert overhead + sum(stored_size(f, None) for f in fields(3)) == path.stat().st_size
    assert stored_size(fields(1)[0], frames(1)[0]) > stored_size(fields(1)[0], None) + 200


def test_one_object_serves_threads_and_processes(tmp_path: Path) -> None:
    stored = StoredFlow(write(tmp_path / "a.flow", 40))
    wrong: list[int] = []

    def read(k: int) -> None:
        rng = np.random.default_rng(k)
        for _ in range(30):
            wanted = rng.integers(0, 40, 5)
            if not np.array_equal(stored.fields(wanted), fields(40)[wanted]):
                wrong.append(k)

    threads = [threading.Thread(target=read, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    copy = pickle.loads(pickle.dumps(stored))
    stored.close()
    stored.close()
    assert np.array_equal(copy.fields([7]), fields(40)[[7]])
    copy.close()


def test_a_forgotten_file_is_closed_quietly(tmp_path: Path) -> None:
    # Warnings are errors here: an open file that is collected would raise one.
    StoredFlow(write(tmp_path / "a.flow")).fields([0])


# Damage


def read_all(path: Path) -> None:
    with StoredFlow(path) as stored:
        stored.fields(range(stored.field_count))
        stored.frames(range(stored.frame_count))


def test_a_file_cut_anywhere_is_noticed(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.flow", 2, KEEPING).read_bytes()
    damaged = tmp_path / "b.flow"
    for length in [*range(0, len(whole), 23), len(whole) - 1]:
        damaged.write_bytes(whole[:length])
        with pytest.raises(FlowStoreError, match=r"b\.flow: .*Delete it and run the same command again"):
            StoredFlow(damaged)


@pytest.fixture(scope="module", params=["fast", "compact", "float16"])
def sound(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of three fields and four frames."""
    changes = {"precision": "float16"} if request.param == "float16" else {"codec": request.param}
    return write(tmp_path_factory.mktemp("sound") / "a.flow", 3, replace(KEEPING, **changes))


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 1 << 62), bit=st.integers(0, 7), cut=st.booleans())
@example(place=0, bit=0, cut=True)
@example(place=-1, bit=7, cut=False)
@example(place=-1, bit=7, cut=True)
def test_a_change_of_any_bit_and_any_cut_is_noticed(sound: Path, place: int, bit: int, cut: bool) -> None:
    data = bytearray(sound.read_bytes())
    place %= len(data)
    if cut:
        del data[place:]
    else:
        data[place] ^= 1 << bit
    damaged = sound.with_name("b.flow")
    damaged.write_bytes(data)
    with pytest.raises(FlowStoreError, match=r"b\.flow: .*Delete it and run the same command again"):
        read_all(damaged)
    with StoredFlow(sound) as whole:
        read = whole.fields(range(3)), whole.frames(range(4))
    try:
        stored = StoredFlow(damaged)
    except FlowStoreError:
        return
    # The header is sound, so one chunk is not; all others are read as ever.
    with stored:
        with pytest.raises(FlowStoreError, match="the checksum of chunk"):
            stored.verify()
        lost = 0
        for k in range(7):
            get, at, before = (stored.fields, k // 2, read[0]) if k % 2 else (stored.frames, k // 2, read[1])
            try:
                assert np.array_equal(get([at])[0], before[at])
            except FlowStoreError:
                lost += 1
        assert lost == 1


@pytest.mark.parametrize("extra", [b"\0", b"more" * 100])
def test_a_lengthened_file_is_noticed(tmp_path: Path, extra: bytes) -> None:
    path = write(tmp_path / "a.flow")
    path.write_bytes(path.read_bytes() + extra)
    with pytest.raises(FlowStoreError, match="cut short, or altered at its end"):
        StoredFlow(path)


def test_a_file_stuck_behind_another_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flow")
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(FlowStoreError, match="its parts do not add up"):
        StoredFlow(path)


def test_a_damaged_field_leaves_the_others_readable(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flow", 4)
    data = bytearray(path.read_bytes())
    data[8 + 20] ^= 1  # within the first field
    path.write_bytes(data)
    with StoredFlow(path) as stored:
        assert np.array_equal(stored.fields([1, 2, 3]), fields(4)[1:])
        with pytest.raises(FlowStoreError, match="the checksum of chunk 0 does not match"):
            stored.fields([1, 0])
        with pytest.raises(FlowStoreError, match="the checksum of chunk 0 does not match"):
            stored.verify()


def test_a_file_cut_while_it_is_open_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flow", 4)
    with StoredFlow(path) as stored:
        with path.open("r+b") as file:
            file.truncate(50)
        with pytest.raises(FlowStoreError, match="it is cut short"):
            stored.fields([3])


@pytest.mark.parametrize("content", [b"", b"text\n", b"\x89PNG" * 50, bytes(1000)])
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.flow"
    path.write_bytes(content)
    with pytest.raises(FlowStoreError, match="damaged or foreign flow file"):
        StoredFlow(path)


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(FlowStoreError, match=r"a\.flow: the flow of this video is not in the store; compute it with"):
        StoredFlow(tmp_path / "a.flow")
    with pytest.raises(FlowStoreError, match="cannot be opened"):
        StoredFlow(tmp_path)


def forge(
    path: Path, change: Callable[[dict[str, Any]], Any], chunks: Callable[[list[bytes]], None] | None = None
) -> Path:
    """The same file with another header, or other chunks, and all checksums right."""
    data = path.read_bytes()
    place, count, length, _ = struct.unpack_from("<QQII", data, len(data) - 36)
    header = json.loads(data[-36 - length : -36])
    changed = change(header)
    text = changed if isinstance(changed, bytes) else json.dumps(header).encode()
    parts, at = [], 8
    for k in range(count):
        size = struct.unpack_from("<I", data, place + 8 * k)[0]
        parts.append(data[at : at + size])
        at += size
    if chunks:
        chunks(parts)
    body = b"".join(struct.pack("<II", len(part), zlib.crc32(part)) for part in parts) + text
    start = data[:8] + b"".join(parts)
    footer = struct.pack("<QQII", len(start), len(parts), len(text), zlib.crc32(body))
    path.write_bytes(start + body + footer + struct.pack("<I", zlib.crc32(footer)) + data[-8:])
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h.update(frame_count=6), "4 chunks, which do not fit 6 frames"),
        (lambda h: h.update(frame_count=10**30), "chunks, which do not fit"),
        (lambda h: h.update(frame_count=5.0), "5.0 where a count is expected"),
        (lambda h: h.update(frame_count=True), "True where a count is expected"),
        (lambda h: h.update(frames={"codec": "jpeg"}), "4 chunks, which do not fit 5 frames"),
        (lambda h: h.update(frames={"codec": "gif"}), "its frames are kept as .*gif.* knows jpeg"),
        (lambda h: h.update(width=-3), "-3 where a count is expected"),
        (lambda h: h.update(width=70_000), "claims a grid of 70000x16 px"),
        (lambda h: h.update(width=60_000, height=60_000), "claims a grid of 60000x60000 px"),
        (lambda h: h.update(fps=-1), "claims -1.0 frames/s"),
        (lambda h: h.update(fps=float("nan")), "claims nan frames/s"),
        (lambda h: h.update(fps="fast"), "header cannot be read: ValueError"),
        (lambda h: h.update(format="twostream-flow-9"), "format 'twostream-flow-9', and this version reads"),
        (
            lambda h: h["fields"].update(codec="wavelet"),
            "kept as .*wavelet.* knows uint8 fast, uint8 compact, uint8 zstd",
        ),
        (lambda h: h["fields"].update(type="float64"), "fields are kept as .*float64"),
        (lambda h: h["settings"].update(bound=0), "a bound of 0.0 px"),
        (lambda h: h.update(provenance=3), "header cannot be read: TypeError"),
        (lambda h: h.__delitem__("provenance"), "header cannot be read: KeyError"),
        (lambda _: b"[]", "header cannot be read: TypeError"),
        (lambda _: b"{not json", "header cannot be read"),
        (lambda _: b"\xff\xfe", "header cannot be read"),
        (lambda _: b"[" * 500_000, "header cannot be read: RecursionError"),
        (lambda _: b" " * (1 << 20) + b"{}", "its parts do not add up"),
    ],
)
def test_a_foreign_header_is_not_believed(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    path = forge(write(tmp_path / "a.flow"), change)
    with pytest.raises(FlowStoreError, match=message):
        StoredFlow(path)


def test_settings_that_cannot_be_understood(tmp_path: Path) -> None:
    path = forge(write(tmp_path / "a.flow"), lambda h: h["settings"].update(estimator="raft"))
    with StoredFlow(path) as stored, pytest.raises(FlowStoreError, match="settings cannot be understood: no flow est"):
        _ = stored.settings
    with pytest.raises(FlowStoreError, match="settings cannot be understood"):
        FlowStore(tmp_path, PLAIN).open("a")


def replacing(chunk: bytes) -> Callable[[list[bytes]], None]:
    def change(parts: list[bytes]) -> None:
        parts[0] = chunk

    return change


@pytest.mark.parametrize("codec", ["fast", "compact", "zstd"])
@pytest.mark.parametrize(
    "chunk",
    [
        b"",
        b"noise",
        b"\xff" * 40,
        bytes(36) + b"more",
        zstandard.compress(bytes(99)),
        # A frame that claims 200 GB: nothing of that size may be allocated.
        b"\x28\xb5\x2f\xfd\xe0" + (200 << 30).to_bytes(8, "little") + b"\x01\x00\x00",
        zstandard.compress(bytes(2 * WIDTH * HEIGHT)) + b"more",
    ],
)
def test_a_foreign_field_is_not_believed(tmp_path: Path, codec: str, chunk: bytes) -> None:
    path = forge(write(tmp_path / "a.flow"), lambda h: h["fields"].update(codec=codec), replacing(chunk))
    with StoredFlow(path) as stored, pytest.raises(FlowStoreError, match="field 0 cannot be decoded"):
        stored.fields([0])


def test_the_files_of_before_are_still_read(tmp_path: Path) -> None:
    def older(header: dict[str, Any]) -> None:
        header["fields"]["codec"] = "zstd"
        del header["settings"]["codec"], header["settings"]["precision"]

    def plain(parts: list[bytes]) -> None:
        parts[:] = [zstandard.compress(field.tobytes()) for field in fields(4)]

    forge(write(tmp_path / "a.flow"), older, plain)
    with FlowStore(tmp_path, PLAIN).open("a") as stored:
        assert np.array_equal(stored.fields([3, 0]), fields(4)[[3, 0]])


def test_float16_keeps_px_and_is_quantized_on_reading(tmp_path: Path) -> None:
    flow = np.random.default_rng(0).normal(0, 30, (2, 2, HEIGHT, WIDTH)).astype(np.float32)
    half = replace(PLAIN, precision="float16")
    for codec in ("compact", "fast"):
        with StoredFlowWriter(tmp_path / "a.flow", replace(half, codec=codec), width=WIDTH, height=HEIGHT) as writer:
            for field in flow:
                writer.add_field(field)
            writer.finish(fps=25, source_width=1, source_height=1, provenance={})
        with StoredFlow(tmp_path / "a.flow") as stored:
            assert np.array_equal(stored.flow([1, 0, 1]), flow[[1, 0, 1]].astype(np.float16).astype(np.float32))
            assert np.array_equal(stored.fields([1, 0]), quantize(flow[[1, 0]].astype(np.float16)))
    assert stored_size(flow[0], None, half) > 1.5 * stored_size(flow[0], None)
    with (
        pytest.raises(FlowError, match="float16 keeps flow in px and floating point, got uint8"),
        start(tmp_path / "b.flow", half) as w,
    ):
        w.add_field(fields(1)[0])
    for value in (np.nan, 1e6):
        with (
            pytest.raises(FlowError, match="not finite, or beyond what float16"),
            start(tmp_path / "b.flow", half) as w,
        ):
            w.add_field(np.full_like(flow[0], value))


def test_float16_that_is_not_finite_is_not_believed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flow", 4, replace(PLAIN, precision="float16"))
    forge(path, lambda _: None, replacing(zstandard.compress(b"\xff" * (4 * HEIGHT * WIDTH))))
    with StoredFlow(path) as stored, pytest.raises(FlowStoreError, match="field 0 has values that are not finite"):
        stored.fields([0])


def test_flow_in_px_is_quantized_on_writing(tmp_path: Path) -> None:
    flow = np.random.default_rng(0).normal(0, 30, (2, HEIGHT, WIDTH)).astype(np.float32)
    with start(tmp_path / "a.flow", replace(PLAIN, bound=15)) as writer:
        writer.add_field(flow)
        writer.finish(fps=25, source_width=1, source_height=1, provenance={})
    with StoredFlow(tmp_path / "a.flow") as stored:
        assert np.array_equal(stored.fields([0])[0], quantize(flow, 15))


@pytest.mark.parametrize("chunk", [b"", b"noise"])
def test_a_foreign_frame_is_not_believed(tmp_path: Path, chunk: bytes) -> None:
    path = forge(write(tmp_path / "a.flow", 4, KEEPING), lambda _: None, replacing(chunk))
    with StoredFlow(path) as stored, pytest.raises(FlowStoreError, match="frame 0 cannot be decoded"):
        stored.frames([0])


def test_a_frame_of_another_size_is_not_believed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flow", 4, KEEPING)
    forge(path, lambda h: h.update(width=WIDTH + 2))
    with StoredFlow(path) as stored, pytest.raises(FlowStoreError, match="frame 1 cannot be decoded"):
        stored.frames([1])


# Writing


def start(path: Path, kept: FlowSettings = PLAIN) -> StoredFlowWriter:
    return StoredFlowWriter(path, kept, width=WIDTH, height=HEIGHT)


def write_wrongly(path: Path, *steps: str) -> None:
    with start(path, KEEPING) as writer:
        for step in steps:
            if step == "frame":
                writer.add_frame(frames(1)[0])
            elif step == "field":
                writer.add_field(fields(1)[0])
            else:
                writer.finish(fps=25, source_width=1, source_height=1, provenance={})


def test_what_does_not_fit_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.flow"
    with (
        pytest.raises(FlowError, match=r"be \(2, 16, 22\) uint8, or floating point in px, got \(2, 16, 20\) uint8"),
        start(path) as w,
    ):
        w.add_field(np.zeros((2, HEIGHT, 20), np.uint8))
    with (
        pytest.raises(FlowError, match=r"a frame must be \(16, 22, 3\) uint8, got .* float64"),
        start(path, KEEPING) as w,
    ):
        w.add_frame(np.zeros((HEIGHT, WIDTH, 3)))
    with pytest.raises(FlowError, match="frame 0 out of turn; the settings keep no frames"), start(path) as w:
        w.add_frame(frames(1)[0])
    with pytest.raises(FlowError, match="field 0 comes after frame 0"), start(path, KEEPING) as w:
        w.add_field(fields(1)[0])
    with pytest.raises(FlowError, match="frame 1 out of turn; the settings keep one before each field"):
        write_wrongly(path, "frame", "frame")
    with pytest.raises(FlowError, match="1 fields lie between 2 frames, got 1"):
        write_wrongly(path, "frame", "field", "finish")
    with pytest.raises(FlowError, match="left before its finish"), start(path) as w:
        w.add_field(fields(1)[0])
    with pytest.raises(FlowError, match="a provenance of"), start(path) as w:
        w.finish(fps=25, source_width=1, source_height=1, provenance={"log": "x" * (1 << 20)})
    for width, height in ((70_000, 16), (10_000, 10_000), (0, 16)):
        with pytest.raises(FlowError, match=f"a grid of {width}x{height} px is beyond what a flow store keeps"):
            StoredFlowWriter(path, PLAIN, width=width, height=height)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_older_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.flow")
    before = path.read_bytes()

    class Full:
        def write(self, _data: bytes) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_file, "atomic_write", lambda _path: nullcontext(Full()))
    with pytest.raises(OutputError, match=r"a\.flow: cannot be written \(No space left on device\)"):
        write(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.flow"]


# The folder


def test_settings_are_written_down_and_adopted(tmp_path: Path) -> None:
    root = tmp_path / "new" / "store"
    made = FlowSettings(estimator="farneback", parameters={"winsize": 9}, short_side=None, fps=10, bound=15)
    FlowStore(root, made).prepare()
    assert stored_settings(root) == made
    assert FlowStore(root).settings == made
    assert FlowStore(root, made).settings == made
    # Defaults are part of what is compared, however they were given.
    assert FlowStore(root, replace(made, parameters={"levels": 3, "winsize": 9.0})).settings == made
    FlowStore(root).prepare()
    assert [p.name for p in root.iterdir()] == ["store.json"]


def test_other_settings_are_refused_and_both_sets_named(tmp_path: Path) -> None:
    FlowStore(tmp_path, PLAIN).prepare()
    for change, difference in (
        ({"short_side": 32}, "short_side: 16, not 32"),
        ({"short_side": None}, "short_side: 16, not None"),
        ({"parameters": {"preset": "fast"}}, "preset: medium, not fast"),
        ({"fps": 5.0}, "fps: None, not 5.0"),
        ({"bound": 10.0}, "bound: 20.0, not 10.0"),
        ({"frames": True}, "frames: False, not True"),
        ({"precision": "float16"}, "precision: uint8, not float16"),
    ):
        with pytest.raises(FlowStoreError, match="Ask for the settings that it was made with, or name another") as e:
            FlowStore(tmp_path, replace(PLAIN, **{"parameters": {}, **change}))
        assert difference in str(e.value)
        assert f"made with: {PLAIN.describe()}" in str(e.value)
        assert "asked for: dis (preset=" in str(e.value)
    with pytest.raises(FlowStoreError, match="estimator: dis, not farneback"):
        FlowStore(tmp_path, FlowSettings(estimator="farneback", short_side=16))


def test_a_store_with_frames_serves_who_needs_none(tmp_path: Path) -> None:
    FlowStore(tmp_path, KEEPING).prepare()
    assert FlowStore(tmp_path, PLAIN).settings == KEEPING


def test_a_store_of_float16_serves_who_needs_8_bit(tmp_path: Path) -> None:
    half = replace(PLAIN, precision="float16")
    FlowStore(tmp_path, half).prepare()
    assert FlowStore(tmp_path, PLAIN).settings == half
    assert "float16" in half.describe()


def test_the_codec_is_the_stores_own_and_files_of_another_are_read(tmp_path: Path) -> None:
    FlowStore(tmp_path, PLAIN).prepare()
    store = FlowStore(tmp_path, replace(PLAIN, codec="fast"))
    assert store.settings.codec == "compact"
    write(store.path_for("a"), kept=replace(PLAIN, codec="fast"))
    with store.open("a") as stored:
        assert np.array_equal(stored.fields([2]), fields(4)[[2]])


def test_a_store_is_read_from_end_to_end(tmp_path: Path) -> None:
    store = FlowStore(tmp_path, PLAIN)
    store.prepare()
    for name in ("c/a", "c/b.avi", "d", "e"):
        write(store.path_for(name))
    damaged = bytearray(store.path_for("d").read_bytes())
    damaged[30] ^= 1
    store.path_for("d").write_bytes(damaged)
    write(store.path_for("e"), kept=replace(PLAIN, bound=9))
    (tmp_path / ".a.flow.0000.flow").write_text("what a killed writer left is not the store's")
    told: list[tuple[int, int, str]] = []
    report = verify_store(tmp_path, lambda *state: told.append(state))
    assert report.sound == ("c/a", "c/b.avi")
    assert report.fields == 8
    assert report.bytes == sum(store.path_for(name).stat().st_size for name in report.sound)
    assert "the checksum of chunk 0 does not match" in report.damaged["d"]
    assert "made with other settings" in report.damaged["e"]
    assert told == [(0, 4, "c/a"), (1, 4, "c/b.avi"), (2, 4, "d"), (3, 4, "e"), (4, 4, "")]
    assert report.lines()[0].startswith("2 files are sound (8 fields, ")
    assert "kB), 2 are not" in report.lines()[0]
    assert "leave it there and run: twostream flow DATA --out STORE --verify" in report.damaged["d"]
    assert len(report.lines()) == 3
    assert json.loads(json.dumps(report.to_dict()))["sound"] == ["c/a", "c/b.avi"]
    with pytest.raises(FlowStoreError, match="no flow store there"):
        verify_store(tmp_path / "c")


def test_a_store_made_meanwhile_with_other_settings(tmp_path: Path) -> None:
    late = FlowStore(tmp_path, PLAIN)
    FlowStore(tmp_path, KEEPING).prepare()
    late.prepare()  # these serve
    late = FlowStore(tmp_path / "b", PLAIN)
    FlowStore(tmp_path / "b", replace(PLAIN, bound=9)).prepare()
    with pytest.raises(FlowStoreError, match=r"bound: 9\.0, not 20\.0"):
        late.prepare()


def test_files_say_what_a_lost_store_file_said(tmp_path: Path) -> None:
    lost, made = tmp_path / "lost", replace(PLAIN, bound=9)
    write(lost / "class" / "a.flow", kept=made)
    (lost / "b.flow").write_bytes(b"not one of ours")
    assert FlowStore(lost).settings == made
    with pytest.raises(FlowStoreError, match=r"bound: 9\.0, not 20\.0"):
        FlowStore(lost, PLAIN)
    FlowStore(lost, made).prepare()
    assert json.loads((lost / "store.json").read_text())["settings"]["bound"] == 9
    # What is a store of its own says nothing of the folder around it.
    assert stored_settings(tmp_path) is None


def test_of_two_estimators_the_parameters_are_not_compared() -> None:
    difference = FlowSettings(estimator="farneback").difference(FlowSettings(estimator="imported", short_side=None))
    assert difference == "estimator: farneback, not imported, short_side: 256, not None"


def test_no_store_and_no_settings(tmp_path: Path) -> None:
    with pytest.raises(FlowStoreError, match="no flow store there; make one with: twostream flow DATA --out"):
        FlowStore(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(FlowStoreError, match="a file stands where the folder of a flow store must be"):
        FlowStore(tmp_path / "file", PLAIN)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read as the settings"),
        ("{}", "cannot be read as the settings"),
        ("[]", "cannot be read as the settings"),
        ('{"format": "other"}', r"of another format \(other\)"),
        ('{"format": "twostream-flow-store-1", "settings": {"colour": 1}}', "unknown flow settings colour"),
        ('{"format": "twostream-flow-store-1", "settings": {"bound": -1}}', "must be a number of px above 0"),
    ],
)
def test_a_damaged_store_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "store.json").write_text(text)
    with pytest.raises(FlowStoreError, match=rf"store\.json: .*{message}"):
        FlowStore(tmp_path, PLAIN)


def test_files_of_other_settings_are_refused(tmp_path: Path) -> None:
    store = FlowStore(tmp_path, PLAIN)
    write(store.path_for("good"))
    write(store.path_for("bad"), kept=replace(PLAIN, bound=15))
    assert store.has("good")
    assert not store.has("bad")
    assert not store.has("absent")
    store.open("good").close()
    with pytest.raises(FlowStoreError, match="made with other settings than its store") as error:
        store.open("bad")
    assert "bound 15 px" in str(error.value)
    assert "bound 20 px" in str(error.value)


def test_has_is_false_for_what_was_damaged(tmp_path: Path) -> None:
    store = FlowStore(tmp_path, PLAIN)
    path = write(store.path_for("a"))
    path.write_bytes(path.read_bytes()[:-1])
    assert not store.has("a")


def test_a_file_that_knew_fewer_parameters_is_still_read(tmp_path: Path) -> None:
    # Later versions may add a parameter; what is not in an older file has its default.
    path = forge(write(tmp_path / "a.flow"), lambda h: h["settings"]["parameters"].pop("patch_size"))
    forge(path, lambda h: h["settings"].pop("frames"))
    FlowStore(tmp_path, PLAIN).open("a").close()


def test_names_become_paths_within_the_store(tmp_path: Path) -> None:
    store = FlowStore(tmp_path, PLAIN)
    assert store.path_for("Class/v one.avi") == tmp_path / "Class" / "v one.avi.flow"
    assert store.path_for("-x.mp4") == tmp_path / "-x.mp4.flow"
    assert FlowStore("rel", PLAIN).path_for("a") == Path("rel/a.flow")
    for name in ("", ".", "/etc/passwd", "..", "../a", "a/../../b", "a/..", "a\0b"):
        with pytest.raises(FlowStoreError, match="cannot be the name of a video in a flow store"):
            store.path_for(name)


def test_a_store_can_be_sent_to_another_process(tmp_path: Path) -> None:
    store = FlowStore(tmp_path, KEEPING)
    copy = pickle.loads(pickle.dumps(store))
    assert (copy.root, copy.settings) == (store.root, store.settings)
    assert repr(copy) == f"FlowStore('{tmp_path}', {KEEPING.describe()})"


def test_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write(tmp_path / "file" / "a.flow")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"estimator": "raft"}, "no flow estimator is called 'raft'"),
        ({"parameters": {"speed": 1}}, "tvl1 has no parameter speed"),
        ({"short_side": 15}, "a whole number of px, 16 to 8192 .* got 15"),
        ({"short_side": 8193}, "16 to 8192 .* got 8193"),
        ({"short_side": 64.5}, "a whole number of px"),
        ({"fps": 0}, "common frame rate must lie above 0"),
        ({"fps": float("nan")}, "common frame rate must lie above 0"),
        ({"fps": "ten"}, "common frame rate must lie above 0"),
        ({"bound": 0}, "bound of stored flow must be a number of px above 0, got 0"),
        ({"bound": -20.0}, "got -20.0"),
        ({"frames": 1}, "frames is true or false, got 1"),
        ({"estimator": "imported", "parameters": {"tau": 1}}, "flow that was imported has no parameters, got tau"),
        ({"precision": "float32"}, "the precision of stored flow is uint8 or float16, got 'float32'"),
        ({"codec": "zstd"}, "the codec of stored flow is compact or fast, got 'zstd'"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(FlowError, match=message):
        FlowSettings(**wrong)


def test_settings_in_words_and_back() -> None:
    made = FlowSettings(estimator="farneback", short_side=None, fps=10, frames=True)
    assert made.describe() == (
        "farneback (pyr_scale=0.5, levels=3, winsize=15, iterations=3, poly_n=5, poly_sigma=1.2), "
        "each video's own size, 10 frames/s, bound 20 px, with frames"
    )
    assert FlowSettings.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    assert FlowSettings().describe().endswith("short side 256, own frame rate, bound 20 px, without frames")
    assert room.SUFFIX == ".flow"
