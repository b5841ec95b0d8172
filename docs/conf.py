"""How Sphinx builds these pages: ``sphinx-build -W -b html docs build/docs``."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.ext.intersphinx import InventoryAdapter
from sphinx.util.nodes import make_refnode

from twisted_beastws import __version__

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "extensions"))

project = "twisted_beastws"
author = "the twisted_beastws authors"
copyright = author
version = release = __version__
(REPOSITORY,) = re.findall(r'^Repository = "(.*)"$', (HERE.parent / "pyproject.toml").read_text("utf-8"), re.MULTILINE)

extensions = [
    "myst_parser",
    "option_fields",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["extensions", "inventories", "templates"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

# The names that our pages link to: a build needs no network.
intersphinx_mapping = {
    "python": ("https://docs.python.org/3", str(HERE / "inventories" / "python.txt")),
    "twisted": ("https://docs.twisted.org/en/stable/api", str(HERE / "inventories" / "twisted.txt")),
}

html_theme = "furo"
html_title = f"{project} {version}"
html_theme_options = {
    "source_repository": f"{REPOSITORY}/",
    "source_branch": "main",
    "source_directory": "docs/",
}
html_sidebars = {
    "**": [
        "sidebar/brand.html",
        "sidebar/search.html",
        "sidebar/repository.html",
        "sidebar/scroll-start.html",
        "sidebar/navigation.html",
        "sidebar/scroll-end.html",
    ]
}
templates_path = ["templates"]
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_copy_source = False
pygments_style = "friendly"
pygments_dark_style = "github-dark"
# Copy commands without their prompt.
copybutton_prompt_text = "$ "

default_role = "py:obj"
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
# The members of a class stand below it already: a section "Attributes" must not describe them as objects again.
napoleon_use_ivar = True
options_classes = ["Deflate", "Limits", "Origins", "Timeouts"]

_LISTING = r"\*\*[^*\n]+\*\*\n\n```python\n.*?^```\n"
_PAIR = re.compile(rf"^({_LISTING})\n({_LISTING})", re.MULTILINE | re.DOTALL)
# A forge shows no comment; Sphinx reads what is in these.
_FOR_SPHINX = re.compile(r"^<!-- sphinx\n(.*?)^-->\n", re.MULTILINE | re.DOTALL)
_OUTSIDE = re.compile(r"\]\(((?:\.\./)+)(?!docs/)([^)#\s]+)(#[^)\s]*)?\)")


def process_signature(
    app: Any, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Show interfaces by their names, and the fields of options below the class, not in its signature as well."""
    if what == "class" and name.rpartition(".")[2] in options_classes:
        return "", None
    return tuple(text and re.sub(r"<InterfaceClass ([\w.]+)>", r"\1", text) for text in (signature, returns))


def resolve_by_name(app: Any, env: Any, node: Any, content: Any) -> Any:
    """Link a name that a docstring writes without its module, as users do: ours, Twisted's or Python's."""
    if node.get("refdomain") != "py":
        return None
    suffix = f".{node['reftarget']}"
    ours = env.domains["py"].objects
    found = [name for name in ours if name.endswith(suffix)]
    if len(found) == 1:
        target = ours[found[0]]
        return make_refnode(app.builder, node["refdoc"], target.docname, target.node_id, content, found[0])
    # Sphinx 8.1, the newest for Python 3.10, has a plain tuple.
    theirs = {
        name: getattr(item, "uri", None) or item[2]
        for names in InventoryAdapter(env).main_inventory.values()
        for name, item in names.items()
        if name.endswith(suffix)
    }
    if not found and len(theirs) == 1:
        (uri,) = theirs.values()
        return nodes.reference("", "", content, internal=False, refuri=uri)
    return None


def _navigation(text: str) -> str:
    """Return the hidden tables of contents for the lists of links, one for each section."""
    out = ""
    for section in re.split(r"^## ", text, flags=re.MULTILINE):
        pages = re.findall(r"^- \[[^]]*\]\((?!\.\./)(.*?)\.md\)", section, re.MULTILINE)
        caption = "" if section.startswith("#") else f":caption: {section.splitlines()[0]}\n"
        if pages:
            out += "\n".join(["\n```{toctree}", f":hidden:\n{caption}", *pages, "```", ""])
    return out


def for_sphinx(app: Any, docname: str, source: list[str]) -> None:
    """Put paired listings side by side, and point links that leave docs/ to the repository."""
    here = HERE / f"{docname}.md"

    def outside(link: re.Match[str]) -> str:
        target = (here.parent / link[1] / link[2]).resolve()
        path = target.relative_to(HERE.parent).as_posix()
        if target.is_relative_to(HERE) or target.suffix in (".svg", ".png"):
            return link[0]
        return f"]({REPOSITORY}/blob/main/{path}{link[3] or ''})"

    source[0] += _navigation(source[0]) if docname.endswith("index") else ""
    text = _FOR_SPHINX.sub("\\1", source[0])
    text = text.replace("](../benchmarks/results/table.md)", "](benchmarks.md)")
    text = _OUTSIDE.sub(outside, text)
    source[0] = _PAIR.sub("::::{container} beside\n:::{container}\n\\1:::\n:::{container}\n\\2:::\n::::\n", text)


def setup(app: Any) -> None:
    app.connect("autodoc-process-signature", process_signature)
    app.connect("missing-reference", resolve_by_name)
    app.connect("source-read", for_sphinx)
