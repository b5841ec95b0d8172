"""Other programs publish through a stream in Redis."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.defer import gatherResults
from twisted.logger import Logger

from twisted_beastws.hub import Hub
from twisted_beastws.hub.linked_inbox import MAX_ENTRY, InboxEntry, InboxReader, read_entry
from twisted_beastws.hub.redis import RedisBackplane

from ..support.loopback import until
from ..support.redis_server import RedisServer, redis_running
from .stubs import Stub, connected


class TestEntries:
    """The entries of the stream, as other programs write them."""

    @pytest.mark.parametrize(
        ("fields", "entry"),
        [
            ({"room": b"a", "data": b"x"}, InboxEntry("a", "x", True, "\0inbox 1-0")),
            (
                {"room": b"a", "data": b"\xff", "kind": b"binary", "keep": b"0"},
                InboxEntry("a", b"\xff", False, "\0inbox 1-0"),
            ),
            ({"room": b"\xc3\xb6", "data": b"", "kind": b"text", "ref": b"r"}, InboxEntry("\u00f6", "", True, "r")),
        ],
    )
    def test_a_valid_entry_is_read(self, fields: dict[str, bytes], entry: InboxEntry) -> None:
        assert read_entry("1-0", fields) == entry

    @pytest.mark.parametrize(
        ("fields", "why"),
        [
            ({"data": b"x"}, "it has no room"),
            ({"room": b"", "data": b"x"}, "it has no room"),
            ({"room": b"\0commands", "data": b"x"}, "its room begins with NUL"),
            ({"room": b"a"}, "it has no data"),
            ({"room": b"a", "data": b"x", "text": b"x"}, "it has the unknown field 'text'"),
            ({"room": b"a", "data": b"x", "kind": b"json"}, "kind must be text or binary, and keep 0 or 1"),
            ({"room": b"a", "data": b"x", "keep": b"no"}, "kind must be text or binary, and keep 0 or 1"),
            ({"room": b"a", "data": b"\xff"}, "its room, ref or text is not UTF-8"),
            ({"room": b"\xff", "data": b"x"}, "its room, ref or text is not UTF-8"),
        ],
    )
    def test_a_wrong_entry_is_refused_with_the_name_of_its_field(self, fields: dict[str, bytes], why: str) -> None:
        with pytest.raises(ValueError, match=f"^{why}$"):
            read_entry("1-0", fields)

    @pytest.mark.parametrize("size", [MAX_ENTRY - 1, MAX_ENTRY, MAX_ENTRY + 1])
    def test_the_size_of_an_entry_is_limited(self, size: int) -> None:
        fields = {"room": b"a", "data": b"x" * size}
        if size <= MAX_ENTRY:
            assert len(read_entry("1-0", fields).data) == size
        else:
            with pytest.raises(ValueError, match="its data has 1048577 bytes; the limit is 1048576"):
                read_entry("1-0", fields)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_running(tmp_path) as server:
        yield server


def started(redis: RedisServer) -> Hub:
    hub = Hub(RedisBackplane(redis.url))
    hub.start()
    return hub


def say(redis: RedisServer, *fields: str) -> None:
    """Do as docs/hub.md says, with redis-cli and the least rights."""
    allowed = "~beastws:*:inbox &beastws:*:all: +xadd +publish"
    assert redis.ask(f"ACL SETUSER program reset on nopass {allowed}") == "+OK\r\n"
    commands = [["XADD", "beastws:0:inbox", "*", *fields], ["PUBLISH", "beastws:0:all:", ""]]
    for command in commands:
        cli = ["redis-cli", "-s", str(redis.path), "--user", "program", "--pass", "x", "--no-auth-warning", *command]
        said = subprocess.run(cli, capture_output=True, text=True, check=True, timeout=30)
        assert "ERR" not in said.stdout and "NOPERM" not in said.stdout, said.stdout


@pytest_twisted.ensureDeferred
async def test_each_entry_is_published_once_and_in_order_whichever_hubs_read_it(redis: RedisServer) -> None:
    hubs = [started(redis), started(redis)]
    await connected(*hubs)
    members = [Stub(), Stub()]
    await gatherResults([hub.join(each.connection, "a") for hub, each in zip(hubs, members, strict=True)])
    for number in range(5):
        say(redis, "room", "a", "data", f"{number}")
    say(redis, "room", "a", "data", "again", "ref", "r")
    say(redis, "room", "a", "data", "again", "ref", "r")
    say(redis, "room", "a", "data", "last", "keep", "0")
    await until(lambda: all(member.heard[-1:] == ["last"] for member in members))
    assert members[0].heard == members[1].heard == ["0", "1", "2", "3", "4", "again", "last"]
    await until(lambda: redis.ask("XLEN beastws:0:inbox") == ":0\r\n")
    await gatherResults([hub.stop() for hub in hubs])


@pytest_twisted.ensureDeferred
async def test_entries_are_kept_until_a_hub_is_connected(redis: RedisServer) -> None:
    say(redis, "room", "a", "data", "early")
    hub = started(redis)
    await connected(hub)
    await until(lambda: redis.ask("XLEN beastws:0:inbox") == ":0\r\n")
    member = Stub()
    assert await hub.join(member.connection, "a", after="0-0") in (True, False)
    await until(lambda: member.heard == ["early"])
    await hub.stop()


@pytest_twisted.ensureDeferred
async def test_a_wrong_entry_is_logged_and_holds_up_no_other(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(Logger, "warn", lambda self, line, why: lines.append(why))
    assert isinstance(InboxReader.log, Logger)
    hub = started(redis)
    await connected(hub)
    member = Stub()
    await hub.join(member.connection, "a")
    say(redis, "rooom", "a", "data", "wrong")
    say(redis, "room", "a", "data", "right")
    await until(lambda: member.heard == ["right"])
    assert lines == ["it has the unknown field 'rooom'"]
    await hub.stop()
