"""Give each field of an options class its own anchor, type, default and entry in the index and the search."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from typing import Any

_ENTRY = re.compile(r"(?:^|(?<=\. ))(?!default)([a-z_]\w*(?:, [a-z_]\w*)*): (?=\S)")
_PARAMETER = re.compile(r"^:param (\w+):\s*")


def entries(lines: list[str]) -> list[str | tuple[list[str], str]]:
    """Split a docstring into its lines and its entries ``name: meaning``.

    Several entries may share a line, and an entry may go on in the next line.
    """
    out: list[str | tuple[list[str], str]] = []
    for line in lines:
        text = line.strip()
        in_entry = bool(out) and isinstance(out[-1], tuple)
        if text and (found := _PARAMETER.match(text)):
            out.append(([found[1]], text[found.end() :]))
        elif text and _ENTRY.match(text) and (in_entry or not out or out[-1] == ""):
            parts = _ENTRY.split(text)[1:]
            for names, meaning in zip(parts[::2], parts[1::2], strict=True):
                out.append((names.split(", "), meaning.strip()))
        elif text and in_entry and not text.startswith(":"):
            names, meaning = out.pop()
            out.append((names, f"{meaning} {text}"))  # type: ignore[arg-type]
        else:
            out.append(line)
    return out


def as_attributes(lines: list[str], options: type) -> list[str]:
    """Turn the entries of an options class into ``py:attribute`` directives."""
    by_name = {field.name: field for field in fields(options)}  # type: ignore[arg-type]
    out: list[str] = []
    for entry in entries(lines):
        if isinstance(entry, str) or not set(entry[0]) <= by_name.keys():
            out.append(entry if isinstance(entry, str) else f"{', '.join(entry[0])}: {entry[1]}")
            continue
        names, meaning = entry
        field = by_name[names[0]]
        out += ["", f".. py:attribute:: {names[0]}", *(f"                  {name}" for name in names[1:])]
        out.append(f"   :type: {field.type}")
        if len(names) == 1:
            out.append(f"   :value: {_shown(field.default)}")
        out += ["", f"   {meaning[0].upper()}{meaning[1:]}", ""]
    return out


def as_list(lines: list[str]) -> list[str]:
    """Turn the entries of any other docstring into a list; reStructuredText would run them together."""
    return [entry if isinstance(entry, str) else f"- **{', '.join(entry[0])}**: {entry[1]}" for entry in entries(lines)]


def _shown(default: Any) -> str:
    value = float(default) if isinstance(default, float) else int(default) if type(default).__base__ is int else default
    return f"{value:g}" if isinstance(value, float) and value.is_integer() else repr(value)


def process_docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    parameters = any(_PARAMETER.match(line) for line in lines)
    if what == "class" and is_dataclass(obj) and name.rpartition(".")[2] in app.config.options_classes:
        lines[:] = as_attributes(lines, obj)
    elif not parameters:
        lines[:] = as_list(lines)


def setup(app: Any) -> dict[str, bool]:
    app.setup_extension("sphinx.ext.autodoc")
    app.add_config_value("options_classes", [], "env")
    # After napoleon, which turns Args: into :param name:.
    app.connect("autodoc-process-docstring", process_docstring, priority=600)
    return {"parallel_read_safe": True}
