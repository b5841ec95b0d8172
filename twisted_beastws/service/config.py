"""Options from a file of ``key = value`` (TOML), named as on the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING or sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Value = str | bool
"""The text of a value, or whether a flag is given."""


class ConfigError(Exception):
    """A file cannot be used; ``str(error)`` says where and why, in one line."""


def _raise(error: ConfigError) -> None:
    raise error


def read_config(
    path: str,
    *,
    flags: Collection[str],
    single: Collection[str],
    repeated: Collection[str],
    report: Callable[[ConfigError], None] = _raise,
) -> dict[str, list[Value]]:
    """Return the values in the file ``path`` by option. Raises `ConfigError` if the file cannot be read.

    Args:
        path: the file.
        flags: the options without a value.
        single: the options with one value.
        repeated: the options with any number of values.
        report: called with the error of each key that cannot be used; by default it raises the first.
    """
    values: dict[str, list[Value]] = {}
    for key, value in _load(path).items():
        where = f"{path}: {key}"
        try:
            if key in flags:
                values[key] = [_flag(value, where)]
            elif key in single:
                values[key] = [_text(value, where)]
            elif key in repeated:
                values[key] = [_text(item, where) for item in (value if isinstance(value, list) else [value])]
            else:
                raise ConfigError(f"{path}: {_unknown(key, [*flags, *single, *repeated])}")
        except ConfigError as error:
            report(error)
    return values


def _load(path: str) -> dict[str, object]:
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {' '.join(str(error).split())}") from error


def _flag(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{where}: give true or false")
    return value


def _text(value: object, where: str) -> str:
    if isinstance(value, str):
        return value
    # A bool is an int to Python.
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    raise ConfigError(f"{where}: give a text in quotes, or a number")


def _unknown(key: str, known: list[str]) -> str:
    shown = " ".join(key.split())
    near = get_close_matches(key.replace("_", "-"), known, 1)
    return f"{shown}: there is no such option" + (f"; {near[0]} is one" if near else "")
