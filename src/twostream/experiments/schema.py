"""From what a YAML file says to frozen dataclasses: every key known, every value of its declared type."""

import difflib
import types
from collections.abc import Callable, Hashable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import yaml

from twostream.errors import TwostreamError, UsageError

T = TypeVar("T")


class SuiteError(TwostreamError):
    """A suite, or a file of its rows, that cannot be used: names the file, the key, and what would do."""


class _WrongTypeError(Exception):
    """A value of another type than declared; caught where the key is known."""


class _Loader(yaml.SafeLoader):
    """Refuses what plain YAML passes over: a key given twice, of which the first would be lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys of a YAML file.

    Raises:
        SuiteError: it cannot be read, is no YAML, or holds something else than keys.
    """
    try:
        # The loader is a safe one: it builds plain values only.
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SuiteError(f"{path}: cannot be read ({error})") from error
    return keys_of(values, str(path))


def keys_of(values: Any, place: str) -> dict[str, Any]:
    """``values`` as a mapping with text keys; nothing at all is an empty one.

    Raises:
        SuiteError: it is something else.
    """
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise SuiteError(f"{place}: wants keys with values, got {values!r}")
    for key in values:
        if not isinstance(key, str):
            hint = "; YAML reads on, off, yes and no without quotes as true and false" if isinstance(key, bool) else ""
            raise SuiteError(f"{place}: the key {key!r} is not a text, put it in quotes{hint}")
    return dict(values)


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the keys of ``over`` laid over it, key by key in nested mappings too."""
    both = dict(base)
    for key, value in over.items():
        below = both.get(key)
        both[key] = merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return both


def build(schema: Callable[..., T], values: Any, place: str, *, given: Mapping[str, Any] | None = None) -> T:
    """An instance of the dataclass ``schema`` from the keys of a file.

    Args:
        schema: a dataclass; nested ones are built from nested keys.
        values: what the file says.
        place: where that stands, for the error messages.
        given: fields that are no keys of the file, with their values.

    Raises:
        SuiteError: an unknown key (with the nearest known one), one that is missing, or a value that does not fit.
    """
    given = given or {}
    values = keys_of(values, place)
    hints = get_type_hints(schema)
    known = {field.name: field for field in fields(cast(Any, schema)) if field.name not in given}
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise SuiteError(f"{place}: unknown key {key}; {hint}Known are {', '.join(known)}")
    for name, field in known.items():
        if name not in values and field.default is MISSING and field.default_factory is MISSING:
            raise SuiteError(f"{place}: the key {name} is missing")
    arguments = dict(given)
    for key, value in values.items():
        try:
            arguments[key] = _converted(value, hints[key], f"{place}: {key}")
        except _WrongTypeError:
            raise SuiteError(f"{place}: {key} must be {_described(hints[key])}, got {value!r}") from None
    try:
        return schema(**arguments)
    except UsageError as error:
        raise SuiteError(f"{place}: {error}") from error


def _converted(value: Any, hint: Any, place: str) -> Any:
    """``value`` as the declared type, where YAML can only have written it so."""
    origin, options = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        for option in options:
            try:
                return _converted(value, option, place)
            except _WrongTypeError:
                continue
        raise _WrongTypeError
    if origin is Literal:
        if value in options:
            return value
        raise _WrongTypeError
    if is_dataclass(hint):
        return build(cast(Any, hint), value, place)
    if origin is tuple:
        return _tuple(value, options, place)
    if origin is dict:
        return {key: _entry(entry, options[1], f"{place}: {key}") for key, entry in keys_of(value, place).items()}
    return _plain(value, hint)


def _entry(value: Any, hint: Any, place: str) -> Any:
    try:
        return _converted(value, hint, place)
    except _WrongTypeError:
        raise SuiteError(f"{place} must be {_described(hint)}, got {value!r}") from None


def _tuple(value: Any, options: tuple[Any, ...], place: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _WrongTypeError
    if options[-1] is not Ellipsis and len(value) != len(options):
        raise _WrongTypeError
    kinds = [options[0]] * len(value) if options[-1] is Ellipsis else options
    return tuple(_converted(entry, kind, place) for entry, kind in zip(value, kinds, strict=True))


def _plain(value: Any, kind: type) -> Any:
    if kind is float and isinstance(value, int | str) and not isinstance(value, bool):
        # YAML takes 1e-3, without a point, for a text.
        try:
            return float(value)
        except ValueError:
            raise _WrongTypeError from None
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise _WrongTypeError


def _described(hint: Any) -> str:
    origin, options = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_described(option) for option in options)
    if origin is Literal:
        return " or ".join(map(str, options))
    if origin is tuple:
        count = "" if options[-1] is Ellipsis else f" of {len(options)}"
        return f"a list{count}, each {_described(options[0])}"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", types.NoneType: "null"}
    return names.get(hint, "keys with values")
