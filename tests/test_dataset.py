"""From a store or a video to clips: the right fields and frames, the same region, the same draws everywhere."""

import os
import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from twostream.clip import Clip, InputSpec, check_batch
from twostream.data.dataset import EpochSampler, VideoDataset, ViewDataset, plan_views
from twostream.data.items import DataError, VideoItem
from twostream.data.sampling import sample_middle, sample_training, sample_views
from twostream.data.transforms import Augment
from twostream.errors import UsageError
from twostream.evaluation.protocols import get_protocol, view_dataset
from twostream.flow.quantize import flip_horizontal
from twostream.flow.store import FlowSettings, FlowStore, StoredFlowWriter
from twostream.video import Video, write_video

WIDTH, HEIGHT = 48, 36
SPEC = InputSpec(size=28, resize=32)
STRIDED = SPEC.with_(sampling="strided", steps=3, snippets=3, stride=(2, 6))
SNIPPETS = SPEC.with_(sampling="snippets", snippets=3, stride=(1, 10), flow_offset=0)
AUGMENT = Augment(colour=0.2)


def frame(k: int) -> np.ndarray:
    """Red tells the column, green the row, blue the frame's number."""
    x, y = np.meshgrid(np.linspace(20, 230, WIDTH), np.linspace(20, 230, HEIGHT))
    return np.stack([x, y, np.full_like(x, 3 * k)], axis=-1).round().astype(np.uint8)


def field(k: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """u is the field's number, v tells the column."""
    v = np.broadcast_to(np.linspace(20, 230, width).round().astype(np.uint8), (height, width))
    return np.stack([np.full((height, width), k, np.uint8), v])


def write_stored(store: FlowStore, name: str, fields: Sequence[np.ndarray], frames: Sequence[np.ndarray] = ()) -> None:
    height, width = fields[0].shape[1:]
    with StoredFlowWriter(store.path_for(name), store.settings, width=width, height=height) as writer:
        for k in range(len(fields) + 1):
            if len(frames):
                writer.add_frame(frames[k])
            if k < len(fields):
                writer.add_field(fields[k])
        writer.finish(fps=25.0, source_width=WIDTH, source_height=HEIGHT, provenance={})


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos whose pixels tell where and when they are: 60 and 40 frames at 25 per second."""
    root = tmp_path_factory.mktemp("videos")
    for name, count in (("walk/a.mp4", 60), ("run/b.mp4", 40)):
        (root / name).parent.mkdir()
        assert write_video(root / name, (frame(k) for k in range(count)), 25.0, crf=1) == count
    return root


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FlowStore:
    """Their flow, at the videos' own size, without frames."""
    store = FlowStore(tmp_path_factory.mktemp("flow"), FlowSettings(short_side=HEIGHT))
    for name, count in (("walk/a.mp4", 60), ("run/b.mp4", 40)):
        write_stored(store, name, [field(k) for k in range(count - 1)])
    return store


@pytest.fixture(scope="module")
def items(videos: Path) -> tuple[VideoItem, ...]:
    return (
        VideoItem(path=videos / "walk/a.mp4", video="walk/a.mp4", label=1),
        VideoItem(path=videos / "run/b.mp4", video="run/b.mp4", label=0),
    )


def same(one: Clip, other: Clip) -> bool:
    return torch.equal(one.rgb, other.rgb) and torch.equal(one.flow, other.flow) and one[2:] == other[2:]


def numbers(clip: Clip) -> tuple[np.ndarray, np.ndarray]:
    """Frame numbers (..., T) and field numbers (..., S, L) as the clip's own pixels tell them."""
    rgb, flow = clip.rgb.numpy(), clip.flow.numpy()
    u = flow[..., 0::2, :, :]
    assert (u.min(axis=(-1, -2)) == u.max(axis=(-1, -2))).all()
    blue = np.round(rgb[..., 2, :, :].mean(axis=(-1, -2)) / 3)
    return blue.astype(int), u[..., 0, 0].astype(int)


@pytest.mark.parametrize("spec", [SPEC, SPEC.with_(steps=3, snippets=3), STRIDED, SNIPPETS])
@pytest.mark.parametrize("index", [0, 1])
def test_a_training_clip_holds_the_frames_and_fields_that_are_drawn(
    items: Sequence[VideoItem], store: FlowStore, spec: InputSpec, index: int
) -> None:
    dataset = VideoDataset(items, store, spec, seed=7, augment=Augment(flip=0.0))
    clip = dataset[3, index]
    drawn = sample_training(spec, (60, 40)[index], np.random.default_rng((7, 3, index)))
    frames, fields = numbers(clip)
    assert frames.tolist() == drawn.frames.tolist()
    assert fields.tolist() == drawn.fields.tolist()
    assert (clip.label, clip.item) == (items[index].label, index)
    assert clip.rgb.dtype == clip.flow.dtype == torch.uint8
    assert clip.rgb.is_contiguous()
    assert clip.flow.is_contiguous()
    assert clip.rgb.shape == (spec.steps, 3, 28, 28)
    assert clip.flow.shape == (spec.snippets, 20, 28, 28)
    check_batch(clip.rgb[None], clip.flow[None], spec)


def test_both_streams_see_the_same_region_and_are_mirrored_together(
    items: Sequence[VideoItem], store: FlowStore
) -> None:
    mirrored = 0
    dataset = VideoDataset(items, store, SPEC, augment=Augment())
    for epoch in range(12):
        clip = dataset[epoch, 0]
        columns, v = clip.rgb[0, 0].int(), clip.flow[0, 1].int()
        assert (columns - v).abs().max() <= 6  # what H.264 makes of a ramp
        backwards = bool(v[0, 0] > v[0, -1])
        mirrored += backwards
        # The number of the field, or 255 minus it.
        assert (int(clip.flow[0, 0, 0, 0]) > 127) == backwards
    assert 0 < mirrored < 12


def swinging(k: int) -> np.ndarray:
    """A field in which only the right end of the frame moves."""
    flow = np.full((2, HEIGHT, WIDTH), 128, np.uint8)
    flow[0, 10:30, 36:] = 128 + (30 if k % 2 else -30)
    return flow


def test_crops_are_taken_from_where_something_moves(items: Sequence[VideoItem], tmp_path: Path) -> None:
    store = FlowStore(tmp_path, FlowSettings(short_side=HEIGHT))
    write_stored(store, "walk/a.mp4", [swinging(k) for k in range(59)])
    spec = SPEC.with_(region="motion", resize=28)
    columns = frame(0)[0, :, 0].astype(float)
    drawn = VideoDataset(items, store, spec, augment=Augment(flip=0.0))
    for epoch in range(6):
        assert columns[14] < float(drawn[epoch, 0].rgb[0, 0].min()), "the left does not move"
    dataset = VideoDataset(items, store, spec, augment=None)
    clip = dataset[0]
    moving = clip.flow[0, 0] != 128
    assert moving.float().mean() > 0.25, "a seventh of the whole frame"
    # The same region in both streams: motion is where the right end of the ramp is.
    assert float(clip.rgb[0, 0].float().mean(0)[moving.float().mean(0) > 0.3].min()) > columns[33]
    views = ViewDataset(items, store, spec, steps=3, space="whole", flips=True)[0]
    assert views.rgb.shape[-2:] == (28, 28), "a square region"
    assert torch.equal(
        views.flow[1],
        torch.from_numpy(flip_horizontal(views.flow[0].numpy().reshape(10, 2, 28, 28))).reshape(1, 20, 28, 28),
    )
    again = pickle.loads(pickle.dumps(dataset))
    assert same(again[0], clip)


def test_a_network_that_looks_at_motion_needs_a_store(items: Sequence[VideoItem]) -> None:
    with pytest.raises(UsageError, match="needs a flow store, even if it reads no flow"):
        VideoDataset(items, None, SPEC.with_(region="motion", streams=("appearance",)))


def test_held_out_clips_are_the_middle_through_the_centre(items: Sequence[VideoItem], store: FlowStore) -> None:
    dataset = VideoDataset(items, store, STRIDED, seed=1)
    clip = dataset[0]
    middle = sample_middle(STRIDED, 60)
    frames, fields = numbers(clip)
    assert frames.tolist() == middle.frames.tolist()
    assert fields.tolist() == middle.fields.tolist()
    v = clip.flow[0, 1, 0]
    # 31.5 of the 48 columns, in the middle.
    assert abs((int(v[0]) - 20) - (230 - int(v[-1]))) <= 4
    assert same(clip, dataset[5, 0])
    assert same(clip, VideoDataset(items, store, STRIDED, seed=2)[0])


def test_draws_follow_from_seed_epoch_and_index(items: Sequence[VideoItem], store: FlowStore) -> None:
    dataset = VideoDataset(items, store, SPEC, seed=1, augment=AUGMENT)
    clip = dataset[2, 1]
    dataset[0], dataset[2, 0]
    assert same(clip, dataset[2, 1])
    assert same(clip, VideoDataset(items, store, SPEC, seed=1, augment=AUGMENT)[2, 1])
    assert same(dataset[1], dataset[0, 1])
    assert not same(clip, dataset[3, 1])
    assert not same(clip, VideoDataset(items, store, SPEC, seed=2, augment=AUGMENT)[2, 1])
    twins = VideoDataset([items[0], items[0]], store, SPEC, seed=1, augment=AUGMENT)
    assert not torch.equal(twins[0].flow, twins[1].flow)


def load(dataset: Dataset[Clip], workers: int, **options: Any) -> list[Clip]:
    loader = DataLoader(dataset, num_workers=workers, multiprocessing_context="spawn" if workers else None, **options)
    return [Clip(*batch) for batch in loader]


def test_any_number_of_workers_draws_the_same(items: Sequence[VideoItem], store: FlowStore) -> None:
    dataset = VideoDataset(items * 4, store, STRIDED, seed=3, augment=AUGMENT)
    dataset[0]  # an open video does not have to cross to the workers

    def batches(workers: int) -> list[Clip]:
        sampler = EpochSampler(len(dataset), seed=3)
        sampler.set_epoch(4)
        return load(dataset, workers, batch_size=3, sampler=sampler)

    alone, helped = batches(0), batches(2)
    assert [batch.item.tolist() for batch in alone] == [batch.item.tolist() for batch in helped]
    assert [tuple(batch.rgb.shape) for batch in alone] == [(3, 3, 3, 28, 28), (3, 3, 3, 28, 28), (2, 3, 3, 28, 28)]
    for one, other in zip(alone, helped, strict=True):
        assert torch.equal(one.rgb, other.rgb)
        assert torch.equal(one.flow, other.flow)
        assert torch.equal(one.label, other.label)


def test_a_data_set_is_cheap_to_send_to_workers(items: Sequence[VideoItem], store: FlowStore) -> None:
    dataset = VideoDataset(items, store, SPEC, augment=AUGMENT)
    before = len(pickle.dumps(dataset))
    clip = dataset[0]
    copy = pickle.dumps(dataset)
    assert len(copy) == before < 3000
    assert same(pickle.loads(copy)[0], clip)


def test_few_videos_are_open_at_once(items: Sequence[VideoItem], store: FlowStore) -> None:
    many = []
    for i in range(20):
        write_stored(store, f"many/{i}.mp4", [field(k) for k in range(12)])
        many.append(replace(items[0], video=f"many/{i}.mp4"))
    dataset = VideoDataset(many, store, SPEC.with_(streams=("motion",)), augment=AUGMENT)
    clips = [dataset[i] for i in range(20)]
    assert len(dataset._reader._opened) == 16
    assert all(same(dataset[i], clip) for i, clip in enumerate(clips))


def test_a_forked_child_opens_its_own_files(
    items: Sequence[VideoItem], store: FlowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = VideoDataset(items, store, SPEC, augment=AUGMENT)
    dataset[0]
    inherited = dataset._reader._opened["walk/a.mp4"]
    monkeypatch.setattr("twostream.data.dataset.os.getpid", lambda: -1)
    dataset[0]
    assert dataset._reader._opened["walk/a.mp4"] is not inherited


def test_an_unread_stream_is_empty(items: Sequence[VideoItem], store: FlowStore) -> None:
    motion = VideoDataset(
        [replace(item, path=Path("gone.mp4")) for item in items], store, SPEC.with_(streams=("motion",))
    )[0]
    assert motion.rgb.shape == (0, 3, 28, 28)
    assert motion.flow.shape == (1, 20, 28, 28)
    spec = SPEC.with_(streams=("appearance",), steps=2, snippets=2)
    appearance = VideoDataset(items, store, spec, augment=AUGMENT)[0]
    assert appearance.rgb.shape == (2, 3, 28, 28)
    assert appearance.flow.shape == (0, 20, 28, 28)
    (batch,) = load(VideoDataset(items, store, spec), 0, batch_size=2)
    check_batch(batch.rgb, batch.flow, spec)


def test_frames_of_the_store_are_taken_where_it_has_them(items: Sequence[VideoItem], tmp_path: Path) -> None:
    store = FlowStore(tmp_path, FlowSettings(short_side=HEIGHT, frames=True))
    write_stored(store, "walk/a.mp4", [field(k) for k in range(59)], [frame(k) for k in range(60)])
    without_video = [replace(items[0], path=Path("gone.mp4"))]
    clip = VideoDataset(without_video, store, STRIDED, augment=Augment(flip=0.0))[0]
    frames, fields = numbers(clip)
    assert (fields[:, 0] == frames - 5).all()
    assert (clip.rgb[:, 0].int() - clip.flow[:, 1].int()).abs().max() <= 8


@pytest.mark.parametrize(("width", "height"), [(24, 18), (96, 72), (50, 36)])
def test_frames_are_brought_to_the_grid_of_the_flow(
    items: Sequence[VideoItem], tmp_path: Path, width: int, height: int
) -> None:
    store = FlowStore(tmp_path, FlowSettings(short_side=height))
    write_stored(store, "walk/a.mp4", [field(k, width, height) for k in range(59)])
    clip = VideoDataset(items, store, SPEC, augment=Augment(flip=0.0))[0]
    assert clip.rgb.shape == (1, 3, 28, 28)
    assert (clip.rgb[0, 0].int() - clip.flow[0, 1].int()).abs().max() <= 12


def test_appearance_needs_no_store(items: Sequence[VideoItem]) -> None:
    spec = SPEC.with_(streams=("appearance",), steps=3, snippets=3)
    clip = VideoDataset(items, None, spec, seed=5, augment=Augment(flip=0.0))[2, 1]
    drawn = sample_training(spec, 40, np.random.default_rng((5, 2, 1)))
    blue = np.round(clip.rgb[:, 2].float().mean(dim=(1, 2)).numpy() / 3)
    assert blue.tolist() == drawn.frames.tolist()
    assert clip.flow.shape == (0, 20, 28, 28)


def test_a_common_frame_rate_counts_frames_by_time(items: Sequence[VideoItem]) -> None:
    spec = SPEC.with_(streams=("appearance",), steps=4, snippets=4, fps=5.0)
    clip = VideoDataset(items, None, spec, seed=5, augment=Augment(flip=0.0))[0]
    drawn = sample_training(spec, 12, np.random.default_rng((5, 0, 0)))
    blue = np.round(clip.rgb[:, 2].float().mean(dim=(1, 2)).numpy() / 3)
    assert blue.tolist() == (5 * drawn.frames).tolist()


def test_a_stretch_of_a_recording_is_cut_out_by_its_seconds(items: Sequence[VideoItem], store: FlowStore) -> None:
    stretches = [replace(items[0], start=0.8, end=1.6), replace(items[0], start=1.6)]
    for augment in (None, Augment(flip=0.0)):
        dataset = VideoDataset(stretches, store, STRIDED, augment=augment)
        for index, (first, last) in enumerate(((20, 39), (40, 59))):
            frames, fields = numbers(dataset[index])
            assert first + 5 <= frames.min() <= frames.max() <= last - 5
            assert first <= fields.min() <= fields.max() <= last - 1
    views = ViewDataset(stretches, store, SPEC, steps=3, space="centre", flips=False)
    assert numbers(views[0])[0].tolist() == [[25], [30], [34]]
    with pytest.raises(DataError, match=r"walk/a.mp4@9-10: nothing of it lies within.*60 frames.*\(2.40 s\)"):
        VideoDataset([replace(items[0], start=9.0, end=10.0)], store, SPEC)[0]


def test_short_clips_are_named_or_repeated(items: Sequence[VideoItem], store: FlowStore) -> None:
    short = [replace(items[0], start=1.0, end=1.16)]
    with pytest.raises(DataError, match=r"walk/a.mp4@1-1.16: 4 frames, but a stack of 10 flow fields needs 11"):
        VideoDataset(short, store, SPEC)[0]
    with pytest.raises(DataError, match=r"walk/a.mp4@1-1.16: 4 frames"):
        ViewDataset(short, store, SPEC, steps=2, space="centre", flips=False)[0]
    repeated = VideoDataset(short, store, SPEC, short_clips="repeat", augment=Augment(flip=0.0))[0]
    assert set(numbers(repeated)[1].ravel()) == {25, 26, 27}
    views = ViewDataset(short, store, SPEC, steps=2, space="centre", flips=False, short_clips="repeat")[0]
    assert set(numbers(views)[1].ravel()) == {25, 26, 27}


def test_a_single_frame_shows_no_motion(items: Sequence[VideoItem], store: FlowStore) -> None:
    still = [replace(items[0], start=1.0, end=1.04)]
    clip = VideoDataset(still, store, SPEC, short_clips="repeat")[0]
    assert clip.flow.unique().tolist() == [128]
    assert round(float(clip.rgb[:, 2].float().mean()) / 3) == 25


def test_a_network_that_reads_flow_needs_a_store_of_its_frame_rate(
    items: Sequence[VideoItem], store: FlowStore
) -> None:
    with pytest.raises(UsageError, match="reads flow, so it needs a flow store; make one with: twostream flow"):
        VideoDataset(items, None, SPEC)
    with pytest.raises(UsageError, match="needs a flow store"):
        ViewDataset(items, None, SPEC, steps=1, space="centre", flips=False)
    with pytest.raises(DataError, match="each video's own frame rate, but the network wants 15 frames per second"):
        VideoDataset(items, store, SPEC.with_(fps=15.0))


def test_what_is_gone_is_named(items: Sequence[VideoItem], store: FlowStore, tmp_path: Path) -> None:
    lost_flow = [replace(items[0], video="walk/lost.mp4")]
    with pytest.raises(DataError, match=r"walk/lost.mp4 cannot be read any more: .*twostream check"):
        VideoDataset(lost_flow, store, SPEC)[0]
    lost_video = [replace(items[0], path=tmp_path / "gone.mp4")]
    with pytest.raises(DataError, match=r"walk/a.mp4 cannot be read any more: .*gone.mp4"):
        VideoDataset(lost_video, store, SPEC)[0]
    with pytest.raises(DataError, match=r"gone.mp4"):
        VideoDataset(lost_video, None, SPEC.with_(streams=("appearance",)))[0]


def test_a_video_shorter_than_its_flow_is_named(items: Sequence[VideoItem], store: FlowStore) -> None:
    swapped = [replace(items[0], path=items[1].path)]
    spec = SPEC.with_(steps=3, snippets=3)
    with pytest.raises(DataError, match=r"walk/a.mp4 cannot be read any more: .*it has frames 0 to 39"):
        VideoDataset(swapped, store, spec)[0]


def test_left_and_right_classes_are_not_mirrored(items: Sequence[VideoItem], store: FlowStore) -> None:
    dataset = VideoDataset(items, store, SPEC, augment=Augment(flip=1.0), no_flip=[1])
    for index, mirrored in ((0, False), (1, True)):
        v = dataset[index].flow[0, 1, 0]
        assert bool(v[0] > v[-1]) == mirrored


@pytest.mark.parametrize("spec", [SPEC, STRIDED, SNIPPETS])
def test_views_hold_every_position_crop_and_mirror_image_in_order(
    items: Sequence[VideoItem], store: FlowStore, spec: InputSpec
) -> None:
    dataset = view_dataset(get_protocol("25x10"), items, store, spec)
    views = dataset[1]
    plan = plan_views(spec, steps=25, space="ten", flips=True)
    assert dataset.views == plan
    positions = sample_views(spec, 40, 25)
    T = len(positions[0].frames)
    assert views.rgb.shape == (len(plan), T, 3, 28, 28)
    assert views.flow.shape == (len(plan), len(positions[0].fields), 20, 28, 28)
    assert views.rgb.is_contiguous()
    assert views.flow.is_contiguous()
    assert (views.label, views.item) == (0, 1)
    u = views.flow[:, :, 0::2, 0, 0].numpy().astype(int)
    for r, view in enumerate(plan):
        expected = positions[view.position]
        assert np.abs(views.rgb[r, :, 2].float().mean(dim=(1, 2)).numpy() / 3 - expected.frames).max() < 0.5
        assert (u[r] == (255 - expected.fields if view.flip else expected.fields)).all()
        row = views.flow[r, 0, 1, 0].int()
        assert bool(row[0] > row[-1]) == view.flip
        assert (views.rgb[r, 0, 0].int() - views.flow[r, 0, 1].int()).abs().max() <= 8
    left, right = (views.flow[r, 0, 1].float().mean() for r in (0, 2))
    assert left + 60 < right
    top, bottom = (views.rgb[r, 0, 1].float().mean() for r in (0, 4))
    assert top + 20 < bottom


def test_chunks_are_the_same_views_a_few_at_a_time(items: Sequence[VideoItem], store: FlowStore) -> None:
    dataset = ViewDataset(items, store, SNIPPETS, steps=4, space="three", flips=True)
    whole, chunks = dataset[0], list(dataset.chunks(0, 5))
    assert [len(chunk.rgb) for chunk in chunks] == [5, 5, 5, 5, 4]
    assert torch.equal(torch.cat([chunk.rgb for chunk in chunks]), whole.rgb)
    assert torch.equal(torch.cat([chunk.flow for chunk in chunks]), whole.flow)


def test_whole_frames_keep_their_shape(items: Sequence[VideoItem], store: FlowStore) -> None:
    views = view_dataset(get_protocol("25-step"), items, store, STRIDED)[0]
    assert views.rgb.shape == (2, 25, 3, 32, 42)
    assert views.flow.shape == (2, 25, 20, 32, 42)
    v = views.flow[:, 0, 1, 0].tolist()
    assert v[0] == v[1][::-1]
    assert v[0][0] < 24
    assert v[0][-1] > 226


def test_three_crops_reach_from_end_to_end(items: Sequence[VideoItem], store: FlowStore) -> None:
    views = ViewDataset(items, store, SPEC, steps=1, space="three", flips=False)[0]
    rows = views.flow[:, 0, 1, 0].tolist()
    assert rows[0][0] < 24
    assert rows[2][-1] > 226
    assert abs(rows[1][0] + rows[1][-1] - 250) <= 6


def test_views_of_one_stream_without_a_store(items: Sequence[VideoItem]) -> None:
    spec = SPEC.with_(streams=("appearance",))
    (views, _) = load(ViewDataset(items, None, spec, steps=3, space="centre", flips=True), 0, batch_size=None)
    assert views.rgb.shape == (6, 1, 3, 28, 28)
    assert views.flow.shape == (6, 0, 20, 28, 28)
    blue = np.round(views.rgb[:, 0, 2].float().mean(dim=(1, 2)).numpy() / 3)
    assert blue.tolist() == [0, 0, 30, 30, 59, 59]


@pytest.mark.data
@pytest.mark.skipif(not os.environ.get("TWOSTREAM_DATA"), reason="TWOSTREAM_DATA names no folder of real videos")
def test_real_frames_arrive_unchanged() -> None:
    path = sorted(Path(os.environ["TWOSTREAM_DATA"]).glob("ut_interaction/videos/*/*.avi"))[0]
    video = Video(path)
    spec = InputSpec(streams=("appearance",), size=112, resize=min(video.width, video.height))
    views = ViewDataset([VideoItem(path, path.name, 0)], None, spec, steps=5, space="whole", flips=True)[0]
    middle = video.frames([(len(video) - 1) // 2])[0].transpose(2, 0, 1)
    assert (views.rgb[4, 0].numpy() == middle).all()
    assert (views.rgb[5, 0].numpy() == middle[..., ::-1]).all()


def test_an_epoch_asks_for_every_video_in_an_order_of_its_own() -> None:
    sampler = EpochSampler(50, seed=1)
    first = list(sampler)
    assert first == list(sampler)
    assert {epoch for epoch, _ in first} == {0}
    assert sorted(index for _, index in first) == list(range(50)) != [index for _, index in first]
    sampler.set_epoch(1)
    second = list(sampler)
    assert {epoch for epoch, _ in second} == {1}
    assert [index for _, index in second] != [index for _, index in first]
    assert first != list(EpochSampler(50, seed=2))
    assert len(sampler) == len(first) == 50


def test_repeats_are_passes_with_draws_of_their_own() -> None:
    sampler = EpochSampler(10, repeats=3)
    sampler.set_epoch(2)
    keys = list(sampler)
    assert len(keys) == len(set(keys)) == len(sampler) == 30
    assert [epoch for epoch, _ in keys] == [6] * 10 + [7] * 10 + [8] * 10
    assert all(sorted(index for _, index in keys[i : i + 10]) == list(range(10)) for i in (0, 10, 20))


@pytest.mark.parametrize(("count", "world_size"), [(10, 1), (10, 3), (7, 2), (2, 5), (12, 4)])
def test_ranks_share_the_order_evenly(count: int, world_size: int) -> None:
    shares = [list(EpochSampler(count, seed=4, rank=rank, world_size=world_size)) for rank in range(world_size)]
    alone = list(EpochSampler(count, seed=4))
    assert {len(share) for share in shares} == {len(EpochSampler(count, world_size=world_size))}
    dealt = [key for turn in zip(*shares, strict=True) for key in turn]
    assert dealt[:count] == alone
    assert len(dealt) - count < world_size
    assert dealt[count:] == (alone * world_size)[: len(dealt) - count]


@pytest.mark.parametrize("options", [{"count": 0}, {"repeats": 0}, {"rank": 2}, {"rank": -1}])
def test_a_sampler_of_nothing_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=r"count >= 1 videos, repeats >= 1 and 0 <= rank < world_size"):
        EpochSampler(**{"count": 5, "world_size": 2, **options})


def test_a_micro_batch_shares_its_stride_and_its_number() -> None:
    samplers = [EpochSampler(10, seed=1, world_size=2, rank=rank, repeats=2, batch_size=4) for rank in (0, 1)]
    for sampler in samplers:
        sampler.set_epoch(3)
    plain = EpochSampler(10, seed=1, world_size=2, rank=0, repeats=2)
    plain.set_epoch(3)
    keys = [list(sampler) for sampler in samplers]
    assert [key[:2] for key in keys[0]] == list(plain)
    numbers = [[key[2] for key in rank if len(key) == 3] for rank in keys]  # type: ignore[misc]
    assert numbers == [[18] * 4 + [19] * 4 + [20] * 2, [21] * 4 + [22] * 4 + [23] * 2]


def test_one_stride_for_all_clips_of_a_micro_batch(items: Sequence[VideoItem], store: FlowStore) -> None:
    spec = STRIDED.with_(steps=2, snippets=2, stride=(1, 4))
    data = VideoDataset(items, store, spec, augment=Augment(crop="none", flip=0))

    def stride(clip: Clip) -> int:
        first, second = clip.flow[:, 0, 0, 0].tolist()  # u is the field's number
        return int(second - first)

    drawn = [{stride(data[epoch, index, batch]) for epoch in range(3) for index in (0, 1)} for batch in range(12)]
    assert all(len(strides) == 1 for strides in drawn)
    assert set.union(*drawn) == {1, 2, 3, 4}
    assert len({stride(data[epoch, 0]) for epoch in range(12)}) > 1
