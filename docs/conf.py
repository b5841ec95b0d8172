"""How Sphinx builds these pages: ``sphinx-build -W -b html docs build/docs``."""

from __future__ import annotations

import re
from typing import Any

from sphinx.util.nodes import make_refnode

from twisted_beastws import __version__

project = "twisted_beastws"
author = "the twisted_beastws authors"
copyright = author
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

html_theme = "alabaster"
html_theme_options = {
    "description": "WebSocket for Twisted",
    "page_width": "1280px",
    "body_max_width": "auto",
    "sidebar_width": "230px",
    "fixed_sidebar": True,
    "show_powered_by": False,
}
html_sidebars = {"**": ["about.html", "searchfield.html", "navigation.html"]}
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_copy_source = False

default_role = "py:obj"
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True

_ENTRY = re.compile(r"(?:^|(?<=\. ))(?!default)([a-z_]\w*(?:, [a-z_]\w*)*): (?=\S)")

_LISTING = r"\*\*[^*\n]+\*\*\n\n```python\n.*?^```\n"
_PAIR = re.compile(rf"^({_LISTING})\n({_LISTING})", re.MULTILINE | re.DOTALL)


def _as_list(lines: list[str]) -> list[str]:
    """Turn our docstrings' lines ``name: meaning`` into a list; reStructuredText would run them together."""
    out: list[str] = []
    in_list = False
    for line in lines:
        begins = _ENTRY.match(line) and (in_list or not out or not out[-1].strip())
        in_list = bool(line.strip()) and bool(begins or in_list)
        if begins:
            found = _ENTRY.split(line)[1:]
            out += [f"- **{names}**: {meaning.strip()}" for names, meaning in zip(found[::2], found[1::2], strict=True)]
        else:
            out.append(f"  {line.strip()}" if in_list else line)
    return out


def process_docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = _as_list(lines)


def process_signature(
    app: Any, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Interfaces stand by their names."""
    return tuple(text and re.sub(r"<InterfaceClass ([\w.]+)>", r"\1", text) for text in (signature, returns))


def resolve_by_name(app: Any, env: Any, node: Any, content: Any) -> Any:
    """Docstrings write public names without their module, as users do."""
    if node.get("refdomain") != "py" or node.get("reftype") != "obj":
        return None
    found = [name for name in env.domains["py"].objects if name.endswith(f".{node['reftarget']}")]
    if len(found) != 1:
        return None
    target = env.domains["py"].objects[found[0]]
    return make_refnode(app.builder, node["refdoc"], target.docname, target.node_id, content, found[0])


def for_sphinx(app: Any, docname: str, source: list[str]) -> None:
    """Put paired listings next to each other, and adapt links that leave docs/."""
    text = source[0].replace("](../benchmarks/results/table.md)", "](benchmarks.md)")
    source[0] = _PAIR.sub("::::{container} beside\n:::{container}\n\\1:::\n:::{container}\n\\2:::\n::::\n", text)


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", process_docstring)
    app.connect("autodoc-process-signature", process_signature)
    app.connect("missing-reference", resolve_by_name)
    app.connect("source-read", for_sphinx)
