"""How many videos the published splits of UCF101 and HMDB51 have: lists that were cut or mixed up are noticed."""

from twostream.data.annotations import Annotations
from twostream.data.items import DataError
from twostream.weights.class_names import HMDB51, UCF101

# (train, test) by split.
_COUNTS = {
    "UCF101": (frozenset(UCF101), {"1": (9537, 3783), "2": (9586, 3734), "3": (9624, 3696)}),
    "HMDB51": (frozenset(HMDB51), dict.fromkeys("123", (3570, 1530))),
}


def official_name(annotations: Annotations) -> str:
    """``"UCF101"`` where a data set has its classes and its numbers of listed videos; "" for any other data set.

    Raises:
        DataError: the classes are those of a published data set and the numbers are not.
    """
    for name, (classes, counts) in _COUNTS.items():
        if classes != set(annotations.classes) or annotations.split not in counts:
            continue
        listed = (sum(annotations.listed["train"]), sum(annotations.listed["test"]))
        wanted = counts[annotations.split]
        if listed != wanted:
            raise DataError(
                f"{annotations.data}: split {annotations.split} lists {listed[0]:,} training and {listed[1]:,} test "
                f"videos, {name}'s official one {wanted[0]:,} and {wanted[1]:,}; take the lists as they were published"
            )
        return name
    return ""
