"""The servers that the benchmarks measure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path


@dataclass(frozen=True)
class Server:
    """A column of the table: a program in `servers`, and the environment variables it is started with.

    python: the interpreter of another environment than the benchmarks' own, or None.
    """

    name: str
    title: str
    program: str
    variables: dict[str, str] = field(default_factory=dict)
    python: Path | None = None


SERVERS = (
    Server("ours", "twisted_beastws", "ours.py"),
    Server("ours-uvloop", "twisted_beastws on its uvloop reactor", "ours_uvloop.py"),
    Server("pure", "twisted_beastws, pure Python", "ours.py", {"TWISTED_BEASTWS_PURE": "1"}),
    Server("bare", "bare Twisted protocol", "bare_twisted.py"),
    Server("autobahn", "autobahn", "autobahn_twisted.py"),
    Server("twisted.web", "twisted.web.websocket", "twisted_web.py"),
    Server("websockets", "websockets + uvloop", "websockets_uvloop.py"),
    Server("aiohttp", "aiohttp + uvloop", "aiohttp_uvloop.py"),
    Server("picows", "picows + uvloop", "picows_uvloop.py"),
)

OURS = ("ours", "ours-uvloop", "pure")
"""The servers of this project."""


def with_before(servers: Iterable[Server], python: Path) -> list[Server]:
    """Return the servers, and after each of this project's the same one with the older build of ``python``."""
    columns = []
    for server in servers:
        columns.append(server)
        if server.name in OURS:
            title = f"{server.title}, before"
            columns.append(replace(server, name=f"{server.name}-before", title=title, python=python))
    return columns


REQUIREMENTS = ("autobahn[twisted]", "twisted[tls,websocket]", "websockets", "aiohttp", "picows", "uvloop", "isal")
"""The packages installed with this project, in their newest versions."""
