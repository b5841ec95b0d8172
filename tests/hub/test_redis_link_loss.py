"""The backplane loses a real Redis."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from twisted_beastws.hub import Hub, PublishUnknown
from twisted_beastws.hub.backplane import BackplaneState
from twisted_beastws.hub.linked_answers import Verified
from twisted_beastws.hub.linked_errors import LinkLost
from twisted_beastws.hub.redis import RedisBackplane
from twisted_beastws.hub.redis_url import RedisURL

from ..support.loopback import until
from ..support.redis_server import RedisServer
from .real import RealNode, refusal


class Idle:
    """The user of a link, as far as it is asked."""

    def linked(self) -> Deferred[None]:
        return succeed(None)

    def lost(self, why: BaseException) -> None:
        pass

    def gave_up(self, why: BaseException) -> None:
        raise NotImplementedError

    def received(self, room: str | None, message_id: str, previous: str, epoch: str, payload: bytes) -> None:
        raise NotImplementedError

    def occupied(self) -> list[str]:
        raise NotImplementedError

    def verify(self) -> Deferred[Verified]:
        raise NotImplementedError

    def beat(self, *news: object) -> None:
        pass


class TestLoss:
    """The connection to a real Redis is lost."""

    @pytest_twisted.ensureDeferred
    async def test_hubs_are_connected_again_after_redis_was_killed(
        self, own_redis: RedisServer, node: Callable[..., RealNode], logged: Callable[..., Any]
    ) -> None:
        one, two = node(own_redis.url), node(own_redis.url)
        members = [await one.joins(name="ann"), await two.joins()]
        before = await one.hub.publish("a", "before")
        await until(lambda: all(member.heard for member in members))
        own_redis.kill()
        await refusal(one.hub, "lost")
        await until(lambda: one.backplane.losses and two.backplane.losses)
        assert (await refusal(one.hub, "down")).delivered_here
        await refusal(two.hub, "down too")
        assert [member.heard for member in members] == [["before", "down"], ["before", "down too"]]
        assert list(await two.hub.who("a")) == []
        own_redis.start()
        await until(lambda: one.is_connected() and two.is_connected())
        assert list(await two.hub.who("a")) == ["ann"]
        await two.hub.publish("a", "after")
        await until(lambda: all(member.heard[-1] == "after" for member in members))
        # Only what Redis took is history.
        assert (await two.joins(after=before)).heard == ["after"]
        assert one.backplane.gaps == two.backplane.gaps == 0
        logged(type(None))

    @pytest_twisted.ensureDeferred
    async def test_missed_messages_are_read_from_the_history(
        self, redis: RedisServer, node: Callable[..., RealNode], logged: Callable[..., Any]
    ) -> None:
        one, two = node(redis.url), node(redis.url)
        members = [await one.joins(), await two.joins()]
        await one.hub.publish("a", "before")
        await until(lambda: all(member.heard for member in members))
        # The test is the network that fails: it cuts the link's own connection.
        two.backplane._link._subscriber.drop()  # type: ignore[union-attr]
        for number in range(100):
            await one.hub.publish("a", str(number))
        await until(lambda: len(members[1].heard) == 101)
        await one.hub.publish("a", "after")
        await until(lambda: len(members[1].heard) == 102)
        assert members[0].heard == members[1].heard == ["before", *map(str, range(100)), "after"]
        assert two.backplane.losses == 1
        assert logged(type(None))

    @pytest_twisted.ensureDeferred
    async def test_a_redis_that_does_not_answer_is_disconnected(
        self,
        own_redis: RedisServer,
        node: Callable[..., RealNode],
        logged: Callable[..., Any],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        from twisted_beastws.hub import linked_reconnecting

        monkeypatch.setattr(linked_reconnecting, "REPLY_TIMEOUT", 0.3)
        one = node(own_redis.url)
        member = await one.joins()
        own_redis.stop()

        def error_of(failure: Failure) -> object:
            return failure.value

        published = [one.hub.publish("a", str(number)).addErrback(error_of) for number in range(3)]
        # Redis has them in its socket, and may take them when it goes on.
        assert [type(each) for each in await gatherResults(published)] == [PublishUnknown] * 3
        assert member.heard == []
        await until(lambda: not one.is_connected())
        own_redis.go_on()
        await until(one.is_connected)
        await one.hub.publish("a", "3")
        await until(lambda: "3" in member.heard)
        # Redis took the commands that were whole in its socket; the member has their messages, and in their order.
        assert member.heard == (await one.joins(after="0-0")).heard == sorted(set(member.heard))
        assert logged(type(None))

    @pytest_twisted.ensureDeferred
    async def test_an_absent_server_is_logged_once(
        self, tmp_path: Path, node: Callable[..., RealNode], logged: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytest.importorskip("txredisapi", reason="REDIS IS NOT TESTED: pip install txredisapi hiredis")
        from twisted_beastws.hub import linked_reconnecting

        tries: list[int] = []

        def backoff(failures: int) -> float:
            tries.append(failures)
            return 0.01

        monkeypatch.setattr(linked_reconnecting, "backoff", backoff)
        node(f"unix://{tmp_path}/nothing")
        await until(lambda: len(tries) > 3)
        assert tries[:4] == [1, 2, 3, 4]
        assert len(logged(type(None))) == 1

    @pytest_twisted.ensureDeferred
    async def test_a_stop_in_any_state_ends_the_backplane(self, redis: RedisServer, tmp_path: Path) -> None:
        for url in (redis.url, f"redis://127.0.0.1:{redis.port}"):
            at_once, connected = RealNode(url), RealNode(url)
            await at_once.hub.stop()
            await connected.joins()
            await connected.hub.stop()
            await refusal(connected.hub, "late")
            assert connected.backplane.state is BackplaneState.STOPPED
        await until(lambda: redis.ask("CLIENT LIST").count("id=") == 1)

    @pytest.mark.usefixtures("logged")
    def test_a_stop_during_an_attempt_leaves_nothing_and_logs_nothing(self) -> None:
        pytest.importorskip("txredisapi", reason="REDIS IS NOT TESTED: pip install txredisapi hiredis")
        reactor = MemoryReactorClock()
        for url in ("unix:///nowhere", "redis://127.0.0.1"):
            hub = Hub(RedisBackplane(url, reactor=reactor))
            hub.start()
            stopped = hub.stop()
            assert stopped.called and reactor.getDelayedCalls() == []

    def test_a_redis_that_refuses_writes_is_probed_once_a_second(self) -> None:
        pytest.importorskip("txredisapi", reason="REDIS IS NOT TESTED: pip install txredisapi hiredis")
        from twisted_beastws.hub.redis_link import RedisLink

        # Over the connections' own bytes: of a real Redis this would take a minute.
        reactor = MemoryReactorClock()
        link = RedisLink(RedisURL.parse("unix:///redis"), Idle(), reactor)
        link.start()
        connections: list[tuple[Any, StringTransport]] = []
        for _ in range(2):
            built = reactor.unixClients[-1][1].buildProtocol(None)
            connections.append((built, StringTransport()))
            built.makeConnection(connections[-1][1])
        probes = 0
        for _ in range(120):
            for (protocol, transport), reply in zip(connections, (b"-OOM full\r\n", b"+PONG\r\n"), strict=True):
                asked = transport.value().count(b"\r\nSET\r\n") + transport.value().count(b"\r\nPING\r\n")
                transport.clear()
                protocol.dataReceived(reply * asked)
                probes += asked if protocol is connections[0][0] else 0
            reactor.advance(0.5)
        stopped = link.stop()
        for protocol, _transport in connections:
            protocol.connectionLost(Failure(ConnectionDone()))
        assert stopped.called
        # One a second, and one for each beat.
        assert 55 <= probes <= 70

    def test_commands_that_follow_a_failed_one_fail_while_the_connection_is_being_lost(self) -> None:
        pytest.importorskip("txredisapi", reason="REDIS IS NOT TESTED: pip install txredisapi hiredis")
        from twisted_beastws.hub.redis_protocol import Subscriber

        connection = Subscriber(RedisURL.parse("unix:///redis"), MemoryReactorClock(), 5.0, lambda *message: None)
        connection.makeConnection(StringTransport())
        failures: list[Failure] = []

        def again(failure: Failure) -> None:
            failures.append(failure)
            for next_one in (connection.execute("WAIT", 1, 1000), connection.subscribe(["room"])):
                next_one.addErrback(failures.append)

        connection.execute("WAIT", 1, 1000).addErrback(again)
        connection.connectionLost(Failure(ConnectionDone()))
        assert [failure.type for failure in failures] == [LinkLost] * 3

    def test_the_waits_between_tries_grow_to_ten_seconds(self) -> None:
        pytest.importorskip("txredisapi", reason="REDIS IS NOT TESTED: pip install txredisapi hiredis")
        from twisted_beastws.hub.linked_reconnecting import backoff

        assert 0.2 <= backoff(1) <= 0.3
        assert 0.34 <= backoff(2) <= 0.51
        assert 8 <= backoff(10) <= 12
        assert 8 <= backoff(100_000) <= 12
