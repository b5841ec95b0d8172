"""Readable names of a parametrized test's cases, where pytest would only number the values."""

from __future__ import annotations

import ast
import enum
import re
from collections import defaultdict
from functools import cache
from pathlib import Path
from types import FunctionType

LONGEST = 80
"""Characters of a value in the id of a test. Of a longer text, the middle is cut: pytest would number it."""

# pytest itself shows these.
_SHOWN = (int, float, complex, bool, type(None), enum.Enum, re.Pattern)


def readable_id(value: object) -> str | None:
    """Return a short text for a value that shows its content, or None to leave it to pytest."""
    if isinstance(value, FunctionType) and value.__name__ == "<lambda>":
        expressions = lambdas(value.__code__.co_filename)[value.__code__.co_firstlineno]
        return shortened(ascii(expressions[0])[1:-1]) if len(expressions) == 1 else None
    # pytest shows classes and functions by their names.
    if isinstance(value, _SHOWN) or hasattr(value, "__name__"):
        return None
    if isinstance(value, str | bytes):
        text = ascii(value).removeprefix("b")[1:-1]
        return shortened(text) if len(text) > LONGEST else None
    # The order of a set differs from run to run.
    text = ascii(sorted(value) if isinstance(value, set | frozenset) else value)
    # An address differs from run to run.
    return None if " at 0x" in text else shortened(text)


def shortened(text: str) -> str:
    """Return ``text`` without its middle if it is long."""
    half = (LONGEST - 3) // 2
    return text if len(text) <= LONGEST else f"{text[:half]}...{text[-half:]}"


@cache
def lambdas(file: str) -> defaultdict[int, list[str]]:
    """Return the expressions of the lambdas in a file, by their lines."""
    found = defaultdict[int, list[str]](list)
    for node in ast.walk(ast.parse(Path(file).read_text())):
        if isinstance(node, ast.Lambda):
            found[node.lineno].append(ast.unparse(node.body))
    return found
