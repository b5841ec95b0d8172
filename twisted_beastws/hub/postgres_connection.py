"""One connection to a PostgreSQL: libpq through psycopg's ``pq``, driven by Twisted's reactor."""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

from psycopg import OperationalError, pq
from psycopg.conninfo import make_conninfo
from twisted.internet.defer import Deferred
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IReactorFDSet, IReactorTime, IReadWriteDescriptor
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_beastws.hub.linked_errors import LinkLost, NotReplicated
from twisted_beastws.hub.postgres_errors import not_connected, refused
from twisted_beastws.hub.postgres_url import PostgresURL

LOOKS = 5
"""Looks within the patience. A process that was busy meanwhile reads the pending bytes between two looks."""

BYTEA, BYTEA_ARRAY, NUMBERS, TEXTS = 17, 1001, 1016, 1009
"""PostgreSQL's numbers of the types ``bytea``, ``bytea[]``, ``bigint[]`` and ``text[]``."""

Row = Sequence["bytes | None"]


class Binary(NamedTuple):
    """An argument in PostgreSQL's binary format, and the number of its type."""

    data: bytes
    kind: int


class PendingCommand(NamedTuple):
    """A command that waits for its turn, or for its answer."""

    text: str
    arguments: Sequence[str | Binary]
    answer: Deferred[list[Row]]


def binary(data: bytes) -> Binary:
    """Return bytes as an argument."""
    return Binary(data, BYTEA)


def binaries(items: Sequence[bytes | None]) -> Binary:
    """Return an array of bytes as an argument."""
    parts = [b"\xff\xff\xff\xff" if item is None else len(item).to_bytes(4, "big") + item for item in items]
    head = (1, int(None in items), BYTEA, len(items), 1) if items else (0, 0, BYTEA)
    return Binary(b"".join(number.to_bytes(4, "big") for number in head) + b"".join(parts), BYTEA_ARRAY)


def numbers(items: Sequence[int]) -> str:
    """Return an array of numbers as an argument."""
    return "{" + ",".join(map(str, items)) + "}"


def texts(items: Sequence[str]) -> str:
    """Return an array of texts as an argument."""
    escaped = [item.replace("\\", "\\\\").replace('"', '\\"') for item in items]
    return "{" + ",".join(f'"{item}"' for item in escaped) + "}"


CRASH = b"57P02"
"""SQLSTATE of the warning that another process of the server has crashed. The connection ends, or has the answer."""


@implementer(IReadWriteDescriptor)
class PostgresConnection:
    """A connection to PostgreSQL. Commands are executed one after the other.

    Args:
        reactor: for the socket and time.
        patience: seconds without a byte while an answer is due, after which the connection is dropped.
        notified: takes the payload of each notification.

    Attributes:
        ready: fires when PostgreSQL takes commands; fails if the connection cannot be made.
        gone: fires when the connection is lost, with the reason, which ``ended`` is from then on.
    """

    def __init__(
        self, reactor: IReactorTime, patience: float, notified: Callable[[str], None] = lambda payload: None
    ) -> None:
        self.ready: Deferred[PostgresConnection] = Deferred()
        self.gone: Deferred[BaseException] = Deferred()
        self.ended: BaseException | None = None
        self._reactor = cast("IReactorFDSet", reactor)
        self._patience = patience
        self._notified = notified
        self._pq: Any = None
        self._number = -1
        self._poll: Callable[[], None] = self._connecting
        self._waiting: deque[PendingCommand] = deque()
        self._current: PendingCommand | None = None
        self._rows: list[Row] = []
        self._error: Exception | None = None
        self._warned = ""
        self._paused = False
        self._heard = False
        self._silent_looks = 0
        self._watching = LoopingCall(self._look)
        self._watching.clock = reactor

    def connect(self, parameters: dict[str, str]) -> None:
        """Begin to connect, with libpq's settings."""
        self._pq = pq.PGconn.connect_start(make_conninfo("", **parameters).encode())
        self._pq.notice_handler = self._noticed
        self._watching.start(self._patience / LOOKS, now=False)
        if self._pq.status == pq.ConnStatus.BAD:
            self._end(not_connected(self._pq.get_error_message()))
        else:
            self._pq.nonblocking = 1
            self._watch(pq.PollingStatus.WRITING)

    # The reactor's side.

    def fileno(self) -> int:
        return self._number

    def logPrefix(self) -> str:
        return "PostgreSQL"

    def doRead(self) -> None:
        self._heard = True
        self._poll()

    def doWrite(self) -> None:
        self._poll()

    def connectionLost(self, reason: Failure) -> None:
        self._end(LinkLost("the connection was lost"))

    def _unwatch(self) -> None:
        if self._number >= 0:
            self._reactor.removeReader(self)
            self._reactor.removeWriter(self)
            os.close(self._number)
            self._number = -1

    def _watch(self, wanted: pq.PollingStatus) -> None:
        # libpq closes its socket without notice, so the reactor watches a duplicate.
        self._number = os.dup(self._pq.socket)
        if wanted == pq.PollingStatus.WRITING:
            self._reactor.addWriter(self)
        else:
            self._reactor.addReader(self)

    # Connecting.

    def _connecting(self) -> None:
        # libpq may go on with another socket.
        self._unwatch()
        status = self._pq.connect_poll()
        if status == pq.PollingStatus.FAILED:
            self._end(not_connected(self._pq.get_error_message()))
        elif status == pq.PollingStatus.OK:
            self._poll = self._working
            self._watch(pq.PollingStatus.READING)
            self.ready.callback(self)
        else:
            self._watch(status)

    # Commands.

    def call(self, text: str, *arguments: str | Binary) -> Deferred[list[Row]]:
        """Execute a command; fires with its rows when its transaction is committed.

        The Deferred fails with `Refused` if PostgreSQL answered with an error, with `LinkLost` if the connection was
        lost before the end of the answer, and with `NotReplicated` if PostgreSQL warned about the commit.
        """
        answer: Deferred[list[Row]] = Deferred()
        if self.ended is not None:
            answer.errback(LinkLost("the connection is lost"))
            return answer
        self._waiting.append(PendingCommand(text, arguments, answer))
        if self._current is None:
            self._next()
        return answer

    def drop(self, why: BaseException | None = None) -> None:
        """End the connection now."""
        self._end(why or LinkLost("the connection was dropped"))

    def pause(self) -> None:
        """Stop to read while no answer is due."""
        self._paused = True
        if self._current is None and self._number >= 0:
            self._reactor.removeReader(self)

    def resume(self) -> None:
        """Read again."""
        self._paused = False
        if self._number >= 0:
            self._reactor.addReader(self)

    def _next(self) -> None:
        if not self._waiting or self._poll != self._working:
            return
        command = self._current = self._waiting.popleft()
        self._rows, self._error, self._warned = [], None, ""
        try:
            if command.arguments:
                self._send(command)
            else:
                # This may be several commands, which are one transaction.
                self._pq.send_query(command.text.encode())
            self._flush()
        except OperationalError as error:
            self._end(LinkLost(str(error)))
            return
        if self._paused and self._number >= 0:
            self._reactor.addReader(self)

    def _send(self, command: PendingCommand) -> None:
        values = [each.data if isinstance(each, Binary) else each.encode() for each in command.arguments]
        kinds = [each.kind if isinstance(each, Binary) else 0 for each in command.arguments]
        formats = [pq.Format.BINARY if isinstance(each, Binary) else pq.Format.TEXT for each in command.arguments]
        self._pq.send_query_params(command.text.encode(), values, kinds, formats, pq.Format.BINARY)

    def _flush(self) -> None:
        if self._pq.flush():
            self._reactor.addWriter(self)
        else:
            self._reactor.removeWriter(self)

    def _working(self) -> None:
        try:
            self._pq.consume_input()
            self._flush()
            while self._current is not None and self._pq is not None and not self._pq.is_busy():
                self._take(self._pq.get_result())
            # Notifications can come before, in and after an answer, which libpq has read by now.
            while self._pq is not None and (notice := self._pq.notifies()) is not None:
                self._notified(notice.extra.decode("utf-8", "replace"))
        except OperationalError as error:
            self._end(self._error or LinkLost(" ".join(str(error).split())))

    def _take(self, result: Any) -> None:
        """Take a part of the answer. None is its end: only then PostgreSQL has committed."""
        if result is None:
            self._finish()
        elif result.status == pq.ExecStatus.TUPLES_OK:
            columns = range(result.nfields)
            self._rows = [[result.get_value(row, column) for column in columns] for row in range(result.ntuples)]
        elif result.status == pq.ExecStatus.FATAL_ERROR:
            self._note_error(result)

    def _note_error(self, result: Any) -> None:
        code = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode("ascii", "replace")
        severity = result.error_field(pq.DiagnosticField.SEVERITY_NONLOCALIZED) or b"FATAL"
        text = result.get_error_message()
        if severity == b"ERROR":
            self._error = refused(code, text)
        else:
            # The server ends the connection, perhaps after the commit: the outcome is unknown.
            self._end(refused(code, text) if code == "57P03" else LinkLost(" ".join(text.split())[:200]))

    def _finish(self) -> None:
        command, self._current = self._current, None
        assert command is not None
        if self._paused and not self._waiting and self._number >= 0:
            self._reactor.removeReader(self)
        if self._error is not None:
            command.answer.errback(self._error)
        elif self._warned:
            command.answer.errback(NotReplicated(self._warned))
        else:
            command.answer.callback(self._rows)
        if self._current is None and self._pq is not None:
            self._next()

    def _noticed(self, notice: Any) -> None:
        # An administrator can end the wait for a synchronous replica: the commit is then local, and acknowledged.
        severity = notice.error_field(pq.DiagnosticField.SEVERITY_NONLOCALIZED)
        code = notice.error_field(pq.DiagnosticField.SQLSTATE)
        if severity == b"WARNING" and code != CRASH and self._current is not None and self._current.arguments:
            self._warned = " ".join(notice.get_error_message().split())[:200]

    # The end.

    def _end(self, why: BaseException) -> None:
        if self.ended is not None:
            return
        self.ended = why
        self._unwatch()
        if self._watching.running:
            self._watching.stop()
        connection, self._pq = self._pq, None
        if connection is not None:
            connection.finish()
        commands = [*([self._current] if self._current is not None else []), *self._waiting]
        self._current = None
        self._waiting.clear()
        connected = self.ready.called
        self.gone.callback(why)
        for command in commands:
            command.answer.errback(LinkLost("the connection was lost"))
        if not connected:
            self.ready.errback(why)

    def _look(self) -> None:
        # Looks that come late count once, and the reactor has read in between: a busy process is no silent server.
        waits = self._current is not None or not self.ready.called
        self._silent_looks = self._silent_looks + 1 if waits and not self._heard else 0
        self._heard = False
        if self._silent_looks >= LOOKS:
            self.drop(LinkLost(f"it did not answer for {self._patience:g} seconds"))


async def addresses(url: PostgresURL, reactor: Any) -> list[dict[str, str]]:
    """Return libpq's settings for each address of the URL's hosts, in order. libpq itself would block for names.

    Raises:
        DNSLookupError: no host has an address.
    """
    found: list[dict[str, str]] = []
    for host, port in url.hosts:
        if host.startswith(("/", "@")):
            found.append(url.parameters(host, "", port))
            continue
        try:
            looked_up = await deferToThreadPool(
                reactor, reactor.getThreadPool(), socket.getaddrinfo, host, port, type=socket.SOCK_STREAM
            )
        except OSError:
            continue
        found += [url.parameters(host, str(address[0]), port) for *_, address in looked_up]
    if not found:
        raise DNSLookupError()
    return found
