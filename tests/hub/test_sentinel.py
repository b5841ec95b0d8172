"""Sentinels and replicas: the backplane follows the primary, and waits for replicas if the URL says so."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import gatherResults

from twisted_beastws.hub import Hub, PublishUnknown
from twisted_beastws.hub.redis import RedisBackplane

from ..support.loopback import until
from ..support.patience import PATIENCE
from ..support.ports import free_port
from ..support.redis_server import RedisServer, redis_running, sentinel_running
from .stubs import Stub, connected
from .test_faults import Address, World
from .test_redis_access import COMMANDS, allow


@pytest.fixture(autouse=True)
def quiet(logged: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    pytest.importorskip("txredisapi", reason="there is no txredisapi (the extra: redis)")
    from twisted_beastws.hub import linked_reconnecting

    monkeypatch.setattr(linked_reconnecting, "REPLY_TIMEOUT", 1.0)
    monkeypatch.setattr(linked_reconnecting, "BEAT", 0.5)
    monkeypatch.setattr(linked_reconnecting, "backoff", lambda failures: 0.05)
    yield
    logged(type(None))


class Named(Address):
    """An address that is given as a URL."""

    def __init__(self, url: str) -> None:
        self.given = url

    def backplane(self) -> RedisBackplane:
        return RedisBackplane(self.given)


async def replicate(primary: RedisServer, *replicas: RedisServer) -> None:
    for replica in replicas:
        replica.ask(f"REPLICAOF 127.0.0.1 {primary.port}")
    await until(lambda: all("master_link_status:up" in replica.ask("INFO replication") for replica in replicas))


@pytest_twisted.ensureDeferred
async def test_a_failover_in_mid_flood_loses_no_acknowledged_message(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directories = [tmp_path_factory.mktemp("redis") for _ in range(3)]
    with (
        redis_running(directories[0]) as primary,
        redis_running(directories[1]) as one,
        redis_running(directories[2]) as two,
    ):
        await replicate(primary, one, two)
        with sentinel_running(tmp_path, primary.port) as sentinel:
            await until(lambda: listens(sentinel) and knows_two(sentinel))
            # The first Sentinel is not there.
            url = f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{sentinel}/rooms?min_replicas=1"
            world = World(Named(url))
            await world.begin()
            await connected(*world.hubs)
            await world.keep_on(0.3)
            primary.kill()
            await world.keep_on(0.3)
            await until(lambda: "role:master" in one.ask("INFO replication") + two.ask("INFO replication"))
            await world.keep_on(0.3)
            await world.settle()
            await world.move()
            await world.settle()
            assert world.outcomes
            world.check(gaps=any("gap" in client.heard for client in world.clients))
            await gatherResults([hub.stop() for hub in world.hubs])


def asked(port: int, command: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(f"{command}\r\n".encode())
        connection.shutdown(socket.SHUT_WR)
        said = b""
        while part := connection.recv(1 << 16):
            said += part
    return said


def knows_two(port: int) -> bool:
    return asked(port, "SENTINEL REPLICAS rooms").count(b"slave-repl-offset") == 2


@pytest_twisted.ensureDeferred
async def test_a_message_counts_as_accepted_once_enough_replicas_have_it(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    from twisted_beastws.hub import redis_replicas

    monkeypatch.setattr(redis_replicas, "REPLICA_TIMEOUT", 0.2)
    with redis_running(tmp_path) as primary, redis_running(tmp_path_factory.mktemp("replica")) as replica:
        allow(primary, [*COMMANDS, "wait"])
        hub = Hub(RedisBackplane(f"redis://chat:secret@127.0.0.1:{primary.port}?min_replicas=1"))
        hub.start()
        await connected(hub)
        sender, other = Stub(), Stub()
        await gatherResults([hub.join(each.connection, "a") for each in (sender, other)])
        unknown = await hub.publish("a", "hello", ref="r", exclude=sender.connection).addErrback(lambda f: f.value)
        assert isinstance(unknown, PublishUnknown)
        assert str(unknown) == ("0 of 1 replicas have the message: whether it outlives a failover is not known")
        # All of these wait at once, and not one after the other.
        calls = calls_of(primary, "wait")
        outcomes = await gatherResults(
            [hub.publish("b", str(n)).addErrback(lambda f: type(f.value)) for n in range(100)]
        )
        assert outcomes == [PublishUnknown] * 100
        assert calls_of(primary, "wait") - calls == 2
        monkeypatch.setattr(redis_replicas, "REPLICA_TIMEOUT", PATIENCE)
        await replicate(primary, replica)
        message_id = await hub.publish("a", "hello", ref="r", exclude=sender.connection)
        assert str(message_id) in replica.ask("XRANGE beastws:0:history:a - +")
        assert (sender.heard, other.heard) == ([], ["hello"])
        unkept = await hub.publish("a", "unkept", keep=False, exclude=sender.connection)
        await until(lambda: other.heard == ["hello", "unkept"])
        assert (unkept, sender.heard) == (None, [])
        await hub.stop()


@pytest_twisted.ensureDeferred
async def test_a_service_that_no_sentinel_knows_is_reported(tmp_path: Path) -> None:
    lines: list[str] = []
    with redis_running(tmp_path) as primary, sentinel_running(tmp_path, primary.port) as sentinel:
        await until(lambda: listens(sentinel))
        backplane = RedisBackplane(f"redis+sentinel://127.0.0.1:{sentinel}/other")
        # The reason, without the rest of the line and the times of the log.
        backplane._troubles.log = lambda line, why: lines.append(why)  # type: ignore[method-assign]
        hub = Hub(backplane)
        hub.start()
        await until(lambda: lines)
        assert lines[0] == f"the Sentinel 127.0.0.1:{sentinel} knows no service 'other'"
        await hub.stop()


def calls_of(redis: RedisServer, command: str) -> int:
    """How often a server executed a command."""
    return int(redis.ask("INFO commandstats").partition(f"cmdstat_{command}:calls=")[2].partition(",")[0] or 0)


def listens(port: int) -> bool:
    try:
        return b"PONG" in asked(port, "PING")
    except OSError:
        return False
