"""A Redis Cluster of three primaries and one replica, for tests that move its data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from .redis_server import RedisServer, cluster_node, meet, redis_running
from .waiting import await_that

SLOTS = 16384
BOUNDS = [0, 5461, 10923, SLOTS]
"""The first slots of the primaries, as ``redis-cli --cluster create`` shares them out."""


class RedisCluster:
    """Three primaries, and a replica of the first."""

    def __init__(self, primaries: list[RedisServer], replica: RedisServer) -> None:
        self.primaries = primaries
        self.replica = replica

    @property
    def url(self) -> str:
        return f"redis+cluster://127.0.0.1:{self.primaries[1].port},127.0.0.1:{self.primaries[2].port}"

    @property
    def nodes(self) -> list[RedisServer]:
        return [*self.primaries, self.replica]

    def move(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        """Move a slot and its keys, as ``redis-cli --cluster reshard`` does."""
        ids = [name_of(each) for each in (source, target)]
        done(target, f"CLUSTER SETSLOT {slot} IMPORTING {ids[0]}")
        done(source, f"CLUSTER SETSLOT {slot} MIGRATING {ids[1]}")
        while keys := source.ask(f"CLUSTER GETKEYSINSLOT {slot} 1").split("\r\n")[2:3]:
            key = keys[0]
            done(source, f'MIGRATE 127.0.0.1 {target.port} "{key}" 0 5000')
        for each in (target, source, *(node for node in self.nodes if node not in (target, source))):
            if each.process.poll() is None:
                done(each, f"CLUSTER SETSLOT {slot} NODE {ids[1]}")


def done(server: RedisServer, command: str) -> None:
    """Execute a command that answers OK."""
    said = server.ask(command)
    assert said.startswith(("+OK", "+NOKEY", "-ERR Please use SETSLOT only with masters")), said


def name_of(server: RedisServer) -> str:
    """Return the name of a node in its Cluster."""
    return server.ask("CLUSTER MYID").split()[1]


def info_of(server: RedisServer) -> str:
    """Return the state of the Cluster as a node sees it."""
    return server.ask("CLUSTER INFO")


@contextmanager
def node_running(directory: Path, *options: str) -> Iterator[RedisServer]:
    """Yield a Cluster of one node, which has all slots."""
    with redis_running(directory, *cluster_node(), *options) as node:
        done(node, f"CLUSTER ADDSLOTSRANGE 0 {SLOTS - 1}")
        await_that("the Cluster is ready", lambda: "cluster_state:ok" in info_of(node))
        yield node


@contextmanager
def cluster_running(directory: Path) -> Iterator[RedisCluster]:
    """Yield a Cluster that is ready; its nodes elect no primary by themselves."""
    with ExitStack() as stack:
        nodes = []
        for number in range(4):
            own = directory / f"node{number}"
            own.mkdir()
            # A node that is busy for a while is not taken for dead.
            options = (*cluster_node(), "--cluster-node-timeout", "60000", "--cluster-replica-no-failover", "yes")
            nodes.append(stack.enter_context(redis_running(own, *options)))
        primaries, replica = nodes[:3], nodes[3]
        for number, primary in enumerate(primaries):
            done(primary, f"CLUSTER SET-CONFIG-EPOCH {number + 1}")
            done(primary, f"CLUSTER ADDSLOTSRANGE {BOUNDS[number]} {BOUNDS[number + 1] - 1}")
        for node in nodes[1:]:
            meet(node, nodes[0])
        await_that("all nodes have met", lambda: all("cluster_known_nodes:4" in info_of(node) for node in nodes))
        await_that("the Cluster is ready", lambda: all("cluster_state:ok" in info_of(node) for node in nodes))
        done(replica, f"CLUSTER REPLICATE {name_of(nodes[0])}")
        await_that("the replica has the data", lambda: "master_link_status:up" in replica.ask("INFO replication"))
        yield RedisCluster(primaries, replica)
