"""Two services, each a process of its own, and a Redis between them, with two hundred clients on each."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from twisted_beastws import WebSocketProtocol, connect
from twisted_beastws.hub import LocalBackplane, planes
from twisted_beastws.hub.backplane import order_of
from twisted_beastws.hub.postgres import PostgresBackplane
from twisted_beastws.hub.redis import RedisBackplane
from twisted_beastws.service import Options

from ..support import command_line
from ..support.loopback import until
from ..support.patience import PATIENCE
from ..support.ports import free_port
from ..support.redis_cluster import node_running
from ..support.redis_server import RedisServer, cluster_node, redis_running
from ..support.signals import await_handler

CLIENTS = 200
SPEAKERS = 10
MESSAGES = 10

TWISTD = Path(sys.executable).with_name("twistd")
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


class Client(WebSocketProtocol):
    """A client of ``chat.v1+json`` that keeps all messages, and repeats those that were not accepted.

    pending: its words that no `sent` has answered, by ref.
    """

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.ids: list[str] = []
        self.told: list[dict[str, Any]] = []
        self.pending: dict[str, str] = {}

    def text_received(self, text: str) -> None:
        event = json.loads(text)
        if event["type"] == "message":
            self.heard.append(event["text"])
            self.ids.append(event.get("id"))
        else:
            self.told.append(event)
            if event["type"] == "sent":
                self.pending.pop(event["ref"], None)

    def says(self, words: str, ref: str | None = None) -> None:
        ref = ref or uuid4().hex
        self.pending[ref] = words
        self.send(json.dumps({"type": "message", "text": words, "ref": ref}))

    def says_again(self) -> None:
        for ref, words in self.pending.items():
            self.says(words, ref)

    @property
    def gaps(self) -> int:
        """The number of gap notices that it got."""
        return self.told.count({"type": "history", "complete": False})


class Service:
    """A running ``twistd beastws``."""

    def __init__(self, log: Path, *arguments: str) -> None:
        self._log = log
        listen = "tcp:0:interface=127.0.0.1:backlog=512"
        command = [str(TWISTD), "-n", "--pidfile=", "beastws", "--listen", listen, *arguments]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command, cwd=log.parent, env=ENVIRONMENT, stdout=output, stderr=subprocess.STDOUT
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def url(self) -> str:
        # Each worker says so, too.
        (port,) = set(re.findall(r"serving http://127\.0\.0\.1:(\d+)/ ", self.log))
        return f"ws://127.0.0.1:{port}/chat"

    def connections(self) -> int:
        """How often it connected to Redis."""
        assert self.process.poll() is None, self.log
        return self.log.count("is connected")

    async def joined(self, query: str = "") -> Client:
        client = await connect(f"{self.url}/hall{query}", protocol=Client, subprotocols=["chat.v1+json"])
        await until(lambda: client.told)
        return client


@contextmanager
def running(log: Path, *arguments: str) -> Iterator[Service]:
    service = Service(log, *arguments)
    try:
        yield service
        await_handler(service.process)
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(PATIENCE) == 0
    finally:
        service.process.kill()
        service.process.wait()
    assert not re.search(r"Traceback|Unhandled|#(error|critical)\b", service.log), service.log


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_running(tmp_path) as server:
        yield server


async def speak(nodes: list[list[Client]], what: str, midway: Callable[[], None] = lambda: None) -> list[list[str]]:
    """Let the first clients of each node send in turns; return the messages sent on each."""
    said: list[list[str]] = [[], []]
    for number in range(MESSAGES):
        if number == MESSAGES // 2:
            midway()
        for at, node in enumerate(nodes):
            for speaker in range(SPEAKERS):
                said[at].append(f"{what} {at} {speaker} {number}")
                node[speaker].says(said[at][-1])
        await deferLater(reactor, 0.01)
    return said


def in_order(heard: list[str]) -> bool:
    """Each once, and each speaker's as they were said."""
    latest: dict[str, int] = {}
    for words in heard:
        speaker, _, number = words.rpartition(" ")
        if latest.get(speaker, -1) >= int(number):
            return False
        latest[speaker] = int(number)
    return True


parse = partial(command_line.parse, Options)
refusal = partial(command_line.refusal, Options)


class TestOption:
    """The option ``--backplane``."""

    @pytest.fixture(autouse=True)
    def extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(planes, "find_spec", {"txredisapi": object(), "psycopg": object()}.get)

    def test_the_option_is_the_url_of_a_redis(self) -> None:
        backplane = parse("--backplane=redis://:secret@h:7/1", "--history=5").hub.backplane
        assert isinstance(backplane, RedisBackplane)
        assert str(backplane.url) == "redis://h:7/1"

    def test_the_option_is_the_url_of_a_postgresql(self) -> None:
        backplane = parse("--backplane=postgresql://u:secret@h/db", "--history=5").hub.backplane
        assert isinstance(backplane, PostgresBackplane)
        assert str(backplane.url) == "postgresql://h:5432/db"

    def test_a_prefix_that_is_no_schema_gets_one_line(self) -> None:
        told = refusal("--backplane=postgresql://h/db", "--backplane-prefix=my-app")
        assert told.startswith("--backplane-prefix: 'my-app' must be 1 to 48 ASCII letters")

    def test_the_chat_is_alone_without_a_backplane(self) -> None:
        assert isinstance(parse().hub.backplane, LocalBackplane)

    @pytest.mark.parametrize(
        "url",
        ["localhost", "http://:secret@h", "redis://:secret@h:x", "redis://:secret@h/x", "postgresql://:secret@h:x/d"],
    )
    def test_a_bad_url_gets_one_line_without_the_password(self, url: str) -> None:
        told = refusal(f"--backplane={url}")
        assert told.startswith("--backplane: the URL")
        assert "secret" not in told

    def test_a_file_that_cannot_be_read_gets_one_line(self) -> None:
        told = refusal("--backplane=rediss://:secret@h?ca=/nowhere")
        assert told == "--backplane: the URL's ca=/nowhere: No such file or directory"

    def test_a_missing_extra_gets_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(planes, "find_spec", lambda name: None)
        told = refusal("--backplane=redis://h")
        assert told == "--backplane needs an extra: pip install 'twisted_beastws[redis]'"

    @pytest.mark.parametrize("value", ["", "-1", "many", "1" * 10])
    def test_a_bad_number_of_messages_is_refused(self, value: str) -> None:
        assert refusal(f"--history={value}").endswith("give a number of messages; 0 keeps none")

    @pytest.mark.parametrize("option", ["--backplane=redis://h", "--history=5"])
    def test_an_app_has_a_hub_of_its_own(self, option: str) -> None:
        told = refusal("--app=twisted_beastws:WebSocketProtocol", option)
        assert told == f"{option.partition('=')[0]} is the chat's: an --app makes a Hub of its own"


@pytest_twisted.ensureDeferred
async def test_each_client_gets_each_message_once_and_in_order_over_a_loss_of_redis(
    redis: RedisServer, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        services = [
            stack.enter_context(running(tmp_path / f"{number}.log", f"--backplane={redis.url}", "--history=1000"))
            for number in range(2)
        ]
        await until(lambda: all(service.connections() == 1 and "serving" in service.log for service in services))
        nodes: list[list[Client]] = [[], []]
        for service, node in zip(services, nodes, strict=True):
            while len(node) < CLIENTS:
                node += await gatherResults([Deferred.fromCoroutine(service.joined()) for _ in range(20)])
        everyone = nodes[0] + nodes[1]

        said = await speak(nodes, "first")
        await until(lambda: all(len(client.heard) == 2 * SPEAKERS * MESSAGES for client in everyone))
        heard = everyone[0].heard
        assert sorted(heard) == sorted(said[0] + said[1]) and in_order(heard)
        for client in everyone:
            assert client.heard == heard
            assert client.ids == everyone[0].ids and None not in client.ids
        leaver = nodes[1].pop()
        await leaver.close()
        everyone.remove(leaver)

        # While Redis is away, senders learn that no member has their message, or that this is unknown.
        second = await speak(nodes, "second", redis.kill)
        speakers = nodes[0][:SPEAKERS] + nodes[1][:SPEAKERS]
        await until(lambda: all(client.told[-1]["type"] == "error" for client in speakers))
        assert {client.told[-1]["taken"] for client in speakers} <= {"no", "unknown"}

        redis.start()
        await until(lambda: all(service.connections() == 2 for service in services))
        for client in speakers:
            client.says_again()
        await until(lambda: not any(client.pending for client in speakers))
        third = await speak(nodes, "third")
        all_said = [*said[0], *said[1], *second[0], *second[1], *third[0], *third[1]]
        await until(lambda: all(len(client.heard) >= len(all_said) for client in everyone))
        heard = everyone[0].heard
        assert sorted(heard) == sorted(all_said)
        for client in everyone:
            assert client.heard == heard and client.ids == everyone[0].ids and client.gaps == 0
        assert everyone[0].ids == sorted(everyone[0].ids, key=order_of)

        # A client that was away gets the messages that Redis took meanwhile, from the other service.
        back = await services[0].joined(f"?after={leaver.ids[-1]}")
        await until(lambda: back.told[-1] == {"type": "history", "complete": True})
        assert back.ids == [each for each in everyone[0].ids if each not in set(leaver.ids)]
        await gatherResults([client.close() for client in (*everyone, back)])


def ready(port: int) -> int:
    """The status of ``/readyz``."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as asking:
        asking.sendall(b"GET /readyz HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
        return int(asking.makefile("rb").readline().split()[1])


@pytest_twisted.ensureDeferred
async def test_clients_that_return_before_redis_is_there_miss_nothing(redis: RedisServer, tmp_path: Path) -> None:
    with running(tmp_path / "first.log", f"--backplane={redis.url}") as first:
        await until(lambda: first.connections() == 1 and "serving" in first.log)
        early = await first.joined()
        early.says("one")
        await until(lambda: early.heard == ["one"])
        early.says("two")
        await until(lambda: early.heard == ["one", "two"])
        await early.close()
    # It accepts connections, and answers nothing.
    redis.stop()
    admin = free_port()
    options = (f"--backplane={redis.url}", f"--admin=tcp:{admin}:interface=127.0.0.1")
    with running(tmp_path / "second.log", *options) as second:
        await until(lambda: second.log.count("serving") >= 2)
        assert await deferToThread(ready, admin) == 503
        returning = [await second.joined(f"?after={early.ids[0]}") for _ in range(5)]
        for client in returning:
            client.says("three")
        assert all(len(client.told) == 1 for client in returning)
        redis.go_on()
        await until(lambda: all(len(client.heard) == 6 for client in returning))
        assert await deferToThread(ready, admin) == 200
        for client in returning:
            assert client.heard == ["two", *["three"] * 5]
            assert {"type": "history", "complete": True} in client.told and client.gaps == 0
        # Ready it stays when Redis goes: other services would be no better off.
        redis.kill()
        await until(lambda: "is away" in second.log.rpartition("is connected")[2])
        assert await deferToThread(ready, admin) == 200
        await gatherResults([client.close() for client in returning])


@pytest_twisted.ensureDeferred
async def test_two_workers_share_their_rooms_through_a_redis_cluster(tmp_path: Path) -> None:
    with (
        node_running(tmp_path) as node,
        running(
            tmp_path / "log", f"--backplane=redis+cluster://127.0.0.1:{node.port}", "--workers=2", "--max-chat-rate=0"
        ) as service,
    ):
        await until(lambda: service.connections() == 2)
        clients = [await service.joined() for _ in range(12)]
        clients[0].says("hello")
        await until(lambda: all(client.heard == ["hello"] for client in clients))
        assert len({client.ids[0] for client in clients}) == 1
        late = await service.joined(f"?after={clients[0].ids[0]}")
        clients[-1].says("all")
        await until(lambda: late.heard == ["all"] and late.gaps == 0)
        await gatherResults([client.close() for client in [*clients, late]])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_redis_cluster_ends_the_start_with_a_clear_line(tmp_path: Path, workers: int) -> None:
    with redis_running(tmp_path, *cluster_node(), "--appendonly", "no") as redis:
        service = Service(tmp_path / "log", f"--backplane={redis.url}", f"--workers={workers}")
        try:
            assert service.process.wait(PATIENCE) == 1
        finally:
            service.process.kill()
        assert f"the backplane {redis.url}" in service.log
        assert "cannot be used: this Redis is a node of a Redis Cluster: give redis+cluster://host" in service.log
        assert "Traceback" not in service.log
