"""Three Redis servers and three Sentinels, or a Redis Cluster, whose primary a program kills again and again."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

SERVICE = "rooms"
PATIENCE = 60.0
"""Seconds for each change that the Sentinels make."""


def free_port() -> int:
    """Return a port of the loopback interface that is free now."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def ask(port: int, command: str) -> str:
    """Return a server's raw reply to a command, empty if it is away."""
    said = b""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0) as asking:
        asking.sendall(f"{command}\r\n".encode())
        asking.shutdown(socket.SHUT_WR)
        while part := asking.recv(1 << 16):
            said += part
    return said.decode("utf-8", "replace")


class Server:
    """A redis-server that writes each command to its file before it replies."""

    def __init__(self, directory: Path, *options: str) -> None:
        directory.mkdir()
        self.port = free_port()
        self._command = [
            *("redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(directory)),
            # By default Redis delays its writes while the disk is slow to sync, and a kill would lose what it delayed.
            *("--appendonly", "yes", "--appendfsync", "no", "--save", ""),
            *("--repl-diskless-sync-delay", "0", "--logfile", "log", *options),
        ]
        self.start()

    def start(self) -> None:
        """Start the server with its data."""
        self._process = subprocess.Popen(self._command)

    def kill(self) -> None:
        """End the server at once."""
        self._process.kill()
        self._process.wait()


def start_sentinel(directory: Path, primary: int, down_after: int) -> tuple[int, subprocess.Popen[bytes]]:
    """Start a Sentinel; return its port and its process. down_after: milliseconds."""
    directory.mkdir()
    port = free_port()
    lines = [
        f"port {port}",
        "bind 127.0.0.1",
        f"dir {directory}",
        "logfile log",
        f"sentinel monitor {SERVICE} 127.0.0.1 {primary} 2",
        f"sentinel down-after-milliseconds {SERVICE} {down_after}",
        f"sentinel failover-timeout {SERVICE} 1000",
    ]
    (directory / "sentinel.conf").write_text("\n".join(lines) + "\n")
    return port, subprocess.Popen(["redis-server", str(directory / "sentinel.conf"), "--sentinel"])


class Replicated:
    """Three servers, one of them the primary, and their Sentinels.

    Attributes:
        url: the address for ``--backplane``.
    """

    def __init__(self, servers: list[Server], sentinels: list[int]) -> None:
        self.servers = servers
        self._sentinels = sentinels
        addresses = ",".join(f"127.0.0.1:{port}" for port in sentinels)
        self.url = f"redis+sentinel://{addresses}/{SERVICE}?min_replicas=1"

    def primary(self) -> Server | None:
        """Return the server that the Sentinels and the server itself call the primary."""
        for server in self.servers:
            if "role:master" in ask(server.port, "INFO replication") and all(
                f"\r\n{server.port}\r\n" in ask(port, f"SENTINEL GET-MASTER-ADDR-BY-NAME {SERVICE}")
                for port in self._sentinels
            ):
                return server
        return None

    def is_whole(self) -> bool:
        """Return whether the primary has two replicas, which have its data, and all Sentinels know them."""
        primary = self.primary()
        if primary is None or "connected_slaves:2" not in ask(primary.port, "INFO replication"):
            return False
        others = [server for server in self.servers if server is not primary]
        known = [ask(port, f"SENTINEL MASTER {SERVICE}").replace("\r\n", " ") for port in self._sentinels]
        return all("master_link_status:up" in ask(each.port, "INFO replication") for each in others) and all(
            " num-slaves $1 2 " in each and " num-other-sentinels $1 2 " in each for each in known
        )


@contextmanager
def replicated(down_after: int) -> Iterator[Replicated]:
    """Run three servers and three Sentinels. down_after: milliseconds until the Sentinels call a server down."""
    with TemporaryDirectory() as directory, ExitStack() as stack:
        root = Path(directory)
        servers = [Server(root / "0")]
        servers += [Server(root / str(n), "--replicaof", "127.0.0.1", str(servers[0].port)) for n in (1, 2)]
        for server in servers:
            stack.callback(server.kill)
        sentinels = []
        for number in range(3):
            port, process = start_sentinel(root / f"sentinel-{number}", servers[0].port, down_after)
            stack.callback(process.wait)
            stack.callback(process.kill)
            sentinels.append(port)
        yield Replicated(servers, sentinels)


class Clustered:
    """A Redis Cluster of three primaries and three replicas.

    Attributes:
        url: the address for ``--backplane``.
    """

    def __init__(self, servers: list[Server]) -> None:
        self.servers = servers
        addresses = ",".join(f"127.0.0.1:{server.port}" for server in servers)
        self.url = f"redis+cluster://{addresses}?min_replicas=1"

    def primary(self) -> Server | None:
        """Return the primary of the first slot, on which all nodes agree that answer."""
        seen = {owner for server in self.servers if (owner := _owner(ask(server.port, "CLUSTER NODES"))) is not None}
        return next((server for server in self.servers if {server.port} == seen), None)

    def is_whole(self) -> bool:
        """Return whether every node knows three primaries and three replicas, which have all data."""
        return all(
            "cluster_state:ok" in ask(server.port, "CLUSTER INFO")
            and len(re.findall(r" (?:myself,)?slave .* connected", ask(server.port, "CLUSTER NODES"))) == 3
            and len(re.findall(r" (?:myself,)?master .* connected \d", ask(server.port, "CLUSTER NODES"))) == 3
            and re.search("connected_slaves:1|master_link_status:up", ask(server.port, "INFO replication"))
            for server in self.servers
        )


def _owner(nodes: str) -> int | None:
    """Return the port of the primary of the first slot in the answer to CLUSTER NODES; 0 if there is none."""
    if not nodes:
        return None
    found = re.search(r":(\d+)@\S+ (?:myself,)?master .* connected 0-", nodes)
    return int(found[1]) if found else 0


@contextmanager
def clustered(down_after: int) -> Iterator[Clustered]:
    """Run a Cluster of six servers. down_after: milliseconds until the nodes call another one down."""
    with TemporaryDirectory() as directory, ExitStack() as stack:
        servers = []
        for number in range(6):
            options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
            timeout = ("--cluster-node-timeout", str(down_after))
            servers.append(Server(Path(directory) / str(number), *options, *timeout))
            stack.callback(servers[-1].kill)
        while not all("PONG" in ask(server.port, "PING") for server in servers):
            time.sleep(0.05)
        addresses = [f"127.0.0.1:{server.port}" for server in servers]
        command = ["redis-cli", "--cluster", "create", *addresses, "--cluster-replicas", "1", "--cluster-yes"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=PATIENCE)
        yield Clustered(servers)


async def until(reactor: IReactorTime, what: str, condition: Callable[[], object], patience: float = PATIENCE) -> None:
    """Wait until a condition is true; raise RuntimeError if it is not in time."""
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"{what}: not within {patience:g} s")
        await deferLater(reactor, 0.05)
