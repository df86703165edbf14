"""Which diagnostic sets there are: what each isolates, its classes, and what its videos' labels say about the scene."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from twostream.data.shape_rendering import GROUNDS, MOTIONS, TEXTURES, Role, Run
from twostream.errors import UsageError

AGREEMENT = 0.9
"""same_look: share of training and validation videos whose ground is that of their class."""


class Cast(NamedTuple):
    """What the label (and the draw within the label) says about a scene, and what of it goes into the truth."""

    roles: tuple[Role, ...]
    ground: str
    facts: dict[str, Any]


@dataclass(frozen=True)
class Lot:
    """One video's place in its set: what its cast is drawn from.

    ``turn`` counts the videos of one class, so that what is not the label can be dealt evenly.
    """

    label: int
    turn: int
    classes: int
    part: str
    frames: int

    def throughout(self, motion: str) -> tuple[Run, ...]:
        """A motion that lasts the whole video."""
        return (Run(motion, 0, self.frames - 1),)


@dataclass(frozen=True)
class ShapeSet:
    """A set of classes.

    Attributes:
        name: what it is called in commands.
        isolates: what it shows, in a sentence.
        default_classes: number of classes unless one is asked for.
        class_counts: the numbers of classes that can be asked for.
        default_frames: of a video, unless asked for; ``least_frames`` is the shortest that holds what is to be seen.
        class_names: number of classes -> names, in the order of the labels (which is that of class folders).
        ceilings: number of classes -> the best accuracy on the test part that each kind of model can reach, by
            ``chance``, ``appearance`` (single frames), ``motion`` (single flow stacks), ``late_fusion`` (any weighted
            sum of those two streams' scores) and, where several things are in the picture,
            ``late_fusion_by_place`` (the same for streams that know in which corner they saw what; a network that
            pools over space before it scores does not).
    """

    name: str
    isolates: str
    default_classes: int
    class_counts: tuple[int, ...]
    default_frames: int
    least_frames: int
    class_names: Callable[[int], tuple[str, ...]]
    ceilings: Callable[[int], dict[str, float]]
    cast: Callable[[Lot, np.random.Generator], Cast]


def late_fusion_ceiling(n: int) -> float:
    """The best accuracy of any late fusion of two streams on *conjunction* with n textures and n motions.

    A video shows texture i and motion j, each pair equally often, and its class is (i + j) mod n. Late fusion answers
    argmax_k f_k(i) + g_k(j), whatever the functions f and g are (weights, logarithms and softmax of either stream are
    all among them). It can be right on at most n^2 - floor(n^2 / 4) of the n^2 pairs: 3/4 for even n, 7/9 for n = 3.

    *It reaches that.* f_k(i) = 2 k i - k^2 / 2 and g_k(j) = 2 k j - k^2 / 2, with k counted from m = floor(n / 2) to
    m + n - 1, are largest together for the k nearest to i + j, so all pairs with m <= i + j < m + n are right, and
    these are so many.

    *It reaches no more.* Take two classes k, l, a row i and its neighbour i + l - k. If all of the pairs of class k and
    l in the columns and rows reached from there are right, then k beats l at (i, k - i), and l beats k at
    (i + l - k, k - i), which lies in the same column, so f_k - f_l is larger in row i than in row i + l - k. Going on
    by l - k one comes back to row i and finds it larger than itself. So each such ring has a pair that is wrong. For
    even n the rings of l = k + n/2 have four pairs, do not overlap, and there are n^2 / 4. For n = 3 each two of three
    classes form one ring, so two classes have a wrong pair.

    Noise does not help: for every fixed outcome of what else the two streams see, the above holds for the table of
    pairs, so it holds on average. It needs a frame that says nothing of j and flow that says nothing of i, which is
    how the videos are drawn.

    Raises:
        UsageError: n below 2, or odd and above 3, for which the exact figure is not known in general.
    """
    if n < 2 or (n % 2 and n > 3):
        raise UsageError(f"the ceiling of late fusion is known for n = 3 and even n >= 2, got {n}")
    return 1 - (n * n // 4) / (n * n)


# The casts. Each takes what the label says from the lot, deals evenly what the claim needs to be even, and leaves the
# rest to the generator.


def _pick(rng: np.random.Generator, names: Sequence[str]) -> str:
    return names[int(rng.integers(len(names)))]


def _motion_names(n: int) -> tuple[str, ...]:
    return tuple(sorted(MOTIONS[:n]))


def _texture_names(n: int) -> tuple[str, ...]:
    return tuple(sorted(TEXTURES[:n]))


def _cast_same_look(lot: Lot, rng: np.random.Generator) -> Cast:
    motion = _motion_names(lot.classes)[lot.label]
    texture = _pick(rng, TEXTURES)
    other = (lot.label + int(rng.integers(1, lot.classes))) % lot.classes
    agrees = lot.part != "test" and rng.random() < AGREEMENT
    ground = GROUNDS[lot.label if agrees else other]
    return Cast(
        (Role(texture, lot.throughout(motion)),),
        ground,
        {"texture": texture, "motion": motion, "ground_of_class": GROUNDS[lot.label]},
    )


def _cast_same_motion(lot: Lot, rng: np.random.Generator) -> Cast:
    texture = _texture_names(lot.classes)[lot.label]
    motion = _pick(rng, MOTIONS)
    role = Role(texture, lot.throughout(motion))
    return Cast((role,), _pick(rng, GROUNDS), {"texture": texture, "motion": motion})


_MOVE = (14, 20)  # fields that each of the two motions lasts
_GAP = (13, 20)  # fields between them: a stack of 10 that sees one motion ends before the other
_REST = 3  # fields at least before and after, so that both look alike at their ends


def _orders(n: int) -> list[tuple[str, str]]:
    motions = next(MOTIONS[:m] for m in range(2, len(MOTIONS) + 1) if m * (m - 1) == n)
    return sorted((a, b) for a in motions for b in motions if a != b)


def _cast_long_term(lot: Lot, rng: np.random.Generator) -> Cast:
    first, second = _orders(lot.classes)[lot.label]
    texture = _pick(rng, TEXTURES)
    one, two = (int(f) for f in rng.integers(_MOVE[0], _MOVE[1] + 1, size=2))
    gap = int(rng.integers(_GAP[0], _GAP[1] + 1))
    spare = lot.frames - 1 - 2 * _REST - one - gap - two
    start = _REST + int(rng.integers(spare + 1))
    runs = (Run(first, start, start + one), Run(second, start + one + gap, start + one + gap + two))
    return Cast(
        (Role(texture, runs),),
        _pick(rng, GROUNDS),
        {"texture": texture, "motions": [first, second], "gap": [start + one, start + one + gap]},
    )


def _cast_conjunction(lot: Lot, rng: np.random.Generator) -> Cast:
    i = lot.turn % lot.classes
    j = (lot.label - i) % lot.classes
    texture, motion = TEXTURES[i], MOTIONS[j]
    return Cast(
        (Role(texture, lot.throughout(motion)),),
        _pick(rng, GROUNDS),
        {"texture": texture, "motion": motion, "texture_index": i, "motion_index": j},
    )


def _cast_binding(lot: Lot, rng: np.random.Generator) -> Cast:
    motions = MOTIONS[:2] if lot.label == 0 else MOTIONS[1::-1]
    roles = tuple(Role(t, lot.throughout(m)) for t, m in zip(TEXTURES[:2], motions, strict=True))
    return Cast(roles, _pick(rng, GROUNDS), {"motion_of": dict(zip(TEXTURES[:2], motions, strict=True))})


def _cast_where(lot: Lot, rng: np.random.Generator) -> Cast:
    moving = _texture_names(lot.classes)[lot.label]
    motion = _pick(rng, MOTIONS)
    roles = tuple(Role(t, lot.throughout(motion) if t == moving else ()) for t in TEXTURES[: lot.classes])
    return Cast(
        roles,
        _pick(rng, GROUNDS),
        {"texture": moving, "motion": motion, "moving": TEXTURES.index(moving)},
    )


SETS: dict[str, ShapeSet] = {
    s.name: s
    for s in (
        ShapeSet(
            name="same_look",
            isolates=(
                "Only motion tells. In train and val the ground is that of the class in "
                f"{AGREEMENT:.0%} of the videos, in test it is always that of another class, so whoever trusts "
                "appearance does worse than chance."
            ),
            default_classes=4,
            class_counts=(2, 3, 4),
            default_frames=48,
            least_frames=11,
            class_names=_motion_names,
            # Of appearance that knows no more than the training part teaches; trusting the grounds, it comes to 0.
            ceilings=lambda n: {"chance": 1 / n, "appearance": 1 / n, "motion": 1.0, "late_fusion": 1.0},
            cast=_cast_same_look,
        ),
        ShapeSet(
            name="same_motion",
            isolates="Only appearance tells: the class is the texture, all motions occur alike in all classes.",
            default_classes=4,
            class_counts=(2, 3, 4),
            default_frames=48,
            least_frames=11,
            class_names=_texture_names,
            ceilings=lambda n: {"chance": 1 / n, "appearance": 1.0, "motion": 1 / n, "late_fusion": 1.0},
            cast=_cast_same_motion,
        ),
        ShapeSet(
            name="long_term",
            isolates=(
                f"Only the order of two motions tells, which a still gap of {_GAP[0]} to {_GAP[1]} fields parts, at "
                "any place in the video: a single flow stack of 10 fields sees the same in both orders."
            ),
            default_classes=2,
            class_counts=(2, 6, 12),
            default_frames=80,
            least_frames=1 + 2 * _REST + 2 * _MOVE[1] + _GAP[1],
            class_names=lambda n: tuple("-".join(order) for order in _orders(n)),
            # Stacks tell which two motions there are, and only the order of the two is left to guess.
            ceilings=lambda n: {"chance": 1 / n, "appearance": 1 / n, "motion": 0.5, "late_fusion": 0.5},
            cast=_cast_long_term,
        ),
        ShapeSet(
            name="conjunction",
            isolates=(
                "Neither stream alone tells: the class is (texture + motion) mod n, every texture and every motion "
                "equally often in every class. A late fusion of scores is right on three quarters at most for even n."
            ),
            default_classes=2,
            class_counts=(2, 3, 4),
            default_frames=48,
            least_frames=11,
            class_names=lambda n: tuple(f"sum-{k}" for k in range(n)),
            ceilings=lambda n: {
                "chance": 1 / n,
                "appearance": 1 / n,
                "motion": 1 / n,
                "late_fusion": late_fusion_ceiling(n),
            },
            cast=_cast_conjunction,
        ),
        ShapeSet(
            name="binding",
            isolates=(
                "Two things, both textures and both motions in every video; the classes differ only in which texture "
                "has which motion, so what is pooled over the picture before it is joined says nothing."
            ),
            default_classes=2,
            class_counts=(2,),
            default_frames=48,
            least_frames=11,
            class_names=lambda _: tuple(f"{TEXTURES[0]}-{m}" for m in MOTIONS[:2]),
            ceilings=lambda n: {
                "chance": 1 / n,
                "appearance": 1 / n,
                "motion": 1 / n,
                "late_fusion": 1 / n,
                "late_fusion_by_place": 0.75,
            },
            cast=_cast_binding,
        ),
        ShapeSet(
            name="where",
            isolates=(
                "One thing of each texture in every video; one of them moves, and its texture is the class. "
                "Appearance sees all classes, motion sees none: motion must say where appearance should look."
            ),
            default_classes=3,
            class_counts=(2, 3, 4),
            default_frames=48,
            least_frames=11,
            class_names=_texture_names,
            # By place: swapping the textures of two corners swaps the answer there, and of such four pairs of what
            # appearance and motion see, a sum of scores gets one wrong. Every pair is in as many fours as any other.
            ceilings=lambda n: {
                "chance": 1 / n,
                "appearance": 1 / n,
                "motion": 1 / n,
                "late_fusion": 1 / n,
                "late_fusion_by_place": 0.75,
            },
            cast=_cast_where,
        ),
    )
}
"""The sets by name."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the pictures of a set depend on (the number of videos is not among it: more of them extend a set).

    Raises:
        UsageError: a value that the set does not have, with those that it has.
    """

    set: str
    classes: int
    seed: int
    size: int
    frames: int
    difficulty: float

    def __post_init__(self) -> None:
        shapes = SETS[self.set]
        if self.classes not in shapes.class_counts:
            counts = ", ".join(map(str, shapes.class_counts))
            raise UsageError(f"{self.set} can have {counts} classes, got {self.classes}")
        if self.seed < 0:
            raise UsageError(f"the seed is a whole number from 0, got {self.seed}")
        if self.size < 64 or self.size % 2:
            raise UsageError(f"the size is the short side in px, even and at least 64, got {self.size}")
        if self.frames < shapes.least_frames:
            raise UsageError(f"{self.set} needs videos of at least {shapes.least_frames} frames, got {self.frames}")
        if not 0 <= self.difficulty <= 1:
            raise UsageError(f"the difficulty lies between 0 and 1, got {self.difficulty}")

    @property
    def shapes(self) -> ShapeSet:
        """The set that these settings are of."""
        return SETS[self.set]

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the labels."""
        return self.shapes.class_names(self.classes)

    @property
    def picture(self) -> tuple[int, int]:
        """Width and height in px; a little wider than high, so that nothing passes by taking them for each other."""
        return 2 * round(self.size * 9 / 16), self.size


def settings_for(
    set_name: str,
    *,
    seed: int = 0,
    size: int = 128,
    frames: int | None = None,
    difficulty: float = 0.5,
    classes: int | None = None,
) -> Settings:
    """Settings with the set's own defaults filled in.

    Raises:
        UsageError: an unknown set, or a value that it does not have.
    """
    if set_name not in SETS:
        raise UsageError(f"there is no set {set_name!r}; known: {', '.join(SETS)}")
    shapes = SETS[set_name]
    return Settings(
        set=set_name,
        classes=shapes.default_classes if classes is None else classes,
        seed=seed,
        size=size,
        frames=shapes.default_frames if frames is None else frames,
        difficulty=float(difficulty),
    )


__all__ = ["AGREEMENT", "SETS", "Cast", "Lot", "Settings", "ShapeSet", "late_fusion_ceiling", "settings_for"]
