"""The service keeps garbage collections short; `test_workers.py` looks into the worker processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from twisted_beastws import ShortCollections
from twisted_beastws.service import Options, makeService
from twisted_beastws.service.beastws_service import BeastwsService
from twisted_beastws.service.chat import HubService

from ..hub.stubs import Stub

APP = """
from twisted_beastws import Hub, WebSocketProtocol

async def echo(ws):
    pass

class Joined(WebSocketProtocol):
    hub = Hub()
"""


class Member(Stub):
    user = None


def parsed(*arguments: str) -> Options:
    options = Options()
    options.parseOptions(list(arguments))
    return options


def size_of(service: BeastwsService) -> int:
    (short,) = (part for part in service if isinstance(part, ShortCollections))
    return short.size()


def test_the_size_of_the_chat_is_the_number_of_its_connections_and_rooms() -> None:
    service = makeService(parsed())
    (hub,) = (part.hub for part in service if isinstance(part, HubService))
    assert size_of(service) == 0
    for _ in range(3):
        service.factory.buildProtocol(None)
    one, other = Member().connection, Member().connection
    for member, room in [(one, "a"), (one, "b"), (other, "b")]:
        hub.join(member, room)
    assert size_of(service) == 3 + 2


@pytest.mark.parametrize(("name", "rooms"), [("echo", 0), ("Joined", 1)])
def test_the_size_of_an_application_includes_the_rooms_of_its_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, rooms: int
) -> None:
    (tmp_path / "sized_app.py").write_text(APP)
    monkeypatch.syspath_prepend(str(tmp_path))
    options = parsed(f"--app=sized_app:{name}")
    assert options.app is not None
    service = makeService(options)
    service.factory.buildProtocol(None)
    if rooms:
        options.app.hub.join(Member().connection, "a")  # type: ignore[union-attr]
    assert size_of(service) == 1 + rooms
