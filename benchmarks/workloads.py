"""The workloads that the benchmarks measure."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from benchmarks.frames import BINARY, TEXT

Kind = Literal["echo", "client", "handshakes", "fanout", "idle"]

JSON = json.dumps(
    [
        {"id": 7919 * n % 10007, "user": f"user{n}", "text": f"message {n * n} of {n}", "read": n % 3 == 0}
        for n in range(20)
    ]
)[:1000].encode()
"""1000 bytes that compress as well as the messages of a typical application."""


MIB = bytes(range(256)) * 4096


@dataclass(frozen=True)
class Workload:
    """One row of the table.

    mode: the server's mode. connections: the number of simultaneous connections. in_flight: messages on each of them.
    unit: the unit of the cost, and the unit of work.
    variables: environment variables for the server; its own override them. secure: use TLS.
    """

    name: str
    title: str
    mode: str
    kind: Kind
    connections: int
    in_flight: int = 1
    opcode: int = TEXT
    payload: bytes = b"x" * 64
    compressed: bool = False
    unit: str = "µs a message"
    variables: dict[str, str] = field(default_factory=lambda: {"TWISTED_BEASTWS_ZLIB": "1"})
    secure: bool = False


WORKLOADS: tuple[Workload, ...] = (
    Workload("ping-pong", "ping-pong of 64 bytes, 64 connections, 1 in flight", "echo", "echo", 64),
    Workload("single", "ping-pong of 64 bytes, one connection, 1 in flight", "echo", "echo", 1),
    Workload("pipelined", "64 bytes, 16 connections, 64 in flight", "echo", "echo", 16, 64),
    Workload("4k", "ping-pong of 4 KiB, 64 connections, 1 in flight", "echo", "echo", 64, payload=b"x" * 4096),
    Workload("1m", "1 MiB, 2 connections, 2 in flight", "echo", "echo", 2, 2, opcode=BINARY, payload=MIB),
    Workload("1m-text", "1 MiB of text, 2 connections, 2 in flight", "echo", "echo", 2, 2, payload=b"x" * (1 << 20)),
    Workload(
        "client-1m-text", "a client: 1 MiB of text, 2 in flight", "client", "client", 2, 2, payload=b"x" * (1 << 20)
    ),
    Workload("client-1m", "a client: 1 MiB, 2 in flight", "client", "client", 2, 2, opcode=BINARY, payload=MIB),
    Workload(
        "deflate",
        "deflate, 1000 bytes of JSON, 16 connections, 8 in flight, no context takeover",
        "deflate",
        "echo",
        16,
        8,
        payload=JSON,
        compressed=True,
    ),
    Workload(
        "deflate-1",
        "the same, all at zlib's level 1",
        "deflate-1",
        "echo",
        16,
        8,
        payload=JSON,
        compressed=True,
    ),
    Workload(
        "deflate-isal",
        "the same with ISA-L, its levels 1 and 0",
        "deflate-isal",
        "echo",
        16,
        8,
        payload=JSON,
        compressed=True,
        variables={},
    ),
    Workload("handshakes", "connect, upgrade, close; 16 at a time", "handshake", "handshakes", 16, unit="µs each"),
    Workload("fan-out", "64 bytes to 1000 connections", "fanout", "fanout", 1000, 2, unit="µs a delivery"),
    Workload(
        "fan-out-single",
        "64 bytes to 1000 connections, one round in flight",
        "fanout",
        "fanout",
        1000,
        unit="µs a delivery",
    ),
    Workload(
        "prepared", "64 bytes to 1000 connections, prepared once", "prepared", "fanout", 1000, 2, unit="µs a delivery"
    ),
    Workload("idle", "memory of an idle connection", "echo", "idle", 2000, unit="KiB a connection"),
)
PLAIN = {each.name: each for each in WORKLOADS}


def over_tls(name: str, **changes: Any) -> Workload:
    """Return the same workload over TLS."""
    plain = PLAIN[name]
    return replace(plain, name=f"tls-{name}", title=f"TLS: {plain.title}", secure=True, **changes)


WORKLOADS += (
    over_tls("ping-pong"),
    over_tls("single"),
    over_tls("pipelined"),
    over_tls("4k"),
    over_tls("1m-text"),
    over_tls("1m"),
    over_tls("deflate"),
    replace(over_tls("deflate-1"), title="TLS: deflate at zlib's level 1"),
    replace(over_tls("deflate-isal"), title="TLS: deflate with ISA-L"),
    over_tls("handshakes"),
    over_tls("idle"),
)
