"""Hubs that come and go on a real Redis: when they acknowledge messages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from twisted_beastws.hub import Hub
from twisted_beastws.hub.backplane import BackplaneState

from ..support.loopback import until
from ..support.redis_server import RedisServer, redis_running
from .planes import RedisPlane
from .stubs import Stub
from .test_faults import Address
from .test_lost_snapshots import SNAPSHOTS, as_gap, crash


@pytest.fixture
def endless_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    from twisted_beastws.hub import linked_interfaces

    monkeypatch.setattr(linked_interfaces, "GRACE", 10_000)


@pytest.fixture
def short_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    from twisted_beastws.hub import linked_interfaces, linked_registration

    monkeypatch.setattr(linked_interfaces, "GRACE", 0.5)
    monkeypatch.setattr(linked_registration, "MARGIN", 0.1)
    monkeypatch.setattr(linked_registration, "LOOK", 0.1)


@pytest.mark.usefixtures("endless_leases", "lines")
class TestStart:
    """Hubs that start while others run, or are gone."""

    @pytest_twisted.ensureDeferred
    async def test_no_lease_is_awaited_by_hubs_that_restart_one_by_one(
        self, redis: RedisServer, real_hub: Callable[..., Hub]
    ) -> None:
        hubs = [real_hub(redis.url), real_hub(redis.url)]
        for number in range(4):
            await until(lambda: all(hub.ready for hub in hubs))
            assert await hubs[number % 2].publish("a", str(number)) is not None
            await hubs[number % 2].stop()
            hubs[number % 2] = real_hub(redis.url)
        await until(lambda: all(hub.ready for hub in hubs))

    @pytest_twisted.ensureDeferred
    async def test_a_killed_hub_is_replaced_while_another_runs(
        self, redis: RedisServer, real_hub: Callable[..., Hub]
    ) -> None:
        one, two = real_hub(redis.url), real_hub(redis.url)
        await until(lambda: one.ready and two.ready)
        await crash(one)
        new = real_hub(redis.url)
        await until(lambda: new.ready)
        assert await new.publish("a", "1") is not None

    @pytest_twisted.ensureDeferred
    async def test_a_hub_waits_for_the_lease_of_a_killed_one_and_serves_its_members_meanwhile(
        self, redis: RedisServer, real_hub: Callable[..., Hub]
    ) -> None:
        one = real_hub(redis.url)
        await until(lambda: one.ready)
        await crash(one)
        two = real_hub(redis.url)
        await until(lambda: two.backplane.state is BackplaneState.CONNECTED)
        member = Stub()
        await two.join(member.connection, "a")
        outcomes: list[Any] = []
        two.publish("a", "1").addBoth(outcomes.append)
        await until(lambda: member.heard == ["1"])
        # Redis answers one command after the other: the publication has its answer, too.
        await two.who("a")
        assert not two.ready and not outcomes
        await two.stop()
        await until(lambda: outcomes)


@pytest.mark.usefixtures("short_leases", "quiet")
class TestNewcomer:
    """A new hub that others have not heard of yet."""

    @pytest_twisted.ensureDeferred
    async def test_a_new_hub_and_redis_die_together_while_the_others_are_cut_off(
        self, tmp_path: Path, real_hub: Callable[..., Hub]
    ) -> None:
        with redis_running(tmp_path, *SNAPSHOTS) as redis:
            address = Address(RedisPlane(redis))
            await address.listen()
            old = real_hub(address.url)
            await until(lambda: old.ready)
            member = Stub()
            await old.join(member.connection, "a", gap=as_gap)
            await old.publish("a", "seen")
            await until(lambda: member.heard == ["seen"])
            redis.ask("SAVE")
            address.socket = tmp_path / "nowhere"
            address.cut()
            new = real_hub(redis.url)
            await until(lambda: new.backplane.state is BackplaneState.CONNECTED)
            assert await new.publish("a", "lost") is not None
            await crash(new)
            redis.kill()
            redis.start()
            address.socket = redis.path
            await until(lambda: old.backplane.state is BackplaneState.CONNECTED)
            await until(lambda: member.heard == ["seen", "GAP"])
            await old.stop()
            await address.port.stopListening()  # type: ignore[misc]
