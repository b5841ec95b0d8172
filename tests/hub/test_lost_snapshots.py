"""A real Redis loses acknowledged messages, and the hub that acknowledged them is gone, too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import gatherResults

from twisted_beastws.hub import Hub, Message
from twisted_beastws.hub.redis import RedisBackplane

from ..support.loopback import until
from ..support.redis_server import RedisServer, redis_running
from .stubs import Stub, connected

SNAPSHOTS = ("--appendonly", "no")


@pytest.fixture(autouse=True)
def quiet(logged: Callable[..., Any]) -> Iterator[None]:
    yield
    logged(type(None))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[RedisServer], Hub]]:
    pytest.importorskip("txredisapi", reason="there is no txredisapi (the extra: redis)")
    from twisted_beastws.hub import linked_interfaces, linked_reconnecting

    monkeypatch.setattr(linked_reconnecting, "backoff", lambda failures: 0.02)
    monkeypatch.setattr(linked_reconnecting, "BEAT", 0.1)
    monkeypatch.setattr(linked_interfaces, "GRACE", 0.3)
    hubs: list[Hub] = []

    def hub(redis: RedisServer) -> Hub:
        hubs.append(Hub(RedisBackplane(redis.url)))
        hubs[-1].start()
        return hubs[-1]

    yield hub
    pytest_twisted.blockon(gatherResults([each.stop() for each in hubs]))


async def crash(hub: Hub) -> None:
    """End a hub without its goodbye, as the end of its process does."""
    # `stop` would say goodbye; a process that is killed does not.
    link: Any = hub.backplane._link  # type: ignore[attr-defined]
    link._stopping = True
    link.restart(ConnectionError("the process is killed"))
    # The link has no public name for its connection.
    await until(lambda: link._commands is None)


def as_gap(message: Message) -> str:
    return "GAP"


async def returns_with(hub: Hub, after: str | None) -> bool:
    return await hub.join(Stub().connection, "a", after=after)


async def a_gap_is_reported(hub: Hub, seen: str | None, *, to_members: bool = True) -> None:
    """A client that returns is informed at once, and so are all members of a room that may have missed something."""
    await connected(hub)
    member = Stub()
    await hub.join(member.connection, "a", gap=as_gap)
    assert not await returns_with(hub, seen)
    if to_members:
        await until(lambda: member.heard == ["GAP"])
    assert not await returns_with(hub, seen)
    newer = await hub.publish("a", "new")
    assert await returns_with(hub, newer)


@pytest.mark.parametrize("snapshot", [True, False])
@pytest_twisted.ensureDeferred
async def test_a_restart_from_an_older_snapshot_or_from_none_is_a_gap(
    tmp_path: Path, hub: Callable[[RedisServer], Hub], snapshot: bool
) -> None:
    with redis_running(tmp_path, *SNAPSHOTS) as redis:
        one = hub(redis)
        await connected(one)
        seen = await one.publish("a", "seen")
        if snapshot:
            redis.ask("SAVE")
        await one.publish("a", "lost")
        await crash(one)
        redis.kill()
        redis.start()
        await a_gap_is_reported(hub(redis), seen, to_members=snapshot)


@pytest_twisted.ensureDeferred
async def test_a_failover_to_a_replica_that_lags_is_a_gap(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, hub: Callable[[RedisServer], Hub]
) -> None:
    with (
        redis_running(tmp_path, *SNAPSHOTS) as redis,
        redis_running(tmp_path_factory.mktemp("replica"), *SNAPSHOTS) as replica,
    ):
        one = hub(redis)
        await connected(one)
        seen = await one.publish("a", "seen")
        replica.ask(f"REPLICAOF 127.0.0.1 {redis.port}")
        await until(lambda: str(seen) in replica.ask("XRANGE beastws:0:ids - +"))
        replica.ask("REPLICAOF 127.0.0.1 1")
        await one.publish("a", "lost")
        await crash(one)
        redis.kill()
        replica.ask("REPLICAOF NO ONE")
        await a_gap_is_reported(hub(replica), seen)


@pytest_twisted.ensureDeferred
async def test_hubs_that_restart_one_after_the_other_and_a_redis_that_lost_nothing_are_no_gap(
    tmp_path: Path, hub: Callable[[RedisServer], Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    from twisted_beastws.hub import linked_interfaces

    # No lease ends while Redis starts again, however long that takes.
    monkeypatch.setattr(linked_interfaces, "GRACE", 10_000.0)
    with redis_running(tmp_path) as redis:
        hubs = [hub(redis), hub(redis)]
        await connected(*hubs)
        member = Stub()
        await hubs[1].join(member.connection, "b", gap=as_gap)
        seen = await hubs[0].publish("a", "seen")
        for number in range(2):
            await hubs[number].stop()
            hubs[number] = hub(redis)
            await connected(*hubs)
            assert await returns_with(hubs[number], seen)
        redis.kill()
        redis.start()
        await until(lambda: all(each.backplane.losses == 1 for each in hubs))  # type: ignore[attr-defined]
        await connected(*hubs)
        assert [await returns_with(each, seen) for each in hubs] == [True, True]
        assert redis.ask("HGET beastws:0:clock unsure") == "$0\r\n\r\n"
