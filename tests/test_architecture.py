"""The rules of the package's structure: imports run downwards, without cycles, and each class name is used once.

`docs/internals/architecture.md` describes the rooms; ``pyproject.toml`` lists them, for ``lint-imports``.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from base64 import b64encode
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import grimp
import pytest

import twisted_beastws

from .support.patience import PATIENCE

PACKAGE = Path(twisted_beastws.__file__).parent
ROOT = Path(__file__).parent.parent


def classes() -> Iterator[tuple[str, ast.ClassDef]]:
    """Yield all classes of the package, each with the name of its file."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                yield path.relative_to(PACKAGE).as_posix(), node


def sources() -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each file of the tests."""
    folder = Path(__file__).parent
    for path in sorted(folder.rglob("*.py")):
        yield path.relative_to(folder).as_posix(), path.read_text()


class Definition(NamedTuple):
    """A test class or a test."""

    place: str
    is_class: bool
    docstring: str


@cache
def definitions() -> list[Definition]:
    """Return all test classes and tests."""
    found = []
    for file, text in sources():
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if node.name.startswith(("Test", "test_")):
                place = f"{file}:{node.lineno}: {node.name}"
                found.append(Definition(place, isinstance(node, ast.ClassDef), ast.get_docstring(node) or ""))
    return found


def private_uses(module: ast.Module) -> Iterator[int]:
    """Yield the lines that use a private name which the module does not define itself."""
    own = {"_replace", "_exit"}  # of named tuples and of ``os``, whose names have an underscore for other reasons
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            own.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
            own.add(node.attr)
    for node in ast.walk(module):
        if isinstance(node, ast.Attribute):
            names = [node.attr]
        elif isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
        else:
            continue
        if any(re.match("_[a-z]", name) and name not in own for name in names):
            yield node.lineno


def circle_in(imports: dict[str, set[str]]) -> list[str]:
    """Return the nodes of a circle, the first of them again at the end; an empty list if there is none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


class TestImports:
    """Imports run downwards, without circles."""

    def test_imports_are_only_downwards(self) -> None:
        program = Path(sys.executable).with_name("lint-imports")
        run = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
        assert run.returncode == 0, run.stdout + run.stderr

    def test_imports_have_no_circle(self) -> None:
        graph = grimp.build_graph("twisted_beastws", cache_dir=None)
        imports = {module: set(graph.find_modules_directly_imported_by(module)) for module in graph.modules}
        assert circle_in(imports) == []

    def test_a_circle_is_found(self) -> None:
        found = circle_in({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})
        assert len(found) == 4 and set(found) == {"a", "b", "c"} and found[0] == found[-1]
        assert circle_in({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


class TestClasses:
    """Classes have unique names, and stand in the source."""

    def test_each_name_is_used_once(self) -> None:
        files = defaultdict(set)
        for file, node in classes():
            files[node.name].add(file)
        assert {name: places for name, places in files.items() if len(places) > 1} == {}

    def test_no_class_is_made_at_run_time(self) -> None:
        """No code calls ``type()`` with three arguments or assigns ``__class__``: every class stands in the source."""
        found = []
        for path in PACKAGE.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                made = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "type"
                if made and isinstance(node, ast.Call) and len(node.args) == 3:
                    found.append(f"{path.name}:{node.lineno}")
                targets = node.targets if isinstance(node, ast.Assign) else ()
                if any(isinstance(target, ast.Attribute) and target.attr == "__class__" for target in targets):
                    assert isinstance(node, ast.Assign)
                    found.append(f"{path.name}:{node.lineno}")
        assert found == []


class TestSupport:
    """``tests/support/`` has what several tests need."""

    # These tests are about the bytes of the handshake, which they write out.
    HANDSHAKES = {  # noqa: RUF012
        "support/handshakes.py",
        # Programs, which cannot import the package of their tests.
        "tcp/idle.py",
        "tcp/stalled.py",
        "wire/test_handshake.py",
        "connection/test_client_handshake.py",
        "connection/test_server_handshake.py",
        "test_benchmarks.py",
    }

    def test_the_sample_key_is_written_once(self) -> None:
        key = b64encode(b"the sample nonce").decode()
        found = {file for file, text in sources() if key in text}
        assert found == self.HANDSHAKES

    def test_the_protocol_that_echoes_is_written_once(self) -> None:
        found = [
            file
            for file, text in sources()
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.ClassDef) and node.name == "Echo"
        ]
        assert found == ["support/protocols.py"]

    def test_a_private_name_of_another_module_is_used_for_a_written_reason(self) -> None:
        """A comment gives the reason, at most four lines above."""
        found = []
        for file, text in sources():
            lines = text.splitlines()
            for line in private_uses(ast.parse(text)):
                if not re.search(r"# (?!type: ignore|noqa)", "\n".join(lines[max(line - 5, 0) : line])):
                    found.append(f"{file}:{line}: {lines[line - 1].strip()}")
        assert found == []


class TestDocstringsOfTests:
    """The docstring of a test class says what it tests, with the section of the standard that defines the behaviour."""

    def test_each_test_class_has_a_docstring(self) -> None:
        assert [one.place for one in definitions() if one.is_class and not one.docstring] == []

    def test_each_rfc_in_a_docstring_has_its_section(self) -> None:
        section = re.compile(r"RFC \d+ §\d+(?:\.\d+)*")
        found = [one for one in definitions() if len(section.findall(one.docstring)) != one.docstring.count("RFC")]
        assert [one.place for one in found] == []


class TestTheMap:
    """``docs/internals/architecture.md`` and CONTRIBUTING describe the tree as it is."""

    def test_contributing_names_every_folder(self) -> None:
        text = (ROOT / "CONTRIBUTING.md").read_text()
        if not (ROOT / ".git").exists():
            pytest.skip("THE LIST OF FOLDERS IS NOT TESTED: run the tests in a clone")
        tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
        tops = {path.split("/")[0] for path in tracked.stdout.split("\0") if "/" in path}
        rooms = {f"twisted_beastws/{path.name}" for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
        assert {name for name in tops | rooms if f"`{name}/" not in text} == set()

    def test_each_file_and_class_that_the_map_names_exists(self) -> None:
        text = (ROOT / "docs" / "internals" / "architecture.md").read_text()
        files = {name for name in re.findall(r"`([\w/]+\.pyx?)`", text) if "/" in name}
        missing = {name for name in files if not (PACKAGE / name).exists() and not (ROOT / name).exists()}
        assert missing == set()
        names = {node.name for _, node in classes()}
        mentioned = set(re.findall(r"`([A-Z][a-z]+[A-Z]\w+)`", text))
        assert {name for name in mentioned if name not in names} == set()
