"""The text of ``--help``: the options in groups."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence

COLUMN = 22
"""The width of the column of names. A longer name has its description on the next line."""


def grouped(groups: Mapping[str, Sequence[str]], options: Iterable[str], docs: Mapping[str, str], width: int) -> str:
    """Return the text for a terminal of ``width`` characters.

    Args:
        groups: the options of each group, by its title; options in no group come last.
        options: their names, each with ``=`` at its end if it takes a value.
        docs: their descriptions.
        width: characters of a line.
    """
    spelled = {name.rstrip("="): name for name in options}
    rest = dict(spelled)
    lines = []
    for title, names in groups.items():
        lines += ["", f"{title}:"]
        for name in names:
            lines += _described(rest.pop(name), docs[name], width)
    if rest:
        lines += ["", "Other:"]
        for name in sorted(rest):
            lines += _described(rest[name], docs[name], width)
    return "\n".join(lines) + "\n"


def _described(spelled: str, doc: str, width: int) -> list[str]:
    name = f"  --{spelled}"
    lines = textwrap.wrap(" ".join(doc.split()), max(20, width - COLUMN - 1), break_on_hyphens=False)
    if len(name) < COLUMN:
        first, *lines = [name.ljust(COLUMN) + lines[0], *lines[1:]]
    else:
        first = name
    return [first, *(" " * COLUMN + line for line in lines)]
