"""The tables of options and of the comparison are true."""

from __future__ import annotations

import importlib.util
import re
import sys
from dataclasses import fields
from types import ModuleType
from typing import Any

import pytest

from twisted_beastws import Deflate, Limits, Origins, Timeouts, __version__
from twisted_beastws.options import Derived
from twisted_beastws.service.codec import COST

from .programs import DOCS, defined, listings

TOPICS = "".join(path.read_text(encoding="utf-8") for path in (DOCS / "topics").glob("*.md"))
SIZES = {1 << 14: "16 KiB", 1 << 16: "64 KiB", 1 << 18: "256 KiB", 1 << 20: "1 MiB", 1 << 22: "4 MiB"}


def told(value: Any, unit: str) -> str:
    if value is None or value == ():
        return "none"
    if isinstance(value, str):
        return f"`{value}`"
    if isinstance(value, float):
        return f"{value:g}{unit}"
    return str(value) if isinstance(value, bool) else SIZES.get(value, str(value))


@pytest.mark.parametrize(
    ("options", "name"), [(kind, field.name) for kind in (Timeouts, Limits, Origins, Deflate) for field in fields(kind)]
)
def test_every_option_is_argued_by_its_default(options: Any, name: str) -> None:
    rows = re.findall(rf"^\| `{options.__name__}.{name}` \| (.*?) \| .", TOPICS, re.MULTILINE)
    default = getattr(options(), name)
    if isinstance(default, Derived):
        # The page also names the option that the default follows.
        rows = [row.partition(", or ")[0] for row in rows]
    assert rows == [told(default, " s")]


def test_a_budget_is_given_to_a_factory() -> None:
    (program,) = listings("topics/memory")
    names = defined(program)
    assert names["factory"].buildProtocol(None) is not None
    assert (names["budget"].used, names["budget"].closed) == (0, 0)


@pytest.fixture(scope="module")
def comparison() -> ModuleType:
    spec = importlib.util.spec_from_file_location("comparison", DOCS / "comparison.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TestComparison:
    """The table of `docs/topics/comparison.md`."""

    table = re.findall(r"^\| ([^|\n]+) \| (.*?) \| ", (DOCS / "topics" / "comparison.md").read_text(), re.MULTILINE)

    def test_the_table_is_complete_and_of_this_version(self, comparison: ModuleType) -> None:
        rows = dict(self.table)
        assert f"| | twisted_beastws {__version__} |" in (DOCS / "topics" / "comparison.md").read_text()
        assert list(rows) == list(comparison.SITUATIONS)

    @pytest.mark.parametrize("situation", [row for row, _ in table if "says nothing" not in row])
    def test_our_column_shows_the_measured_behaviour(self, comparison: ModuleType, situation: str) -> None:
        found = comparison.SITUATIONS[situation]("twisted_beastws")
        expected = dict(self.table)[situation]
        if expected.endswith(" MiB"):
            assert int(found.removesuffix(" MiB")) <= 8
        elif situation.startswith("packages"):
            # Python 3.10 has no tomllib: tomli is installed as well.
            assert int(found) <= int(expected) + (sys.version_info < (3, 11))
        else:
            assert found == expected

    def test_the_readme_shows_rows_of_the_table(self) -> None:
        whole = (DOCS / "topics" / "comparison.md").read_text().splitlines()
        readme = (DOCS.parent / "README.md").read_text()
        rows = readme.partition("## Comparison\n")[2].partition("\n## ")[0]
        shown = [line for line in rows.splitlines() if line.startswith("|")]
        assert len(shown) > 5 and set(shown) <= set(whole)


def test_the_stated_cost_of_the_pure_codec_is_that_of_the_benchmarks() -> None:
    header, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (DOCS.parent / "benchmarks" / "results" / "table.md").read_text().partition("## ")[0].splitlines()
        if line.startswith("|")
    ]
    compiled, pure = header.index("twisted_beastws"), header.index("twisted_beastws, pure Python")
    ratios = [float(row[pure]) / float(row[compiled]) for row in rows if "µs a message" in row[0]]
    low, high = re.findall(r"[\d.]+", COST)[:2]
    assert float(low) == pytest.approx(min(ratios), rel=0.15)
    assert float(high) == pytest.approx(max(ratios), rel=0.15)
    assert f"{low} to {high} times" in (DOCS / "troubleshooting.md").read_text()
