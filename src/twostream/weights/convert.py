"""Name tables from published weights to ours; dict to dict."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from twostream.weights.strict import WeightsError

_RESNET = re.compile(
    r"(conv1|bn1|layer[1-4]\.\d+\.(conv[123]|bn[123]|downsample\.[01]))"
    r"\.(weight|bias|running_mean|running_var|num_batches_tracked)"
)


def from_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A torchvision ResNet's state as a backbone's: the names are ours already, the classifier (``fc``) is dropped.

    Old files lack the counters of seen batches; they are set to zero, which no computation reads.

    Raises:
        WeightsError: tensors that no ResNet has.
    """
    kept = {name: value for name, value in state.items() if not name.startswith("fc.")}
    if foreign := [name for name in kept if not _RESNET.fullmatch(name)]:
        listed = ", ".join(foreign[:5]) + (" ..." if len(foreign) > 5 else "")
        raise WeightsError(f"not a ResNet with torchvision's names: {len(foreign)} tensors are foreign, e.g. {listed}")
    for name in [name for name in kept if name.endswith(".running_mean")]:
        kept.setdefault(name.replace("running_mean", "num_batches_tracked"), torch.tensor(0))
    return kept


__all__ = ["from_torchvision"]
