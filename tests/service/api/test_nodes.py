"""The API of a service on two workers, and a program that publishes in Redis itself."""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from ...support.patience import PATIENCE
from ...support.ports import free_port
from ...support.redis_server import redis_running
from ...support.waiting import await_that
from ..test_twistd import running

TOKEN = "0123456789abcdef"
MEMBERS = 6


def ask(port: int, path: str, body: Any = None) -> tuple[int, Any]:
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    data = None if body is None else json.dumps(body)
    connection.request("GET" if body is None else "POST", path, data, {"Authorization": f"Bearer {TOKEN}"})
    response = connection.getresponse()
    answer = response.status, json.loads(response.read())
    connection.close()
    return answer


def next_message(client: ClientConnection) -> dict[str, Any]:
    while (event := json.loads(client.recv(PATIENCE)))["type"] != "message":
        pass
    return dict(event)


def test_the_api_reaches_members_on_all_workers_and_answers_503_without_redis(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(TOKEN)
    port = free_port()
    arguments = (f"--api=tcp:{port}:interface=127.0.0.1", "--api-token-file=tokens", "--workers=2")
    with (
        redis_running(tmp_path) as redis,
        running(tmp_path, *arguments, f"--backplane={redis.url}") as service,
        ExitStack() as clients,
    ):
        await_that("the API is connected", lambda: ask(port, "/api/rooms")[0] == 200)
        members = [
            clients.enter_context(connect(f"{service.url}/lobby?name=m{number}", subprotocols=["chat.v1+json"]))  # type: ignore[list-item]
            for number in range(MEMBERS)
        ]
        listed = {"rooms": [{"room": "lobby", "connections": MEMBERS}], "more": False}
        await_that("all have joined", lambda: ask(port, "/api/rooms")[1] == listed)
        status, published = ask(port, "/api/publish", {"room": "lobby", "data": "hello", "name": "Shop", "key": "1"})
        assert status == 200
        expected = {"type": "message", "name": "Shop", "text": "hello", "id": published["id"]}
        assert [next_message(member) for member in members] == [expected] * MEMBERS
        assert ask(port, "/api/publish", {"room": "lobby", "data": "again", "name": "Shop", "key": "1"})[1] == published
        room = ask(port, "/api/rooms/lobby")[1]
        assert room["members"] == [f"m{number}" for number in range(MEMBERS)]
        assert room["history"] == [{"id": published["id"], "name": "Shop", "data": "hello"}]

        # The entry that docs/api.md shows.
        text = '{"type":"message","name":"Program","text":"hi"}'
        with socket.socket(socket.AF_UNIX) as program:
            program.connect(str(redis.path))
            program.sendall(_command("XADD", "beastws:0:inbox", "*", "room", "lobby", "data", text))
            program.sendall(_command("PUBLISH", "beastws:0:all:", ""))
        assert [next_message(member)["name"] for member in members] == ["Program"] * MEMBERS

        assert ask(port, "/api/disconnect", {"room": "lobby", "code": 4001, "reason": "bye"}) == (202, {})
        for member in members:
            assert _end_of(member) == (4001, "bye")
        redis.kill()
        await_that("Redis is away", lambda: ask(port, "/api/publish", {"room": "a", "data": "x"})[0] == 503)
        status, answer = ask(port, "/api/publish", {"room": "lobby", "data": "lost?"})
        assert (status, answer["error"]["code"], answer["error"]["taken"]) == (503, "not_published", "no")
        redis.start()


def _command(*words: str) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word.encode()) for word in words)


def _end_of(member: ClientConnection) -> tuple[int | None, str | None]:
    with suppress(ConnectionClosed):
        for _ in member:
            pass
    return member.close_code, member.close_reason
