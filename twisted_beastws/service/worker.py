"""One of the processes of ``twistd beastws --workers N``: the service as ever, on the supervisor's sockets."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from twisted.application.service import Service
from twisted.internet.abstract import FileDescriptor
from twisted.internet.main import CONNECTION_DONE
from twisted.logger import ILogObserver, jsonFileLogObserver

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorFDSet

LIFELINE = 0
"""The descriptor that ends when the supervisor is gone."""


class Share(NamedTuple):
    """What a worker has from its supervisor.

    number: from 1 on. log: the descriptor that what is logged goes to, as JSON. sockets: those to listen on. admin: the
    endpoint for what the supervisor asks.
    """

    number: int
    log: int
    sockets: list[int]
    admin: str

    def to_json(self) -> str:
        """What `main` is called with."""
        return json.dumps(self)


share: Share | None = None
"""This process's, if it is a worker."""


def log_observer() -> ILogObserver:
    """What ``twistd --logger`` is to call: events go to the supervisor."""
    assert share is not None
    return jsonFileLogObserver(os.fdopen(share.log, "w", encoding="utf-8"), recordSeparator="")


class Lifeline(Service):
    """Ends this process in order when its supervisor is gone, however that came about."""

    def __init__(self) -> None:
        from twisted.internet import reactor

        self._reactor = cast("IReactorFDSet", reactor)
        self._end = _End()

    def startService(self) -> None:
        """Watch the descriptor `LIFELINE`."""
        super().startService()  # type: ignore[no-untyped-call]
        self._reactor.addReader(self._end)

    def stopService(self) -> None:
        """Watch it no more."""
        super().stopService()  # type: ignore[no-untyped-call]
        self._reactor.removeReader(self._end)


class _End(FileDescriptor):
    """Nothing is ever sent, so that what there is to read is the end; some reactors tell it without reading."""

    def fileno(self) -> int:
        return LIFELINE

    def doRead(self) -> Any:
        return CONNECTION_DONE

    def connectionLost(self, reason: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Run twistd with the arguments of this process, of which the first is its `Share`."""
    global share
    # What the terminal's Ctrl-C sends comes from the supervisor.
    os.setsid()
    # It may pass this one on before anything here handles it.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    share = Share(*json.loads(sys.argv.pop(1)))
    from twisted.scripts.twistd import run

    run()
