"""Loading weights so that nothing is left out or left over in silence."""

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from twostream.errors import TwostreamError


class WeightsError(TwostreamError):
    """Published or given weights that cannot be had, are damaged, or belong to another network."""


def mismatches(wanted: Mapping[str, Tensor], got: Mapping[str, Tensor]) -> list[str]:
    """What keeps ``got`` from being a state of the network whose state is ``wanted``; empty when it fits."""
    shapes = [
        f"{name} is {tuple(got[name].shape)}, wanted {tuple(wanted[name].shape)}"
        for name in wanted
        if name in got and got[name].shape != wanted[name].shape
    ]
    return [
        f"{len(names)} {what}: {_first(names)}"
        for what, names in (
            ("missing", [n for n in wanted if n not in got]),
            ("unexpected", [n for n in got if n not in wanted]),
            ("of another shape", shapes),
        )
        if names
    ]


def load_strict(module: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """Copy every tensor of ``state`` into ``module``; any that is missing, left over or misshapen is an error.

    Raises:
        WeightsError: names ``source`` and the tensors.
    """
    if wrong := mismatches(module.state_dict(), state):
        raise WeightsError(f"{source} does not fit the network. Tensors {'; '.join(wrong)}")
    module.load_state_dict(dict(state), strict=True)


def _first(names: Iterable[str], count: int = 5) -> str:
    names = list(names)
    return ", ".join(names[:count]) + (f", and {len(names) - count} more" if len(names) > count else "")


__all__ = ["WeightsError", "load_strict", "mismatches"]
