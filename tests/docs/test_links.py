"""Links between pages lead somewhere: on a forge, which shows the Markdown, and on the built site."""

from __future__ import annotations

import importlib
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("docs", "benchmarks", "examples", "fuzz", ".github")
PAGES = [*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md"))]
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]+`", "`", FENCED.sub("", text))


def visible(text: str) -> str:
    """Return the text that a forge shows."""
    return re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)


def slugs(path: Path) -> set[str]:
    """Return the anchors that a forge gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)) for heading in headings)
    return {heading.lower().replace(" ", "-") for heading in plain}


def links(path: Path) -> list[str]:
    found = re.findall(r"\]\(([^)\s]+)\)", without_code(visible(path.read_text(encoding="utf-8"))))
    return [link for link in found if not urlsplit(link).scheme]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_each_link_of_markdown_has_its_file_and_heading(page: Path) -> None:
    for link in links(page):
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.is_relative_to(ROOT) and path.exists(), link
        assert not anchor or anchor in slugs(path), link


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=named)
def test_a_forge_shows_text_and_no_directive(page: Path) -> None:
    shown = visible(page.read_text(encoding="utf-8"))
    assert "```{" not in shown
    assert len(re.findall(r"\w+", without_code(shown))) > 30


def test_the_index_lists_each_page_once_with_a_line() -> None:
    index = ROOT / "docs" / "index.md"
    lines = [line for line in index.read_text().splitlines() if line.startswith("- [")]
    assert all(re.match(r"- \[[^]]+\]\([^)]+\): \w.{10}", line) for line in lines), lines
    listed = [re.findall(r"\]\((.*?)\)", line)[0] for line in lines]
    pages = {path.relative_to(index.parent).as_posix() for path in index.parent.rglob("*.md")} - {"index.md"}
    assert len(listed) == len(set(listed))
    assert {page for page in pages if not page.startswith("reference/")} | {"reference/index.md"} == {
        page for page in listed if not page.startswith("../")
    }


def test_the_reference_lists_each_name_in_plain_text() -> None:
    for page in (ROOT / "docs" / "reference").glob("*.md"):
        text = page.read_text()
        names = re.findall(r"^\.\. auto(?:class|function|exception):: (?:\w+\.)*(\w+)$", text, re.MULTILINE)
        shown = visible(text)
        listed = {name for name in names if re.search(rf"^ *- .*`(?:\w+\.)*{name}\b", shown, re.MULTILINE)}
        assert set(names) == listed, page


@pytest.mark.parametrize("package", ["asgi", "hub", "service", "testing"])
def test_the_reference_lists_the_public_names_of_each_package(package: str) -> None:
    pages = "".join(visible(path.read_text()) for path in (ROOT / "docs" / "reference").glob("*.md"))
    names = importlib.import_module(f"twisted_beastws.{package}").__all__
    assert [name for name in names if not re.search(rf"`(?:\w+\.)*{name}\b", pages)] == []


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids |= {value for name in ("id", "name") if (value := values.get(name))}
        self.links += [value for name in ("href", "src") if (value := values.get(name)) and not urlsplit(value).scheme]


def test_each_link_of_the_site_has_its_page_and_anchor(site: Path) -> None:
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchors = pages[target].ids if target in pages else {parts.fragment}
            if not target.exists() or unquote(parts.fragment) not in {"", *anchors}:
                broken.append((path.name, link))
    assert broken == []
