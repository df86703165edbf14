"""Connections between two residual streams: what the next unit of each reads on its shortcut and in its branch."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor
from torch.nn import functional as F

Direction = Literal["motion_to_appearance", "appearance_to_motion", "both", "none"]
Place = Literal["residual", "direct"]
Operation = Literal["add", "multiply"]


class UnitInput(NamedTuple):
    """What a residual unit reads: ``skip`` its shortcut, ``residual`` its branch of convolutions."""

    skip: Tensor
    residual: Tensor


@dataclass(frozen=True)
class Connection:
    """How the streams are joined between two units; called with both sums, before their ReLU.

    With s the sum of the stream that receives, m that of the stream that gives, and f the ReLU:

    ======== ========================== ===================================
    place    the next unit's shortcut   its residual branch
    ======== ========================== ===================================
    residual f(s)                       s + f(m)    or  s * f(m)
    direct   f(s) + f(m)  or  f(s)*f(m) the same
    ======== ========================== ===================================

    ``residual`` is the paper's: what comes from the other stream only enters the residual function, beside the sum
    *before* its ReLU, while the identity stays the receiving stream's own. ``direct`` puts it into the path that all
    later units share. Gradients flow back to the giving stream. In ``both`` directions each stream gives what it had
    before it received.

    Attributes:
        direction: which stream receives; ``"none"`` leaves both alone (late fusion).
        place: see above.
        operation: ``"add"`` (ST-ResNet) or ``"multiply"`` (ST-MulNet).

    Reference: Feichtenhofer et al., NIPS 2016, section 3.2; Feichtenhofer et al., Spatiotemporal Multiplier Networks,
    CVPR 2017, section 3.
    """

    direction: Direction = "motion_to_appearance"
    place: Place = "residual"
    operation: Operation = "add"

    def __call__(self, appearance: Tensor, motion: Tensor) -> tuple[UnitInput, UnitInput]:
        """Inputs of the next unit of appearance and of motion; the maps have one shape."""
        a, m = F.relu(appearance), F.relu(motion)
        into_a, into_m = UnitInput(a, a), UnitInput(m, m)
        if self.direction in ("motion_to_appearance", "both"):
            into_a = self._receive(appearance, a, m)
        if self.direction in ("appearance_to_motion", "both"):
            into_m = self._receive(motion, m, a)
        return into_a, into_m

    def _receive(self, total: Tensor, own: Tensor, other: Tensor) -> UnitInput:
        base = total if self.place == "residual" else own
        joined = base + other if self.operation == "add" else base * other
        return UnitInput(own if self.place == "residual" else joined, joined)


UNCONNECTED = Connection("none")

__all__ = ["UNCONNECTED", "Connection", "Direction", "Operation", "Place", "UnitInput"]
