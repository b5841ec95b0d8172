"""Helpers that parse command lines with a class of options."""

from __future__ import annotations

from typing import TypeVar

import pytest
from twisted.python.usage import Options, UsageError

Read = TypeVar("Read", bound=Options)


def parse(kind: type[Read], *arguments: str) -> Read:
    options = kind()
    options.parseOptions(list(arguments))  # type: ignore[no-untyped-call]
    return options


def refusal(kind: type[Options], *arguments: str) -> str:
    """Return the one-line error message for these arguments."""
    with pytest.raises(UsageError) as caught:
        parse(kind, *arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message
