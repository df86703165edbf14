"""Data sets of any known format as labelled videos in parts: what was detected is said, what does not fit refused."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from twostream.data.detection import read_listing
from twostream.data.items import PARTS, DataError, VideoItem, counted, first_few
from twostream.data.labels import LabelBase, check_class_names, resolve_labels
from twostream.data.leave_one_out import Fold, split_number
from twostream.data.listing import Listing, Row
from twostream.data.splits import assign_groups, split_by_group, straddling
from twostream.data.video_files import Located, locate

IMBALANCE = 3.0
"""A class with more than this many times the training videos of another is reported."""


@dataclass(frozen=True)
class Annotations:
    """A data set: its classes and its labelled videos in parts.

    Attributes:
        data: what was loaded.
        root: the folder that video names are relative to.
        kind: the format, such as ``"UCF101 lists"``.
        classes: class names; a label is a place in them.
        parts: ``train``, ``val`` and ``test``; a part that the data do not have is empty.
        listed: for each part and class, how many videos the data name, whether they are there or not.
        missing: names of listed videos that are not there.
        split: which split this is.
        notes: what was detected and decided, in sentences.
        warnings: what a user should know before trusting a result, in sentences.
    """

    data: Path
    root: Path
    kind: str
    classes: tuple[str, ...]
    parts: Mapping[str, tuple[VideoItem, ...]]
    listed: Mapping[str, tuple[int, ...]]
    missing: tuple[str, ...] = ()
    split: str = "1"
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def items(self) -> tuple[VideoItem, ...]:
        """The items of all parts."""
        return tuple(item for part in PARTS for item in self.parts[part])

    def counts(self, part: str) -> tuple[int, ...]:
        """Number of items of each class in a part."""
        of_label = Counter(item.label for item in self.parts[part])
        return tuple(of_label[label] for label in range(len(self.classes)))

    def problems(self) -> list[str]:
        """What is wrong with the data set as far as its names and counts tell, in sentences."""
        found: list[str] = []
        if self.missing:
            found.append(
                f"not under {self.root}: {counted(len(self.missing), 'listed video')}: {first_few(self.missing)}; name "
                "the folder that holds them with --videos FOLDER, or accept it with --allow-missing"
            )
        if len(self.classes) < 2:
            found.append(f"there is one class only ({self.classes[0]}); telling actions apart needs two")
        for label, name in enumerate(self.classes):
            if not any(self.listed[part][label] for part in PARTS):
                found.append(f"class {name} has no videos")
        named = {part: sum(self.listed[part]) for part in PARTS}
        for part in PARTS:
            lacking = [
                name
                for label, name in enumerate(self.classes)
                if named[part] and not self.listed[part][label] and any(self.listed[p][label] for p in PARTS)
            ]
            if lacking:
                found.append(f"no {part} videos of {_classes_text(lacking)}")
        counts = [(count, name) for count, name in zip(self.counts("train"), self.classes, strict=True) if count]
        if counts and max(counts)[0] > IMBALANCE * min(counts)[0]:
            found.append(
                f"class imbalance: {max(counts)[0]} training videos of {max(counts)[1]} but {min(counts)[0]} of "
                f"{min(counts)[1]} (more than {IMBALANCE:g} times as many is reported); judge by mean class accuracy"
            )
        return found + list(self.warnings)

    def require_trainable(self) -> None:
        """Raise :class:`DataError` unless there are two classes and training videos of each.

        A class with listed training videos passes where videos are missing: that was allowed on loading.
        """
        if not self.parts["train"]:
            raise DataError(
                f"{self.data}: there are no training videos"
                + (f"; all {len(self.missing):,} listed ones are missing under {self.root}" if self.missing else "")
            )
        if len(self.classes) < 2:
            raise DataError(
                f"{self.data}: there is one class only ({self.classes[0]}); add a folder or a label for what is not "
                "this action, so that there is something to tell it from"
            )
        pairs = zip(self.classes, self.counts("train"), self.listed["train"], strict=True)
        empty = [name for name, count, listed in pairs if not count and not (self.missing and listed)]
        if empty:
            raise DataError(
                f"{self.data}: no training videos of {_classes_text(empty)}; add videos, or take the class out of the "
                "data (an empty folder counts as a class)"
            )

    def describe(self) -> str:
        """Lines for the terminal: format, places, videos by class and part, notes and warnings."""
        lines = [f"{self.kind}, split {self.split}: {self.data}"]
        if self.root != self.data:
            lines.append(f"videos under {self.root}")
        parts = [part for part in PARTS if self.parts[part] or sum(self.listed[part])]
        columns = [self.counts(part) for part in parts]
        rows = [(name, *(str(column[label]) for column in columns)) for label, name in enumerate(self.classes)]
        if len(rows) > 24:
            dots = ("...", *("" for _ in parts))
            rows = [*rows[:10], dots, *rows[-10:]]
        rows.append((f"{len(self.classes)} classes", *(f"{sum(column):,}" for column in columns)))
        rows.insert(0, ("class", *parts))
        width = max(len(row[0]) for row in rows)
        lines += [f"  {name:<{width}}" + "".join(f"{cell:>9}" for cell in cells) for name, *cells in rows]
        lines += list(self.notes)
        if self.missing:
            listed = ", ".join(f"{sum(self.listed[part]):,} {part}" for part in parts)
            lines.append(f"listed: {listed}; missing {len(self.missing):,}: {first_few(self.missing)}")
        lines += [f"warning: {warning}" for warning in self.warnings]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, paths made absolute; :meth:`from_dict` takes them back."""
        return {
            **{key: getattr(self, key) for key in ("kind", "split")},
            # Absolute, because what is written down is read from elsewhere.
            "data": str(self.data.absolute()),
            "root": str(self.root.absolute()),
            "classes": list(self.classes),
            "parts": {
                part: [{**asdict(item), "path": str(item.path.absolute())} for item in self.parts[part]]
                for part in PARTS
            },
            "listed": {part: list(self.listed[part]) for part in PARTS},
            "missing": list(self.missing),
            "notes": list(self.notes),
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Annotations":
        """The inverse of :meth:`to_dict`.

        Raises:
            DataError: the values are not those of annotations.
        """
        try:
            return cls(
                data=Path(values["data"]),
                root=Path(values["root"]),
                kind=str(values["kind"]),
                classes=tuple(values["classes"]),
                parts={
                    part: tuple(VideoItem(**{**item, "path": Path(item["path"])}) for item in values["parts"][part])
                    for part in PARTS
                },
                listed={part: tuple(values["listed"][part]) for part in PARTS},
                missing=tuple(values["missing"]),
                split=str(values["split"]),
                notes=tuple(values["notes"]),
                warnings=tuple(values["warnings"]),
            )
        except (KeyError, TypeError) as error:
            raise DataError(f"these are not the annotations of a data set ({error!r})") from error


def load_annotations(
    data: Path | str,
    *,
    split: str | int = 1,
    videos: Path | str | None = None,
    allow_missing: bool = False,
    seed: int = 0,
    test_fraction: float = 0.25,
    allow_leak: bool = False,
    label_base: LabelBase = "auto",
) -> Annotations:
    """Read a data set of any known format, which is seen from what is there.

    A folder may hold UCF101's or HMDB51's lists, mmaction2's text lists or CSV files by part (each in the folder or in
    one folder below it), one label sheet, or a folder per class. A file is a CSV sheet or a text list. Where no test
    part is named, one is held out of the training videos by group.

    Args:
        data: folder or file.
        split: number of the official split; where the split is made here, each number is another draw. Or
            ``leave-03-of-01-10``: all listed videos together, tested on group 3, trained on the others of 1 to 10.
        videos: folder under which the listed videos lie, where that is not ``data`` or a folder in it.
        allow_missing: leave listed videos out that are not there, instead of refusing.
        seed: of the split that is made here.
        test_fraction: of each class, for the split that is made here.
        allow_leak: take a given split although a group or a video stands on both of its sides.
        label_base: number of the first class where labels are whole numbers: 0, 1, or ``"auto"``.

    Raises:
        DataError: see the message; it names the file, the line, and what would do.
    """
    data = Path(data)
    fold = Fold.parse(split)
    number = None if fold else split_number(split)
    if videos is not None and not Path(videos).is_dir():
        raise DataError(f"{videos}: no such folder of videos")
    listing = read_listing(data, number, None if videos is None else Path(videos))
    if fold:
        listing = fold.apply(listing)
    elif not listing.split and number != 1 and any(row.part == "test" for row in listing.rows):
        raise DataError(f"{data}: names its own test part, so there is only split 1, not {number}")
    labels, classes, label_notes = _labels(listing, label_base)
    check_class_names(classes)
    root, items, missing, notes = _find(listing, labels, data, allow_missing)
    listed = _listed(listing.rows, labels, len(classes))
    by_part = _drop_repeats(listing.rows, items, classes, notes)
    present = [item for part in by_part.values() for item in part]
    grouped = assign_groups(present)
    group_of = dict(zip(((i.video, i.start, i.end) for i in present), grouped.groups, strict=True))
    parts = {
        part: [replace(item, group=group_of[item.video, item.start, item.end]) for item in by_part.get(part, [])]
        for part in ("", *PARTS)
    }
    notes = [*listing.notes, *label_notes, *notes]
    if present:
        notes.append(grouped.how)
    warnings = _leaks(parts, grouped.certain, listing.official, allow_leak, data)
    loose = parts.pop("")
    out: Counter[int] = Counter()
    if loose or (parts["train"] and not sum(listed["test"])):
        try:
            kept, held_out, how = split_by_group(loose or parts["train"], test_fraction, (seed, number or 1))
        except DataError as error:
            if not parts["val"]:
                raise
            warnings.append(f"no test part is named: {error}")
        else:
            parts["train"], parts["test"] = list(kept), list(held_out)
            notes.append(f"no test part is named: {how}")
            out = Counter(item.label for item in held_out)
            listed["test"] = tuple(out[label] for label in range(len(classes)))
    # What is missing and was named for no part counts as named for training.
    unplaced = listed.pop("")
    listed["train"] = tuple(
        named + more - out[label] for label, (named, more) in enumerate(zip(listed["train"], unplaced, strict=True))
    )
    if twins := _differ_only_in_case(classes):
        warnings.append(f"classes that differ only in capitals: {first_few(twins)}")
    return Annotations(
        data=data,
        root=root,
        kind=listing.kind,
        classes=classes,
        parts={part: tuple(parts[part]) for part in PARTS},
        listed=listed,
        missing=tuple(missing),
        split=listing.split or str(number),
        notes=tuple(dict.fromkeys(notes)),
        warnings=tuple(warnings),
    )


def _labels(listing: Listing, label_base: LabelBase) -> tuple[tuple[int, ...], tuple[str, ...], tuple[str, ...]]:
    if listing.classes is None:
        return resolve_labels(listing.rows, listing.names_from, label_base)
    if label_base != "auto":
        raise DataError(
            f"label_base={label_base} is for CSV and text lists with whole-number labels; {listing.kind} number their "
            "classes themselves"
        )
    return tuple(int(row.label) for row in listing.rows), listing.classes, ()


def _find(
    listing: Listing, labels: Sequence[int], data: Path, allow_missing: bool
) -> tuple[Path, list[VideoItem | None], list[str], list[str]]:
    """The item of each row, None where the video is missing; the videos' root, the missing names, notes."""
    listed = [row.video for row in listing.rows]
    located = Located(listing.base, {v: v for v in listed}, ()) if listing.on_disk else locate(listed, listing.base)
    missing = list(dict.fromkeys(video for video in listed if video not in located.found))
    names = len(set(listed))
    if missing and listing.frame_folders:
        raise DataError(
            f"{data}: lists folders of frames (as {missing[0]}), and for {len(missing):,} of {names:,} there is no "
            f"video of that name under {listing.base}; give the folder of the videos with --videos, or make a video "
            "of each, as in: ffmpeg -framerate 25 -i img_%05d.jpg video.mp4"
        )
    if missing and not allow_missing:
        if not located.found:
            raise DataError(
                f"none of the {names:,} videos that {data} lists is under {listing.base} (first {missing[0]}); name "
                "the folder that holds them with --videos FOLDER"
            )
        raise DataError(
            f"{len(missing):,} of the {names:,} videos that {data} lists are not under {located.root}: "
            f"{first_few(missing)}; add them, name their folder with --videos FOLDER, or go on without them with "
            "--allow-missing"
        )
    items: list[VideoItem | None] = []
    for row, label in zip(listing.rows, labels, strict=True):
        video = located.found.get(row.video)
        if video is not None and not video.isprintable():
            _refuse_unless_text(video)
        items.append(
            None if video is None else VideoItem(located.root / video, video, label, row.group, row.start, row.end)
        )
    notes = list(located.notes)
    if listing.frame_folders:
        notes.append("the list names folders of frames; the videos of the same names are read instead")
    return located.root, items, missing, notes


def _refuse_unless_text(name: str) -> None:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"{name!a} is not a UTF-8 file name; rename it, so that it can be written down") from error


def _listed(rows: Sequence[Row], labels: Sequence[int], classes: int) -> dict[str, tuple[int, ...]]:
    counted = Counter(zip((row.part for row in rows), labels, strict=True))
    return {part: tuple(counted[part, label] for label in range(classes)) for part in ("", *PARTS)}


def _drop_repeats(
    rows: Sequence[Row], items: Sequence[VideoItem | None], classes: Sequence[str], notes: list[str]
) -> dict[str, list[VideoItem]]:
    """Items by part, each once; the same stretch under two labels is refused."""
    first: dict[tuple[str, float | None, float | None], tuple[VideoItem, Row]] = {}
    seen: set[tuple[str, str, float | None, float | None]] = set()
    by_part: dict[str, list[VideoItem]] = defaultdict(list)
    repeats: list[str] = []
    for row, item in zip(rows, items, strict=True):
        if item is None:
            continue
        stretch = (item.video, item.start, item.end)
        earlier, earlier_row = first.setdefault(stretch, (item, row))
        if earlier.label != item.label:
            raise DataError(
                f"{item.name} is listed twice with different labels: {classes[earlier.label]} ({earlier_row.where}) "
                f"and {classes[item.label]} ({row.where})"
            )
        if (row.part, *stretch) in seen:
            repeats.append(item.name)
            continue
        seen.add((row.part, *stretch))
        by_part[row.part].append(item)
    if repeats:
        notes.append(f"listed more than once, and counted once: {first_few(repeats)}")
    return by_part


def _leaks(
    parts: Mapping[str, Sequence[VideoItem]], certain: frozenset[str], official: bool, allow_leak: bool, data: Path
) -> list[str]:
    """Warnings about groups on both sides of a given split; certain ones are refused unless allowed or official."""
    found = straddling({part: items for part, items in parts.items() if part})
    if not found:
        return []
    sure = [group for group in found if group in certain]
    examples = [
        f"{group} ({', '.join(f'{count} in {part}' for part, count in found[group].items())})"
        for group in sure or found
    ]
    if sure and not official and not allow_leak:
        raise DataError(
            f"{data}: the split leaks: {counted(len(sure), 'group')} (one recording, person or sequence "
            f"each) on both sides: {first_few(examples, 3)}; a score on such a split is too good. Put each group "
            "on one side, or take the split as it is with --allow-leak"
        )
    how = " as published" if official else "" if sure else ", if the names tell right"
    return [f"on both sides of the split{how}: {counted(len(found), 'group')}: {first_few(examples, 3)}"]


def _differ_only_in_case(classes: Sequence[str]) -> list[str]:
    folded = Counter(name.casefold() for name in classes)
    return [name for name in classes if folded[name.casefold()] > 1]


def _classes_text(names: Sequence[str]) -> str:
    return f"{'class' if len(names) == 1 else f'{len(names)} classes'} {first_few(names)}"


__all__ = ["IMBALANCE", "PARTS", "Annotations", "DataError", "VideoItem", "load_annotations"]
