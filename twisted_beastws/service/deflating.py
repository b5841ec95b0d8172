"""The parameters of ``--deflate``."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

from twisted_beastws.options import Deflate

ON = "on"
NAMES = tuple(field.name for field in fields(Deflate))
_FLAGS = tuple(field.name for field in fields(Deflate) if isinstance(field.default, bool))


def read_deflate(text: str) -> Deflate:
    """Return what ``text`` asks for: ``on`` is the defaults, ``level=6, server_no_context_takeover`` changes some.

    The names are those of `Deflate`, with underscores or hyphens, between commas or semicolons.

    Raises:
        ValueError: it names no parameter, or has a value that cannot be.
    """
    if text == ON:
        return Deflate()
    given: dict[str, Any] = {}
    for item in re.split("[,;]", text):
        name, equals, value = (part.strip() for part in item.partition("="))
        name = name.replace("-", "_")
        if name not in NAMES:
            raise ValueError(f"{name!r} is no parameter: give on, or some of {', '.join(NAMES)}")
        if name in given:
            raise ValueError(f"{name} is given twice")
        given[name] = _value(name, value, bool(equals))
    return Deflate(**given)


def _value(name: str, value: str, has_value: bool) -> bool | int:
    if name in _FLAGS:
        # RFC 7692 §7.1.1: on the wire it has no value.
        if has_value:
            raise ValueError(f"{name} takes no value")
        return True
    if not re.fullmatch("[0-9]{1,9}", value):
        raise ValueError(f"{name}={value}: give a number")
    return int(value)
