"""The threat model names a test for each defence, the guarantees of rooms one for each failure, and each exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "topics" / "threats.md").read_text()
GUARANTEES = (TESTS.parent / "docs" / "topics" / "guarantees.md").read_text()
TEST = re.compile(r"`([\w/]+\.py(?:::\w+)*)(?:\[\w+\])?`")
NAMED = sorted({*TEST.findall(PAGE), *(f"hub/{name}" for name in TEST.findall(GUARANTEES) if "/" not in name)})


@cache
def names_in(path: Path) -> frozenset[str]:
    """The module's tests as pytest names them, and the classes that they are in."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names.update(f"{node.name}::{inner.name}" for inner in node.body if hasattr(inner, "name"))
    return frozenset(names)


@pytest.mark.parametrize("named", NAMED)
def test_each_named_test_exists(named: str) -> None:
    module, _, name = named.partition("::")
    assert not name or name in names_in(TESTS / module), f"tests/{module} has no {name}"
    assert (TESTS / module).exists()


def test_each_defence_names_its_test() -> None:
    sections = PAGE.partition("\n## A peer that sends")[2].partition("\n## Not covered")[0]
    rows = re.findall(r"^\| (?!attack|---)(.+) \|$", sections, re.MULTILINE)
    assert len(rows) > 40
    without = [row.split(" | ")[0] for row in rows if not re.search(r"`[\w/]+\.py", row.split(" | ")[-1])]
    assert without == []
