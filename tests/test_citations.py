"""Each section of an RFC that the project cites exists, and its title is known to the tests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .support.sections import SECTIONS

ROOT = Path(__file__).parent.parent
FOLDERS = ("benchmarks", "docs", "examples", "fuzz", "tests", "twisted_beastws")
CITATION = re.compile(r"RFC (\d+)((?:(?:,? and|,)? §\d+(?:\.\d+)*(?: \(\d+\))?)+)")


def sections_in(text: str) -> Iterator[tuple[int, str]]:
    """Yield the RFC and the number of each section that ``text`` cites."""
    for rfc, sections in CITATION.findall(text):
        for section in re.findall(r"§([\d.]*\d)", sections):
            yield int(rfc), section


@pytest.mark.parametrize(
    ("text", "cited"),
    [
        ("RFC 6455 §5.5.1: we close.", [(6455, "5.5.1")]),
        ("RFC 9112 §3, §6 and §9.3.", [(9112, "3"), (9112, "6"), (9112, "9.3")]),
        ("RFC 6455 §4.1 (5) and §10.6, RFC 9525 §6", [(6455, "4.1"), (6455, "10.6"), (9525, "6")]),
        ("RFC 6455 alone", []),
    ],
)
def test_each_cited_section_is_found(text: str, cited: list[tuple[int, str]]) -> None:
    assert list(sections_in(text)) == cited


def test_each_cited_section_is_in_the_table_of_titles() -> None:
    unknown = [
        f"{path.relative_to(ROOT)}: RFC {rfc} §{section}"
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in (".md", ".pxd", ".py", ".pyx") and path != Path(__file__)
        for rfc, section in sections_in(path.read_text())
        if section not in SECTIONS.get(rfc, ())
    ]
    assert unknown == [], "look these sections up in the RFCs' texts, and add their titles to tests/support/sections.py"
