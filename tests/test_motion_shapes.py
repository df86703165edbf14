"""The diagnostic videos hold what they promise: what is said to be hidden is hidden, what is to be seen is seen."""

import itertools
import json
import math
from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pytest

from twostream.data import motion_shapes
from twostream.data.annotations import load_annotations
from twostream.data.items import DataError
from twostream.data.motion_shapes import SETS, TRUTH, generate, late_fusion_ceiling, main, render
from twostream.data.shape_rendering import GROUNDS, MOTIONS, TEXTURES, Conditions, Role, Run, boxes, compose, film
from twostream.data.shape_sets import settings_for
from twostream.errors import UsageError
from twostream.video import Video

SMALL = {"size": 64, "frames": 11}


def scene_of(texture="dots", motion="sideways", ground="sand", seed=0, frames=12, difficulty=0.5, size=(144, 128)):
    role = Role(texture, (Run(motion, 0, frames - 1),) if motion else ())
    return compose((role,), ground, np.random.default_rng(seed), size=size, frames=frames, difficulty=difficulty)


def draw(set_name, part, index, **settings):
    """The scene and the truth, without pixels."""
    return motion_shapes._Video(settings_for(set_name, **settings), part, index).draw()


def truths(set_name, part, count, **settings):
    return [draw(set_name, part, index, **settings)[1] for index in range(count)]


def luma(frames):
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames])


# What is drawn


@pytest.mark.parametrize("set_name", SETS)
def test_every_pixel_follows_from_seed_set_part_and_index(set_name):
    settings = {"size": 64, "frames": SETS[set_name].least_frames}
    frames, truth = render(set_name, "train", 5, **settings)
    again, same = render(set_name, "train", 5, **settings)
    np.testing.assert_array_equal(frames, again)
    assert truth == same
    assert frames.shape == (SETS[set_name].least_frames, 64, 72, 3)
    assert frames.dtype == np.uint8
    for part, index, seed in (("test", 5, 0), ("train", 5 + 12, 0), ("train", 5, 1)):
        other, _ = render(set_name, part, index, seed=seed, **settings)
        assert (frames != other).mean() > 0.5


@pytest.mark.parametrize(("set_name", "classes"), [(s.name, n) for s in SETS.values() for n in s.class_counts])
def test_classes_come_in_turn_under_the_names_that_folders_sort_to(set_name, classes):
    names = settings_for(set_name, classes=classes).class_names
    assert list(names) == sorted(set(names))
    assert len(names) == classes
    found = truths(set_name, "test", 2 * classes, classes=classes)
    assert [t["label"] for t in found] == list(range(classes)) * 2
    assert all(t["class"] == names[t["label"]] for t in found)
    assert len({t["video"] for t in found}) == 2 * classes


@pytest.mark.parametrize("difficulty", [0.0, 0.5, 1.0])
def test_boxes_are_where_the_pixels_of_each_thing_are(difficulty):
    for seed, motion in enumerate(MOTIONS):
        scene = scene_of(motion=motion, seed=seed, difficulty=difficulty, frames=12)
        changed = (film(scene) != film(replace(scene, things=()))).any(axis=3)
        for seen, box in zip(changed, boxes(scene, scene.things[0]), strict=True):
            rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
            found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            np.testing.assert_allclose(found, box, atol=2.0)


@pytest.mark.parametrize("set_name", SETS)
def test_things_stay_in_the_picture_and_apart(set_name):
    for index in range(30):
        scene, truth = draw(set_name, "train", index, difficulty=1.0)
        tracks = np.array([thing["boxes"] for thing in truth["objects"]])
        assert (tracks[..., :2] > 0).all()
        assert (tracks[..., 2] < scene.width).all()
        assert (tracks[..., 3] < scene.height).all()
        for one, other in itertools.combinations(tracks, 2):
            overlap = np.minimum(one[:, 2:], other[:, 2:]) - np.maximum(one[:, :2], other[:, :2])
            assert (overlap.min(1) < 0).all()


def test_what_moves_changes_and_what_stands_does_not():
    frames, truth = render("where", "train", 1, difficulty=0)  # no shake, so that only the thing itself moves
    change = np.abs(np.diff(frames.astype(int), axis=0)).mean(axis=(0, 3))
    for thing in truth["objects"]:
        left, top, right, bottom = np.array(thing["boxes"][0]).round().astype(int)
        moves = change[top:bottom, left:right].mean() > 5
        assert moves == bool(thing["moves"])
    assert truth["objects"][truth["moving"]]["texture"] == truth["class"]


@pytest.mark.parametrize("difficulty", [0.0, 1.0])
@pytest.mark.parametrize("motion", MOTIONS)
def test_an_estimator_measures_the_motion_that_the_truth_tells(motion, difficulty):
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    errors, speeds, turns, grows = [], [], [], []
    for seed in range(3):
        scene = scene_of(motion=motion, seed=seed, frames=16, difficulty=difficulty)
        (thing,) = scene.things
        grey, sides, middles = luma(film(scene)), boxes(scene, thing), thing.places - scene.camera
        for t in range(0, 15, 2):
            flow = dis.calc(grey[t], grey[t + 1], None)
            left, top, right, bottom = (sides[t] + [5, 5, -5, -5]).round().astype(int)
            inner = flow[top:bottom, left:right].reshape(-1, 2)
            away = np.mgrid[left:right, top:bottom].transpose(2, 1, 0).reshape(-1, 2) - middles[t]
            own = inner - (middles[t + 1] - middles[t])
            errors.append(np.abs(np.median(own, axis=0)))
            speeds.append(np.abs(thing.places[t + 1] - thing.places[t]))
            weight = (away**2).sum(1).mean()
            turns.append([(own[:, 1] * away[:, 0] - own[:, 0] * away[:, 1]).mean() / weight, np.diff(thing.turns)[t]])
            grows.append([(own * away).sum(1).mean() / weight, np.diff(thing.sizes)[t] / thing.sizes[t]])
    assert np.mean(errors) < 0.2
    across, down = np.mean(speeds, axis=0)
    assert (across > 1.2) == (motion == "sideways")
    assert (down > 1.2) == (motion == "updown")
    for pairs, name in ((turns, "spinning"), (grows, "pulsing")):
        measured, true = np.array(pairs).T
        if motion == name:
            assert np.abs(true).mean() > 0.03
            np.testing.assert_allclose(measured, true, atol=0.06)
        else:
            assert np.abs(measured).mean() < 0.012
            assert (true == 0).all()


def test_difficulty_makes_noise_shake_and_speeds_grow_and_contrast_fall():
    easy, hard = Conditions.at(0), Conditions.at(1)
    for growing in ("noise", "shake", "clutter", "spread", "wobble", "flicker"):
        assert getattr(hard, growing) > getattr(easy, growing)
    assert hard.grain < easy.grain
    assert hard.colour < easy.colour
    assert np.ptp(hard.speed) > np.ptp(easy.speed)
    still = [film(scene_of(motion=None, difficulty=d, frames=2)).astype(int) for d in (0, 1)]
    assert np.abs(still[1][1] - still[1][0]).mean() > 3 * np.abs(still[0][1] - still[0][0]).mean()


@pytest.mark.parametrize("difficulty", [0.0, 1.0])
def test_luma_knows_neither_texture_nor_ground(difficulty):
    """Estimators of flow read luma, so flow is the same whatever the texture: exactly, but for the rounding to RGB."""
    pictures = [
        film(scene_of(texture=texture, ground=ground, seed=3, difficulty=difficulty))
        for texture, ground in zip(TEXTURES, GROUNDS, strict=True)
    ]
    for other in pictures[1:]:
        assert np.abs(luma(other).astype(int) - luma(pictures[0])).max() <= 1
        assert np.abs(other.astype(int) - pictures[0]).mean() > 5


def test_textures_share_silhouettes_and_paths():
    scenes = [scene_of(texture=texture, seed=8) for texture in TEXTURES]
    for other in scenes[1:]:
        np.testing.assert_array_equal(boxes(other, other.things[0]), boxes(scenes[0], scenes[0].things[0]))
        np.testing.assert_array_equal(other.things[0].outline, scenes[0].things[0].outline)
        np.testing.assert_array_equal(other.camera, scenes[0].camera)


def test_the_texture_of_a_thing_does_not_fade_with_its_hue():
    """Patterns are opposite hues around grey: over many things no hue and no brightness belongs to a texture."""
    for texture in TEXTURES:
        middles = []
        for seed in range(40):
            scene = scene_of(texture=texture, seed=seed, frames=1, size=(72, 64))
            left, top, right, bottom = boxes(scene, scene.things[0])[0].round().astype(int)
            middles.append(film(scene)[0, top:bottom, left:right].mean(axis=(0, 1)))
        assert np.ptp(np.mean(middles, axis=0)) < 22


# What each set isolates


def test_same_look_misleads_by_its_grounds():
    for classes in (2, 4):
        settings = {"classes": classes, "frames": 11}
        train = truths("same_look", "train", 300, **settings)
        agree = np.mean([t["ground"] == t["ground_of_class"] for t in train])
        assert abs(agree - 0.9) < 0.05
        assert len({(t["class"], t["ground_of_class"]) for t in train}) == classes
        assert np.mean([t["ground"] == t["ground_of_class"] for t in truths("same_look", "val", 100, **settings)]) > 0.8
        test = truths("same_look", "test", 200, **settings)
        assert not any(t["ground"] == t["ground_of_class"] for t in test)
        assert set(Counter((t["class"], t["ground"]) for t in test)) == {
            (one["class"], other["ground_of_class"]) for one in test for other in test if one["class"] != other["class"]
        }
        assert all(t["class"] == t["motion"] == t["objects"][0]["moves"][0]["motion"] for t in train + test)
        assert_independent(train + test, "class", "texture")


def test_same_motion_leaves_only_the_texture():
    found = truths("same_motion", "train", 300, frames=11)
    assert all(t["class"] == t["texture"] == t["objects"][0]["texture"] for t in found)
    assert_independent(found, "class", "motion")
    assert_independent(found, "class", "ground")


@pytest.mark.parametrize("classes", [2, 6, 12])
def test_long_term_shows_no_stack_both_motions(classes):
    starts = Counter()
    for truth in truths("long_term", "train", 120, classes=classes):
        (one, two) = truth["objects"][0]["moves"]
        assert f"{one['motion']}-{two['motion']}" == truth["class"]
        assert truth["motions"] == [one["motion"], two["motion"]]
        assert truth["gap"] == [one["stop"], two["start"]]
        assert two["start"] - one["stop"] > 10
        for start in range(79 - 10 + 1):
            seen = [m for m in (one, two) if start < m["stop"] and m["start"] < start + 10]
            assert len(seen) <= 1
        assert 14 <= one["stop"] - one["start"] <= 20
        assert 14 <= two["stop"] - two["start"] <= 20
        assert one["start"] >= 3
        assert two["stop"] <= 79 - 3
        starts[one["start"]] += 1
    assert len(starts) > 15
    orders = settings_for("long_term", classes=classes).class_names
    assert all("-".join(reversed(name.split("-"))) in orders for name in orders)


def test_long_term_stands_still_in_its_gap():
    frames, truth = render("long_term", "test", 0, difficulty=0)
    change = np.abs(np.diff(frames.astype(int), axis=0)).mean(axis=(1, 2, 3))
    moving = np.zeros(len(change), bool)
    for run in truth["objects"][0]["moves"]:
        moving[run["start"] : run["stop"]] = True
    start, stop = truth["gap"]
    assert not moving[start:stop].any()
    assert change[~moving].max() < change[moving].min()


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_conjunction_deals_textures_and_motions_evenly_to_every_class(classes):
    found = truths("conjunction", "train", 2 * classes**2, classes=classes, frames=11)
    pairs = Counter((t["texture"], t["motion"]) for t in found)
    assert len(pairs) == classes**2
    assert set(pairs.values()) == {2}
    for truth in found:
        i, j = truth["texture_index"], truth["motion_index"]
        assert (TEXTURES[i], MOTIONS[j]) == (truth["texture"], truth["motion"])
        assert truth["class"] == f"sum-{(i + j) % classes}"
    for part in ("texture", "motion"):
        assert len(Counter((t["class"], t[part]) for t in found)) == classes**2


def test_binding_shows_both_textures_and_both_motions_in_both_classes():
    places = Counter()
    for truth in truths("binding", "train", 200, frames=11):
        things = truth["objects"]
        assert {t["texture"] for t in things} == set(TEXTURES[:2])
        assert {t["moves"][0]["motion"] for t in things} == set(MOTIONS[:2])
        assert all(truth["motion_of"][t["texture"]] == t["moves"][0]["motion"] for t in things)
        assert truth["class"] == f"stripes-{truth['motion_of']['stripes']}"
        first, second = (np.array(t["boxes"][0]) for t in things)
        places[truth["class"], bool(first[0] + 5 < second[0]), bool(first[1] + 5 < second[1])] += 1
    assert len(places) == 8


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_where_shows_every_texture_and_moves_one(classes):
    found = truths("where", "train", 60 * classes, classes=classes, frames=11)
    for truth in found:
        assert {t["texture"] for t in truth["objects"]} == set(TEXTURES[:classes])
        (mover,) = [t for t in truth["objects"] if t["moves"]]
        assert mover["texture"] == truth["class"]
        assert mover["moves"] == [{"motion": truth["motion"], "start": 0, "stop": 10}]
    assert_independent(found, "class", "motion")


def assert_independent(found, one, other):
    """Chi square of the table of two facts, below what one in ten thousand such tables has."""
    table = Counter((t[one], t[other]) for t in found)
    rows, columns = Counter(t[one] for t in found), Counter(t[other] for t in found)
    expected = {(r, c): rows[r] * columns[c] / len(found) for r in rows for c in columns}
    freedom = (len(rows) - 1) * (len(columns) - 1)
    square = sum((table[cell] - e) ** 2 / e for cell, e in expected.items())
    assert square < freedom * (1 - 2 / (9 * freedom) + 3.72 * math.sqrt(2 / (9 * freedom))) ** 3


# Ceilings


def test_late_fusion_reaches_its_ceiling():
    for n in (2, 3, 4, 6, 8):
        k = np.arange(n // 2, n // 2 + n)
        i, j = np.mgrid[0:n, 0:n]
        f = 2 * k * i[..., None] - k**2 / 2
        g = 2 * k * j[..., None] - k**2 / 2
        right = k[(f + g).argmax(-1)] % n == (i + j) % n
        assert right.mean() == pytest.approx(late_fusion_ceiling(n))


@pytest.mark.parametrize("n", [2, 3, 4])
def test_late_fusion_cannot_pass_its_ceiling(n):
    """Every ring of pairs that no sum of scores gets right must lose one; the fewest losses are found by trying all."""
    rings = []
    for k, other in itertools.permutations(range(n), 2):
        for start in range(n):
            ring, i = set(), start
            while True:
                j = (k - i) % n
                ring |= {(i, j), ((i + other - k) % n, j)}
                i = (i + other - k) % n
                if i == start:
                    break
            assert {(a + b) % n for a, b in ring} == {k, other}
            rings.append(sum(1 << (a * n + b) for a, b in ring))
    sets = np.arange(1 << (n * n))
    hits_all = np.all([sets & ring != 0 for ring in set(rings)], axis=0)
    fewest = min(int(s).bit_count() for s in sets[hits_all])
    assert 1 - fewest / n**2 == pytest.approx(late_fusion_ceiling(n))


@pytest.mark.parametrize("n", [1, 0, 5, 7])
def test_late_fusion_ceiling_names_what_is_known(n):
    with pytest.raises(UsageError, match=f"n = 3 and even n >= 2, got {n}"):
        late_fusion_ceiling(n)


def test_ceilings_lie_between_chance_and_one():
    for shapes in SETS.values():
        for n in shapes.class_counts:
            ceilings = shapes.ceilings(n)
            assert {"chance", "appearance", "motion", "late_fusion"} <= ceilings.keys()
            assert ceilings["chance"] == 1 / n
            assert all(1 / n <= c <= 1 for c in ceilings.values())


# Shortcuts: a linear model is given what must not tell the class


def probe(features, labels, classes):
    """Accuracy on the second half of a ridge regression fitted on the first."""
    x = np.asarray(features, float).reshape(len(labels), -1)
    half = len(x) // 2
    x = (x - x[:half].mean(0)) / (x[:half].std(0) + 1e-6)
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    y = np.eye(classes)[labels]
    kernel = x @ x[:half].T
    weights = np.linalg.solve(kernel[:half] + 0.3 * x.shape[1] * np.eye(half), y[:half] - 1 / classes)
    return np.mean((kernel[half:] @ weights).argmax(1) == np.asarray(labels)[half:])


def near_chance(count, classes):
    """What a guesser passes once in some ten thousand times."""
    return 1 / classes + 3.7 * math.sqrt((1 - 1 / classes) / classes / (count - count // 2))


HIDDEN = [("same_look", 2), ("long_term", 2), ("conjunction", 2), ("binding", 2), ("where", 3)]


@pytest.mark.parametrize(("set_name", "classes"), HIDDEN)
def test_places_do_not_tell_the_class(set_name, classes):
    """Sides of the boxes every eighth frame, and their products within the first and within the last frame.

    In *long_term* also the products of the first with the last frame: whence and whither do not tell the order.
    """
    count = 400
    features, labels = [], []
    for index in range(count):
        _, truth = draw(set_name, "test", index, classes=classes)
        sides = np.array([thing["boxes"] for thing in truth["objects"]]) / 128 - 0.5
        # In the order of their places, as a picture would tell them, not in that of their textures.
        sides = sides[np.lexsort((sides[:, 0, 0].round(1), sides[:, 0, 1].round(1)))]
        ends = [sides[:, 0].ravel(), sides[:, -1].ravel()]
        pairs = [(0, 0), (1, 1), (0, 1)] if set_name == "long_term" else [(0, 0), (1, 1)]
        products = [np.outer(ends[a], ends[b]).ravel() for a, b in pairs]
        features.append(np.concatenate([sides[:, ::8].ravel(), *products]))
        labels.append(truth["label"])
    assert probe(features, labels, classes) < near_chance(count, classes)


def test_places_are_distributed_alike_for_all_motions_in_every_frame():
    count, frames = 300, 40
    tracks = {
        motion: np.array(
            [
                boxes(s, s.things[0])
                for s in (scene_of(motion=motion, seed=[n, seed], frames=frames) for seed in range(count))
            ]
        )
        for n, motion in enumerate(MOTIONS)
    }
    limit = 2.3 * math.sqrt(2 / count)  # two-sided Kolmogorov-Smirnov, one in ten thousand
    for one, other in itertools.combinations(MOTIONS, 2):
        for t in (0, 13, frames - 1):
            for side in range(4):
                a, b = tracks[one][:, t, side], tracks[other][:, t, side]
                grid = np.sort(np.concatenate([a, b]))
                apart = np.searchsorted(np.sort(a), grid, "right") - np.searchsorted(np.sort(b), grid, "right")
                assert np.abs(apart).max() / count < limit


def thumbnail(scene):
    """The first frame, small enough for a linear model."""
    frame = film(replace(scene, camera=scene.camera[:1], light=scene.light[:1]))[0]
    return cv2.resize(frame, (18, 16), interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize(("set_name", "classes"), HIDDEN[1:])
def test_a_single_frame_does_not_tell_the_class_to_a_linear_model(set_name, classes):
    count = 160
    found = [draw(set_name, "test", index, classes=classes, size=64) for index in range(count)]
    accuracy = probe([thumbnail(scene) for scene, _ in found], [truth["label"] for _, truth in found], classes)
    assert accuracy < near_chance(count, classes)


def test_a_single_frame_of_same_look_tells_the_class_in_training_and_a_wrong_one_in_the_test():
    """Also the check of the checks: the probe finds what there is to be found."""
    parts = {
        part: [draw("same_look", part, index, classes=2, size=64) for index in range(120)] for part in ("train", "test")
    }
    frames = {part: [thumbnail(scene) for scene, _ in found] for part, found in parts.items()}
    labels = {part: [truth["label"] for _, truth in found] for part, found in parts.items()}
    assert probe(frames["train"], labels["train"], 2) > 0.75
    assert probe(frames["train"] + frames["test"], labels["train"] + labels["test"], 2) < 0.25


@pytest.mark.parametrize(("set_name", "classes"), [("same_motion", 2), *HIDDEN[2:]])
def test_brightness_over_time_does_not_tell_the_class(set_name, classes):
    count = 60
    labels = [index % classes for index in range(count)]
    features = [render(set_name, "train", i, classes=classes, **SMALL)[0].mean(axis=(1, 2)) for i in range(count)]
    assert probe(features, labels, classes) < near_chance(count, classes)


# Files


def files_of(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_set_is_written_as_folders_of_classes_with_the_truth_beside(tmp_path):
    steps = []
    out = generate(
        tmp_path / "set", "conjunction", train=4, val=2, test=2, frames=16, progress=lambda *step: steps.append(step)
    )
    truth = json.loads((out / TRUTH).read_text())
    assert truth["counts"] == {"train": 4, "val": 2, "test": 2}
    assert truth["classes"] == ["sum-0", "sum-1"]
    assert truth["ceilings"]["late_fusion"] == 0.75
    assert truth["settings"]["difficulty"] == 0.5
    names = [video["video"] for video in truth["videos"]]
    assert names[:2] == ["train/sum-0/train000000.mp4", "train/sum-1/train000001.mp4"]
    assert sorted(files_of(out)) == sorted([*names, TRUTH])
    assert [step[:2] for step in steps] == [(n, 8) for n in range(1, 9)]
    assert [step[2] for step in steps] == names
    frames, told = render("conjunction", "val", 1, frames=16)
    assert truth["videos"][5] == json.loads(json.dumps(told))
    video = Video(out / told["video"])
    assert (video.width, video.height, video.fps) == (truth["width"], truth["height"], truth["fps"])
    read = video.frames(range(16))
    assert np.abs(read.astype(int) - frames).mean() < 6


def test_a_set_is_read_as_folders_of_classes_with_each_video_on_its_own(tmp_path):
    generate(tmp_path, "where", train=6, val=3, test=3, **SMALL)
    truth = json.loads((tmp_path / TRUTH).read_text())
    read = load_annotations(tmp_path)
    assert list(read.classes) == truth["classes"]
    labels = {item.video: (part, item.label) for part, items in read.parts.items() for item in items}
    assert labels == {video["video"]: (video["part"], video["label"]) for video in truth["videos"]}
    assert len({item.group for items in read.parts.values() for item in items}) == 12


def test_textures_survive_the_encoding(tmp_path):
    """Of the smallest things, too, the pattern of colours is there when the file is read back."""
    generate(tmp_path, "where", train=0, test=3, frames=11)
    for index in range(3):
        frames, truth = render("where", "test", index, frames=11)
        read = Video(tmp_path / truth["video"]).frames([5])[0]
        for thing in truth["objects"]:
            left, top, right, bottom = (np.array(thing["boxes"][5]) + np.array([3, 3, -3, -3])).round().astype(int)
            drawn, seen = (
                cv2.cvtColor(image[top:bottom, left:right], cv2.COLOR_RGB2YCrCb)[..., 1:].astype(float)
                for image in (frames[5], read)
            )
            assert np.corrcoef(drawn.ravel(), seen.ravel())[0, 1] > 0.8


def test_a_second_call_makes_what_is_missing_and_more_videos_extend_a_set(tmp_path):
    settings = {"size": 64, "frames": 11, "seed": 3}
    whole = generate(tmp_path / "whole", "same_motion", train=8, test=4, **settings)

    def stop(*step):
        if step[0] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "parts", "same_motion", train=4, test=4, **settings, progress=stop)
    assert len(files_of(tmp_path / "parts")) == 1 + 3
    (tmp_path / "parts" / "train" / f".x.mp4.{'0' * 8}.partial").write_bytes(b"half")
    kept = (tmp_path / "parts" / "train" / "dots" / "train000000.mp4").stat().st_mtime_ns
    made = []
    generate(tmp_path / "parts", "same_motion", train=4, test=4, **settings, progress=lambda *s: made.append(s[0]))
    assert made == [4, 5, 6, 7, 8]
    parts = generate(tmp_path / "parts", "same_motion", train=8, test=4, **settings)
    assert (parts / "train" / "dots" / "train000000.mp4").stat().st_mtime_ns == kept
    assert files_of(parts) == files_of(whole)


def test_workers_write_the_same_files(tmp_path):
    one = generate(tmp_path / "one", "binding", train=4, test=2, **SMALL)
    two = generate(tmp_path / "two", "binding", train=4, test=2, **SMALL, workers=2)
    assert files_of(one) == files_of(two)


def test_a_folder_of_something_else_is_refused(tmp_path):
    out = generate(tmp_path / "set", "same_motion", train=4, test=0, **SMALL)
    before = files_of(out)
    with pytest.raises(DataError, match=r"other settings \(difficulty is 0.5 and not 0.6\)"):
        generate(out, "same_motion", train=4, test=0, **SMALL, difficulty=0.6)
    with pytest.raises(DataError, match="set is same_motion and not same_look"):
        generate(out, "same_look", train=4, test=0, **SMALL)
    more = generate(tmp_path / "more", "same_motion", train=8, test=0, **SMALL)
    with pytest.raises(DataError, match="already has 8 train videos and 4 are asked for"):
        generate(more, "same_motion", train=4, test=0, **SMALL)
    truth = (out / TRUTH).read_text()
    (out / TRUTH).write_text(truth.replace("shapes-1", "shapes-0"))
    with pytest.raises(DataError, match=r"another version \(twostream-motion-shapes-0"):
        generate(out, "same_motion", train=4, test=0, **SMALL)
    for damage in (truth[:100], "[]", '{"format": 1, "settings": {}, "counts": 3}'):
        (out / TRUTH).write_text(damage)
        with pytest.raises(DataError, match="not the truth of a set"):
            generate(out, "same_motion", train=4, test=0, **SMALL)
    (out / TRUTH).unlink()
    with pytest.raises(DataError, match=r"holds train but no truth.json"):
        generate(out, "same_motion", train=4, test=0, **SMALL)
    assert {name: content for name, content in before.items() if name != TRUTH} == files_of(out)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            {"set_name": "shapes"},
            "no set 'shapes'; known: same_look, same_motion, long_term, conjunction, binding, w",
        ),
        ({"classes": 5}, "same_look can have 2, 3, 4 classes, got 5"),
        ({"seed": -1}, "the seed is a whole number from 0, got -1"),
        ({"size": 65}, "even and at least 64, got 65"),
        ({"size": 32}, "even and at least 64, got 32"),
        ({"frames": 10}, "same_look needs videos of at least 11 frames, got 10"),
        ({"set_name": "long_term", "frames": 60}, "long_term needs videos of at least 67 frames, got 60"),
        ({"difficulty": 1.5}, "the difficulty lies between 0 and 1, got 1.5"),
        ({"difficulty": math.nan}, "the difficulty lies between 0 and 1, got nan"),
    ],
)
def test_settings_that_a_set_does_not_have(tmp_path, call, says):
    set_name = call.pop("set_name", "same_look")
    with pytest.raises(UsageError, match=says):
        generate(tmp_path / "out", set_name, **call)
    with pytest.raises(UsageError, match=says):
        render(set_name, "train", 0, **call)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ({"train": -1}, "train can have 0 videos or at least one for each of the 4 classes, got -1"),
        ({"test": 3}, "test can have 0 videos or at least one for each of the 4 classes, got 3"),
        ({"train": 0, "test": 0}, "train, val and test are all 0"),
        ({"workers": 0}, "at least one worker is needed, got 0"),
    ],
)
def test_numbers_of_videos_that_make_no_set(tmp_path, call, says):
    with pytest.raises(UsageError, match=says):
        generate(tmp_path / "out", "same_look", **call)


def test_render_takes_known_parts_and_indices():
    with pytest.raises(UsageError, match="one of train, val, test, got 'dev'"):
        render("where", "dev", 0)
    with pytest.raises(UsageError, match="whole number from 0, got -2"):
        render("where", "train", -2)


# The command


def test_the_command_writes_a_set_and_says_where_the_truth_is(tmp_path, capsys):
    out = tmp_path / "out"
    arguments = [
        "same_look",
        str(out),
        "--train",
        "2",
        "--test",
        "2",
        "--classes",
        "2",
        "--size",
        "64",
        "--frames",
        "11",
    ]
    assert main([*arguments, "--workers", "1"]) == 0
    told = capsys.readouterr()
    assert told.out == f"{out}: same_look, 2 train, 2 test; the truth is in truth.json\n"
    assert "4/4 test/updown/test000001.mp4, about 0 s left" in told.err
    assert len(files_of(out)) == 5


def test_the_command_answers_mistakes_with_one_line(tmp_path, capsys, monkeypatch):
    assert main(["shape", str(tmp_path / "out")]) == 2
    assert "there is no set 'shape'; known: same_look" in capsys.readouterr().err
    (tmp_path / "mine.txt").touch()
    assert main(["where", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path} holds mine.txt but no truth.json")

    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(motion_shapes, "generate", stopped)
    assert main(["where", str(tmp_path / "out")]) == 130
    assert "the same command makes the rest" in capsys.readouterr().err
    with pytest.raises(SystemExit) as wrong:
        main(["where"])
    assert wrong.value.code == 2
    with pytest.raises(SystemExit) as helped:
        main(["--help"])
    assert helped.value.code == 0
    shown = capsys.readouterr().out
    assert all(f"  {name}" in shown for name in SETS)
