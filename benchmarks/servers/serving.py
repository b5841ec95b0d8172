"""The common part of the servers: choose a mode by the argument, listen on a free port, and print it."""

from __future__ import annotations

import os
import resource
import signal
import ssl
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
BACKLOG = 1024

LIFETIME = 300
"""Seconds after which the kernel ends a server that is still running."""


CERTIFICATE = os.environ.get("BENCHMARK_CERTIFICATE")
"""The file with a key and its certificate if the server uses TLS, otherwise None."""


COUNTED = "BENCHMARK_COUNTED" in os.environ
"""Valgrind counts the server's instructions."""

PORT = int(os.environ.get("BENCHMARK_PORT", "0"))
"""The port that a client connects to; a server has none."""

CONNECTIONS = 2
"""The connections of a client."""


def connects() -> bool:
    """Return whether the program is measured as a client."""
    return sys.argv[1] == "client"


def choose(modes: dict[str, Any]) -> Any:
    """Return the entry for the mode on the command line; exit with ``EX_UNAVAILABLE`` if the mode is unknown."""
    signal.alarm(LIFETIME)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        return modes[sys.argv[1]]
    except KeyError:
        sys.exit(os.EX_UNAVAILABLE)


def tls_context() -> ssl.SSLContext | None:
    """Return the TLS context of an asyncio server, or None if it serves without TLS."""
    if CERTIFICATE is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE)
    return context


def run_twisted(factory: Any) -> None:
    """Serve a factory on Twisted's default reactor."""
    from twisted.internet import reactor

    if CERTIFICATE is None:
        port = reactor.listenTCP(0, factory, backlog=BACKLOG, interface=HOST)
    else:
        from twisted.internet.ssl import PrivateCertificate

        options = PrivateCertificate.loadPEM(Path(CERTIFICATE).read_text()).options()
        port = reactor.listenSSL(0, factory, options, backlog=BACKLOG, interface=HOST)
    print(port.getHost().port, flush=True)
    reactor.run()


def run_twisted_client(connect: Callable[[], Any]) -> None:
    """Open the connections of a client: ``connect()`` opens one."""
    from twisted.internet import reactor

    for _ in range(CONNECTIONS):
        connect()
    # It listens on no port.
    print(0, flush=True)
    reactor.run()


def run_uvloop(start: Callable[[], Coroutine[Any, Any, int]], connect: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    """Serve on uvloop, or be a client.

    ``start()`` starts listening, and returns the port. ``connect()`` opens a connection, and may serve it.
    """
    import asyncio

    import uvloop

    async def main() -> None:
        if connects():
            print(0, flush=True)
            await asyncio.gather(*(connect() for _ in range(CONNECTIONS)))
        else:
            print(await start(), flush=True)
        await asyncio.Event().wait()

    uvloop.run(main())
