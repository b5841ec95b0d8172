"""The rules that every example follows."""

from __future__ import annotations

import ast
import re
import socket
from pathlib import Path

import pytest

from .processes import EXAMPLES, run

ALL = sorted(EXAMPLES.glob("*.py"))
OPTIONS = {
    "django_shop": "--port 8000",
    "echo_client": "--url ws:",
    "reconnecting_client": "--url ws:",
    "scrapy_feed": "--url ws:",
    "tunnel": "--listen ENDPOINT",
}


def test_each_example_has_a_test() -> None:
    tests = Path(__file__).parent.glob("test_*.py")
    called = re.findall(
        r'(?:Example|Program|run|joined|super\(\).__init__)\(\s*"(\w+)"', "".join(path.read_text() for path in tests)
    )
    assert set(called) == {path.stem for path in ALL}


def test_the_index_lists_each_example_with_its_command() -> None:
    index = (EXAMPLES / "README.md").read_text()
    assert re.findall(r"^\| \[(\w+)\.py\]\(\1\.py\) .* `python \1\.py\b", index, re.MULTILINE) == [
        path.stem for path in sorted(ALL, key=lambda path: index.find(f"[{path.name}]"))
    ]


def test_the_index_lists_each_example_in_javascript_and_it_has_a_test() -> None:
    index = (EXAMPLES / "README.md").read_text()
    for path in (*EXAMPLES.glob("*.mjs"), *EXAMPLES.glob("*.html")):
        assert f"| [{path.name}]({path.name}) |" in index
        assert path.name in (Path(__file__).parent / f"test_{path.stem}.py").read_text()


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_each_example_says_how_to_run_it_and_stands_alone(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert f"``python {path.name} [{OPTIONS.get(path.stem, '--listen tcp:')}" in (ast.get_docstring(tree) or "")
    imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name for name in imported if name.startswith("twisted_beastws")} <= {"twisted_beastws"}


@pytest.mark.parametrize("name", [path.stem for path in ALL if '"--listen"' in path.read_text()])
def test_an_example_that_cannot_listen_ends(name: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (tmp_path / "passwords").write_text("")
        done = run(name, tmp_path, "--listen", f"tcp:{port}:interface=127.0.0.1")
    assert done.returncode == 1
    assert f"CannotListenError: Couldn't listen on 127.0.0.1:{port}: " in done.stderr
