"""Which names mean the same video, as lists of different people write them."""

import posixpath
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence

from twostream.data.listing import clean_name
from twostream.data.video_files import without_suffix

# A stretch of a recording: "day1.mp4@12.5-14".
_STRETCH = re.compile(r"(.*?)(@[\d.]*-[\d.]*)?", re.DOTALL)

Parts = tuple[str, ...]


class AmbiguousNameError(ValueError):
    """A name that fits several videos; says which."""


def match_videos(names: Sequence[str], wanted: Sequence[str]) -> list[int | None]:
    """The place in ``wanted`` of the video that each name means; None where there is none.

    A name may lack the ending or the folders in front, or have more folders: ``v_X_g01_c01``, ``X/v_X_g01_c01.avi`` and
    ``videos/X/v_X_g01_c01.avi`` mean the same as long as no other video is called like that. A name that is the same
    to the letter goes before others, then one with the same ending, then the one that shares most folders.

    Raises:
        AmbiguousNameError: a name fits several equally well.
    """
    places = {name: place for place, name in enumerate(wanted)}
    known = [(_parts(name, ending=True), _parts(name, ending=False)) for name in wanted]
    by_last: dict[str, list[int]] = defaultdict(list)
    for place, (_, stem) in enumerate(known):
        by_last[stem[-1]].append(place)

    def found(name: str) -> int | None:
        if name in places:
            return places[name]
        for tier, ending in enumerate((True, False)):
            parts = _parts(name, ending=ending)
            fit: dict[int, tuple[int, bool]] = {}
            for place in by_last[_parts(name, ending=False)[-1]]:
                other = known[place][tier]
                shared = min(len(parts), len(other))
                if parts[-shared:] == other[-shared:]:
                    fit[place] = (shared, parts == other)
            candidates = [place for place in fit if fit[place] == max(fit.values())]
            if len(candidates) > 1:
                could = " or ".join(wanted[place] for place in candidates[:3])
                raise AmbiguousNameError(f"{name} could mean {could}; write as much of the path as tells them apart")
            if candidates:
                return candidates[0]
        return None

    return [found(name) for name in names]


def _parts(name: str, *, ending: bool) -> Parts:
    # File systems differ in how they compose accents.
    name = unicodedata.normalize("NFC", posixpath.normpath(clean_name(name)))
    match = _STRETCH.fullmatch(name)
    video, stretch = (match[1], match[2] or "") if match else (name, "")
    return tuple(((video if ending else without_suffix(video)) + stretch).split("/"))


__all__ = ["AmbiguousNameError", "match_videos"]
