"""The site: its reference, its theme, its search, and its width on phones and screens."""

from __future__ import annotations

import re
import zlib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import twisted_beastws
from twisted_beastws import Deflate, Limits, Origins, Timeouts

from .programs import DOCS, listings, until

WIDTHS = (360, 768, 1280, 1600)
WIDE_PAGES = ("index", "reference/options", "topics/threats", "topics/comparison", "coming-from/autobahn", "benchmarks")


def test_each_page_with_programs_has_a_test() -> None:
    tests = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    for path in DOCS.rglob("*.md"):
        page = path.relative_to(DOCS).with_suffix("").as_posix()
        listed = re.search(r"^```python$", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert not listed or f'"{page.removeprefix("coming-from/")}"' in tests, page


class TestBuild:
    """The files of the built site."""

    def test_every_public_name_is_in_the_reference(self, site: Path) -> None:
        # Four lines of text come before the compressed part.
        inventory = zlib.decompress((site / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode()
        names = set(re.findall(r"^(?:\S+\.)?(\w+) py:", inventory, re.MULTILINE))
        pages = "".join(path.read_text() for path in (site / "reference").glob("*.html"))
        missing = {name for name in twisted_beastws.__all__ if name not in names}
        assert missing == {"ACCELERATED", "__version__"} and "ACCELERATED" in pages and "__version__" in pages

    def test_every_field_of_the_options_has_its_anchor(self, site: Path) -> None:
        page = (site / "reference" / "options.html").read_text()
        for kind in (Timeouts, Limits, Origins, Deflate):
            anchors = {f'id="twisted_beastws.{kind.__name__}.{field.name}"' for field in fields(kind)}
            assert {anchor for anchor in anchors if anchor not in page} == set()

    def test_names_of_twisted_and_python_are_links(self, site: Path) -> None:
        page = (site / "reference" / "clients.html").read_text()
        assert 'href="https://docs.twisted.org/en/stable/api/twisted.internet.defer.Deferred.html' in page
        assert 'href="https://docs.python.org/3/library/stdtypes.html#str"' in page

    def test_pages_have_the_version_the_repository_and_copy_buttons(self, site: Path) -> None:
        page = (site / "tutorial.html").read_text()
        assert f"twisted_beastws {twisted_beastws.__version__}" in page
        assert re.search(r'<a href="https://[^"]+">Repository</a>', page) and "copybutton.js" in page
        assert 'class="next-page"' in page and 'class="prev-page"' in page and "toc-tree" in page

    def test_interfaces_are_listed_by_their_names(self, site: Path) -> None:
        page = (site / "reference" / "clients.html").read_text()
        assert "InterfaceClass" not in page and "IStreamClientEndpoint" in page

    def test_programs_are_shown_side_by_side(self, site: Path) -> None:
        for page in (site / "coming-from").glob("*.html"):
            listed = len(listings(f"coming-from/{page.stem}"))
            assert page.read_text().count('<div class="beside docutils') == listed // 2


class TestInABrowser:
    """The built site in headless Chromium."""

    @pytest.mark.parametrize("width", WIDTHS)
    def test_no_page_is_wider_than_the_window(self, site: Path, site_browser: Any, width: int) -> None:
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 700}
        site_browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        for page in WIDE_PAGES:
            site_browser.get((site / f"{page}.html").as_uri())
            assert site_browser.execute_script("return document.documentElement.scrollWidth") <= width, page

    def test_long_names_in_a_table_leave_room_for_the_other_columns(self, site: Path, site_browser: Any) -> None:
        metrics = {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        site_browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        site_browser.get((site / "topics" / "guarantees.html").as_uri())
        shares = site_browser.execute_script(
            "return [...document.querySelectorAll('article table')].map("
            "table => table.querySelector('td').offsetWidth / table.offsetWidth)"
        )
        assert len(shares) == 4 and min(shares) > 0.16

    @pytest.mark.parametrize("option", ["max_message_size", "ping_interval"])
    def test_a_search_for_an_option_lists_the_option_first(self, site: Path, site_browser: Any, option: str) -> None:
        site_browser.get(f"{(site / 'search.html').as_uri()}?q={option}")
        first = until(lambda: site_browser.find_elements("css selector", "ul.search li a"))[0]
        assert first.get_attribute("href").endswith(f".{option}")

    def test_the_site_is_light_or_dark_as_the_reader_prefers(self, site: Path, site_browser: Any) -> None:
        grounds = []
        for scheme in ("light", "dark"):
            feature = {"name": "prefers-color-scheme", "value": scheme}
            site_browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
            site_browser.get((site / "tutorial.html").as_uri())
            colour = "return getComputedStyle(document.body).backgroundColor"
            grounds.append(sum(map(int, re.findall(r"\d+", site_browser.execute_script(colour))[:3])))
        assert grounds[0] > 700 and grounds[1] < 100
