"""Tests of `twisted_beastws.client.reconnecting`: when to reconnect, and when to give up."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import pytest
from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet import error, reactor
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import Logger, LogLevel, formatEvent
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_beastws import Response, State, Timeouts, WebSocketProtocol, errors
from twisted_beastws.client.connect import WebSocketClientEndpoint
from twisted_beastws.client.reconnecting import ReconnectingService, is_retryable, reconnecting

from ..support.handshakes import field, switching
from ..support.log import as_observer
from ..support.loopback import Noting, Script, connected, leaving_cycles, until

pytestmark = pytest.mark.usefixtures("logged")


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[LogLevel, str]]:
    """The log events of the service."""
    events: list[tuple[LogLevel, str]] = []

    def observe(event: Any) -> None:
        events.append((event["log_level"], formatEvent(event)))

    monkeypatch.setattr(ReconnectingService, "log", Logger("reconnection", observer=as_observer(observe)))
    return events


NOW = datetime(2030, 1, 1, tzinfo=timezone.utc)


def declined(status: int, kind: type[errors.UpgradeDeclined] = errors.UpgradeDeclined) -> errors.UpgradeDeclined:
    return kind(Response(status))


def answer(status: int, retry_after: str | None = None) -> bytes:
    field = "" if retry_after is None else f"Retry-After: {retry_after}\r\n"
    return f"HTTP/1.1 {status} No\r\n{field}Content-Length: 0\r\n\r\n".encode()


class TestIsRetryable:
    """`is_retryable`: whether another attempt can help."""

    @pytest.mark.parametrize(
        "cause",
        [
            *map(declined, (408, 425, 429, 500, 502, 503, 504)),
            declined(503, errors.ProxyDeclined),
            errors.HandshakeTimeout(),
            error.ConnectionRefusedError(),
            error.TimeoutError(),
            error.NoRouteError(),
            error.ConnectionLost(),
            error.ConnectionDone(),
            error.DNSLookupError(),
            OSError(),
        ],
        ids=repr,
    )
    def test_a_temporary_failure_is_retryable(self, cause: Any) -> None:
        assert is_retryable(Failure(cause)) is True

    @pytest.mark.parametrize(
        "cause",
        [
            *map(declined, (200, 301, 400, 401, 403, 404, 407, 410, 426, 501)),
            declined(407, errors.ProxyDeclined),
            declined(302, errors.TooManyRedirects),
            errors.BadRequest(),
            errors.HeadTooLarge(),
            errors.BadSecAccept(),
            errors.DecoratorError(),
            SSL.Error(),
            VerificationError([]),
            CancelledError(),
            ValueError(),
        ],
        ids=repr,
    )
    def test_a_final_failure_is_not_retryable(self, cause: Any) -> None:
        assert is_retryable(Failure(cause)) is False


class Wire(StringTransport):
    """A transport that answers the request in the next reactor turn, and ends one turn after an abort."""

    def __init__(self, server: Server, protocol: Any, answer: bytes | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.server, self.protocol, self.answer = server, protocol, answer

    def write(self, data: bytes) -> None:
        super().write(data)  # type: ignore[no-untyped-call]
        if data.startswith(b"GET "):
            self.server.clock.callLater(0, self.respond)

    def respond(self) -> None:
        self.server.requests.append(self.value())
        self.protocol.dataReceived(switching(self.value()) if self.answer is None else self.answer)

    def abortConnection(self) -> None:
        self.server.clock.callLater(0, self.drop)

    def drop(self) -> None:
        self.protocol.connectionLost(Failure(error.ConnectionLost()))


@implementer(IStreamClientEndpoint)
class Server:
    """An endpoint that uses one of ``answers`` per attempt: bytes to send, None to accept, an exception to fail."""

    def __init__(self, clock: Clock, answers: list[Any]) -> None:
        self.clock = clock
        self.answers = answers
        self.requests: list[bytes] = []
        self.wire: Any = None

    def connect(self, factory: Any) -> Deferred[Any]:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            return fail(answer)
        protocol = factory.buildProtocol(None)
        self.wire = Wire(self, protocol, answer)
        protocol.makeConnection(self.wire)
        return succeed(protocol)


class Patient:
    """A started service on a `Clock`, and the server that it connects to."""

    def __init__(self, *answers: Any, settle: bool = True, **options: Any) -> None:
        self.clock = Clock()
        self.clock.rightNow = NOW.timestamp()
        self.server = Server(self.clock, list(answers))
        timeouts = Timeouts(handshake=None, idle=None, message=None, ping_interval=None, send=None)
        self.endpoint = WebSocketClientEndpoint(
            self.clock, "ws://localhost/", endpoint=self.server, timeouts=timeouts, **options
        )
        self.service = reconnecting(self.endpoint, Factory.forProtocol(Noting))
        self.service.startService()
        if settle:
            self.settle()

    def settle(self) -> None:
        """Make all calls that are due now."""
        self.clock.pump([0, 0, 0])

    @property
    def delay(self) -> float:
        """Seconds to the next attempt, which is the only pending call."""
        (call,) = self.clock.getDelayedCalls()
        seconds: float = call.getTime() - self.clock.seconds()
        return seconds

    def advance(self) -> None:
        self.clock.advance(self.delay)
        self.settle()


@pytest.fixture
def longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda least, most: most)


@pytest.fixture
def shortest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda least, most: least)


@pytest.fixture
def far_away(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Local time is twelve hours ahead."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "FAR-12")
        time.tzset()
        yield
    time.tzset()


class TestDelays:
    """RFC 6455 §7.2.3: delays before the client reconnects."""

    def test_the_delays_grow_to_the_longest(self, longest: Any) -> None:
        patient = Patient(*[error.ConnectionRefusedError()] * 20)
        delays = []
        for _ in range(20):
            delays.append(patient.delay)
            if patient.server.answers:
                patient.advance()
        expected = [min(1.6**attempt, 90.0) for attempt in range(20)]
        assert delays == pytest.approx(expected, rel=1e-6)
        assert delays[0] == pytest.approx(1.0) and delays[-1] == pytest.approx(90.0)

    def test_a_delay_is_at_least_half_of_its_maximum(self, shortest: Any) -> None:
        patient = Patient(*[error.ConnectionRefusedError()] * 3)
        for expected in (0.5, 0.8):
            assert patient.delay == pytest.approx(expected)
            patient.advance()

    def test_the_delays_are_random(self) -> None:
        delays = {Patient(error.ConnectionRefusedError()).delay for _ in range(50)}
        assert len(delays) > 40
        assert all(0.499 < delay < 1.001 for delay in delays)

    def test_a_delay_is_bounded_after_many_attempts(self, longest: Any) -> None:
        patient = Patient(error.ConnectionRefusedError())
        # Ten thousand attempts would take too long: ask for the delay itself.
        assert patient.service._delay(10_000) == 90.0

    def test_the_delays_are_reset_by_a_success(self, longest: Any) -> None:
        patient = Patient(*[error.ConnectionRefusedError()] * 5, None, error.ConnectionRefusedError(), None)
        for _ in range(5):
            patient.advance()
        assert patient.clock.getDelayedCalls() == []
        patient.server.wire.drop()
        assert patient.delay == pytest.approx(1.0)
        patient.advance()
        assert patient.delay <= 1.6 + 1e-6
        patient.advance()
        assert patient.endpoint.last_failure is None
        assert patient.clock.getDelayedCalls() == []

    def test_the_delays_grow_if_each_connection_ends_soon(self, longest: Any) -> None:
        patient = Patient(*[None] * 8)
        delays = []
        for lived in (0.0, 0.0, 9.9, 10.0, 0.0, 0.0):
            patient.clock.advance(lived)
            patient.server.wire.drop()
            delays.append(patient.delay)
            patient.advance()
        assert delays == pytest.approx([1.0, 1.6, 2.56, 1.0, 1.0, 1.6], rel=1e-6)

    def test_the_delays_grow_over_connections_that_end_soon_and_attempts_that_fail(self, longest: Any) -> None:
        patient = Patient(None, None, error.ConnectionRefusedError(), None)
        for expected in (1.0, 1.6):
            patient.server.wire.drop()
            assert patient.delay == pytest.approx(expected)
            patient.advance()
        assert patient.delay == pytest.approx(2.56)
        patient.advance()
        assert patient.endpoint.last_failure is None


class TestRetryAfter:
    """RFC 9110 §10.2.3: the client waits as long as a Retry-After field asks."""

    @pytest.mark.parametrize("status", [429, 503])
    @pytest.mark.parametrize(
        ("value", "delay"),
        [
            (None, 1.0),
            ("", 1.0),
            ("0", 1.0),
            ("1", 1.0),
            ("2", 2.0),
            ("120", 120.0),
            ("3600", 3600.0),
            ("3601", 3600.0),
            ("9" * 400, 3600.0),
            ("-5", 1.0),
            ("1.5", 1.0),
            ("soon", 1.0),
            (format_datetime(NOW + timedelta(seconds=77), usegmt=True), 77.0),
            ("Tue, 01 Jan 2030 00:01:17 GMT", 77.0),
            ("Tuesday, 01-Jan-30 00:01:17 GMT", 77.0),
            ("Tue Jan  1 00:01:17 2030", 77.0),
            ("Tue, 01 Jan 2030 00:00:00 GMT", 1.0),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 1.0),
            ("Fri, 31 Dec 9999 23:59:59 GMT", 3600.0),
            ("Tue, 99 Jan 2030 00:01:17 GMT", 1.0),
            ("Tue, 01 Jan 99999999999 00:01:17 GMT", 1.0),
            ("Tue, 01 Jan 99999999999999999999 00:01:17 GMT", 1.0),
            ("Tue, 01 Jan 2030 00:01:17 +99999999999", 1.0),
            ("Tue, 01 Jan " + "9" * 5000 + " 00:01:17 GMT", 1.0),
        ],
    )
    def test_the_retry_after_field_is_honoured(
        self, longest: Any, far_away: Any, status: int, value: str | None, delay: float
    ) -> None:
        patient = Patient(answer(status, value), None)
        assert patient.delay == pytest.approx(delay)
        patient.advance()
        assert patient.endpoint.last_failure is None

    def test_a_short_retry_after_does_not_shorten_the_delay(self, longest: Any) -> None:
        patient = Patient(*[answer(503, "3")] * 5)
        for _ in range(4):
            patient.advance()
        assert patient.delay == pytest.approx(1.6**4)

    def test_the_retry_after_of_a_final_response_is_ignored(self, longest: Any) -> None:
        patient = Patient(answer(401, "5"))
        assert patient.clock.getDelayedCalls() == []


def results_of(waiting: Deferred[Any]) -> list[Any]:
    results: list[Any] = []
    waiting.addCallback(results.append)
    return results


def failures_of(*waiting: Deferred[Any]) -> list[type[BaseException]]:
    caught: list[type[BaseException]] = []

    def failed(failure: Failure) -> None:
        assert failure.type is not None
        caught.append(failure.type)

    for deferred in waiting:
        deferred.addErrback(failed)
    return caught


class TestWhenConnected:
    """`whenConnected`, as Twisted's `ClientService` defines it."""

    def test_when_connected_does_not_give_a_lost_connection(self, shortest: Any) -> None:
        """The connection learns of its end before the service does, and fires `when_closed` in between."""
        patient = Patient(None, None)
        first, second = list[Any](), list[Any]()
        patient.service.whenConnected().addCallback(first.append)
        (ws,) = first
        ws.when_closed().addCallback(lambda _: patient.service.whenConnected().addCallback(second.append))
        patient.server.wire.drop()
        patient.settle()
        assert second == []
        patient.advance()
        assert [ws.state for ws in first + second] == [State.CLOSED, State.OPEN]

    @pytest.mark.parametrize("lost", ["before", "after"])
    def test_when_connected_does_not_give_a_closing_connection(self, shortest: Any, lost: str) -> None:
        """Otherwise a sender that asks for the next connection when this one accepts nothing would loop endlessly."""
        patient = Patient(None, None)
        (first,) = results_of(patient.service.whenConnected())
        first.close()
        assert first.state is State.CLOSING
        second = results_of(patient.service.whenConnected())
        if lost == "before":
            patient.server.wire.drop()
        patient.settle()
        assert second == []
        if lost == "after":
            patient.server.wire.drop()
            patient.settle()
        patient.advance()
        assert [ws.state for ws in second] == [State.OPEN]

    def test_waiting_can_be_cancelled(self, shortest: Any) -> None:
        patient = Patient(None, None)
        (first,) = results_of(patient.service.whenConnected())
        first.close()
        waiting = patient.service.whenConnected()
        caught = failures_of(waiting)
        waiting.cancel()
        assert caught == [CancelledError]
        patient.server.wire.drop()
        patient.settle()

    def test_when_connected_fails_if_no_retry_can_help(self, shortest: Any) -> None:
        patient = Patient(None, answer(404))
        ws: Any = patient.service.whenConnected().result
        caught: list[Any] = []
        ws.when_closed().addCallback(lambda _: caught.append(failures_of(patient.service.whenConnected())))
        patient.server.wire.drop()
        patient.settle()
        patient.advance()
        assert caught == [[errors.UpgradeDeclined]]


class TestGivingUp:
    """The service gives up when no further attempt can help."""

    @pytest.mark.parametrize("status", [401, 403, 404])
    def test_waiting_callers_are_notified(self, status: int) -> None:
        patient = Patient(error.ConnectionRefusedError(), answer(status))
        early, late = patient.service.whenConnected(), patient.service.whenConnected(5)
        caught = failures_of(early, late)
        patient.advance()
        assert caught == [errors.UpgradeDeclined] * 2
        assert patient.service.given_up is not None
        assert isinstance(patient.service.given_up.value, errors.UpgradeDeclined)
        assert patient.service.given_up.value.status == status
        assert not patient.service.running
        assert patient.clock.getDelayedCalls() == []
        assert failures_of(patient.service.whenConnected()) == [errors.UpgradeDeclined]

    def test_a_new_start_begins_new_attempts(self) -> None:
        patient = Patient(answer(401), None)
        patient.service.startService()
        assert patient.service.given_up is None
        opened: list[Any] = []
        patient.service.whenConnected().addCallback(opened.append)
        patient.settle()
        assert [ws.state for ws in opened] == [State.OPEN]

    def test_a_start_during_a_stop_is_effective(self) -> None:
        patient = Patient(ValueError(), None, settle=False)
        patient.service.stopService()
        patient.service.startService()
        patient.settle()
        assert patient.service.running
        assert patient.endpoint.last_failure is None

    def test_a_final_failure_after_a_stop_fails_later_callers(self) -> None:
        patient = Patient(ValueError(), settle=False)
        assert patient.service.stopService().called
        patient.settle()
        assert failures_of(patient.service.whenConnected()) == [ValueError]
        assert not patient.service.running
        assert patient.clock.getDelayedCalls() == []

    def test_a_stop_does_not_count_as_giving_up(self) -> None:
        patient = Patient(error.ConnectionRefusedError())
        caught = failures_of(patient.service.whenConnected())
        patient.service.stopService()
        patient.settle()
        assert caught == [CancelledError]
        assert patient.service.given_up is None
        assert patient.clock.getDelayedCalls() == []
        assert failures_of(patient.service.whenConnected()) == [CancelledError]

    def test_a_caller_that_waits_for_fewer_failures_is_notified_first(self) -> None:
        patient = Patient(*[error.ConnectionRefusedError()] * 3, answer(401))
        caught = failures_of(patient.service.whenConnected(2))
        patient.advance()
        assert caught == []
        patient.advance()
        assert caught == [error.ConnectionRefusedError]


class TestLog:
    """The lines in the log."""

    def test_the_log_has_the_reason_of_each_failure(self, told: list[tuple[LogLevel, str]]) -> None:
        patient = Patient(error.ConnectionRefusedError(), answer(503), None, answer(404))
        patient.advance()
        patient.advance()
        assert patient.endpoint.last_failure is None
        endpoint = "<WebSocketClientEndpoint ws://localhost/>"
        attempts = [
            (
                LogLevel.info,
                f"{endpoint}: attempt 1 failed: ConnectionRefusedError: Connection was refused by other side.",
            ),
            (
                LogLevel.info,
                f"{endpoint}: attempt 2 failed: UpgradeDeclined: The WebSocket handshake was declined: 503 No",
            ),
        ]
        assert told == attempts
        patient.server.wire.drop()
        patient.advance()
        assert told[2:] == [
            (
                LogLevel.info,
                f"{endpoint}: the connection ended after 0 s: begun by transport, sent nothing, received nothing "
                "(Connection to the other side was lost in a non-clean fashion.)",
            ),
            (
                LogLevel.warn,
                f"{endpoint}: gave up, trying again would not help: "
                "UpgradeDeclined: The WebSocket handshake was declined: 404 No",
            ),
        ]

    def test_the_reason_is_one_line(self, told: list[tuple[LogLevel, str]]) -> None:
        Patient(ValueError("a\nb {c}"))
        ((_, line),) = told
        assert line.endswith(": ValueError: a b {c}")

    def test_a_stopped_service_logs_nothing(self, told: list[tuple[LogLevel, str]]) -> None:
        patient = Patient(ValueError(), settle=False)
        patient.service.stopService()
        patient.settle()
        assert told == []


class TestWrongArguments:
    """Arguments that the constructor refuses."""

    @pytest.mark.parametrize(
        ("endpoint", "kind"),
        [
            ("ws://user:secret@localhost/", "a value of type str"),
            (WebSocketClientEndpoint, "the class WebSocketClientE"),
        ],
    )
    def test_an_endpoint_of_another_type_is_refused(self, endpoint: Any, kind: str) -> None:
        with pytest.raises(TypeError) as refused:
            reconnecting(endpoint, Factory.forProtocol(Noting))
        assert str(refused.value).startswith(f"endpoint: give WebSocketClientEndpoint(reactor, url), not {kind}")
        assert "secret" not in str(refused.value)

    @pytest.mark.parametrize(
        ("factory", "kind"),
        [
            (WebSocketProtocol, "the class WebSocketProtocol"),
            (Factory, "the class Factory"),
            (print, "a value of type builtin_function_or_method"),
        ],
    )
    def test_a_factory_of_another_type_is_refused(self, factory: Any, kind: str) -> None:
        endpoint = WebSocketClientEndpoint(Clock(), "ws://localhost/")
        with pytest.raises(TypeError) as refused:
            reconnecting(endpoint, factory)
        assert str(refused.value) == f"factory: give Factory.forProtocol(YourProtocol), not {kind}"


class TestStartingAndStopping:
    """Callbacks of `whenConnected` and `stopService` may start or stop the service.

    ClientService alone would run them within its own steps, where it accepts no such call.
    """

    def test_a_callback_may_stop_the_service_at_once(self) -> None:
        patient = Patient(None, settle=False)
        stopped: list[Any] = []
        connected = patient.service.whenConnected()
        connected.addCallback(lambda ws: patient.service.stopService()).addBoth(stopped.append)
        patient.settle()
        patient.server.wire.drop()
        patient.settle()
        assert stopped == [None]
        assert not patient.service.running

    def test_an_errback_may_stop_the_service(self) -> None:
        patient = Patient(*[error.ConnectionRefusedError()] * 2)
        stopped: list[Any] = []
        connected = patient.service.whenConnected(1)
        connected.addErrback(lambda failure: patient.service.stopService()).addBoth(stopped.append)
        patient.advance()
        assert stopped == [None]

    def test_a_stop_may_be_followed_by_a_start(self) -> None:
        patient = Patient(None, None)
        stopped = patient.service.stopService()
        stopped.addCallback(lambda _: patient.service.startService())
        patient.server.wire.drop()
        patient.settle()
        found: list[Any] = []
        patient.service.whenConnected().addCallback(found.append)
        patient.settle()
        assert found[0].state is State.OPEN

    def test_a_wait_may_be_cancelled(self) -> None:
        patient = Patient(None, settle=False)
        caught = []
        waiting = patient.service.whenConnected()
        waiting.addErrback(lambda failure: caught.append(failure.type))
        waiting.cancel()
        patient.settle()
        assert caught == [CancelledError]

    @leaving_cycles
    async def test_a_connection_that_ends_at_once_is_given_out_with_its_messages(self) -> None:
        last = b"\x81\x03bye" + b"\x88\x02\x03\xe8"
        script = Script(lambda connection, head: connection.write(switching(head) + last))
        async with script.listening() as port:
            endpoint = WebSocketClientEndpoint(reactor, f"ws://127.0.0.1:{port}/", timeouts=Timeouts(close=0.3))
            service = reconnecting(endpoint, Factory.forProtocol(WebSocketProtocol))
            service.startService()
            ws: Any = await service.whenConnected()
            assert [message async for message in ws] == ["bye"]
            await service.stopService()

    @leaving_cycles
    async def test_a_service_can_start_and_stop_twice_over_tcp(self) -> None:
        script = Script(lambda connection, head: connection.write(switching(head)))
        async with script.listening() as port:
            endpoint = WebSocketClientEndpoint(reactor, f"ws://127.0.0.1:{port}/", timeouts=Timeouts(close=0.3))
            service = reconnecting(endpoint, Factory.forProtocol(Noting))
            for _ in range(2):
                service.startService()
                ws: Any = await service.whenConnected()
                await service.stopService()
                assert ws.state is State.CLOSED
            script.connections[-1].drop()
        with pytest.raises(error.ConnectionRefusedError):
            service.startService()
            await service.whenConnected(1)
        await service.stopService()


class TestFields:
    """The fields of the request may be computed for each attempt."""

    def test_the_fields_are_computed_for_each_attempt(self) -> None:
        tokens = iter(["first", "second", "third"])

        async def decorate(request: Any) -> None:
            request.headers.setRawHeaders("Authorization", [next(tokens)])

        patient = Patient(answer(503), None, None, decorator=decorate)
        patient.advance()
        patient.server.wire.drop()
        patient.advance()
        sent = [field(head, b"Authorization") for head in patient.server.requests]
        assert sent == [b"first", b"second", b"third"]


class TestOverTCP:
    """The service over real TCP."""

    @leaving_cycles
    async def test_a_service_reconnects_and_gives_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(reconnecting.__globals__, "FIRST_DELAY", 0.01)
        answers = [answer(503), None, answer(502, "0"), None, answer(401)]

        def respond(connection: Any, head: bytes) -> None:
            connection.write(answers.pop(0) or switching(head))

        script = Script(respond)
        async with script.listening() as port:
            endpoint = WebSocketClientEndpoint(reactor, f"ws://127.0.0.1:{port}/", timeouts=Timeouts(close=0.3))
            service = reconnecting(endpoint, Factory.forProtocol(Noting))
            service.startService()
            for times in (1, 2):
                ws = await connected(service)
                assert ws.heard == ["opened"]
                script.connections[-1].drop()

                def closed(ws: Any = ws) -> bool:
                    return ws.state is State.CLOSED

                await until(closed)
                assert len(Noting.closings) == times
            with pytest.raises(errors.UpgradeDeclined):
                await service.whenConnected()
            await until(lambda: not service.running)
            assert answers == []
