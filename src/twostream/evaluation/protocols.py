"""What of a video is looked at when it is judged, and how the answers are merged: the published protocols by name."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from twostream.clip import InputSpec
from twostream.data.dataset import ViewDataset
from twostream.data.items import VideoItem
from twostream.data.sampling import ShortClips, Spacing
from twostream.data.transforms import Space
from twostream.errors import UsageError
from twostream.flow.store import FlowStore

Merge = Literal["logits", "softmax"]


@dataclass(frozen=True)
class Protocol:
    """The views of a video and the order of their merging.

    Attributes:
        name: what it is called on the command line and in scores files.
        steps: positions in time, spread evenly; a network that must see its steps together gets all of them at once,
            and never fewer than in training.
        space: what of the frame is seen: its ``centre``; four corners and the centre (``ten`` with mirror images);
            ``three`` squares along the long side; or the ``whole``, for networks that average over space.
        flips: whether mirror images are seen as well. Switch them off (``dataclasses.replace``) for classes that a
            mirror turns into one another.
        merge: ``logits`` averages before the softmax, ``softmax`` after.
        spacing: of the positions; ``released_code`` strings sweeps together, see :func:`sampling.sample_views`.
    """

    name: str
    steps: int
    space: Space
    flips: bool
    merge: Merge
    spacing: Spacing = "even"


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol("1-view", steps=1, space="centre", flips=False, merge="logits"),
        # Feichtenhofer et al., NIPS 2016: fully convolutional, scores averaged before the softmax.
        Protocol("25-step", steps=25, space="whole", flips=True, merge="logits"),
        # The same with the steps that the released code takes, for networks that see them together.
        Protocol("released_code", steps=25, space="whole", flips=True, merge="logits", spacing="released_code"),
        # A fifth of the views of 25-step: for suites of many rows.
        Protocol("10-step", steps=10, space="whole", flips=False, merge="logits"),
        # Simonyan and Zisserman, NIPS 2014; merged before the softmax as in Wang et al., ECCV 2016.
        Protocol("25x10", steps=25, space="ten", flips=True, merge="logits"),
        # Feichtenhofer et al., SlowFast, ICCV 2019: softmax scores averaged.
        Protocol("10x3", steps=10, space="three", flips=False, merge="softmax"),
    )
}

# Networks of 96 px are a good deal better by crops than by whole frames (docs/results.md). Probably for this: their
# last map is 3 x 3 in training, where eight of nine places see the border of the crop, and larger in a whole frame,
# where most do not.
SMALL_CROPS = 160


def advice(protocol: str, size: int) -> str | None:
    """What to try instead of a protocol, for a network of so many px; None: nothing."""
    if get_protocol(protocol).space != "whole" or size >= SMALL_CROPS:
        return None
    return (
        f"{protocol} shows whole frames, which a network of {size} px crops has not learned to see; where the protocol "
        "is free, --protocol 25x10 shows it crops and is often better"
    )


def get_protocol(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        UsageError: there is none; names those there are.
    """
    if name not in PROTOCOLS:
        raise UsageError(f"no protocol is called {name!r}; there are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def view_dataset(
    protocol: Protocol,
    items: Sequence[VideoItem],
    store: FlowStore | None,
    spec: InputSpec,
    *,
    short_clips: ShortClips = "refuse",
) -> ViewDataset:
    """All views of every item, as :func:`evaluate.evaluate` takes them.

    Raises:
        UsageError, DataError: see :class:`ViewDataset`.
    """
    return ViewDataset(
        items,
        store,
        spec,
        steps=protocol.steps,
        space=protocol.space,
        flips=protocol.flips,
        spacing=protocol.spacing,
        short_clips=short_clips,
    )
