"""Tests of `twisted_beastws.connection.write_buffer`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import ISystemHandle
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_beastws.connection.outlet import HAND_OVER
from twisted_beastws.connection.write_buffer import Outgoing
from twisted_beastws.connection.write_queue import JOINED, OVERHEAD, most_at_once
from twisted_beastws.errors import BufferFull, LocalError
from twisted_beastws.options import Limits
from twisted_beastws.wire.frames import GATHER_LIMIT, LongFrame, Opcode, encode_header


@implementer(ISystemHandle)
class Socket(FileDescriptor):
    """A stand-in for Twisted's TCP transport, on a socket that accepts ``room`` more bytes."""

    connected = 1

    def __init__(self, room: int = 0) -> None:
        super().__init__(self)  # type: ignore[arg-type]
        self.turns = Clock()
        self.callLater = self.turns.callLater
        self.lost: list[Any] = []
        self.room = room
        self.broken: Exception | None = None
        self.writing = False
        self.taken = b""
        self.given = 0

    def addWriter(self, _: object) -> None:
        self.writing = True

    def removeWriter(self, _: object) -> None:
        self.writing = False

    def removeReader(self, _: object) -> None: ...

    def connectionLost(self, reason: Failure) -> None:
        self.lost.append(reason.type)

    def getHandle(self) -> Socket:
        return self

    def send(self, data: Any) -> int:
        if self.broken is not None:
            raise self.broken
        if not self.room:
            raise BlockingIOError
        data = bytes(data[: self.room])
        self.room -= len(data)
        self.taken += data
        return len(data)

    def sendmsg(self, parts: Iterable[Any]) -> int:
        return self.send(b"".join(parts))

    def write(self, data: bytes) -> None:
        self.given += len(data)
        super().write(data)

    def writeSomeData(self, data: Any) -> int | BaseException:
        try:
            return self.send(data[: self.SEND_LIMIT])
        except BlockingIOError:
            return 0
        except OSError as error:
            return error

    def flow(self, room: int) -> None:
        self.room += room
        while self.writing and self.room:
            self.doWrite()


class Stalling(StringTransport):
    """A stand-in for a TLS transport: it accepts every write, and pauses its producer while it is stalled."""

    producer: Any
    stalled = False

    def write(self, data: bytes) -> None:
        super().write(data)  # type: ignore[no-untyped-call]
        if self.stalled:
            self.producer.pauseProducing()

    def flow(self) -> None:
        self.stalled = False
        self.producer.resumeProducing()


class Owner(list[str]):
    """Records the notifications from the write buffer."""

    clock = Clock()

    def overflowed(self) -> None:
        self.append("overflowed")

    def transport_leaving(self) -> None:
        self.append("leaving")


def make(transport: Any, owner: Owner | None = None, **limits: Any) -> Outgoing:
    limits = {"max_message_size": 1, "max_buffered": 1000, "high_water": 500, "low_water": 100, **limits}
    return Outgoing(transport, Limits(**limits), Owner() if owner is None else owner)


def queued(outgoing: Outgoing) -> int:
    """The bytes that wait, without those that the outlet has."""
    return outgoing.buffered - outgoing.outlet.handed


def stalled(**options: Any) -> tuple[Outgoing, Stalling]:
    """Return a write buffer that has been paused by its push transport, and that transport."""
    transport = Stalling()
    outgoing = make(transport, **options)
    transport.stalled = True
    outgoing.write(b"-")
    transport.clear()
    assert not outgoing.free
    return outgoing, transport


class TestPlainSocket:
    """Frames to a plain TCP socket, which the write buffer writes to directly."""

    def test_a_frame_is_written_at_once(self) -> None:
        socket = Socket(room=100)
        outgoing = make(socket)
        assert outgoing.outlet.direct
        assert (socket.producer, socket.streamingProducer) == (outgoing.outlet, False)
        outgoing.write(b"abc")
        assert (socket.taken, socket.writing, outgoing.free, outgoing.buffered) == (b"abc", False, True, 0)

    def test_direct_writes_are_allowed_while_nothing_waits_or_is_paced(self) -> None:
        socket, producer = Socket(room=1), Socket()
        outgoing = make(socket, max_buffered=GATHER_LIMIT)
        at_once = outgoing.at_once
        assert at_once is not None and at_once(b"ab") == 1
        outgoing.write_rest(b"ab", 1)
        assert (outgoing.at_once, outgoing.free, outgoing.buffered) == (None, False, 1)
        outgoing.write(b"c")
        socket.flow(10)
        assert socket.taken == b"abc" and outgoing.at_once is not None
        outgoing.register(producer)
        assert outgoing.at_once is None
        outgoing.unregister()
        assert outgoing.at_once is not None
        outgoing.lost(ConnectionLost())
        assert outgoing.at_once is None

    def test_direct_writes_are_not_allowed_if_limits_are_close(self) -> None:
        assert make(Socket(room=1), max_buffered=GATHER_LIMIT - 1).at_once is None

    def test_direct_writes_are_not_allowed_on_another_transport(self) -> None:
        assert make(Stalling(), max_buffered=GATHER_LIMIT).at_once is None

    def test_the_buffer_keeps_the_rest_of_a_frame(self) -> None:
        socket = Socket(room=2)
        outgoing = make(socket)
        outgoing.write(b"abcde")
        outgoing.write(b"fgh")
        assert (socket.taken, outgoing.free, queued(outgoing), outgoing.buffered) == (b"ab", False, 3, 6)
        socket.flow(2)
        assert (socket.taken, outgoing.free, outgoing.buffered) == (b"abcd", False, 6)
        socket.flow(1)
        assert (socket.taken, outgoing.free, outgoing.buffered) == (b"abcde", False, 3)
        socket.flow(1)
        assert (socket.taken, outgoing.free) == (b"abcdef", False)
        socket.flow(100)
        assert (socket.taken, outgoing.free, outgoing.buffered) == (b"abcdefgh", True, 0)
        assert not socket.writing

    def test_a_socket_that_took_the_whole_frame_counts_as_free(self) -> None:
        socket = Socket(room=3)
        outgoing = make(socket)
        outgoing.write(b"abc")
        assert outgoing.free
        outgoing.write(b"d")
        assert not outgoing.free
        assert outgoing.buffered == 1

    def test_a_long_rest_is_kept_in_our_buffer(self) -> None:
        """The transport copies each write, so it gets only one part at a time; it asks for the next part later."""
        socket = Socket(room=10)
        outgoing = make(socket, max_buffered=1 << 20)
        data = bytes(range(256)) * 2048
        outgoing.write(data)
        outgoing.write_control(Opcode.PING, b"behind it")
        assert (socket.taken, socket.given) == (data[:10], HAND_OVER)
        assert (outgoing.free, outgoing.buffered) == (False, len(data) - 10 + 9)
        socket.flow(HAND_OVER + 5)
        assert (socket.taken, socket.given) == (data[: HAND_OVER + 15], 2 * HAND_OVER)
        assert outgoing.buffered == len(data) - HAND_OVER - 15 + 9
        socket.flow(1 << 20)
        assert (socket.taken, socket.given) == (data + b"behind it", 2 * HAND_OVER)
        assert (outgoing.free, outgoing.buffered) == (True, 0)

    def test_the_end_comes_after_the_rest_of_a_long_frame(self) -> None:
        socket = Socket(room=10)
        outgoing = make(socket, max_buffered=1 << 20)
        finished: list[int] = []
        outgoing.write(bytes(2 * HAND_OVER + 10))
        outgoing.finish(lambda: finished.append(len(socket.taken)))
        socket.flow(HAND_OVER - 1)
        assert not finished
        # The transport holds all remaining bytes.
        socket.flow(1)
        assert finished == [HAND_OVER + 10]
        socket.flow(1 << 20)
        assert socket.taken == bytes(2 * HAND_OVER + 10)

    def test_a_broken_connection_is_left_to_the_transport(self) -> None:
        socket = Socket(room=100)
        outgoing = make(socket)
        socket.broken = ConnectionResetError()
        outgoing.write(b"abc")
        assert socket.writing
        assert socket.doWrite() is socket.broken
        socket.connectionLost(Failure(ConnectionLost()))
        assert not outgoing.free

    def test_the_end_comes_after_all_frames(self) -> None:
        socket = Socket()
        outgoing = make(socket)
        finished: list[bytes] = []
        outgoing.write(b"abc")
        outgoing.write(b"def")
        outgoing.finish(lambda: finished.append(socket.taken))
        assert not finished
        assert not outgoing.finished
        socket.flow(3)
        # The transport holds all remaining bytes, and flushes them by itself.
        assert finished == [b"abc"]
        assert outgoing.finished
        assert socket.producer is None
        socket.flow(3)
        assert socket.taken == b"abcdef"
        assert finished == [b"abc"]


class TestPushTransport:
    """Frames to any other transport, through `ITransport` and `IPushProducer`."""

    def test_a_frame_is_written_at_once(self) -> None:
        transport = Stalling()
        outgoing = make(transport)
        assert not outgoing.outlet.direct
        assert (transport.producer, transport.streaming) == (outgoing.outlet, True)
        outgoing.write(b"abc")
        assert (transport.value(), outgoing.free, outgoing.buffered) == (b"abc", True, 0)

    def test_frames_during_a_pause_are_kept(self) -> None:
        outgoing, transport = stalled()
        assert outgoing.buffered == 1
        outgoing.write(b"abc")
        outgoing.write(b"def")
        assert (transport.value(), queued(outgoing), outgoing.buffered) == (b"", 6, 7)
        transport.flow()
        assert (transport.value(), outgoing.free, outgoing.buffered) == (b"abcdef", True, 0)

    def test_a_second_pause_stops_the_flow_between_frames(self) -> None:
        outgoing, transport = stalled(max_buffered=1 << 20)
        frames = [bytes((number,)) * (HAND_OVER // 2) for number in range(5)]
        for frame in frames:
            outgoing.write(frame)
        transport.producer.resumeProducing()
        assert transport.value() == frames[0] + frames[1]
        assert (outgoing.free, queued(outgoing)) == (False, 3 * HAND_OVER // 2)
        transport.clear()
        transport.flow()
        assert transport.value() == frames[2] + frames[3] + frames[4]

    def test_a_long_frame_is_handed_over_in_parts(self) -> None:
        outgoing, transport = stalled(max_buffered=1 << 20)
        for frame in (b"a", bytes(2 * HAND_OVER + 1), b"b"):
            outgoing.write(frame)
        # TLS would encrypt a whole write, and its transport copy it, so each write has at most HAND_OVER bytes.
        part = bytes(HAND_OVER)
        for expected, left in ((b"a", 2 * len(part) + 2), (part, len(part) + 2), (part, 2), (b"\0", 1), (b"b", 0)):
            transport.producer.resumeProducing()
            assert transport.value() == expected
            assert outgoing.buffered == left + len(expected)
            transport.clear()

    def test_a_pause_from_outside_is_obeyed(self) -> None:
        transport = Stalling()
        outgoing = make(transport)
        outgoing.outlet.pauseProducing()
        outgoing.write(b"abc")
        assert (transport.value(), outgoing.buffered) == (b"", 3)
        outgoing.outlet.resumeProducing()
        assert transport.value() == b"abc"

    def test_a_stop_by_the_transport_is_final(self) -> None:
        outgoing, transport = stalled()
        outgoing.outlet.stopProducing()
        outgoing.write(b"abc")
        assert transport.value() == b""


class TestLimit:
    """`Limits.max_buffered` and the policies for slow readers (`docs/topics/backpressure.md`)."""

    @pytest.mark.parametrize("size", [999, 1000, 1001])
    @pytest.mark.parametrize("policy", ["close", "drop", "pause"])
    def test_the_pending_bytes_are_limited(self, policy: str, size: int) -> None:
        owner = Owner()
        outgoing, transport = stalled(slow_reader=policy, owner=owner)
        outgoing.write(bytes(size - 1))
        refused = size > 1000
        if refused and policy == "pause":
            with pytest.raises(BufferFull, match="1000"):
                outgoing.write(b"b")
        else:
            outgoing.write(b"b")
        assert queued(outgoing) == size - refused
        assert outgoing.dropped == (refused and policy != "pause")
        assert owner == ["overflowed"] * (refused and policy == "close")
        transport.flow()
        assert transport.value() == bytes(size - 1) + b"b" * (not refused)

    @pytest.mark.parametrize("transport", [Socket, Stalling])
    def test_a_frame_that_can_never_fit_is_refused(self, transport: type[Any]) -> None:
        # A message of max_buffered bytes fits with its frame headers, even if compression lengthens it.
        assert most_at_once(1000) == 1204
        outgoing = make(transport())
        with pytest.raises(LocalError, match=r"1205 bytes at once, where Limits\.max_buffered is 1000"):
            outgoing.write(bytes(1205))
        assert outgoing.free
        assert outgoing.buffered == 0
        outgoing.write(bytes(1204))

    def test_a_frame_that_can_never_fit_is_refused_while_others_wait_too(self) -> None:
        owner = Owner()
        outgoing, _ = stalled(owner=owner)
        with pytest.raises(LocalError, match="1205 bytes at once"):
            outgoing.write(bytes(1205))
        assert owner == []
        assert outgoing.dropped == 0

    @pytest.mark.parametrize("policy", ["close", "drop"])
    def test_a_frame_of_max_buffered_bytes_is_kept_if_it_is_alone(self, policy: str) -> None:
        owner = Owner()
        outgoing, _ = stalled(owner=owner, slow_reader=policy)
        outgoing.write(bytes(1204))
        assert (queued(outgoing), owner) == (1204, [])
        outgoing.write(b"a")
        assert (queued(outgoing), outgoing.dropped) == (1204, 1)

    def test_a_small_frame_fits_after_a_large_one_was_dropped(self) -> None:
        outgoing, transport = stalled(slow_reader="drop")
        outgoing.write(bytes(500))
        outgoing.write(bytes(501))
        outgoing.write(b"a" * 500)
        assert outgoing.dropped == 1
        transport.flow()
        assert transport.value() == bytes(500) + b"a" * 500


class TestCost:
    """`Outgoing.waiting` counts the memory of pending frames, not their payload alone (`docs/topics/memory.md`)."""

    @pytest.mark.parametrize("size", [1, 100, JOINED])
    def test_small_pending_frames_are_joined(self, size: int) -> None:
        outgoing, transport = stalled(max_buffered=1 << 22)
        count = 3 * HAND_OVER // size
        frames = [bytes((number % 256,)) * size for number in range(count)]
        for frame in frames:
            outgoing.write(frame)
        assert count * size <= outgoing.waiting <= count * size + 3 * OVERHEAD
        transport.flow()
        assert transport.value() == b"".join(frames)
        assert outgoing.waiting == outgoing.cost == 0

    def test_the_overhead_of_larger_frames_counts(self) -> None:
        outgoing, _ = stalled(max_buffered=1 << 22)
        for _ in range(10):
            outgoing.write(bytes(JOINED + 1))
        assert outgoing.waiting == 10 * (JOINED + 1) + 9 * OVERHEAD
        assert outgoing.buffered == 10 * (JOINED + 1) + 1

    def test_a_frame_counts_until_its_last_byte_is_gone(self) -> None:
        socket = Socket()
        outgoing = make(socket, max_buffered=1 << 22)
        outgoing.write(bytes(4 * HAND_OVER))
        socket.flow(3 * HAND_OVER - 1)
        assert outgoing.waiting == 4 * HAND_OVER
        socket.flow(HAND_OVER)
        assert (outgoing.waiting, outgoing.cost, outgoing.buffered) == (0, 1, 1)

    def test_messages_held_in_the_session_are_counted(self) -> None:
        outgoing, _ = stalled(slow_reader="drop")
        outgoing.hold(600)
        assert not outgoing.admits(401)
        assert outgoing.admits(400)
        outgoing.hold(-600)
        assert outgoing.admits(1000)
        assert outgoing.waiting == 0

    def test_a_frame_is_not_joined_with_one_that_is_being_sent(self) -> None:
        socket = Socket()
        outgoing = make(socket)
        for frame in (b"first", b"second", b"third"):
            outgoing.write(frame)
        socket.flow(len(b"first") + 3)
        outgoing.write(b"fourth")
        socket.flow(100)
        assert socket.taken == b"firstsecondthirdfourth"

    @pytest.mark.parametrize("taken", range(len(b"firstsecondthird") + 1))
    def test_a_discard_does_not_cut_a_frame(self, taken: int) -> None:
        socket = Socket()
        outgoing = make(socket)
        for frame in (b"first", b"second", b"third"):
            outgoing.write(frame)
        socket.flow(taken)
        outgoing.discard()
        outgoing.write_control(Opcode.CLOSE, b"close")
        socket.flow(100)
        whole = b"first" if taken < len(b"first") else b"firstsecondthird"
        assert socket.taken == whole + b"close"


class TestControlFrames:
    """RFC 6455 §5.5: control frames among the messages of a full buffer."""

    def test_control_frames_are_written_at_once(self) -> None:
        transport = Stalling()
        outgoing = make(transport)
        for opcode, frame in ((Opcode.PING, b"ping"), (Opcode.PONG, b"pong"), (Opcode.CLOSE, b"close")):
            outgoing.write_control(opcode, frame)
        assert transport.value() == b"pingpongclose"

    def test_control_frames_overtake_pending_frames_but_a_close_does_not(self) -> None:
        outgoing, transport = stalled()
        outgoing.write(b"data")
        for opcode, frame in ((Opcode.CLOSE, b"close"), (Opcode.PING, b"ping"), (Opcode.PONG, b"pong")):
            outgoing.write_control(opcode, frame)
        transport.flow()
        assert transport.value() == b"pongpingdataclose"

    def test_a_flood_of_pongs_keeps_one(self) -> None:
        outgoing, transport = stalled()
        for number in range(100_000):
            outgoing.write_control(Opcode.PONG, b"%d" % number)
        assert outgoing.buffered == 1
        transport.flow()
        assert transport.value() == b"99999"

    def test_several_pings_keep_their_order(self) -> None:
        outgoing, transport = stalled()
        outgoing.write(b"data")
        for ping in (b"one", b"two", b"three"):
            outgoing.write_control(Opcode.PING, ping)
        assert queued(outgoing) == len(b"dataonetwothree")
        transport.flow()
        assert transport.value() == b"onetwothreedata"

    def test_control_frames_are_accepted_at_the_limit(self) -> None:
        outgoing, transport = stalled()
        outgoing.write(bytes(1000))
        outgoing.write_control(Opcode.PING, b"ping")
        outgoing.write_control(Opcode.CLOSE, b"close")
        transport.flow()
        assert transport.value() == b"ping" + bytes(1000) + b"close"

    def test_a_close_is_the_next_frame_after_a_discard(self) -> None:
        outgoing, transport = stalled()
        outgoing.write(b"data")
        outgoing.write_control(Opcode.PONG, b"pong")
        outgoing.discard()
        outgoing.write_control(Opcode.CLOSE, b"close")
        assert queued(outgoing) == len(b"close")
        transport.flow()
        assert transport.value() == b"close"


class TestDrain:
    """`drain`: fires when the pending data has fallen to the low-water mark."""

    @pytest.mark.parametrize("kept", [98, 99, 100])
    def test_drain_fires_at_low_water(self, kept: int) -> None:
        outgoing, transport = stalled()
        outgoing.write(bytes(kept))
        drained = outgoing.drain()
        assert drained.called == (kept <= 99)
        transport.flow()
        assert drained.called

    def test_the_objects_for_waiting_are_freed_after_use(self) -> None:
        """An idle connection has neither, for the sake of its memory."""
        outgoing, transport = stalled()

        def parts() -> tuple[object, object]:
            # No public name shows them.
            return outgoing._queue, outgoing._waiters

        outgoing.write(b"x" * 500)
        done = [outgoing.drain(), outgoing.flush()]
        outgoing.register(Socket())
        assert None not in parts()
        outgoing.unregister()
        transport.flow()
        assert all(deferred.called for deferred in done)
        assert parts() == (None, None)

    def test_drain_fires_at_once_if_no_data_is_pending(self) -> None:
        assert make(Socket()).drain().called

    def test_drain_fires_as_soon_as_the_first_write_has_left(self) -> None:
        socket = Socket()
        outgoing = make(socket)
        outgoing.write(bytes(500))
        outgoing.write(bytes(100))
        drained = outgoing.drain()
        socket.flow(499)
        assert not drained.called
        socket.flow(1)
        # The socket has accepted no byte of the second write.
        assert outgoing.buffered == 100
        assert drained.called

    def test_drain_fails_when_the_connection_ends(self) -> None:
        outgoing, _ = stalled()
        outgoing.write(bytes(500))
        waiting = [outgoing.drain(), outgoing.drain()]
        outgoing.lost(ConnectionLost())
        failures: list[Failure] = []
        for one in waiting:
            one.addErrback(failures.append)
        assert [failure.type for failure in failures] == [ConnectionLost] * 2

    def test_a_cancelled_drain_changes_nothing(self) -> None:
        outgoing, transport = stalled()
        outgoing.write(bytes(500))
        stays, goes = outgoing.drain(), outgoing.drain()
        goes.cancel()
        failures: list[Failure] = []
        goes.addErrback(failures.append)
        assert failures[0].check(CancelledError)
        transport.flow()
        assert stays.called

    @pytest.mark.parametrize("lost", [False, True])
    def test_a_callback_of_a_drain_may_cancel_another_drain(self, lost: bool) -> None:
        outgoing, transport = stalled()
        outgoing.write(bytes(500))
        waiting: list[Deferred[None]] = [outgoing.drain(), outgoing.drain()]
        outcomes: list[Any] = []

        def cancel_others(result: Any) -> None:
            outcomes.append(result)
            for one in waiting:
                one.cancel()

        for one in waiting:
            one.addBoth(cancel_others)
        if lost:
            outgoing.lost(ConnectionLost())
        else:
            transport.flow()
        assert len(outcomes) == 2
        assert outcomes[1].check(CancelledError)

    def test_a_callback_that_sends_must_wait_again(self) -> None:
        outgoing, transport = stalled()
        outgoing.write(bytes(500))
        again: list[Deferred[None]] = []

        def send_on(_: None) -> None:
            transport.stalled = True
            outgoing.write(b"-")
            outgoing.write(bytes(600))
            again.append(outgoing.drain())

        outgoing.drain().addCallback(send_on)
        transport.flow()
        assert not again[0].called
        transport.flow()
        assert again[0].called


class TestFinish:
    """The end of the connection after all pending frames."""

    def test_the_end_comes_at_once_if_no_frame_is_pending(self) -> None:
        transport = Stalling()
        outgoing = make(transport)
        finished: list[bool] = []
        outgoing.finish(lambda: finished.append(transport.producer is None))
        outgoing.finish(lambda: finished.append(False))
        assert finished == [True]
        assert outgoing.finished
        assert not outgoing.free

    def test_the_end_comes_once_after_the_last_frame(self) -> None:
        outgoing, transport = stalled()
        outgoing.write(b"abc")
        finished: list[int] = []
        outgoing.finish(lambda: finished.append(1))
        outgoing.finish(lambda: finished.append(2))
        assert not finished
        transport.flow()
        assert len(finished) == 1
        assert transport.value() == b"abc"

    def test_a_lost_connection_never_calls_the_end(self) -> None:
        outgoing, _ = stalled()
        outgoing.write(b"abc")
        finished: list[bool] = []
        outgoing.finish(lambda: finished.append(True))
        outgoing.lost(ConnectionLost())
        outgoing.outlet.resumeProducing()
        assert not finished
        assert queued(outgoing) == 0


class TestClose:
    """The end of a plain TCP connection after both close frames."""

    def finished(self, socket: Socket) -> Outgoing:
        outgoing = make(socket)
        outgoing.finish(lambda: None)
        outgoing.outlet.close()
        return outgoing

    def test_a_socket_without_waiting_bytes_is_closed_in_the_next_turn_without_a_write(self) -> None:
        socket = Socket()
        self.finished(socket)
        assert (socket.lost, socket.writing) == ([], False)
        socket.turns.advance(0)
        assert (socket.lost, socket.writing) == ([ConnectionDone], False)

    def test_a_connection_that_is_lost_meanwhile_is_lost_once(self) -> None:
        socket = Socket()
        self.finished(socket).lost(ConnectionLost())
        socket.turns.advance(0)
        assert not socket.lost

    def test_bytes_that_wait_in_the_transport_leave_first(self) -> None:
        socket = Socket()
        socket.write(b"abc")
        self.finished(socket)
        socket.turns.advance(0)
        assert (socket.lost, socket.disconnecting, socket.writing) == ([], 1, True)

    @pytest.mark.parametrize("attribute", ["disconnecting", "TLS"])
    def test_a_transport_that_other_code_closes_or_encrypts_closes_as_it_does_itself(self, attribute: str) -> None:
        socket = Socket()
        setattr(socket, attribute, 1)
        self.finished(socket)
        assert not socket.turns.getDelayedCalls()


writes = st.one_of(st.binary(min_size=1, max_size=40), st.integers(0, 30))


@given(st.integers(0, 30), st.lists(writes, max_size=60))
def test_a_socket_gets_every_byte_once_in_order(room: int, steps: list[Any] | list[bytes] | list[int]) -> None:
    """A step is either bytes to write, or a number of bytes that the socket accepts next."""
    socket = Socket(room)
    outgoing = make(socket, max_buffered=1 << 20)
    written = b""
    for step in steps:
        if isinstance(step, bytes):
            outgoing.write(step)
            written += step
        else:
            socket.flow(step)
        assert written.startswith(socket.taken)
        assert outgoing.buffered >= len(written) - len(socket.taken)
        assert outgoing.free == (len(socket.taken) == len(written))
    socket.flow(len(written))
    assert socket.taken == written
    assert (outgoing.buffered, outgoing.free) == (0, True)


def long_frame(size: int, first: int = 0x82) -> LongFrame:
    payload = bytes(range(256)) * (size // 256 + 1)
    return LongFrame(encode_header(first, size), memoryview(payload)[:size], size)


class TestLongFrames:
    """RFC 6455 §5.5: frames that take several writes, with no control frame inside them."""

    @pytest.mark.parametrize("room", [0, 1, 9, 10, 11, HAND_OVER, HAND_OVER + 10, 299_999, 300_010])
    def test_a_socket_that_takes_a_part_gets_the_rest_later(self, room: int) -> None:
        socket, frame = Socket(room=room), long_frame(300_000)
        outgoing = make(socket, max_buffered=1 << 20)
        outgoing.write(frame)
        assert outgoing.buffered == 300_010 - room
        # The transport copies its data, so it gets little at once.
        assert socket.given <= HAND_OVER + 10
        while outgoing.buffered:
            socket.flow(100_000)
        assert socket.taken == bytes(frame)
        assert outgoing.free and not outgoing.waiting

    @pytest.mark.parametrize("room", [0, 5, 10, 100])
    def test_no_control_frame_gets_into_a_long_frame(self, room: int) -> None:
        socket, frame = Socket(room=room), long_frame(300_000)
        outgoing = make(socket, max_buffered=1 << 20)
        outgoing.write(frame)
        outgoing.write(frame)
        outgoing.write_control(Opcode.PONG, b"pong")
        outgoing.write_control(Opcode.PING, b"ping")
        outgoing.write_control(Opcode.CLOSE, b"close")
        while outgoing.buffered:
            socket.flow(70_001)
        assert socket.taken == bytes(frame) + b"pongping" + bytes(frame) + b"close"

    def test_the_memory_of_a_message_counts_until_its_last_frame_has_left(self) -> None:
        socket = Socket(room=0)
        outgoing = make(socket, max_buffered=1 << 20)
        payload = memoryview(bytes(300_000))
        header = encode_header(0x02, 100_000)
        for at in range(0, 300_000, 100_000):
            outgoing.write(LongFrame(header, payload[at : at + 100_000], at + 100_000))
        counted = [outgoing.waiting]
        for room in (100_000, 100_010, 100_020):
            socket.flow(room)
            counted.append(outgoing.waiting)
        assert all(300_000 <= count <= 300_000 + 500 for count in counted[:-1])
        assert counted[-1] == 0

    @pytest.mark.parametrize("size", [999_989, 999_990, 999_991])
    def test_the_limit_is_exact(self, size: int) -> None:
        outgoing = make(Socket(room=0), max_buffered=1_000_000 + 2, slow_reader="pause")
        outgoing.write(b"--")
        frame = long_frame(size)
        assert outgoing.waiting == 0
        outgoing.write(frame)
        assert outgoing.waiting == size + 10

    def test_another_transport_gets_a_long_frame_in_parts(self) -> None:
        transport, frame = Stalling(), long_frame(300_000)
        outgoing = make(transport, max_buffered=1 << 20)
        outgoing.write(frame)
        assert transport.value() == bytes(frame)
        transport.clear()
        transport.stalled = True
        outgoing.write(frame)
        assert len(transport.value()) == HAND_OVER
        assert outgoing.buffered == 300_010
        outgoing.write_control(Opcode.PING, b"ping")
        transport.flow()
        assert transport.value() == bytes(frame) + b"ping"

    def test_a_socket_without_sendmsg_gets_a_long_frame_by_send(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Socket, "sendmsg", None)
        socket, frame = Socket(room=100_000), long_frame(300_000)
        outgoing = make(socket, max_buffered=1 << 20)
        outgoing.write(frame)
        socket.flow(400_000)
        assert socket.taken == bytes(frame)

    def test_a_broken_socket_takes_nothing(self) -> None:
        socket = Socket(room=0)
        socket.broken = ConnectionResetError()
        outgoing = make(socket, max_buffered=1 << 20)
        outgoing.write(long_frame(300_000))
        assert (socket.taken, outgoing.free) == (b"", False)
        outgoing.lost(ConnectionLost())
        assert (outgoing.buffered, outgoing.waiting) == (0, 0)

    def test_waiting_frames_are_handed_over_for_tls(self) -> None:
        socket, frame = Socket(room=100), long_frame(300_000)
        outgoing = make(socket, max_buffered=1 << 20)
        outgoing.write(frame)
        outgoing.write(frame)
        outgoing.hand_over_all()
        assert (queued(outgoing), outgoing.waiting) == (0, 0)
        socket.flow(1 << 20)
        assert socket.taken == 2 * bytes(frame)

    @pytest.mark.parametrize("room", [0, 5, 10, 100, 200_000])
    def test_a_transport_may_ask_for_more_while_it_writes(self, room: int) -> None:
        class Eager(Socket):
            def write(self, data: bytes) -> None:
                super().write(data)
                self.flow(1 << 20)

        socket, frame = Eager(room=room), long_frame(300_000)
        outgoing = make(socket, max_buffered=1 << 20)
        outgoing.write(frame)
        outgoing.write_control(Opcode.PING, b"ping")
        assert socket.taken == bytes(frame) + b"ping"
        assert (outgoing.buffered, outgoing.waiting, outgoing.free) == (0, 0, True)
