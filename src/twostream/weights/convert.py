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
_VGG = re.compile(r"features\.\d+\.(weight|bias|running_mean|running_var|num_batches_tracked)")
# Caffe's own names have "/" where the PyTorch ports have "_".
_BN_INCEPTION = re.compile(
    r"(conv1[/_]7x7_s2|conv2[/_]3x3(?:_reduce)?"
    r"|inception_[345][a-e][/_](?:1x1|3x3|3x3_reduce|double_3x3_reduce|double_3x3_[12]|pool_proj))"
    r"(_bn)?\.(weight|bias|running_mean|running_var|num_batches_tracked)"
)


def from_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A torchvision ResNet's state as a backbone's: the names are ours already, the classifier (``fc``) is dropped.

    Old files lack the counters of seen batches; they are set to zero, which no computation reads.

    Raises:
        WeightsError: tensors that no ResNet has.
    """
    kept = {name: value for name, value in state.items() if not name.startswith("fc.")}
    _refuse_foreign(kept, _RESNET, "a ResNet with torchvision's names")
    return _with_counters(kept)


def from_torchvision_vgg(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A torchvision VGG's state as a backbone's: the names are ours already, ``classifier`` is dropped.

    Raises:
        WeightsError: tensors that no VGG has.
    """
    kept = {name: value for name, value in state.items() if not name.startswith("classifier.")}
    _refuse_foreign(kept, _VGG, "a VGG with torchvision's names")
    return _with_counters(kept)


def from_bn_inception(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published BN-Inception, in Caffe's names or those of its PyTorch ports, as a backbone's.

    ``inception_3a_1x1.weight`` becomes ``inception_3.a.1x1.conv.weight``, ``inception_3a_1x1_bn.weight`` becomes
    ``inception_3.a.1x1.bn.weight``; classifiers are dropped; vectors of shape (1, C), as Caffe has them, become (C,).
    The network was trained on blue, green, red, so where its first layer reads three channels they are turned round:
    all models here are shown red, green, blue.

    Raises:
        WeightsError: tensors that no BN-Inception has.

    Reference: bn_inception.yaml of the released TSN code; pretrained-models.pytorch, bninception (input_space BGR).
    """
    kept = {name: value for name, value in state.items() if not name.startswith(("fc", "last_linear."))}
    _refuse_foreign(kept, _BN_INCEPTION, "a BN-Inception with the published names")
    converted = {}
    for name, value in kept.items():
        found = _BN_INCEPTION.fullmatch(name)
        assert found is not None
        layer = found[1].replace("/", "_")
        place = re.sub(r"^inception_(\d)(\w)_", r"inception_\1.\2.", layer)
        if found[2] or found[3] == "bias":
            value = value.reshape(-1) if value.ndim else value
        elif layer == "conv1_7x7_s2" and value.shape[1] == 3:
            value = value.flip(1)
        converted[f"{place}.{'bn' if found[2] else 'conv'}.{found[3]}"] = value
    return _with_counters(converted)


def to_backbone(state: Mapping[str, Tensor], identity: str) -> dict[str, Tensor]:
    """Published weights as the state of a backbone of this identity, e.g. ``"resnet50"`` or ``"bn_inception"``.

    Raises:
        WeightsError: tensors that such a network does not have.
    """
    tables = {"resnet": from_torchvision, "vgg16": from_torchvision_vgg, "bn_inception": from_bn_inception}
    return next(table for family, table in tables.items() if identity.startswith(family))(state)


def _refuse_foreign(state: Mapping[str, Tensor], known: re.Pattern[str], what: str) -> None:
    if foreign := [name for name in state if not known.fullmatch(name)]:
        listed = ", ".join(foreign[:5]) + (" ..." if len(foreign) > 5 else "")
        raise WeightsError(f"not {what}: {len(foreign)} tensors are foreign, e.g. {listed}")


def _with_counters(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for name in [name for name in state if name.endswith(".running_mean")]:
        state.setdefault(name.replace("running_mean", "num_batches_tracked"), torch.tensor(0))
    return state


__all__ = ["from_bn_inception", "from_torchvision", "from_torchvision_vgg", "to_backbone"]
