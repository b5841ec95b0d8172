"""The documentation is built without a warning, and what it lists is run: see tests/docs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zlib
from dataclasses import fields
from pathlib import Path

import pytest

import twisted_beastws
from twisted_beastws import Deflate, Limits, Origins, Timeouts

DOCS = Path(__file__).parents[1] / "docs"
# What these tests import is what the pages tell of.
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

LISTED = {
    "tutorial": 6,
    "hub": 2,
    "howto/asgi": 1,
    "howto/asyncio": 3,
    "howto/authentication": 4,
    "howto/embedding": 10,
    "howto/proxies": 1,
    "howto/scaling": 1,
    "howto/testing": 5,
    "howto/twisted-web": 3,
    "topics/backpressure": 3,
    "topics/memory": 1,
    "coming-from/autobahn": 7,
    "coming-from/twisted-web-websocket": 4,
    "coming-from/websockets": 6,
}
"""Pages with programs, and how many; each is run in tests/docs."""


def test_there_are_no_other_programs() -> None:
    pages = {path.relative_to(DOCS).with_suffix("").as_posix(): path.read_text() for path in DOCS.rglob("*.md")}
    listed = {page: len(re.findall(r"^```python$", text, re.MULTILINE)) for page, text in pages.items()}
    assert {page: count for page, count in listed.items() if count} == LISTED


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("docs")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-b",
        "html",
        "-d",
        str(work / "doctrees"),
    ]
    done = subprocess.run(
        [*command, str(DOCS), str(work / "html")],
        cwd=work,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return work / "html"


class TestBuild:
    def test_every_public_name_is_in_the_reference(self, html: Path) -> None:
        # Four lines about it stand before what is compressed.
        inventory = zlib.decompress((html / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode()
        names = set(re.findall(r"^(?:\S+\.)?(\w+) py:", inventory, re.MULTILINE))
        pages = "".join(path.read_text() for path in (html / "reference").glob("*.html"))
        missing = {name for name in twisted_beastws.__all__ if name not in names}
        assert missing == {"ACCELERATED", "__version__"} and "ACCELERATED" in pages and "__version__" in pages

    def test_docstrings_are_lists(self, html: Path) -> None:
        page = (html / "reference" / "options.html").read_text()
        for options in (Timeouts, Limits, Origins, Deflate):
            for field in fields(options):
                assert re.search(rf"<li><p><strong>[\w, ]*\b{field.name}\b", page), field.name

    def test_interfaces_stand_by_their_names(self, html: Path) -> None:
        page = (html / "reference" / "clients.html").read_text()
        assert "InterfaceClass" not in page and "IStreamClientEndpoint" in page

    def test_programs_stand_side_by_side(self, html: Path) -> None:
        for page in (html / "coming-from").glob("*.html"):
            assert page.read_text().count('<div class="beside docutils') == LISTED[f"coming-from/{page.stem}"] // 2
