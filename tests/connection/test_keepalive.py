"""Tests of `twisted_beastws.connection.keepalive`."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from twisted_beastws.connection.keepalive import MAX_LOOKS, Liveness
from twisted_beastws.options import Timeouts

NEVER = {"idle": None, "ping_interval": None, "send": None, "message": None, "close": None}


class Session:
    """The part of a session that `Liveness` uses. It also acts as the session's reader."""

    def __init__(self, clock: Clock) -> None:
        self.reader = self
        self.received_at = clock.seconds()
        self.message_began_at: float | None = None
        self.pinged: list[float] = []
        self.clock = clock

    def ping(self) -> None:
        self.pinged.append(self.clock.seconds())


class WriteBuffer:
    free = True
    turns = 0


class Owner:
    reading_paused = False
    in_system = 0

    def __init__(self, clock: Clock) -> None:
        self.outgoing = WriteBuffer()
        self.clock = clock
        self.heard: list[tuple[float, str]] = []
        self.liveness: Liveness | None = None

    def deadline_passed(self) -> None:
        self.heard.append((self.clock.seconds(), "deadline"))

    def timed_out(self, what: str) -> None:
        self.heard.append((self.clock.seconds(), what))
        assert self.liveness is not None
        self.liveness.closing()

    def unaccepted(self) -> int:
        return self.in_system

    def stopped_reading(self, what: str) -> None:
        self.timed_out(what)


class Life:
    """A `Liveness` with its owner and session, and a clock that makes each call on time."""

    def __init__(self, **timeouts: Any) -> None:
        self.clock = Clock()
        self.clock.advance(1000.0)
        self.owner = Owner(self.clock)
        self.liveness = self.owner.liveness = Liveness(self.owner, self.clock, Timeouts(**{**NEVER, **timeouts}))
        self.session = Session(self.clock)

    def open(self) -> Life:
        self.liveness.opened(self.session)  # type: ignore[arg-type]
        return self

    def passes(self, seconds: float) -> Life:
        until = self.clock.seconds() + seconds
        while self.clock.calls and self.clock.calls[0].getTime() <= until:
            self.clock.advance(max(0.0, self.clock.calls[0].getTime() - self.clock.seconds()))
            assert len(self.clock.calls) <= 1
        self.clock.advance(until - self.clock.seconds())
        return self

    def pings(self, payload: bytes) -> Deferred[float]:
        return self.liveness.ping_sent(payload, self.clock.seconds())

    @property
    def heard(self) -> list[tuple[float, str]]:
        """The calls to the owner, each with its time in seconds from the start."""
        return [(at - 1000.0, what) for at, what in self.owner.heard]


def fired(deferred: Deferred[Any]) -> list[Any]:
    results: list[Any] = []
    deferred.addBoth(results.append)
    return results


class TestDeadline:
    """Deadlines: the handshake, the lifetime and the close (`docs/topics/timeouts.md`)."""

    def test_a_deadline_passes_once(self) -> None:
        life = Life()
        life.liveness.expect(10.0)
        assert life.passes(9.99).heard == []
        assert life.passes(100).heard == [(10.0, "deadline")]
        assert life.clock.calls == []

    def test_a_new_deadline_replaces_the_old_one(self) -> None:
        life = Life()
        life.liveness.expect(10.0)
        life.passes(6)
        life.liveness.expect(10.0)
        assert life.passes(100).heard == [(16.0, "deadline")]

    def test_a_connection_without_a_deadline_never_ends(self) -> None:
        life = Life()
        life.liveness.expect(10.0)
        life.liveness.expect(None)
        assert life.clock.calls == []
        assert life.passes(100).heard == []

    def test_an_opened_connection_has_no_deadline(self) -> None:
        life = Life()
        life.liveness.expect(10.0)
        assert life.open().passes(100).heard == []
        assert life.clock.calls == []

    def test_the_lifetime_is_a_deadline(self) -> None:
        assert Life(max_lifetime=3600.0).open().passes(10_000).heard == [(3600.0, "deadline")]

    def test_closing_has_its_deadline(self) -> None:
        life = Life(close=10.0, idle=5.0, ping_interval=1.0, message=5.0).open()
        life.liveness.closing()
        assert life.passes(100).heard == [(10.0, "deadline")]
        assert life.session.pinged == []
        assert life.clock.calls == []


class TestSilence:
    """`Timeouts.idle`: the connection closes when the peer is silent (Beast: ``idle_timeout``)."""

    def test_a_silent_peer_ends_the_connection(self) -> None:
        life = Life(idle=60.0, close=10.0).open()
        assert life.passes(59.99).heard == []
        assert life.passes(0.01).heard == [(60.0, "nothing was received for 60 s")]
        assert life.passes(100).heard[1:] == [(70.0, "deadline")]

    def test_any_byte_is_a_sign_of_life_and_touches_no_timer(self) -> None:
        life = Life(idle=60.0).open()
        call = life.clock.calls[0]
        for _ in range(59):
            life.passes(1)
            life.session.received_at = life.clock.seconds()
            assert life.clock.calls == [call]
        assert life.passes(59.9).heard == []
        assert life.passes(0.1).heard == [(119.0, "nothing was received for 60 s")]

    @pytest.mark.parametrize("strict", [False, True])
    def test_a_peer_that_reads_is_not_silent(self, strict: bool) -> None:
        """While bytes wait in the write buffer, `Liveness` sends no ping: the ping would not leave before them."""
        life = Life(idle=60.0, ping_interval=20.0, strict_pong=strict).open()
        life.owner.outgoing.free = False
        for _ in range(10):
            life.owner.outgoing.turns += 1
            assert life.passes(50).heard == []
        ((at, what),) = life.passes(100).heard
        assert 500 <= at <= 580
        assert what == "nothing was received for 60 s"
        assert life.session.pinged == []

    def test_silence_does_not_count_while_we_do_not_read(self) -> None:
        life = Life(idle=60.0).open().passes(40)
        life.owner.reading_paused = True
        life.liveness.paused()
        assert life.passes(1000).heard == []
        life.owner.reading_paused = False
        life.liveness.resumed()
        assert life.passes(19.9).heard == []
        assert life.passes(0.1).heard == [(1060.0, "nothing was received for 60 s")]

    def test_silence_counts_while_the_peer_accepts_nothing(self) -> None:
        """Otherwise a peer that sends much but reads nothing could keep its connection without limit."""
        life = Life(idle=10.0, ping_interval=2.0).open()
        life.owner.reading_paused = True
        life.liveness.paused()
        life.passes(100.0)
        life.owner.outgoing.free = False
        life.passes(9.0)
        life.owner.outgoing.turns += 1
        life.passes(11.0)
        assert life.heard == []
        life.passes(2.0)
        assert [what for _, what in life.heard] == ["nothing was taken for 10 s"]

    def test_silence_does_not_count_if_we_read_in_between(self) -> None:
        life = Life(idle=10.0, ping_interval=2.0).open()
        life.owner.outgoing.free = False
        for _ in range(5):
            life.owner.reading_paused = True
            life.liveness.paused()
            life.passes(8.0)
            life.owner.reading_paused = False
            life.liveness.resumed()
        assert life.heard == []

    def test_only_a_pong_is_a_sign_of_life_if_strict(self) -> None:
        life = Life(idle=60.0, strict_pong=True).open().passes(30)
        life.session.received_at = life.clock.seconds()
        life.liveness.pong_received(b"")
        life.passes(30)
        life.session.received_at = life.clock.seconds()
        assert life.passes(29.9).heard == []
        assert life.passes(100).heard == [(90.0, "nothing was received for 60 s")]

    def test_silence_does_not_count_while_we_do_not_read_if_strict(self) -> None:
        life = Life(idle=60.0, strict_pong=True).open().passes(59)
        life.owner.reading_paused = True
        life.liveness.paused()
        life.passes(1000)
        life.owner.reading_paused = False
        life.liveness.resumed()
        assert life.passes(0.9).heard == []
        assert life.passes(0.1).heard == [(1060.0, "nothing was received for 60 s")]


class TestStoppedReading:
    """`Timeouts.send`: the connection closes when the peer accepts no data, even if the peer still sends."""

    def stalled(self, **timeouts: Any) -> Life:
        life = Life(send=60.0, **timeouts).open().passes(100)
        life.owner.outgoing.free = False
        life.owner.in_system = 1 << 20
        return life

    def test_a_peer_that_accepts_nothing_is_closed_within_five_quarters_of_the_time(self) -> None:
        life = self.stalled(idle=300.0)
        for _ in range(59):
            # Pongs and messages from the peer do not extend the time.
            life.passes(1.0)
            life.session.received_at = life.clock.seconds()
            life.liveness.pong_received(b"")
        assert life.heard == []
        life.passes(16.0)
        assert [what for _, what in life.heard] == ["nothing was taken for 60 s"]

    @pytest.mark.parametrize("progress", ["turns", "acknowledgements"])
    def test_a_peer_that_accepts_a_little_is_not_closed(self, progress: str) -> None:
        life = self.stalled()
        for _ in range(10):
            life.passes(40.0)
            if progress == "turns":
                life.owner.outgoing.turns += 1
            else:
                life.owner.in_system -= 1
        assert life.heard == []
        life.passes(76.0)
        assert len(life.heard) == 1

    def test_more_data_in_the_systems_buffer_is_no_progress(self) -> None:
        life = self.stalled()
        for _ in range(8):
            life.passes(10.0)
            life.owner.in_system += 1000
        assert len(life.heard) == 1

    def test_a_peer_without_pending_data_is_not_closed(self) -> None:
        life = self.stalled().passes(50.0)
        life.owner.outgoing.free = True
        life.passes(20.0)
        life.owner.outgoing.free = False
        assert life.passes(59.0).heard == []

    def test_the_limit_is_enforced_while_we_read_nothing(self) -> None:
        life = self.stalled(idle=300.0)
        life.owner.reading_paused = True
        life.liveness.paused()
        assert len(life.passes(76.0).heard) == 1

    def test_the_limit_none_is_never_enforced(self) -> None:
        life = Life(send=None, ping_interval=30.0).open()
        life.owner.outgoing.free = False
        assert life.passes(10_000.0).heard == []


class TestSlowMessage:
    """`Timeouts.message`: the connection closes when a message is not finished in time."""

    def test_a_slow_message_ends_the_connection(self) -> None:
        life = Life(message=20.0).open().passes(100)
        life.session.message_began_at = life.clock.seconds()
        assert life.passes(19.9).heard == []
        # Liveness checks every 20 s for an unfinished message, and counts from the start of the message.
        ((at, what),) = life.passes(20.1).heard
        assert at == pytest.approx(120.0) and what == "a message was not finished in 20 s"

    def test_a_finished_message_is_not_slow(self) -> None:
        life = Life(message=20.0).open().passes(10)
        life.session.message_began_at = life.clock.seconds()
        life.passes(19)
        life.session.message_began_at = None
        assert life.passes(1000).heard == []

    def test_each_message_has_its_own_time(self) -> None:
        life = Life(message=20.0).open()
        for _ in range(10):
            life.session.message_began_at = life.clock.seconds()
            assert life.passes(15).heard == []

    def test_the_time_of_our_own_pauses_does_not_count(self) -> None:
        life = Life(message=20.0).open()
        life.session.message_began_at = life.clock.seconds()
        life.passes(15)
        life.owner.reading_paused = True
        life.liveness.paused()
        assert life.passes(1000).heard == []
        life.owner.reading_paused = False
        life.liveness.resumed()
        assert life.passes(4.9).heard == []
        assert life.passes(0.1).heard == [(1020.0, "a message was not finished in 20 s")]


class TestPings:
    """RFC 6455 §5.5.2: a ping serves as a keepalive."""

    def test_a_ping_is_sent_at_each_interval(self) -> None:
        life = Life(ping_interval=5.0).open().passes(21)
        assert life.session.pinged == [1005.0, 1010.0, 1015.0, 1020.0]
        life.session.received_at = life.clock.seconds()
        life.passes(5)
        assert life.session.pinged[4:] == [1025.0]

    @pytest.mark.parametrize("interval", [5.0, 0.7])
    def test_the_interval_is_kept_though_each_call_is_a_little_late(self, interval: float) -> None:
        life = Life(ping_interval=interval)
        life.clock.advance(0.01)
        life.open()
        for _ in range(200):
            (call,) = life.clock.calls
            life.clock.advance(call.getTime() - life.clock.seconds() + 0.004)
        late = [at - (1000.01 + interval * number) for number, at in enumerate(life.session.pinged, start=1)]
        assert len(late) == 200
        assert all(0 <= each <= 1 / 32 + 0.0041 for each in late)

    def test_missed_pings_are_skipped(self) -> None:
        life = Life(ping_interval=5.0).open()
        life.clock.advance(27.0)
        life.passes(10.0)
        assert life.session.pinged == [1027.0, 1030.0, 1035.0]

    def test_pings_are_skipped_while_data_waits(self) -> None:
        life = Life(ping_interval=5.0).open()
        life.owner.outgoing.free = False
        life.passes(11)
        life.owner.outgoing.free = True
        life.passes(5)
        assert life.session.pinged == [1015.0]

    def test_a_pong_gives_the_latency(self) -> None:
        life = Life(ping_interval=5.0).open().passes(5)
        assert life.liveness.latency is None
        life.passes(0.5)
        life.liveness.pong_received(b"")
        assert life.liveness.latency == pytest.approx(0.5)

    def test_an_unsolicited_pong_gives_no_latency(self) -> None:
        life = Life(ping_interval=5.0).open().passes(4)
        life.liveness.pong_received(b"")
        assert life.liveness.latency is None
        life.passes(1.5)
        life.liveness.pong_received(b"other")
        assert life.liveness.latency is None

    def test_no_ping_is_sent_after_the_end(self) -> None:
        life = Life(ping_interval=5.0).open()
        life.liveness.lost(ConnectionLost())
        life.passes(100)
        assert life.session.pinged == []


class TestApplicationsPings:
    """RFC 6455 §5.5.3: a pong answers the latest ping, and the ones before it."""

    def test_a_ping_returns_the_round_trip_time(self) -> None:
        life = Life().open()
        answered = fired(life.pings(b"a"))
        life.passes(0.25)
        life.liveness.pong_received(b"a")
        assert answered == [0.25]
        assert life.liveness.latency == 0.25

    def test_a_pong_answers_all_earlier_pings(self) -> None:
        life = Life().open()
        answered = []
        for payload in (b"a", b"b", b"c"):
            answered.append(fired(life.pings(payload)))
            life.passes(1)
        life.liveness.pong_received(b"b")
        assert answered == [[3.0], [2.0], []]
        assert life.liveness.latency == 2.0
        life.liveness.pong_received(b"a")
        assert answered[2] == []
        life.liveness.pong_received(b"c")
        assert answered[2] == [1.0]

    def test_an_unknown_pong_answers_no_ping(self) -> None:
        life = Life().open()
        answered = fired(life.pings(b"a"))
        life.liveness.pong_received(b"b")
        assert answered == []

    def test_a_cancelled_ping_leaves_the_others(self) -> None:
        life = Life().open()
        first, second = life.pings(b"a"), life.pings(b"a")
        first.cancel()
        assert fired(first)[0].check(CancelledError)
        life.passes(1)
        life.liveness.pong_received(b"a")
        assert fired(second) == [1.0]

    def test_pending_pings_fail_with_the_connection(self) -> None:
        life = Life().open()
        pings = [life.pings(b"a"), life.pings(b"b")]

        # The errback of the first ping cancels the second.
        def cancel_the_second(failure: Failure) -> Failure:
            pings[1].cancel()
            return failure

        pings[0].addErrback(cancel_the_second)
        life.liveness.lost(ConnectionLost())
        assert fired(pings[0])[0].check(ConnectionLost)
        assert fired(pings[1])[0].check(CancelledError)


class TestLateReactor:
    """A busy reactor calls the timer before it reads the bytes that the peer sent in time."""

    @staticmethod
    def late(life: Life, seconds: float) -> None:
        """Make no call for ``seconds``, then the timer's call, before the sockets are read."""
        life.clock.rightNow += seconds
        TestLateReactor.turn(life)

    @staticmethod
    def turn(life: Life) -> None:
        (call,) = life.clock.calls
        life.clock.calls.clear()
        call.called = 1
        call.func()

    @pytest.mark.parametrize("strict", [False, True])
    @pytest.mark.parametrize("turns", [0, 1])
    def test_a_pong_that_is_read_after_the_call_is_in_time(self, strict: bool, turns: int) -> None:
        life = Life(idle=60.0, strict_pong=strict).open()
        self.late(life, 100.0)
        for _ in range(turns):
            self.turn(life)
        life.session.received_at = life.clock.seconds()
        life.liveness.pong_received(b"")
        assert life.passes(59.9).heard == []
        assert life.passes(0.2).heard == [(160.0, "nothing was received for 60 s")]

    def test_a_pong_after_much_other_data_is_in_time(self) -> None:
        life = Life(idle=60.0, strict_pong=True).open()
        self.late(life, 100.0)
        for _ in range(100):
            life.session.received_at += 1e-3
            self.turn(life)
        life.liveness.pong_received(b"")
        assert life.passes(59.9).heard == []

    def test_a_message_whose_end_is_read_after_the_call_is_in_time(self) -> None:
        life = Life(message=20.0).open()
        life.session.message_began_at = life.clock.seconds()
        self.late(life, 100.0)
        life.session.message_began_at = None
        assert life.passes(100).heard == []

    def test_a_handshake_that_is_read_after_the_call_is_in_time(self) -> None:
        life = Life()
        life.liveness.expect(10.0)
        self.late(life, 100.0)
        assert life.open().passes(100).heard == []

    def test_a_silent_peer_is_closed_two_turns_later(self) -> None:
        life = Life(idle=60.0).open()
        self.late(life, 100.0)
        assert life.heard == []
        self.turn(life)
        assert life.heard == []
        self.turn(life)
        assert life.heard == [(100.0, "nothing was received for 60 s")]

    def test_a_peer_that_sends_all_but_a_pong_is_closed(self) -> None:
        life = Life(idle=60.0, strict_pong=True).open()
        self.late(life, 100.0)
        for turns in range(2 * MAX_LOOKS):
            assert life.heard == [], turns
            life.session.received_at += 1e-3
            self.turn(life)
        assert life.heard == [(100.0, "nothing was received for 60 s")]

    def test_the_request_after_an_answered_one_is_waited_for_again(self) -> None:
        life = Life()
        life.liveness.expect(10.0)
        self.late(life, 100.0)
        life.liveness.expect(10.0)
        self.late(life, 100.0)
        assert life.heard == []


class TestEnd:
    """The end of a connection ends its timers."""

    def test_no_timer_is_left_after_the_end(self) -> None:
        life = Life(idle=60.0, ping_interval=5.0, message=20.0, max_lifetime=3600.0).open()
        assert len(life.clock.calls) == 1
        life.liveness.lost(ConnectionLost())
        assert life.clock.calls == []
        assert life.liveness.due is None

    @pytest.mark.parametrize("when", ["deadline_passed", "timed_out"])
    def test_the_owner_may_lose_its_connection_during_a_check(self, when: str) -> None:
        life = Life(idle=60.0, max_lifetime=30.0 if when == "deadline_passed" else None, close=10.0).open()

        def lose(*_: object) -> None:
            life.liveness.closing()
            life.liveness.lost(ConnectionLost())

        setattr(life.owner, when, lose)
        life.passes(60)
        assert life.clock.calls == []

    def test_a_connection_without_timeouts_needs_no_timer(self) -> None:
        life = Life().open()
        life.liveness.closing()
        assert life.clock.calls == []
