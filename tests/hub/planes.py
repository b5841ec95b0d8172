"""The servers that join hubs, as the tests that all of them must pass see them, and what hubs do there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from types import ModuleType
from typing import Any, cast

from twisted_beastws.hub import Hub
from twisted_beastws.hub.linked import LinkedBackplane
from twisted_beastws.hub.linked_interfaces import LinkUser
from twisted_beastws.hub.postgres import PostgresBackplane
from twisted_beastws.hub.postgres_url import PostgresURL
from twisted_beastws.hub.redis import RedisBackplane
from twisted_beastws.hub.redis_cluster import RedisClusterBackplane
from twisted_beastws.hub.redis_cluster_nodes import ClusterNodes
from twisted_beastws.hub.redis_url import RedisURL

from ..support.loopback import until
from ..support.postgres_server import PostgresServer, postgres_running
from ..support.redis_cluster import node_running
from ..support.redis_server import RedisServer, cluster_node, meet, redis_running
from ..support.waiting import await_that
from .stubs import Stub, connected

TABLES = ("messages", "rooms", "ids", "refs", "hubs", "witnesses", "leases", "members", "inbox", "clock")


class RedisPlane:
    """A Redis.

    Attributes:
        evicts: the server can drop a room's history by itself.
        prefix: the beginning of the keys of `link`.
    """

    evicts = True
    prefix = "beastws:0"

    def __init__(self, server: RedisServer) -> None:
        self.server = server

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def socket(self) -> Path:
        return self.server.path

    def url_at(self, port: int) -> str:
        """Return the URL of a proxy to the server."""
        return f"redis://127.0.0.1:{port}"

    def backplane(self, url: str, **options: Any) -> LinkedBackplane:
        return RedisBackplane(url, **options)

    def link(self, user: LinkUser, reactor: Any, budgets: tuple[int, int], hub_name: str) -> Any:
        from twisted_beastws.hub.redis_link import RedisLink

        return RedisLink(RedisURL.parse(self.url), user, reactor, "beastws", *budgets, hub_name)

    def link_module(self) -> ModuleType:
        from twisted_beastws.hub import redis_link

        return redis_link

    def flush(self) -> None:
        """Lose all data."""
        self.server.ask("FLUSHALL")

    def evict(self, room: str) -> None:
        self.server.ask(f"DEL {self.prefix}:history:{room}")

    def change_server(self) -> None:
        """Let the dataset believe that another process served it so far."""
        self.server.ask(f"HSET {self.prefix}:clock server another")

    def forget_hubs(self) -> None:
        self.server.ask(f"DEL {self.prefix}:hubs")

    def begin_first(self) -> None:
        """Let the dataset believe that it is the first one."""
        self.server.ask(f"HSET {self.prefix}:clock first 1")

    def age_change(self, ms: int) -> None:
        """Let the change of the server be so much older."""
        self.server.ask(f"HINCRBY {self.prefix}:clock unsure -{ms}")

    def size(self) -> int:
        """Return the bytes of all histories."""
        return int(self.server.ask(f"HGET {self.prefix}:clock size").split("\r\n")[1])

    def make_full(self) -> None:
        """Let the server refuse writes for want of space."""
        self.server.ask("CONFIG SET maxmemory 1")

    def make_read_only(self) -> None:
        self.server.ask("CONFIG SET masterauth x")
        self.server.ask("REPLICAOF 127.0.0.1 1")

    def make_writable(self) -> None:
        self.server.ask("CONFIG SET maxmemory 0")
        self.server.ask("REPLICAOF NO ONE")

    @contextmanager
    def replica(self) -> Iterator[RedisPlane]:
        """Yield a replica that follows this server."""
        directory = Path(mkdtemp(prefix="beastws-"))
        try:
            with redis_running(directory) as server:
                server.ask(f"REPLICAOF 127.0.0.1 {self.server.port}")
                yield RedisPlane(server)
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def follows(self) -> bool:
        """Return whether this replica follows its primary."""
        return "master_link_status:up" in self.server.ask("INFO replication")

    def part(self) -> None:
        """Follow the primary no longer."""
        self.server.ask("REPLICAOF 127.0.0.1 1")

    def promote(self) -> None:
        self.server.ask("REPLICAOF NO ONE")

    def log_place(self) -> int:
        """Return how much of the primary's data the server has."""
        found = self.server.ask("INFO replication")
        role = "slave" if "role:slave" in found else "master"
        return int(found.partition(f"\n{role}_repl_offset:")[2].split()[0])


class ClusterPlane(RedisPlane):
    """A Redis Cluster of one node, and of a replica."""

    prefix = "beastws:{0}"

    def __init__(self, server: RedisServer) -> None:
        super().__init__(server)
        self._announced = server.port

    @property
    def url(self) -> str:
        return f"redis+cluster://127.0.0.1:{self.server.port}"

    def url_at(self, port: int) -> str:
        # The node has to name the proxy as its address.
        self._announced = port
        self._announce()
        return f"redis+cluster://127.0.0.1:{port}"

    def _announce(self) -> None:
        assert self.server.ask(f"CONFIG SET cluster-announce-port {self._announced}") == "+OK\r\n"

    def backplane(self, url: str, **options: Any) -> LinkedBackplane:
        # It has all that a LinkedBackplane has for a hub.
        return cast(LinkedBackplane, RedisClusterBackplane(url, **options))

    def link(self, user: LinkUser, reactor: Any, budgets: tuple[int, int], hub_name: str) -> Any:
        """Return the link of one part."""
        from twisted_beastws.hub.redis_cluster_link import ClusterLink

        url = RedisURL.parse(self.url)
        return ClusterLink(ClusterNodes(url), url, user, reactor, "beastws", *budgets, hub_name, "0")

    def make_read_only(self) -> None:
        """Leave all slots without a node."""
        self.server.ask("CLUSTER DELSLOTSRANGE 0 16383")

    def make_writable(self) -> None:
        self.server.ask("CONFIG SET maxmemory 0")
        self.server.ask("CLUSTER ADDSLOTSRANGE 0 16383")

    @contextmanager
    def replica(self) -> Iterator[RedisPlane]:
        directory = Path(mkdtemp(prefix="beastws-"))
        try:
            with redis_running(directory, *cluster_node()) as server:
                name = self.server.ask("CLUSTER MYID").split()[1]
                meet(server, self.server)
                await_that("the nodes have met", lambda: name in server.ask("CLUSTER NODES"))
                await_that("the node is a replica", lambda: server.ask(f"CLUSTER REPLICATE {name}") == "+OK\r\n")
                replica = ClusterPlane(server)
                replica._announced = self._announced
                yield replica
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def part(self) -> None:
        self.server.ask("CONFIG SET masteruser nobody")
        self.server.ask("CONFIG SET masterauth x")
        self.server.ask("CLIENT KILL TYPE master")

    def promote(self) -> None:
        self._announce()
        assert self.server.ask("CLUSTER FAILOVER TAKEOVER") == "+OK\r\n"


class PostgresPlane:
    """A PostgreSQL."""

    evicts = False

    def __init__(self, server: PostgresServer) -> None:
        self.server = server

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def socket(self) -> Path:
        return self.server.path

    def url_at(self, port: int) -> str:
        return f"postgresql://postgres@127.0.0.1:{port}/postgres"

    def backplane(self, url: str, **options: Any) -> LinkedBackplane:
        return PostgresBackplane(url, **options)

    def link(self, user: LinkUser, reactor: Any, budgets: tuple[int, int], hub_name: str) -> Any:
        from twisted_beastws.hub.postgres_link import PostgresLink

        return PostgresLink(PostgresURL.parse(self.url), user, reactor, "beastws", *budgets, hub_name)

    def link_module(self) -> ModuleType:
        from twisted_beastws.hub import postgres_link

        return postgres_link

    def flush(self) -> None:
        # The schema is absent before the first hub.
        found = self.server.ask("SELECT FROM pg_namespace WHERE nspname = 'beastws'")
        if found:
            tables = ", ".join(f"beastws.{table}" for table in TABLES)
            self.server.ask(f"TRUNCATE {tables} RESTART IDENTITY")

    def evict(self, room: str) -> None:
        raise NotImplementedError

    def change_server(self) -> None:
        self.server.ask("UPDATE beastws.clock SET server = 'another'")

    def forget_hubs(self) -> None:
        self.server.ask("DELETE FROM beastws.hubs")

    def begin_first(self) -> None:
        self.server.ask("UPDATE beastws.clock SET first = true")

    def age_change(self, ms: int) -> None:
        self.server.ask(f"UPDATE beastws.clock SET unsure = unsure - {ms}")

    def size(self) -> int:
        return int(str(self.server.ask("SELECT size FROM beastws.clock")[0][0]))

    def make_full(self) -> None:
        # As PostgreSQL answers when its disk is full.
        self.server.ask(
            "CREATE FUNCTION beastws.no_space() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE SQLSTATE '53100' USING MESSAGE = 'no space left on device'; END $$;"
            "CREATE TRIGGER no_space BEFORE INSERT OR UPDATE ON beastws.leases EXECUTE FUNCTION beastws.no_space();"
            "CREATE TRIGGER no_space BEFORE INSERT ON beastws.messages EXECUTE FUNCTION beastws.no_space();"
        )

    def make_read_only(self) -> None:
        self.server.ask("ALTER SYSTEM SET default_transaction_read_only = on")
        self.server.ask("SELECT pg_reload_conf()")
        # As a failover ends all connections.
        self.server.ask(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'twisted_beastws'"
        )

    def make_writable(self) -> None:
        self.server.ask("DROP FUNCTION IF EXISTS beastws.no_space() CASCADE")
        self.server.ask("ALTER SYSTEM RESET default_transaction_read_only")
        self.server.ask("SELECT pg_reload_conf()")

    @contextmanager
    def replica(self) -> Iterator[PostgresPlane]:
        directory = Path(mkdtemp(prefix="beastws-"))
        try:
            server = PostgresServer(directory, self.server)
            try:
                yield PostgresPlane(server)
            finally:
                server.kill()
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def follows(self) -> bool:
        return bool(self.server.ask("SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming'"))

    def part(self) -> None:
        self.server.ask("ALTER SYSTEM SET primary_conninfo = ''")
        self.server.ask("SELECT pg_reload_conf()")

    def promote(self) -> None:
        self.server.ask("SELECT pg_promote()")

    def log_place(self) -> int:
        replayed = "pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn()"
        return int(str(self.server.ask(f"SELECT (CASE WHEN {replayed} END - '0/0')::bigint")[0][0]))


Plane = RedisPlane | PostgresPlane

PLANES = ("redis", "cluster", "postgres")


@contextmanager
def plane_running(name: str, directory: Path) -> Iterator[Plane]:
    """Yield a server of this kind; skip the test if it is not installed."""
    if name == "redis":
        with redis_running(directory) as redis:
            yield RedisPlane(redis)
    elif name == "cluster":
        # Without slots it goes on, and need not wait before it has them again.
        with node_running(directory, "--cluster-require-full-coverage", "no") as redis:
            yield ClusterPlane(redis)
    else:
        with postgres_running() as postgres:
            yield PostgresPlane(postgres)


def part_with(backplane: Any, room: str) -> Any:
    """Return the part of a backplane that has a room."""
    return backplane.part(room) if isinstance(backplane, RedisClusterBackplane) else backplane


async def use_everything(one: Hub, two: Hub) -> None:
    """Do everything that needs a right on the server, on two hubs that connect."""
    await connected(one, two)
    member, other = Stub(), Stub()
    assert await one.join(member.connection, "a", name="ann", gap=lambda message: "GAP")
    first = await two.publish("a", "first", ref="r")
    assert await two.publish("a", "first", ref="r") == first
    for number in range(6):
        await two.publish("b", f"{number}" * 3000)
    await two.publish_to_all("all")
    await until(lambda: member.heard == ["first", "all"])
    assert await two.join(other.connection, "a", after=first, name="bob")
    assert sorted(await one.who("a")) == ["ann", "bob"]
    other.ends()
    backplane = part_with(one.backplane, "a")
    await until(lambda: backplane.occupied() == ["a"])
    # The test is the network that fails: it cuts the link's own connection.
    backplane._link._commands.drop()
    await until(lambda: one.backplane.losses == 1)  # type: ignore[attr-defined]
    await connected(one)
    missed = await two.publish("a", "second")
    await until(lambda: member.heard == ["first", "all", "second"])
    assert missed > first  # type: ignore[operator]
