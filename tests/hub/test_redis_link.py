"""The backplane on a real Redis."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import gatherResults

from ..support.certificates import identity_pem
from ..support.loopback import until
from ..support.redis_server import RedisServer, redis_running
from .real import RealNode
from .stubs import Stub


class TestPublish:
    """Publishing through a real Redis."""

    @pytest_twisted.ensureDeferred
    async def test_each_message_is_delivered_once_and_in_one_order(
        self, redis: RedisServer, node: Callable[..., RealNode]
    ) -> None:
        one, two = node(redis.url), node(f"redis://127.0.0.1:{redis.port}")
        members = [await one.joins(), await two.joins(), await one.joins()]
        said = [f"{number % 2}:{number}" for number in range(300)]
        ids = await gatherResults([(one, two)[number % 2].hub.publish("a", text) for number, text in enumerate(said)])
        await until(lambda: all(len(member.heard) == 300 for member in members))
        assert members[0].heard == members[1].heard == members[2].heard
        for publisher in "01":
            assert [text for text in members[0].heard if text[0] == publisher] == said[int(publisher) :: 2]
        assert len(set(ids)) == 300

    @pytest_twisted.ensureDeferred
    async def test_a_message_is_unchanged_on_arrival(self, redis: RedisServer, node: Callable[..., RealNode]) -> None:
        one, two = node(redis.url), node(redis.url)
        member = await two.joins("r\u00f6om {x}")
        await until(one.is_connected)
        said: list[str | bytes] = [
            "007",
            "1.5",
            "",
            "\u00e9\r\n$5\r\n",
            b"",
            b"007",
            bytes(range(256)),
            "x" * (1 << 20),
        ]
        for each in said:
            await one.hub.publish("r\u00f6om {x}", each)
        await until(lambda: len(member.heard) == len(said))
        assert member.heard == said
        back = await one.joins("r\u00f6om {x}", after="0-0")
        assert back.heard == said

    @pytest_twisted.ensureDeferred
    async def test_a_message_can_be_sent_to_all_but_one_or_to_all(
        self, redis: RedisServer, node: Callable[..., RealNode]
    ) -> None:
        one, two = node(redis.url), node(redis.url)
        publisher, other = await one.joins("a"), await two.joins("b")
        await one.hub.publish("a", "not to me", exclude=publisher.connection)
        await one.hub.publish_to_all("to all")
        await until(lambda: other.heard and publisher.heard)
        assert publisher.heard == other.heard == ["to all"]

    @pytest_twisted.ensureDeferred
    async def test_hubs_on_different_databases_do_not_hear_each_other(
        self, redis: RedisServer, node: Callable[..., RealNode]
    ) -> None:
        one, two = node(f"{redis.url}?db=1"), node(f"{redis.url}?db=2")
        members = [await one.joins(name="ann"), await two.joins()]
        await one.hub.publish("a", "one")
        await two.hub.publish("a", "two")
        await until(lambda: all(member.heard for member in members))
        assert [member.heard for member in members] == [["one"], ["two"]]
        assert list(await two.hub.who("a")) == []

    @pytest_twisted.ensureDeferred
    async def test_only_rooms_with_members_here_are_subscribed(
        self, redis: RedisServer, node: Callable[..., RealNode]
    ) -> None:
        one, two = node(redis.url), node(redis.url)
        member = await one.joins("a")
        await two.joins("b")
        await one.hub.publish("c", "nobody is there")
        channels = "PUBSUB NUMSUB beastws:0:room:a beastws:0:room:b beastws:0:room:c beastws:0:all:"
        assert [line for line in redis.ask(channels).splitlines() if line[0] == ":"] == [":1", ":1", ":0", ":2"]
        member.ends()
        await until(lambda: ":0" in redis.ask("PUBSUB NUMSUB beastws:0:room:a"))
        # A message without a member is in the history; the next member hears later messages.
        again = await one.joins("a")
        await two.hub.publish("a", "hello")
        await until(lambda: again.heard)


class TestHistory:
    """Histories in a real Redis."""

    @pytest_twisted.ensureDeferred
    async def test_the_last_messages_are_kept_for_a_day(
        self, redis: RedisServer, node: Callable[..., RealNode]
    ) -> None:
        one = node(redis.url, history=50)
        await until(one.is_connected)
        ids = await gatherResults([one.hub.publish("a", str(number)) for number in range(80)])
        assert redis.ask("XLEN beastws:0:history:a") == ":50\r\n"
        assert redis.ask("TTL beastws:0:history:a") in (":86400\r\n", ":86399\r\n", ":86398\r\n")
        back = Stub()
        assert await one.hub.join(back.connection, "a", after=ids[35]) is True
        assert back.heard == [str(number) for number in range(36, 80)]
        late = Stub()
        assert await one.hub.join(late.connection, "a", after=ids[10]) is False
        assert late.heard == [str(number) for number in range(30, 80)]

    @pytest_twisted.ensureDeferred
    async def test_a_history_of_long_messages_is_read_in_parts(
        self, redis: RedisServer, node: Callable[..., RealNode]
    ) -> None:
        one = node(redis.url)
        await until(one.is_connected)
        for number in range(5):
            await one.hub.publish("a", str(number) * 200_000)
        found = await one.backplane.history("a", "0-0")
        assert [len(message.data) for message in found.messages] == [200_000]
        assert found.more
        back = await one.joins(after="0-0")
        assert [said[:1] for said in back.heard] == ["0", "1", "2", "3", "4"]

    @pytest_twisted.ensureDeferred
    async def test_no_history_is_kept_if_its_size_is_zero(
        self, redis: RedisServer, node: Callable[..., RealNode]
    ) -> None:
        one = node(redis.url, history=0)
        member = await one.joins()
        assert await one.hub.publish("a", "hello") is None
        await until(lambda: member.heard)
        assert redis.ask("KEYS beastws:0:history:*") == "*0\r\n"


class TestAccess:
    """Passwords, users and TLS."""

    @pytest_twisted.ensureDeferred
    async def test_access_needs_a_password_or_a_user(
        self, tmp_path: Path, node: Callable[..., RealNode], logged: Callable[..., Any]
    ) -> None:
        with redis_running(tmp_path) as redis:
            redis.ask("ACL SETUSER chat on >p@ss ~beastws:* &beastws:* +@all")
            redis.ask("CONFIG SET requirepass secret")
            outside = [node(redis.url), node(f"unix://:wrong@{redis.path}")]
            one, two = node(f"unix://:secret@{redis.path}"), node(f"redis://chat:p%40ss@127.0.0.1:{redis.port}/1")
            member = await one.joins()
            await one.hub.publish("a", "hello")
            await until(lambda: member.heard)
            member = await two.joins()
            await two.hub.publish("a", "hello")
            await until(lambda: member.heard)
            assert not any(each.is_connected() for each in outside)
            await gatherResults([each.hub.stop() for each in (one, two)])
            assert logged(type(None))

    @pytest_twisted.ensureDeferred
    async def test_the_certificate_is_verified_over_tls(
        self,
        tmp_path: Path,
        node: Callable[..., RealNode],
        logged: Callable[..., Any],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        pytest.importorskip("txredisapi", reason="REDIS IS NOT TESTED: pip install txredisapi hiredis")
        from twisted_beastws.hub import linked_reconnecting

        tries: list[int] = []

        def backoff(failures: int) -> float:
            tries.append(failures)
            return 0.05

        monkeypatch.setattr(linked_reconnecting, "backoff", backoff)
        certificate = tmp_path / "certificate.pem"
        certificate.write_bytes(identity_pem())
        files = [word for name in ("cert", "key", "ca-cert") for word in (f"--tls-{name}-file", str(certificate))]
        with redis_running(tmp_path, *files, "--tls-auth-clients", "no", "--tls-port", "0") as plain:
            plain.ask(f"CONFIG SET port 0 tls-port {plain.port}")
            one = node(f"rediss://localhost:{plain.port}")
            await until(lambda: len(tries) > 1)
            assert not one.is_connected()
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
            member = await one.joins()
            await one.hub.publish("a", "hello")
            await until(lambda: member.heard)
            await one.hub.stop()
            assert logged(type(None))


def test_nothing_imports_the_reactor_before_it_starts() -> None:
    """txredisapi imports the reactor, and a program must choose its reactor first."""
    statements = (
        "import sys, twisted_beastws.hub.redis as it; it.RedisBackplane('redis://localhost');"
        "print('twisted.internet.reactor' in sys.modules, 'txredisapi' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", statements], capture_output=True, check=True, text=True, timeout=60)
    assert done.stdout == "False False\n"


def test_a_script_is_sent_without_indentation_and_comments() -> None:
    from twisted_beastws.hub.redis_link import sent_text

    script = "\nlocal a = 1\n-- The reason.\nif a then\n    return 'a -- b\\n'\nend\n"
    assert sent_text(script) == "local a = 1\nif a then\nreturn 'a -- b\\n'\nend"
