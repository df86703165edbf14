"""Optimiser, parameter groups and schedule from :class:`~twostream.training.config.OptimConfig`."""

import math
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase

from torch import nn, optim
from torch.nn.modules.batchnorm import _BatchNorm

from twostream.errors import UsageError
from twostream.training.config import OptimConfig


def parameter_groups(model: nn.Module, config: OptimConfig) -> list[dict[str, object]]:
    """Groups of parameters that share weight decay and learning-rate factor.

    Only filters (two dimensions or more) are decayed unless ``config.decay_all``; patterns of ``lr_multipliers`` are
    tried in order and the first that fits a parameter's name counts.

    Raises:
        UsageError: a pattern of ``lr_multipliers`` that fits no parameter that learns.

    Reference: weight decay on filters only, ST-ResNet's released training code.
    """
    assert config.lr is not None
    assert config.weight_decay is not None
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    unused = set(config.lr_multipliers)
    names = []
    for name, parameter in model.named_parameters():
        names.append(name)
        if not parameter.requires_grad:
            continue
        factor = 1.0
        for pattern, multiplier in config.lr_multipliers.items():
            if fnmatchcase(name, pattern):
                unused.discard(pattern)
                factor = multiplier
                break
        decay = config.weight_decay if config.decay_all or parameter.ndim > 1 else 0.0
        groups.setdefault((factor, decay), []).append(parameter)
    if unused:
        shown = ", ".join(names[:2] + names[-2:])
        raise UsageError(
            f"--optim.lr_multipliers: {sorted(unused)} fit no parameter that learns; names are like {shown}"
        )
    return [
        {"params": parameters, "lr": config.lr * factor, "weight_decay": decay}
        for (factor, decay), parameters in groups.items()
    ]


def freeze(model: nn.Module, patterns: Sequence[str]) -> list[nn.Module]:
    """Stop the learning of every parameter whose name fits one of the patterns.

    Returns:
        The outermost modules in which nothing is left to learn. Whoever trains keeps them in inference mode: batch
        norms of a frozen network must not go on gathering statistics.

    Raises:
        UsageError: a pattern that fits no parameter, or patterns that fit all of them.
    """
    if not patterns:
        return []
    names = [name for name, _ in model.named_parameters()]
    frozen = {name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)}
    unused = [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in names)]
    shown = ", ".join(names[:2] + names[-2:])
    if unused:
        raise UsageError(f"--optim.frozen: {unused} fit no parameter; names are like {shown}")
    if len(frozen) == len(names):
        raise UsageError(f"--optim.frozen: {list(patterns)} leave nothing to learn; names are like {shown}")
    for name in frozen:
        model.get_parameter(name).requires_grad_(False)
    return _outermost(model, frozen)


def _outermost(module: nn.Module, frozen: set[str], prefix: str = "") -> list[nn.Module]:
    within = [prefix + name for name, _ in module.named_parameters()]
    if within and frozen.issuperset(within):
        return [module]
    return [m for name, child in module.named_children() for m in _outermost(child, frozen, f"{prefix}{name}.")]


def build_optimizer(model: nn.Module, config: OptimConfig) -> optim.Optimizer:
    """SGD with momentum, as the papers train, or AdamW; ``config`` is resolved."""
    groups = parameter_groups(model, config)
    if config.optimizer == "adamw":
        return optim.AdamW(groups)
    return optim.SGD(groups, momentum=config.momentum)


def rate_factor(config: OptimConfig, steps: int) -> Callable[[int], float]:
    """The learning rate at each of ``steps`` optimiser steps, as a factor on its top value."""
    warmup = round(config.warmup * steps)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        share = (step - warmup) / max(1, steps - warmup)
        match config.schedule:
            case "cosine":
                return 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
            case "step":
                return float(0.1 ** sum(step >= milestone * steps for milestone in config.milestones))
            case "constant":
                return 1.0

    return factor


def set_batch_norm_momentum(model: nn.Module, momentum: float) -> None:
    """Set the share of a batch in the running statistics of every batch norm."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = momentum


def freeze_batch_norm(streams: Iterable[nn.Module], rule: str) -> int:
    """Put batch norms into inference mode and stop their learning; returns how many.

    Args:
        streams: the networks of the single streams; ``partial`` spares the first batch norm of each.
        rule: ``none``, ``partial`` or ``all``.

    Reference: partial batch norm, Wang et al., Temporal Segment Networks, ECCV 2016, section 3.2.
    """
    frozen = 0
    if rule == "none":
        return 0
    for stream in streams:
        norms = [module for module in stream.modules() if isinstance(module, _BatchNorm)]
        for norm in norms[1 if rule == "partial" else 0 :]:
            norm.eval()
            norm.requires_grad_(False)
            frozen += 1
    return frozen
