"""What --app finds, and how it says that it did not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from twisted_beastws import WebSocketProtocol, WebSocketServerFactory
from twisted_beastws.service.app import AppError, find_app

GOOD = """
from twisted.internet.defer import inlineCallbacks
from twisted_beastws import WebSocketProtocol, WebSocketServerFactory

class Echo(WebSocketProtocol):
    inner = None

async def echo(ws):
    pass

@inlineCallbacks
def older(ws):
    yield

class Holder:
    echo = echo

factory = WebSocketServerFactory(echo)
number = 3
def plain(ws):
    pass
class Other:
    pass
async def generator(ws):
    yield
def bare(ws):
    yield
instance = Echo()
"""


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory, which is not on sys.path; its modules are forgotten after the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path and Path(path) != Path.cwd()])
    before = set(sys.modules)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "good.py").write_text(GOOD)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def failure(name: str) -> str:
    with pytest.raises(AppError) as caught:
        find_app(name)
    message = str(caught.value)
    assert "\n" not in message
    return message


class TestFound:
    """Names that ``--app`` finds."""

    def test_a_protocol_class_is_found(self) -> None:
        found = find_app("good:Echo")
        assert isinstance(found, type) and issubclass(found, WebSocketProtocol)

    @pytest.mark.parametrize("name", ["echo", "older"])
    def test_a_coroutine_function_is_found(self, name: str) -> None:
        assert find_app(f"good:{name}") is getattr(sys.modules["good"], name)

    def test_a_factory_is_found(self) -> None:
        assert isinstance(find_app("good:factory"), WebSocketServerFactory)

    def test_an_attribute_of_an_attribute_is_found(self) -> None:
        assert find_app("good:Holder.echo") is sys.modules["good"].echo

    def test_a_module_of_a_package_is_found(self, directory: Path) -> None:
        (directory / "package").mkdir()
        (directory / "package" / "__init__.py").write_text("")
        (directory / "package" / "module.py").write_text("async def app(ws): pass")
        assert find_app("package.module:app") is sys.modules["package.module"].app

    def test_the_current_directory_comes_first_and_once(self, directory: Path) -> None:
        find_app("good:echo")
        find_app("good:Echo")
        assert sys.path.count(str(directory)) == 1
        assert sys.path[0] == str(directory)


class TestNotFound:
    """Names that ``--app`` does not find."""

    @pytest.mark.parametrize(
        "name", ["", "good", "good:", ":echo", "good:echo()", "a b:c", "good.:x", "./good.py:echo", "good:a:b"]
    )
    def test_a_name_of_another_form_is_refused(self, name: str) -> None:
        assert failure(name) == "give it as package.module:name"
        assert failure(f"asgi:{name}") == "give it as asgi:package.module:name"

    def test_a_missing_module_is_named(self, directory: Path) -> None:
        assert failure("nope:x") == f"there is no module nope, neither in {directory} nor where Python looks"
        assert failure("good.sub:x").startswith("there is no module good.sub, neither in ")
        assert failure("nope.sub:x").startswith("there is no module nope, neither in ")

    def test_a_missing_name_is_named(self, directory: Path) -> None:
        assert failure("good:nope") == f"the module good ({directory / 'good.py'}) has no nope"
        assert failure("good:Echo.nope") == f"the module good ({directory / 'good.py'}) has no Echo.nope"

    @pytest.mark.parametrize(
        ("name", "kind"),
        [
            ("number", "of type int"),
            ("plain", "of type function"),
            ("generator", "of type function"),
            (
                "bare",
                "a generator function: put @inlineCallbacks over it, or make it a coroutine function (async def)",
            ),
            ("instance", "of type Echo"),
            ("Echo.inner", "of type NoneType"),
            ("Other", "another class"),
            ("WebSocketServerFactory", "another class"),
        ],
    )
    def test_an_object_of_another_kind_is_refused(self, name: str, kind: str) -> None:
        assert failure(f"good:{name}") == (
            "only a subclass of WebSocketProtocol, a coroutine function (async def), a Router or a "
            f"WebSocketServerFactory can be served; it is {kind}"
        )


class TestImportFails:
    """Modules that fail when they are imported."""

    @pytest.mark.parametrize(
        ("source", "what", "line"),
        [
            ("import no_such_thing", "ModuleNotFoundError: No module named 'no_such_thing'", 1),
            ("\nraise RuntimeError('two\\n lines')", "RuntimeError: two lines", 2),
            ("x = 1\nx = (", "SyntaxError: '(' was never closed", 2),
            # This package raises: the line to change is still the module's.
            ("\n\nimport twisted_beastws as t\nt.JSON(int, convert=int)", "TypeError: JSON(kind, convert=...)", 4),
            ("import sys\nsys.exit(3)", "SystemExit: 3", 2),
            ("from twisted_beastws import no_such_name", "ImportError: cannot import name 'no_such_name'", 1),
            ("import json\njson.loads('{')", "json.decoder.JSONDecodeError: Expecting property name", None),
        ],
    )
    def test_a_failing_import_is_explained(self, directory: Path, source: str, what: str, line: int | None) -> None:
        (directory / "bad.py").write_text(source)
        message = failure("bad:x")
        assert message.startswith(f"importing bad failed: {what}")
        if line is not None:
            assert message.endswith(f"({directory / 'bad.py'}, line {line})")

    def test_bytes_that_are_no_source_are_reported(self, directory: Path) -> None:
        (directory / "bad.py").write_bytes(b"\xff\xfe\n")
        assert failure("bad:x").startswith("importing bad failed: SyntaxError: ")

    def test_an_interrupt_during_the_import_is_raised(self, directory: Path) -> None:
        (directory / "bad.py").write_text("raise KeyboardInterrupt")
        with pytest.raises(KeyboardInterrupt):
            find_app("bad:x")
