"""Hubs on a Redis Cluster of three primaries, while its data moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import gatherResults

from twisted_beastws.hub import Hub
from twisted_beastws.hub.redis_cluster import RedisClusterBackplane
from twisted_beastws.hub.redis_cluster_part import TAGS, part_of

from ..support.loopback import until
from ..support.redis_cluster import RedisCluster, cluster_running, done
from .stubs import Stub, connected
from .test_faults import Address, World


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    with cluster_running(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def cluster(
    shared: RedisCluster, logged: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Iterator[RedisCluster]:
    from twisted_beastws.hub import linked_reconnecting

    monkeypatch.setattr(linked_reconnecting, "BEAT", 0.5)
    monkeypatch.setattr(linked_reconnecting, "PROBE", 0.1)
    monkeypatch.setattr(linked_reconnecting, "backoff", lambda failures: 0.05)
    yield shared
    logged(type(None))


class Nodes(Address):
    """A Cluster, which hubs reach at the addresses of its nodes."""

    def __init__(self, cluster: RedisCluster) -> None:
        self.given = cluster.url

    def backplane(self) -> Any:
        return RedisClusterBackplane(self.given, history=1000)


def rooms() -> list[str]:
    """Return a room of each part."""
    found: dict[int, str] = {}
    for number in range(1000):
        found.setdefault(part_of(f"room {number}"), f"room {number}")
    return [found[part] for part in range(len(TAGS))]


@pytest_twisted.ensureDeferred
async def test_rooms_of_all_parts_reach_both_hubs_in_order(cluster: RedisCluster) -> None:
    hubs = [Hub(RedisClusterBackplane(cluster.url)) for _ in range(2)]
    for hub in hubs:
        hub.start()
    await connected(*hubs)
    members = [(room, hub, Stub()) for room in rooms() for hub in hubs]
    await gatherResults([hub.join(stub.connection, room, name=f"in {room}") for room, hub, stub in members])
    for number in range(3):
        await gatherResults([hubs[number % 2].publish(room, f"{room} {number}") for room in rooms()])
    await hubs[0].publish_to_all("all")
    await until(lambda: all(stub.heard[-1:] == ["all"] for _, _, stub in members))
    for room, hub, stub in members:
        assert stub.heard == [*(f"{room} {number}" for number in range(3)), "all"]
        assert list(await hub.who(room)) == [f"in {room}"]
    # Each primary has some of the rooms.
    assert all(primary.ask("DBSIZE") != ":0\r\n" for primary in cluster.primaries)
    await gatherResults([hub.stop() for hub in hubs])


@pytest_twisted.ensureDeferred
async def test_nothing_is_lost_when_a_slot_moves_and_when_a_replica_takes_over(cluster: RedisCluster) -> None:
    from twisted_beastws.hub.redis_cluster_link import slot_of

    world = World(Nodes(cluster))
    await world.begin()
    await connected(*world.hubs)
    await world.keep_on(0.2)
    slot = slot_of(TAGS[part_of("room 1")])
    source = next(each for each in cluster.primaries if slot in slots_of(each))
    target = next(each for each in cluster.primaries if each is not source)
    cluster.move(slot, source, target)
    await world.keep_on(0.2)
    await world.move()
    await gatherResults(world.pending)
    assert not any("gap" in client.heard for client in world.clients)
    assert all(hub.backplane.losses for hub in world.hubs)  # type: ignore[attr-defined]
    first = cluster.primaries[0]
    await world.keep_on(0.2)
    first.kill()
    done(cluster.replica, "CLUSTER FAILOVER TAKEOVER")
    await world.keep_on(0.2)
    await world.settle()
    world.check(gaps=any("gap" in client.heard for client in world.clients))
    await gatherResults([hub.stop() for hub in world.hubs])


def slots_of(node: Any) -> set[int]:
    """Return the slots of a primary, as the node itself says."""
    mine = next(line for line in node.ask("CLUSTER NODES").split("\n") if "myself" in line)
    found: set[int] = set()
    for part in mine.split()[8:]:
        if part[0] != "[":
            first, _, last = part.partition("-")
            found.update(range(int(first), int(last or first) + 1))
    return found
