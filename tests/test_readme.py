"""The programs in the README are programs."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.testing import MemoryReactorClock

from twisted_beastws import WebSocketServerFactory

BLOCKS = re.findall(r"^```python\n(.*?)^```$", (Path(__file__).parents[1] / "README.md").read_text(), re.M | re.S)


@pytest.fixture
def reactor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[MemoryReactorClock]:
    """The reactor that is installed; the README's first programs are the module ``hello``."""
    memory = MemoryReactorClock()
    monkeypatch.setattr("twisted.internet.reactor", memory, raising=False)
    monkeypatch.setitem(sys.modules, "twisted.internet.reactor", memory)  # type: ignore[arg-type]
    hello = ModuleType("hello")
    exec(BLOCKS[0] + BLOCKS[1], hello.__dict__)
    monkeypatch.setitem(sys.modules, "hello", hello)
    yield memory


@pytest.mark.parametrize(("block", "port"), [(2, 9000), (3, 8080)])
def test_servers_listen(reactor: MemoryReactorClock, block: int, port: int) -> None:
    exec(BLOCKS[block], {})
    assert [server[0] for server in reactor.tcpServers] == [port]
    assert reactor.hasRun


@pytest_twisted.ensureDeferred
async def test_the_client_talks(capsys: pytest.CaptureFixture[str]) -> None:
    from twisted.internet import reactor

    hello: dict[str, Any] = {}
    exec(BLOCKS[1], hello)
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(WebSocketServerFactory(hello["echo"]))
    client: dict[str, Any] = {"__name__": "client"}
    exec(BLOCKS[4].replace("localhost:9000", f"127.0.0.1:{port.getHost().port}"), client)
    running = Deferred.fromCoroutine(client["main"](reactor))
    await running.addTimeout(10, reactor)
    await port.stopListening()
    assert capsys.readouterr().out == "hello\n"


def test_there_are_no_others() -> None:
    assert len(BLOCKS) == 5
