"""News fragments have a name and a type that towncrier knows, and text for users."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TYPES = ("feature", "bugfix", "doc", "removal", "misc")


def test_each_news_fragment_has_a_type_and_a_sentence() -> None:
    for path in (ROOT / "newsfragments").iterdir():
        if path.name == ".gitignore":
            continue
        assert re.fullmatch(rf"\+[\w-]+\.({'|'.join(TYPES)})\.md", path.name), path.name
        text = path.read_text(encoding="utf-8").strip()
        assert text.endswith((".", ".)")) and len(text) > 30, path.name


def test_the_changes_have_a_section_for_the_first_release() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "<!-- towncrier release notes start -->" in changes
    assert re.search(r"^## 1\.0\.0", changes, re.MULTILINE)
