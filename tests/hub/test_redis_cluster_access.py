"""How a backplane gets into a Redis Cluster, and how it says why it does not."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import gatherResults

from twisted_beastws.hub import Hub
from twisted_beastws.hub.backplane import BackplaneState
from twisted_beastws.hub.redis_cluster_part import part_of

from ..support.loopback import until
from ..support.ports import free_port
from ..support.redis_cluster import node_running
from ..support.redis_server import RedisServer
from ..tls import pki
from .planes import use_everything
from .stubs import Stub, connected
from .test_redis_access import COMMANDS, allow

CLUSTER_COMMANDS = [
    *("eval", "ssubscribe", "sunsubscribe", "spublish", "cluster|slots"),
    *(command for command in COMMANDS if command not in ("eval", "subscribe", "unsubscribe", "publish")),
]
"""What a Redis user must be allowed on each node: see docs/hub.md."""


@pytest.fixture
def hub(real_hub: Callable[..., Hub]) -> Callable[..., Hub]:
    return real_hub


@pytest.fixture(scope="module")
def shared_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with node_running(tmp_path_factory.mktemp("node")) as node:
        yield node


@pytest.fixture
def node(shared_node: RedisServer) -> RedisServer:
    shared_node.ask("FLUSHALL")
    return shared_node


def url_of(server: RedisServer, login: str = "") -> str:
    return f"redis+cluster://{login}127.0.0.1:{server.port}"


async def reported(hub: Hub, lines: list[str], words: str) -> str:
    """Wait for a line with these words, and stop the hub."""
    await until(lambda: any(words in line for line in lines))
    assert not hub.ready
    await hub.stop()
    return next(line for line in lines if words in line)


class TestPermissions:
    """The permissions of the user of a Redis Cluster (`docs/howto/scaling.md`)."""

    @pytest_twisted.ensureDeferred
    async def test_the_documented_permissions_are_sufficient(
        self, node: RedisServer, hub: Callable[..., Hub], lines: list[str]
    ) -> None:
        allow(node, CLUSTER_COMMANDS)
        options = {"history": 4, "max_room_history": 10_000, "max_history": 16 * 12_000}
        one, two = (hub(url_of(node, "chat:secret@"), **options) for _ in range(2))
        await use_everything(one, two)
        await gatherResults([one.stop(), two.stop()])
        assert not any("permission" in line for line in lines)

    def test_the_documentation_shows_the_permissions(self) -> None:
        page = (Path(__file__).parents[2] / "docs" / "hub.md").read_text()
        replaced = (
            "+ssubscribe +sunsubscribe +spublish +cluster|slots` take the place of `+subscribe +unsubscribe +publish`"
        )
        assert replaced in " ".join(page.split())

    @pytest_twisted.ensureDeferred
    async def test_the_log_names_a_missing_permission(
        self, node: RedisServer, hub: Callable[..., Hub], lines: list[str]
    ) -> None:
        for missing in ("ssubscribe", "cluster|slots", "spublish"):
            allow(node, [command for command in CLUSTER_COMMANDS if command != missing])
            lines.clear()
            await reported(hub(url_of(node, "chat:secret@")), lines, "the Redis user lacks a permission")


class TestRefusals:
    """Clusters that the backplane cannot use."""

    @pytest_twisted.ensureDeferred
    async def test_a_cluster_without_an_answering_node_is_reported_with_the_last_failure(
        self, hub: Callable[..., Hub], lines: list[str]
    ) -> None:
        ports = [free_port(), free_port()]
        url = f"redis+cluster://127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}"
        # On a busy machine the first attempt can end as one that took too long.
        line = await reported(hub(url), lines, "nothing listens there")
        assert "no node of the Redis Cluster answers; the last is 127.0.0.1:" in line
        assert f"a part of the backplane {url} is away; the hub tries again: " in line
        assert line.endswith("nothing listens there (publications that failed so far: 0)")

    @pytest_twisted.ensureDeferred
    async def test_a_redis_that_is_no_cluster_is_refused_at_once(
        self, redis: RedisServer, hub: Callable[..., Hub], lines: list[str]
    ) -> None:
        one = hub(url_of(redis))
        said: list[str] = []
        one.backplane.refused.addCallback(said.append)  # type: ignore[attr-defined]
        await until(lambda: said)
        (line,) = said
        assert line.endswith("is no node of a Redis Cluster: give redis://host instead of redis+cluster://host")
        assert one.backplane.state is BackplaneState.REFUSING
        assert lines == [line]

    @pytest_twisted.ensureDeferred
    async def test_a_cluster_without_sharded_channels_is_reported(
        self, tmp_path: Path, hub: Callable[..., Hub], lines: list[str]
    ) -> None:
        with node_running(tmp_path, "--rename-command", "SSUBSCRIBE", "") as node:
            await reported(hub(url_of(node)), lines, "has no sharded pub/sub: it must be of version 7.0 or newer")

    @pytest_twisted.ensureDeferred
    async def test_slots_without_a_node_are_reported_until_they_have_one(
        self, node: RedisServer, hub: Callable[..., Hub], lines: list[str]
    ) -> None:
        node.ask("CLUSTER DELSLOTSRANGE 0 99 13900 13999")
        one = hub(url_of(node))
        await until(lambda: any("Redis Cluster" in line for line in lines))
        assert not one.ready and one.backplane.state is not BackplaneState.CONNECTED
        node.ask("CLUSTER ADDSLOTSRANGE 0 99 13900 13999")
        await connected(one)
        await one.stop()

    @pytest_twisted.ensureDeferred
    async def test_a_wrong_password_is_reported_but_not_shown(
        self, node: RedisServer, hub: Callable[..., Hub], lines: list[str]
    ) -> None:
        await reported(hub(url_of(node, "chat:sesame@")), lines, "another user and password")
        assert not any("sesame" in line for line in lines)


@pytest_twisted.ensureDeferred
async def test_nodes_are_reached_over_tls(tmp_path: Path, hub: Callable[..., Hub], lines: list[str]) -> None:
    certificate, authority, port = tmp_path / "certificate.pem", tmp_path / "authority.pem", free_port()
    certificate.write_bytes(pki.Server("localhost", signer=pki.root()).pem())
    authority.write_bytes(pki.root_pem())
    files = ("--tls-cert-file", certificate, "--tls-key-file", certificate, "--tls-ca-cert-file", authority)
    names = ("--cluster-announce-hostname", "localhost", "--cluster-preferred-endpoint-type", "hostname")
    options: tuple[Any, ...] = ("--tls-port", port, "--tls-cluster", "yes", *files, "--tls-auth-clients", "no", *names)
    with node_running(tmp_path, *map(str, options)):
        one = hub(f"rediss+cluster://localhost:{port}?ca={authority}")
        await connected(one)
        assert await one.publish("a", "hello")
        await one.stop()


@pytest_twisted.ensureDeferred
async def test_the_entries_of_the_inbox_are_published_once_in_the_parts_of_their_rooms(
    node: RedisServer, hub: Callable[..., Hub], lines: list[str]
) -> None:
    rooms = ("a", "b", "news")
    assert len({part_of(room) for room in rooms}) == 3
    hubs = [hub(url_of(node)), hub(url_of(node))]
    await connected(*hubs)
    members = {room: Stub() for room in rooms}
    await gatherResults([hubs[0].join(stub.connection, room) for room, stub in members.items()])
    assert node.ask("ACL SETUSER program reset on nopass ~beastws:*:inbox &beastws:*:all: +xadd +spublish") == "+OK\r\n"
    for number in range(2):
        for room in rooms:
            say(node, "XADD", "beastws:{0}:inbox", "*", "room", room, "data", f"{room} {number}")
    say(node, "SPUBLISH", "beastws:{0}:all:", "")
    await until(lambda: all(len(stub.heard) == 2 for stub in members.values()))
    assert all(stub.heard == [f"{room} 0", f"{room} 1"] for room, stub in members.items())
    await until(lambda: node.ask("XLEN beastws:{0}:inbox") == ":0\r\n")
    assert all(len(stub.heard) == 2 for stub in members.values())


def say(node: RedisServer, *command: str) -> None:
    """Do as docs/hub.md says, with redis-cli and the least rights."""
    cli = ["redis-cli", "-c", "-p", str(node.port), "--user", "program", "--pass", "x", "--no-auth-warning", *command]
    said = subprocess.run(cli, capture_output=True, text=True, check=True, timeout=30)
    assert "ERR" not in said.stdout and "NOPERM" not in said.stdout, said.stdout
