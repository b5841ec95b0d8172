"""Two listings side by side do the same, and the names in the tables exist."""

from __future__ import annotations

import re
from contextlib import suppress
from importlib import import_module
from inspect import isclass, isfunction, signature
from pathlib import Path
from types import ModuleType

import pytest
from websockets.exceptions import InvalidStatus

import twisted_beastws
from twisted_beastws.testing import connected_pair

from ..support.patience import PATIENCE
from .programs import DOCS, defined, expect_refusal, listings, run_listing, running_listing, talking

PAGES = ("aiohttp", "autobahn", "picows", "twisted-web-websocket", "websockets")
AUTOBAHN = 'factory = WebSocketClientFactory("ws://127.0.0.1:9000")\n'
PATIENT = "factory.setProtocolOptions(closeHandshakeTimeout=0, serverConnectionDropTimeout=0)\n"
EITHER = pytest.mark.parametrize("which", [0, 1], ids=["theirs", "ours"])


@pytest.mark.parametrize("page", PAGES)
@EITHER
def test_each_server_can_echo(page: str, which: int, tmp_path: Path) -> None:
    with running_listing(listings(f"coming-from/{page}")[which], tmp_path) as port, talking(port) as client:
        for message in ("text", b"binary"):
            client.send(message)
            assert client.recv(PATIENCE) == message


@pytest.mark.parametrize("page", PAGES)
def test_servers_without_their_port_are_ended(page: str, tmp_path: Path) -> None:
    expect_refusal(listings(f"coming-from/{page}")[1], tmp_path)


@pytest.mark.parametrize("page", PAGES)
@EITHER
def test_each_client_can_talk(page: str, which: int, tmp_path: Path) -> None:
    server = listings("coming-from/autobahn")[1]
    client = listings(f"coming-from/{page}")[2 + which]
    # Autobahn's client counts an end that takes a second as unclean, and a busy machine may take that long.
    client = client.replace(AUTOBAHN, AUTOBAHN + PATIENT)
    with running_listing(server, tmp_path, "server.py") as port:
        done = run_listing(client, tmp_path, port)
    assert (done.returncode, done.stdout) == (0, "hello\nclosed 1000\n"), done.stderr


def test_a_handler_with_inline_callbacks_is_run() -> None:
    pair = connected_pair(defined(listings("coming-from/autobahn")[6])["factory"])
    pair.client.send("Ada")
    pair.flush()
    assert pair.client.receive().result == "Hello, Ada"


@pytest.mark.parametrize("page", ["aiohttp", "autobahn", "websockets"])
@EITHER
def test_each_server_can_refuse(page: str, which: int, tmp_path: Path) -> None:
    with running_listing(listings(f"coming-from/{page}")[4 + which], tmp_path) as port:
        with talking(port, subprotocols=["chat"], additional_headers={"X-Token": "s3cret"}) as client:
            client.send("text")
            assert client.recv(PATIENCE) == "text"
            assert client.subprotocol == "chat" and client.response is not None
            assert client.response.headers["X-Server"] == "one"
        with pytest.raises(InvalidStatus) as refused, talking(port, additional_headers={"X-Token": "wrong"}):
            pass
    assert refused.value.response.status_code == 401


def _names_of(*modules: ModuleType) -> set[str]:
    """Every name in modules: their members, the members of classes, and the parameters of all functions."""
    names: set[str] = set()
    for module in modules:
        for name, value in vars(module).items():
            names.add(name)
            members = [getattr(value, each, None) for each in dir(value)] if isclass(value) else []
            names |= set(dir(value)) if isclass(value) else set()
            for function in (value, *members):
                if isfunction(function):
                    names |= set(function.__code__.co_varnames)
                elif function is value and callable(function):
                    with suppress(TypeError, ValueError):
                        names |= set(signature(function).parameters)
    return names


def _ours() -> set[str]:
    public = ModuleType("public")
    vars(public).update((name, getattr(twisted_beastws, name)) for name in twisted_beastws.__all__)
    modules = ("errors", "options", "testing", "streams.endpoints", "wire.closing")
    return _names_of(public, *(import_module(f"twisted_beastws.{name}") for name in modules)) | {"beastws", "write"}


def _theirs(page: str) -> set[str]:
    modules = {
        "aiohttp": ["aiohttp", "aiohttp.web"],
        "autobahn": [
            "autobahn.twisted.websocket",
            "autobahn.twisted.resource",
            "autobahn.websocket.protocol",
            "autobahn.websocket.interfaces",
        ],
        "picows": ["picows"],
        "twisted-web-websocket": ["twisted.web.websocket"],
        "websockets": [
            "websockets",
            "websockets.asyncio.server",
            "websockets.asyncio.client",
            "websockets.asyncio.connection",
            "websockets.exceptions",
        ],
    }[page]
    return _names_of(*map(import_module, modules))


CALLED = re.compile(r"(?<!['\w])([A-Za-z_]\w+)(?=\(|=[^=])|(?<=[a-z]\.)([A-Za-z_]\w+)")
FOREIGN = {"dumps", "loads", "json", "int", "str", "bytes", "tcp", "url", "websocket", "web", "twisted", "testing"}
"""Names of Python, and parts of URLs and module names, in the tables."""


@pytest.mark.parametrize("page", PAGES)
def test_each_name_of_the_tables_exists(page: str) -> None:
    text = (DOCS / "coming-from" / f"{page}.md").read_text(encoding="utf-8")
    rows = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    missing = []
    for row in rows[1:]:
        for column, known in zip(row, (_theirs(page), _ours()), strict=True):
            for code in re.findall(r"`([^`]+)`", column):
                names = [first or second for first, second in CALLED.findall(code)] or re.findall(
                    r"^[A-Za-z_]\w+$", code
                )
                missing += [(code, name) for name in names if name not in known | FOREIGN]
    assert missing == []
