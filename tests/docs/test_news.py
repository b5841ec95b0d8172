"""News fragments have a name and a type that towncrier knows, and text for users."""

from __future__ import annotations

import re
from pathlib import Path

from twisted_beastws._version import __version__

ROOT = Path(__file__).parents[2]
TYPES = ("feature", "bugfix", "doc", "removal", "misc")


def test_each_news_fragment_has_a_type_and_a_sentence() -> None:
    for path in (ROOT / "newsfragments").iterdir():
        if path.name == ".gitignore":
            continue
        assert re.fullmatch(rf"\+[\w-]+\.({'|'.join(TYPES)})\.md", path.name), path.name
        text = path.read_text(encoding="utf-8").strip()
        assert text.endswith((".", ".)")) and len(text) > 30, path.name


def test_the_version_is_the_newest_one_in_the_changes() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    _, start, releases = changes.partition("<!-- towncrier release notes start -->")
    newest = re.search(r"^## (\d+\.\d+\.\d+)( \(not released yet\))?", releases, re.MULTILINE)
    assert start and newest is not None
    version, unreleased = newest.groups()
    if unreleased:
        assert __version__ == f"{version}.dev0"
    else:
        # After a release the package has the number of the next one.
        assert __version__ == version or re.fullmatch(r"\d+\.\d+\.\d+\.dev0", __version__)
