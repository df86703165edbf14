"""`twostream train`, whose options are the fields of TrainConfig."""

import argparse
import dataclasses
import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from twostream.errors import UsageError

if TYPE_CHECKING:
    from twostream.training.config import TrainConfig


def train(argv: Sequence[str]) -> int:
    """Train a model into a run folder; the same command goes on where it was stopped."""
    config = parse_train(argv)
    from twostream import console
    from twostream.training.run import train as train_run

    with console.progress_bar("videos") as progress:
        result = train_run(config, say=console.say, progress=progress)
    console.show(f"next: twostream evaluate {result.run.path}")
    return 0


def parse_train(argv: Sequence[str]) -> "TrainConfig":
    """The configuration that words of the command line and YAML files give together."""
    from jsonargparse import ArgumentParser

    from twostream.training.config import TrainConfig

    parser = ArgumentParser(
        prog="twostream train",
        usage="twostream train --data DATA --out RUN [--config FILE] [options]",
        description=train.__doc__,
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="config", help="YAML with any of the options; later options win")
    parser.add_class_arguments(TrainConfig, None)
    try:
        values = dict(parser.instantiate(parser.parse_args(_as_declared(argv, TrainConfig))))
    except argparse.ArgumentError as error:
        known = [option for action in parser._actions for option in action.option_strings]
        raise UsageError(f"{_nearest(str(error), known)} (options: twostream train --help)") from error
    values.pop("config")
    return TrainConfig(**values)


def _nearest(message: str, known: Sequence[str]) -> str:
    """The message, with the nearest known option where it names an unknown one."""
    for word in message.split():
        if word.startswith("--") and word.split("=")[0] not in known:
            near = difflib.get_close_matches(word.split("=")[0], known, n=1)
            if near:
                return f"{message}; did you mean {near[0]}?"
    return message


def _as_declared(argv: Sequence[str], schema: type) -> list[str]:
    """``--allow-missing`` as ``--allow_missing=true``: dashes for underscores, and switches without a value."""
    switches = {f"--{entry.name}" for entry in dataclasses.fields(schema) if entry.type in (bool, "bool")}
    declared: list[str] = []
    for place, word in enumerate(argv):
        if not word.startswith("--"):
            declared.append(word)
            continue
        name, equals, value = word.partition("=")
        name = name[:2] + name[2:].replace("-", "_")
        following = argv[place + 1].lower() if place + 1 < len(argv) else ""
        if name in switches and not equals and following not in ("true", "false"):
            declared.append(f"{name}=true")
        else:
            declared.append(f"{name}{equals}{value}")
    return declared
