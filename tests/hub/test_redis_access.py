"""How a backplane gets into a Redis, and how it says why it does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.defer import gatherResults
from twisted.internet.endpoints import TCP4ServerEndpoint

from twisted_beastws.hub import Hub
from twisted_beastws.hub.backplane import BackplaneState

from ..support.loopback import Script, until
from ..support.redis_server import RedisServer, cluster_node, redis_running
from .planes import use_everything
from .stubs import Stub

COMMANDS = [
    *("eval", "subscribe", "unsubscribe", "publish", "ping", "time", "set", "del", "exists", "expire"),
    *("info", "hexists", "hget", "hgetall", "hmget", "hset", "hdel", "hlen", "hscan", "zadd", "zrange", "zrem"),
    *("xadd", "xlen", "xrange", "xrevrange", "xtrim", "xdel"),
]
"""What a Redis user must be allowed, on keys and channels that begin with the prefix: see docs/hub.md."""


@pytest.fixture
def hub(real_hub: Callable[..., Hub]) -> Callable[..., Hub]:
    return real_hub


def counted_waits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the number of failures in a row, for each wait."""
    from twisted_beastws.hub import linked_reconnecting

    waits: list[int] = []

    def backoff(failures: int) -> float:
        waits.append(failures)
        return 0.02

    monkeypatch.setattr(linked_reconnecting, "BEAT", 60.0)
    monkeypatch.setattr(linked_reconnecting, "backoff", backoff)
    return waits


def allow(redis: RedisServer, commands: list[str], prefix: str = "beastws") -> None:
    allowed = "".join(f" +{command}" for command in commands)
    assert redis.ask(f"ACL SETUSER chat reset on >secret ~{prefix}:* &{prefix}:*{allowed}") == "+OK\r\n"


class TestPermissions:
    """The permissions of the Redis user (`docs/howto/scaling.md`)."""

    @pytest_twisted.ensureDeferred
    async def test_the_documented_permissions_are_sufficient(
        self, tmp_path: Path, hub: Callable[..., Hub], lines: list[str]
    ) -> None:
        with redis_running(tmp_path) as redis:
            allow(redis, COMMANDS)
            options = {"history": 4, "max_room_history": 10_000, "max_history": 12_000}
            one, two = (hub(f"unix://chat:secret@{redis.path}", **options) for _ in range(2))
            await use_everything(one, two)
            await gatherResults([one.stop(), two.stop()])
        # The URL in a line has the test's name.
        assert not any("permission" in line.replace(str(redis.path), "") for line in lines)

    def test_the_documentation_shows_the_permissions(self) -> None:
        page = (Path(__file__).parents[2] / "docs" / "hub.md").read_text()
        assert " ".join(page.split()).count(" ".join(f"+{command}" for command in COMMANDS)) == 1

    @pytest_twisted.ensureDeferred
    async def test_the_log_names_a_missing_permission(
        self, tmp_path: Path, hub: Callable[..., Hub], lines: list[str]
    ) -> None:
        with redis_running(tmp_path) as redis:
            for missing in ("eval", "subscribe", "time", "hmget"):
                allow(redis, [command for command in COMMANDS if command != missing])
                lines.clear()
                one = hub(f"unix://chat:secret@{redis.path}")
                await until(lambda: any("the Redis user lacks a permission" in line for line in lines))
                assert not one.ready and one.backplane.state is BackplaneState.REFUSING
                await one.stop()

    @pytest_twisted.ensureDeferred
    async def test_a_prefix_keeps_applications_apart(
        self, tmp_path: Path, hub: Callable[..., Hub], lines: list[str]
    ) -> None:
        with redis_running(tmp_path) as redis:
            allow(redis, COMMANDS, "my-app")
            ours, others = hub(f"unix://chat:secret@{redis.path}", prefix="my-app"), hub(redis.url)
            await until(lambda: ours.ready and others.ready)
            members = [Stub(), Stub()]
            for each, member in zip((ours, others), members, strict=True):
                await each.join(member.connection, "a", name="ann")
                await each.publish("a", each.backplane.prefix)  # type: ignore[attr-defined]
            await until(lambda: all(member.heard for member in members))
            assert [member.heard for member in members] == [["my-app"], ["beastws"]]
            assert list(await others.who("a")) == ["ann"]
            keys = [line for line in redis.ask("KEYS *").split() if ":0:" in line]
            assert {key.partition(":")[0] for key in keys} == {"my-app", "beastws"}
            await gatherResults([ours.stop(), others.stop()])

    @pytest_twisted.ensureDeferred
    async def test_a_wrong_password_is_reported_but_not_shown(
        self, tmp_path: Path, hub: Callable[..., Hub], lines: list[str]
    ) -> None:
        with redis_running(tmp_path) as redis:
            redis.ask("CONFIG SET requirepass secret")
            for url in (redis.url, f"unix://:sesame@{redis.path}"):
                lines.clear()
                one = hub(url)
                await until(lambda: any("another user and password" in line for line in lines))
                assert not any("sesame" in line for line in lines)
                await one.stop()


class TestRefusedServers:
    """Servers that the backplane cannot use."""

    @pytest_twisted.ensureDeferred
    async def test_a_node_of_a_cluster_is_refused_at_once(
        self, tmp_path: Path, hub: Callable[..., Hub], lines: list[str]
    ) -> None:
        with redis_running(tmp_path, *cluster_node(), "--appendonly", "no") as redis:
            for slots in (False, True):
                if slots:
                    assert redis.ask("CLUSTER ADDSLOTSRANGE 0 16383") == "+OK\r\n"
                    await until(lambda: "cluster_state:ok" in redis.ask("CLUSTER INFO"))
                lines.clear()
                one = hub(redis.url)
                line = await one.backplane.refused  # type: ignore[attr-defined]
                assert "a node of a Redis Cluster: give redis+cluster://" in line and redis.url in line
                assert not one.ready and one.backplane.state is BackplaneState.REFUSING
                # It is over: no connection is tried again. Only the link's own Deferred shows that.
                await one.backplane._link._serving  # type: ignore[attr-defined]
                assert len([line for line in lines if "a node of a Redis Cluster" in line]) == 1
                await one.stop()

    @pytest_twisted.ensureDeferred
    async def test_a_replica_is_reported_once_and_tried_with_growing_delays(
        self, tmp_path: Path, hub: Callable[..., Hub], lines: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waits = counted_waits(monkeypatch)
        with redis_running(tmp_path) as redis:
            primary = hub(redis.url)
            await until(lambda: primary.ready)
            await primary.publish("a", "it has data now, by which it knows every hub")
            await primary.stop()
            redis.ask("REPLICAOF 127.0.0.1 1")
            lines.clear()
            one = hub(redis.url)
            await until(lambda: len(waits) >= 8)
            assert not one.ready and one.backplane.state is BackplaneState.READ_ONLY
            assert waits[:8] == [1, 2, 3, 4, 5, 6, 7, 8]
            assert len(lines) == 1 and "Redis is a replica and takes no writes: the URL must" in lines[0]
            redis.ask("REPLICAOF NO ONE")
            await until(lambda: one.ready)
            await one.publish("a", "taken")

    @pytest_twisted.ensureDeferred
    async def test_a_server_that_refuses_each_message_is_tried_with_growing_delays(
        self, tmp_path: Path, hub: Callable[..., Hub], lines: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waits = counted_waits(monkeypatch)
        with redis_running(tmp_path) as redis:
            one = hub(redis.url)
            await until(lambda: one.ready)
            redis.ask("ACL SETUSER default -xadd")
            for attempt in range(1, 5):
                await until(lambda: one.backplane.state is BackplaneState.CONNECTED)
                await one.publish("a", "refused").addErrback(lambda failure: None)

                def tried(least: int = attempt) -> bool:
                    return len(waits) >= least

                await until(tried)
            assert waits[:4] == [1, 2, 3, 4]
            await one.stop()

    @pytest_twisted.ensureDeferred
    async def test_a_silent_server_makes_no_hub_ready(
        self, hub: Callable[..., Hub], lines: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from twisted.internet import reactor

        from twisted_beastws.hub import linked_reconnecting

        monkeypatch.setattr(linked_reconnecting, "REPLY_TIMEOUT", 0.2)
        silent = Script(None)
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(silent)
        one = hub(f"redis://127.0.0.1:{port.getHost().port}")
        await until(lambda: any("did not answer for 0.2 seconds" in line for line in lines))
        assert not one.ready and one.backplane.state is BackplaneState.CONNECTING
        await until(lambda: len(silent.connections) >= 4)
        await one.stop()
        for connection in silent.connections:
            connection.drop()
        await port.stopListening()


class TestFull:
    """A Redis whose memory is full."""

    @pytest_twisted.ensureDeferred
    async def test_a_full_redis_is_used_again_when_there_is_room(
        self, tmp_path: Path, hub: Callable[..., Hub], lines: list[str]
    ) -> None:
        with redis_running(tmp_path) as redis:
            one, two = hub(redis.url), hub(redis.url)
            await until(lambda: one.ready and two.ready)
            here, there = Stub(), Stub()
            await one.join(here.connection, "a", gap=lambda message: "GAP")
            await two.join(there.connection, "a", gap=lambda message: "GAP")
            redis.ask("CONFIG SET maxmemory 1")
            refused = await one.publish("a", "refused").addErrback(lambda failure: failure.value)
            assert str(refused) == "the backplane is full: only the members here have the message"
            assert one.backplane.state is BackplaneState.FULL
            late = Stub()
            await two.join(late.connection, "a", name="late")
            redis.ask("CONFIG SET maxmemory 0")
            await until(lambda: one.backplane.state is two.backplane.state is BackplaneState.CONNECTED)
            await one.publish("a", "taken")
            await until(lambda: there.heard == ["taken"])
            assert here.heard == ["refused", "taken"]
            while list(await one.who("a")) != ["late"]:
                await until(lambda: two.backplane.state is BackplaneState.CONNECTED)
            assert any("Redis has no memory left" in line for line in lines)
            await gatherResults([one.stop(), two.stop()])

    @pytest.mark.parametrize("policy", ["volatile-lru", "allkeys-lru"])
    @pytest_twisted.ensureDeferred
    async def test_an_evicted_history_is_reported_as_a_gap(
        self, tmp_path: Path, hub: Callable[..., Hub], lines: list[str], policy: str
    ) -> None:
        with redis_running(tmp_path) as redis:
            one = hub(redis.url)
            await until(lambda: one.ready)
            member = Stub()
            await one.join(member.connection, "a", gap=lambda message: "GAP")
            first = await one.publish("a", "first")
            await one.publish("a", "second")
            await until(lambda: member.heard == ["first", "second"])
            # Redis evicts every key that it may.
            redis.ask(f"CONFIG SET maxmemory-policy {policy}")
            redis.ask("CONFIG SET maxmemory 1")
            redis.ask("SET some thing")
            await until(lambda: "history" not in redis.ask("KEYS beastws:*"))
            redis.ask("CONFIG SET maxmemory 0")
            await until(lambda: one.backplane.state is BackplaneState.CONNECTED)
            back = Stub()
            assert await one.join(back.connection, "a", after=first) is False
            await one.publish("a", "third")
            await until(lambda: "third" in member.heard)
            # Without its clock the dataset is another one. Without histories alone, no member here misses a message.
            gaps = ["GAP"] if policy == "allkeys-lru" else []
            assert member.heard == ["first", "second", *gaps, "third"]
            await one.stop()


class TestNotSaving:
    """A Redis that cannot save its data."""

    @pytest_twisted.ensureDeferred
    async def test_a_redis_that_cannot_save_is_reported_and_used_again_when_it_can(
        self, tmp_path: Path, hub: Callable[..., Hub], lines: list[str]
    ) -> None:
        snapshots = tmp_path / "snapshots"
        snapshots.mkdir()
        options = [
            "--dir",
            str(snapshots),
            "--appendonly",
            "no",
            "--save",
            "3600 1",
            "--enable-protected-configs",
            "yes",
        ]
        with redis_running(tmp_path, *options) as redis:
            one = hub(redis.url)
            await until(lambda: one.ready)
            member = Stub()
            await one.join(member.connection, "a", gap=lambda message: "GAP")
            # Root may write into every directory that exists.
            snapshots.rmdir()
            redis.ask("BGSAVE")
            await until(lambda: "rdb_last_bgsave_status:err" in redis.ask("INFO persistence"))
            refused = await one.publish("a", "refused").addErrback(lambda failure: failure.value)
            assert str(refused) == "the backplane takes no messages now: only the members here have the message"
            assert one.backplane.state is BackplaneState.NOT_SAVING
            assert any("Redis cannot write its data to disk and takes no writes" in line for line in lines)
            snapshots.mkdir()
            redis.ask(f"CONFIG SET dir {snapshots}")
            redis.ask("BGSAVE")
            await until(lambda: one.backplane.state is BackplaneState.CONNECTED)
            await one.publish("a", "taken")
            await until(lambda: member.heard == ["refused", "taken"])
            assert one.backplane.failures == {"refused": 1}  # type: ignore[attr-defined]
            await one.stop()
