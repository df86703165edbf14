"""Groups that must stay on one side, and stratified, seeded splits that keep them there.

Two clips of one person, one recording or one sequence look alike for reasons that have nothing to do with the
action. A split that puts them on both sides measures recognition of the recording.
"""

import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from twostream.data.items import DataError, VideoItem, counted, first_few
from twostream.data.video_files import natural_key, without_suffix

# v_Basketball_g07_c03: UCF101 and the many sets named after its manner.
_NUMBERED_GROUP = re.compile(r"_g(\d+)(?=_|$)", re.IGNORECASE)
# April_09_brush_hair_u_nm_np1_ba_goo_0: source, class, visible body, camera motion, people, viewpoint, quality, clip.
_HMDB51_NAME = re.compile(r"(.+)_[fhlu]_[cn]m_np\d+_(?:ba|fr|le|ri)_(?:bad|goo|med)_\d+")
# rec1_003, rec1-3, rec1 (3), rec1_clip3, and youtube_000010_000020 of clips named after their times.
_CLIP_NUMBER = re.compile(r"(?:[ _.-]+(?:clip|part|seg|segment|scene)?[ _.-]?\d+|\s*\(\d+\))+$", re.IGNORECASE)

# What cameras, phones and people call every file; what differs is only the number behind.
_WORDS = (
    "action capture clip dji dsc example file footage gopr img image mov movie mvi output part pxl rec record "
    "recording sample screenrecording seq sequence shot take trim untitled vid video videoclip whatsappvideo"
)
_PLAIN_WORDS = frozenset(_WORDS.split())


class GroupSplit(NamedTuple):
    """Two sides that share no group, and a sentence on how they were made."""

    kept: tuple[VideoItem, ...]
    held_out: tuple[VideoItem, ...]
    how: str


class Groups(NamedTuple):
    """The group of each item and a sentence on where groups came from.

    ``certain`` are those groups that the data name themselves (a column, ``_gNN_``, one recording's segments); one of
    these on both sides of a split is a leak. The others are read from names and only reported.
    """

    groups: tuple[str, ...]
    how: str
    certain: frozenset[str]


def assign_groups(items: Sequence[VideoItem]) -> Groups:
    """Say for each item what it must not be separated from.

    In this order: the group that the item already has (a column of the sheet); ``_gNN_`` in the name, the same number
    being the same group in all classes; the source in HMDB51's manner of naming; the recording that clips with a
    running number were cut from (``rec1_003``, ``rec1_004``); else the video itself. Segments of one video are always
    one group. Where classes have no second stem, or the stem is the class or a word for all videos (``wave_01`` ...
    ``wave_30``, ``IMG_0412``), the number counts clips and not those of one recording, so each video stands alone.
    """
    numberings = _class_numberings([item for item in items if not item.group and not _is_stretch(item)])
    groups: list[str] = []
    sources: list[str] = []
    for item in items:
        group, source = (item.group, "column") if item.group else _by_name(item, numberings)
        groups.append(group)
        sources.append(source)
    segments = Counter(item.video for item in items)
    for n, item in enumerate(items):
        if sources[n] == "alone" and segments[item.video] > 1:
            sources[n] = "segments"
    groups, merged = _join_segments(items, groups)
    certain = frozenset(g for g, s in zip(groups, sources, strict=True) if s in {"column", "number", "segments"})
    certain |= merged
    return Groups(tuple(groups), _how(items, groups, sources, len(merged)), certain)


def numbered_group(video: str) -> int | None:
    """The number of ``_gNN_`` in a video's name; None where it has none."""
    match = _NUMBERED_GROUP.search(_stem(video))
    return int(match[1]) if match else None


def _stem(video: str) -> str:
    return without_suffix(posixpath.basename(video))


def _is_stretch(item: VideoItem) -> bool:
    return item.start is not None or item.end is not None


def _by_name(item: VideoItem, numberings: frozenset[str]) -> tuple[str, str]:
    video, stem = item.video, _stem(item.video)
    if (number := numbered_group(video)) is not None:
        return f"g{number:02d}", "number"
    if match := _HMDB51_NAME.fullmatch(stem):
        action = posixpath.basename(posixpath.dirname(video))
        return match[1].removesuffix(f"_{action}"), "source"
    recording = _recording(stem)
    # What is cut from a video by times is no clip of a longer one: day_1 and day_2 are two recordings.
    if recording != stem and recording not in numberings and not _is_stretch(item):
        return recording, "recording"
    return video, "alone"


def _recording(stem: str) -> str:
    recording = _CLIP_NUMBER.sub("", stem)
    if re.search(r"[^\W\d_]", recording):
        return recording
    # Numbers alone: 0007_02 is clip 2 of recording 7, but 2023-05-01 12.30.45 is a date.
    numbers = re.findall(r"\d+", stem)
    return numbers[0] if len(numbers) == 2 else stem


def _class_numberings(items: Sequence[VideoItem]) -> frozenset[str]:
    """Stems behind which a number counts videos, such as ``wave`` of ``wave_01`` and ``wave_02``."""
    of_class: dict[int, set[str]] = defaultdict(set)
    videos: dict[str, set[str]] = defaultdict(set)
    for item in items:
        stem = _recording(_stem(item.video))
        of_class[item.label].add(stem)
        videos[stem].add(item.video)
    lone = {stem for stems in of_class.values() if len(stems) == 1 for stem in stems}
    lone -= {stem for stems in of_class.values() if len(stems) > 1 for stem in stems}
    named = {stem for stem in videos if _is_plain_word(stem, videos[stem])}
    return frozenset(lone | named)


def _is_plain_word(stem: str, videos: set[str]) -> bool:
    """Whether the stem is what a camera calls every file, or the class that the videos lie under."""
    word = re.sub(r"[\W_]+", "", stem.casefold())
    folders = {re.sub(r"[\W_]+", "", posixpath.basename(posixpath.dirname(video)).casefold()) for video in videos}
    return word in _PLAIN_WORDS or word in folders


def _join_segments(items: Sequence[VideoItem], groups: Sequence[str]) -> tuple[list[str], frozenset[str]]:
    """Make one group of groups that share a video; returns the names of those that came of it."""
    parent = {group: group for group in groups}

    def root(group: str) -> str:
        while parent[group] != group:
            group = parent[group]
        return group

    first: dict[str, str] = {}
    for item, group in zip(items, groups, strict=True):
        one, other = root(group), root(first.setdefault(item.video, group))
        if one != other:
            low, high = sorted((one, other), key=natural_key)
            parent[high] = low
    joined = [root(group) for group in groups]
    return joined, frozenset(new for new, old in zip(joined, groups, strict=True) if new != old)


def _how(items: Sequence[VideoItem], groups: Sequence[str], sources: Sequence[str], merged: int) -> str:
    words = {
        "column": "from the group column",
        "number": "from _gNN_ in the names",
        "source": "from the sources in HMDB51 names",
        "recording": "from recordings that clips with running numbers were cut from",
        "segments": "from recordings that segments share",
        "alone": "of one video each",
    }
    clauses = []
    for source, word in words.items():
        of_source = {group for group, from_ in zip(groups, sources, strict=True) if from_ == source}
        if of_source:
            clauses.append(f"{len(of_source):,} {word}")
    how = f"groups: {', '.join(clauses)}" if clauses else "groups: none"
    if merged:
        how += f"; {merged} of them joined from several, because their segments share a video"
    alone = [_stem(item.video) for item, source in zip(items, sources, strict=True) if source == "alone"]
    counted = Counter(_recording(stem) for stem in alone if _recording(stem) != stem)
    if numbered := sorted((stem for stem, count in counted.items() if count > 1), key=natural_key):
        how += f"; the numbers after {first_few(numbered, 3)} are taken to count videos, not the clips of one recording"
    return how


def straddling(parts: Mapping[str, Sequence[VideoItem]]) -> dict[str, dict[str, int]]:
    """Groups that stand in more than one part, each with its number of items by part."""
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    for part, items in parts.items():
        for item in items:
            group = item.group or item.video
            counts[group][part] = counts[group].get(part, 0) + 1
    return {group: counts[group] for group in sorted(counts, key=natural_key) if len(counts[group]) > 1}


def split_by_group(items: Sequence[VideoItem], fraction: float, seed: int | Sequence[int]) -> GroupSplit:
    """Hold about ``fraction`` of every class out, whole groups at a time.

    Every class keeps at least one video; a class with several groups gives at least one of them where that leaves each
    class something to keep. The same items give the same sides whatever their order. Items without a group stand for
    themselves.

    Args:
        items: what is to be split.
        fraction: of each class, to be held out; between 0 and 1.
        seed: of the draw among equally good groups.

    Returns:
        The two sides, each in the order of ``items``, and how it was done, with the classes that could give nothing.

    Raises:
        DataError: nothing can be held out, because no class has a second group.
    """
    if not 0 < fraction < 1:
        raise DataError(f"the fraction that is held out lies between 0 and 1, got {fraction}")
    of_group: dict[str, Counter[int]] = defaultdict(Counter)
    for item in items:
        of_group[item.group or item.video][item.label] += 1
    # Sorted, so that the draw does not hang on the order of the items.
    groups = sorted(of_group, key=natural_key)
    held = _choose([of_group[group] for group in groups], groups, fraction, np.random.default_rng(seed))
    if not held:
        raise DataError(
            f"nothing can be held out of {counted(len(items), 'video')} in {counted(len(groups), 'group')}: a class "
            f"would be left with none (groups: {first_few(groups)}); name the parts yourself, in folders train/ and "
            "test/ or in a column split, or give finer groups in a column group"
        )
    kept_items = tuple(item for item in items if (item.group or item.video) not in held)
    held_items = tuple(item for item in items if (item.group or item.video) in held)
    how = (
        f"{len(held_items):,} of {len(items):,} videos ({len(held):,} of {len(groups):,} groups) held out, stratified "
        f"by class, seed {seed if isinstance(seed, int) else '.'.join(map(str, seed))}"
    )
    if absent := len({item.label for item in items} - {item.label for item in held_items}):
        how += f"; {absent} class{'es' * (absent != 1)} could give no group, so nothing of them is held out"
    return GroupSplit(kept_items, held_items, how)


def _choose(
    contents: Sequence[Counter[int]], groups: Sequence[str], fraction: float, random: np.random.Generator
) -> set[str]:
    """Which groups to hold out: greedily, for the class that lacks most, the group that fits all classes best.

    Groups of the same content (most often one video of one class) are interchangeable and handled as one pattern with
    a stock, so that hundreds of thousands of videos are no matter.
    """
    # Ties go to the first in this order, so the seed decides among equals; a stock is used from its end.
    order = random.permutation(len(groups))
    position = np.empty(len(groups), np.int64)
    position[order] = np.arange(len(groups))
    stocks: dict[tuple[tuple[int, int], ...], list[int]] = defaultdict(list)
    for n in order[::-1]:
        stocks[tuple(sorted(contents[n].items()))].append(int(n))
    labels = sorted({label for pattern in stocks for label, _ in pattern})
    patterns = np.zeros((len(stocks), len(labels)), np.int64)
    for p, pattern in enumerate(stocks):
        for label, count in pattern:
            patterns[p, labels.index(label)] = count
    stock = list(stocks.values())
    total = np.array([len(s) for s in stock]) @ patterns
    target = total * fraction
    holders = [np.flatnonzero(patterns[:, c]) for c in range(len(labels))]
    held = np.zeros_like(total)
    chosen: set[str] = set()
    open_classes = set(range(len(labels)))
    while open_classes:
        scarcest = min(open_classes, key=lambda c: (held[c] / target[c], total[c], c))
        candidates = np.array([p for p in holders[scarcest] if stock[p]], np.int64)
        candidates = candidates[(held + patterns[candidates] < total).all(1)]
        if not len(candidates):
            open_classes.discard(scarcest)
            continue
        change = np.abs(held + patterns[candidates] - target).sum(1) - np.abs(held - target).sum()
        change = np.round(change, 9)
        if change.min() >= 0 and held[scarcest] > 0:
            open_classes.discard(scarcest)
            continue
        best = min(candidates[change == change.min()], key=lambda p: position[stock[p][-1]])
        chosen.add(groups[stock[best].pop()])
        held = held + patterns[best]
    return chosen
